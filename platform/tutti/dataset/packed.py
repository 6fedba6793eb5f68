"""Packed sequences laid end to end: what packing makes, blocks hold and the loader cuts into batches.

Legend: S sequences, P pieces of all of them together, N tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti.tables import SEQUENCES

Index = NDArray[np.int64]
_TOKEN = np.dtype("<u2")
_NO_LASTS = np.empty(0, dtype=np.uint16)


@dataclass(frozen=True, slots=True)
class Packed:
    """S sequences, each of some pieces.

    Args:
        tokens: of all pieces, end to end; shape (N,).
        lengths: tokens of each piece; shape (P,).
        pieces: number of each piece among all of its corpus; shape (P,), or (0,) where nobody asked.
        lasts: last token of each piece, where it was set apart; shape (P,), or (0,) where it is among the tokens.
        piece_starts: where each sequence begins among the pieces, and P; shape (S + 1,).
        token_starts: where it begins among the tokens, and N; shape (S + 1,).
    """

    tokens: NDArray[np.uint16]
    lengths: NDArray[np.int32]
    pieces: Index
    piece_starts: Index
    token_starts: Index
    lasts: NDArray[np.uint16] = field(default_factory=lambda: _NO_LASTS)

    @classmethod
    def of(
        cls,
        tokens: NDArray[np.uint16],
        *,
        lengths: NDArray[np.integer],
        pieces: Index,
        counts: Index,
        lasts: NDArray[np.uint16] = _NO_LASTS,
    ) -> Packed:
        """Sequences of ``counts`` pieces each; shape (S,)."""
        piece_starts, ends = np.zeros(len(counts) + 1, dtype=np.int64), np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(counts, out=piece_starts[1:])
        np.cumsum(lengths, out=ends[1:])
        return cls(tokens, lengths.astype(np.int32, copy=False), pieces, piece_starts, ends[piece_starts], lasts)

    @classmethod
    def joined(cls, parts: Sequence[Packed]) -> Packed:
        """The sequences of one after those of another."""
        return cls.of(
            np.concatenate([part.tokens for part in parts]),
            lengths=np.concatenate([part.lengths for part in parts]),
            pieces=np.concatenate([part.pieces for part in parts]),
            counts=np.concatenate([part.counts for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.piece_starts) - 1

    @property
    def counts(self) -> Index:
        """Pieces of each sequence; shape (S,)."""
        return np.diff(self.piece_starts)

    @property
    def size_bytes(self) -> int:
        """Memory that the columns take."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def rows(self, start: int, stop: int) -> Packed:
        """Sequences ``start`` to ``stop`` (exclusive)."""
        pieces = slice(self.piece_starts[start], self.piece_starts[stop])
        tokens = slice(self.token_starts[start], self.token_starts[stop])
        return Packed(
            self.tokens[tokens],
            self.lengths[pieces],
            self.pieces[pieces],
            self.piece_starts[start : stop + 1] - self.piece_starts[start],
            self.token_starts[start : stop + 1] - self.token_starts[start],
        )

    def to_table(self, *, source: str) -> pa.Table:
        """Rows of the table ``sequences``."""
        # Bytes by hand: a list of 16-bit numbers would take 32 bits each in Parquet, and ten times as long to read.
        offsets, data = pa.py_buffer((self.token_starts * 2).astype(np.int32)), self.tokens.astype(_TOKEN, copy=False)
        starts = pa.array(self.piece_starts.astype(np.int32))
        columns = {
            "tokens": pa.Array.from_buffers(pa.binary(), len(self), [None, offsets, pa.py_buffer(data)]),
            "lengths": pa.ListArray.from_arrays(starts, pa.array(self.lengths)),
            "pieces": pa.ListArray.from_arrays(starts, pa.array(self.pieces)),
            "source": pa.array([source] * len(self), pa.string()),
        }
        return pa.table(columns, schema=SEQUENCES)

    @classmethod
    def from_table(cls, table: pa.Table) -> Packed:
        """Of rows of the table ``sequences``, with or without the column ``pieces``."""
        texts, lists = (table.column(name).combine_chunks() for name in ("tokens", "lengths"))
        _, offsets, data = texts.buffers()
        token_starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        piece_starts = lists.offsets.to_numpy().astype(np.int64)
        within = slice(piece_starts[0], piece_starts[-1])
        pieces = np.empty(0, dtype=np.int64)
        if "pieces" in table.column_names:
            numbers = table.column("pieces").combine_chunks()
            pieces = numbers.values.to_numpy()[numbers.offsets[0].as_py() : numbers.offsets[-1].as_py()]
        tokens = np.frombuffer(data, _TOKEN)[token_starts[0] // 2 : token_starts[-1] // 2]
        return cls(
            tokens.astype(np.uint16, copy=False),
            lists.values.to_numpy()[within],
            pieces,
            piece_starts - piece_starts[0],
            (token_starts - token_starts[0]) // 2,
        )

    def without_lasts(self) -> Packed:
        """The same with the last token of each piece set apart: what is left is what a model reads.

        ``lengths`` and ``token_starts`` are of what is left. Nothing of the older columns is held on to.
        """
        ends = np.cumsum(self.lengths, dtype=np.int64)
        kept = np.ones(len(self.tokens), dtype=bool)
        kept[ends - 1] = False
        return Packed(
            self.tokens[kept],
            self.lengths - 1,
            self.pieces.copy(),
            self.piece_starts,
            self.token_starts - self.piece_starts,
            self.tokens[ends - 1],
        )
