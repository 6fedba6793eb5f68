"""Pieces as readers find them, and the rules by which they become works.

Every reader ends here, so that one rule holds for all formats, and each is applied to all pieces at once:

- A note has at least one tick, and a velocity of at least 1.
- Notes alike in piece, track, program, onset and pitch are one note: the longest of them, then the loudest.
- Of several tempos (or meters) at one tick the last holds. A piece that states none at its beginning has 120 quarters a
  minute (or 4/4) there.
- A piece that breaks a limit is refused alone: :data:`tutti.tables.REFUSAL_REASONS` says why.

Legend: W pieces, N notes, T tempo and M meter changes of all pieces together, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.midi_closing import MAX_TICKS
from tutti.corpus.score import DEFAULT_METER, DEFAULT_TEMPO_QPM, DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch, note_order

HANGING_NOTE_QUARTERS = 8.0
MAX_NOTES = 1_000_000
MAX_QUARTERS = 100_000
MAX_TRACKS = 2**16
MAX_BARS = 2 * MAX_QUARTERS
MIN_TEMPO_QPM, MAX_TEMPO_QPM = 1e-2, 6e7

Integers = NDArray[np.integer[Any]]
Refusal = tuple[str, str]


@dataclass
class FoundPieces:
    """W pieces, unchecked.

    Args:
        ticks_per_quarter: resolution of each piece; shape (W,).
        titles, composers: of each piece, where they are known.
        piece, onset_ticks, duration_ticks, pitch, velocity, program, track: of each note; shape (N,).
        tempo_piece, tempo_ticks, tempo_qpm: of each tempo; shape (T,).
        meter_piece, meter_ticks, meter_numerator, meter_denominator: of each meter; shape (M,).
        refused: what the reader itself found wrong with a piece.
    """

    ticks_per_quarter: Integers
    titles: list[str | None]
    composers: list[str | None]
    piece: Integers
    onset_ticks: Integers
    duration_ticks: Integers
    pitch: Integers
    velocity: Integers
    program: Integers
    track: Integers
    tempo_piece: Integers
    tempo_ticks: Integers
    tempo_qpm: NDArray[np.float64]
    meter_piece: Integers
    meter_ticks: Integers
    meter_numerator: Integers
    meter_denominator: Integers
    refused: dict[int, Refusal] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.titles)

    @classmethod
    def of(cls, scores: Sequence[Score]) -> FoundPieces:
        """The pieces that a reader made whole."""
        return cls.of_batch(ScoreBatch.of(scores))

    @classmethod
    def of_batch(cls, batch: ScoreBatch) -> FoundPieces:
        """The pieces of a batch that nobody vouches for."""
        pieces = np.arange(len(batch))
        return cls(
            ticks_per_quarter=batch.ticks_per_quarter,
            titles=list(batch.titles),
            composers=list(batch.composers),
            piece=batch.piece_of_note,
            **{column.name: getattr(batch.notes, column.name) for column in fields(Notes)},
            tempo_piece=np.repeat(pieces, np.diff(batch.tempo_starts)),
            tempo_ticks=batch.tempo_ticks,
            tempo_qpm=batch.tempo_qpm,
            meter_piece=np.repeat(pieces, np.diff(batch.meter_starts)),
            meter_ticks=batch.meter_ticks,
            meter_numerator=batch.meter_numerator,
            meter_denominator=batch.meter_denominator,
        )

    @classmethod
    def joined(cls, parts: Sequence[FoundPieces]) -> FoundPieces:
        """What several readers found, in their order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.of([])
        begins = np.cumsum([0, *(len(part) for part in parts)]).tolist()
        columns: dict[str, Any] = {}
        for column in fields(cls):
            values = [getattr(part, column.name) for part in parts]
            if column.name in ("titles", "composers"):
                columns[column.name] = [value for some in values for value in some]
            elif column.name == "refused":
                columns[column.name] = {
                    begin + piece: why
                    for begin, some in zip(begins, values, strict=False)
                    for piece, why in some.items()
                }
            elif column.name.endswith("piece"):
                columns[column.name] = np.concatenate(
                    [begin + value for begin, value in zip(begins, values, strict=False)]
                )
            else:
                columns[column.name] = np.concatenate(values)
        return cls(**columns)

    def settled(self, *, max_notes: int) -> tuple[ScoreBatch, NDArray[np.int64], dict[int, Refusal]]:
        """The pieces by the rules of this module.

        Args:
            max_notes: of one piece.

        Returns:
            the pieces that obey, which ones they are, and why the others do not.
        """
        refused = {**_faults(self, max_notes=max_notes), **self.refused}
        kept = np.ones(len(self), dtype=bool)
        kept[list(refused)] = False
        index = np.flatnonzero(kept)
        notes, note_starts = _notes(self, kept)
        tempos, tempo_starts = _completed(
            (self.tempo_piece, self.tempo_ticks), (self.tempo_qpm,), kept, default=(DEFAULT_TEMPO_QPM,)
        )
        meters, meter_starts = _completed(
            (self.meter_piece, self.meter_ticks),
            (self.meter_numerator, self.meter_denominator),
            kept,
            default=DEFAULT_METER,
        )
        batch = ScoreBatch(
            ticks_per_quarter=self.ticks_per_quarter[index].astype(np.int32),
            notes=notes,
            note_starts=note_starts,
            tempo_ticks=tempos[0].astype(np.int32),
            tempo_qpm=tempos[1].astype(np.float64),
            tempo_starts=tempo_starts,
            meter_ticks=meters[0].astype(np.int32),
            meter_numerator=meters[1].astype(np.uint8),
            meter_denominator=meters[2].astype(np.uint8),
            meter_starts=meter_starts,
            titles=tuple(self.titles[piece] for piece in index.tolist()),
            composers=tuple(self.composers[piece] for piece in index.tolist()),
        )
        return batch, index, refused


