"""Where single notes to learn instruments from come from: played for the purpose, or cut from clips.

The player is handed in, for what makes sound lies above this room. A source says which of its settings decide what it
gives, so that a dataset made of it can be found again.

Legend: S samples.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import soundfile
import soxr

from tutti.corpus import rights, splits
from tutti.errors import RecipeError
from tutti.features.single_notes import single_notes
from tutti.features.spectral import Floats
from tutti.lineage import Dataset
from tutti.tables import CLIPS, from_parquet

_CLIPS_COLUMNS = ["collection", "licence", "split", "sample_rate_hz", "audio"]
_LAST_PROGRAM = 127


@dataclass(frozen=True, slots=True)
class Note:
    """One note.

    Args:
        split, instrument: where it belongs.
        pitch: MIDI pitch.
        licence: SPDX.
        samples_S: its sound, from its onset.
    """

    split: str
    instrument: str
    pitch: int
    licence: str
    samples_S: Floats


class NoteSource(Protocol):
    """Something that gives notes."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What decides the notes, as plain values."""

    @property
    def total(self) -> int:
        """How many steps :meth:`notes` takes."""

    def notes(self, *, sample_rate_hz: int, length_s: float) -> Iterator[list[Note]]:
        """The notes of each step, at a rate, at least so long unless they die away before."""


class Player(Protocol):
    """What plays one note: ``samples_S``, from its onset."""

    def __call__(self, *, program: int, pitch: int, velocity: int, length_s: float, sample_rate_hz: int) -> Floats:
        """Hold a key for ``length_s``."""


@dataclass(frozen=True, slots=True)
class Played:
    """Notes of General MIDI programs, each an instrument ``program-000`` to ``program-127``.

    All velocities of one key of one program share a split, drawn by program and pitch: a held-out note is one that was
    never heard at any loudness, though its neighbours and its pitch on other instruments were.

    Args:
        player: plays them.
        sound: what the player plays with, such as the hash of a SoundFont; part of what decides the notes.
        licence: SPDX, of that.
        programs: without drums.
        lowest_pitch, highest_pitch: inclusive.
        velocities: of each pitch.
        valid_share, test_share: of the keys.

    Raises:
        RecipeError: nothing to play, or a program, pitch or velocity that MIDI does not have.
    """

    player: Player
    sound: str
    licence: str
    programs: Sequence[int]
    lowest_pitch: int
    highest_pitch: int
    velocities: Sequence[int]
    valid_share: float
    test_share: float

    def __post_init__(self) -> None:
        if not self.programs or not self.velocities or self.lowest_pitch > self.highest_pitch:
            raise RecipeError("there is no note to play", remedy="name programs, velocities and a range of pitches")
        for name, values, last in (
            ("program", self.programs, _LAST_PROGRAM),
            ("pitch", (self.lowest_pitch, self.highest_pitch), 127),
            ("velocity", self.velocities, 127),
        ):
            for value in values:
                if not (1 if name == "velocity" else 0) <= value <= last:
                    raise RecipeError(f"{name} {value} is not one of MIDI's", remedy=f"stay at {last} or below")

    @property
    def inputs(self) -> Mapping[str, Any]:
        """All but the player, which plays as its sound does."""
        return {
            "played": self.sound,
            "licence": self.licence,
            "programs": sorted(set(self.programs)),
            "pitches": [self.lowest_pitch, self.highest_pitch],
            "velocities": sorted(set(self.velocities)),
            "shares": [self.valid_share, self.test_share],
        }

    @property
    def total(self) -> int:
        """One step a key."""
        return len(set(self.programs)) * (self.highest_pitch - self.lowest_pitch + 1)

    def notes(self, *, sample_rate_hz: int, length_s: float) -> Iterator[list[Note]]:
        """Each key at all velocities."""
        for program in sorted(set(self.programs)):
            for pitch in range(self.lowest_pitch, self.highest_pitch + 1):
                split = splits.split_of(
                    f"note {program} {pitch}", valid_share=self.valid_share, test_share=self.test_share
                )
                yield [
                    Note(
                        split,
                        f"program-{program:03d}",
                        pitch,
                        self.licence,
                        self.player(
                            program=program,
                            pitch=pitch,
                            velocity=velocity,
                            length_s=length_s,
                            sample_rate_hz=sample_rate_hz,
                        ),
                    )
                    for velocity in sorted(set(self.velocities))
                ]


@dataclass(frozen=True, slots=True)
class Cut:
    """The notes that sound alone in clips (:mod:`tutti.features.single_notes`); each collection is an instrument.

    Args:
        clips: a dataset of the ``clips`` table.
        licences: those that may be learnt from.
        lowest_pitch, highest_pitch: inclusive; notes outside are left out.
    """

    clips: Dataset
    licences: Sequence[str]
    lowest_pitch: int
    highest_pitch: int

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The clips' address, and which of them."""
        return {
            "clips": self.clips.address,
            "licences": sorted(set(self.licences)),
            "pitches": [self.lowest_pitch, self.highest_pitch],
        }

    @property
    def total(self) -> int:
        """One step a clip."""
        return sum(entry.rows or 0 for entry in self.clips.files if entry.path.startswith("clips-"))

    def notes(self, *, sample_rate_hz: int, length_s: float) -> Iterator[list[Note]]:
        """The notes of each clip; none of those that may not be learnt from."""
        for path in self.clips.paths(".parquet"):
            if not path.startswith("clips-"):
                continue
            table = from_parquet(self.clips.read(path), CLIPS, columns=_CLIPS_COLUMNS)
            for row in table.to_pylist():
                may = rights.allowed(row["licence"], named=self.licences)
                yield self._of_clip(row, sample_rate_hz=sample_rate_hz, length_s=length_s) if may else []

    def _of_clip(self, row: Mapping[str, Any], *, sample_rate_hz: int, length_s: float) -> list[Note]:
        samples_SC, rate_hz = soundfile.read(io.BytesIO(row["audio"]), dtype="float32", always_2d=True)
        samples_S = np.ascontiguousarray(samples_SC.mean(axis=1))
        if rate_hz != sample_rate_hz:
            samples_S = soxr.resample(samples_S, rate_hz, sample_rate_hz)
        length = round(length_s * sample_rate_hz)
        return [
            Note(
                row["split"],
                row["collection"],
                note.pitch,
                row["licence"],
                samples_S[note.start_samples : note.start_samples + length],
            )
            for note in single_notes(samples_S, sample_rate_hz=sample_rate_hz, length_s=length_s)
            if self.lowest_pitch <= note.pitch <= self.highest_pitch
        ]
