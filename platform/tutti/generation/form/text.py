"""Forms as text: which sections a piece has, in their order, and which of them return.

A letter is a section, and the same letter again is the same music. A prime says that it returns varied, the more the
more primes: ``A A B A'``, ``intro A B A' B' outro``. Words are sections of their own (:data:`WORDS`). ``A:16`` says how
many bars a section has; said for one, it is said for each letter once. A name (:data:`NAMES`) stands for the sections
that such a piece has at its length.

Source of the names: Caplin (1998), "Classical Form"; Covach (2005), "Form in Rock Music".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tutti.errors import RecipeError

WORDS = ("intro", "verse", "chorus", "bridge", "theme", "development", "outro", "coda")
SHORT = ("intro", "outro", "coda")
"""Sections half as long as others, at home in the piece's key."""
MOST_SECTIONS, MOST_PRIMES, FEWEST_BARS = 32, 9, 4
USUAL_FORM_LENGTH_S = 180.0
"""Of a form where no length is asked."""

_SECTION = re.compile(rf"({'|'.join(WORDS)}|[A-Z])(['’′]*)(?::([1-9]\d{{0,2}}))?\s*")
_VARIATIONS = "theme and variations"


@dataclass(frozen=True, slots=True)
class Section:
    """One section as it is asked.

    Args:
        name: a letter, or one of :data:`WORDS`.
        primes: how much it is varied; 0: not at all.
        bars: asked length; None: its share of the piece.
    """

    name: str
    primes: int = 0
    bars: int | None = None

    def __str__(self) -> str:
        return self.name + "'" * self.primes + ("" if self.bars is None else f":{self.bars}")

    @property
    def weight(self) -> float:
        """Its share of a piece beside others."""
        return 0.5 if self.name in SHORT else 1.0


def _variations(length_s: float) -> str:
    return " ".join("A" + "'" * number for number in range(min(max(round(length_s / 40), 4), 1 + MOST_PRIMES)))


def _through_composed(length_s: float) -> str:
    return " ".join("ABCDEFGHIJKLMNOP"[: min(max(round(length_s / 45), 2), 16)])


def _rondo(length_s: float) -> str:
    if length_s < 240:
        return "A B A' C A"
    return "A B A' C A'' B' A' coda" if length_s < 420 else "A B A' C A'' D A' B' A''' coda"


def _verse_chorus(length_s: float) -> str:
    if length_s < 120:
        return "verse chorus verse' chorus"
    more = " verse'' chorus'" if length_s >= 270 else ""
    return f"intro verse chorus verse' chorus{more} bridge chorus'' outro"


def _sonata(length_s: float) -> str:
    return f"A B {'A B ' if length_s >= 300 else ''}development A' B' coda"


def _auto(length_s: float) -> str:
    """By length: a long piece of few sections would stay too long in each."""
    if length_s < 120:
        return "A B A'"
    return "A A' B A'" if length_s < 210 else _rondo(length_s)


NAMES: Mapping[str, Callable[[float], str]] = {
    "auto": _auto,
    "binary": lambda _: "A A' B B'",
    "ternary": lambda _: "A B A'",
    "song": lambda _: "A A' B A'",
    "arch": lambda _: "A B C B' A'",
    "rondo": _rondo,
    "verse-chorus": _verse_chorus,
    _VARIATIONS: _variations,
    "sonata": _sonata,
    "through-composed": _through_composed,
}
"""Text of each named form at a length in seconds."""


def parse_form(text: str) -> str:
    """The form in its one spelling: ``AABA'`` is ``A A B A'``.

    Raises:
        RecipeError: it is no form; a letter's lengths are not all said, or contradict each other.
    """
    plain = " ".join(text.split())
    if (name := plain.lower().replace("verse chorus", "verse-chorus")) in NAMES:
        return name
    sections = _sections(plain)
    if not sections:
        what = f"form {text!r} is not known"
        raise RecipeError(what, remedy=f'write it like "A A B A\'", or name one of {", ".join(NAMES)}')
    if len(sections) > MOST_SECTIONS:
        raise RecipeError(f"form {text!r} has {len(sections)} sections", remedy=f"write at most {MOST_SECTIONS}")
    if any(section.primes > MOST_PRIMES for section in sections):
        raise RecipeError(f"form {text!r} has a section with more than {MOST_PRIMES} primes", remedy="write fewer")
    sized = _sized(sections, text)
    return " ".join(map(str, sized))


def sections_of(form: str, *, length_s: float) -> tuple[Section, ...]:
    """Sections of a form in its one spelling.

    Args:
        length_s: of the piece; it says how many sections a named form has.
    """
    return tuple(_sections(NAMES[form](length_s) if form in NAMES else form))


def bars_of_form(form: str | None) -> int | None:
    """Bars that a form states; None where it leaves them open."""
    if form is None or form in NAMES:
        return None
    bars = [section.bars for section in _sections(form)]
    return None if None in bars else sum(each or 0 for each in bars)


def _sections(text: str) -> list[Section]:
    found, at = [], 0
    while at < len(text):
        match = _SECTION.match(text, at)
        if match is None:
            return []
        found.append(Section(match[1], len(match[2]), None if match[3] is None else int(match[3])))
        at = match.end()
    return found


def _sized(sections: list[Section], text: str) -> list[Section]:
    """Sections with the bars of their letters, where any bars are said."""
    if all(section.bars is None for section in sections):
        return sections
    known: dict[str, int] = {}
    for section in sections:
        bars = section.bars if section.bars is not None else known.get(section.name)
        if bars is None:
            raise RecipeError(
                f"form {text!r} says no bars of {section.name}, and some of others",
                remedy=f"write {section.name}:8, or no bars at all",
            )
        if bars < max(known.get(section.name, FEWEST_BARS), FEWEST_BARS):
            least = max(known.get(section.name, FEWEST_BARS), FEWEST_BARS)
            raise RecipeError(
                f"section {section} of form {text!r} has less than {least} bars", remedy=f"give it at least {least}"
            )
        known.setdefault(section.name, bars)
    return [Section(each.name, each.primes, each.bars or known[each.name]) for each in sections]
