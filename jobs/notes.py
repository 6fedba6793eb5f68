"""Single notes to learn instruments from: played from the bundled SoundFont, or cut from the clips of a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from tutti.config import Settings
from tutti.corpus import rights
from tutti.dataset.note_sources import Cut, NoteSource, Played
from tutti.dataset.spectra import pack_spectra
from tutti.errors import RecipeError, UserError
from tutti.features.spectra import SpectrumScale
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.telemetry import Reporter

LEAST_HELD_OUT = 4
"""Notes of a split that is not learnt from: fewer have no two halves to be compared."""


class NotesRecipe(Settings):
    """Which notes instruments are learnt from, and what their pictures are made with."""

    programs: tuple[int, ...] = Field(
        default=(),
        description="General MIDI programs to play from the bundled SoundFont, 0 to 127, each an instrument; empty: "
        "none, only notes that sound alone in the corpus's clips, each collection an instrument",
    )
    velocities: tuple[int, ...] = Field(
        default=(100,),
        min_length=1,
        description="MIDI velocities at which each pitch is played; the bundled SoundFont has one timbre for all",
    )
    licence: rights.Licence = Field(
        default=rights.UNKNOWN, description="terms of the bundled SoundFont, where it is played: SPDX, or LicenseRef-…"
    )
    lowest_pitch: int = Field(default=36, ge=0, le=127, description="lowest MIDI pitch that is learnt")
    highest_pitch: int = Field(default=84, ge=0, le=127, description="highest MIDI pitch that is learnt")
    valid_share: float = Field(default=0.1, gt=0, lt=1, description="share of the keys played that steer the training")
    test_share: float = Field(default=0.1, gt=0, lt=1, description="share of the keys played that judge its end")
    sample_rate_hz: int = Field(default=16_000, ge=16_000, le=48_000, description="rate of the sound, hertz")
    n_fft: int = Field(
        default=2048,
        ge=256,
        le=8192,
        multiple_of=4,
        description="window, samples; partials closer than 4 / n_fft merge",
    )
    bins: int = Field(default=128, ge=16, le=1024, description="frequencies of a picture, at even steps of mel")
    frames: int = Field(default=32, ge=4, le=512, description="frames of a picture, a quarter of n_fft apart")
    range_db: float = Field(default=80.0, ge=20, le=120, description="from a note's loudest bin to silence, decibels")

    @model_validator(mode="after")
    def _can_be_played(self) -> NotesRecipe:
        if self.lowest_pitch > self.highest_pitch:
            raise ValueError(f"lowest_pitch {self.lowest_pitch} is above highest_pitch {self.highest_pitch}")
        if self.programs and self.licence == rights.UNKNOWN:
            raise ValueError("licence says under which terms the SoundFont is that plays the programs")
        if self.programs:
            try:
                self._played()
            except RecipeError as error:
                raise ValueError(str(error)) from None
        return self

    @property
    def scale(self) -> SpectrumScale:
        """What the pictures are made with."""
        return SpectrumScale(self.sample_rate_hz, self.n_fft, self.bins, self.frames, self.range_db)

    def decides(self, *, instruments: int) -> dict[str, Any]:
        """What the notes decide of a model's configuration, by name of its fields."""
        pitches = {"lowest_pitch": self.lowest_pitch, "highest_pitch": self.highest_pitch}
        return {**self.scale.to_dict(), **pitches, "instruments": instruments}

    def sources(self, works: Dataset | None, *, licences: tuple[str, ...]) -> list[NoteSource]:
        """Where the notes come from.

        Args:
            works: the ingested corpus, whose clips are cut; None where there is none.
            licences: those that may be learnt from.

        Raises:
            RecipeError: the SoundFont's licence is not among them.
            MissingError: no SoundFont.
        """
        found: list[NoteSource] = []
        if self.programs:
            rights.check_allowed([self.licence], named=licences)
            found.append(self._played())
        if works is not None:
            found.append(
                Cut(works, licences=licences, lowest_pitch=self.lowest_pitch, highest_pitch=self.highest_pitch)
            )
        return found

    def _played(self) -> Played:
        # The synthesiser is slow to load, and a recipe is read by every verb.
        from tutti.render.notes import play_note
        from tutti.render.soundfont import default_path

        return Played(
            player=play_note,
            sound=hashlib.sha256(default_path().read_bytes()).hexdigest(),
            licence=self.licence,
            programs=self.programs,
            lowest_pitch=self.lowest_pitch,
            highest_pitch=self.highest_pitch,
            velocities=self.velocities,
            valid_share=self.valid_share,
            test_share=self.test_share,
        )


DECIDED = frozenset(NotesRecipe().decides(instruments=1))
"""Settings of a model that its notes decide."""


def packed(
    notes: NotesRecipe,
    works: Dataset | None,
    *,
    licences: tuple[str, ...],
    name: str,
    root: Folder,
    reporter: Reporter,
) -> Dataset:
    """The notes as packed pictures; found, where that was done before.

    Raises:
        UserError: no note sounds, or a split has too few; a licence was not named; a place cannot be used.
    """
    sources = notes.sources(works, licences=licences)
    spectra = pack_spectra(sources, scale=notes.scale, root=root, name=name, reporter=reporter)
    held: Mapping[str, int] = spectra.facts["split_notes"]
    for split in ("train", "valid", "test"):
        if held.get(split, 0) < LEAST_HELD_OUT:
            raise UserError(
                f"spectra {name}: {split} has {held.get(split, 0)} notes, and {LEAST_HELD_OUT} are needed",
                remedy="name more programs, pitches or clips, or a larger valid_share and test_share",
            )
    return spectra
