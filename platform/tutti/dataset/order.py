"""Order as a pure function of integers: which sequence stands at a place of the stream that never ends.

Nothing is remembered and nothing is counted: any place is found alone, so the global batch at a number is the same on
any number of ranks, after a crash and after a resize.

- **Sources are mixed by their weights.** A tree of them is walked; at each fork a share of a in b goes left, spread as
  evenly as a line is drawn on a grid (Bresenham 1965). Shares are exact over a period, and how many places of a source
  came before is known without a walk. Weights that are the sources' sizes make a period one epoch of all of them.
- **Within a source**, each epoch permutes the blocks in which its sequences lie and then, within windows of some
  neighbours of that order, all their sequences. So a set larger than memory is shuffled while a window of it is held,
  and one that fits a window is permuted wholly at random.
- **The permutation** is a four-round Feistel network over the smallest number of bits that holds its size, walked along
  its cycle until it falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).

Legend: N places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.errors import RecipeError

Index = NDArray[np.int64]

MIXTURE_PERIOD = 2**16
"""Places over which the shares of a mixture are exact, and the finest share that it can hold."""
SHUFFLE_BLOCKS = 64
"""Blocks of all sources together that are shuffled at once: 64 MiB of tokens."""
LEAST_SHUFFLE_BLOCKS = 2
"""Of each source, however small its share: so that 64 of them still fit a loader's cache."""

_ROUNDS = 4
_ONE = np.uint64(1)
# Shares are found by products of two numbers below it.
_MOST_PERIOD = 2**31


@lru_cache(maxsize=2**12)
def _keys(seed: int, *names: str | int) -> NDArray[np.uint64]:
    return np.array([seeding.derive(seed, "order", *names, number) for number in range(_ROUNDS)], dtype=np.uint64)


def permuted(positions: NDArray[np.integer], *, size: int, seed: int, names: tuple[str | int, ...]) -> Index:
    """What the permutation ``names`` of 0 to ``size`` (exclusive) puts at each of its positions; same shape."""
    return _walked(positions, size=size, keys=_keys(seed, *names), back=False)


def unpermuted(values: NDArray[np.integer], *, size: int, seed: int, names: tuple[str | int, ...]) -> Index:
    """Where the permutation puts each value: the inverse of :func:`permuted`."""
    return _walked(values, size=size, keys=_keys(seed, *names), back=True)


