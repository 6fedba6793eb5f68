"""The event vocabulary: frozen, hashed, the only meaning of a token id.

A sequence is ``Start``, one control token of each kind, then bars, then ``End``::

    Start Collection_… Key_… TempoClass_… Density_… Length_… Mood_… Instruments_…+ Bar …  End

A bar is ``Bar [Meter] (Position [Tempo] note*)*``. Notes at one position are sorted by program, duration, velocity and
pitch (drums last), and a note is ``[Program] [Duration] [Velocity] Pitch|Drum`` with running values: a value is written
only where it differs from the note before **in the same bar**, so every bar can be read alone and a flat chord costs
one token a note.

The grid: 24 ticks a quarter (triplets and 32nds are exact), bars of at most 8 quarters, velocities in steps of 4,
tempos on Maelzel's metronome scale extended to 20 to 304.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tutti.units import PITCH_CLASSES

TICKS_PER_QUARTER = 24
MAX_BAR_TICKS = 8 * TICKS_PER_QUARTER

METERS: tuple[tuple[int, int], ...] = tuple(
    (above, below)
    for below, most in ((2, 4), (4, 8), (8, 16), (16, 16))
    for above in range(1, most + 1)
)  # fmt: skip
DURATIONS_TICKS: tuple[int, ...] = (
    *range(1, 49),
    *range(54, 97, 6),
    *range(108, 193, 12),
    *range(216, 385, 24),
    *range(432, 769, 48),
)
VELOCITIES: tuple[int, ...] = tuple(range(3, 128, 4))
TEMPOS_QPM: tuple[int, ...] = (
    *range(20, 60, 2), *range(60, 72, 3), *range(72, 120, 4),
    *range(120, 144, 6), *range(144, 208, 8), *range(208, 305, 12),
)  # fmt: skip

ANY = "any"
KEYS: tuple[str, ...] = tuple(f"{name} {mode}" for mode in ("major", "minor") for name in PITCH_CLASSES)
TEMPO_CLASSES: tuple[str, ...] = ("largo", "adagio", "andante", "moderato", "allegro", "presto", "prestissimo")
TEMPO_CLASS_LIMITS_QPM: tuple[float, ...] = (60, 76, 108, 120, 168, 200)
DENSITIES: tuple[str, ...] = ("very_sparse", "sparse", "medium", "dense", "very_dense")
DENSITY_LIMITS_NOTES_PER_QUARTER: tuple[float, ...] = (1, 2, 4, 8)
LENGTHS_BARS: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
MOODS: tuple[str, ...] = ("happy", "tense", "sad", "calm", "neutral")
INSTRUMENTS: tuple[str, ...] = (
    "piano", "chromatic_percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass", "reed", "pipe",
    "synth_lead", "synth_pad", "synth_effects", "ethnic", "percussive", "sound_effects", "drums",
)  # fmt: skip
MAX_COLLECTIONS = 64

CONTROL_KINDS: tuple[str, ...] = ("Collection", "Key", "TempoClass", "Density", "Length", "Mood", "Instruments")


@dataclass(frozen=True)
class Vocabulary:
    """Token names in id order; ids fit uint16.

    Args:
        names: one name a token, ``Kind`` or ``Kind_value``; tokens of one kind are neighbours.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> int:
        return self.ids[name]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token name to id."""
        return {name: token for token, name in enumerate(self.names)}

    @cached_property
    def hash(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over the names, one a line."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()[:16]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Kinds in order of their first token."""
        return tuple(dict.fromkeys(name.partition("_")[0] for name in self.names))

    @cached_property
    def kind_of(self) -> NDArray[np.uint8]:
        """Index into :attr:`kinds` of each token; shape (V,)."""
        index = {kind: i for i, kind in enumerate(self.kinds)}
        return np.array([index[name.partition("_")[0]] for name in self.names], dtype=np.uint8)

    def span(self, kind: str) -> range:
        """Ids of a kind."""
        found = np.flatnonzero(self.kind_of == self.kinds.index(kind))
        return range(int(found[0]), int(found[-1]) + 1)

    def first(self, kind: str) -> int:
        """Id of a kind's first token."""
        return self.span(kind).start


def _event_names() -> tuple[str, ...]:
    return (
        "Pad",
        "Start",
        "End",
        *(f"Collection_{value}" for value in (ANY, *range(MAX_COLLECTIONS))),
        *(f"Key_{value}" for value in (ANY, *KEYS)),
        *(f"TempoClass_{value}" for value in (ANY, *TEMPO_CLASSES)),
        *(f"Density_{value}" for value in (ANY, *DENSITIES)),
        *(f"Length_{value}" for value in (ANY, *LENGTHS_BARS, "more")),
        *(f"Mood_{value}" for value in (ANY, *MOODS)),
        *(f"Instruments_{value}" for value in (ANY, *INSTRUMENTS)),
        "Bar",
        *(f"Meter_{above}/{below}" for above, below in METERS),
        *(f"Position_{ticks}" for ticks in range(MAX_BAR_TICKS)),
        *(f"Tempo_{qpm}" for qpm in TEMPOS_QPM),
        *(f"Program_{program}" for program in range(128)),
        *(f"Duration_{ticks}" for ticks in DURATIONS_TICKS),
        *(f"Velocity_{velocity}" for velocity in VELOCITIES),
        *(f"Pitch_{pitch}" for pitch in range(128)),
        *(f"Drum_{pitch}" for pitch in range(128)),
    )


EVENTS = Vocabulary(_event_names())
PAD, START, END, BAR = (EVENTS[name] for name in ("Pad", "Start", "End", "Bar"))


def instrument_of(program: int) -> str:
    """General MIDI family of a program; 128 is ``drums``."""
    return INSTRUMENTS[program // 8]
