"""Pieces thrown into buckets on this machine's disk, so that a corpus larger than memory is shuffled bucket by bucket.

Legend: P pieces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.dataset.packed import Index
from tutti.features.sequences import Sequences


@dataclass(frozen=True)
class Bucket:
    """Pieces and their numbers, in the order in which they came."""

    pieces: Sequences
    numbers: Index


class Spill:
    """Pieces of each split and source in buckets.

    Args:
        folder: an empty one on this machine.
        buckets: of each split and source.
    """

    def __init__(self, folder: Path, *, buckets: int) -> None:
        self._folder, self._buckets = folder, buckets
        self._sizes = dict[tuple[str, str], NDArray[np.int64]]()
        self._names = list[tuple[str, str]]()
        self._next_piece = 0

    def add(self, pieces: Sequence[NDArray[np.uint16]], *, groups: Sequence[tuple[str, str]]) -> None:
        """Some more pieces, each with its split and source; they are numbered as they come."""
        numbers = np.arange(self._next_piece, self._next_piece + len(pieces))
        self._next_piece += len(pieces)
        bucket = (draws("bucket", numbers) * self._buckets).astype(np.int64)
        held = defaultdict[tuple[str, str, int], list[int]](list)
        for piece, (group, drawn) in enumerate(zip(groups, bucket.tolist(), strict=True)):
            held[(*group, drawn)].append(piece)
        for (split, source, drawn), some in held.items():
            self._append(split, source, drawn, [pieces[piece] for piece in some], numbers=numbers[some])

    def groups(self) -> list[tuple[str, str]]:
        """Split and source of all pieces, sorted."""
        return sorted(self._sizes)

    def read(self, split: str, source: str, *, most_bytes: int) -> Iterator[Bucket]:
        """The pieces of a group, neighbouring buckets together as long as they are not too large."""
        sizes, start = self._sizes[split, source], 0
        for stop in range(1, self._buckets + 1):
            if stop == self._buckets or sizes[start : stop + 1].sum() > most_bytes:
                paths = [self._path(split, source, bucket) for bucket in range(start, stop)]
                start = stop
                if bucket := _joined([path for path in paths if path.exists()]):
                    yield bucket

    def _append(
        self, split: str, source: str, bucket: int, pieces: list[NDArray[np.uint16]], *, numbers: Index
    ) -> None:
        if (split, source) not in self._sizes:
            self._sizes[split, source] = np.zeros(self._buckets, dtype=np.int64)
            self._names.append((split, source))
        path = self._path(split, source, bucket)
        tokens = np.concatenate(pieces)
        self._sizes[split, source][bucket] += tokens.nbytes
        lengths = np.array([len(piece) for piece in pieces])
        for suffix, column in ((".tokens", tokens), (".pieces", np.stack([lengths, numbers], axis=1))):
            with path.with_suffix(suffix).open("ab") as file:
                file.write(column.tobytes())
        path.touch()

    def _path(self, split: str, source: str, bucket: int) -> Path:
        # A source may be called as no file can be.
        return self._folder / f"{self._names.index((split, source))}-{bucket}.spilled"


def _joined(paths: list[Path]) -> Bucket | None:
    if not paths:
        return None
    tokens = np.concatenate([np.fromfile(path.with_suffix(".tokens"), np.uint16) for path in paths])
    rows = np.concatenate([np.fromfile(path.with_suffix(".pieces"), np.int64).reshape(-1, 2) for path in paths])
    starts = np.concatenate(([0], np.cumsum(rows[:, 0])))
    return Bucket(Sequences(tokens, starts), rows[:, 1])


def draws(name: str, numbers: Index) -> NDArray[np.float64]:
    """From 0 to 1 (exclusive), for each number; shape (P,)."""
    stream = np.array([seeding.derive(0, "packing", name)], dtype=np.uint64)
    return seeding.uniform_at(stream, numbers.astype(np.uint64))
