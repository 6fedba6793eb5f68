"""Batches as a function of their number: a loader's whole state is an integer.

Blocks of packed sequences are read by ranges, several at once, into a cache that is bounded in bytes; those of the next
window are read while the batches of this one are used. What a batch looks like is its layout's to say.

Legend: B sequences of a rank's share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from tutti.dataset.batch import Batch, Layout
from tutti.dataset.blocks import Blocks
from tutti.dataset.cache import Cache
from tutti.dataset.order import SHUFFLE_BLOCKS, Index, Order
from tutti.dataset.packed import Packed
from tutti.errors import UserError
from tutti.lineage import Dataset

CACHE_BYTES = 2**28
"""Two windows of blocks and some: the one in use and the next."""
READERS = 8
PATIENCE_S = 600.0
# Rows whose order is found at once; batches that are put together before they are asked for.
_PLANNED_ROWS, _READY = 2**11, 8
_NO_SEQUENCE = -1


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which sequences a share is made of; shape (B,) each. A sequence of -1 is padding."""

    source: Index
    epoch: Index
    sequence: Index


class Loader:
    """Global batches of packed sequences.

    Args:
        sequences: a dataset of packed rows, of the layout's kind.
        split: which of its splits.
        layout: how rows become batches.
        batch_sequences: sequences of a global batch, over all ranks.
        seed: root of the order and of the layout's draws.
        mixture: shares of the source collections by name; without one, every sequence comes once an epoch.
        cache_bytes: most memory of blocks that are held; what is being read (:data:`READERS` blocks of 1 MiB) comes on
            top. Below two windows of :data:`tutti.dataset.order.SHUFFLE_BLOCKS` nothing is read ahead of its batches,
            below one the same blocks are read again and again.
        patience_s: how long storage that is away is waited for.
        told: a line for people while it is away.
        shuffle_blocks: blocks that are shuffled at once; another number is another order.

    Raises:
        UserError: the split is empty.
        RecipeError: a mixture of sources that are not there, or rows of another shape.
        IntegrityError: the dataset speaks another vocabulary, or its index is damaged.
    """

    def __init__(
        self,
        sequences: Dataset,
        *,
        split: str,
        layout: Layout,
        batch_sequences: int,
        seed: int,
        mixture: Mapping[str, float] | None = None,
        cache_bytes: int = CACHE_BYTES,
        patience_s: float = PATIENCE_S,
        told: Callable[[str], None] | None = None,
        shuffle_blocks: int = SHUFFLE_BLOCKS,
    ) -> None:
        facts, where = sequences.facts, sequences.folder.uri
        if split not in facts["sequences"]:
            raise UserError(f"the {split} split of {where} is empty", remedy="ingest more works")
        layout.check(facts, where=where)
        self.batch_sequences = batch_sequences
        self.notes = int(facts["split_notes"][split])
        self._seed = seed
        self._layout = layout
        self._blocks = Blocks(sequences, split=split, with_pieces=layout.needs_pieces, patience_s=patience_s, told=told)
        self.sources = tuple(source.name for source in self._blocks.sources)
        self._order = Order(self._blocks.sources, seed=seed, mixture=mixture, shuffle_blocks=shuffle_blocks)
        self.cache = Cache[tuple[int, int], Packed](self._read, most_bytes=cache_bytes, readers=READERS)
        self._block_sequences = self._blocks.sources[0].block_sequences
        self._reads_ahead = self._blocks.held_at_once(self._order.window_blocks) <= cache_bytes

    @property
    def num_sequences(self) -> int:
        """Packed sequences of the split."""
        return sum(source.sequences for source in self._blocks.sources)

    @property
    def rows_are_pieces(self) -> bool:
        """Whether each row is one piece."""
        return self._layout.rows_are_pieces

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
        return self._assembled(rows, changes=self._layout.needs_pieces)

    def stream(self, numbers: Iterable[int], *, first: int, stop: int) -> Generator[Batch]:
        """What :meth:`batch` gives for each number, put together by a thread before it is asked for.

        Closing the iterator ends the thread; where that waits for storage that is away, :meth:`close` does.
        """
        changes = self._layout.needs_pieces
        left, planned, ready = iter(numbers), deque[_Rows](), deque[Future[Batch]]()
        pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        try:
            while True:
                while len(ready) < _READY and (planned or self._plan(left, planned, first=first, stop=stop)):
                    ready.append(pool.submit(self._assembled, planned.popleft(), changes=changes))
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
        packed, layout = self._blocks.read(*key), self._layout
        return packed.without_lasts() if layout.sets_lasts_apart and not layout.needs_pieces else packed

    def _assembled(self, rows: _Rows, *, changes: bool = False) -> Batch:
        """The rows, put together from their blocks."""
        layout = self._layout
        real = rows.sequence[rows.sequence != _NO_SEQUENCE]
        blocks, within = np.divmod(real, self._block_sequences)
        keys = list(zip(rows.source[: len(real)].tolist(), blocks.tolist(), strict=True))
        distinct = list(dict.fromkeys(keys))
        found = dict(zip(distinct, self.cache.get(distinct), strict=True))
        parts = [(found[key], row) for key, row in zip(keys, within.tolist(), strict=True)]
        held = _gathered(parts, with_lasts=layout.sets_lasts_apart and not layout.needs_pieces)
        if changes:
            held = layout.changed(held, seed=self._seed, epochs=rows.epoch[: len(held)])
        if layout.sets_lasts_apart and layout.needs_pieces:
            held = held.without_lasts()
        return layout.laid(held, num_rows=len(rows.sequence))


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
