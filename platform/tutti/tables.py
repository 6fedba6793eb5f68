"""The tables that cross a stage: Arrow schemas with a version; each column has a unit and a sentence.

Changing a schema is a visible act: ``tests/golden/tables.json`` holds them, and :data:`VERSIONS` must move with it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutti.errors import IntegrityError

VERSIONS = {
    "works": 2, "clips": 1, "refusals": 1, "tokens": 1, "sequences": 1, "blocks": 1, "takes": 1,
    "feedback": 1, "pairs": 1,
}  # fmt: skip

REFUSAL_REASONS = {
    "unreadable": "the bytes are not of the format that they claim",
    "empty": "the file holds no bytes",
    "no_notes": "the piece holds no note",
    "too_long": "the piece is longer than the limit of ticks, notes or seconds",
    "bad_time": "the time base or tempo map has no finite length",
    "parser_crashed": "the parsing process died on this file",
    "parser_timeout": "the parsing process did not answer within its limit",
    "unknown_format": "the file's name ends in no known format",
    "unreachable": "the source could not be fetched",
    "unsafe_archive": "an archive or a member of it: encrypted, damaged, nested, a link, or unpacking to too much",
    "silent": "no window of the audio is above the limit of silence",
    "too_few_notes": "screened: fewer notes than the recipe asks for",
    "too_short": "screened: shorter than the recipe asks for",
    "too_dense": "screened: more notes sound at once, on average, than the recipe allows",
    "mostly_empty": "screened: more of its bars are empty than the recipe allows",
    "drums_only": "screened: no note but a drum kit's, which the recipe drops",
    "one_pitch": "screened: one pitch alone, which the recipe drops",
    "duplicate": "the same canonical notes, or the same sound, were already taken from another source",
}

FEEDBACK_EVENTS = {
    "rated": "the value is how much the listener liked the take, -1 (not at all) to 1 (very much)",
    "kept": "the listener took the take, which counts as a rating of 1",
    "rejected": "the listener gave the take up, which counts as a rating of -1",
    "preferred": "the listener liked the take better than the other one",
    "liked": "the listener marked the take as liked, which counts as a rating of 1",
    "played": "the listener heard the share of the take that the value tells, 0 to 1, which is no rating",
    "skipped": "the listener went on before a quarter was heard, which counts as a rating of -0.5",
}


def _column(name: str, kind: pa.DataType, sentence: str, *, unit: str = "", nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "is": sentence})


_TEXT = pa.string()


def _schema(name: str, fields: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(list(fields), metadata={"table": name, "version": str(VERSIONS[name])})


WORKS = _schema(
    "works",
    (
        _column("work_id", _TEXT, "hash of the canonical notes, tempos and meters"),
        _column("source_uri", _TEXT, "where the file came from"),
        _column("source_sha256", _TEXT, "hash of the file's bytes"),
        _column("collection", _TEXT, "name of the source collection"),
        _column("title", _TEXT, "title, where the source tells one", nullable=True),
        _column("composer", _TEXT, "composer, where the source tells one", nullable=True),
        _column("tags", pa.list_(_TEXT), "words that a file of metadata beside the source gives it"),
        _column("metadata", _TEXT, "what else such a file tells, column by column, as JSON"),
        _column("licence", _TEXT, "SPDX identifier or LicenseRef-…; `unknown` where nobody stated it"),
        _column("licence_origin", _TEXT, "who stated the licence"),
        _column("group_id", _TEXT, "smallest work_id of its group of near duplicates, its own where it has none"),
        _column("split", _TEXT, "train, valid or test, by a stable hash; a group lies in one split"),
        _column("ticks_per_quarter", pa.int32(), "resolution of all ticks of this row", unit="ticks"),
        _column("onset_ticks", pa.list_(pa.int32()), "start of each note", unit="ticks"),
        _column("duration_ticks", pa.list_(pa.int32()), "length of each note", unit="ticks"),
        _column("pitch", pa.list_(pa.uint8()), "MIDI pitch of each note; drum key where program is 128"),
        _column("velocity", pa.list_(pa.uint8()), "MIDI velocity of each note, 1 to 127"),
        _column("program", pa.list_(pa.uint8()), "General MIDI program of each note, 0 to 127; 128 is a drum kit"),
        _column("track", pa.list_(pa.uint16()), "index of the part that holds each note"),
        _column("tempo_ticks", pa.list_(pa.int32()), "start of each tempo", unit="ticks"),
        _column("tempo_qpm", pa.list_(pa.float64()), "each tempo", unit="quarters per minute"),
        _column("meter_ticks", pa.list_(pa.int32()), "start of each meter", unit="ticks"),
        _column("meter_numerator", pa.list_(pa.uint8()), "beats in a bar"),
        _column("meter_denominator", pa.list_(pa.uint8()), "note value of a beat"),
        _column("notes", pa.int32(), "number of notes"),
        _column("length_s", pa.float64(), "from the first bar to the last note's end", unit="s"),
        _column("bars", pa.int32(), "bars up to the last onset"),
        _column("empty_bars_share", pa.float64(), "share of them in which no note begins or sounds"),
        _column("tempo_mean_qpm", pa.float64(), "quarters over minutes up to the end", unit="quarters per minute"),
        _column("meter", _TEXT, "the meter that holds longest, such as `3/4`"),
        _column("programs", pa.list_(pa.uint8()), "General MIDI programs in use, rising; 128 is a drum kit"),
        _column("key", _TEXT, "estimated key, such as `D minor`"),
        _column("key_confidence", pa.float64(), "correlation of the key profile less that of the second best key"),
        _column("scale_consistency", pa.float64(), "largest share of notes in one of the 12 diatonic scales, 0 to 1"),
        _column("pitch_entropy", pa.float64(), "entropy of the pitches that are no drums", unit="bits"),
        _column("pitch_class_entropy", pa.float64(), "entropy of their pitch classes", unit="bits"),
        _column(
            "groove_consistency",
            pa.float64(),
            "1 less the mean share of 24ths of a quarter in which neighbouring bars begin notes and rest unalike",
        ),
        _column(
            "notes_per_quarter",
            pa.float64(),
            "density: notes over the quarters from the first onset to the last end",
            unit="notes per quarter",
        ),
        _column("polyphony", pa.float64(), "mean number of notes that sound where any sounds"),
        _column("pitch_low", pa.uint8(), "lowest pitch that is no drum; 0 where there is none"),
        _column("pitch_high", pa.uint8(), "highest pitch that is no drum; 0 where there is none"),
        _column("valence", pa.float64(), "mood, sad to happy, -1 to 1"),
        _column("arousal", pa.float64(), "mood, calm to excited, -1 to 1"),
        _column("mood_source", _TEXT, "label or estimate"),
        _column(
            "fingerprint",
            _TEXT,
            "hash of the melody's intervals and rhythm, the same under transposition and tempo",
        ),
        _column("sketch", pa.list_(pa.uint64()), "hashes of melodic features, by which near duplicates are found"),
    ),
)

CLIPS = _schema(
    "clips",
    (
        _column("clip_id", _TEXT, "hash of the canonical samples: sample rate, channels, PCM"),
        _column("source_uri", _TEXT, "where the file came from"),
        _column("source_sha256", _TEXT, "hash of the file's bytes"),
        _column("collection", _TEXT, "name of the source collection"),
        _column("title", _TEXT, "title, where the source tells one", nullable=True),
        _column("composer", _TEXT, "composer, where the source tells one", nullable=True),
        _column("tags", pa.list_(_TEXT), "words that a file of metadata beside the source gives it"),
        _column("metadata", _TEXT, "what else such a file tells, column by column, as JSON"),
        _column("licence", _TEXT, "SPDX identifier or LicenseRef-…; `unknown` where nobody stated it"),
        _column("licence_origin", _TEXT, "who stated the licence"),
        _column("split", _TEXT, "train, valid or test; all clips of one source, and of one work, lie in one"),
        _column("work_id", _TEXT, "the work that this clip renders", nullable=True),
        _column("start_s", pa.float64(), "where the clip begins in its source or its work", unit="s"),
        _column("length_s", pa.float64(), "length of the audio", unit="s"),
        _column("sample_rate_hz", pa.int32(), "samples a second, of each channel", unit="Hz"),
        _column("channels", pa.uint8(), "1 or 2 channels of audio"),
        _column("audio", pa.binary(), "the audio as FLAC, without loss or dither"),
        _column(
            "loudness_lufs",
            pa.float64(),
            "integrated loudness; nothing where all of it is under the meter's gate",
            unit="LUFS",
            nullable=True,
        ),
        _column(
            "tempo_qpm",
            pa.float64(),
            "estimated tempo; nothing where no pulse is heard",
            unit="quarters per minute",
            nullable=True,
        ),
        _column("tempo_confidence", pa.float64(), "how alike the onsets are one pulse later, 0 to 1"),
        _column("key", _TEXT, "key estimated by chroma, such as `D minor`"),
        _column("key_confidence", pa.float64(), "correlation of the key profile less that of the second best key"),
        _column("onsets_per_s", pa.float64(), "sounds that begin", unit="per second"),
        _column("valence", pa.float64(), "mood, sad to happy, -1 to 1, where it is known", nullable=True),
        _column("arousal", pa.float64(), "mood, calm to excited, -1 to 1, where it is known", nullable=True),
        _column("mood_source", _TEXT, "label, or estimate of the work's notes", nullable=True),
    ),
)

REFUSALS = _schema(
    "refusals",
    (
        _column("source_uri", _TEXT, "where the file came from"),
        _column("stage", _TEXT, "verb that refused it"),
        _column("reason", _TEXT, "a member of the closed list REFUSAL_REASONS"),
        _column("detail", _TEXT, "one line for people"),
    ),
)

TOKENS = _schema(
    "tokens",
    (
        _column("work_id", _TEXT, "the work that these tokens encode"),
        _column("vocabulary", _TEXT, "hash of the vocabulary"),
        _column("tokens", pa.list_(pa.uint16()), "token ids, from Start to End"),
        _column("notes", pa.int32(), "number of notes that the tokens hold"),
        _column("controls", _TEXT, "control tokens by name, as JSON"),
        _column("split", _TEXT, "train, valid or test"),
    ),
)

SEQUENCES = _schema(
    "sequences",
    (
        _column("tokens", pa.binary(), "pieces laid end to end, each from Start: token ids in 16 bits, low byte first"),
        _column("lengths", pa.list_(pa.int32()), "tokens of each piece"),
        _column("pieces", pa.list_(pa.int64()), "number of each piece among all, by which augmentation draws"),
        _column("source", _TEXT, "name of the source collection of all pieces"),
    ),
)

BLOCKS = _schema(
    "blocks",
    (
        _column("path", _TEXT, "file, below the dataset's folder"),
        _column("sequences", pa.int32(), "sequences that the stretch holds; 0 for what ends a file and describes it"),
        _column("start_bytes", pa.int64(), "where the stretch begins in its file", unit="bytes"),
        _column("size_bytes", pa.int64(), "its length", unit="bytes"),
        _column("sha256", pa.binary(32), "hash of its bytes"),
    ),
)

TAKE_DESCRIPTORS = (
    "bars", "meter", "programs", "key_confidence", "scale_consistency", "pitch_entropy", "pitch_class_entropy",
    "groove_consistency", "notes_per_quarter", "polyphony", "pitch_low", "pitch_high", "valence", "arousal",
)  # fmt: skip
"""Columns of ``works`` that takes have too, and are found by."""

TAKES = _schema(
    "takes",
    (
        _column("take_id", _TEXT, "hash of request, seed and model version"),
        _column("order", _TEXT, "name of the order"),
        _column("line", pa.int32(), "line of the order, from 0"),
        _column("number", pa.int32(), "number of the take within its line, from 0"),
        _column("attempt", pa.int32(), "which seed this is for that number, from 0: a failed one is replaced"),
        _column("title", _TEXT, "title that the order's naming gives"),
        _column("model", _TEXT, "name of the registered model"),
        _column("model_version", _TEXT, "its version"),
        _column("model_digest", _TEXT, "hash of the version's weights and vocabulary"),
        _column("seed", pa.int64(), "seed of the take's random stream"),
        _column("request", _TEXT, "the full request, as JSON"),
        _column("ticks_per_quarter", pa.int32(), "resolution of all ticks of this row", unit="ticks"),
        _column("onset_ticks", pa.list_(pa.int32()), "start of each note", unit="ticks"),
        _column("duration_ticks", pa.list_(pa.int32()), "length of each note", unit="ticks"),
        _column("pitch", pa.list_(pa.uint8()), "MIDI pitch of each note"),
        _column("velocity", pa.list_(pa.uint8()), "MIDI velocity of each note"),
        _column("program", pa.list_(pa.uint8()), "General MIDI program of each note; 128 is a drum kit"),
        _column("tempos_ticks", pa.list_(pa.int32()), "start of each tempo", unit="ticks"),
        _column("tempos_qpm", pa.list_(pa.float64()), "each tempo", unit="quarters per minute"),
        _column("meters_ticks", pa.list_(pa.int32()), "start of each meter", unit="ticks"),
        _column("meters_numerator", pa.list_(pa.uint8()), "beats in a bar"),
        _column("meters_denominator", pa.list_(pa.uint8()), "note value of a beat"),
        _column("notes", pa.int32(), "number of notes"),
        _column("length_s", pa.float64(), "from the first bar to the last note's end", unit="s"),
        _column("key", _TEXT, "estimated key", nullable=True),
        _column("mood", _TEXT, "estimated mood: happy, tense, sad, calm or neutral", nullable=True),
        _column("tempo_qpm", pa.float64(), "first tempo", unit="quarters per minute"),
        _column("asked_key", _TEXT, "key that the request states", nullable=True),
        # What a work is described by; nothing where a take has no notes.
        *(WORKS.field(name).with_nullable(True) for name in TAKE_DESCRIPTORS),
        _column("loudness_lufs", pa.float64(), "integrated loudness of the audio", unit="LUFS", nullable=True),
        _column("true_peak_dbtp", pa.float64(), "true peak of the audio", unit="dBTP", nullable=True),
        _column("checks", _TEXT, "each check with its figure, limit and verdict, as JSON"),
        _column(
            "candidates",
            _TEXT,
            "of a best of several, each piece that it was chosen from: seed, score, points, chosen; as JSON",
            nullable=True,
        ),
        _column("verdict", _TEXT, "accepted or rejected"),
        _column(
            "nearest_work",
            _TEXT,
            "work_id of the known work that it comes nearest to copying, where it was looked for",
            nullable=True,
        ),
        _column("nearest_title", _TEXT, "composer and title of that work, where they are known", nullable=True),
        _column("nearest_licence", _TEXT, "licence of that work", nullable=True),
        _column("midi_path", _TEXT, "MIDI file, below the catalogue's folder"),
        _column("audio_path", _TEXT, "audio file, below the catalogue's folder", nullable=True),
        _column("picture_path", _TEXT, "piano-roll picture, below the catalogue's folder", nullable=True),
    ),
)

FEEDBACK = _schema(
    "feedback",
    (
        _column("listener", _TEXT, "pseudonym of who listened"),
        _column("take_id", _TEXT, "the take that was heard"),
        _column("event", _TEXT, "a member of the closed list FEEDBACK_EVENTS"),
        _column("other_take_id", _TEXT, "the take that it was compared with, where the event compares", nullable=True),
        _column(
            "value", pa.float64(), "how much the listener liked it, -1 to 1, or heard of it, 0 to 1", nullable=True
        ),
        _column("unix_s", pa.float64(), "when, seconds since 1970", unit="s"),
    ),
)

PAIRS = _schema(
    "pairs",
    (
        _column("request", _TEXT, "what both takes were asked to be, as JSON; without seed"),
        _column("vocabulary", _TEXT, "hash of the vocabulary"),
        _column("preferred_take", _TEXT, "take_id of the preferred one"),
        _column("rejected_take", _TEXT, "take_id of the other"),
        _column("preferred", pa.list_(pa.uint16()), "token ids of the preferred take, from Start to End"),
        _column("rejected", pa.list_(pa.uint16()), "token ids of the other"),
        _column("listeners", pa.int32(), "how many listeners it rests on"),
        _column("margin", pa.float64(), "share of them in favour less that against, or difference of mean ratings"),
        _column("split", _TEXT, "train, valid or test; pairs that share a take lie in one"),
    ),
)

SCHEMAS = {
    "works": WORKS,
    "clips": CLIPS,
    "refusals": REFUSALS,
    "tokens": TOKENS,
    "sequences": SEQUENCES,
    "blocks": BLOCKS,
    "takes": TAKES,
    "feedback": FEEDBACK,
    "pairs": PAIRS,
}


def to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of ``schema``.

    Raises:
        IntegrityError: a row lacks a column, has one too many, or holds nothing where a value must be.
    """
    rows = list(rows)
    names = set(schema.names)
    for row in rows:
        if set(row) != names:
            odd = sorted(set(row) ^ names)
            raise IntegrityError(f"a row of {_name(schema)} differs from its schema in {odd}")
    return checked(pa.Table.from_pylist(rows, schema=schema))


