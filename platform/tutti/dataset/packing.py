"""Packing: pieces of any length into sequences of one length, once for every corpus and length.

Works are cut at bar lines into pieces that fit; all pieces are thrown into buckets by draws of their own, so that a
corpus larger than memory is shuffled by one bucket after the other; within a bucket they are packed by best-fit
decreasing: the longest piece first, each into the fullest sequence that still has room. No token is left out. Splits
and source collections stay apart, so that a loader can take one and mix the others.
"""

from __future__ import annotations

import bisect
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti import lineage, seeding
from tutti.dataset import blocks
from tutti.dataset.packed import Index, Packed
from tutti.dataset.shards import read_shard
from tutti.features.events import bar_windows
from tutti.features.sequences import Sequences
from tutti.features.vocabulary import ANY, EVENTS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.telemetry import Reporter, Silent

PACK_VERSION = 1
"""Moves whenever the same tokens would give other sequences."""
KIND = "sequences"
BUCKET_BYTES = 2**28
"""Tokens that are packed at once; memory holds some times as much."""
_KEPT_FACTS = ("works", "notes", "tokens", "licences", "collections", "programs", "vocabulary", "works_address")


def pack(
    tokens: Dataset,
    *,
    root: Folder,
    name: str,
    sequence_tokens: int,
    reporter: Reporter | None = None,
    bucket_bytes: int = BUCKET_BYTES,
) -> Dataset:
    """A tokens dataset as packed sequences; found, where that was done before.

    Args:
        tokens: a ``tokens`` dataset.
        root: results root.
        name: of the new dataset.
        sequence_tokens: most inputs of a sequence; each piece has one less than it has tokens.
        reporter: where progress goes.
        bucket_bytes: tokens that are packed at once, about; part of the address, for it decides what lies together.

    Raises:
        IntegrityError: a shard differs from the manifest or speaks another vocabulary.
        UserError: ``name`` cannot be a folder's, or a place cannot be used.
    """
    reporter = reporter or Silent()
    block_sequences, file_blocks = blocks.sequences_of_block(sequence_tokens), blocks.FILE_BLOCKS
    inputs = {
        "tokens": tokens.address,
        "sequence_tokens": sequence_tokens,
        "block_sequences": block_sequences,
        "file_blocks": file_blocks,
        "bucket_bytes": bucket_bytes,
        "version": PACK_VERSION,
    }
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"sequences {name}: found finished · {counts(found)}")
        return found
    writer = blocks.Writer(folder, block_sequences=block_sequences, file_blocks=file_blocks)
    notes = _written(tokens, writer, sequence_tokens=sequence_tokens, bucket_bytes=bucket_bytes, reporter=reporter)
    dataset = lineage.publish(
        folder,
        kind=KIND,
        name=name,
        inputs=inputs,
        files=writer.files,
        facts={
            "sequence_tokens": sequence_tokens,
            "block_sequences": block_sequences,
            "file_blocks": file_blocks,
            "sequences": writer.groups,
            "split_notes": notes,
            "tokens_address": tokens.folder.uri,
            **{fact: tokens.facts[fact] for fact in _KEPT_FACTS if fact in tokens.facts},
        },
    )
    reporter.line(f"sequences {name}: {counts(dataset)}")
    return dataset


