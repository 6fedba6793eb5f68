"""Which pieces a recipe keeps, by what was measured of them. What is dropped becomes a refusal with its rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tutti.config import Settings
from tutti.corpus.score import DRUM_PROGRAM

SCREENED = ("too_few_notes", "too_long", "too_short", "too_dense", "mostly_empty", "drums_only", "one_pitch")
"""Reasons of this module, in the order in which they are looked for: the first that holds is told."""


class Screening(Settings):
    """Limits of what is kept; by default all music of a length that a machine can hold."""

    min_notes: int = Field(default=1, ge=1, description="shortest work that is kept, notes")
    max_notes: int = Field(default=200_000, ge=1, description="longest work that is kept, notes")
    min_length_s: float = Field(default=0.0, ge=0, description="shortest work that is kept, seconds")
    max_length_s: float = Field(default=7200.0, gt=0, description="longest work that is kept, seconds")
    max_polyphony: float | None = Field(
        default=None, ge=1, description="most notes that may sound at once, on average; any where left out"
    )
    max_empty_bars_share: float = Field(default=1.0, ge=0, le=1, description="largest share of bars without sound")
    drop_drums_only: bool = Field(default=False, description="drop works without a note but a drum kit's")
    drop_one_pitch: bool = Field(default=False, description="drop works of one pitch alone")

    @model_validator(mode="after")
    def _something_can_pass(self) -> Screening:
        for name in ("notes", "length_s"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} {low:g} is above max_{name} {high:g}: nothing can pass")
        return self

    def dropped(self, works: pa.Table) -> Iterator[tuple[int, str, str]]:
        """Row, reason and detail of each work that is not kept, in the order of rows.

        Args:
            works: with the descriptor columns of the ``works`` table.
        """
        notes, length_s, polyphony, empty = (
            works[name].to_numpy() for name in ("notes", "length_s", "polyphony", "empty_bars_share")
        )
        most = np.inf if self.max_polyphony is None else self.max_polyphony
        rules: list[tuple[str, NDArray[Any], NDArray[Any], str]] = [
            ("too_few_notes", notes < self.min_notes, notes, f"notes are fewer than the limit of {self.min_notes}"),
            ("too_long", notes > self.max_notes, notes, f"notes are more than the limit of {self.max_notes}"),
            (
                "too_short",
                length_s < self.min_length_s,
                length_s,
                f"s are less than the limit of {self.min_length_s:g} s",
            ),
            (
                "too_long",
                length_s > self.max_length_s,
                length_s,
                f"s are more than the limit of {self.max_length_s:g} s",
            ),
            ("too_dense", polyphony > most, polyphony, f"notes at once are more than the limit of {most:g}"),
            (
                "mostly_empty",
                empty > self.max_empty_bars_share,
                empty,
                f"of the bars without sound are more than the limit of {self.max_empty_bars_share:g}",
            ),
        ]
        if self.drop_drums_only:
            drums = np.array([programs == [DRUM_PROGRAM] for programs in works["programs"].to_pylist()], dtype=bool)
            rules.append(("drums_only", drums, notes, "notes, all of them of a drum kit"))
        if self.drop_one_pitch:
            one = _one_pitch(works)
            rules.append(("one_pitch", one, notes, "notes of one pitch"))
        told = np.zeros(works.num_rows, dtype=bool)
        found: list[tuple[int, str, str]] = []
        for reason, holds, figure, text in rules:
            rows = np.flatnonzero(holds & ~told).tolist()
            found += [(row, reason, f"{figure[row]:.6g} {text}") for row in rows]
            told |= holds
        return iter(sorted(found))


def _one_pitch(works: pa.Table) -> NDArray[np.bool_]:
    """Whether all notes of a work have one pitch."""
    column = works["pitch"].combine_chunks()
    starts = column.offsets.to_numpy()
    starts = starts - starts[0]
    pitch = column.flatten().to_numpy()
    held = np.diff(starts) > 0
    low, high = np.zeros(len(held), np.uint8), np.ones(len(held), np.uint8)
    if held.any():
        low[held] = np.minimum.reduceat(pitch, starts[:-1][held])
        high[held] = np.maximum.reduceat(pitch, starts[:-1][held])
    return np.asarray(low == high)
