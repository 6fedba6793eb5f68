"""Parcels of files to parts: drafts on storage, and an index that is written last and holds neither notes nor sound.

A part is kept under what it was made of, so a run that was killed goes on, and one with more files reads only those. A
parcel whose index is there is done; parts without an index are of a run that was killed and are written again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tutti.corpus import parcels
from tutti.corpus.drafting import CLIP_DRAFTS, Analysis, Parsing, draft
from tutti.corpus.item import Item
from tutti.corpus.reading import read_items
from tutti.corpus.works import DRAFTS as WORK_DRAFTS
from tutti.errors import DataError
from tutti.storage import Folder

# Moves whenever the same bytes would give other rows: a parser, descriptor, mood, fingerprint or sketch that changed.
PARTS_VERSION = 1

FILES_AT_ONCE = 64
BYTES_AT_ONCE = 32 * 2**20

_PART = pa.field("part", pa.string())
_WORK_COLUMNS = ("work_id", "source_uri", "collection", "licence", "notes", "length_s", "fingerprint", "sketch")
_CLIP_COLUMNS = ("clip_id", "source_uri", "collection", "licence", "length_s")
WORK_INDEX = pa.schema([_PART, *(WORK_DRAFTS.field(name) for name in _WORK_COLUMNS)])
CLIP_INDEX = pa.schema([_PART, *(CLIP_DRAFTS.field(name) for name in _CLIP_COLUMNS)])
_REFUSALS = b"refusals"
_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Outcome:
    """What a parcel became; each in the order of the files.

    Args:
        works, clips: a row for each, with the name of its part; see :data:`WORK_INDEX` and :data:`CLIP_INDEX`.
        refusals: rows of the ``refusals`` table.
    """

    works: pa.Table
    clips: pa.Table
    refusals: tuple[dict[str, str], ...]

    def packed(self) -> bytes:
        """The outcome as bytes."""
        works = to_ipc(self.works.replace_schema_metadata({_REFUSALS: json.dumps(self.refusals)}))
        return _LENGTH.pack(len(works)) + works + to_ipc(self.clips)

    @classmethod
    def unpacked(cls, data: bytes) -> Outcome:
        """The outcome of :meth:`packed`."""
        (length,) = _LENGTH.unpack_from(data)
        works = from_ipc(data[_LENGTH.size : _LENGTH.size + length])
        refusals = tuple(json.loads(works.schema.metadata[_REFUSALS]))
        return cls(works.replace_schema_metadata(None), from_ipc(data[_LENGTH.size + length :]), refusals)


def read_parcel(parcel: Sequence[Item], *, parsing: Parsing, analysis: Analysis, folder: Folder) -> Outcome:
    """Read the files of a parcel into parts below ``folder``; found, where it was done before.

    Args:
        parcel: the files.
        parsing: settings.
        analysis: what is computed of pieces and sound.
        folder: of the parts that were made under these settings.
    """
    digest = parcels.parcel_digest(parcel)
    index = f"{digest}.index"
    if folder.exists(index):
        return Outcome.unpacked(folder.read(index))
    works, clips = [WORK_INDEX.empty_table()], [CLIP_INDEX.empty_table()]
    refusals: list[dict[str, str]] = []
    for number, stretch in enumerate(_stretches(zip(parcel, read_items(parcel), strict=True))):
        drafted = draft(stretch, parsing=parsing, analysis=analysis)
        refusals += drafted.refusals
        for rows, indices, kind in ((drafted.works, works, "works"), (drafted.clips, clips, "clips")):
            if rows.num_rows:
                name = f"{digest}-{number:04d}.{kind}"
                folder.write(name, to_ipc(rows))
                indices.append(_indexed(rows, part=name, index=indices[0].schema))
    outcome = Outcome(pa.concat_tables(works), pa.concat_tables(clips), tuple(refusals))
    folder.write(index, outcome.packed())
    return outcome


def read_part(folder: Folder, name: str) -> pa.Table:
    """The drafts of one part."""
    return from_ipc(folder.read(name))


def to_ipc(table: pa.Table) -> bytes:
    """A table as an Arrow stream under LZ4: read and written many times faster than Parquet, and gone before long."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_table(table.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


def from_ipc(data: bytes) -> pa.Table:
    """The table of :func:`to_ipc`."""
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


def _indexed(rows: pa.Table, *, part: str, index: pa.Schema) -> pa.Table:
    columns: dict[str, Any] = {"part": pa.array([part] * rows.num_rows, pa.string())}
    columns |= {name: rows[name] for name in index.names if name != "part"}
    return pa.table(columns, schema=index)


def _stretches(read: Iterable[tuple[Item, bytes | DataError]]) -> Iterator[list[tuple[Item, bytes | DataError]]]:
    """Items in batches that fit a process's memory, whatever the parcel holds."""
    held: list[tuple[Item, bytes | DataError]] = []
    size = 0
    for item, data in read:
        held.append((item, data))
        size += 0 if isinstance(data, DataError) else len(data)
        if len(held) == FILES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held
