"""Pairs of pieces as rows, one preferred and one rejected, and works beside them to hold on to.

Each row begins with what a reference model says of it, so that no second network is there while one is tuned: the
negative log-likelihood of each side in nats, 32-bit floats in the places of two tokens each. After it a row of a pair
has the preferred piece and the rejected one; a row of works the pieces of a packed sequence, which are one side alone.
So rows are told apart by the length of their beginning, and lie in the blocks of packed sequences.

Legend: B rows, S sides (preferred, rejected), T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.dataset.packed import Index, Packed
from tutti.errors import IntegrityError, RecipeError
from tutti.features.vocabulary import BAR, END, EVENTS, PAD

KIND = "tuning"
PAIRS, WORKS = "pairs", "works"
"""Sources of rows, by which a recipe mixes them."""
SIDES = 2
_WORDS = 2
"""Places of 16 bits that a float takes."""

Tokens = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """One rank's share of a global batch.

    Args:
        inputs_BST: tokens that are read; a row of works has nothing on its second side.
        targets_BST: token that follows each; :data:`PAD` where nothing is to be learnt.
        segments_BST: number of the piece within its side, from 0; -1 at padding.
        reference_BS: the reference's NLL of each side, nats.
        is_pair_B: whether the row is a pair.
    """

    inputs_BST: Tokens
    targets_BST: Tokens
    segments_BST: NDArray[np.int16]
    reference_BS: NDArray[np.float32]
    is_pair_B: NDArray[np.bool_]

    @property
    def num_targets(self) -> int:
        """How many tokens are to be learnt, of all sides."""
        return int(np.count_nonzero(self.targets_BST))

    @property
    def num_pairs(self) -> int:
        """How many rows are pairs."""
        return int(np.count_nonzero(self.is_pair_B))

    @property
    def num_work_targets(self) -> int:
        """How many tokens of works are to be learnt."""
        return int(np.count_nonzero(self.targets_BST[~self.is_pair_B]))

    def rows(self, start: int, stop: int) -> PairBatch:
        """Rows ``start`` to ``stop`` (exclusive)."""
        return PairBatch(*(column[start:stop] for column in self.arrays().values()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns by name."""
        return {
            "inputs": self.inputs_BST, "targets": self.targets_BST, "segments": self.segments_BST,
            "reference": self.reference_BS, "is_pair": self.is_pair_B,
        }  # fmt: skip


def rows_of_pairs(pairs: Sequence[tuple[Tokens, Tokens]]) -> Packed:
    """Rows of pairs, preferred piece first, of which no reference has said anything yet."""
    blank = np.zeros(SIDES * _WORDS, dtype=np.uint16)
    return _joined([(blank, *pair) for pair in pairs])


def rows_of_works(sequences: Packed) -> Packed:
    """Packed sequences as rows of works, of which no reference has said anything yet."""
    blank, stops = np.zeros(_WORDS, dtype=np.uint16), np.cumsum(sequences.lengths, dtype=np.int64)
    pieces = np.split(sequences.tokens, stops[:-1])
    starts = sequences.piece_starts.tolist()
    return _joined([(blank, *pieces[start:stop]) for start, stop in pairwise(starts)])


