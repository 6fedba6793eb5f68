"""Files to drafts: what the bytes of a stretch of files become, and what was refused of them.

A draft is a row of ``works`` or ``clips`` before all others are known: it lacks what is decided later, the group of
near duplicates and the split.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutti.config import Settings
from tutti.corpus import audio, formats
from tutti.corpus.clips import Cutting, Heard, clips_table
from tutti.corpus.formats import ParseOptions
from tutti.corpus.found_pieces import HANGING_NOTE_QUARTERS
from tutti.corpus.isolation import File
from tutti.corpus.item import SUFFIXES, Item
from tutti.corpus.reading import UnreadError
from tutti.corpus.screening import Screening
from tutti.corpus.untrusted import parse_untrusted
from tutti.corpus.works import DRAFTS as WORK_DRAFTS
from tutti.corpus.works import Describe, Origin, drafts
from tutti.errors import DataError
from tutti.tables import CLIPS, SCHEMAS, checked

STAGE = "ingest"
CLIP_DRAFTS = CLIPS.remove(CLIPS.get_field_index("split"))

Hear = Callable[..., Heard]
"""``hear(files, cutting=…, timeout_s=…)``: the clips of sound files that nobody vouches for."""


class Parsing(Settings):
    """How files become pieces and clips, and which are kept: what drafts depend on beside the files."""

    tempo_without_mark_qpm: float = Field(
        default=80.0, ge=20, le=300, description="tempo of written scores that state none, quarters a minute"
    )
    hanging_note_quarters: float = Field(
        default=HANGING_NOTE_QUARTERS, gt=0, description="longest that a note without an end sounds, quarters"
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=3600, description="longest time that one file of notes may take, seconds"
    )
    sound_timeout_s: float = Field(
        default=60.0, gt=0, le=3600, description="longest time that one file of sound may take, seconds"
    )
    screening: Screening = Field(default=Screening(), description="which works are kept")
    cutting: Cutting = Field(default=Cutting(), description="how sound is cut into clips")


@dataclass(frozen=True)
class Analysis:
    """What is computed of pieces and of sound, by rooms above this one; functions that workers can import.

    Args:
        describe: the descriptor columns of a batch of pieces.
        hear: the clips of sound files, described.
    """

    describe: Describe
    hear: Hear


@dataclass(frozen=True)
class Drafted:
    """What a stretch of files became; each in the order of the files.

    Args:
        works, clips: drafts.
        refusals: rows of the ``refusals`` table.
        bad: files of which nothing was taken, by the reason of their first refusal.
        unread: refusals of files that were listed and could not be read now.
    """

    works: pa.Table
    clips: pa.Table
    refusals: tuple[dict[str, str], ...]
    bad: Counter[str]
    unread: tuple[dict[str, str], ...]


@dataclass
class _Refused:
    """Refusals with the place of their file and piece, by which they are put in order; and the files that gave rows."""

    taken: set[int] = field(default_factory=set)
    rows: list[tuple[int, int, dict[str, str]]] = field(default_factory=list)

    def add(self, position: int, uri: str, reason: str, detail: str, *, piece: int = 0) -> None:
        self.rows.append((position, piece, refusal(uri, reason, detail)))

    def in_order(self) -> list[tuple[int, dict[str, str]]]:
        """Place of the file and row of each."""
        return [(position, row) for position, _, row in sorted(self.rows, key=lambda entry: entry[:2])]


@dataclass(frozen=True)
class _Files:
    """Files of one kind, with the place of each in the stretch."""

    items: list[Item] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def add(self, position: int, item: Item, data: bytes) -> None:
        self.items.append(item)
        self.files.append((_file_name(item.uri), data))
        self.positions.append(position)


def draft(stretch: Sequence[tuple[Item, bytes | DataError]], *, parsing: Parsing, analysis: Analysis) -> Drafted:
    """What the files of a stretch become. Whatever is wrong with one is a refusal of that one."""
    refused, notes, sound = _Refused(), _Files(), _Files()
    unread = set()
    for position, (item, data) in enumerate(stretch):
        if isinstance(data, DataError):
            refused.add(position, item.uri, data.reason, data.detail)
            if isinstance(data, UnreadError):
                unread.add(position)
        elif formats.is_known(_file_name(item.uri)):
            notes.add(position, item, data)
        elif audio.is_known(_file_name(item.uri)):
            sound.add(position, item, data)
        else:
            refused.add(position, item.uri, "unknown_format", f"the name ends in none of {', '.join(SUFFIXES)}")
    works = _works(notes, parsing=parsing, analysis=analysis, refused=refused)
    clips = _clips(sound, parsing=parsing, analysis=analysis, refused=refused)
    refusals = refused.in_order()
    first = {position: row["reason"] for position, row in reversed(refusals)}
    return Drafted(
        works=works,
        clips=clips,
        refusals=tuple(row for _, row in refusals),
        bad=Counter(reason for position, reason in first.items() if position not in refused.taken),
        unread=tuple(row for position, row in refusals if position in unread),
    )


def settled(rows: pa.Table, *, table: str, decided: Mapping[str, Sequence[str]]) -> pa.Table:
    """Rows of ``works`` or ``clips`` from drafts and the columns that they lack.

    Args:
        rows: drafts.
        table: ``works`` or ``clips``.
        decided: columns by name.
    """
    schema = SCHEMAS[table]
    late = {name: pa.array(values, pa.string()) for name, values in decided.items()}
    return checked(pa.table({name: late[name] if name in late else rows[name] for name in schema.names}, schema=schema))


def refusal(uri: str, reason: str, detail: str) -> dict[str, str]:
    """A row of the ``refusals`` table."""
    return {"source_uri": uri, "stage": STAGE, "reason": reason, "detail": detail}


def _works(held: _Files, *, parsing: Parsing, analysis: Analysis, refused: _Refused) -> pa.Table:
    if not held.files:
        return WORK_DRAFTS.empty_table()
    options = ParseOptions(
        tempo_without_mark_qpm=parsing.tempo_without_mark_qpm, hanging_note_quarters=parsing.hanging_note_quarters
    )
    parsed = parse_untrusted(held.files, options=options, timeout_s=parsing.timeout_s)
    for file, reason, detail in parsed.refusals:
        refused.add(held.positions[file], held.items[file].uri, reason, detail)
    origins = _origins(held, parsed.file_of_piece.tolist())
    rows = drafts(parsed.batch, origins=origins, describe=analysis.describe)
    kept = np.ones(rows.num_rows, dtype=bool)
    for row, reason, detail in parsing.screening.dropped(rows):
        kept[row] = False
        position = held.positions[int(parsed.file_of_piece[row])]
        refused.add(position, origins[row].source_uri, reason, detail, piece=row)
    refused.taken.update(held.positions[file] for file in np.unique(parsed.file_of_piece[kept]).tolist())
    return rows if kept.all() else rows.filter(pa.array(kept))


def _clips(held: _Files, *, parsing: Parsing, analysis: Analysis, refused: _Refused) -> pa.Table:
    if not held.files:
        return CLIP_DRAFTS.empty_table()
    heard = analysis.hear(held.files, cutting=parsing.cutting, timeout_s=parsing.sound_timeout_s)
    refused.taken.update(held.positions[file] for file in heard.file_of_clip)
    for file, reason, detail in heard.refusals:
        refused.add(held.positions[file], held.items[file].uri, reason, detail)
    origins = _origins(held, sorted(set(heard.file_of_clip)))
    told = {
        file: _told(origin, title=heard.titles.get(file))
        for file, origin in zip(sorted(set(heard.file_of_clip)), origins, strict=True)
    }
    return clips_table(heard.clips, told=[told[file] for file in heard.file_of_clip]).select(CLIP_DRAFTS.names)


def _told(origin: Origin, *, title: str | None) -> dict[str, object]:
    """Columns of the ``clips`` table that do not come from the sound; the split is decided later."""
    labels = origin.told
    return {
        "source_uri": origin.source_uri,
        "source_sha256": origin.source_sha256,
        "collection": origin.collection,
        "title": labels.title or title,
        "composer": labels.composer,
        "tags": list(labels.tags),
        "metadata": json.dumps(labels.other, ensure_ascii=False, sort_keys=True),
        "licence": origin.licence,
        "licence_origin": origin.licence_origin,
        "split": "",
        "work_id": None,
        "valence": labels.valence,
        "arousal": labels.arousal,
        "mood_source": None if labels.valence is None else "label",
    }


def _origins(held: _Files, file_of_piece: Sequence[int]) -> list[Origin]:
    """Where each piece comes from; of several in one file, each is told by its number."""
    pieces = np.bincount(np.array(file_of_piece, dtype=np.int64), minlength=len(held.files))
    hashes = {file: hashlib.sha256(held.files[file][1]).hexdigest() for file in set(file_of_piece)}
    seen = dict.fromkeys(hashes, 0)
    origins = []
    for file in file_of_piece:
        item = held.items[file]
        seen[file] += 1
        origins.append(
            Origin(
                source_uri=item.uri if pieces[file] == 1 else f"{item.uri}#{seen[file]}",
                source_sha256=hashes[file],
                collection=item.collection,
                licence=item.licence,
                licence_origin=item.licence_origin,
                labels=item.labels,
            )
        )
    return origins


def _file_name(uri: str) -> str:
    """The last part of a URI; of an address on the net without its query, which a file's name may look like."""
    path = uri.partition("?")[0] if uri.startswith(("http://", "https://")) else uri
    return path.rpartition("/")[2]
