"""The words that the library knows in English and Chinese, and a sentence as a row of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import resources
from typing import Any

import yaml

from tutti.generation.sentences.text import distance, is_chinese, near, near_chinese

_TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|&|\d+(?:\.\d+)?")
_BREAKS = frozenset(",.;!?:()，。；！？：、")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a word says of one control.

    Args:
        control: name of a request's field.
        value: for mood (valence, arousal); for instruments a tuple of families; else a value of the field.
        implied: whether it only goes with an occasion, and gives way to what is said.
    """

    control: str
    value: Any
    implied: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """A stretch of a sentence.

    Args:
        role: ``term``, ``ordinary``, ``unknown``, ``break``, or the bend that it makes: ``negators``, ``too`` …
        start, end: where it stands.
        meanings: of a term.
        word: the known word that it was taken for.
    """

    role: str
    start: int
    end: int
    meanings: tuple[Meaning, ...] = ()
    word: str = ""


@dataclass(frozen=True)
class Lexicon:
    """Known words: roles and meanings."""

    roles: Mapping[str, str]
    meanings: Mapping[str, tuple[Meaning, ...]]

    @cached_property
    def _longest(self) -> int:
        return max(len(word.split()) for word in self.roles)

    @cached_property
    def _longest_chinese(self) -> int:
        return max(len(word) for word in self.roles if is_chinese(word[0]))

    @cached_property
    def _words(self) -> frozenset[str]:
        """Every English word that stands in a known one, alone or among others."""
        return frozenset(part for word in self.roles if not is_chinese(word[0]) for part in word.split())

    @cached_property
    def _words_of_terms(self) -> tuple[str, ...]:
        """Those that a misspelt word may be, single ones first."""
        terms = sorted((word for word in self.meanings if not is_chinese(word[0])), key=lambda word: word.count(" "))
        return tuple(dict.fromkeys(part for word in terms for part in word.split() if len(part) >= 3))

    @cached_property
    def _chinese_terms(self) -> tuple[str, ...]:
        return tuple(word for word in self.meanings if is_chinese(word[0]) and len(word) >= 3)

    def items(self, text: str) -> list[Item]:
        """The whole of a lower-case text as items, in order; spaces lie between them."""
        found: list[Item] = []
        at = 0
        while at < len(text):
            item = self._at(text, at)
            if item is None:
                at += 1
                continue
            found.append(item)
            at = item.end
        return list(_joined(found))

    def _at(self, text: str, at: int) -> Item | None:
        sign = text[at]
        if is_chinese(sign):
            return self._chinese(text, at)
        if sign in _BREAKS:
            return Item("break", at, at + 1, word=sign)
        return self._english(text, at) if _TOKEN.match(text, at) else None

    def _chinese(self, text: str, at: int) -> Item:
        for length in range(min(self._longest_chinese, len(text) - at), 0, -1):
            word = text[at : at + length]
            if word in self.roles:
                return self._item(word, at, at + length)
        for term in self._chinese_terms:
            if near_chinese(text[at : at + len(term)], term):
                return self._item(term, at, at + len(term))
        return Item("unknown", at, at + 1)

    def _english(self, text: str, at: int) -> Item:
        words: list[str] = []
        ends: list[int] = []
        place = at
        while len(words) < self._longest and (match := _TOKEN.match(text, place)):
            words.append(self._spelt(match[0]))
            ends.append(match.end())
            place = match.end() + (text[match.end() : match.end() + 1] in (" ", "-"))
        for count in range(len(words), 0, -1):
            word = " ".join(words[:count])
            for known in (word, word.removesuffix("s"), word.removesuffix("es")):
                if known in self.roles:
                    return self._item(known, at, ends[count - 1])
        return Item("ordinary" if len(words[0]) == 1 and words[0].isalpha() else "unknown", at, ends[0])

    def _spelt(self, word: str) -> str:
        """A word without its genitive, as the term that it is nearest to where nothing knows it as it stands."""
        word = word.removesuffix("'s") if word not in self._words else word
        if {word, word.removesuffix("s"), word.removesuffix("es")} & self._words or not word.isalpha():
            return word
        return min(
            (term for term in self._words_of_terms if near(word, term)), key=partial(distance, word), default=word
        )

    def _item(self, word: str, start: int, end: int) -> Item:
        return Item(self.roles[word], start, end, self.meanings.get(word, ()), word)


def _joined(items: Sequence[Item]) -> Iterator[Item]:
    """Items, with neighbouring unknown Chinese signs made one."""
    waiting: Item | None = None
    for item in items:
        if waiting and item.role == "unknown" and item.start == waiting.end:
            waiting = Item("unknown", waiting.start, item.end)
            continue
        if waiting:
            yield waiting
        waiting = item if item.role == "unknown" else None
        if waiting is None:
            yield item
    if waiting:
        yield waiting


@cache
def known() -> Lexicon:
    """The lexicon that the library carries."""
    tree = yaml.safe_load((resources.files(__package__) / "lexicon.yaml").read_text(encoding="utf-8"))
    roles: dict[str, str] = dict.fromkeys(tree.pop("ordinary"), "ordinary")
    for role, words in tree.pop("bends").items():
        roles |= dict.fromkeys(words, role)
    meanings: dict[str, tuple[Meaning, ...]] = {}
    for control, entries in tree.items():
        for entry in entries:
            meaning = Meaning(control, _value(control, entry), implied=entry.get("says") == "implied")
            for word in entry["words"]:
                meanings[word] = (*meanings.get(word, ()), meaning)
    return Lexicon(roles | dict.fromkeys(meanings, "term"), meanings)


def _value(control: str, entry: Mapping[str, Any]) -> Any:
    if control == "mood":
        return (float(entry["valence"]), float(entry["arousal"]))
    value = entry["value"]
    return tuple(value) if control == "instruments" else value
