"""Groups of works that are versions of one another, found from their sketches.

Two works are versions of one another when the features that both sketches hold agree: at one interval apart, in one
order, at one ratio of time, over enough of one of the works. Features shared by chance do not (Wang 2003). A group is
what such pairs connect. A work of so few features that nothing could agree joins those with the very same ones, or
none, so that a few common notes connect nothing.

Memory: one sorted copy of the hashes with their works, and blocks of candidate pairs within a stated budget. A hash
that is in many works pairs each with its next few in an order that the sketches themselves give, so that the number of
pairs grows with the number of works and not with its square, and the order in which works are given changes nothing.

Legend: W works, E elements of all sketches, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.sketch import HASH_BITS, ONSET_BITS, PITCH_BITS, SKETCH_SIZE
from tutti.seeding import mix64

# Of features that could agree c, at least 4 and the root of c must: 4 of 16, 10 of 96.
MIN_AGREEING, MIN_WEIGHT, MIN_SPREAD = 4, 1.0, 0.25
MIN_FEATURES = 4

# How many works each is held against for each of its hashes.
NEXT_WORKS = 16

_RANK_BITS = 64 - HASH_BITS
_HASH_SHIFT = np.uint64(ONSET_BITS + PITCH_BITS)
_PITCH_MASK, _ONSET_MASK, _RANK_MASK = (np.uint64(2**bits - 1) for bits in (PITCH_BITS, ONSET_BITS, _RANK_BITS))

# Ratios of time are told in 64ths of an octave; onsets, which are told in 16ths of a quarter, blur them by so many.
_STRETCHES_PER_OCTAVE, _STRETCH_WINDOW = 64, 8
_STEPS_AWAY = (1, 2, 3, 4, 6, 8, 12, 16, 32)

_WORKS_AT_ONCE = 2**14
_BYTES_PER_ELEMENT = 200  # of temporary columns, while pairs are compared
_BYTES_PER_CANDIDATE = 32  # the same, while they are looked for

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How well the sketches of P pairs agree; each column has shape (P,).

    Args:
        agreeing: shared features at one interval and one ratio of time.
        comparable: features that both would hold if the pieces were the same: those below both sketches' last hash.
        spread: share of a piece's time from the first agreeing feature to the last, of the piece of which it is more.
    """

    agreeing: Rows
    comparable: Rows
    spread: NDArray[np.float64]

    def holds(self) -> NDArray[np.bool_]:
        """Whether each pair is two versions of one work."""
        enough = (self.agreeing >= MIN_AGREEING) & (self.agreeing**2 >= MIN_WEIGHT * self.comparable)
        return np.asarray(enough & (self.spread >= MIN_SPREAD))


