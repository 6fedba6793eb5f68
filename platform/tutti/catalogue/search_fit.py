"""How well takes fit what is looked for, one criterion a class, all takes at once.

Convention: a fit runs from 0 to 1. What must hold does so from :data:`HOLDS` on; below it the fit still tells how near
a take comes, for when nothing holds. A take without a figure (a piece without notes) fits nothing. Ours, but for what
is named. Legend: N takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tutti.catalogue.search_index import Index
from tutti.features.controls import density_class
from tutti.features.mood import mood_word
from tutti.features.vocabulary import DENSITIES, DENSITY_LIMITS_NOTES_PER_QUARTER, INSTRUMENTS, KEYS
from tutti.units import Key, format_seconds, parse_key, parse_pitch_range, pitch_name

HOLDS = 0.5
_MOOD_REACH = 1.2
"""Distance on the plane of valence and arousal at which a mood is another one: about a quadrant's width."""
_OUTSIDE = 0.25
"""Share of a number at which what lies outside a range has lost most of its fit."""

Fits = NDArray[np.float64]


class Criterion(ABC):
    """One thing that is looked for."""

    hard: ClassVar[bool] = True
    """Whether it must hold."""
    weight: ClassVar[float] = 1.0
    """Its part of a take's score."""

    @property
    def asked(self) -> str:
        """What is looked for, for people; empty: not worth a word."""
        return self._asked()

    def fits(self, index: Index) -> Fits:
        """Fit of each take; shape (N,)."""
        return self._fits(index)

    def has(self, index: Index, at: int) -> str:
        """What the take at a place has of it, for people."""
        return self._has(index, at)

    @abstractmethod
    def _asked(self) -> str: ...

    @abstractmethod
    def _fits(self, index: Index) -> Fits: ...

    @abstractmethod
    def _has(self, index: Index, at: int) -> str: ...


@dataclass(frozen=True)
class Mood(Criterion):
    """A point on the plane of moods; fit falls with the distance."""

    valence: float
    arousal: float
    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 1.5

    def _asked(self) -> str:
        return f"mood {mood_word(self.valence, self.arousal)}"

    def _fits(self, index: Index) -> Fits:
        away = np.hypot(index.numbers("valence") - self.valence, index.numbers("arousal") - self.arousal)
        return _told(np.maximum(0.0, 1 - away / _MOOD_REACH))

    def _has(self, index: Index, at: int) -> str:
        row = index.row(at)
        if row["valence"] is None:
            return "no mood"
        return f"mood {row['mood']} (valence {row['valence']:+.2f}, arousal {row['arousal']:+.2f})"


@dataclass(frozen=True)
class NotMood(Mood):
    """A mood that is not wanted."""

    hard: ClassVar[bool] = True
    weight: ClassVar[float] = 0.0

    def _asked(self) -> str:
        return f"not {mood_word(self.valence, self.arousal)}"

    def _fits(self, index: Index) -> Fits:
        return np.where(index.equals("mood", mood_word(self.valence, self.arousal)), 0.0, 1.0)


_UNITS = {"tempo": "tempo_qpm", "length": "length_s", "bars": "bars"}


def _figure(control: str, value: float) -> str:
    if control == "length":
        return format_seconds(round(value))
    return f"{value:.0f} {'bpm' if control == 'tempo' else 'bars'}"


@dataclass(frozen=True)
class Number(Criterion):
    """Tempo, length or bars in a range; equal ends: about so much, within a tolerance."""

    control: str
    low: float | None
    high: float | None
    tolerance: float

    def _asked(self) -> str:
        if self.low is None or self.high is None:
            word, bound = ("at most", self.high) if self.low is None else ("at least", self.low)
            return f"{self.control} {word} {_figure(self.control, bound or 0.0)}"
        if self.low == self.high:
            return f"{self.control} {_figure(self.control, self.low)} within {self.tolerance:.0%}"
        return f"{self.control} {_figure(self.control, self.low)} to {_figure(self.control, self.high)}"

    def _fits(self, index: Index) -> Fits:
        value = index.numbers(_UNITS[self.control])
        about = self.low is not None and self.low == self.high
        beyond, inside = np.full(len(index), -np.inf), np.ones(len(index))
        if self.low is not None:
            beyond = np.maximum(beyond, 1 - value / max(self.low, 1e-9))
        if self.high is not None:
            beyond = np.maximum(beyond, value / max(self.high, 1e-9) - 1)
        if about:
            inside = 1 - (1 - HOLDS) * beyond / max(self.tolerance, 1e-9)
            beyond = beyond - self.tolerance
        # A hair's breadth for sums of floating point.
        return _told(np.where(beyond <= 1e-9, np.maximum(inside, HOLDS), _below(beyond / _OUTSIDE)))

    def _has(self, index: Index, at: int) -> str:
        value = index.row(at)[_UNITS[self.control]]
        return f"{self.control} {_figure(self.control, value or 0)}"


