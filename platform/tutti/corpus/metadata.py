"""What people say of a piece beside its notes: title, composer, licence, tags and mood, from one row of a table.

A row is a mapping from the table's own column names to text. Known columns become fields, every other one is kept as it
stands, so nothing that was told is lost. Capitals, spaces and hyphens in a column's name do not matter.

========  ============================================================================================================
field     columns
========  ============================================================================================================
title     ``title``, ``canonical_title``
composer  ``composer``, ``canonical_composer``
licence   ``licence``, ``license``: an SPDX identifier, ``LicenseRef-…`` or ``unknown``
tags      ``tags``: words parted by commas or semicolons, or a JSON list
mood      ``valence`` and ``arousal``: numbers from -1 to 1, both or none; or else one of ``mood``, ``emotion``,
          ``quadrant``, ``4q`` with a word of :data:`MOOD_WORDS`; any other word is kept as text
========  ============================================================================================================
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tutti.corpus import rights
from tutti.errors import RecipeError

TITLE_COLUMNS = ("title", "canonical_title")
COMPOSER_COLUMNS = ("composer", "canonical_composer")
LICENCE_COLUMNS = ("licence", "license")
TAGS_COLUMNS = ("tags",)
MOOD_COLUMNS = ("mood", "emotion", "quadrant", "4q")
# A quadrant says two signs and no more: the middle of the quadrant stands for it.
_MIDDLE = 0.5
_QUADRANTS = {
    "happy": (_MIDDLE, _MIDDLE),
    "tense": (-_MIDDLE, _MIDDLE),
    "sad": (-_MIDDLE, -_MIDDLE),
    "calm": (_MIDDLE, -_MIDDLE),
}
MOOD_WORDS = {
    **_QUADRANTS,
    # Hung et al. 2021, "EMOPIA", ISMIR: Russell's quadrants, counted from the upper right against the clock.
    **{
        word: mood
        for number, mood in enumerate(_QUADRANTS.values(), start=1)
        for word in (f"q{number}", str(number), f"{number}.0")
    },
}
"""Valence and arousal of the words that stand for a quadrant: happy, tense, sad, calm and EMOPIA's Q1 to Q4."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What was told of one file.

    Args:
        title, composer: nothing where they were not told.
        licence: its terms, checked by :mod:`tutti.corpus.rights`.
        tags: words, in the order in which they were given, each once.
        valence, arousal: mood from -1 to 1; both or neither.
        other: every other column, as text.
    """

    title: str | None = None
    composer: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    valence: float | None = None
    arousal: float | None = None
    other: dict[str, str] = field(default_factory=dict)

    def identity(self) -> list[object]:
        """What an address must hash of it, as JSON-like values."""
        return [self.title, self.composer, self.licence, list(self.tags), self.valence, self.arousal, self.other]


def labels_of(cells: Mapping[str, str], *, where: str) -> Labels:
    """Labels from one row.

    Args:
        cells: text by column name; empty cells tell nothing.
        where: file and line, for people.

    Raises:
        RecipeError: a licence that is none, or a valence or arousal that is no number from -1 to 1.
    """
    left = {column: text for column, cell in cells.items() if (text := cell.strip())}
    by_plain_name = {plain_name(column): column for column in reversed(left)}

    def take(columns: tuple[str, ...]) -> str | None:
        named = next((by_plain_name[column] for column in columns if column in by_plain_name), None)
        return None if named is None else left.pop(named, None)

    title, composer, licence, tags = (
        take(columns) for columns in (TITLE_COLUMNS, COMPOSER_COLUMNS, LICENCE_COLUMNS, TAGS_COLUMNS)
    )
    mood = _told_mood(left, by_plain_name, where=where)
    return Labels(
        title=title,
        composer=composer,
        licence=_checked_licence(licence, where=where) if licence else None,
        tags=_tags(tags or ""),
        valence=mood[0] if mood else None,
        arousal=mood[1] if mood else None,
        other=left,
    )


def plain_name(column: str) -> str:
    """A column's name without what does not matter in it."""
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _told_mood(left: dict[str, str], by_plain_name: Mapping[str, str], *, where: str) -> tuple[float, float] | None:
    """Valence and arousal, taken out of ``left``; what tells no mood stays there."""
    axes = [by_plain_name[axis] for axis in ("valence", "arousal") if axis in by_plain_name]
    numbers = [_axis(left[axis], name=axis, where=where) for axis in axes]
    if len(numbers) == 2:
        for axis in axes:
            del left[axis]
        return numbers[0], numbers[1]
    for column in MOOD_COLUMNS:
        named = by_plain_name.get(column)
        if named is not None and (mood := MOOD_WORDS.get(left[named].lower())):
            del left[named]
            return mood
    return None


def _axis(text: str, *, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise RecipeError(
            f"{where}: {name} {text!r} is no number from -1 to 1", remedy="scale it, or give the column another name"
        )
    return value


def _checked_licence(licence: str, *, where: str) -> str:
    try:
        return rights.check(licence)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error.what}", remedy=error.remedy) from None


def _tags(text: str) -> tuple[str, ...]:
    words: object = None
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
    if not isinstance(words, list):
        words = text.replace(";", ",").split(",")
    stripped = (str(word).strip() for word in words)
    return tuple(dict.fromkeys(word for word in stripped if word))
