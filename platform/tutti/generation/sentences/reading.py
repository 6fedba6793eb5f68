"""A sentence as controls of a request, each with the words that it comes from.

Figures win over words, words over what an occasion implies, and that over what only sounds like a known scene. What
two words of one rank say against each other is a contradiction; what nothing was made of is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tutti.errors import RecipeError
from tutti.features.mood import mood_word
from tutti.features.vocabulary import INSTRUMENTS
from tutti.generation.sentences import lexicon
from tutti.generation.sentences.figures import Figure, figures
from tutti.generation.sentences.lexicon import Item, Meaning
from tutti.generation.sentences.text import MAX_CHARACTERS, plain
from tutti.units import MAX_LENGTH_S, MAX_TEMPO_QPM, MIN_LENGTH_S, MIN_TEMPO_QPM

NEITHER_SLOW_NOR_FAST_QPM = 100.0
CONTROLS = ("mood", "tempo", "key", "meter", "density", "instruments", "length", "bars", "polyphony", "difficulty")

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


@dataclass(frozen=True)
class Reading:
    """What a sentence became.

    Args:
        sentence: in one line.
        reasons: a reason for each control that was set, in the order of :data:`CONTROLS`.
        not_understood: stretches that nothing was made of.
        not_held: what was understood and no control can hold, a line each.
        contradictions: control to what stands against what.
    """

    sentence: str
    reasons: tuple[Reason, ...] = ()
    not_understood: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    contradictions: Mapping[str, str] = field(default_factory=dict)

    @property
    def controls(self) -> dict[str, Any]:
        """Fields of a request."""
        return {reason.control: reason.value for reason in self.reasons}

    def beside(self, given: Collection[str]) -> dict[str, Any]:
        """Fields that join those which are ``given`` outright and win.

        Raises:
            RecipeError: the sentence contradicts itself on something that is not given.
        """
        settled = {*given, *({"length", "bars"} if {"length", "bars"} & set(given) else ())}
        for control, text in self.contradictions.items():
            if control not in settled:
                raise RecipeError(f"the sentence contradicts itself: {text}", remedy="say one of them")
        return {control: value for control, value in self.controls.items() if control not in settled}

    def lines(self, given: Collection[str] = ()) -> list[str]:
        """For people: a line for each control, then what was not understood."""
        used = self.beside(given)
        shown = [f"{reason.control:<12} {reason.text}" for reason in self.reasons if reason.control in used]
        shown += [f"{'left out':<12} {reason.text}: given outright" for reason in self.reasons if reason.control not in used]
        shown += [f"{'not held':<12} {text}" for text in self.not_held]
        if self.not_understood:
            shown.append("not understood: " + ", ".join(f"'{words}'" for words in self.not_understood))
        return shown


Scenes = Callable[[Sequence[str], Collection[str]], list[Heard]]
"""What stretches sound like, for the controls named: :meth:`tutti.generation.sentences.scenes.Scenes.hear`."""


def read(sentence: str, *, scenes: Scenes | None = None) -> Reading:
    """Read a sentence by rules, and by what it sounds like where those leave something open.

    Args:
        scenes: what hears by embeddings; None: rules alone.

    Raises:
        RecipeError: nothing to read, or too long.
    """
    text = plain(sentence)
    if not any(sign.isalnum() for sign in text):
        raise RecipeError("the sentence is empty", remedy='say what the piece is like, such as "calm piano, slow"')
    if len(text) > MAX_CHARACTERS:
        raise RecipeError(
            f"the sentence has {len(text)} characters, more than {MAX_CHARACTERS}", remedy="say it in fewer words"
        )
    said = figures(text)
    rest = _without(text, said).lower()
    items = lexicon.known().items(rest)
    heard = [Heard(each.control, each.value, text[each.start : each.end], FIGURE) for each in said]
    heard += _terms(items, text)
    unknown = [text[item.start : item.end] for item in items if item.role == "unknown"]
    if scenes is not None:
        sounding = scenes(_clauses(text), {"mood", "tempo", "density"} - {each.control for each in heard})
        heard += sounding
        explained = " ".join(each.words for each in sounding)
        unknown = [words for words in unknown if words not in explained]
    return _resolved(text, heard, unknown)


def _without(text: str, said: Sequence[Figure]) -> str:
    signs = list(text)
    for figure in said:
        signs[figure.start : figure.end] = [" "] * (figure.end - figure.start)
    return "".join(signs)


def _clauses(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,.;!?:，。；！？、]", text) if part.strip()]


def _terms(items: Sequence[Item], text: str) -> list[Heard]:
    """What the terms among items say, under the bends before them."""
    heard: list[Heard] = []
    bends = _Bends(text)
    for at, item in enumerate(items):
        if item.role != "term":
            bends.pass_by(item, items[at + 1 :])
            continue
        after = items[at + 1] if at + 1 < len(items) else None
        free = after is not None and after.role == "after" and text[item.end : after.start] == "-"
        negated = bends.denies(item) or free
        heard += [
            Heard(
                meaning.control, meaning.value, text[item.start : item.end], IMPLIED if meaning.implied else WORD,
                negated=negated, softened=negated and bends.too, bend=bends.intensity,
            )
            for meaning in item.meanings
        ]  # fmt: skip
        bends.after_term()
    return heard


class _Bends:
    """Negation and intensity on the way through a sentence."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._denying = False
        self._denied: str | None = None
        self.too = False
        self.intensity = 0

    def pass_by(self, item: Item, following: Sequence[Item]) -> None:
        """Take in what is no term."""
        if item.role == "negators":
            # 除了 … 还要 … adds to what it names.
            rest = self._text[item.end :]
            self._denying = not (item.word == "除了" and re.match(r"[^。；]*?(还|也)[要有用]", rest))
            self._denied, self.too = None, False
        elif item.role == "too":
            self.too = self._denying
            self.intensity = 0 if self._denying else 1
        elif item.role == "more":
            self.intensity = 1
        elif item.role == "less":
            self.intensity = -1
        elif item.role in ("turns", "unknown") or (item.role == "break" and not self._goes_on(item, following)):
            self._denying, self.too, self.intensity = False, False, 0

    def denies(self, item: Item) -> bool:
        """Whether a term is denied: after a negator, and of the same control as what was denied before it."""
        control = item.meanings[0].control
        if self._denying and self._denied not in (None, control):
            self._denying = self.too = False
        if self._denying:
            self._denied = control
        return self._denying

    def after_term(self) -> None:
        """An intensity is spent on one term."""
        self.intensity = 0

    def _goes_on(self, item: Item, following: Sequence[Item]) -> bool:
        """Whether a list goes on over a comma: "no drums, bass or brass"."""
        if item.word == "、":
            return True
        if item.word not in ",，" or self._denied is None:
            return False
        for after in following:
            if after.role == "joins" and after.word in ("or", "nor", "或", "或者"):
                return True
            if after.role != "term" and not (after.role == "break" and after.word in ",，、"):
                return False
            if after.role == "term" and after.meanings[0].control != self._denied:
                return False
        return False


