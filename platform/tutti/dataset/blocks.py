"""Blocks of packed sequences on storage: Parquet files of which any block is read, and verified, by itself.

Each row group is a block of a fixed number of sequences, about 1 MiB; only the last of a source's in a split may be
short. A file holds a fixed number of blocks, so the place of a sequence is arithmetic. The table ``blocks`` tells where
each lies and what its bytes hash to, and the same of the end of each file, which describes its columns.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutti import lineage
from tutti.dataset.order import Source
from tutti.dataset.packed import Packed
from tutti.errors import IntegrityError
from tutti.lineage import Dataset, FileEntry
from tutti.storage import Folder, patiently
from tutti.tables import BLOCKS, SEQUENCES, from_parquet, to_parquet

BLOCK_BYTES = 2**20
"""Tokens of a full block, at most."""
FILE_BLOCKS = 64
"""Blocks of a full file."""
INDEX = "blocks.parquet"
QUIET_S = 5.0
"""After a line on storage that is away, no other reader says the same for so long."""


def sequences_of_block(sequence_tokens: int) -> int:
    """How many sequences a full block holds."""
    return max(BLOCK_BYTES // (2 * sequence_tokens), 1)


class Writer:
    """The files of a dataset of sequences, one split and source after the other.

    Args:
        folder: of the dataset.
        block_sequences, file_blocks: sequences of a full block, blocks of a full file.
    """

    def __init__(self, folder: Folder, *, block_sequences: int, file_blocks: int) -> None:
        self.files = list[FileEntry]()
        self.groups = dict[str, dict[str, dict[str, int]]]()
        self._folder = folder
        self._block_sequences, self._file_blocks = block_sequences, file_blocks
        self._stretches = list[dict[str, Any]]()
        self._waiting = list[Packed]()
        self._group: tuple[str, str] | None = None

    def begin(self, split: str, source: str) -> None:
        """What is added from now on is of a split and a source."""
        self._flush(whole=True)
        self._group = (split, source)
        self.groups.setdefault(split, {})[source] = {
            "first_stretch": len(self._stretches), "sequences": 0, "pieces": 0, "tokens": 0, "inputs": 0,
        }  # fmt: skip

    def add(self, packed: Packed) -> None:
        """Some more sequences."""
        self._waiting.append(packed)
        self._flush(whole=False)

    def finish(self) -> None:
        """Write what waits, and the index."""
        self._flush(whole=True)
        index = pa.Table.from_pylist(self._stretches, schema=BLOCKS)
        self.files.append(lineage.write_file(self._folder, INDEX, to_parquet(index), rows=index.num_rows))

    def _flush(self, *, whole: bool) -> None:
        full = self._block_sequences * self._file_blocks
        if sum(len(part) for part in self._waiting) < (1 if whole else full):
            return
        held, start = Packed.joined(self._waiting), 0
        while len(held) - start >= (1 if whole else full):
            self._write(held.rows(start, min(start + full, len(held))))
            start += full
        self._waiting = [held.rows(start, len(held))] if start < len(held) else []

    def _write(self, packed: Packed) -> None:
        assert self._group is not None
        split, source = self._group
        facts = self.groups[split][source]
        number = facts["sequences"] // (self._block_sequences * self._file_blocks)
        path = f"sequences-{split}-{len(self.groups[split]) - 1:02d}-{number:05d}.parquet"
        data = _file(packed, source=source, block_sequences=self._block_sequences)
        self.files.append(lineage.write_file(self._folder, path, data, rows=len(packed)))
        self._stretches += _stretches(data, path=path)
        facts["sequences"] += len(packed)
        facts["pieces"] += len(packed.lengths)
        facts["tokens"] += len(packed.tokens)
        facts["inputs"] += len(packed.tokens) - len(packed.lengths)


def _file(packed: Packed, *, source: str, block_sequences: int) -> bytes:
    sink = io.BytesIO()
    # As the bytes lie is how they are read: no compression, no dictionary but for the one text.
    with pq.ParquetWriter(
        sink, SEQUENCES, compression="none", use_dictionary=["source"], write_statistics=False
    ) as writer:
        writer.write_table(packed.to_table(source=source), row_group_size=block_sequences)
    return sink.getvalue()


def _stretches(data: bytes, *, path: str) -> list[dict[str, Any]]:
    metadata, stop, found = pq.read_metadata(io.BytesIO(data)), 0, []
    parts = list[tuple[int, int, int]]()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(column) for column in range(group.num_columns)]
        start = min(min(c.dictionary_page_offset or c.data_page_offset, c.data_page_offset) for c in columns)
        stop = start + sum(column.total_compressed_size for column in columns)
        parts.append((group.num_rows, start, stop))
    for sequences, start, end in (*parts, (0, stop, len(data))):
        digest = hashlib.sha256(data[start:end]).digest()
        found.append(
            {"path": path, "sequences": sequences, "start_bytes": start, "size_bytes": end - start, "sha256": digest}
        )
    return found


@dataclass(frozen=True, slots=True)
class _Stretch:
    path: str
    start: int
    stop: int
    sha256: bytes


class Blocks:
    """The blocks of one split.

    Args:
        sequences: a dataset of packed sequences.
        split: one that it has.
        with_pieces: whether pieces' numbers are wanted.
        patience_s: how long storage that is away is waited for.
        told: a line for people while it is away; what several readers see at once is told once.

    Raises:
        IntegrityError: the index differs from the manifest.
    """

    def __init__(
        self,
        sequences: Dataset,
        *,
        split: str,
        with_pieces: bool,
        patience_s: float,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.stopped = threading.Event()
        self._told, self._told_s = told, -math.inf
        self._lock = threading.Lock()
        self._folder, self._patience_s = sequences.folder, patience_s
        self._columns = ["tokens", "lengths", *(["pieces"] if with_pieces else [])]
        facts = sequences.facts
        self._block_sequences, self._file_blocks = int(facts["block_sequences"]), int(facts["file_blocks"])
        groups: Mapping[str, Mapping[str, int]] = facts["sequences"][split]
        self._first = [group["first_stretch"] for group in groups.values()]
        self.sources = tuple(Source(name, group["sequences"], self._block_sequences) for name, group in groups.items())
        self._index = from_parquet(self._patiently(lambda: sequences.read(INDEX)), BLOCKS).combine_chunks()
        self._ends = dict[tuple[int, int], pq.FileMetaData]()

    def read(self, source: int, block: int) -> Packed:
        """One block, verified.

        Raises:
            IntegrityError: its bytes are not those that were written.
            PlaceError: it cannot be read; where storage is away, after patience has run out.
        """
        file, number = divmod(block, self._file_blocks)
        begin = self._first[source] + file * (self._file_blocks + 1)
        stretch = self._stretch(begin + number)
        data = self._bytes(stretch)
        blocks = min(self.sources[source].blocks - file * self._file_blocks, self._file_blocks)
        end = self._end(source, file, begin + blocks)
        reader = pq.ParquetFile(pa.PythonFile(_Window(data, stretch.start), mode="r"), metadata=end, pre_buffer=False)
        return Packed.from_table(reader.read_row_group(number, columns=self._columns, use_threads=False))

    def held_at_once(self, window_blocks: Sequence[int]) -> int:
        """Bytes of tokens in two windows of every source, or in all of it where that is less."""
        blocks = (min(2 * window, source.blocks) for window, source in zip(window_blocks, self.sources, strict=True))
        return sum(blocks) * BLOCK_BYTES

    def _stretch(self, row: int) -> _Stretch:
        path, _, start, size, digest = (self._index.column(name)[row].as_py() for name in BLOCKS.names)
        return _Stretch(path, start, start + size, digest)

    def _end(self, source: int, file: int, row: int) -> pq.FileMetaData:
        """What ends a file: it is read once."""
        with self._lock:
            found = self._ends.get((source, file))
        if found is None:
            stretch = self._stretch(row)
            window = _Window(self._bytes(stretch), stretch.start)
            found = pq.read_metadata(pa.PythonFile(window, mode="r"))
            with self._lock:
                self._ends[source, file] = found
        return found

    def _bytes(self, stretch: _Stretch) -> bytes:
        data = self._patiently(lambda: self._folder.read_range(stretch.path, start=stretch.start, stop=stretch.stop))
        if hashlib.sha256(data).digest() != stretch.sha256:
            raise IntegrityError(
                f"{self._folder.uri}/{stretch.path} differs from its manifest in bytes {stretch.start} to "
                f"{stretch.stop}; delete the folder to make it again"
            )
        return data

    def _patiently(self, action: Callable[[], bytes]) -> bytes:
        return patiently(action, patience_s=self._patience_s, stopped=self.stopped, told=self._tell)

    def _tell(self, line: str) -> None:
        with self._lock:
            is_old = time.monotonic() - self._told_s < QUIET_S
            if not is_old:
                self._told_s = time.monotonic()
        if self._told is not None and not is_old:
            self._told(line)


class _Window(io.RawIOBase):
    """A stretch of a file as if all of the file were there."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start, self._at = memoryview(data), start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._start + len(self._data)
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes | memoryview:
        stop = self._start + len(self._data) if size < 0 else self._at + size
        # Arrow looks for a file's end in its last 64 KiB, most of which it then does not use.
        before = bytes(max(min(stop, self._start) - self._at, 0))
        data = self._data[max(self._at - self._start, 0) : max(stop - self._start, 0)]
        self._at += len(before) + len(data)
        return before + data if before else data
