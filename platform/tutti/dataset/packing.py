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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti import lineage
from tutti.dataset import blocks
from tutti.dataset.packed import Packed
from tutti.dataset.shards import read_shard
from tutti.dataset.spill import Bucket, Spill, draws
from tutti.features.events import bar_windows
from tutti.features.vocabulary import ANY, EVENTS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.telemetry import Reporter, Silent

PACK_VERSION = 1
"""Moves whenever the same tokens would give other sequences."""
KIND = "sequences"
BUCKET_BYTES = 2**28
"""Tokens that are packed at once; memory holds some times as much."""
_Tokens = NDArray[np.uint16]
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
    notes = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="tutti-packing-") as spilled:
        spill = Spill(Path(spilled), buckets=buckets)
        paths = tokens.paths(".parquet")
        with reporter.task("pack", total=2 * len(paths), unit="shards") as task:
            for number, path in enumerate(paths, start=1):
                shard = read_shard(tokens, path)
                pieces, of = _windows(shard, names=tokens.facts["collections"], max_tokens=sequence_tokens + 1)
                spill.add(pieces, groups=of)
                for split, held in zip(*(shard.column(name).to_pylist() for name in ("split", "notes")), strict=True):
                    notes[split] += held
                task.update(number)
            groups = spill.groups()
            for number, (split, source) in enumerate(groups, start=1):
                writer.begin(split, source)
                for bucket in spill.read(split, source, most_bytes=bucket_bytes):
                    writer.add(_packed(bucket, sequence_tokens=sequence_tokens))
                task.update(len(paths) * (1 + number / len(groups)))
        writer.finish()
    return dict(notes)


def counts(sequences: Dataset) -> str:
    """What a dataset of sequences holds, in one short text."""
    groups = [group for sources in sequences.facts["sequences"].values() for group in sources.values()]
    held, inputs = (sum(group[name] for group in groups) for name in ("sequences", "inputs"))
    room = held * int(sequences.facts["sequence_tokens"])
    full = f" · {100 * inputs / room:.1f} % full" if room else ""
    return f"{held:,} sequences of {sequences.facts['sequence_tokens']:,} tokens{full}"


def _packed(bucket: Bucket, *, sequence_tokens: int) -> Packed:
    """Sequences of all pieces, in an order that is drawn."""
    drawn = np.argsort(draws("place", bucket.numbers), kind="stable")
    lengths = bucket.pieces.lengths[drawn]
    made = plan(lengths - 1, sequence_tokens=sequence_tokens)
    firsts = bucket.numbers[drawn[made.pieces[made.starts[:-1]]]]
    sequences = np.argsort(draws("sequence", firsts), kind="stable")
    pieces = drawn[np.concatenate([made.of(sequence) for sequence in sequences.tolist()])]
    taken = bucket.pieces.take(pieces)
    return Packed.of(
        taken.tokens, lengths=taken.lengths, pieces=bucket.numbers[pieces], counts=np.diff(made.starts)[sequences]
    )


def _windows(shard: pa.Table, *, names: list[str], max_tokens: int) -> tuple[list[_Tokens], list[tuple[str, str]]]:
    """The works of one shard, cut at bar lines, with split and source of each piece."""
    column = shard.column("tokens").combine_chunks()
    starts, tokens = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    windows, groups = list[_Tokens](), list[tuple[str, str]]()
    splits = shard.column("split").to_pylist()
    for split, start, stop in zip(splits, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        # Of a lone token nothing can be learnt.
        parts = bar_windows(tokens[start:stop], max_tokens=max_tokens) if stop - start > 1 else []
        windows += parts
        groups += [(split, _source_of(part, names=names)) for part in parts]
    return windows, groups


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