def _resolved(text: str, heard: Sequence[Heard], unknown: Sequence[str]) -> Reading:
    reasons: list[Reason] = []
    not_held: list[str] = []
    contradictions: dict[str, str] = {}
    for control in CONTROLS:
        of_it = [each for each in heard if each.control == control]
        if not of_it:
            continue
        try:
            reason = _INTO.get(control, _one)(control, of_it, not_held)
        except _ContradictionError as error:
            contradictions[control] = str(error)
            continue
        if reason is not None:
            reasons.append(reason)
    if {"length", "bars"} <= {reason.control for reason in reasons}:
        length, bars = (next(r for r in reasons if r.control == name) for name in ("length", "bars"))
        ranks = {each.control: each.rank for each in heard}
        if ranks["length"] == ranks["bars"]:
            contradictions["length"] = f"{_quoted(length.words)} is a length in seconds and {_quoted(bars.words)} one in bars"
        reasons.remove(length)
    return Reading(text, tuple(reasons), tuple(unknown), tuple(not_held), contradictions)


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
    shown = f"{value:g} seconds" if control == "length" else f"{value} notes at once at most" if control == "polyphony" else value
    return Reason(control, value, f"{shown}, {_from(said)}", _words(said))


def _tempo(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    said = _strongest(heard)
    if not said:
        denied = [each for each in heard if each.negated]
        words = _words(denied)
        return _tempo_reason(NEITHER_SLOW_NOR_FAST_QPM, denied, "neither slow nor fast, " + _from(denied), words)
    values = {each.value for each in said}
    if said[0].rank == FIGURE:
        value = float(_one(control, said, not_held).value)  # type: ignore[union-attr]
        if not MIN_TEMPO_QPM <= value <= MAX_TEMPO_QPM:
            raise _ContradictionError(
                f"'{said[0].words}' is {value:g} quarter notes a minute, and a piece has {MIN_TEMPO_QPM:g} to {MAX_TEMPO_QPM:g}"
            )
        return _tempo_reason(value, said, _from(said), _words(said))
    slow, fast = [each for each in said if each.value <= 80], [each for each in said if each.value >= 120]
    if slow and fast and said[0].rank == WORD:
        raise _ContradictionError(
            f"tempo {slow[0].value} by '{slow[0].words}' and {fast[0].value} by '{fast[0].words}', quarter notes a minute"
        )
    extreme = max(values) if fast else min(values)
    bend = next((each.bend for each in said if each.value == extreme), 0)
    value = _bent(extreme, bend)
    return _tempo_reason(value, said, _from(said), _words(said))


def _bent(value: float, bend: int) -> float:
    """A tempo under "very" or "a bit"."""
    if not bend or 80 < value < 120:
        return float(value)
    away = {1: (50, 168), -1: (76, 126)}[bend]
    slow = value <= 80
    bent = away[0] if slow else away[1]
    return float((min if slow == (bend > 0) else max)(value, bent))


def _tempo_reason(value: float, heard: Sequence[Heard], why: str, words: tuple[str, ...]) -> Reason:
    return Reason("tempo", value, f"{value:g} quarter notes a minute, {why}", words)


_DENSER = {"sparse": {1: "very_sparse", -1: "sparse"}, "dense": {1: "very_dense", -1: "dense"}}


def _density(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
    said = _strongest(heard)
    if not said:
        denied = [each for each in heard if each.negated]
        return Reason(control, "medium", f"medium, neither sparse nor dense, {_from(denied)}", _words(denied))
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
    for axis, name in enumerate(("valence", "arousal")):
        low = next((each for each in said if each.value[axis] <= -0.5), None)
        high = next((each for each in said if each.value[axis] >= 0.5), None)
        if low and high and said[0].rank == WORD:
            raise _ContradictionError(
                f"'{low.words}' and '{high.words}' ask for opposite moods ({name} {low.value[axis]:g} and {high.value[axis]:g})"
            )
    valence, arousal = (sum(each.value[axis] for each in said) / len(said) for axis in (0, 1))
    mood = mood_word(valence, arousal)
    return Reason(control, mood, f"{mood} (valence {valence:.1f}, arousal {arousal:.1f}), {_from(said)}", _words(said))


def _instruments(control: str, heard: Sequence[Heard], not_held: list[str]) -> Reason | None:
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