def groups(values: Words, starts: Rows, *, budget_bytes: int) -> Rows:
    """For each work the lowest index of its group; shape (W,).

    Args:
        values, starts: what :func:`tutti.corpus.sketch.sketches` gave, of all works.
        budget_bytes: memory for candidate pairs at a time, beside 8 bytes for each element and 100 for each work.

    The result does not depend on the budget, and on the order of works only by its numbers.
    """
    order, same = _order(values, starts)
    index = _index(values, starts, order)
    lowest = _connected(np.arange(len(starts) - 1), same)
    block = max(budget_bytes // (_BYTES_PER_CANDIDATE * NEXT_WORKS * SKETCH_SIZE), 1)
    step = max(budget_bytes // (_BYTES_PER_ELEMENT * 2 * SKETCH_SIZE), 1)
    for first in range(0, len(order), block):
        ranks = np.arange(first, min(first + block, len(order)))
        candidates = _candidates(values, starts, order, index, ranks=ranks)
        # Of n versions each is a candidate of every other: n - 1 pairs connect them, and the rest need no look.
        is_first = np.diff(candidates[:, 0], prepend=-1) != 0
        for some in (candidates[is_first], candidates[~is_first]):
            for begin in range(0, len(some), step):
                pairs = some[begin : begin + step]
                pairs = pairs[lowest[pairs[:, 0]] != lowest[pairs[:, 1]]]
                lowest = _connected(lowest, pairs[agreement(values, starts, pairs).holds()])
    return lowest


def agreement(values: Words, starts: Rows, pairs: Rows) -> Agreement:
    """How the two works of each pair agree; ``pairs`` has shape (P, 2), and each work has a sketch."""
    count = len(pairs)
    rows, begins = _rows(starts, pairs.T.reshape(-1))
    held, side = values[rows], np.repeat(np.arange(2 * count), np.diff(begins))
    comparable = _comparable(held, begins, side, count)
    reach = np.maximum(_extent(side, _onset(held), 2 * count), 1)
    pair, one, other = _shared(held, side, count)
    apart = (other & _PITCH_MASK).astype(np.int64) - (one & _PITCH_MASK).astype(np.int64)
    kept = _densest(pair, apart, width=0, count=count)
    pair, begin, end = pair[kept], _onset(one[kept]), _onset(other[kept])
    order = np.lexsort((end, begin, pair))
    pair, begin, end = pair[order], begin[order], end[order]
    near, far, stretch = _stretches(pair, begin, end)
    steady = _densest(pair[near], stretch, width=_STRETCH_WINDOW, count=count)
    # A feature that lies right to two others is no accident of one.
    agrees = np.bincount(np.concatenate((near[steady], far[steady])), minlength=len(pair)) >= 2
    pair, begin, end = pair[agrees], begin[agrees], end[agrees]
    spread = np.maximum(_extent(pair, begin, count) / reach[:count], _extent(pair, end, count) / reach[count:])
    return Agreement(np.bincount(pair, minlength=count), comparable, spread)


def _comparable(held: Words, begins: Rows, side: Rows, count: int) -> Rows:
    """Elements of each pair that both sketches reach, of the work that has fewer."""
    whole = np.diff(begins) < SKETCH_SIZE
    bound = np.where(whole, np.uint64(2**HASH_BITS), held[begins[1:] - 1] >> _HASH_SHIFT)
    bound = np.minimum(bound[:count], bound[count:])
    within = (held >> _HASH_SHIFT) <= bound[side % count]
    reached = np.bincount(side[within], minlength=2 * count)
    return np.minimum(reached[:count], reached[count:])


def _shared(held: Words, side: Rows, count: int) -> tuple[Rows, Words, Words]:
    """Pair and both elements of every hash that both works of a pair hold."""
    pair, is_other = side % count, side // count
    key = (pair.astype(np.uint64) << np.uint64(HASH_BITS)) | (held >> _HASH_SHIFT)
    order = np.argsort((key << np.uint64(1)) | is_other.astype(np.uint64))
    key = key[order]
    both = np.flatnonzero(key[1:] == key[:-1])
    return pair[order[both]], held[order[both]], held[order[both + 1]]


def _stretches(pair: Rows, begin: Rows, end: Rows) -> tuple[Rows, Rows, Rows]:
    """Rows of one pair some rows apart, and by how much longer the one work takes from row to row."""
    near, far, stretch = [], [], []
    for away in _STEPS_AWAY:
        if away < len(pair):
            before, after = end[away:] - end[:-away], begin[away:] - begin[:-away]
            onward = np.flatnonzero((pair[away:] == pair[:-away]) & (before > 0) & (after > 0))
            near.append(onward)
            far.append(onward + away)
            octaves = np.log2(before[onward] / after[onward])
            stretch.append(np.rint(_STRETCHES_PER_OCTAVE * octaves).astype(np.int64))
    none = [np.empty(0, np.int64)]
    return np.concatenate(near or none), np.concatenate(far or none), np.concatenate(stretch or none)


def _onset(values: Words) -> Rows:
    return ((values >> np.uint64(PITCH_BITS)) & _ONSET_MASK).astype(np.int64)


def _extent(pair: Rows, onset: Rows, count: int) -> Rows:
    """From the lowest to the highest onset of each pair, 0 without any."""
    lowest, highest = np.full(count, 2**ONSET_BITS), np.zeros(count, dtype=np.int64)
    np.minimum.at(lowest, pair, onset)
    np.maximum.at(highest, pair, onset)
    return np.asarray(np.maximum(highest - lowest, 0))


def _densest(pair: Rows, quantity: Rows, *, width: int, count: int) -> NDArray[np.bool_]:
    """Which rows lie in the window of their pair's quantities that holds most, the lowest of several such."""
    if not len(pair):
        return np.zeros(0, dtype=bool)
    key = (pair << 32) + quantity + 2**16
    inorder = np.sort(key)
    owner = inorder >> 32
    inside = np.searchsorted(inorder, inorder + width, side="right") - np.arange(len(inorder))
    most = np.zeros(count, dtype=np.int64)
    np.maximum.at(most, owner, inside)
    best = np.flatnonzero(inside == most[owner])[::-1]
    lowest = np.zeros(count, dtype=np.int64)
    lowest[owner[best]] = inorder[best]
    return np.asarray((key >= lowest[pair]) & (key <= lowest[pair] + width))


def _rows(starts: Rows, works: Rows) -> tuple[Rows, Rows]:
    """Elements of the works end to end, and where each begins; the works have elements."""
    sizes = (starts[1:] - starts[:-1])[works]
    begins = np.concatenate(([0], np.cumsum(sizes)))
    return np.arange(begins[-1]) + np.repeat(starts[works] - begins[:-1], sizes), begins


def _order(values: Words, starts: Rows) -> tuple[Rows, Rows]:
    """Works whose sketches can agree, in the order of their first hashes, and pairs of works with the same hashes."""
    sizes = np.diff(starts)
    works = np.flatnonzero(sizes >= MIN_FEATURES)
    names, marks = np.zeros(len(sizes), np.uint64), np.zeros(len(sizes), np.uint64)
    for first in range(0, len(works), _WORKS_AT_ONCE):
        some = works[first : first + _WORKS_AT_ONCE]
        rows, begins = _rows(starts, some)
        held = values[rows]
        names[some] = np.add.reduceat(mix64(held >> _HASH_SHIFT), begins[:-1])
        marks[some] = np.add.reduceat(mix64(held), begins[:-1])
    begins = starts[:-1][works]
    lowest, next_lowest = values[begins] >> _HASH_SHIFT, values[begins + 1] >> _HASH_SHIFT
    order = works[np.lexsort((marks[works], names[works], next_lowest, lowest))]
    alike = np.flatnonzero(names[order[1:]] == names[order[:-1]])
    same = np.stack((order[alike], order[alike + 1]), axis=1)
    # Of works with one and the same sketch one stands for all.
    kept = np.ones(len(order), dtype=bool)
    kept[1:] = marks[order[1:]] != marks[order[:-1]]
    return order[kept], same


def _index(values: Words, starts: Rows, order: Rows) -> Words:
    """Hash and rank of every element of the works in ``order``, sorted; shape (E,)."""
    sizes = np.diff(starts)[order]
    begins = np.concatenate(([0], np.cumsum(sizes)))
    index = np.empty(begins[-1], dtype=np.uint64)
    for first in range(0, len(order), _WORKS_AT_ONCE):
        last = min(first + _WORKS_AT_ONCE, len(order))
        index[begins[first] : begins[last]] = _keys(values, starts, order, ranks=np.arange(first, last))
    index.sort()
    return index


def _keys(values: Words, starts: Rows, order: Rows, *, ranks: Rows) -> Words:
    rows, begins = _rows(starts, order[ranks])
    rank = np.repeat(ranks, np.diff(begins)).astype(np.uint64)
    return np.asarray((values[rows] >> _HASH_SHIFT << np.uint64(_RANK_BITS)) | rank)


def _candidates(values: Words, starts: Rows, order: Rows, index: Words, *, ranks: Rows) -> Rows:
    """Pairs of the works of ``ranks`` with later ones that share hashes; shape (P, 2)."""
    keys = np.sort(_keys(values, starts, order, ranks=ranks))
    places = np.searchsorted(index, keys)
    found: list[Words] = []
    for away in range(1, NEXT_WORKS + 1):
        inside = places + away < len(index)
        places, keys = places[inside], keys[inside]
        other = index[places + away]
        same = (other ^ keys) >> np.uint64(_RANK_BITS) == 0
        places, keys = places[same], keys[same]
        found.append(((keys & _RANK_MASK) << np.uint64(32)) | (other[same] & _RANK_MASK))
    pairs = np.sort(np.concatenate(found))
    begins = np.flatnonzero(np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)])
    often = pairs[begins[np.diff(begins, append=len(pairs)) >= MIN_AGREEING]]
    both = np.stack((often >> np.uint64(32), often & np.uint64(2**32 - 1)), axis=1)
    return order[both.astype(np.int64)]


def _connected(lowest: Rows, edges: Rows) -> Rows:
    """The lowest number that each is connected to, when ``edges`` of shape (P, 2) are added to what was connected."""
    lowest = lowest.copy()
    while True:
        ends = lowest[edges]
        apart = ends[:, 0] != ends[:, 1]
        if not apart.any():
            return lowest
        low, high = ends[apart].min(axis=1), ends[apart].max(axis=1)
        np.minimum.at(lowest, high, low)
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]
