"""Control tokens: what a sequence announces before its first bar.

A control that is not stated is ``…_any``; models are trained with controls dropped to it, so a request may state any of
them or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.features.mood import mood_word
from tutti.features.vocabulary import (
    ANY,
    DENSITIES,
    DENSITY_LIMITS_NOTES_PER_QUARTER,
    EVENTS,
    INSTRUMENTS,
    LENGTHS_BARS,
    TEMPO_CLASS_LIMITS_QPM,
    TEMPO_CLASSES,
)

DESCRIBED = ("collection", "key", "notes_per_quarter", "valence", "arousal")
"""Columns of the ``works`` table that controls are made of."""


@dataclass(frozen=True, slots=True)
class Controls:
    """Stated controls; None and () mean ``any``.

    Args:
        collection: slot of the source collection, 0 to 63.
        key: such as ``D minor``.
        tempo_class: member of ``TEMPO_CLASSES``.
        density: member of ``DENSITIES``.
        length: member of ``LENGTHS_BARS`` as text, or ``more``.
        mood: member of ``MOODS``.
        instruments: members of ``INSTRUMENTS``.
    """

    collection: int | None = None
    key: str | None = None
    tempo_class: str | None = None
    density: str | None = None
    length: str | None = None
    mood: str | None = None
    instruments: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Token names in the vocabulary's order of kinds."""
        single = {
            "Collection": self.collection,
            "Key": self.key,
            "TempoClass": self.tempo_class,
            "Density": self.density,
            "Length": self.length,
            "Mood": self.mood,
        }
        names = [f"{kind}_{ANY if value is None else value}" for kind, value in single.items()]
        playing = [name for name in INSTRUMENTS if name in self.instruments] or [ANY]
        return names + [f"Instruments_{name}" for name in playing]

    def tokens(self) -> NDArray[np.uint16]:
        """Token ids; shape (6 + number of instruments, at least 1)."""
        return np.array([EVENTS[name] for name in self.names()], dtype=np.uint16)


def tempo_class(qpm: float) -> str:
    """Tempo class of a tempo in quarters a minute."""
    return TEMPO_CLASSES[int(np.searchsorted(TEMPO_CLASS_LIMITS_QPM, qpm, side="right"))]


def density_class(notes_per_quarter: float) -> str:
    """Density class of a number of notes per quarter."""
    return DENSITIES[int(np.searchsorted(DENSITY_LIMITS_NOTES_PER_QUARTER, notes_per_quarter, side="right"))]


def length_class(bars: int) -> str:
    """The smallest of ``LENGTHS_BARS`` that holds ``bars``, or ``more``."""
    index = int(np.searchsorted(LENGTHS_BARS, bars))
    return str(LENGTHS_BARS[index]) if index < len(LENGTHS_BARS) else "more"


def controls_of(
    works: Mapping[str, Sequence[Any]],
    *,
    tempo_qpm: Sequence[float],
    bars: Sequence[int],
    programs: NDArray[np.bool_],
    collections: Sequence[str],
) -> list[Controls]:
    """Controls that describe works, one for each.

    Args:
        works: columns of the ``works`` table, those of :data:`DESCRIBED`.
        tempo_qpm: first tempo of each.
        bars: number of bars of each.
        programs: which programs each plays; shape (works, 129).
        collections: names by slot.
    """
    slots = {name: slot for slot, name in reversed(list(enumerate(collections)))}
    families = np.logical_or.reduceat(programs, np.arange(0, programs.shape[1], 8), axis=1)
    rows = zip(
        *(works[name] for name in DESCRIBED), tempo_qpm, bars, families, strict=True
    )  # fmt: skip
    return [
        Controls(
            collection=slots.get(collection),
            key=str(key),
            tempo_class=tempo_class(tempo),
            density=density_class(notes_per_quarter),
            length=length_class(number),
            mood=mood_word(valence, arousal),
            instruments=tuple(INSTRUMENTS[family] for family in np.flatnonzero(played)),
        )
        for collection, key, notes_per_quarter, valence, arousal, tempo, number, played in rows
    ]