def _walked(values: NDArray[np.integer], *, size: int, keys: NDArray[np.uint64], back: bool) -> Index:
    bits = max((size - 1).bit_length(), 2)
    step = _feistel_back if back else _feistel
    found = step(np.asarray(values, dtype=np.uint64), keys=keys, bits=bits)
    outside = np.flatnonzero(found >= size)
    while len(outside):
        found[outside] = step(found[outside], keys=keys, bits=bits)
        outside = outside[found[outside] >= size]
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], *, keys: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    # Where the bits are odd, the halves differ by one and change places each round; the rounds are even.
    wide, narrow = np.uint64((bits + 1) // 2), np.uint64(bits // 2)
    masks = [(_ONE << narrow) - _ONE, (_ONE << wide) - _ONE]
    left, right = values >> wide, values & masks[1]
    for number, key in enumerate(keys):
        left, right = right, left ^ (seeding.mix64(right ^ key) & masks[number % 2])
    return (left << wide) | right


def _feistel_back(values: NDArray[np.uint64], *, keys: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    wide, narrow = np.uint64((bits + 1) // 2), np.uint64(bits // 2)
    masks = [(_ONE << narrow) - _ONE, (_ONE << wide) - _ONE]
    left, right = values >> wide, values & masks[1]
    for number, key in reversed(list(enumerate(keys))):
        left, right = right ^ (seeding.mix64(left ^ key) & masks[number % 2]), left
    return (left << wide) | right


@lru_cache(maxsize=2**12)
def _slot_of(value: int, *, size: int, seed: int, names: tuple[str | int, ...]) -> int:
    return int(unpermuted(np.array([value]), size=size, seed=seed, names=names)[0])


@dataclass(frozen=True)
class Source:
    """The sequences of one source, in blocks of which only the last may be short.

    Args:
        name: of its collection.
        sequences: how many, at least 1.
        block_sequences: how many of them a block holds.
    """

    name: str
    sequences: int
    block_sequences: int

    @property
    def blocks(self) -> int:
        """How many blocks."""
        return -(-self.sequences // self.block_sequences)


@dataclass(frozen=True)
class Shuffle:
    """The epochs of one source.

    Args:
        source: what is shuffled.
        seed: root of the permutations.
        window_blocks: how many blocks are shuffled together.
    """

    source: Source
    seed: int
    window_blocks: int

    def at(self, positions: Index, *, epoch: int) -> Index:
        """The sequence at each position of an epoch; shape (N,)."""
        window, local = self._window(positions, epoch=epoch)
        block, row = np.empty_like(window), np.empty_like(window)
        for number in np.unique(window).tolist():
            here = window == number
            names = (self.source.name, epoch, "window", number)
            size = self._window_sequences(number, epoch=epoch)
            mixed = permuted(local[here], size=size, seed=self.seed, names=names)
            hole = self._hole(epoch) - number * self.window_blocks
            slot, row[here] = self._run(mixed, unit=1, hole=hole)
            block[here] = _window_of_blocks(self, number, epoch=epoch)[slot]
        return block * self.source.block_sequences + row

    def coming(self, position: int, *, epoch: int) -> Index:
        """Blocks of the next window, as many as the window at ``position`` has been gone through."""
        window, local = (int(found[0]) for found in self._window(np.array([position]), epoch=epoch))
        through = (local + 1) / self._window_sequences(window, epoch=epoch)
        is_last = (window + 1) * self.window_blocks >= self.source.blocks
        found = _window_of_blocks(self, 0 if is_last else window + 1, epoch=epoch + is_last)
        return found[: int(np.ceil(through * len(found)))]

    @property
    def _missing(self) -> int:
        """Sequences that the last block lacks."""
        return self.source.blocks * self.source.block_sequences - self.source.sequences

    def _hole(self, epoch: int) -> int:
        """The slot in which the short block lies."""
        return _slot_of(
            self.source.blocks - 1, size=self.source.blocks, seed=self.seed, names=(self.source.name, epoch)
        )

    def _window(self, positions: Index, *, epoch: int) -> tuple[Index, Index]:
        return self._run(positions, unit=self.window_blocks, hole=self._hole(epoch) // self.window_blocks)

    def _window_sequences(self, window: int, *, epoch: int) -> int:
        begin = window * self.window_blocks
        blocks = min(begin + self.window_blocks, self.source.blocks) - begin
        short = self._hole(epoch) // self.window_blocks == window
        return blocks * self.source.block_sequences - (self._missing if short else 0)

    def _run(self, positions: Index, *, unit: int, hole: int) -> tuple[Index, Index]:
        """Runs of ``unit`` blocks, of which that of number ``hole`` lacks some sequences: which, and where within."""
        size = unit * self.source.block_sequences
        after = positions >= (hole + 1) * size - self._missing if hole >= 0 else np.zeros(len(positions), dtype=bool)
        run, local = np.divmod(positions + np.where(after, self._missing, 0), size)
        return run, local


@lru_cache(maxsize=2**8)
def _window_of_blocks(shuffle: Shuffle, window: int, *, epoch: int) -> Index:
    """The blocks of a window, in the order of their slots."""
    begin, source = window * shuffle.window_blocks, shuffle.source
    slots = np.arange(begin, min(begin + shuffle.window_blocks, source.blocks))
    return permuted(slots, size=source.blocks, seed=shuffle.seed, names=(source.name, epoch))


@dataclass(frozen=True)
class Mixture:
    """Which source has each place, and how many places it had before.

    Args:
        weights: of each source; its share of a period, whose length is their sum. A source of weight 0 is left out.

    Raises:
        ValueError: a period beyond 2^31 places, or none.
    """

    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < self.period <= _MOST_PERIOD:
            raise ValueError(f"a period of {self.period} places is outside 1 to {_MOST_PERIOD}")

    @classmethod
    def of(cls, mixture: Mapping[str, float], *, names: Sequence[str]) -> Mixture:
        """Shares as integers of a fixed period, by largest remainders; every positive one is at least 1.

        Raises:
            RecipeError: a source that is not there, a share below 0, or nothing but 0.
        """
        for name, share in mixture.items():
            if name not in names:
                raise RecipeError(
                    f"the mixture names {name!r}, which is no source", remedy=f"name one of {', '.join(names)}"
                )
            if not 0 <= share < float("inf"):
                raise RecipeError(f"the mixture's share {share} of {name!r} is no number from 0", remedy="give one")
        shares = np.array([mixture.get(name, 0.0) for name in names], dtype=np.float64)
        if not shares.sum():
            raise RecipeError("the mixture gives no source a share", remedy="give one a share above 0")
        exact = shares / shares.sum() * MIXTURE_PERIOD
        weights = np.where(shares > 0, np.maximum(np.floor(exact), 1), 0).astype(np.int64)
        left = MIXTURE_PERIOD - int(weights.sum())
        # Below 0 only where tiny shares were lifted to 1: the largest pays for them.
        if left > 0:
            weights[np.argsort(weights - exact, kind="stable")[:left]] += 1
        else:
            weights[int(np.argmax(weights))] += left
        return cls(tuple(weights.tolist()))

    @cached_property
    def period(self) -> int:
        """Places over which the shares are exact."""
        return sum(self.weights)

    def at(self, positions: Index) -> tuple[Index, Index]:
        """Source at each position, and how many of its places came before; each of shape (N,)."""
        cycle, rest = np.divmod(np.asarray(positions, dtype=np.int64), self.period)
        source, before = np.zeros_like(rest), np.zeros_like(rest)
        self._fork(np.arange(len(rest)), rest, range(len(self.weights)), source=source, before=before)
        return source, before + cycle * np.array(self.weights)[source]

    def before(self, position: int) -> list[int]:
        """How many places each source had before a position."""
        cycle, rest = divmod(position, self.period)
        return [
            cycle * weight + more for weight, more in zip(self.weights, self._split(rest, self.weights), strict=True)
        ]

    def _fork(self, rows: Index, places: Index, sources: range, *, source: Index, before: Index) -> None:
        """Places of some sources together become those of each."""
        if not len(rows):
            return
        if len(sources) == 1:
            source[rows], before[rows] = sources.start, places
            return
        middle = (sources.start + sources.stop) // 2
        left, whole = sum(self.weights[sources.start : middle]), sum(self.weights[sources.start : sources.stop])
        gone = places * left // whole
        goes = (places + 1) * left // whole > gone
        self._fork(rows[goes], gone[goes], range(sources.start, middle), source=source, before=before)
        self._fork(rows[~goes], (places - gone)[~goes], range(middle, sources.stop), source=source, before=before)

    def _split(self, places: int, weights: Sequence[int]) -> list[int]:
        if len(weights) == 1:
            return [places]
        middle = len(weights) // 2
        left = places * sum(weights[:middle]) // max(sum(weights), 1)
        return self._split(left, weights[:middle]) + self._split(places - left, weights[middle:])


class Order:
    """The stream of all sources.

    Args:
        sources: at least one.
        seed: root of the permutations.
        mixture: shares of the sources by name; without one, an epoch of the stream is each sequence once.
        shuffle_blocks: blocks of all sources together that are shuffled at once.

    Raises:
        RecipeError: a mixture that cannot be.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        mixture: Mapping[str, float] | None = None,
        shuffle_blocks: int = SHUFFLE_BLOCKS,
    ) -> None:
        names = [source.name for source in sources]
        self.mixture = (
            Mixture.of(mixture, names=names) if mixture else Mixture(tuple(source.sequences for source in sources))
        )
        self.shuffles = tuple(
            Shuffle(source, seed, max(LEAST_SHUFFLE_BLOCKS, -(-shuffle_blocks * weight // self.mixture.period)))
            for source, weight in zip(sources, self.mixture.weights, strict=True)
        )

    @property
    def window_blocks(self) -> tuple[int, ...]:
        """Blocks of each source that are shuffled together."""
        return tuple(shuffle.window_blocks for shuffle in self.shuffles)

    def at(self, positions: Index) -> tuple[Index, Index, Index]:
        """Source, its epoch and its sequence at each position; each of shape (N,)."""
        source, place = self.mixture.at(positions)
        sizes = np.array([shuffle.source.sequences for shuffle in self.shuffles])
        epoch, place = np.divmod(place, sizes[source])
        sequence = np.empty_like(place)
        for number in np.unique(source).tolist():
            of_source = source == number
            for round_number in np.unique(epoch[of_source]).tolist():
                here = of_source & (epoch == round_number)
                sequence[here] = self.shuffles[number].at(place[here], epoch=round_number)
        return source, epoch, sequence

    def coming(self, position: int) -> list[tuple[int, int]]:
        """Source and block of what will be read after the windows in which ``position`` lies, soonest first."""
        found = []
        for number, place in enumerate(self.mixture.before(position)):
            if self.mixture.weights[number]:
                shuffle = self.shuffles[number]
                epoch, place = divmod(place, shuffle.source.sequences)
                found += [(number, block) for block in shuffle.coming(place, epoch=epoch).tolist()]
        return found
