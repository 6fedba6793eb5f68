"""How the bars of a piece are shared among its sections, and those of a section among its phrases.

Sections come in fours of bars, as phrases do. A section longer than a phrase has a small form of its own
(:data:`PATTERNS`), so that one of a minute is no minute without a repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tutti import seeding
from tutti.generation.form.text import FEWEST_BARS, MOST_SECTIONS, SHORT, Section, bars_of_form, sections_of
from tutti.generation.length import bars_of_length, exact_tempo, quarters_of, seconds_of_bar
from tutti.units import MAX_TEMPO_QPM, MIN_TEMPO_QPM

if TYPE_CHECKING:
    from tutti.generation.request import Request

PHRASE_BARS = 8
PATTERNS = ("a", "a a'", "a b a", "a a' b a", "a a' b b' a", "a a' b b' a a''", "a a' b a c c' a", "a a' b a c c' b a")
"""Phrases of a section of one to eight."""
USUAL_TEMPOS_QPM = (76.0, 84.0, 92.0, 100.0, 108.0, 116.0)
"""Quarter notes a minute, of which a form whose tempo is open draws one."""
MOST_OPEN_QPM = 160.0
"""To which an open tempo may rise, so that all sections have their bars."""
_WHOLE_SECTIONS = 0.12
"""By how much an open tempo may change so that all sections are equally long."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A form at its length.

    Args:
        sections: in their order.
        bars: of each section.
        tempo_qpm: of the whole piece, quarter notes a minute.
        meter: of the whole piece.
    """

    sections: tuple[Section, ...]
    bars: tuple[int, ...]
    tempo_qpm: float
    meter: tuple[int, int]


def extent_of(request: Request, *, open_qpm: float | None = None) -> Extent:
    """Sections of a request with a form, their bars, and the tempo at which they last as long as was asked.

    Args:
        open_qpm: tempo to be near to where none is asked; None: drawn by the request's seed.
    """
    assert request.form is not None
    meter = request.meter_or_usual
    if open_qpm is None:
        open_qpm = USUAL_TEMPOS_QPM[seeding.derive(request.seed, "form", "tempo") % len(USUAL_TEMPOS_QPM)]
    length_s = request.length_s
    if request.bars is not None:
        length_s = request.bars * seconds_of_bar(meter, tempo_qpm=request.tempo or open_qpm)
    sections = sections_of(request.form, length_s=length_s)
    stated = bars_of_form(request.form)
    if stated is not None:
        tempo_qpm = request.tempo or open_qpm
        if request.tempo is None and request.length is not None:
            tempo_qpm = exact_tempo(request.length_s, bars=stated, meter=meter)
        return Extent(sections, tuple(section.bars or 0 for section in sections), tempo_qpm, meter)
    bars, tempo_qpm = _whole(request, sections, open_qpm=open_qpm)
    return Extent(sections, tuple(shared(sections, bars)), tempo_qpm, meter)


def contradicted(request: Request) -> str | None:
    """What a request's form contradicts, in one line."""
    if request.form is None:
        return None
    for name in ("chords", "start"):
        if getattr(request, name) is not None:
            return f"form and {name} both say how the piece goes: leave out one of them"
    stated = bars_of_form(request.form)
    if stated is not None:
        return _stated_contradiction(request, stated)
    sections = sections_of(request.form, length_s=request.length_s)
    bars = request.bars
    if bars is None:
        bars = int(request.length_s / seconds_of_bar(request.meter_or_usual, tempo_qpm=request.tempo or MOST_OPEN_QPM))
    least = FEWEST_BARS * len(sections)
    if bars < least:
        return (
            f"form {request.form!r} has {len(sections)} sections of at least {FEWEST_BARS} bars, and there are {bars} "
            f"bars: ask for {least} bars or more, or for a form of fewer sections"
        )
    return None


def _stated_contradiction(request: Request, stated: int) -> str | None:
    if request.bars is not None and request.bars != stated:
        return f"form has {stated} bars and bars says {request.bars}: leave bars out"
    if request.length is None or request.bars is not None:
        return None
    if request.tempo is not None:
        return f"form of {stated} bars at tempo {request.tempo:g} has a length of its own: leave length or tempo out"
    needed = exact_tempo(request.length_s, bars=stated, meter=request.meter_or_usual)
    if not MIN_TEMPO_QPM <= needed <= MAX_TEMPO_QPM:
        return f"form of {stated} bars would need tempo {needed:.0f} to last {request.length_s:g} s: leave length out"
    return None


def _whole(request: Request, sections: Sequence[Section], *, open_qpm: float) -> tuple[int, float]:
    """Bars of the piece and its tempo."""
    meter, least = request.meter_or_usual, FEWEST_BARS * len(sections)
    if request.bars is not None:
        return request.bars, request.tempo or open_qpm
    if request.tempo is not None:
        return bars_of_length(request.length_s, tempo_qpm=request.tempo, meter=meter), request.tempo
    wanted = request.length_s * open_qpm / 60 / quarters_of(meter)
    for unit in (round(FEWEST_BARS * sum(section.weight for section in sections) * 2) // 2, FEWEST_BARS, 1):
        bars = max(round(wanted / unit) * unit, -(-least // unit) * unit)
        tempo_qpm = exact_tempo(request.length_s, bars=bars, meter=meter)
        if unit == 1 or abs(tempo_qpm / open_qpm - 1) <= _WHOLE_SECTIONS:
            break
    return bars, tempo_qpm


def shared(sections: Sequence[Section], bars: int) -> list[int]:
    """Bars of each section: fours, one letter's all alike, but that the last section has what is left over.

    Args:
        bars: of the piece; at least four a section.
    """
    weights = [section.weight for section in sections]
    whole = bars / sum(weights) / FEWEST_BARS
    fours = {section.name: max(int(whole * section.weight), 1) for section in sections}

    def used() -> int:
        return FEWEST_BARS * sum(fours[section.name] for section in sections)

    while used() > bars:
        fours[max(fours, key=lambda name: fours[name])] -= 1
    for name in sorted(fours, key=lambda name: name in SHORT):
        least = min((count for other, count in fours.items() if other not in SHORT), default=MOST_SECTIONS)
        fours[name] += name not in SHORT or fours[name] < least
        if used() > bars:
            fours[name] -= 1
    found = [FEWEST_BARS * fours[section.name] for section in sections]
    found[-1] += bars - used()
    return found


def phrases(bars: int) -> list[tuple[str, int]]:
    """Name and bars of each phrase of a section; a name that returns is as long as before, but for the last phrase."""
    count = min(max(round(bars / PHRASE_BARS), 1), len(PATTERNS))
    names = PATTERNS[count - 1].split()
    each = bars // count // 2 * 2 if count > 1 else bars
    return [(name, each) for name in names[:-1]] + [(names[-1], bars - each * (count - 1))]
