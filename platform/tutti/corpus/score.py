"""A piece of music as columns.

Legend: N notes, T tempo changes, M meter changes. Ticks count from the first bar line, ``ticks_per_quarter`` to a
quarter note. Program 128 is a drum kit, whose pitches are General MIDI drum keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRUM_PROGRAM = 128
DEFAULT_TEMPO_QPM = 120.0
DEFAULT_METER = (4, 4)
CANONICAL_TICKS_PER_QUARTER = 480

Ticks = NDArray[np.int32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Notes:
    """N notes as columns of equal length."""

    onset_ticks: Ticks
    duration_ticks: Ticks
    pitch: Bytes
    velocity: Bytes
    program: Bytes
    track: NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.onset_ticks)

    def take(self, index: NDArray[Any] | slice) -> Notes:
        """The notes at ``index`` (positions, a mask or a stretch), in that order."""
        return Notes(*(getattr(self, field.name)[index] for field in fields(self)))

    def in_order(self) -> Notes:
        """Sorted by onset, program, pitch, duration, velocity, track."""
        return self.take(
            np.lexsort((self.track, self.velocity, self.duration_ticks, self.pitch, self.program, self.onset_ticks))
        )

    @classmethod
    def of(cls, **columns: Any) -> Notes:
        """Notes from array-likes; ``program``, ``track`` and ``velocity`` may be left out (0, 0 and 64)."""
        onset_ticks = np.asarray(columns["onset_ticks"], dtype=np.int32)
        defaults = {"velocity": 64, "program": 0, "track": 0}
        kinds = {
            "duration_ticks": np.int32,
            "pitch": np.uint8,
            "velocity": np.uint8,
            "program": np.uint8,
            "track": np.uint16,
        }
        rest = {
            name: np.broadcast_to(
                np.asarray(columns.get(name, defaults.get(name)), dtype=kind), onset_ticks.shape
            ).copy()
            for name, kind in kinds.items()
        }
        return cls(onset_ticks=onset_ticks, **rest)

    @classmethod
    def none(cls) -> Notes:
        """No notes."""
        return cls.of(onset_ticks=[], duration_ticks=[], pitch=[])


@dataclass(frozen=True, slots=True)
class Score:
    """A piece: notes, tempo map, meter map and what is known of it.

    Args:
        ticks_per_quarter: resolution of every tick here.
        notes: N notes.
        tempo_ticks, tempo_qpm: T tempo changes in time order, the first at tick 0; quarters per minute.
        meter_ticks, meter_numerator, meter_denominator: M meter changes in time order, the first at tick 0.
        title, composer: where they are known.
    """

    ticks_per_quarter: int
    notes: Notes
    tempo_ticks: Ticks
    tempo_qpm: NDArray[np.float64]
    meter_ticks: Ticks
    meter_numerator: Bytes
    meter_denominator: Bytes
    title: str | None = None
    composer: str | None = None

    @classmethod
    def of(
        cls,
        notes: Notes,
        *,
        ticks_per_quarter: int,
        tempos: list[tuple[int, float]] | None = None,
        meters: list[tuple[int, int, int]] | None = None,
        title: str | None = None,
        composer: str | None = None,
    ) -> Score:
        """A score whose maps are completed: later entries at one tick win, and the first ones start at tick 0."""
        tempo_at = dict(tempos or [])
        meter_at = {tick: (above, below) for tick, above, below in meters or []}
        if 0 not in tempo_at:
            tempo_at = {0: DEFAULT_TEMPO_QPM, **tempo_at}
        if 0 not in meter_at:
            meter_at = {0: DEFAULT_METER, **meter_at}
        return cls(
            ticks_per_quarter=ticks_per_quarter,
            notes=notes.in_order(),
            tempo_ticks=np.array(sorted(tempo_at), dtype=np.int32),
            tempo_qpm=np.array([tempo_at[tick] for tick in sorted(tempo_at)], dtype=np.float64),
            meter_ticks=np.array(sorted(meter_at), dtype=np.int32),
            meter_numerator=np.array([meter_at[tick][0] for tick in sorted(meter_at)], dtype=np.uint8),
            meter_denominator=np.array([meter_at[tick][1] for tick in sorted(meter_at)], dtype=np.uint8),
            title=title,
            composer=composer,
        )

    @property
    def end_ticks(self) -> int:
        """Where the last note ends; 0 without notes."""
        if not len(self.notes):
            return 0
        return int((self.notes.onset_ticks.astype(np.int64) + self.notes.duration_ticks).max())

    @property
    def length_s(self) -> float:
        """Seconds from the first bar line to the end of the last note."""
        return float(self.seconds_at(np.array([self.end_ticks]))[0])

    def seconds_at(self, ticks: NDArray[Any]) -> NDArray[np.float64]:
        """Seconds of each tick under the tempo map; same shape."""
        seconds_per_tick = 60.0 / (self.tempo_qpm * self.ticks_per_quarter)
        starts_s = np.concatenate(([0.0], np.cumsum(np.diff(self.tempo_ticks) * seconds_per_tick[:-1])))
        at = np.clip(np.searchsorted(self.tempo_ticks, ticks, side="right") - 1, 0, None)
        return np.asarray(starts_s[at] + (ticks - self.tempo_ticks[at]) * seconds_per_tick[at])

    def with_resolution(self, ticks_per_quarter: int) -> Score:
        """The same piece on another tick grid; onsets and ends round to the nearest tick, a note keeps at least one."""
        if ticks_per_quarter == self.ticks_per_quarter:
            return self
        ratio = Fraction(ticks_per_quarter, self.ticks_per_quarter)

        def rescaled(ticks: NDArray[Any]) -> NDArray[np.int64]:
            return (2 * ticks.astype(np.int64) * ratio.numerator + ratio.denominator) // (2 * ratio.denominator)

        onset = rescaled(self.notes.onset_ticks)
        end = rescaled(self.notes.onset_ticks.astype(np.int64) + self.notes.duration_ticks)
        notes = replace(
            self.notes,
            onset_ticks=onset.astype(np.int32),
            duration_ticks=np.maximum(end - onset, 1).astype(np.int32),
        )
        return Score.of(
            notes,
            ticks_per_quarter=ticks_per_quarter,
            tempos=list(zip(rescaled(self.tempo_ticks).tolist(), self.tempo_qpm.tolist(), strict=True)),
            meters=list(
                zip(
                    rescaled(self.meter_ticks).tolist(),
                    self.meter_numerator.tolist(),
                    self.meter_denominator.tolist(),
                    strict=True,
                )
            ),
            title=self.title,
            composer=self.composer,
        )

    def same_music(self, other: Score) -> bool:
        """Whether resolution, notes and maps are equal; titles are not compared."""
        return (
            self.ticks_per_quarter == other.ticks_per_quarter
            and all(
                np.array_equal(getattr(self.notes, field.name), getattr(other.notes, field.name))
                for field in fields(Notes)
            )
            and all(
                np.array_equal(getattr(self, name), getattr(other, name))
                for name in (
                    "tempo_ticks",
                    "tempo_qpm",
                    "meter_ticks",
                    "meter_numerator",
                    "meter_denominator",
                )
            )
        )

    def columns(self) -> dict[str, Any]:
        """The note, tempo and meter columns of the ``works`` table."""
        return {
            "ticks_per_quarter": self.ticks_per_quarter,
            **{field.name: getattr(self.notes, field.name) for field in fields(Notes)},
            "tempo_ticks": self.tempo_ticks,
            "tempo_qpm": self.tempo_qpm,
            "meter_ticks": self.meter_ticks,
            "meter_numerator": self.meter_numerator,
            "meter_denominator": self.meter_denominator,
        }

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> Score:
        """The score of a ``works`` row."""
        return cls(
            ticks_per_quarter=int(row["ticks_per_quarter"]),
            notes=Notes.of(**{field.name: row[field.name] for field in fields(Notes)}),
            tempo_ticks=np.asarray(row["tempo_ticks"], dtype=np.int32),
            tempo_qpm=np.asarray(row["tempo_qpm"], dtype=np.float64),
            meter_ticks=np.asarray(row["meter_ticks"], dtype=np.int32),
            meter_numerator=np.asarray(row["meter_numerator"], dtype=np.uint8),
            meter_denominator=np.asarray(row["meter_denominator"], dtype=np.uint8),
            title=row.get("title"),
            composer=row.get("composer"),
        )