def _faults(found: FoundPieces, *, max_notes: int) -> dict[int, Refusal]:
    """Why pieces cannot be taken; of several reasons for one piece the last one here is told."""
    faults: dict[int, Refusal] = {}

    def fault(pieces: Integers, reason: str, detail: str, *figures: NDArray[Any]) -> None:
        named, first = np.unique(pieces, return_index=True)
        for piece, row in zip(named.tolist(), first.tolist(), strict=True):
            faults[piece] = (reason, detail.format(*(figure[row] for figure in figures)))

    tpq = found.ticks_per_quarter.astype(np.int64)
    counts = np.bincount(found.piece, minlength=len(found))
    end = np.zeros(len(found), dtype=np.int64)
    np.maximum.at(end, found.piece, found.onset_ticks.astype(np.int64) + found.duration_ticks)
    long, far, many = end > MAX_QUARTERS * tpq, end > MAX_TICKS, counts > max_notes
    pieces = np.arange(len(found))
    bars = _bars(found, end_ticks=end)
    fault(
        pieces[bars > MAX_BARS], "bad_time", f"{{}} bars are more than the limit of {MAX_BARS}", bars[bars > MAX_BARS]
    )
    fault(
        pieces[long], "too_long", f"{{:.0f}} quarters are more than the limit of {MAX_QUARTERS}",
        end[long] / np.maximum(tpq[long], 1),
    )  # fmt: skip
    fault(pieces[far], "too_long", f"the last note ends at tick {{}}, past the limit of {MAX_TICKS}", end[far])
    fault(pieces[many], "too_long", f"{{}} notes are more than the limit of {max_notes}", counts[many])
    _map_faults(found, fault)
    for name, limit in (("pitch", 127), ("velocity", 127), ("program", DRUM_PROGRAM), ("track", MAX_TRACKS - 1)):
        values = getattr(found, name)
        outside = (values < 0) | (values > limit)
        fault(found.piece[outside], "unreadable", f"a note has {name} {{}}", values[outside])
    early = (found.onset_ticks < 0) | (found.duration_ticks < 0)
    fault(found.piece[early], "unreadable", "a note begins before the piece or ends before it begins")
    timeless = (tpq <= 0) | (tpq > MAX_TICKS)
    fault(pieces[timeless], "bad_time", "{} ticks per quarter give no finite length", tpq[timeless])
    fault(pieces[counts == 0], "no_notes", "the piece holds no note")
    return faults


def _bars(found: FoundPieces, *, end_ticks: NDArray[np.int64]) -> NDArray[np.int64]:
    """No fewer than the bars of each piece: those of its shortest meter from beginning to end, and one a change."""
    quarters = end_ticks / np.maximum(found.ticks_per_quarter, 1)
    above, below = (np.maximum(side.astype(np.float64), 1) for side in (found.meter_numerator, found.meter_denominator))
    shortest = np.full(len(found), 4.0)
    np.minimum.at(shortest, found.meter_piece, 4 * above / below)
    changes = np.bincount(found.meter_piece, minlength=len(found))
    return np.asarray(np.ceil(quarters / shortest).astype(np.int64) + changes)


