"""A block on storage: the files of its takes first, its rows last.

``blocks/block-00007.parquet`` holds the block's rows of the ``takes`` table and, in its metadata, path, size and
SHA-256 of every file that they name. A block whose rows are there and whose files have their sizes is done; any other
is made again whole. What is rejected keeps its MIDI below ``rejected/``, apart from what may be shipped.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tutti import lineage, tables
from tutti.catalogue import provenance
from tutti.catalogue.order import AUDIO_FORMATS
from tutti.catalogue.review import Draft, passes, to_json
from tutti.catalogue.takes import ACCEPTED, REJECTED, Block, Plan
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import IntegrityError, MissingError
from tutti.features.descriptors import describe_score
from tutti.features.mood import mood_word
from tutti.lineage import FileEntry
from tutti.render.export import SUFFIXES, finish
from tutti.render.voice import Instrument
from tutti.storage import Folder

FILES, REJECTS, PREVIEWS = "files", "rejected", "previews"
_ENTRIES = b"files"
_MAX_NAME = 60


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """A block that is done.

    Args:
        rows: its rows of the ``takes`` table.
        files: every file of its takes.
    """

    rows: pa.Table
    files: tuple[FileEntry, ...]


def write_block(
    folder: Folder,
    block: Block,
    drafts: Sequence[Draft],
    *,
    plan: Plan,
    instruments: Mapping[int, Instrument] | None = None,
    engine: Mapping[str, Any] | None = None,
) -> FinishedBlock:
    """Render what passed, write every file, then the rows.

    Args:
        folder: of the catalogue.
        block: which one.
        drafts: its takes.
        plan: what it belongs to.
        instruments: what plays the notes of a program in place of the SoundFont.
        engine: what composed them, for their provenance.

    Raises:
        PlaceError: the folder cannot be written.
    """
    rows: list[dict[str, Any]] = []
    files: list[FileEntry] = []
    for draft in drafts:
        made = make_take(draft, plan=plan, instruments=instruments, engine=engine)
        rows.append(made.row)
        files += [lineage.write_file(folder, path, data) for path, data in made.files.items()]
    table = tables.to_table(rows, tables.TAKES)
    entries = json.dumps([asdict(entry) for entry in files]).encode()
    metadata = {**tables.TAKES.metadata, _ENTRIES: entries}
    folder.write(block.path, tables.to_parquet(table.replace_schema_metadata(metadata)))
    return FinishedBlock(table, tuple(files))


def read_block(folder: Folder, block: Block) -> FinishedBlock:
    """Rows and files of a block.

    Raises:
        MissingError: its rows are not there.
        IntegrityError: they are damaged, or a file that they name is missing or of another size.
    """
    table = tables.from_parquet(folder.read(block.path), tables.TAKES)
    try:
        files = tuple(FileEntry(**entry) for entry in json.loads(table.schema.metadata[_ENTRIES]))
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError(f"{folder.uri}/{block.path} names no files ({error})") from error
    if table.schema.names != tables.TAKES.names:
        raise IntegrityError(f"{folder.uri}/{block.path} has other columns than takes have now")
    for entry in files:
        if not folder.exists(entry.path) or folder.size_bytes(entry.path) != entry.size_bytes:
            raise IntegrityError(f"{folder.uri}/{entry.path} is not the file that {block.path} names")
    return FinishedBlock(table.replace_schema_metadata(tables.TAKES.metadata), files)


def is_done(folder: Folder, block: Block) -> bool:
    """Whether a block needs no further work."""
    try:
        read_block(folder, block)
    except (MissingError, IntegrityError):
        return False
    return True


def score_of(row: Mapping[str, Any]) -> Score:
    """The piece that a row of ``takes`` holds; one track a program, as an engine gives it."""
    return Score.of(
        Notes.of(
            onset_ticks=row["onset_ticks"],
            duration_ticks=row["duration_ticks"],
            pitch=row["pitch"],
            velocity=row["velocity"],
            program=row["program"],
            track=np.unique(np.asarray(row["program"], dtype=np.uint8), return_inverse=True)[1],
        ),
        ticks_per_quarter=row["ticks_per_quarter"],
        tempos=list(zip(row["tempos_ticks"], row["tempos_qpm"], strict=True)),
        meters=list(zip(row["meters_ticks"], row["meters_numerator"], row["meters_denominator"], strict=True)),
        title=row["title"],
    )


def stem_of(title: str, *, take_id: str) -> str:
    """A file name without its ending: the title in plain letters and the first 8 digits of the take's identity."""
    plain = unicodedata.normalize("NFKD", title.replace("#", " sharp ")).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_MAX_NAME].rstrip("-")
    return f"{readable or 'take'}-{take_id[:8]}"