def _written(
    tokens: Dataset, writer: blocks.Writer, *, sequence_tokens: int, bucket_bytes: int, reporter: Reporter
) -> dict[str, int]:
    """Write all sequences; notes of each split."""
    buckets = max(-(-2 * int(tokens.facts["tokens"]) // bucket_bytes), 1)
    with tempfile.TemporaryDirectory(prefix="tutti-packing-") as spilled:
        spill = _Spill(Path(spilled), buckets=buckets)
        paths = tokens.paths(".parquet")
        with reporter.task("pack", total=2 * len(paths), unit="shards") as task:
            for number, path in enumerate(paths, start=1):
                spill.add(read_shard(tokens, path), names=tokens.facts["collections"], max_tokens=sequence_tokens + 1)
                task.update(number)
            groups = spill.groups()
            for number, (split, source) in enumerate(groups, start=1):
                writer.begin(split, source)
                for bucket in spill.read(split, source, most_bytes=bucket_bytes):
                    writer.add(_packed(bucket, sequence_tokens=sequence_tokens))
                task.update(len(paths) * (1 + number / len(groups)))
        writer.finish()
    return dict(spill.notes)


def counts(sequences: Dataset) -> str:
    """What a dataset of sequences holds, in one short text."""
    groups = [group for sources in sequences.facts["sequences"].values() for group in sources.values()]
    held, inputs = (sum(group[name] for group in groups) for name in ("sequences", "inputs"))
    room = held * int(sequences.facts["sequence_tokens"])
    full = f" · {100 * inputs / room:.1f} % full" if room else ""
    return f"{held:,} sequences of {sequences.facts['sequence_tokens']:,} tokens{full}"


@dataclass(frozen=True)
class _Bucket:
    """Pieces and their numbers, in the order in which they were drawn."""

    pieces: Sequences
    numbers: Index


class _Spill:
    """Pieces of each split and source in buckets on this machine's disk."""

    def __init__(self, folder: Path, *, buckets: int) -> None:
        self.notes = Counter[str]()
        self._folder, self._buckets = folder, buckets
        self._sizes = dict[tuple[str, str], NDArray[np.int64]]()
        self._names = list[tuple[str, str]]()
        self._next_piece = 0

    def add(self, shard: pa.Table, *, names: list[str], max_tokens: int) -> None:
        """The works of one shard."""
        column = shard.column("tokens").combine_chunks()
        starts, tokens = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
        windows, rows = list[NDArray[np.uint16]](), list[int]()
        for row, (start, stop) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            # Of a lone token nothing can be learnt.
            parts = bar_windows(tokens[start:stop], max_tokens=max_tokens) if stop - start > 1 else []
            windows += parts
            rows += [row] * len(parts)
        splits = shard.column("split").to_pylist()
        for split, notes in zip(splits, shard.column("notes").to_pylist(), strict=True):
            self.notes[split] += notes
        numbers = np.arange(self._next_piece, self._next_piece + len(windows))
        self._next_piece += len(windows)
        bucket = (_draws("bucket", numbers) * self._buckets).astype(np.int64)
        held = defaultdict[tuple[str, str, int], list[int]](list)
        for piece, (row, drawn) in enumerate(zip(rows, bucket.tolist(), strict=True)):
            held[splits[row], _source_of(windows[piece], names=names), drawn].append(piece)
        for (split, source, drawn), pieces in held.items():
            self._append(split, source, drawn, [windows[piece] for piece in pieces], numbers=numbers[pieces])

    def groups(self) -> list[tuple[str, str]]:
        """Split and source of all pieces, sorted."""
        return sorted(self._sizes)

    def read(self, split: str, source: str, *, most_bytes: int) -> Iterator[_Bucket]:
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


def _joined(paths: list[Path]) -> _Bucket | None:
    if not paths:
        return None
    tokens = np.concatenate([np.fromfile(path.with_suffix(".tokens"), np.uint16) for path in paths])
    rows = np.concatenate([np.fromfile(path.with_suffix(".pieces"), np.int64).reshape(-1, 2) for path in paths])
    starts = np.concatenate(([0], np.cumsum(rows[:, 0])))
    return _Bucket(Sequences(tokens, starts), rows[:, 1])


def _packed(bucket: _Bucket, *, sequence_tokens: int) -> Packed:
    """Sequences of all pieces, in an order that is drawn."""
    drawn = np.argsort(_draws("place", bucket.numbers), kind="stable")
    lengths = bucket.pieces.lengths[drawn]
    made = plan(lengths - 1, sequence_tokens=sequence_tokens)
    firsts = bucket.numbers[drawn[made.pieces[made.starts[:-1]]]]
    sequences = np.argsort(_draws("sequence", firsts), kind="stable")
    pieces = drawn[np.concatenate([made.of(sequence) for sequence in sequences.tolist()])]
    taken = bucket.pieces.take(pieces)
    return Packed.of(
        taken.tokens, lengths=taken.lengths, pieces=bucket.numbers[pieces], counts=np.diff(made.starts)[sequences]
    )


def _draws(name: str, numbers: Index) -> NDArray[np.float64]:
    """From 0 to 1 (exclusive), for each number."""
    stream = np.array([seeding.derive(0, "packing", name)], dtype=np.uint64)
    return seeding.uniform_at(stream, numbers.astype(np.uint64))


def _source_of(piece: NDArray[np.uint16], *, names: list[str]) -> str:
    """The collection that the piece's head names; ``any`` where it names none."""
    slot = int(piece[1]) - EVENTS["Collection_0"] if len(piece) > 1 else -1
    return names[slot] if 0 <= slot < len(names) else ANY


@dataclass(frozen=True, slots=True)
class Plan:
    """Which pieces share a sequence.

    Args:
        pieces: piece numbers, sequence after sequence; shape (pieces,).
        starts: where each sequence begins in ``pieces``, and its end; shape (sequences + 1,).
    """

    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, sequence: int) -> NDArray[np.int64]:
        """Pieces of one sequence, in their order within it."""
        return self.pieces[self.starts[sequence] : self.starts[sequence + 1]]


def plan(lengths: NDArray[np.integer], *, sequence_tokens: int) -> Plan:
    """Pack pieces of ``lengths`` tokens into sequences of at most ``sequence_tokens``.

    Raises:
        ValueError: a piece is longer than a sequence.
    """
    if len(lengths) and int(lengths.max()) > sequence_tokens:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit a sequence of {sequence_tokens}")
    members: list[list[int]] = []
    by_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms: list[int] = []
    for piece in np.lexsort((np.arange(len(lengths)), -lengths.astype(np.int64))).tolist():
        length = int(lengths[piece])
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            sequence, room = len(members), sequence_tokens
            members.append([])
        else:
            room = rooms[at]
            sequence = by_room[room].pop()
            if not by_room[room]:
                rooms.pop(at)
        members[sequence].append(piece)
        left = room - length
        if not by_room[left]:
            bisect.insort(rooms, left)
        by_room[left].append(sequence)
    return Plan(
        pieces=np.array([piece for sequence in members for piece in sequence], dtype=np.int64),
        starts=np.cumsum([0, *(len(sequence) for sequence in members)], dtype=np.int64),
    )
