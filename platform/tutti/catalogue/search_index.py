"""Takes of finished catalogues as columns, to search them: what they are and how they sound, and none of their notes.

Only the columns that a search needs are read, so that 100,000 takes cost as much as a song's audio. A catalogue that an
earlier version made has no descriptors in its table; they are computed from its notes then, which takes longer.
Legend: N takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tutti.catalogue.blocks import score_of
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import IntegrityError, MissingError
from tutti.features.descriptors import describe
from tutti.features.vocabulary import INSTRUMENTS
from tutti.generation.request import Request
from tutti.lineage import MANIFEST
from tutti.storage import Folder
from tutti.tables import TAKE_DESCRIPTORS, TAKES

KIND, TABLE = "catalogues", "takes.parquet"
COLUMNS = (
    "take_id", "order", "title", "verdict", "key", "asked_key", "mood", "tempo_qpm", "length_s", "notes", "midi_path",
    "audio_path", *TAKE_DESCRIPTORS,
)  # fmt: skip
STRING_ENSEMBLES = range(48, 52)
"""General MIDI counts them to its ensembles, which sing and strike too; people call them strings."""
_ROWS_DESCRIBED_TOGETHER = 512

Figures = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Index:
    """Takes to search.

    Args:
        table: :data:`COLUMNS`, and ``catalogue``, the address of the folder that holds each; N rows, every ``take_id``
            once.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def read(cls, root: Folder, *, names: Sequence[str] = (), rejected: bool = False) -> Index:
        """Takes of every finished catalogue below a results root.

        Args:
            names: of the catalogues, or their folders; none: all.
            rejected: whether takes that failed their checks are wanted too.

        Raises:
            MissingError: no such catalogue, or none at all.
            IntegrityError: a table cannot be read.
        """
        folders = [folder for name in names for folder in _named(root, name)] if names else list(_finished(root))
        if not folders:
            raise MissingError(f"no finished catalogue below {root.uri}", remedy="make one: tutti catalogue ORDER")
        return cls.of([read_takes(folder) for folder in folders], rejected=rejected)

    @classmethod
    def of(cls, tables: Sequence[pa.Table], *, rejected: bool = False) -> Index:
        """Takes of tables as :func:`read_takes` gives them; of one that is in several, the first."""
        table = pa.concat_tables(tables)
        if not rejected:
            table = table.filter(pc.equal(table["verdict"], "accepted"))
        codes = table["take_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        _, first = np.unique(codes, return_index=True)
        return cls(table if len(first) == len(codes) else table.take(np.sort(first)))

    def numbers(self, name: str) -> Figures:
        """A column of numbers, NaN where there is nothing; shape (N,)."""
        column = pc.cast(self.table[name], pa.float64())
        return np.asarray(column.to_numpy(), dtype=np.float64)

    def texts(self, name: str) -> list[str]:
        """A column of texts, empty where there is nothing; N of them."""
        return [text or "" for text in self.table[name].to_pylist()]

    def equals(self, name: str, text: str) -> NDArray[np.bool_]:
        """Where a column of texts holds this one; shape (N,)."""
        return np.asarray(pc.fill_null(pc.equal(self.table[name], text), False))

    def mentions(self, text: str) -> NDArray[np.bool_]:
        """Where title or order hold a text, whatever its case; shape (N,)."""
        found = (pc.match_substring(self.table[name], text, ignore_case=True).to_numpy() for name in ("title", "order"))
        return np.asarray(np.logical_or(*found))

    @cached_property
    def keys(self) -> pa.ChunkedArray:
        """Key of each take: the asked one, which it was held to, else the estimated one; N of them."""
        return pc.coalesce(self.table["asked_key"], self.table["key"])

    @cached_property
    def families(self) -> NDArray[np.bool_]:
        """Which of :data:`~tutti.features.vocabulary.INSTRUMENTS` each take plays; shape (N, 17)."""
        programs = self.table["programs"].combine_chunks()
        take = np.asarray(pc.list_parent_indices(programs), dtype=np.int64)
        program = np.asarray(programs.flatten(), dtype=np.int64)
        played = np.zeros((len(self), len(INSTRUMENTS)), dtype=bool)
        played[take, program // 8] = True
        played[take[np.isin(program, STRING_ENSEMBLES)], INSTRUMENTS.index("strings")] = True
        return played

    def row(self, at: int) -> dict[str, Any]:
        """Everything of the take at a place."""
        (row,) = self.table.slice(at, 1).to_pylist()
        return dict(row)

    def place_of(self, take: str) -> int:
        """Where the take is that an identity, its first digits or a title name.

        Raises:
            MissingError: there is none, or more than one.
        """
        begins = np.asarray(pc.starts_with(self.table["take_id"], take))
        found = np.flatnonzero(begins if begins.any() else self.equals("title", take))
        if len(found) == 1:
            return int(found[0])
        what = f"{len(found)} takes are called {take!r}" if len(found) else f"no take {take!r}"
        raise MissingError(what, remedy="give more digits of its take_id; tutti catalogue search shows them")


def read_takes(folder: Folder) -> pa.Table:
    """What can be searched of the catalogue in a folder: :data:`COLUMNS` and ``catalogue``.

    Raises:
        IntegrityError: its table cannot be read.
    """
    try:
        with folder.open(TABLE) as source:
            file = pq.ParquetFile(source)
            if (file.schema_arrow.metadata or {}).get(b"table") != b"takes":
                raise IntegrityError(f"{folder.uri}/{TABLE} is no table of takes")
            whole = set(COLUMNS) <= set(file.schema_arrow.names)
            table = file.read(columns=list(COLUMNS)) if whole else _described(file)
    except (pa.ArrowException, ValueError) as error:
        raise IntegrityError(f"{folder.uri}/{TABLE} cannot be read ({error})") from error
    table = table.select(COLUMNS).replace_schema_metadata(None)
    return table.append_column("catalogue", pa.array([folder.uri]).take(pa.array(np.zeros(len(table), np.int32))))


def _finished(root: Folder) -> Iterator[Folder]:
    for name in root.children(KIND):
        yield from _addresses(root / KIND / name)


def _addresses(folder: Folder) -> Iterator[Folder]:
    for address in folder.children():
        if (folder / address).exists(MANIFEST):
            yield folder / address


def _named(root: Folder, name: str) -> list[Folder]:
    if "/" in name:
        folder = Folder(name)
        if not folder.exists(MANIFEST):
            raise MissingError(f"no finished catalogue in {folder.uri}", remedy="name its folder, with manifest.json")
        return [folder]
    found = list(_addresses(root / KIND / name))
    if not found:
        there = ", ".join(root.children(KIND)[:10]) or "none"
        raise MissingError(f"no finished catalogue {name!r} below {root.uri}", remedy=f"there are {there}")
    return found


def _described(file: pq.ParquetFile) -> pa.Table:
    """The columns of a table that lacks some, from its notes and requests."""
    wanted = pa.schema([TAKES.field(name) for name in COLUMNS])
    parts = [wanted.empty_table()]
    for batch in file.iter_batches(batch_size=_ROWS_DESCRIBED_TOGETHER):
        rows = batch.to_pylist()
        sounding = [row for row in rows if row["notes"]]
        columns: Mapping[str, pa.Array] = (
            describe(ScoreBatch.of([score_of(row) for row in sounding])) if sounding else {}
        )
        for at, row in enumerate(sounding):
            row |= {name: columns[name][at].as_py() for name in TAKE_DESCRIPTORS}
        for row in rows:
            row["asked_key"] = Request.model_validate_json(row["request"]).key
        parts.append(pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows], schema=wanted))
    return pa.concat_tables(parts)
