"""Controls that cannot hold together, refused by name before anything runs.

Each rule says in one line what contradicts what, and what to leave out. They are asked whenever a request is made,
so the command line, an order and the service refuse with the same line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from tutti.generation.form import layout
from tutti.generation.form.text import USUAL_FORM_LENGTH_S
from tutti.generation.length import USUAL_LENGTH_S, rounds_of_length, seconds_of_bar
from tutti.units import MAX_TEMPO_QPM, MIN_TEMPO_QPM, PITCH_CLASSES, PitchRange

if TYPE_CHECKING:
    from tutti.generation.request import Request

_PITCHED = ("key", "scale", "pitch_range", "chords")
_MOST_BARS = 512


def refuse(request: Request) -> None:
    """Refuse a request whose controls contradict each other.

    Raises:
        ValueError: the first contradiction, in one line.
    """
    if (line := found(request)) is not None:
        raise ValueError(line)


def found(request: Request) -> str | None:
    """The first contradiction, in one line."""
    return next((line for rule in RULES if (line := rule(request)) is not None), None)


def _drums_alone(request: Request) -> str | None:
    asked = [name for name in _PITCHED if getattr(request, name) is not None]
    if request.instruments == ("drums",) and asked:
        return f"drums alone have no {_list(asked)}: leave it out, or ask for another instrument"
    return None


def _length_twice(request: Request) -> str | None:
    # The usual length was written into orders and takes that asked for bars.
    usual_s = USUAL_LENGTH_S if request.form is None else USUAL_FORM_LENGTH_S
    if request.bars is not None and request.length is not None and request.length_s != usual_s:
        return f"length {request.length_s:g} s and bars {request.bars} both say how long: leave out one of them"
    return None


def _no_bar(request: Request) -> str | None:
    if request.bars is not None or request.tempo is None or request.meter is None or request.chords is not None:
        return None
    bar_s = seconds_of_bar(request.meter_or_usual, tempo_qpm=request.tempo)
    if 2 * request.length_s < bar_s:
        return (
            f"length {request.length_s:g} s is less than half a bar of {request.meter} at tempo {request.tempo:g}, "
            f"{bar_s:.3g} s: ask for a longer one, a faster tempo or another meter"
        )
    return None


def _scale_without_tonic(request: Request) -> str | None:
    scale = request.asked_scale
    if scale is not None and scale.tonic is None and scale.name != "chromatic":
        return f"scale {request.scale!r} has no tonic: write it like 'C {scale.name}', or ask for a key"
    return None


def _key_and_scale(request: Request) -> str | None:
    key, scale = request.tonality, request.asked_scale
    if key is None or scale is None:
        return None
    if scale.name == "chromatic":
        return None
    if scale.tonic != key.tonic:
        return f"scale '{scale}' is not on the tonic of key '{key}': leave out one of them"
    foreign = scale.pitch_classes - key.pitch_classes
    if foreign:
        return f"scale '{scale}' has {_names(foreign)}, which key '{key}' has not: leave out one of them"
    return None


def _chords_and_key(request: Request) -> str | None:
    if request.progression is None or (request.key is None and request.scale is None):
        return None
    classes = request.pitch_classes
    for number, bar in enumerate(request.progression.bars, start=1):
        for chord, _ in bar:
            if foreign := chord.tones - classes:
                name = f"scale '{request.asked_scale}'" if request.scale is not None else f"key '{request.key}'"
                what = f"chords: {chord.text!r} in bar {number} has {_names(foreign)}, which {name} has not"
                return f"{what}: leave out one of them; without a key each chord has its own scale"
    return None


def _range_without_player(request: Request) -> str | None:
    absent = [name for name in request.ranges if request.instruments and name not in request.instruments]
    if absent:
        return f"pitch_range names {_list(absent)}, and only {_list(list(request.instruments))} may play: leave it out"
    return None


def _range_and_key(request: Request) -> str | None:
    if request.pitch_range is None or request.progression is not None:
        return None
    if (held := _outside(request, request.home_classes)) is not None:
        name = f"scale '{request.asked_scale}'" if request.scale is not None else f"key '{request.key}'"
        return f"{held} none of {_names(request.home_classes)}, on which a piece in {name} begins and ends: widen it"
    return None


def _range_and_chords(request: Request) -> str | None:
    if request.pitch_range is None or request.progression is None:
        return None
    for chord in request.progression.chords:
        if (held := _outside(request, chord.tones)) is not None:
            return f"{held} no tone of the chord {chord.text!r}: widen it"
        if request.polyphony != 1 and (held := _outside(request, [chord.bass])) is not None:
            return f"{held} no {PITCH_CLASSES[chord.bass]}, the bass of {chord.text!r}: widen it"
    return None


def _chords_and_length(request: Request) -> str | None:
    if request.progression is None:
        return None
    bars = len(request.progression)
    if bars > _MOST_BARS:
        return f"chords have {bars} bars: write at most {_MOST_BARS}"
    if request.bars is not None:
        if request.bars % bars:
            what = f"bars {request.bars} are no whole number of rounds of the {bars} bars of chords"
            return f"{what}: leave bars out, or ask for {_multiples(request.bars, bars)}"
        return None
    if request.length is None:
        return None
    round_quarters = bars * seconds_of_bar(request.meter_or_usual, tempo_qpm=60.0)
    rounds, tempo_qpm = rounds_of_length(request.length_s, round_quarters=round_quarters, tempo_qpm=request.tempo)
    round_s = 60 * round_quarters / tempo_qpm
    what = f"length {request.length_s:g} s and chords of {bars} bars do not go together"
    if not MIN_TEMPO_QPM <= tempo_qpm <= MAX_TEMPO_QPM:
        return f"{what}: they would need a tempo of {tempo_qpm:.0f}; leave the length out"
    if 2 * request.length_s < round_s:
        return f"{what}: they last {round_s:.3g} s at tempo {tempo_qpm:g}; leave the length out"
    if rounds * bars > _MOST_BARS:
        return f"{what}: {rounds * bars} bars are more than {_MOST_BARS}; ask for a shorter length"
    return None


def _start(request: Request) -> str | None:
    if request.start is None or request.start.kind != "interpolate":
        return None
    for name in ("chords", "difficulty"):
        if getattr(request, name) is not None:
            return f"{name} cannot hold on the way between two files: leave out one of them"
    return None


def _mood_twice(request: Request) -> str | None:
    numbers = [name for name in ("valence", "arousal") if getattr(request, name) is not None]
    if request.mood is not None and numbers:
        return f"mood {request.mood} and {_list(numbers)} both say a mood: leave out one of them"
    return None


RULES: tuple[Callable[[Request], str | None], ...] = (
    _drums_alone,
    _length_twice,
    _no_bar,
    _scale_without_tonic,
    _key_and_scale,
    _range_without_player,
    _chords_and_length,
    _chords_and_key,
    _range_and_key,
    _range_and_chords,
    _start,
    layout.contradicted,
    _mood_twice,
)
"""What is asked of every request, in this order."""


def _outside(request: Request, classes: Iterable[int]) -> str | None:
    """The range that holds none of these pitch classes, as the beginning of a sentence; None where one is reached.

    Of instruments that are asked for, one that reaches them is enough. Where the model chooses who plays, each must.
    """
    wanted = set(classes)

    def reached(compass: PitchRange) -> bool:
        return any(pitch % 12 in wanted for pitch in range(compass.low, compass.high + 1))

    ranges = request.ranges
    if not ranges:
        return None if reached(request.compass) else f"pitch_range {request.pitch_range} holds"
    reach = {name: reached(compass) for name, compass in ranges.items()}
    pitched = [name for name in request.instruments if name != "drums"]
    if all(reach.values()) or any(reach.get(name, True) for name in pitched):
        return None
    short = [f"{name} {ranges[name]}" for name, reaches in reach.items() if not reaches]
    return f"pitch_range of {_list(short)} holds"


def _multiples(bars: int, of: int) -> str:
    low = bars // of * of
    return f"{low} or {low + of}" if low else f"{of}"


def _names(classes: Iterable[int]) -> str:
    return _list([PITCH_CLASSES[each] for each in sorted(classes)])


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
