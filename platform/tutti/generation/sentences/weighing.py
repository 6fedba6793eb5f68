"""What was heard of each control, weighed: figures before words, words before what an occasion implies.

What two words of one rank say against each other is a contradiction, told by both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutti.features.mood import mood_word
from tutti.features.vocabulary import INSTRUMENTS
from tutti.units import MAX_LENGTH_S, MAX_TEMPO_QPM, MIN_LENGTH_S, MIN_TEMPO_QPM

NEITHER_SLOW_NOR_FAST_QPM = 100.0
CONTROLS = (
    "mood", "tempo", "key", "scale", "chords", "meter", "form", "density", "difficulty", "instruments", "pitch_range",
    "polyphony", "length", "bars",
)  # fmt: skip
"""What sentences speak of, in the order in which it is shown."""

FIGURE, WORD, IMPLIED, SCENE = range(4)
"""Ranks of what is heard; a lower one wins."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One stretch of the sentence and what it says of one control.

    Args:
        value: as in :class:`~tutti.generation.sentences.lexicon.Meaning`.
        words: as they stand in the sentence.
        rank: :data:`FIGURE`, :data:`WORD`, :data:`IMPLIED` or :data:`SCENE`.
        negated: the words before it deny it.
        softened: "not too" or its like stands before it.
        bend: 1 for "very", -1 for "a bit", else 0.
        near: the known scene that it sounds like.
    """

    control: str
    value: Any
    words: str
    rank: int
    negated: bool = False
    softened: bool = False
    bend: int = 0
    near: str = ""


@dataclass(frozen=True, slots=True)
class Reason:
    """A control that was set: its value, and the words, in one line for people."""

    control: str
    value: Any
    text: str
    words: tuple[str, ...]


@dataclass
class Weighed:
    """What came of all that was heard.

    Args:
        reasons: for each control that was set, in the order of :data:`CONTROLS`.
        not_held: what was understood and no control can hold, a line each.
        contradictions: control to what stands against what.
    """

    reasons: list[Reason] = field(default_factory=list)
    not_held: list[str] = field(default_factory=list)
    contradictions: dict[str, str] = field(default_factory=dict)


class _ContradictionError(Exception):
    """Two words of one rank say different things of one control."""


def _strongest(heard: Sequence[Heard]) -> list[Heard]:
    positive = [each for each in heard if not each.negated]
    best = min((each.rank for each in positive), default=None)
    return [each for each in positive if each.rank == best]


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(f"'{each}'" for each in dict.fromkeys(words))


def _words(heard: Sequence[Heard]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.words for each in heard))


def _from(heard: Sequence[Heard]) -> str:
    near = next((each for each in heard if each.near), None)
    return f"from {_quoted(_words(heard))}" + (f", which sounds like '{near.near}'" if near else "")


def _one(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    """A control with one value."""
    said = _strongest(heard)
    denied = [each for each in heard if each.negated]
    if not said:
        not_held.append(f"{control} can be asked and not forbidden: 'not {denied[0].words}' is left open")
        return None
    if len({each.value for each in said}) > 1:
        first, other = said[0], next(each for each in said if each.value != said[0].value)
        raise _ContradictionError(f"{control} {first.value} by '{first.words}' and {other.value} by '{other.words}'")
    value = said[0].value
    if control == "length" and not MIN_LENGTH_S <= value <= MAX_LENGTH_S:
        raise _ContradictionError(
            f"'{said[0].words}' is {value:g} s, and a piece has {MIN_LENGTH_S:g} s to {MAX_LENGTH_S:g} s"
        )
    shown = (
        f"{value:g} seconds"
        if control == "length"
        else f"{value} notes at once at most"
        if control == "polyphony"
        else value
    )
    return Reason(control, value, f"{shown}, {_from(said)}", _words(said))


def _tempo(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    said = _strongest(heard)
    if not said:
        denied = [each for each in heard if each.negated]
        words = _words(denied)
        return _tempo_reason(
            NEITHER_SLOW_NOR_FAST_QPM,
            f"neither slow nor fast, from {_quoted(['not ' + each for each in words])}",
            words,
        )
    values = {each.value for each in said}
    if said[0].rank == FIGURE:
        value = float(_one(control, said, not_held).value)  # type: ignore[union-attr]
        if not MIN_TEMPO_QPM <= value <= MAX_TEMPO_QPM:
            raise _ContradictionError(
                f"'{said[0].words}' is {value:g} quarter notes a minute, "
                f"and a piece has {MIN_TEMPO_QPM:g} to {MAX_TEMPO_QPM:g}"
            )
        return _tempo_reason(value, _from(said), _words(said))
    slow, fast = [each for each in said if each.value <= 80], [each for each in said if each.value >= 120]
    if slow and fast and said[0].rank == WORD:
        raise _ContradictionError(
            f"tempo {slow[0].value} by '{slow[0].words}' and {fast[0].value} by '{fast[0].words}', "
            "quarter notes a minute"
        )
    extreme = max(values) if fast else min(values)
    bend = next((each.bend for each in said if each.value == extreme), 0)
    value = _bent(extreme, bend)
    return _tempo_reason(value, _from(said), _words(said))


def _bent(value: float, bend: int) -> float:
    """A tempo under "very" or "a bit"."""
    if not bend or 80 < value < 120:
        return float(value)
    away = {1: (50, 168), -1: (76, 126)}[bend]
    slow = value <= 80
    bent = away[0] if slow else away[1]
    return float((min if slow == (bend > 0) else max)(value, bent))


def _tempo_reason(value: float, why: str, words: tuple[str, ...]) -> Reason:
    return Reason("tempo", value, f"{value:g} quarter notes a minute, {why}", words)


_DENSER = {"sparse": {1: "very_sparse", -1: "sparse"}, "dense": {1: "very_dense", -1: "dense"}}


def _density(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    said = _strongest(heard)
    if not said:
        denied = [each for each in heard if each.negated]
        value = "sparse" if any(each.value == "dense" and not each.softened for each in denied) else "medium"
        return Reason(control, value, f"{value}, from 'not {denied[0].words}'", _words(denied))
    reason = _one(control, said, not_held)
    assert reason is not None
    bend = max((each.bend for each in said), default=0)
    value = _DENSER.get(reason.value, {}).get(bend, reason.value)
    return Reason(control, value, f"{value}, {_from(said)}", _words(said))


def _mood(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    said = _strongest(heard)
    not_held += [
        f"a mood can be asked and not forbidden: 'not {each.words}' is left open"
        for each in heard
        if each.negated and each.rank == WORD
    ]
    if not said:
        return None
    if any(each.value == (0, 0) for each in said):
        said = [each for each in said if each.value == (0, 0)]
    for axis, name in enumerate(("valence", "arousal")):
        low = next((each for each in said if each.value[axis] <= -0.5), None)
        high = next((each for each in said if each.value[axis] >= 0.5), None)
        if low and high and said[0].rank == WORD:
            raise _ContradictionError(
                f"'{low.words}' and '{high.words}' ask for opposite moods "
                f"({name} {low.value[axis]:g} and {high.value[axis]:g})"
            )
    valence, arousal = (sum(each.value[axis] for each in said) / len(said) for axis in (0, 1))
    mood = mood_word(valence, arousal)
    return Reason(control, mood, f"{mood} (valence {valence:.1f}, arousal {arousal:.1f}), {_from(said)}", _words(said))


def _instruments(control: str, heard: Sequence[Heard], _: list[str]) -> Reason | None:
    said = [each for each in heard if not each.negated]
    denied = [each for each in heard if each.negated]
    wanted = {family for each in said for family in each.value}
    forbidden = {family for each in denied for family in each.value}
    if both := wanted & forbidden:
        yes = next(each for each in said if both & set(each.value))
        no = next(each for each in denied if both & set(each.value))
        raise _ContradictionError(f"'{yes.words}' is asked for and 'no {no.words}' forbids it")
    playing = tuple(name for name in INSTRUMENTS if (name in wanted if wanted else name not in forbidden))
    why = [_from(said)] if said else []
    why += [f"without {_quoted(_words(denied))}"] if denied else []
    shown = " and ".join(playing) if wanted else f"all but {' and '.join(sorted(forbidden))}"
    return Reason(control, playing, f"{shown}, {', '.join(why)}", _words(heard))


_INTO: Mapping[str, Callable[[str, Sequence[Heard], list[str]], Reason | None]] = {
    "mood": _mood, "tempo": _tempo, "density": _density, "instruments": _instruments,
}  # fmt: skip


def weigh(heard: Sequence[Heard]) -> Weighed:
    """Decide between all that was heard."""
    weighed = Weighed()
    for control in CONTROLS:
        of_it = [each for each in heard if each.control == control]
        if of_it:
            try:
                reason = _INTO.get(control, _one)(control, of_it, weighed.not_held)
            except _ContradictionError as error:
                weighed.contradictions[control] = str(error)
                continue
            weighed.reasons += [] if reason is None else [reason]
    _one_length(weighed, heard)
    return weighed


def _one_length(weighed: Weighed, heard: Sequence[Heard]) -> None:
    """A length in bars takes the place of one in seconds that is less surely said."""
    by_control = {reason.control: reason for reason in weighed.reasons}
    if not {"length", "bars"} <= set(by_control):
        return
    length, bars = by_control["length"], by_control["bars"]
    ranks = {each.control: each.rank for each in heard}
    if ranks["length"] == ranks["bars"]:
        weighed.contradictions["length"] = (
            f"{_quoted(length.words)} is a length in seconds and {_quoted(bars.words)} one in bars"
        )
    weighed.reasons.remove(length)
