"""Parquet tables of notes from other corpora: one row a note, or one row a piece with its notes in lists.

Columns are known by their names, in any case and order; others are passed over:

=============  ==================================================================================================
piece          ``piece_id``, ``piece``, ``work_id``, ``work``, ``score_id``, ``song_id``, ``file``, ``filename``,
               ``path``; needed where a row is a note (rows of one piece need not lie together)
time           ``onset_U`` or ``start_U``, and ``duration_U`` or ``end_U`` or ``offset_U``, in the first unit of these
               that the table has. Ticks: U is ``ticks`` or ``tick``; they also need a resolution. Quarters:
               ``quarters``, ``quarter``, ``beats``, ``beat``. Seconds: ``s``, ``sec``, ``seconds``, ``time``.
resolution     ``ticks_per_quarter``, ``ticks_per_beat``, ``tpq``: the same for all notes of a piece
pitch          ``pitch``, ``midi_pitch``, ``midi_note``, ``note_number``: 0 to 127
velocity       ``velocity``, ``midi_velocity``: 0 to 127; 64 where there is none
program        ``program``, ``midi_program``: 0 to 127, and 128 for a drum kit; 0 where there is none
drums          ``is_drum``: true makes the program 128
track          ``track``, ``track_index``, ``part``, ``part_id``, ``instrument``, ``voice``, ``channel``: numbers or
               words
words          ``title``, ``composer``
maps           ``tempo_ticks`` with ``tempo_qpm``, and ``meter_ticks`` with ``meter_numerator`` and
               ``meter_denominator``: lists, where a row is a piece
=============  ==================================================================================================

So a ``works`` table of Tutti's is such a table, and gives the works that it holds.

Rules: quarters become 480 ticks where that is exact to a hundredth of a tick, else 10,080. A piece whose quarters begin
before 0, as with a pickup, is moved by whole bars of four. Seconds become 480 ticks a quarter at 120 quarters a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tutti.corpus.found_pieces import FoundPieces, Refusal
from tutti.corpus.score import CANONICAL_TICKS_PER_QUARTER, DEFAULT_TEMPO_QPM, DRUM_PROGRAM
from tutti.errors import DataError

SUFFIXES = (".parquet",)
MAX_FILE_BYTES = 256 * 2**20
MAX_NOTES_OF_FILE = 10_000_000
MAX_PIECES_OF_FILE = 2**15
FINE_TICKS_PER_QUARTER = 10_080
DEFAULT_VELOCITY = 64

# What pyarrow raises on bytes that are no table, or not the one that they claim.
_PYARROW_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError)

_NAMES = {
    "piece": ("piece_id", "piece", "work_id", "work", "score_id", "song_id", "file", "filename", "path"),
    "resolution": ("ticks_per_quarter", "ticks_per_beat", "tpq"),
    "pitch": ("pitch", "midi_pitch", "midi_note", "note_number"),
    "velocity": ("velocity", "midi_velocity"),
    "program": ("program", "midi_program"),
    "is_drum": ("is_drum",),
    "track": ("track", "track_index", "part", "part_id", "instrument", "voice", "channel"),
    "title": ("title",),
    "composer": ("composer",),
}
_MAPS = {"tempo": ("tempo_ticks", "tempo_qpm"), "meter": ("meter_ticks", "meter_numerator", "meter_denominator")}
_UNITS = {
    "ticks": ("ticks", "tick"),
    "quarters": ("quarters", "quarter", "beats", "beat"),
    "seconds": ("s", "sec", "seconds", "time"),
}
_TICKS_PER_SECOND = CANONICAL_TICKS_PER_QUARTER * DEFAULT_TEMPO_QPM / 60
# Beyond every limit, and small enough to be added to.
_MOST = 2**40
_TICK_TOLERANCE = 0.01
_BAR_QUARTERS = 4
_TIMES = ("onset", "duration", "end")
_WORDS = ("piece", "title", "composer")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column of a table plays which part.

    Args:
        roles: column of each of ``_NAMES`` that is there, of ``onset``, and of ``duration`` or ``end``.
        unit: of the times.
        rows_are_pieces: whether notes are in lists.
        maps: those of ``_MAPS`` that are there.
    """

    roles: dict[str, str]
    unit: str
    rows_are_pieces: bool
    maps: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([*self.roles.values(), *(name for kind in self.maps for name in _MAPS[kind])]))