def files_of(row: Mapping[str, Any], *, formats: Sequence[str]) -> dict[str, str]:
    """Path of each file of a row of ``takes``, by format: all ``formats`` if accepted, MIDI alone if rejected."""
    stem = row["midi_path"].rpartition(".")[0]
    kept = ("midi", *(kind for kind in formats if kind != "midi")) if row["verdict"] == ACCEPTED else ("midi",)
    return {kind: f"{stem}.{SUFFIXES[kind]}" for kind in kept}


def preview_of(row: Mapping[str, Any], *, formats: Sequence[str]) -> str | None:
    """Path of the MP3 that the page plays: the ordered one, else one made beside for it; None without any sound."""
    if row["verdict"] != ACCEPTED or not any(kind in AUDIO_FORMATS for kind in formats):
        return None
    if "mp3" in formats:
        return files_of(row, formats=formats)["mp3"]
    name = row["midi_path"].rpartition("/")[2].rpartition(".")[0]
    return f"{PREVIEWS}/{name}.mp3"


@dataclass(frozen=True, slots=True)
class MadeTake:
    """A take with all its files, not on storage yet.

    Args:
        row: of the ``takes`` table.
        files: bytes by path below the catalogue's folder, its provenance last.
        provenance: that document.
    """

    row: dict[str, Any]
    files: dict[str, bytes]
    provenance: dict[str, Any]


def make_take(
    draft: Draft,
    *,
    plan: Plan,
    instruments: Mapping[int, Instrument] | None = None,
    engine: Mapping[str, Any] | None = None,
) -> MadeTake:
    """A take's files, rendered if it passed; a pure function of what it is given.

    Args:
        instruments: as in :func:`write_block`.
        engine: as in :func:`write_block`.
    """
    take = draft.take
    accepted = passes(draft.findings)
    formats = plan.order.formats
    stem = stem_of(take.slot.title, take_id=take.take_id)
    row: dict[str, Any] = {
        **_row(draft, plan=plan),
        "verdict": ACCEPTED if accepted else REJECTED,
        "midi_path": f"{FILES if accepted else REJECTS}/{stem}.mid",
    }
    paths = files_of(row, formats=formats)
    preview = preview_of(row, formats=formats)
    wanted = tuple(dict.fromkeys((*paths, *(("mp3",) if preview else ()))))
    titled = replace(draft.score, title=take.slot.title)
    finished = finish(titled, formats=wanted, title=take.slot.title, instruments=instruments)
    places = {**({"mp3": preview} if preview else {}), **paths}
    files = {path: finished.files[SUFFIXES[kind]] for kind, path in places.items()}
    row |= {
        "loudness_lufs": finished.loudness_lufs,
        "true_peak_dbtp": finished.true_peak_dbtp,
        "audio_path": next((paths[kind] for kind in AUDIO_FORMATS if kind in paths), None),
        "picture_path": paths.get("png"),
    }
    told = provenance.document(row, draft, plan=plan, files=files, engine=engine or {})
    return MadeTake(row, {**files, provenance.path_of(stem): provenance.to_bytes(told)}, told)


def _row(draft: Draft, *, plan: Plan) -> dict[str, Any]:
    take, score = draft.take, draft.score
    notes = score.notes
    described = describe_score(score) if len(notes) else None
    pitched = bool((notes.program != DRUM_PROGRAM).any())
    return {
        "take_id": take.take_id,
        "order": plan.order.name,
        "line": take.slot.line,
        "number": take.slot.number,
        "attempt": take.attempt,
        "title": take.slot.title,
        "model": plan.model,
        "model_version": plan.model_version,
        "model_digest": plan.model_digest,
        "seed": take.request.seed,
        "request": take.request.model_dump_json(),
        "ticks_per_quarter": score.ticks_per_quarter,
        "onset_ticks": notes.onset_ticks,
        "duration_ticks": notes.duration_ticks,
        "pitch": notes.pitch,
        "velocity": notes.velocity,
        "program": notes.program,
        "tempos_ticks": score.tempo_ticks,
        "tempos_qpm": score.tempo_qpm,
        "meters_ticks": score.meter_ticks,
        "meters_numerator": score.meter_numerator,
        "meters_denominator": score.meter_denominator,
        "notes": len(notes),
        "length_s": score.length_s,
        "key": described["key"] if described and pitched else None,
        "mood": mood_word(described["valence"], described["arousal"]) if described else None,
        "tempo_qpm": float(score.tempo_qpm[0]),
        "asked_key": take.request.key,
        **{name: described[name] if described else None for name in tables.TAKE_DESCRIPTORS},
        "checks": to_json(draft.findings),
        "candidates": _candidates(draft),
        "nearest_work": draft.nearest.work_id if draft.nearest else None,
        "nearest_title": draft.nearest.words if draft.nearest else None,
        "nearest_licence": draft.nearest.licence if draft.nearest else None,
    }


def _candidates(draft: Draft) -> str | None:
    if not draft.candidates:
        return None
    return json.dumps([candidate.to_dict() for candidate in draft.candidates], separators=(",", ":"))