def checked(table: pa.Table) -> pa.Table:
    """Return ``table`` if it has a value wherever its schema asks for one.

    Raises:
        IntegrityError: it has not.
    """
    for field in table.schema:
        if not field.nullable and table.column(field.name).null_count:
            raise IntegrityError(f"column {field.name} of {_name(table.schema)} has rows without a value")
    return table


def _name(schema: pa.Schema) -> str:
    return str(schema.metadata[b"table"].decode())


# Columns with a value a note: a dictionary of those costs more time than it saves space, and onsets rise.
_NOTE_COLUMNS = frozenset(("onset_ticks", "duration_ticks", "pitch", "velocity", "program", "track"))
_RISING_COLUMNS = frozenset(("onset_ticks",))


def to_parquet(table: pa.Table) -> bytes:
    """A table as Parquet bytes (zstd): the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name not in _NOTE_COLUMNS],
        column_encoding={
            f"{name}.list.element": "DELTA_BINARY_PACKED" for name in table.column_names if name in _RISING_COLUMNS
        }
        or None,
    )
    return sink.getvalue()


def from_parquet(data: bytes, schema: pa.Schema, *, columns: list[str] | None = None) -> pa.Table:
    """A table from Parquet bytes, checked against the schema's name and version.

    Raises:
        IntegrityError: another table, or another version of it.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        found = file.schema_arrow.metadata or {}
        table = file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"not a readable Parquet table ({error})") from error
    for key in (b"table", b"version"):
        if found.get(key) != schema.metadata[key]:
            wanted, got = schema.metadata[key].decode(), found.get(key, b"none").decode()
            raise IntegrityError(f"expected {key.decode()} {wanted!r} and found {got!r}")
    return table