def read_pieces(data: bytes) -> FoundPieces:
    """The pieces of a Parquet table, read row group by row group.

    Raises:
        DataError: unreadable, which says what columns are missing; too_long; no_notes.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        layout = _layout(file.schema_arrow)
        _check_size(file.metadata)
        groups = [
            _columns(file.read_row_group(number, columns=layout.columns)) for number in range(file.num_row_groups)
        ]
        if layout.rows_are_pieces:
            found = FoundPieces.joined([_found(_of_lists(group, layout), layout) for group in groups])
        elif groups:
            whole = {name: pa.concat_arrays([group[name] for group in groups]) for name in groups[0]}
            found = _found(_of_notes(whole, layout), layout)
        else:
            found = FoundPieces.of([])
    except _PYARROW_ERRORS as error:
        raise DataError("unreadable", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if not len(found):
        raise DataError("no_notes", "the table holds no row")
    if len(found) > MAX_PIECES_OF_FILE:
        raise DataError(
            "too_long", f"{len(found)} pieces are more than the limit of {MAX_PIECES_OF_FILE}: split the table"
        )
    return found


def _layout(schema: pa.Schema) -> _Layout:
    by_name = {name.lower(): name for name in reversed(schema.names)}

    def first(*names: str) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    roles = {role: name for role, names in _NAMES.items() if (name := first(*names))}
    unit = "ticks"
    for one, suffixes in _UNITS.items():
        onset = first(*(f"{stem}_{suffix}" for stem in ("onset", "start") for suffix in suffixes))
        duration = first(*(f"duration_{suffix}" for suffix in suffixes))
        end = first(*(f"{stem}_{suffix}" for stem in ("end", "offset") for suffix in suffixes))
        if onset and (duration or end) and (one != "ticks" or "resolution" in roles):
            unit = one
            roles |= {"onset": onset, "duration": duration} if duration else {"onset": onset, "end": str(end)}
            break
    in_lists = "pitch" in roles and _is_list(schema.field(roles["pitch"]).type)
    missing = [] if "pitch" in roles else ["pitch"]
    if "onset" not in roles:
        missing.append(
            "time (onset_ticks, duration_ticks and ticks_per_quarter, or onset_quarters and duration_quarters, "
            "or onset_s and duration_s)"
        )
    if "piece" not in roles and not in_lists:
        missing.append("piece_id")
    if missing:
        raise DataError(
            "unreadable", f"a table of notes, but without {' and '.join(missing)}: it has {schema.names[:20]}"
        )
    maps = [kind for kind, names in _MAPS.items() if in_lists and all(_is_listed(schema, name) for name in names)]
    return _Layout(roles=roles, unit=unit, rows_are_pieces=in_lists, maps=tuple(maps))


def _check_size(metadata: pq.FileMetaData) -> None:
    """Refuse what unpacks to more than this process may hold, before it is unpacked."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        most = max((group.column(index).num_values for index in range(group.num_columns)), default=0)
        if max(most, metadata.num_rows) > MAX_NOTES_OF_FILE:
            raise DataError("too_long", f"more than the limit of {MAX_NOTES_OF_FILE} notes a file: split the table")


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    """Each column as one array, without dictionaries."""
    columns = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        columns[name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        columns[name].validate(full=True)
    return columns


@dataclass(frozen=True, slots=True)
class _Flat:
    """Notes end to end.

    Args:
        piece: of each note, 0 to W - 1; shape (N,).
        values: column of each role, one value a note.
        titles, composers: of each piece; length W.
        refused: pieces whose columns do not fit together; they have no notes.
        maps: the map columns of :class:`~tutti.corpus.found_pieces.FoundPieces`, where the table has them.
    """

    piece: NDArray[np.int64]
    values: dict[str, pa.Array]
    titles: list[str | None]
    composers: list[str | None]
    refused: dict[int, Refusal]
    maps: dict[str, NDArray[Any]]


def _of_lists(columns: dict[str, pa.Array], layout: _Layout) -> _Flat:
    """One piece a row."""
    lengths = _lengths(columns[layout.roles["pitch"]])
    refused: dict[int, Refusal] = {}
    for role, name in layout.roles.items():
        if _is_list(columns[name].type):
            for row in np.flatnonzero((_lengths(columns[name]) != lengths) | (lengths < 0)).tolist():
                refused.setdefault(row, ("unreadable", f"the row has not one {role} for each pitch"))
    whole = np.ones(len(lengths), dtype=bool)
    whole[list(refused)] = False
    piece = np.repeat(np.flatnonzero(whole), lengths[whole])

    def of_notes(column: pa.Array) -> pa.Array:
        return (
            pc.list_flatten(column.filter(pa.array(whole))) if _is_list(column.type) else column.take(pa.array(piece))
        )

    maps: dict[str, NDArray[Any]] = {}
    for kind in layout.maps:
        maps |= _map_of_lists([columns[name] for name in _MAPS[kind]], kind)
    texts = {role: _texts(columns.get(layout.roles.get(role, "")), len(lengths)) for role in ("title", "composer")}
    return _Flat(
        piece=piece,
        values={role: of_notes(columns[name]) for role, name in layout.roles.items() if role not in _WORDS},
        titles=texts["title"],
        composers=texts["composer"],
        refused=refused,
        maps=maps,
    )


def _of_notes(columns: dict[str, pa.Array], layout: _Layout) -> _Flat:
    """Rows of one piece, wherever they lie, are its notes; rows that name no piece are one piece."""
    names = columns[layout.roles["piece"]]
    coded = names.dictionary_encode(null_encoding="encode")
    piece = coded.indices.to_numpy().astype(np.int64)
    count = len(coded.dictionary)
    first_row = pa.array(np.unique(piece, return_index=True)[1])
    texts = {
        role: _texts(columns[layout.roles[role]].take(first_row) if role in layout.roles else None, count)
        for role in ("title", "composer")
    }
    return _Flat(
        piece=piece,
        values={role: columns[name] for role, name in layout.roles.items() if role not in _WORDS},
        titles=texts["title"],
        composers=texts["composer"],
        refused={},
        maps={},
    )


def _map_of_lists(columns: list[pa.Array], kind: str) -> dict[str, NDArray[Any]]:
    """A tempo or meter map; a piece whose columns differ in length gets an entry at a tick that no piece may have."""
    lengths = [np.maximum(_lengths(column), 0) for column in columns]
    same = np.all([length == lengths[0] for length in lengths], axis=0)
    pieces, odd = np.flatnonzero(same), np.flatnonzero(~same)
    made: dict[str, NDArray[Any]] = {f"{kind}_piece": np.concatenate((np.repeat(pieces, lengths[0][same]), odd))}
    for name, column in zip(_MAPS[kind], columns, strict=True):
        values = np.concatenate((_floats(pc.list_flatten(column.filter(pa.array(same)))), np.full(len(odd), -1.0)))
        made[name] = values if name == "tempo_qpm" else _whole(values)
    return made


def _found(flat: _Flat, layout: _Layout) -> FoundPieces:
    """The notes with their times in ticks."""
    count, size = len(flat.titles), len(flat.piece)
    numbers = {role: _whole(_floats(values)) for role, values in flat.values.items() if role not in ("track", *_TIMES)}
    program = numbers.get("program", np.zeros(size, dtype=np.int64))
    if "is_drum" in numbers:
        program = np.where(numbers["is_drum"] > 0, DRUM_PROGRAM, program)
    refused = dict(flat.refused)
    resolution, onset, duration = _ticks(flat, layout, numbers=numbers, refused=refused)
    maps = {
        **{f"{kind}_{part}": np.empty(0, dtype=np.int64) for kind in _MAPS for part in ("piece", "ticks")},
        **{name: np.empty(0) for name in ("tempo_qpm", "meter_numerator", "meter_denominator")},
        **flat.maps,
    }
    return FoundPieces(
        ticks_per_quarter=resolution,
        titles=flat.titles,
        composers=flat.composers,
        piece=flat.piece,
        onset_ticks=onset,
        duration_ticks=duration,
        pitch=numbers["pitch"],
        velocity=numbers.get("velocity", np.full(size, DEFAULT_VELOCITY)),
        program=program,
        track=_tracks(flat.values["track"]) if "track" in flat.values else np.zeros(size, dtype=np.int64),
        **maps,
        refused={piece: why for piece, why in refused.items() if piece < count},
    )


def _ticks(
    flat: _Flat, layout: _Layout, *, numbers: dict[str, NDArray[np.int64]], refused: dict[int, Refusal]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Resolution of each piece, onset and duration of each note; what has no place in time is told in ``refused``."""
    piece, count = flat.piece, len(flat.titles)
    onset = _floats(flat.values["onset"])
    end = _floats(flat.values["end"]) if "end" in flat.values else onset + _floats(flat.values["duration"])
    timeless = ~(np.isfinite(onset) & np.isfinite(end))
    for number in np.unique(piece[timeless]).tolist():
        refused[number] = ("unreadable", "a note's onset, duration or end is no finite number")
    onset, end = (np.clip(np.where(timeless, 0.0, times), -_MOST, _MOST) for times in (onset, end))
    resolution = np.full(count, CANONICAL_TICKS_PER_QUARTER, dtype=np.int64)
    per_unit: NDArray[Any] | float = 1.0
    if layout.unit == "ticks":
        resolution[piece] = numbers["resolution"]
        for number in np.unique(piece[resolution[piece] != numbers["resolution"]]).tolist():
            refused[number] = ("bad_time", "its notes have more than one resolution")
    elif layout.unit == "seconds":
        per_unit = _TICKS_PER_SECOND
    else:
        earliest = np.zeros(count)
        np.minimum.at(earliest, piece, onset)
        moved = np.ceil(-earliest / _BAR_QUARTERS)[piece] * _BAR_QUARTERS
        onset, end = onset + moved, end + moved
        coarse = np.concatenate((onset, end)) * CANONICAL_TICKS_PER_QUARTER
        inexact = np.abs(coarse - np.rint(coarse)) > _TICK_TOLERANCE
        resolution[np.concatenate((piece, piece))[inexact]] = FINE_TICKS_PER_QUARTER
        per_unit = resolution[piece]
    begins, ends = _whole(onset * per_unit), _whole(end * per_unit)
    return resolution, begins, ends - begins


def _tracks(column: pa.Array) -> NDArray[np.int64]:
    """Numbers as they are where they can be; else each word or number gets one by its first appearance."""
    if pa.types.is_integer(column.type) and not column.null_count:
        return _whole(_floats(column))
    return np.asarray(column.dictionary_encode(null_encoding="encode").indices.to_numpy(), dtype=np.int64)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_listed(schema: pa.Schema, name: str) -> bool:
    return name in schema.names and _is_list(schema.field(name).type)


def _lengths(column: pa.Array) -> NDArray[np.int64]:
    """Values in each row of a column of lists, -1 where there is no list."""
    return np.asarray(pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _floats(column: pa.Array) -> NDArray[np.float64]:
    """Numbers, NaN where there is none. Ticks and pitches are far below 2^53, up to which floats are exact."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError("unreadable", f"a column of {kind} stands where numbers must be")
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The nearest whole numbers; what is none or beyond every limit becomes -1, which no column may hold."""
    usable = np.abs(values) <= _MOST
    return np.where(usable, np.rint(np.where(usable, values, -1.0)), -1.0).astype(np.int64)


def _texts(column: pa.Array | None, count: int) -> list[str | None]:
    """One line of text or None for each piece."""
    if column is None or not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return [None] * count
    return [" ".join(text.split()) or None if text else None for text in column.to_pylist()]