def _map_faults(found: FoundPieces, fault: Callable[..., None]) -> None:
    """Report tempos and meters that give no finite length."""
    odd = ~((found.tempo_qpm >= MIN_TEMPO_QPM) & (found.tempo_qpm <= MAX_TEMPO_QPM))
    fault(found.tempo_piece[odd], "bad_time", "a tempo of {:g} quarters a minute is none", found.tempo_qpm[odd])
    above, below = found.meter_numerator, found.meter_denominator
    odd = (np.minimum(above, below) <= 0) | (np.maximum(above, below) > 255)
    fault(found.meter_piece[odd], "bad_time", "a meter of {}/{} has no bar", above[odd], below[odd])
    for maps in ("tempo", "meter"):
        ticks = getattr(found, f"{maps}_ticks")
        odd = (ticks < 0) | (ticks > MAX_TICKS)
        fault(getattr(found, f"{maps}_piece")[odd], "bad_time", f"a {maps} begins at tick {{}}", ticks[odd])


def _notes(found: FoundPieces, kept: NDArray[np.bool_]) -> tuple[Notes, NDArray[np.int64]]:
    """Notes of the pieces that are kept, in order and each once, and where each piece begins."""
    piece = (np.cumsum(kept) - 1)[found.piece]
    columns = {column.name: getattr(found, column.name) for column in fields(Notes)}
    if not kept.all():
        rows = kept[found.piece]
        piece = piece[rows]
        columns = {name: values[rows] for name, values in columns.items()}
    notes = Notes(
        onset_ticks=columns["onset_ticks"].astype(np.int32),
        duration_ticks=np.maximum(columns["duration_ticks"], 1).astype(np.int32),
        pitch=columns["pitch"].astype(np.uint8),
        velocity=np.maximum(columns["velocity"], 1).astype(np.uint8),
        program=columns["program"].astype(np.uint8),
        track=columns["track"].astype(np.uint16),
    )
    order = note_order(piece, notes.onset_ticks, notes)
    if order is not None:
        piece, notes = piece[order], notes.take(order)
    lesser = lesser_duplicates(piece, notes)
    if len(lesser):
        once = np.ones(len(notes), dtype=bool)
        once[lesser] = False
        piece, notes = piece[once], notes.take(once)
    return notes, np.searchsorted(piece, np.arange(np.count_nonzero(kept) + 1))


def lesser_duplicates(piece: Integers, notes: Notes) -> NDArray[np.int64]:
    """Rows of the notes that are one with a longer or louder note; see the module's rules.

    Args:
        piece: of each note.
        notes: in order within each piece, the pieces in order.
    """
    alike = (notes.onset_ticks[1:] == notes.onset_ticks[:-1]) & (notes.pitch[1:] == notes.pitch[:-1])
    alike &= (notes.program[1:] == notes.program[:-1]) & (piece[1:] == piece[:-1])
    if not alike.any():
        return np.empty(0, dtype=np.int64)
    group = np.concatenate(([0], np.cumsum(~alike)))
    rows = np.flatnonzero(np.concatenate((alike, [False])) | np.concatenate(([False], alike)))
    some = notes.take(rows)
    order = np.lexsort((some.velocity, some.duration_ticks, some.track, group[rows]))
    rows = rows[order]
    same = (group[rows][1:] == group[rows][:-1]) & (notes.track[rows][1:] == notes.track[rows][:-1])
    return np.asarray(rows[:-1][same])


def _completed(
    where: tuple[Integers, Integers],
    values: tuple[NDArray[Any], ...],
    kept: NDArray[np.bool_],
    *,
    default: tuple[Any, ...],
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """Ticks and values of a map of the pieces that are kept, from tick 0 on, and where each piece begins."""
    rows = kept[where[0]]
    count = int(np.count_nonzero(kept))
    # The defaults come first: what a piece states at its beginning comes later, and the last holds.
    key = np.concatenate((np.arange(count) << 32, ((np.cumsum(kept) - 1)[where[0][rows]] << 32) + where[1][rows]))
    order = np.argsort(key, kind="stable")
    inorder = key[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = inorder[1:] != inorder[:-1]
    order, inorder = order[last], inorder[last]
    columns = [
        np.concatenate((np.full(count, usual), value[rows]))[order]
        for usual, value in zip(default, values, strict=True)
    ]
    return [inorder & (2**32 - 1), *columns], np.searchsorted(inorder, np.arange(count + 1) << 32)
