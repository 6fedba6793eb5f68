"""Packed sequences of event tokens as batches: what is read, what is learnt, and which piece each token is of.

Legend: B sequences of a rank's share, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.dataset.packed import Index, Packed
from tutti.errors import IntegrityError, RecipeError
from tutti.features.augment import Augmentation, augmented
from tutti.features.sequences import Sequences
from tutti.features.vocabulary import BAR, END, EVENTS, PAD


@dataclass(frozen=True, slots=True)
class SequenceBatch:
    """One rank's share of a global batch.

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

    def rows(self, start: int, stop: int) -> SequenceBatch:
        """Sequences ``start`` to ``stop`` (exclusive)."""
        return SequenceBatch(self.inputs_BT[start:stop], self.targets_BT[start:stop], self.segments_BT[start:stop])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name, each of shape (B, T)."""
        return {"inputs": self.inputs_BT, "targets": self.targets_BT, "segments": self.segments_BT}


def random_sequences(rows: int, *, sequence_tokens: int, vocabulary_size: int) -> SequenceBatch:
    """A batch of full sequences of one piece each that mean nothing."""
    drawn = np.random.default_rng(0).integers(1, vocabulary_size, (rows, sequence_tokens + 1), dtype=np.uint16)
    segments = np.zeros((rows, sequence_tokens), dtype=np.int16)
    return SequenceBatch(drawn[:, :-1].copy(), drawn[:, 1:].copy(), segments)


class SequenceLayout:
    """Sequences of one length.

    Args:
        sequence_tokens: T; what the dataset was packed to.
        augmentation: what may change in a piece each time it is seen.
    """

    kind, unit = "sequences", "tokens"
    sets_lasts_apart = True
    rows_are_pieces = False

    def __init__(self, *, sequence_tokens: int, augmentation: Augmentation | None = None) -> None:
        self._sequence_tokens = sequence_tokens
        self._augmentation = None if augmentation in (None, Augmentation()) else augmentation
        self.needs_pieces = self._augmentation is not None

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse sequences of another length or vocabulary."""
        if facts["sequence_tokens"] != self._sequence_tokens:
            raise RecipeError(
                f"{where} was packed to {facts['sequence_tokens']} tokens, not {self._sequence_tokens}",
                remedy="pack again",
            )
        if facts["vocabulary"] != EVENTS.hash:
            raise IntegrityError(f"{where} speaks vocabulary {facts['vocabulary']}, not {EVENTS.hash}: encode again")

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:
        """Every piece augmented by its own draws."""
        starts = np.concatenate(([0], np.cumsum(held.lengths, dtype=np.int64)))
        made = augmented(
            Sequences(held.tokens, starts),
            self._augmentation or Augmentation(),
            seed=seed,
            epochs=np.repeat(epochs, held.counts),
            samples=held.pieces,
        )
        return Packed.of(made.tokens, lengths=made.lengths, pieces=held.pieces, counts=held.counts)

    def laid(self, held: Packed, *, num_rows: int) -> SequenceBatch:
        """Sequences whose last tokens were set apart, as rows; rows beyond them are padding."""
        return _laid(held, num_rows=num_rows, sequence_tokens=self._sequence_tokens)


def _laid(held: Packed, *, num_rows: int, sequence_tokens: int) -> SequenceBatch:
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
    return SequenceBatch(inputs, targets, segments.reshape(shape))
