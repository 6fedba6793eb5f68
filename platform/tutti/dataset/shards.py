"""Token shards on storage, read as flat columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tutti.errors import IntegrityError, UserError
from tutti.features.vocabulary import EVENTS
from tutti.lineage import Dataset
from tutti.tables import TOKENS, from_parquet


@dataclass(frozen=True)
class Pieces:
    """Token sequences laid end to end.

    Args:
        tokens: all tokens; shape (total,).
        starts: where each piece begins, and the end of the last; shape (pieces + 1,).
        notes: number of notes in all pieces together.
    """

    tokens: NDArray[np.uint16]
    starts: NDArray[np.int64]
    notes: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, piece: int) -> NDArray[np.uint16]:
        return self.tokens[self.starts[piece] : self.starts[piece + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each piece; shape (pieces,)."""
        return np.diff(self.starts)

    @classmethod
    def of(cls, parts: list[NDArray[np.uint16]], *, notes: int) -> Pieces:
        """Pieces from separate sequences."""
        return cls(
            tokens=np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16),
            starts=np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64),
            notes=notes,
        )


def read_shard(dataset: Dataset, path: str) -> pa.Table:
    """One shard's rows of the table ``tokens``, verified.

    Raises:
        IntegrityError: it differs from the manifest or speaks another vocabulary.
    """
    table = from_parquet(dataset.read(path), TOKENS)
    spoken = set(table.column("vocabulary").unique().to_pylist()) - {EVENTS.hash}
    if spoken:
        raise IntegrityError(f"{path} speaks vocabulary {spoken.pop()}, this version {EVENTS.hash}: encode again")
    return table


def read(dataset: Dataset, *, split: str) -> Pieces:
    """All pieces of one split, in the order of the shards; every shard is verified.

    Raises:
        IntegrityError: a shard differs from the manifest or speaks another vocabulary.
        UserError: the split is empty.
    """
    shards = (read_shard(dataset, path) for path in dataset.paths(".parquet"))
    table = pa.concat_tables([shard.filter(pc.equal(shard.column("split"), split)) for shard in shards])
    if not table.num_rows:
        raise UserError(f"the {split} split of {dataset.folder.uri} is empty", remedy="ingest more works")
    column = table.column("tokens").combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return Pieces(
        tokens=column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]],
        starts=offsets - offsets[0],
        notes=int(pc.sum(table.column("notes")).as_py()),
    )
