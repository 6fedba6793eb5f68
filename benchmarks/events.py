"""Parsing and tokenising beside pretty_midi, symusic and MidiTok: ``python -m benchmarks.events``.

MidiTok is its REMI with programs in one stream, tempos and time signatures, everything else as its authors set it, and
without training (no byte-pair encoding), as Tutti's events are. Its grid is coarser: 8 positions a quarter and 4 for
longer notes, to 24 here. Both encode scores that are parsed already; both count every token that they write. Beside
that, Tutti encodes as `tutti encode` does: from rows of the works table, with controls that describe each work, to rows
of the tokens table.
"""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pyarrow as pa
import symusic
from miditok import REMI, TokenizerConfig
from symusic.core import ScoreTick

from benchmarks.harness import Bench, run
from tutti.corpus.midi import from_symusic, read_midi, write_midi
from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.scores import from_music21
from tutti.errors import DataError
from tutti.features.descriptors import describe
from tutti.features.encoding import encode_works
from tutti.features.events import decode, encode

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
FILES_PER_COLLECTION = {"lieder": 30, "mutopia": 20, "groove": 20, "freedoom": 10}
CHORALES = 40
CHORALE_TEMPO_QPM = 84.0


def midi_files() -> tuple[str, list[bytes]]:
    """What is measured, in words and bytes: real files where they lie beside this checkout, else Bach chorales."""
    found: list[bytes] = []
    for collection, wanted in FILES_PER_COLLECTION.items():
        paths = sorted((CORPORA / collection).rglob("*.mid"))
        found.extend(paths[index].read_bytes() for index in np.linspace(0, len(paths) - 1, wanted).astype(int) if paths)
    if found:
        return "lieder, Mutopia, Groove MIDI and Freedoom files", found
    from music21 import corpus

    names = corpus.getComposer("bach")[:CHORALES]
    scores = [from_music21(corpus.parse(name), tempo_without_mark_qpm=CHORALE_TEMPO_QPM) for name in names]
    return "Bach chorales of music21", [write_midi(score) for score in scores]


def readable(files: list[bytes]) -> list[bytes]:
    """The files that every contender reads."""
    good = []
    for data in files:
        try:
            read_midi(data)
            pretty_midi.PrettyMIDI(io.BytesIO(data))
        except (DataError, ValueError, OSError, KeyError, IndexError):
            continue
        good.append(data)
    return good


def works_of(scores: list[Score]) -> pa.Table:
    """What encoding reads of the works table."""
    batch = ScoreBatch.of(scores)
    return pa.table(
        {
            "work_id": batch.work_ids(),
            "collection": ["benchmark"] * len(batch),
            "split": ["train"] * len(batch),
            **batch.arrow_columns(),
            **describe(batch),
        }
    )


def measure(bench: Bench) -> None:
    """Parse, encode and decode the same files by all contenders."""
    # pretty_midi warns of every file whose tempo changes are not on its first track.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="pretty_midi")
    what, found = midi_files()
    files = readable(found)
    parsed = [ScoreTick.from_midi(data) for data in files]
    scores = [read_midi(data) for data in files]
    notes = sum(len(score.notes) for score in scores)
    bench.note("every contender is one thread; seconds are those that it had a core for")
    bench.note(f"{len(files)} of {len(found)} files that all contenders read ({what}): {notes:,} notes")
    bench.race(
        "parse",
        {
            "Tutti (to columns)": lambda: [read_midi(data) for data in files],
            "symusic": lambda: [ScoreTick.from_midi(data) for data in files],
            "pretty_midi": lambda: [pretty_midi.PrettyMIDI(io.BytesIO(data)) for data in files],
        },
        amount=notes,
        unit="notes",
        clock=time.process_time,
    )
    remi = REMI(
        TokenizerConfig(
            use_programs=True, one_token_stream_for_programs=True, use_tempos=True, use_time_signatures=True
        )
    )
    tokenise(bench, scores=scores, parsed=parsed, remi=remi, notes=notes)


def tokenise(bench: Bench, *, scores: list[Score], parsed: list[Any], remi: REMI, notes: int) -> None:
    """Race the two tokenizers both ways and count what they wrote."""
    ours = [encode(score) for score in scores]
    theirs = [remi.encode(score.copy()) for score in parsed]
    bench.count(
        "tokens per note",
        {
            "Tutti events": sum(len(tokens) for tokens in ours) / notes,
            "MidiTok REMI": sum(len(tokens.ids) for tokens in theirs) / notes,
        },
        unit="tokens",
    )
    works = works_of(scores)
    table = "Tutti events, works table to tokens table"
    bench.race(
        "encode",
        {
            table: lambda: encode_works(works, collections=["benchmark"]),
            "Tutti events, a score at a time": lambda: [encode(score) for score in scores],
            "Tutti events, from symusic": lambda: [encode(from_symusic(score)) for score in parsed],
            "MidiTok REMI": lambda: [remi.encode(score.copy()) for score in parsed],
        },
        amount=notes,
        unit="notes",
        clock=time.process_time,
    )
    bench.name("encode_notes_s_core", bench.figures["encode"][table].median)
    bench.race(
        "decode",
        {
            "Tutti events": lambda: [decode(tokens) for tokens in ours],
            "MidiTok REMI": lambda: [remi.decode(tokens) for tokens in theirs],
        },
        amount=notes,
        unit="notes",
        clock=time.process_time,
    )
    bench.note(f"MidiTok knows {len(remi)} tokens; symusic {symusic.__version__}")


if __name__ == "__main__":
    run("events", measure)