@dataclass(frozen=True)
class Speed(Criterion):
    """A word for the tempo: what is slower than slow is slow."""

    tempo_qpm: float
    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 1.0

    def _asked(self) -> str:
        return f"tempo {'up to' if self.tempo_qpm <= 80 else 'from' if self.tempo_qpm >= 120 else 'about'} " + _figure(
            "tempo", self.tempo_qpm
        )

    def _fits(self, index: Index) -> Fits:
        return _on_side(index.numbers("tempo_qpm"), self.tempo_qpm, least=120, most=80, spread=0.3)

    def _has(self, index: Index, at: int) -> str:
        return f"tempo {_figure('tempo', index.row(at)['tempo_qpm'])}"


@dataclass(frozen=True)
class Duration(Criterion):
    """A word for the length: short or long."""

    length_s: float
    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 1.0

    def _asked(self) -> str:
        return f"length {'up to' if self.length_s <= 30 else 'from'} {_figure('length', self.length_s)}"

    def _fits(self, index: Index) -> Fits:
        return _on_side(index.numbers("length_s"), self.length_s, least=120, most=30, spread=0.7)

    def _has(self, index: Index, at: int) -> str:
        return f"length {_figure('length', index.row(at)['length_s'])}"


@dataclass(frozen=True)
class InKey(Criterion):
    """A key; its relative comes nearest, then the fifths beside it and its parallel."""

    key: str

    def _asked(self) -> str:
        return f"key {self.key}"

    def _fits(self, index: Index) -> Fits:
        found = np.zeros(len(index))
        for name, value in _kin(parse_key(self.key)).items():
            found[np.asarray(pc.fill_null(pc.equal(index.keys, name), False))] = value
        return found

    def _has(self, index: Index, at: int) -> str:
        return _key_text(index, at)


@dataclass(frozen=True)
class Mode(Criterion):
    """Major or minor, on whatever tonic."""

    minor: bool

    def _asked(self) -> str:
        return "minor" if self.minor else "major"

    def _fits(self, index: Index) -> Fits:
        return np.asarray(pc.fill_null(pc.ends_with(index.keys, self.asked), False)).astype(np.float64)

    def _has(self, index: Index, at: int) -> str:
        return _key_text(index, at)


@dataclass(frozen=True)
class Instruments(Criterion):
    """Families that play and families that do not.

    Args:
        groups: of each at least one family plays.
        forbidden: families of which none plays.
    """

    groups: tuple[tuple[str, ...], ...]
    forbidden: tuple[str, ...]

    def _asked(self) -> str:
        wanted = [" or ".join(group) for group in self.groups]
        return ", ".join([*wanted, *(f"no {family}" for family in self.forbidden)]).replace("_", " ")

    def _fits(self, index: Index) -> Fits:
        played = index.families
        met = [played[:, _columns(group)].any(axis=1) for group in self.groups]
        clean = ~played[:, _columns(self.forbidden)].any(axis=1)
        sounding = played.any(axis=1)
        wanted = played[:, _columns(sorted({family for group in self.groups for family in group}))].sum(axis=1)
        pure = wanted / np.maximum(played.sum(axis=1), 1) if self.groups else np.ones(len(index))
        holds = np.logical_and.reduce([sounding, clean, *met])
        near = np.mean([sounding & clean, *met], axis=0)
        # Strings alone come before strings among others.
        return np.where(holds, HOLDS + (1 - HOLDS) * pure, 0.9 * HOLDS * near)

    def _has(self, index: Index, at: int) -> str:
        return f"plays {instruments_at(index, at)}"


@dataclass(frozen=True)
class Meter(Criterion):
    """The meter that holds longest."""

    meter: str

    def _asked(self) -> str:
        return f"meter {self.meter}"

    def _fits(self, index: Index) -> Fits:
        return index.equals("meter", self.meter).astype(np.float64)

    def _has(self, index: Index, at: int) -> str:
        return f"meter {index.row(at)['meter']}"


