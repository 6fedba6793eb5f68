"""Limits of pitch that change as a piece goes on, for a whole batch at once.

Time is cut into spans. A span says which pitches may begin in it, on which the lowest one must be if a note begins
where the span does, whether one must, and where notes that began in it are released: some pitches may be held longer
than others. What a song's chords ask (:mod:`tutti.generation.harmony`) is said this way.

Legend: B rows, S spans, K masks of pitches, N notes. Ticks are 24 a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM

FAR = np.int64(1) << 40
"""Later than any tick of a piece."""
_ANY = -1

Ticks = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spans:
    """Limits of one piece, span by span.

    Args:
        start_ticks: of each, rising from 0; shape (S,).
        begin: pitches that may begin in it, an index into ``masks``; shape (S,).
        lowest: pitches on which the lowest of the notes that begin where it does must be; -1: any. Shape (S,).
        hold: pitches that are held to ``hold_ticks`` at most, and all others to ``release_ticks``; shape (S,).
        hold_ticks, release_ticks: shape (S,).
        must: whether a note must begin where it does; shape (S,).
        masks: sets of pitches; shape (K, 128).
        before: pitches that may begin before the first span; shape (128,).
    """

    start_ticks: Ticks
    begin: NDArray[np.int16]
    lowest: NDArray[np.int16]
    hold: NDArray[np.int16]
    hold_ticks: Ticks
    release_ticks: Ticks
    must: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    before: NDArray[np.bool_]

    def released(self, onset_ticks: Ticks, *, pitch: NDArray[np.integer], program: NDArray[np.integer]) -> Ticks:
        """Where notes are released at the latest; all of shape (N,). Percussion is held to ``hold_ticks``."""
        span = np.searchsorted(self.start_ticks, onset_ticks, side="right") - 1
        holds = self.masks[self.hold[span], pitch] | (program == DRUM_PROGRAM)
        ends = np.where(holds, self.hold_ticks[span], self.release_ticks[span])
        return np.where(span < 0, np.where(onset_ticks < 0, 0, FAR), ends)


class Timetable:
    """Spans of B rows, each from its own beginning on; rows without any are free.

    Args:
        spans: of each row.
    """

    def __init__(self, spans: Sequence[Spans | None]) -> None:
        rows = len(spans)
        longest = max((len(each.start_ticks) for each in spans if each is not None), default=-1) + 1
        masks = max((len(each.masks) for each in spans if each is not None), default=-1) + 1
        self.timed = np.array([each is not None for each in spans], dtype=bool)
        self.origin_ticks = np.zeros(rows, dtype=np.int64)
        # The first span is what was before, the first mask its pitches.
        self._start = np.full((rows, longest), FAR)
        self._begin = np.zeros((rows, longest), dtype=np.int16)
        self._lowest = np.full((rows, longest), _ANY, dtype=np.int16)
        self._hold = np.zeros((rows, longest), dtype=np.int16)
        self._hold_ticks = np.full((rows, longest), FAR)
        self._release_ticks = np.full((rows, longest), FAR)
        self._next_must = np.full((rows, longest), FAR)
        self._must = np.zeros((rows, longest), dtype=bool)
        self._masks = np.zeros((rows, masks, 128), dtype=bool)
        for row, each in enumerate(spans):
            if each is not None:
                self._put(row, each)

    def __len__(self) -> int:
        return len(self.timed)

    @property
    def any(self) -> bool:
        """Whether a row has spans."""
        return self._start.shape[1] > 0

    def _put(self, row: int, spans: Spans) -> None:
        count = len(spans.start_ticks) + 1
        self._start[row, 0], self._start[row, 1:count] = -FAR, spans.start_ticks
        self._begin[row, 1:count], self._hold[row, 1:count] = spans.begin + 1, spans.hold + 1
        self._lowest[row, 1:count] = np.where(spans.lowest == _ANY, _ANY, spans.lowest + 1)
        self._hold_ticks[row, :count] = np.append(0, spans.hold_ticks)
        self._release_ticks[row, :count] = np.append(0, spans.release_ticks)
        self._must[row, 1:count] = spans.must
        later = np.append(np.where(spans.must, spans.start_ticks, FAR), FAR)
        self._next_must[row, :count] = np.minimum.accumulate(later[::-1])[::-1]
        self._masks[row, 0], self._masks[row, 1 : len(spans.masks) + 1] = spans.before, spans.masks

    def join(self, other: Timetable) -> None:
        """Take the rows of another one behind these."""
        for name, value in vars(self).items():
            both = (value, getattr(other, name))
            columns = max(each.shape[-1] if each.ndim == 1 else each.shape[1] for each in both)
            wide = [_as_wide(each, columns=columns, fill=_FILL.get(name, 0)) for each in both]
            setattr(self, name, np.concatenate(wide))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these, and all spans where none of them has any."""
        timed = self.timed[rows].any()
        for name, value in vars(self).items():
            kept = value[rows]
            setattr(self, name, kept if timed or kept.ndim == 1 else kept[:, :0])

    def span(self, rows: NDArray[np.int64], ticks: Ticks) -> NDArray[np.int64]:
        """The span of each of these rows at a time, from the piece's beginning; shape of ``rows``."""
        since = ticks - self.origin_ticks[rows]
        found: NDArray[np.int64] = (self._start[rows] <= since[:, None]).sum(axis=1) - 1
        return found

    def begin(self, rows: NDArray[np.int64], spans: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Pitches that may begin; shape (rows, 128)."""
        return self._masks[rows, self._begin[rows, spans]]

    def lowest(
        self, rows: NDArray[np.int64], spans: NDArray[np.int64], ticks: Ticks
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which rows have a rule for their lowest note at a time, and the pitches that it may have; (rows, 128)."""
        mask = self._lowest[rows, spans]
        ruled = (mask != _ANY) & (self._start[rows, spans] == ticks - self.origin_ticks[rows])
        return ruled, self._masks[rows, mask]

    def next_must(self, rows: NDArray[np.int64], spans: NDArray[np.int64]) -> Ticks:
        """When, after a span's beginning, a note must begin next, from the piece's beginning."""
        return self._next_must[rows, spans] + self.origin_ticks[rows]

    def released(
        self,
        rows: NDArray[np.int64],
        spans: NDArray[np.int64],
        *,
        pitches: NDArray[np.integer] | None,
    ) -> Ticks:
        """Where notes that begin in these spans are released at the latest; without pitches: percussion."""
        hold = self._hold_ticks[rows, spans]
        if pitches is None:
            return hold + self.origin_ticks[rows]
        holds = self._masks[rows, self._hold[rows, spans], pitches]
        return np.where(holds, hold, self._release_ticks[rows, spans]) + self.origin_ticks[rows]


_FILL: dict[str, int] = {name: int(FAR) for name in ("_start", "_hold_ticks", "_release_ticks", "_next_must")} | {
    "_lowest": _ANY
}


def _as_wide(values: NDArray[Any], *, columns: int, fill: int) -> NDArray[Any]:
    """The same with so many columns."""
    if values.ndim == 1 or values.shape[1] == columns:
        return values
    more = np.full((len(values), columns - values.shape[1], *values.shape[2:]), fill, dtype=values.dtype)
    return np.concatenate((values, more), axis=1)
