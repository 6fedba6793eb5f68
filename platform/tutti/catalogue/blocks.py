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
from tutti.render.formats import SUFFIXES
from tutti.render.tags import Tags
from tutti.render.voice import Instrument
from tutti.storage import Folder

FILES, REJECTS, STEMS = "files", "rejected", "stems"
_PLAYED = ("mp3", "flac", "ogg", "wav")
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


def read_block(folder: Folder, block: Block, *, sizes: Mapping[str, int] | None = None) -> FinishedBlock:
    """Rows and files of a block.

    Args:
        sizes: of all objects of the catalogue, by path; None asks for them.

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
    for entry in lineage.missing(folder, files, sizes=sizes):
        raise IntegrityError(f"{folder.uri}/{entry.path} is not the file that {block.path} names")
    return FinishedBlock(table.replace_schema_metadata(tables.TAKES.metadata), files)


def is_done(folder: Folder, block: Block, *, sizes: Mapping[str, int] | None = None) -> bool:
    """Whether a block needs no further work; ``sizes`` as in :func:`read_block`."""
    if sizes is not None and block.path not in sizes:
        return False
    try:
        read_block(folder, block, sizes=sizes)
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
    return {kind: f"{stem}.{SUFFIXES[kind]}" if kind in SUFFIXES else _stems_of(stem) for kind in kept}


def _stems_of(stem: str) -> str:
    """The folder of a take's stems."""
    return f"{STEMS}/{stem.rpartition('/')[2]}/"


def preview_of(row: Mapping[str, Any], *, formats: Sequence[str]) -> str | None:
    """Path of the sound that the page plays; None without any.

    No MP3 is made for the page alone: it took four times as long as all other files together.
    """
    kind = played_kind(formats)
    return None if kind is None else files_of(row, formats=formats).get(kind)


def played_kind(formats: Sequence[str]) -> str | None:
    """The lightest ordered kind of sound that every browser plays."""
    return next((kind for kind in _PLAYED if kind in formats), None)


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
    from tutti.render.export import finish  # brings scipy: whoever only reads blocks need not wait for it

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
    finished = finish(
        replace(draft.score, title=take.slot.title),
        formats=tuple(paths),
        title=take.slot.title,
        instruments=instruments,
        sound=plan.order.sound,
        font=None if plan.font is None else plan.font.opened(),
        tags=_tags(row, engine or {}),
    )
    files = {path: finished.files[SUFFIXES[kind]] for kind, path in paths.items() if kind in SUFFIXES}
    for name, data in finished.files.items():
        if name.startswith(f"{STEMS}/"):
            files[paths["stems"] + name.removeprefix(f"{STEMS}/")] = data
    row |= {
        "loudness_lufs": finished.loudness_lufs,
        "true_peak_dbtp": finished.true_peak_dbtp,
        "audio_path": next((paths[kind] for kind in AUDIO_FORMATS if kind in paths), None),
        "picture_path": paths.get("png"),
    }
    told = provenance.document(row, draft, plan=plan, files=files, engine=engine or {})
    return MadeTake(row, {**files, provenance.path_of(stem): provenance.to_bytes(told)}, told)


def _tags(row: Mapping[str, Any], engine: Mapping[str, Any]) -> Tags:
    licences = ", ".join(f"{name} ({count} works)" for name, count in engine.get("data_licences", {}).items())
    return Tags(
        mood=row["mood"] or "",
        tempo_qpm=row["tempo_qpm"],
        key=row["key"] or "",
        model=f"{row['model']} {row['model_version']}",
        licence=engine.get("model_licence") or (f"learnt from {licences}" if licences else ""),
        comment=f"take {row['take_id']}",
    )


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
