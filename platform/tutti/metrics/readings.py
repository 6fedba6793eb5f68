"""Music as a sequence of codes, in which neither key nor tempo nor note values matter, and how much each code tells.

Goal: one representation by which passages of different pieces compare. Convention: a reading of W pieces lies end to
end, line by line. The **melody** is the lines of :mod:`tutti.corpus.lines`: highest and lowest notes of the whole and
the highest of each part, without ornaments; a code is an interval and a class of ratio of two times between onsets. The
**texture** is all notes, moment by moment: the code of the highest note as above and how far below it the others lie.
The first two places of a line have no code.

A code tells more bits for a leap than for a step, and :data:`BITS_OF_A_NOTE` for each further note of a moment. It
tells none where it and the three before it stood in the same line before: what a figure says, it says once.

A piece without three moments has places without codes; one without notes has none.

Legend: W pieces, Q places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.lines import PIECES_AT_ONCE, Lines, codes, lines, moments
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.stretches import Stretches
from tutti.metrics.suffixes import NOTHING
from tutti.seeding import mix64

Rows = NDArray[np.int64]

BITS_OF_A_NOTE = 2
FIGURE_CODES = 4
"""Codes that must have stood together before so that the last of them tells nothing."""

# A code of the suffix array has 31 bits.
_CODE_SHIFT = np.uint64(33)


@dataclass(frozen=True)
class Reading:
    """Q places of W pieces.

    Args:
        codes: 0 or more, :data:`~tutti.metrics.suffixes.NOTHING` at the first two places of each line; shape (Q,).
        bits: what each code tells; shape (Q,).
        notes: how many pitches begin at each place; shape (Q,).
        piece: of each place; shape (Q,).
        line: number of each place's line, no two of a reading alike; shape (Q,).
        steps: onset, in steps of its piece; shape (Q,).
        pitch: the highest; shape (Q,).
        shapes: a hash of the other pitches' distances from it, 0 in a melody; shape (Q,).
        steps_per_quarter: of each piece; shape (W,).
    """

    codes: Rows
    bits: Rows
    notes: Rows
    piece: Rows
    line: Rows
    steps: Rows
    pitch: NDArray[np.uint8]
    shapes: NDArray[np.uint32]
    steps_per_quarter: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.codes)


def melody(batch: ScoreBatch) -> Reading:
    """The lines of every piece."""
    parts = []
    for first in range(0, len(batch), PIECES_AT_ONCE):
        found = lines(batch, first=first)
        says, bits = codes(found)
        alone = np.ones(len(says), dtype=np.int64)
        parts.append(_part(found, np.where(says > 0, says, NOTHING), bits, alone, np.zeros(len(says), np.uint32)))
    return _joined(parts)


def texture(batch: ScoreBatch) -> Reading:
    """The moments of every piece."""
    parts = []
    for first in range(0, len(batch), PIECES_AT_ONCE):
        found = moments(batch, first=first)
        says, bits = codes(found.tops)
        whole = (mix64(found.shapes + says.astype(np.uint64)) >> _CODE_SHIFT).astype(np.int64)
        bits = np.where(says > 0, bits + BITS_OF_A_NOTE * (found.notes - 1), 0)
        shapes = (found.shapes >> np.uint64(32)).astype(np.uint32)
        parts.append(_part(found.tops, np.where(says > 0, whole, NOTHING), bits, found.notes, shapes))
    return _joined(parts)


def _part(found: Lines, says: Rows, bits: NDArray[Any], notes: Rows, shapes: NDArray[np.uint32]) -> Reading:
    line = found.line.astype(np.int64)
    return Reading(
        codes=says.astype(np.int64),
        bits=np.where(_new(says, line), bits, 0).astype(np.int64),
        notes=notes,
        piece=found.piece,
        line=line,
        steps=found.steps,
        pitch=found.pitch.astype(np.uint8),
        shapes=shapes,
        steps_per_quarter=found.steps_per_quarter,
    )


def _new(says: Rows, line: Rows) -> NDArray[np.bool_]:
    """Where a code and the three before it in its line stand together for the first time in it."""
    places = np.arange(len(says))
    opens = np.maximum.accumulate(np.where(says == NOTHING, places, 0)) if len(says) else places
    stretches = Stretches.of(mix64(says.astype(np.int64).astype(np.uint64)))
    begins = np.maximum(np.maximum(places - FIGURE_CODES + 1, 0), opens)
    figure = mix64(stretches.hashes(begins, places + 1) ^ mix64(line.astype(np.uint64)))
    order = np.argsort(figure, kind="stable")
    first = np.zeros(len(says), dtype=bool)
    first[order] = np.diff(figure[order], prepend=~figure[order[:1]]) != 0
    return first


def _joined(parts: Sequence[Reading]) -> Reading:
    kinds = {
        "codes": np.int64,
        "bits": np.int64,
        "notes": np.int64,
        "piece": np.int64,
        "line": np.int64,
        "steps": np.int64,
        "pitch": np.uint8,
        "shapes": np.uint32,
        "steps_per_quarter": np.float64,
    }
    columns = {name: [np.empty(0, kind)] for name, kind in kinds.items()}
    pieces = lines_before = 0
    for part in parts:
        for name in kinds:
            offset = {"piece": pieces, "line": lines_before}.get(name, 0)
            columns[name].append(getattr(part, name) + np.array(offset, kinds[name]))
        pieces += len(part.steps_per_quarter)
        lines_before += int(part.line.max(initial=-1)) + 1
    return Reading(**{name: np.concatenate(rows) for name, rows in columns.items()})
