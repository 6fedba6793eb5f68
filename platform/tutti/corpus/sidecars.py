"""Tables that lie beside music and name its files row by row: which file a row means, and what it says of it.

A ``.csv`` or ``.jsonl`` is such a table where it has a column of :data:`FILE_COLUMNS`; any other is left alone, and one
that names no file of the source tells nothing, whatever stands in it. A name means, in this order, the file at that
path below the table's own folder, the file at that path below the source, and the only file below the table's folder
whose last name it is. The table that lies deepest speaks first, and of one table the first row that names a file.

Text is UTF-8 with or without a byte order mark, else Latin-1. A CSV (RFC 4180) parts its cells by comma, semicolon or
tab, whichever makes most columns of its first line.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tutti.corpus.metadata import Labels, labels_of, plain_name
from tutti.errors import RecipeError

SUFFIXES = (".csv", ".jsonl")
FILE_COLUMNS = (
    "file", "path", "filename", "file_name", "midi_filename", "audio_filename", "midi_path", "audio_path", "name",
)  # fmt: skip
# Of a table that is longer than people write by hand, one would rather hear than wait.
MAX_SIDECAR_BYTES = 64 * 2**20
UNMATCHED_SHOWN = 3
_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Sidecar:
    """One table as it was found.

    Args:
        path: below the source, a folder to a level; an archive counts as a folder.
        name: the same for people, who see an archive's members behind ``!``.
        data: its bytes.
    """

    path: str
    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """What came of one table.

    Args:
        name: of the table.
        rows: rows in it.
        files: files that got their labels from it.
        unmatched: lines of the rows that name no file of the source.
        repeated: rows that name only files of which something was said already.
    """

    name: str
    rows: int
    files: int
    unmatched: tuple[int, ...]
    repeated: int

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.rows:,} rows tell of {self.files:,} files"]
        if self.unmatched:
            lines = ", ".join(str(line) for line in self.unmatched[:UNMATCHED_SHOWN])
            more = ", …" if len(self.unmatched) > UNMATCHED_SHOWN else ""
            parts.append(f"{len(self.unmatched):,} rows name no file here (lines {lines}{more})")
        if self.repeated:
            parts.append(f"{self.repeated:,} rows name files that were told of before")
        return " · ".join(parts)


@dataclass(frozen=True, slots=True)
class Told:
    """Labels of one file and the name of the table that they come from."""

    labels: Labels
    origin: str


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: dict[str, str]


def is_sidecar(name: str) -> bool:
    """Whether a file's name is that of a table."""
    return name.lower().endswith(SUFFIXES)


def read_sidecars(sidecars: Sequence[Sidecar], *, paths: Sequence[str]) -> tuple[dict[int, Told], list[Usage]]:
    """What the tables of one source say of its files.

    Args:
        sidecars: the tables.
        paths: the files, each by its path below the source.

    Returns:
        Labels by the file's index in ``paths``, and what came of each table that could name any of them.

    Raises:
        RecipeError: a table that names files holds a row that cannot be read, or a label that cannot be.
    """
    told: dict[int, Told] = {}
    usages = list[Usage]()
    if not sidecars:
        return told, usages
    files = _Files(paths)
    for sidecar in sorted(sidecars, key=lambda sidecar: (-sidecar.path.count("/"), sidecar.path)):
        usage = _take(sidecar, files=files, told=told)
        if usage is not None:
            usages.append(usage)
    return told, usages


