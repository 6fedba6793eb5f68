"""Every stretch of a long sequence, sorted: where the longest match of another sequence lies is found by bisection.

A suffix array (Manber and Myers 1993, "Suffix arrays: a new method for on-line string searches"), built by doubling
(Larsson and Sadakane 2007, "Faster suffix sorting"). Stretches are compared by hashes of any length, so that many
bisections run side by side in numpy.

Legend: P places of the text, Q places of what is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.stretches import Stretches
from tutti.seeding import mix64

Codes = NDArray[np.int64]
Rows = NDArray[np.int64]

NOTHING = -1
"""The code of a place that matches no other, in the text or in what is looked for."""


@dataclass(frozen=True)
class SuffixArray:
    """The suffixes of a text in order.

    Args:
        codes: the text, each 0 or more or :data:`NOTHING`; shape (P,).
        order: where the suffixes begin, in their order; shape (P,).
        stretches: their hashes.
    """

    codes: NDArray[np.int32]
    order: NDArray[np.int32]
    stretches: Stretches

    @classmethod
    def of(cls, codes: Codes) -> SuffixArray:
        """Of a text of at most 2^31 - 1 codes below 2^31."""
        return cls.sorted(codes.astype(np.int32), order=_order(codes))

    @classmethod
    def sorted(cls, codes: NDArray[np.int32], *, order: NDArray[np.int32]) -> SuffixArray:
        """Of a text whose order is known."""
        return cls(codes, order, Stretches.of(_hashes(codes.astype(np.int64))))

    def __len__(self) -> int:
        return len(self.codes)

    def search(self, wanted: Codes) -> Search:
        """What this text holds of another sequence, each code 0 or more or :data:`NOTHING`; shape (Q,)."""
        return Search(self, wanted)


class Search:
    """A sequence that is looked for in a text."""

    def __init__(self, text: SuffixArray, wanted: Codes) -> None:
        self._text = text
        self._codes = np.append(wanted, NOTHING)
        self._stretches = Stretches.of(_hashes(wanted))
        # How many codes follow each place, itself included, before one that matches nothing.
        stops = np.flatnonzero(self._codes == NOTHING)
        self._lasting = stops[np.searchsorted(stops, np.arange(len(wanted)))] - np.arange(len(wanted))

    def longest(self) -> Rows:
        """For each place the length of the longest stretch from there on that the text holds, 0 without any; (Q,)."""
        places = np.arange(len(self._lasting))
        row = self._rows(places, self._lasting, past=False)
        length = np.zeros(len(places), np.int64)
        # What resembles a suffix most stands next to where it would stand itself.
        for beside in (row - 1, row):
            known = np.flatnonzero((beside >= 0) & (beside < len(self._text)))
            at = self._text.order[beside[known]].astype(np.int64)
            length[known] = np.maximum(length[known], self._common(known, at, self._lasting[known]))
        return length

    def rows(self, places: Rows, lengths: Rows) -> tuple[Rows, Rows]:
        """The rows of the text's order, from the first to before the last, whose suffixes start with each stretch.

        Args:
            places, lengths: where each stretch begins in what is looked for, and its length, 1 or more.
        """
        first, past = (self._rows(places, lengths, past=side) for side in (False, True))
        return first, past

    def _rows(self, places: Rows, lengths: Rows, *, past: bool) -> Rows:
        """The first row that is no less than each stretch, or that is past all that start with it."""
        text = self._text
        low, high = np.zeros(len(places), np.int64), np.full(len(places), len(text))
        for _ in range(len(text).bit_length()):
            left = np.flatnonzero(low < high)
            middle = (low[left] + high[left]) // 2
            place, at = places[left], text.order[middle].astype(np.int64)
            common = self._common(place, at, lengths[left])
            ends = at + common == len(text)
            less = text.codes[np.where(ends, 0, at + common)] < self._codes[place + common]
            less = np.where(common == lengths[left], past, less | ends)
            low[left] = np.where(less, middle + 1, low[left])
            high[left] = np.where(less, high[left], middle)
        return low

    def _common(self, places: Rows, at: Rows, lengths: Rows) -> Rows:
        """How many codes from each place on, of no more than ``lengths``, equal those of the text from ``at`` on."""
        most = np.minimum(lengths, len(self._text) - at)
        length = np.zeros(len(places), np.int64)
        # Most have not even the first code in common, of the others most only a few: so by one, two, four, ... codes,
        rows = np.flatnonzero(most > 0)
        rows = rows[self._codes[places[rows]] == self._text.codes[at[rows]]]
        length[rows] = step = 1
        while len(rows := rows[length[rows] + step <= most[rows]]):
            rows = rows[self._goes_on(places[rows] + step, at[rows] + step, step)]
            step *= 2
            length[rows] = step
        # and by half as many from where that ended.
        begun, rows = length.copy(), np.flatnonzero(length)
        while step := step >> 1:
            further = rows[(length[rows] + step <= most[rows]) & (begun[rows] >= step)]
            length[further] += step * self._goes_on(
                places[further] + length[further], at[further] + length[further], step
            )
        return length

    def _goes_on(self, here: Rows, there: Rows, step: int) -> NDArray[np.bool_]:
        """Whether the next ``step`` codes from each of ``here`` on equal those of the text from ``there`` on."""
        mine = self._stretches.hashes(here, here + step)
        return np.asarray(mine == self._text.stretches.hashes(there, there + step))


def _hashes(codes: Codes) -> NDArray[np.uint64]:
    """Of each code; of places that match nothing one that no other place of the sequence has."""
    nothing = np.uint64(1 << 63) | np.arange(len(codes), dtype=np.uint64)
    return mix64(np.where(codes == NOTHING, nothing, codes.astype(np.uint64)))


def _order(codes: Codes) -> NDArray[np.int32]:
    """The suffixes in order: first by one code, then by twice as many each time, those that are not settled yet."""
    size = len(codes)
    # A place that matches nothing is a letter of its own.
    letters = np.where(codes == NOTHING, np.arange(size) - size, codes)
    order = np.argsort(letters, kind="stable")
    opens = np.ones(size + 1, dtype=bool)
    opens[1:-1] = letters[order][1:] != letters[order][:-1]
    rank = np.full(size + 1, -1)
    rank[order] = np.maximum.accumulate(np.where(opens[:-1], np.arange(size), 0))
    depth, rows = 1, np.flatnonzero(~(opens[:-1] & opens[1:]))
    while len(rows):
        some = order[rows]
        following = rank[np.minimum(some + depth, size)]
        # The order within each group of equals, which lies in one run of rows, is by what follows.
        key = (rank[some] << 32) + following + 1
        inorder = np.argsort(key, kind="stable")
        key, order[rows] = key[inorder], some[inorder]
        new = np.ones(len(rows), dtype=bool)
        new[1:] = key[1:] != key[:-1]
        opens[rows[new]] = True
        first = np.maximum.accumulate(np.where(new, rows, 0))
        rank[order[rows]] = first
        rows = rows[~(opens[rows] & opens[rows + 1])]
        depth *= 2
    return order.astype(np.int32)
