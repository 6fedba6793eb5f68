"""Batches as a function of their number: a loader's whole state is an integer.

Blocks of packed sequences are read by ranges, several at once, into a cache that is bounded in bytes; those of the next
window are read while the batches of this one are used.

Legend: B sequences of a rank's share, T tokens of a sequence, S sequences and P pieces that are put together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tutti.dataset.blocks import Blocks
from tutti.dataset.cache import Cache
from tutti.dataset.order import SHUFFLE_BLOCKS, Index, Order
from tutti.dataset.packed import Packed
from tutti.errors import IntegrityError, RecipeError, UserError
from tutti.features.augment import Augmentation, augmented
from tutti.features.sequences import Sequences
from tutti.features.vocabulary import BAR, END, EVENTS, PAD
from tutti.lineage import Dataset

CACHE_BYTES = 2**28
"""Two windows of blocks and some: the one in use and the next."""
READERS = 8
PATIENCE_S = 600.0
# Rows whose order is found at once; batches that are put together before they are asked for.
_PLANNED_ROWS, _READY = 2**11, 8
_NO_SEQUENCE = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a global batch, in the narrowest types that hold it: what is copied least is fastest.

    Args:
        inputs_BT: tokens that are read.
        targets_BT: token that follows each, of the same piece; :data:`PAD` where nothing is to be learnt (the piece's
            end, the head of controls, padding).
        segments_BT: number of the piece within its sequence, from 0; -1 at padding. Attention stays within one.
    """

    inputs_BT: NDArray[np.uint16]
    targets_BT: NDArray[np.uint16]
    segments_BT: NDArray[np.int16]

    @property
    def num_targets(self) -> int:
        """How many tokens are to be learnt."""
        return int(np.count_nonzero(self.targets_BT != PAD))

    def rows(self, start: int, stop: int) -> Batch:
        """Sequences ``start`` to ``stop`` (exclusive)."""
        return Batch(self.inputs_BT[start:stop], self.targets_BT[start:stop], self.segments_BT[start:stop])


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which sequences a share is made of; shape (B,) each. A sequence of -1 is padding."""

    source: Index
    epoch: Index
    sequence: Index


class Loader:
    """Global batches of packed sequences.

    Args:
        sequences: a dataset that :func:`tutti.dataset.packing.pack` made.
        split: which of its splits.
        sequence_tokens: T; what the dataset was packed to.
        batch_sequences: sequences of a global batch, over all ranks.
        seed: root of the order and of the augmentation's draws.
        augmentation: what may change in a piece each time it is seen.
        mixture: shares of the source collections by name; without one, every sequence comes once an epoch.
        cache_bytes: most memory of blocks that are held; what is being read (:data:`READERS` blocks of 1 MiB) comes on
            top. Below two windows of :data:`tutti.dataset.order.SHUFFLE_BLOCKS` nothing is read ahead of its batches,
            below one the same blocks are read again and again.
        patience_s: how long storage that is away is waited for.
        shuffle_blocks: blocks that are shuffled at once; another number is another order.

    Raises:
        UserError: the split is empty, or was packed to another length.
        RecipeError: a mixture of sources that are not there.
        IntegrityError: the dataset speaks another vocabulary, or its index is damaged.
    """

    def __init__(
        self,
        sequences: Dataset,
        *,
        split: str,
        sequence_tokens: int,
        batch_sequences: int,
        seed: int,
        augmentation: Augmentation | None = None,
        mixture: Mapping[str, float] | None = None,
        cache_bytes: int = CACHE_BYTES,
        patience_s: float = PATIENCE_S,
        shuffle_blocks: int = SHUFFLE_BLOCKS,
    ) -> None:
        facts, where = sequences.facts, sequences.folder.uri
        if split not in facts["sequences"]:
            raise UserError(f"the {split} split of {where} is empty", remedy="ingest more works")
        if facts["sequence_tokens"] != sequence_tokens:
            raise RecipeError(
                f"{where} was packed to {facts['sequence_tokens']} tokens, not {sequence_tokens}", remedy="pack again"
            )
        if facts["vocabulary"] != EVENTS.hash:
            raise IntegrityError(f"{where} speaks vocabulary {facts['vocabulary']}, not {EVENTS.hash}: encode again")
        self.sequence_tokens, self.batch_sequences = sequence_tokens, batch_sequences
        self.notes = int(facts["split_notes"][split])
        self._seed = seed
        self._augmentation = None if augmentation in (None, Augmentation()) else augmentation
        self._blocks = Blocks(sequences, split=split, with_pieces=self._augmentation is not None, patience_s=patience_s)
        self.sources = tuple(source.name for source in self._blocks.sources)
        self._order = Order(self._blocks.sources, seed=seed, mixture=mixture, shuffle_blocks=shuffle_blocks)
        self.cache = Cache[tuple[int, int], Packed](self._read, most_bytes=cache_bytes, readers=READERS)
        self._block_sequences = self._blocks.sources[0].block_sequences
        self._reads_ahead = self._blocks.held_at_once(self._order.window_blocks) <= cache_bytes

    @property
    def num_sequences(self) -> int:
        """Packed sequences of the split."""
        return sum(source.sequences for source in self._blocks.sources)

    def order(self, number: int) -> tuple[Index, Index, Index]:
        """Source, its epoch, and its sequence of every row of a global batch; each of shape (batch_sequences,)."""
        return self._order.at(self._positions(number, first=0, stop=self.batch_sequences))

    def batch(self, number: int, *, first: int = 0, stop: int | None = None) -> Batch:
        """Rows ``first`` to ``stop`` (exclusive; None is all) of the global batch at ``number``.

        Raises:
            IntegrityError: a block is not what was written.
            PlaceError: a block cannot be read, or storage was away for too long.
        """
        stop = self.batch_sequences if stop is None else stop
        rows = _Rows(*self._order.at(self._positions(number, first=first, stop=stop)))
        self.cache.request(self._needed(rows))
        return self._assembled(rows, augmentation=self._augmentation)

    def stream(self, numbers: Iterable[int], *, first: int, stop: int) -> Generator[Batch]:
        """What :meth:`batch` gives for each number, put together by a thread before it is asked for.

        Closing the iterator ends the thread; where that waits for storage that is away, :meth:`close` does.
        """
        left, planned, ready = iter(numbers), deque[_Rows](), deque[Future[Batch]]()
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            while True:
                while len(ready) < _READY and (planned or self._plan(left, planned, first=first, stop=stop)):
                    ready.append(pool.submit(self._assembled, planned.popleft(), augmentation=self._augmentation))
                if not ready:
                    return
                yield ready.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def in_order(self, *, rank: int, num_ranks: int, rows: int) -> Iterator[Batch]:
        """Every sequence once, without augmentation, divided among ranks: what a validation reads.

        Every rank gets as many batches of ``rows`` rows, the last ones filled up with padding: sharded models need all
        ranks in every forward pass.
        """
        sizes = [source.sequences for source in self._blocks.sources]
        source = np.repeat(np.arange(len(sizes)), sizes)
        sequence = np.concatenate([np.arange(size) for size in sizes])
        for start in range(0, self.num_sequences, rows * num_ranks):
            mine = slice(start + rank * rows, start + (rank + 1) * rows)
            missing = rows - len(sequence[mine])
            padded = np.append(sequence[mine], np.full(missing, _NO_SEQUENCE))
            yield self._assembled(_Rows(np.append(source[mine], np.zeros(missing, int)), padded * 0, padded))

    def close(self) -> None:
        """End the threads; batches that are being read fail."""
        self._blocks.stopped.set()
        self.cache.close()

    def _positions(self, number: int, *, first: int, stop: int) -> Index:
        begin = number * self.batch_sequences
        return np.arange(begin + first, begin + stop, dtype=np.int64)

    def _plan(self, numbers: Iterator[int], planned: deque[_Rows], *, first: int, stop: int) -> bool:
        """Find the order of some batches and have their blocks read; False where there are no more."""
        some = list(islice(numbers, max(_PLANNED_ROWS // (stop - first), 1)))
        if not some:
            return False
        positions = np.concatenate([self._positions(number, first=first, stop=stop) for number in some])
        source, epoch, sequence = self._order.at(positions)
        every = _Rows(source, epoch, sequence)
        self.cache.request(self._needed(every))
        if self._reads_ahead:
            self.cache.request(self._order.coming(some[-1] * self.batch_sequences))
        for start in range(0, len(positions), stop - first):
            row = slice(start, start + stop - first)
            planned.append(_Rows(source[row], epoch[row], sequence[row]))
        return True

    def _needed(self, rows: _Rows) -> list[tuple[int, int]]:
        """Blocks in the order in which they are needed."""
        blocks = rows.sequence // self._block_sequences
        return list(dict.fromkeys(zip(rows.source.tolist(), blocks.tolist(), strict=True)))

    def _read(self, key: tuple[int, int]) -> Packed:
        packed = self._blocks.read(*key)
        return packed if self._augmentation else packed.without_lasts()

    def _assembled(self, rows: _Rows, augmentation: Augmentation | None = None) -> Batch:
        """The rows, put together from their blocks."""
        real = rows.sequence[rows.sequence != _NO_SEQUENCE]
        blocks, within = np.divmod(real, self._block_sequences)
        keys = list(zip(rows.source[: len(real)].tolist(), blocks.tolist(), strict=True))
        distinct = list(dict.fromkeys(keys))
        found = dict(zip(distinct, self.cache.get(distinct), strict=True))
        parts = [(found[key], row) for key, row in zip(keys, within.tolist(), strict=True)]
        held = _gathered(parts, with_lasts=self._augmentation is None)
        if augmentation:
            held = self._augmented(held, rows)
        if self._augmentation:
            held = held.without_lasts()
        return _laid(held, num_rows=len(rows.sequence), sequence_tokens=self.sequence_tokens)

    def _augmented(self, held: Packed, rows: _Rows) -> Packed:
        starts = np.concatenate(([0], np.cumsum(held.lengths, dtype=np.int64)))
        changed = augmented(
            Sequences(held.tokens, starts),
            self._augmentation or Augmentation(),
            seed=self._seed,
            epochs=np.repeat(rows.epoch[: len(held)], held.counts),
            samples=held.pieces,
        )
        return Packed.of(changed.tokens, lengths=changed.lengths, pieces=held.pieces, counts=held.counts)


def _gathered(parts: list[tuple[Packed, int]], *, with_lasts: bool) -> Packed:
    """Single sequences of several blocks, one after the other."""
    tokens, lengths = [np.empty(0, dtype=np.uint16)], [np.empty(0, dtype=np.int32)]
    lasts, pieces, counts = [np.empty(0, dtype=np.uint16)], [np.empty(0, dtype=np.int64)], []
    for block, row in parts:
        begin, end = block.piece_starts[row : row + 2].tolist()
        start, stop = block.token_starts[row : row + 2].tolist()
        tokens.append(block.tokens[start:stop])
        lengths.append(block.lengths[begin:end])
        if with_lasts:
            lasts.append(block.lasts[begin:end])
        else:
            pieces.append(block.pieces[begin:end])
        counts.append(end - begin)
    return Packed.of(
        np.concatenate(tokens),
        lengths=np.concatenate(lengths),
        pieces=np.concatenate(pieces),
        counts=np.array(counts, dtype=np.int64),
        lasts=np.concatenate(lasts),
    )


def _laid(held: Packed, *, num_rows: int, sequence_tokens: int) -> Batch:
    """Sequences whose last tokens were set apart, as rows; rows beyond them are padding."""
    shape = (num_rows, sequence_tokens)
    used = np.diff(held.token_starts)
    is_full = len(held.tokens) == num_rows * sequence_tokens
    if is_full:
        inputs = held.tokens.reshape(shape)
    else:
        inputs = np.full(shape, PAD, dtype=np.uint16)
        stops = held.token_starts[1:].tolist()
        for row, (stop, size) in enumerate(zip(stops, used.tolist(), strict=True)):
            inputs[row, :size] = held.tokens[stop - size : stop]
    ends = np.cumsum(held.lengths, dtype=np.int64)
    row_of_piece = np.repeat(np.arange(len(held)), held.counts)
    targets = np.empty(shape, dtype=np.uint16)
    targets[:, :-1], targets[:, -1] = inputs[:, 1:], PAD
    targets.reshape(-1)[row_of_piece * sequence_tokens + ends - held.token_starts[row_of_piece] - 1] = held.lasts
    targets *= (targets >= BAR) | (targets == END)
    number, lengths = np.arange(len(ends)) - held.piece_starts[row_of_piece], held.lengths
    if not is_full:
        # Each row is filled up with a piece of number -1.
        number = np.insert(number, held.piece_starts[1:], -1)
        lengths = np.insert(lengths, held.piece_starts[1:], sequence_tokens - used)
    segments = np.repeat(number.astype(np.int16), lengths)
    if len(held) < num_rows:
        segments = np.append(segments, np.full(num_rows * sequence_tokens - len(segments), -1, dtype=np.int16))
    return Batch(inputs, targets, segments.reshape(shape))
