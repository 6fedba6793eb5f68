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
from tutti.generation.sentences import lexicon
from tutti.generation.sentences.figures import Figure, figures
from tutti.generation.sentences.lexicon import Item
from tutti.generation.sentences.text import MAX_CHARACTERS, plain
from tutti.generation.sentences.weighing import FIGURE, IMPLIED, WORD, Heard, Reason, weigh


@dataclass(frozen=True)
class Reading:
    """What a sentence became.

    Args:
        sentence: in one line.
        reasons: a reason for each control that was set, in the order of :data:`CONTROLS`.
        not_understood: stretches that nothing was made of.
        not_held: what was understood and no control can hold, a line each.
        contradictions: control to what stands against what.
        heard: everything that was heard, denials too: a search can hold what no request can.
    """

    sentence: str
    reasons: tuple[Reason, ...] = ()
    not_understood: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    contradictions: Mapping[str, str] = field(default_factory=dict)
    heard: tuple[Heard, ...] = ()

    @property
    def controls(self) -> dict[str, Any]:
        """Fields of a request."""
        return {reason.control: reason.value for reason in self.reasons}

    def beside(self, given: Collection[str]) -> dict[str, Any]:
        """Fields that join those which are ``given`` outright and win.

        Raises:
            RecipeError: the sentence contradicts itself on something that is not given.
        """
        settled = _settled(given)
        for control, text in self.contradictions.items():
            if control not in settled:
                raise RecipeError(f"the sentence contradicts itself: {text}", remedy="say one of them")
        return {control: value for control, value in self.controls.items() if control not in settled}

    def lines(self, given: Collection[str] = ()) -> list[str]:
        """For people: a line for each control, and for what was not taken."""
        settled = _settled(given)
        shown = [f"{each.control:<12} {each.text}" for each in self.reasons if each.control not in settled]
        shown += [f"{'left out':<12} {each.text}: given outright" for each in self.reasons if each.control in settled]
        shown += [f"{'not held':<12} {text}" for text in self.not_held]
        if self.not_understood:
            shown.append("not understood: " + ", ".join(f"'{words}'" for words in self.not_understood))
        return shown


def _settled(given: Collection[str]) -> set[str]:
    """Controls that are given: a length in bars is one in seconds too."""
    return {*given, *({"length", "bars"} if {"length", "bars"} & set(given) else ())}


Hear = Callable[[Sequence[str]], list[Heard]]
"""What stretches sound like: :meth:`tutti.generation.sentences.scenes.Scenes.hear`."""


def read(sentence: str, *, hear: Hear | None = None) -> Reading:
    """Read a sentence by rules, and by what it sounds like where those leave something open.

    Args:
        hear: what hears by embeddings; None: rules alone.

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
    if hear is not None and not any(each.control == "mood" and not each.negated for each in heard):
        sounding = hear(_open_stretches(text, items, said))
        heard += sounding
        unknown = [words for words in unknown if not any(words in each.words for each in sounding)]
    weighed = weigh(heard)
    return Reading(
        text, tuple(weighed.reasons), tuple(unknown), tuple(weighed.not_held), weighed.contradictions, tuple(heard)
    )


def _without(text: str, said: Sequence[Figure]) -> str:
    signs = list(text)
    for figure in said:
        signs[figure.start : figure.end] = [" "] * (figure.end - figure.start)
    return "".join(signs)


_OF_FATE = frozenset(("never", "nothing", "without", "不", "没", "没有"))
"""Negators that also tell what befell somebody, as in "he never returned"; the others deny what they stand before."""


def _open_stretches(text: str, items: Sequence[Item], said: Sequence[Figure]) -> list[str]:
    """Clauses that words and figures leave something of: they hold an unknown word, or nothing else. None is denied."""
    stretches, start = [], 0
    for end in [item.start for item in items if item.role == "break"] + [len(text)]:
        inside = [item for item in items if start <= item.start < end and item.role != "break"]
        roles = {item.role for item in inside}
        plain_words = sum(item.end - item.start > 1 for item in inside) >= 2
        bare = roles <= {"ordinary", "joins", "turns"} and not any(start <= each.start < end for each in said)
        denied = any(item.role == "negators" and item.word not in _OF_FATE for item in inside)
        if not denied and ("unknown" in roles or (bare and plain_words)):
            stretches.append(text[start:end].strip(" ,.;!?:()，。；！？：、"))
        start = end
    return stretches


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
