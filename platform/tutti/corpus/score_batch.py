"""Many pieces of music as one set of columns, so that what is computed of each is computed of all at once.

Legend: W pieces, N notes, T tempo changes and M meter changes of all pieces together. ``…_starts`` has one entry more
than there are pieces: piece w holds the rows ``starts[w]`` to ``starts[w + 1]``.

A call of numpy costs a microsecond or more whatever it is given, and the usual MIDI file has a few hundred notes: a
step that costs fifty such calls a file costs more than parsing it. Hence the columns of a whole batch lie end to end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti.corpus.score import CANONICAL_TICKS_PER_QUARTER, DRUM_PROGRAM, Bytes, Notes, Score, Ticks

Starts = NDArray[np.int64]
WORK_ID_DIGITS = 24

# A sort key holds piece, onset, program and pitch in 63 bits.
_PITCH_BITS, _PROGRAM_BITS, _ONSET_BITS = 7, 8, 31
MAX_PIECES = 2 ** (63 - _PITCH_BITS - _PROGRAM_BITS - _ONSET_BITS)


@dataclass(frozen=True)
class ScoreBatch:
    """W pieces laid end to end; each obeys what :class:`~tutti.corpus.score.Score` says.

    Args:
        ticks_per_quarter: resolution of each piece; shape (W,).
        notes: N notes, those of each piece in order.
        note_starts, tempo_starts, meter_starts: where each piece begins; shape (W + 1,).
        tempo_ticks, tempo_qpm: T tempo changes, the first of each piece at tick 0.
        meter_ticks, meter_numerator, meter_denominator: M meter changes, likewise.
        titles, composers: of each piece, where they are known.
    """

    ticks_per_quarter: NDArray[np.int32]
    notes: Notes
    note_starts: Starts
    tempo_ticks: Ticks
    tempo_qpm: NDArray[np.float64]
    tempo_starts: Starts
    meter_ticks: Ticks
    meter_numerator: Bytes
    meter_denominator: Bytes
    meter_starts: Starts
    titles: tuple[str | None, ...]
    composers: tuple[str | None, ...]

    @classmethod
    def of(cls, scores: Sequence[Score]) -> ScoreBatch:
        """The scores, in their order."""

        def end_to_end(name: str, kind: type) -> Any:
            return np.concatenate([np.empty(0, kind), *(getattr(score, name) for score in scores)]).astype(kind)

        def starts(name: str) -> Starts:
            return np.cumsum([0, *(len(getattr(score, name)) for score in scores)], dtype=np.int64)

        return cls(
            ticks_per_quarter=np.array([score.ticks_per_quarter for score in scores], dtype=np.int32),
            notes=joined_notes([score.notes for score in scores]),
            note_starts=starts("notes"),
            tempo_ticks=end_to_end("tempo_ticks", np.int32),
            tempo_qpm=end_to_end("tempo_qpm", np.float64),
            tempo_starts=starts("tempo_ticks"),
            meter_ticks=end_to_end("meter_ticks", np.int32),
            meter_numerator=end_to_end("meter_numerator", np.uint8),
            meter_denominator=end_to_end("meter_denominator", np.uint8),
            meter_starts=starts("meter_ticks"),
            titles=tuple(score.title for score in scores),
            composers=tuple(score.composer for score in scores),
        )

    @classmethod
    def joined(cls, parts: Sequence[ScoreBatch]) -> ScoreBatch:
        """The pieces of all parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.of([])

        def end_to_end(name: str) -> Any:
            return np.concatenate([getattr(part, name) for part in parts])

        def starts(name: str) -> Starts:
            return np.concatenate(([0], np.cumsum(np.concatenate([np.diff(getattr(part, name)) for part in parts]))))

        return cls(
            ticks_per_quarter=end_to_end("ticks_per_quarter"),
            notes=joined_notes([part.notes for part in parts]),
            note_starts=starts("note_starts"),
            tempo_ticks=end_to_end("tempo_ticks"),
            tempo_qpm=end_to_end("tempo_qpm"),
            tempo_starts=starts("tempo_starts"),
            meter_ticks=end_to_end("meter_ticks"),
            meter_numerator=end_to_end("meter_numerator"),
            meter_denominator=end_to_end("meter_denominator"),
            meter_starts=starts("meter_starts"),
            titles=tuple(title for part in parts for title in part.titles),
            composers=tuple(composer for part in parts for composer in part.composers),
        )

    @classmethod
    def from_table(cls, works: pa.Table) -> ScoreBatch:
        """The pieces of rows of the ``works`` table, without a copy of what lies in one chunk."""

        def flat(name: str) -> tuple[Any, Starts]:
            column = works.column(name).combine_chunks()
            offsets: Starts = column.offsets.to_numpy().astype(np.int64)
            return column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]], offsets - offsets[0]

        notes: dict[str, Any] = {field.name: flat(field.name)[0] for field in fields(Notes)}
        tempo_ticks, tempo_starts = flat("tempo_ticks")
        meter_ticks, meter_starts = flat("meter_ticks")
        return cls(
            ticks_per_quarter=works.column("ticks_per_quarter").to_numpy(),
            notes=Notes(**notes),
            note_starts=flat("pitch")[1],
            tempo_ticks=tempo_ticks,
            tempo_qpm=flat("tempo_qpm")[0],
            tempo_starts=tempo_starts,
            meter_ticks=meter_ticks,
            meter_numerator=flat("meter_numerator")[0],
            meter_denominator=flat("meter_denominator")[0],
            meter_starts=meter_starts,
            titles=tuple(works.column("title").to_pylist()),
            composers=tuple(works.column("composer").to_pylist()),
        )

    def __len__(self) -> int:
        return len(self.ticks_per_quarter)

    def __getitem__(self, piece: int) -> Score:
        piece = range(len(self))[piece]
        notes = slice(self.note_starts[piece], self.note_starts[piece + 1])
        tempos = slice(self.tempo_starts[piece], self.tempo_starts[piece + 1])
        meters = slice(self.meter_starts[piece], self.meter_starts[piece + 1])
        return Score(
            ticks_per_quarter=int(self.ticks_per_quarter[piece]),
            notes=self.notes.take(notes),
            tempo_ticks=self.tempo_ticks[tempos],
            tempo_qpm=self.tempo_qpm[tempos],
            meter_ticks=self.meter_ticks[meters],
            meter_numerator=self.meter_numerator[meters],
            meter_denominator=self.meter_denominator[meters],
            title=self.titles[piece],
            composer=self.composers[piece],
        )

    def __iter__(self) -> Iterator[Score]:
        return (self[piece] for piece in range(len(self)))

    @cached_property
    def piece_of_note(self) -> NDArray[np.int64]:
        """Which piece each note belongs to; shape (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.note_starts))

    @cached_property
    def end_ticks(self) -> NDArray[np.int64]:
        """Where the last note of each piece ends, 0 without notes; shape (W,)."""
        ends = self.notes.onset_ticks.astype(np.int64) + self.notes.duration_ticks
        return reduced(np.maximum, ends, self.note_starts)

    @cached_property
    def length_s(self) -> NDArray[np.float64]:
        """Seconds from the first bar line to the end of the last note; shape (W,)."""
        return self.seconds_at(self.end_ticks, np.arange(len(self)))

    def seconds_at(self, ticks: NDArray[Any], piece: NDArray[np.int64]) -> NDArray[np.float64]:
        """Seconds of each tick under the tempo map of its piece; ticks and pieces have one shape."""
        starts_s, seconds_per_tick = self._tempo_map
        at = entry_at(ticks, piece, entry_ticks=self.tempo_ticks, starts=self.tempo_starts)
        return np.asarray(starts_s[at] + (ticks - self.tempo_ticks[at]) * seconds_per_tick[at])

    def take(self, index: NDArray[Any]) -> ScoreBatch:
        """The pieces at ``index`` (positions or a mask), in that order."""
        index = np.flatnonzero(index) if index.dtype == bool else np.asarray(index, dtype=np.int64)
        note_rows, note_starts = _rows_of(self.note_starts, index)
        tempo_rows, tempo_starts = _rows_of(self.tempo_starts, index)
        meter_rows, meter_starts = _rows_of(self.meter_starts, index)
        return ScoreBatch(
            ticks_per_quarter=self.ticks_per_quarter[index],
            notes=self.notes.take(note_rows),
            note_starts=note_starts,
            tempo_ticks=self.tempo_ticks[tempo_rows],
            tempo_qpm=self.tempo_qpm[tempo_rows],
            tempo_starts=tempo_starts,
            meter_ticks=self.meter_ticks[meter_rows],
            meter_numerator=self.meter_numerator[meter_rows],
            meter_denominator=self.meter_denominator[meter_rows],
            meter_starts=meter_starts,
            titles=tuple(self.titles[piece] for piece in index),
            composers=tuple(self.composers[piece] for piece in index),
        )

    def without_drums(self) -> ScoreBatch:
        """The same pieces without the notes of program 128."""
        kept = self.notes.program != DRUM_PROGRAM
        if kept.all():
            return self
        counts = np.bincount(self.piece_of_note[kept], minlength=len(self))
        return replace(self, notes=self.notes.take(kept), note_starts=np.concatenate(([0], np.cumsum(counts))))

    def work_ids(self) -> list[str]:
        """Hash of the canonical music of each piece: 24 hex digits.

        Hashed are notes (onset, duration, pitch, velocity, program; in order, without the names of parts), tempos in
        thousandths of a quarter a minute and meters, at 480 ticks a quarter, each table after the number of its rows.
        """
        onset, duration = self._on_resolution(CANONICAL_TICKS_PER_QUARTER)
        notes = self.notes
        order = note_order(self.piece_of_note, onset, notes, duration_ticks=duration)
        columns = (onset, duration, notes.pitch, notes.velocity, notes.program)
        tempo_ticks = self._rescaled(self.tempo_ticks, self.tempo_starts, CANONICAL_TICKS_PER_QUARTER)
        meter_ticks = self._rescaled(self.meter_ticks, self.meter_starts, CANONICAL_TICKS_PER_QUARTER)
        tables = (
            (_rows(*(column if order is None else column[order] for column in columns)), self.note_starts.tolist()),
            (_rows(tempo_ticks, np.rint(self.tempo_qpm * 1000)), self.tempo_starts.tolist()),
            (_rows(meter_ticks, self.meter_numerator, self.meter_denominator), self.meter_starts.tolist()),
        )
        ids = []
        for piece in range(len(self)):
            state = hashlib.sha256()
            for rows, starts in tables:
                held = rows[starts[piece] : starts[piece + 1]]
                state.update(len(held).to_bytes(4, "little"))
                state.update(held.data)
            ids.append(state.hexdigest()[:WORK_ID_DIGITS])
        return ids

    def arrow_columns(self) -> dict[str, pa.Array]:
        """The note, tempo and meter columns of the ``works`` table, titles and composers."""

        def lists(starts: Starts, values: NDArray[Any]) -> pa.Array:
            return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(values))

        return {
            "ticks_per_quarter": pa.array(self.ticks_per_quarter),
            **{field.name: lists(self.note_starts, getattr(self.notes, field.name)) for field in fields(Notes)},
            "tempo_ticks": lists(self.tempo_starts, self.tempo_ticks),
            "tempo_qpm": lists(self.tempo_starts, self.tempo_qpm),
            "meter_ticks": lists(self.meter_starts, self.meter_ticks),
            "meter_numerator": lists(self.meter_starts, self.meter_numerator),
            "meter_denominator": lists(self.meter_starts, self.meter_denominator),
            "title": pa.array(self.titles, pa.string()),
            "composer": pa.array(self.composers, pa.string()),
        }

    @cached_property
    def _tempo_map(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of each tempo change: seconds at its start, and seconds of a tick."""
        piece = np.repeat(np.arange(len(self)), np.diff(self.tempo_starts))
        seconds_per_tick = 60.0 / (self.tempo_qpm * self.ticks_per_quarter[piece])
        ticks = self.tempo_ticks.astype(np.int64)
        first = self.tempo_starts[:-1]
        lasted_s = np.zeros(len(ticks))
        lasted_s[1:] = np.diff(ticks) * seconds_per_tick[:-1]
        lasted_s[first] = 0.0
        # Summed within each piece alone: what other pieces last must not round what this one does.
        starts_s = np.zeros(len(ticks))
        several = np.flatnonzero(np.diff(self.tempo_starts) > 1)
        for begin, end in zip(
            self.tempo_starts[several].tolist(), self.tempo_starts[several + 1].tolist(), strict=True
        ):
            starts_s[begin:end] = np.cumsum(lasted_s[begin:end])
        return starts_s, seconds_per_tick

    def _rescaled(self, ticks: NDArray[Any], starts: Starts, ticks_per_quarter: int) -> NDArray[np.int64]:
        """Ticks on another resolution, rounded to the nearest, halves up."""
        own = self.ticks_per_quarter.astype(np.int64)
        shared = np.gcd(own, ticks_per_quarter)
        above, below = (np.repeat(side, np.diff(starts)) for side in (ticks_per_quarter // shared, own // shared))
        return np.asarray((2 * ticks.astype(np.int64) * above + below) // (2 * below))

    def _on_resolution(self, ticks_per_quarter: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Onset and duration of every note on another resolution; a note keeps at least one tick."""
        onset, duration = self.notes.onset_ticks.astype(np.int64), self.notes.duration_ticks.astype(np.int64)
        if (self.ticks_per_quarter == ticks_per_quarter).all():
            return onset, duration
        begins = self._rescaled(onset, self.note_starts, ticks_per_quarter)
        ends = self._rescaled(onset + duration, self.note_starts, ticks_per_quarter)
        return begins, np.maximum(ends - begins, 1)


def joined_notes(parts: Sequence[Notes]) -> Notes:
    """Notes end to end."""
    if not parts:
        return Notes.none()
    return Notes(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Notes)))


def work_id(score: Score) -> str:
    """Hash of the canonical music of one piece; see :meth:`ScoreBatch.work_ids`."""
    return ScoreBatch.of([score]).work_ids()[0]


def note_order(
    piece: NDArray[Any], onset_ticks: NDArray[Any], notes: Notes, *, duration_ticks: NDArray[Any] | None = None
) -> NDArray[np.int64] | None:
    """The order of notes: piece, onset, program, pitch, duration, velocity, track; None where they are in it.

    One sort of packed 63-bit keys, and a second one of the few notes that are alike in them.

    Args:
        piece: which piece each note belongs to, below :data:`MAX_PIECES`.
        onset_ticks: 0 to 2^31 - 1.
        notes: the other columns.
        duration_ticks: in place of those of ``notes``.
    """
    duration = notes.duration_ticks if duration_ticks is None else duration_ticks
    key = (np.asarray(piece, dtype=np.int64) << _ONSET_BITS) + onset_ticks
    key = (((key << _PROGRAM_BITS) + notes.program) << _PITCH_BITS) + notes.pitch
    steps = np.diff(key)
    if (steps > 0).all():
        return None
    order = np.argsort(key, kind="stable")
    inorder = key[order]
    alike = np.zeros(len(order) + 1, dtype=bool)
    alike[1:-1] = inorder[1:] == inorder[:-1]
    tied = alike[:-1] | alike[1:]
    if tied.any():
        rows = order[tied]
        order[tied] = rows[np.lexsort((notes.track[rows], notes.velocity[rows], duration[rows], key[rows]))]
    return order


def entry_at(
    ticks: NDArray[Any], piece: NDArray[np.int64], *, entry_ticks: NDArray[Any], starts: Starts
) -> NDArray[np.int64]:
    """The row of a map (of tempos, of meters) that holds at each tick of each piece.

    Args:
        ticks: 0 to 2^32 - 1.
        piece: of each tick; same shape.
        entry_ticks: where each row of the map begins, the first of each piece at tick 0.
        starts: first row of each piece; shape (W + 1,).
    """
    at = starts[:-1][piece]
    several = np.diff(starts) > 1
    if several.any():
        # Most pieces have one tempo and one meter: only the others are searched.
        searched = np.flatnonzero(several[piece])
        rows = np.flatnonzero(np.repeat(several, np.diff(starts)))
        owners = np.repeat(np.arange(len(several)), np.diff(starts))[rows]
        keys = (owners << 32) + entry_ticks[rows]
        found = np.searchsorted(keys, (piece[searched] << 32) + ticks[searched], side="right") - 1
        at[searched] = rows[found]
    return at


def reduced(function: np.ufunc, values: NDArray[Any], starts: Starts, *, empty: float = 0) -> NDArray[Any]:
    """``function`` over the rows of each piece; ``empty`` for a piece without rows. Shape (W,)."""
    made = np.full(len(starts) - 1, empty, dtype=values.dtype)
    held = np.diff(starts) > 0
    if held.any():
        made[held] = function.reduceat(values, starts[:-1][held])
    return made


def _rows_of(starts: Starts, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], Starts]:
    """Rows of the pieces at ``index``, end to end, and where each piece now begins."""
    lengths = np.diff(starts)[index]
    begins = np.concatenate(([0], np.cumsum(lengths)))
    rows = np.arange(begins[-1]) + np.repeat(starts[index] - begins[:-1], lengths)
    return rows, begins


def _rows(*columns: NDArray[Any]) -> NDArray[np.int32]:
    """Columns side by side, each row's four-byte numbers together."""
    rows = np.empty((len(columns[0]), len(columns)), dtype="<i4")
    for number, column in enumerate(columns):
        rows[:, number] = column
    return rows