def with_reference(rows: Packed, nats_BS: NDArray[np.floating]) -> Packed:
    """The rows, each beginning with the reference's NLL of its sides; shape (B, S), the second of works unused."""
    tokens = rows.tokens.copy()
    begins = rows.lengths[rows.piece_starts[:-1]].tolist()
    for start, words, nats in zip(rows.token_starts[:-1].tolist(), begins, nats_BS.astype("<f4"), strict=True):
        tokens[start : start + words] = nats[: words // _WORDS].view("<u2")
    return Packed(tokens, rows.lengths, rows.pieces, rows.piece_starts, rows.token_starts)


def random_pairs(rows: int, *, sequence_tokens: int, vocabulary_size: int) -> PairBatch:
    """A batch of full pairs that mean nothing."""
    shape = (rows, SIDES, sequence_tokens + 1)
    drawn = np.random.default_rng(0).integers(1, vocabulary_size, shape, dtype=np.uint16)
    return PairBatch(
        drawn[..., :-1].copy(),
        drawn[..., 1:].copy(),
        np.zeros((rows, SIDES, sequence_tokens), dtype=np.int16),
        np.zeros((rows, SIDES), dtype=np.float32),
        np.ones(rows, dtype=np.bool_),
    )


class PairLayout:
    """Rows of pairs and of works, padded to the longest side of them.

    Args:
        sequence_tokens: most inputs of a side; what the dataset was made for.
    """

    kind, unit = KIND, "tokens"
    sets_lasts_apart = False
    rows_are_pieces = False
    needs_pieces = False

    def __init__(self, *, sequence_tokens: int) -> None:
        self._sequence_tokens = sequence_tokens

    def check(self, facts: Mapping[str, Any], *, where: str) -> None:
        """Refuse sides of another length or vocabulary."""
        if facts["sequence_tokens"] != self._sequence_tokens:
            raise RecipeError(
                f"{where} was made for {facts['sequence_tokens']} tokens, not {self._sequence_tokens}",
                remedy="make it again",
            )
        if facts["vocabulary"] != EVENTS.hash:
            raise IntegrityError(f"{where} speaks vocabulary {facts['vocabulary']}, not {EVENTS.hash}: encode again")

    def changed(self, held: Packed, *, seed: int, epochs: Index) -> Packed:  # noqa: ARG002
        """The same: what a reference said holds for these very notes."""
        return held

    def laid(self, held: Packed, *, num_rows: int) -> PairBatch:
        """Rows as a batch; rows beyond them are padding."""
        rows = [_Row.of(held, number) for number in range(len(held))]
        longest = max([sum(len(piece) - 1 for piece in side) for row in rows for side in row.sides], default=1)
        inputs = np.full((num_rows, SIDES, longest), PAD, dtype=np.uint16)
        targets, segments = inputs.copy(), np.full(inputs.shape, -1, dtype=np.int16)
        reference = np.zeros((num_rows, SIDES), dtype=np.float32)
        for number, row in enumerate(rows):
            reference[number, : len(row.reference)] = row.reference
            for side, pieces in enumerate(row.sides):
                at = 0
                for segment, piece in enumerate(pieces):
                    place = slice(at, at + len(piece) - 1)
                    inputs[number, side, place], targets[number, side, place] = piece[:-1], piece[1:]
                    segments[number, side, place] = segment
                    at = place.stop
        targets *= (targets >= BAR) | (targets == END)
        is_pair = np.zeros(num_rows, dtype=np.bool_)
        is_pair[: len(rows)] = [len(row.sides) == SIDES for row in rows]
        return PairBatch(inputs, targets, segments, reference, is_pair)


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: what the reference says of each side, and the pieces of each."""

    reference: NDArray[np.float32]
    sides: list[list[Tokens]]

    @classmethod
    def of(cls, held: Packed, number: int) -> _Row:
        begin, end = held.piece_starts[number : number + 2].tolist()
        start, stop = held.token_starts[number : number + 2].tolist()
        words, *pieces = np.split(held.tokens[start:stop], np.cumsum(held.lengths[begin:end])[:-1])
        reference = words.astype("<u2").view("<f4").astype(np.float32)
        return cls(reference, [pieces] if len(reference) == 1 else [[piece] for piece in pieces])


def _joined(rows: Sequence[tuple[Tokens, ...]]) -> Packed:
    pieces = [piece for row in rows for piece in row]
    return Packed.of(
        np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint16),
        lengths=np.array([len(piece) for piece in pieces], dtype=np.int64),
        pieces=np.zeros(len(pieces), dtype=np.int64),
        counts=np.array([len(row) for row in rows], dtype=np.int64),
    )