@dataclass(frozen=True)
class Density(Criterion):
    """A class of density; each class away costs a third."""

    density: str
    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 0.7

    def _asked(self) -> str:
        return f"density {self.density.replace('_', ' ')}"

    def _fits(self, index: Index) -> Fits:
        value = index.numbers("notes_per_quarter")
        found = np.searchsorted(DENSITY_LIMITS_NOTES_PER_QUARTER, value, side="right")
        away = np.abs(found - DENSITIES.index(self.density))
        return np.where(np.isnan(value), 0.0, np.maximum(0.0, 1 - away / 3))

    def _has(self, index: Index, at: int) -> str:
        value = index.row(at)["notes_per_quarter"] or 0.0
        return f"density {density_class(value).replace('_', ' ')} ({value:.1f} notes a quarter)"


@dataclass(frozen=True)
class Polyphony(Criterion):
    """Few notes at once; the table tells their mean, so this can only lead."""

    voices: int
    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 0.7

    def _asked(self) -> str:
        return f"at most {self.voices} notes at once"

    def _fits(self, index: Index) -> Fits:
        return _told(np.exp(-np.maximum(0.0, index.numbers("polyphony") / self.voices - 1) / _OUTSIDE))

    def _has(self, index: Index, at: int) -> str:
        return f"{index.row(at)['polyphony'] or 0:.1f} notes at once on average"


@dataclass(frozen=True)
class Compass(Criterion):
    """Pitches from the lowest to the highest that may come."""

    pitches: str

    def _asked(self) -> str:
        return f"pitches {self.pitches}"

    def _fits(self, index: Index) -> Fits:
        wanted = parse_pitch_range(self.pitches)
        outside = np.maximum(wanted.low - index.numbers("pitch_low"), index.numbers("pitch_high") - wanted.high)
        return _told(np.where(outside <= 0, 1.0, _below(outside / 12)))

    def _has(self, index: Index, at: int) -> str:
        row = index.row(at)
        return f"pitches {pitch_name(row['pitch_low'] or 0)} to {pitch_name(row['pitch_high'] or 0)}"


@dataclass(frozen=True)
class Title(Criterion):
    """A text in the title or the order's name, whatever its case."""

    text: str

    def _asked(self) -> str:
        return f"title with '{self.text}'"

    def _fits(self, index: Index) -> Fits:
        return index.mentions(self.text).astype(np.float64)

    def _has(self, index: Index, at: int) -> str:
        return f"title {index.row(at)['title']!r}" if index.mentions(self.text)[at] else ""


@dataclass(frozen=True)
class TitleToo(Title):
    """A word that means something else already, and helps where a title has it too."""

    hard: ClassVar[bool] = False
    weight: ClassVar[float] = 0.2

    def _asked(self) -> str:
        return ""


def instruments_at(index: Index, at: int) -> str:
    """Families that a take plays, in one text."""
    programs = index.row(at)["programs"] or ()
    return ", ".join(dict.fromkeys(INSTRUMENTS[program // 8].replace("_", " ") for program in programs)) or "nothing"


def _key_text(index: Index, at: int) -> str:
    row = index.row(at)
    if row["asked_key"] is None:
        return f"key {row['key'] or 'unknown'}"
    return f"key {row['asked_key']}" + (f", found {row['key']}" if row["key"] not in (row["asked_key"], None) else "")


def _kin(key: Key) -> dict[str, float]:
    """Fit of keys near one, by name."""
    relative = Key((key.tonic + (3 if key.minor else -3)) % 12, not key.minor)
    parallel = Key(key.tonic, not key.minor)
    fifths = (key.transposed(7), key.transposed(-7))
    near = {str(relative): 0.4, str(parallel): 0.3, **{str(each): 0.3 for each in fifths}, str(key): 1.0}
    return {name: value for name, value in near.items() if name in KEYS}


def _columns(families: tuple[str, ...] | list[str]) -> list[int]:
    return [INSTRUMENTS.index(family) for family in families]


def _on_side(value: Fits, target: float, *, least: float, most: float, spread: float) -> Fits:
    """Fit by the logarithm of the ratio to a target; beyond it on its own side nothing is lost."""
    away = np.log(np.maximum(value, 1e-9) / target)
    if target <= most:
        away = np.maximum(away, 0.0)
    elif target >= least:
        away = np.minimum(away, 0.0)
    return _told(np.exp(-np.square(away / spread)))


def _below(beyond: Fits) -> Fits:
    """Fit of what does not hold, falling with how far it is beyond."""
    return np.asarray(0.98 * HOLDS * np.exp(-np.maximum(beyond, 0.0)))


def _told(fits: Fits) -> Fits:
    return np.nan_to_num(fits, nan=0.0)
