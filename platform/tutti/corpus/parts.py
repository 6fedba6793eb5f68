"""Parcels of files to parts: drafts on storage, and an index that is written last and holds neither notes nor sound.

An index is kept under what it was made of, so a run that was killed goes on, and one with more files reads only those.
A parcel whose index and parts are there is done. A part's name tells the hash of its bytes: two runs that made the same
parcel unlike, because a file timed out in one, cannot take each other's part for their own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tutti.corpus import parcels
from tutti.corpus.drafting import CLIP_DRAFTS, Analysis, Parsing, draft
from tutti.corpus.item import Item
from tutti.corpus.reading import read_items
from tutti.corpus.works import DRAFTS as WORK_DRAFTS
from tutti.errors import DataError, IntegrityError
from tutti.storage import Folder

# Moves whenever the same bytes would give other rows: a parser, descriptor, mood, fingerprint or sketch that changed.
PARTS_VERSION = 1

FILES_AT_ONCE = 64
BYTES_AT_ONCE = 32 * 2**20
# Formats that hold this many times as much as they weigh, as FLAC or as columns.
PACKED_SUFFIXES = (".mp3", ".ogg", ".oga", ".opus", ".parquet")
UNPACKING_FACTOR = 8

_PART = pa.field("part", pa.string())
_WORK_COLUMNS = ("work_id", "source_uri", "collection", "licence", "notes", "length_s", "fingerprint", "sketch")
_CLIP_COLUMNS = ("clip_id", "source_uri", "collection", "licence", "length_s")
WORK_INDEX = pa.schema([_PART, *(WORK_DRAFTS.field(name) for name in _WORK_COLUMNS)])
CLIP_INDEX = pa.schema([_PART, *(CLIP_DRAFTS.field(name) for name in _CLIP_COLUMNS)])
_TOLD = b"told"
_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Outcome:
    """What a parcel became; each in the order of the files.

    Args:
        works, clips: a row for each, with the name of its part; see :data:`WORK_INDEX` and :data:`CLIP_INDEX`.
        refusals: rows of the ``refusals`` table.
        bad: files of which nothing was taken, by the reason of their first refusal.
        unread: refusals of files that were listed and could not be read now; such an outcome is not kept.
    """

    works: pa.Table
    clips: pa.Table
    refusals: tuple[dict[str, str], ...]
    bad: Counter[str]
    unread: tuple[dict[str, str], ...] = ()

    def packed(self) -> bytes:
        """The outcome as bytes."""
        told = {"refusals": self.refusals, "bad": self.bad, "unread": self.unread}
        works = to_ipc(self.works.replace_schema_metadata({_TOLD: json.dumps(told)}))
        return _LENGTH.pack(len(works)) + works + to_ipc(self.clips)

    @classmethod
    def unpacked(cls, data: bytes) -> Outcome:
        """The outcome of :meth:`packed`."""
        (length,) = _LENGTH.unpack_from(data)
        works = from_ipc(data[_LENGTH.size : _LENGTH.size + length])
        told = json.loads(works.schema.metadata[_TOLD])
        return cls(
            works=works.replace_schema_metadata(None),
            clips=from_ipc(data[_LENGTH.size + length :]),
            refusals=tuple(told["refusals"]),
            bad=Counter(told["bad"]),
            unread=tuple(told["unread"]),
        )

    @property
    def parts(self) -> list[str]:
        """Names of all parts, in order."""
        return [name for table in (self.works, self.clips) for name in table["part"].unique().to_pylist()]


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
        outcome = Outcome.unpacked(folder.read(index))
        if all(map(folder.exists, outcome.parts)):
            return outcome
    works, clips = [WORK_INDEX.empty_table()], [CLIP_INDEX.empty_table()]
    refusals: list[dict[str, str]] = []
    unread: list[dict[str, str]] = []
    bad = Counter[str]()
    for stretch in _stretches(zip(parcel, read_items(parcel), strict=True)):
        drafted = draft(stretch, parsing=parsing, analysis=analysis)
        refusals += drafted.refusals
        unread += drafted.unread
        bad += drafted.bad
        for rows, indices, kind in ((drafted.works, works, "works"), (drafted.clips, clips, "clips")):
            if rows.num_rows:
                data = to_ipc(rows)
                name = f"{digest}-{_hash(data)}.{kind}"
                folder.write(name, data)
                indices.append(_indexed(rows, part=name, index=indices[0].schema))
    outcome = Outcome(pa.concat_tables(works), pa.concat_tables(clips), tuple(refusals), bad, tuple(unread))
    if not unread:
        folder.write(index, outcome.packed())
    return outcome


def read_part(folder: Folder, name: str) -> pa.Table:
    """The drafts of one part.

    Raises:
        IntegrityError: its bytes are not those that were written.
    """
    data = folder.read(name)
    if _hash(data) not in name:
        raise IntegrityError(f"{folder.uri}/{name} differs from what was written; delete it to make it again")
    return from_ipc(data)


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


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


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
        if not isinstance(data, DataError):
            size += len(data) * (UNPACKING_FACTOR if item.uri.lower().endswith(PACKED_SUFFIXES) else 1)
        if len(held) == FILES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield held
            held, size = [], 0
    if held:
        yield held