class _Files:
    """Files by path and by last name."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [_normal(path) for path in paths]
        self._by_path = {path: index for index, path in enumerate(self._paths)}
        self._by_name: dict[str, list[int]] = {}
        for index, path in enumerate(self._paths):
            self._by_name.setdefault(path.rpartition("/")[2], []).append(index)

    def meant_by(self, name: str, *, folder: str) -> int | None:
        """Index of the file that ``name`` in a table in ``folder`` means."""
        wanted = _normal(name)
        for path in (posixpath.normpath(posixpath.join(folder, wanted)), wanted):
            if (index := self._by_path.get(path)) is not None:
                return index
        below = f"{folder}/" if folder else ""
        named = [
            index for index in self._by_name.get(wanted.rpartition("/")[2], ()) if self._paths[index].startswith(below)
        ]
        return named[0] if len(named) == 1 else None


def _normal(path: str) -> str:
    # The same name in other code points (macOS parts accents from letters), and paths written on Windows.
    path = unicodedata.normalize("NFC", path.strip()).replace("\\", "/").lstrip("/")
    return posixpath.normpath(path) if path else ""


def _take(sidecar: Sidecar, *, files: _Files, told: dict[int, Told]) -> Usage | None:
    """Add what one table says to ``told``; nothing comes back where it has no column that could name files."""
    folder = _normal(sidecar.path).rpartition("/")[0]
    unmatched, repeated, rows = list[int](), 0, 0
    fresh: dict[int, tuple[_Row, str]] = {}
    unreadable: RecipeError | None = None
    for row in _rows(sidecar):
        if isinstance(row, RecipeError):
            unreadable = unreadable or row
            continue
        rows += 1
        meant = _files_of(row, files=files, folder=folder)
        new = {index: column for index, column in meant.items() if index not in told and index not in fresh}
        fresh.update({index: (row, column) for index, column in new.items()})
        unmatched += [] if meant else [row.line]
        repeated += bool(meant) and not new
    # The head of a CSV says that its rows name files; of lines of JSON that is known by a line that does.
    if unreadable is not None and (len(unmatched) < rows or (not rows and _is_csv(sidecar))):
        raise unreadable
    if not rows:
        return None
    same: dict[str, str] = {}  # one string for a word that a thousand rows say
    for index, (row, file_column) in fresh.items():
        cells = {column: same.setdefault(cell, cell) for column, cell in row.cells.items() if column != file_column}
        told[index] = Told(labels_of(cells, where=f"{sidecar.name}, line {row.line}"), origin=sidecar.name)
    return Usage(sidecar.name, rows=rows, files=len(fresh), unmatched=tuple(unmatched), repeated=repeated)


def _files_of(row: _Row, *, files: _Files, folder: str) -> dict[int, str]:
    """Files that a row names, with the column that names each."""
    meant: dict[int, str] = {}
    for column, cell in row.cells.items():
        if cell.strip() and plain_name(column) in FILE_COLUMNS:
            index = files.meant_by(cell, folder=folder)
            if index is not None:
                meant.setdefault(index, column)
    return meant


def _rows(sidecar: Sidecar) -> Iterator[_Row | RecipeError]:
    """Rows that may name files, and in the place of a row that cannot be read what is to be said of it."""
    if len(sidecar.data) > MAX_SIDECAR_BYTES:
        raise RecipeError(f"{sidecar.name} is larger than {MAX_SIDECAR_BYTES >> 20} MiB", remedy="part it in several")
    try:
        text = sidecar.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = sidecar.data.decode("latin-1")
    read = _csv_rows if _is_csv(sidecar) else _json_rows
    return read(text, name=sidecar.name)


def _is_csv(sidecar: Sidecar) -> bool:
    return sidecar.path.lower().endswith(".csv")


def _csv_rows(text: str, *, name: str) -> Iterator[_Row | RecipeError]:
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    delimiter = max(_DELIMITERS, key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    columns: list[str] = []
    line = 1
    try:
        for cells in reader:
            at, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = _column_names(cells)
                if not _may_name_files(columns):
                    return
            elif len(cells) != len(columns):
                yield _unreadable(name, line=at, why=f"{len(cells)} cells under {len(columns)} columns")
            else:
                yield _Row(at, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        if columns:
            yield _unreadable(name, line=line, why=str(error))


def _column_names(cells: Sequence[str]) -> list[str]:
    """Names of columns, each of them another: what has none, or one that was there, is called by its place."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        name = cell.strip()
        names.append(name if name and name not in names else f"{name} column {number}".strip())
    return names


def _json_rows(text: str, *, name: str) -> Iterator[_Row | RecipeError]:
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except (ValueError, RecursionError):
            yield _unreadable(name, line=line, why="it is not JSON")
            continue
        if not isinstance(row, Mapping):
            yield _unreadable(name, line=line, why="it is no JSON object")
        elif _may_name_files(row):
            yield _Row(line, {_text(column): _text(value) for column, value in row.items()})


def _may_name_files(columns: Iterable[str]) -> bool:
    return any(plain_name(column) in FILE_COLUMNS for column in columns)


def _text(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # JSON may carry half a character (a lone surrogate), which no table takes.
    return text.encode("utf-8", "replace").decode("utf-8")


def _unreadable(name: str, *, line: int, why: str) -> RecipeError:
    return RecipeError(f"{name}, line {line} cannot be read: {why}", remedy="mend the row, or move the table away")
