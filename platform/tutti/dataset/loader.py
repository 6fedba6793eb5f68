"""Batches as a function of the step: a loader's whole state is an integer.

Legend: B sequences of a rank's share, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.dataset import order, packing
from tutti.dataset.shards import Pieces
from tutti.features.augment import Augmentation, augmented
from tutti.features.sequences import Sequences
from tutti.features.vocabulary import BAR, END, PAD

_NO_SEQUENCE = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a global batch.

    Args:
        inputs_BT: tokens that are read.
        targets_BT: token that follows each, of the same piece; :data:`PAD` where nothing is to be learnt (the piece's
            end, the head of controls, padding).
        segments_BT: number of the piece within its sequence, from 0; -1 at padding. Attention stays within one.
    """

    inputs_BT: NDArray[np.int64]
    targets_BT: NDArray[np.int64]
    segments_BT: NDArray[np.int64]

    @property
    def num_targets(self) -> int:
        """How many tokens are to be learnt."""
        return int((self.targets_BT != PAD).sum())

    def rows(self, start: int, stop: int) -> Batch:
        """Sequences ``start`` to ``stop`` (exclusive)."""
        return Batch(self.inputs_BT[start:stop], self.targets_BT[start:stop], self.segments_BT[start:stop])


class Loader:
    """Global batches of packed pieces.

    Args:
        pieces: one split.
        sequence_tokens: T.
        batch_sequences: sequences of a global batch, over all ranks.
        seed: root of the order and of the augmentation's draws.
    """

    def __init__(
        self,
        pieces: Pieces,
        *,
        sequence_tokens: int,
        batch_sequences: int,
        seed: int,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.sequence_tokens = sequence_tokens
        self.batch_sequences = batch_sequences
        self._pieces = pieces.windows(max_tokens=sequence_tokens + 1)
        self._plan = packing.plan(np.maximum(self._pieces.lengths - 1, 1), sequence_tokens=sequence_tokens)
        self._seed = seed
        self._augmentation = augmentation or Augmentation()

    @property
    def num_sequences(self) -> int:
        """Packed sequences of one epoch."""
        return len(self._plan)

    def batch(self, step: int, *, rank: int, num_ranks: int) -> Batch:
        """The share of ``rank`` in the global batch at ``step``."""
        epochs, sequences = order.global_batch(
            step, seed=self._seed, num_samples=self.num_sequences, batch_size=self.batch_sequences
        )
        share = order.slice_of_rank(np.arange(self.batch_sequences), rank=rank, num_ranks=num_ranks)
        return self._assembled([(int(epochs[row]), int(sequences[row])) for row in share], self._augmentation)

    def num_targets(self, step: int) -> int:
        """Tokens to be learnt in the whole global batch at ``step``: every rank can know it without asking."""
        return self.batch(step, rank=0, num_ranks=1).num_targets

    def in_order(self, *, rank: int, num_ranks: int) -> Iterator[Batch]:
        """Every sequence once, without augmentation, divided among ranks: what a validation reads.

        Every rank gets as many batches of as many rows, the last ones filled up with padding: sharded models need all
        ranks in every forward pass.
        """
        share = -(-self.num_sequences // num_ranks)
        mine = list(range(rank, self.num_sequences, num_ranks))
        mine += [_NO_SEQUENCE] * (share - len(mine))
        size = max(self.batch_sequences // num_ranks, 1)
        for start in range(0, share, size):
            yield self._assembled([(0, sequence) for sequence in mine[start : start + size]], Augmentation())

    def _assembled(self, samples: list[tuple[int, int]], augmentation: Augmentation) -> Batch:
        shape = (len(samples), self.sequence_tokens)
        inputs, targets = np.full(shape, PAD, dtype=np.int64), np.full(shape, PAD, dtype=np.int64)
        segments = np.full(shape, -1, dtype=np.int64)
        held = [[] if sequence == _NO_SEQUENCE else self._plan.of(sequence).tolist() for _, sequence in samples]
        pieces = augmented(
            Sequences.of([self._pieces[piece] for row in held for piece in row]),
            augmentation,
            seed=self._seed,
            epochs=np.array([epoch for (epoch, _), row in zip(samples, held, strict=True) for _ in row], np.int64),
            samples=np.array([piece for row in held for piece in row], np.int64),
        )
        next_piece = iter(range(len(pieces)))
        for row, members in enumerate(held):
            at = 0
            for number in range(len(members)):
                tokens = pieces[next(next_piece)]
                end = at + len(tokens) - 1
                inputs[row, at:end] = tokens[:-1]
                targets[row, at:end] = np.where((tokens[1:] >= BAR) | (tokens[1:] == END), tokens[1:], PAD)
                segments[row, at:end] = number
                at = end
        return Batch(inputs_BT=inputs, targets_BT=targets, segments_BT=segments)
