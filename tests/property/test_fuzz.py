"""Damaged files: every one becomes pieces or a refusal for a listed reason, and no other exception leaves a reader."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.mutants import MUTATORS, File, mutants
from tutti.corpus.formats import ParseOptions, parse_many
from tutti.corpus.midi import write_midi
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.untrusted import parse_untrusted
from tutti.tables import REFUSAL_REASONS

OPTIONS = ParseOptions(tempo_without_mark_qpm=100.0)
FILES_PER_CALL = 50
DIED = "the parser died"

ABC = b"X:1\nT:Air\nM:3/4\nL:1/8\nQ:1/4=96\nK:G\nD2|G2 B2 (3ABc|d4 {e}d2|[GB]2 c3 d|z2 G4|]\n"
MUSICXML = b"""<?xml version="1.0" encoding="UTF-8"?>
<score-partwise version="4.0"><part-list><score-part id="P1"><part-name>Voice</part-name></score-part></part-list>
<part id="P1"><measure number="1"><attributes><divisions>4</divisions><key><fifths>1</fifths></key><time>
<beats>2</beats><beat-type>4</beat-type></time><clef><sign>G</sign><line>2</line></clef></attributes>
<note><pitch><step>F</step><alter>1</alter><octave>4</octave></pitch><duration>4</duration><tie type="start"/></note>
<note><pitch><step>F</step><octave>4</octave></pitch><duration>2</duration></note>
<note><rest/><duration>2</duration></note></measure>
<measure number="2"><note><pitch><step>G</step><octave>5</octave></pitch><duration>8</duration></note></measure>
</part></score-partwise>
"""
KERN = b"**kern\n*M4/4\n*k[]\n=1\n4c\n4d 4f\n8e\n8r\n4g\n=2\n1cc\n==\n*-\n"


def score(seed: int) -> Score:
    """Three parts with tempo and meter changes, and pauses long enough for deltas of three bytes."""
    random = np.random.default_rng(seed)
    count = 60
    notes = Notes.of(
        onset_ticks=np.sort(random.integers(0, 40_000, count)),
        duration_ticks=random.integers(1, 2_000, count),
        pitch=random.integers(30, 90, count),
        velocity=random.integers(1, 128, count),
        program=np.array([0, 40, DRUM_PROGRAM])[np.arange(count) % 3],
        track=np.arange(count) % 3,
    )
    return Score.of(
        notes, ticks_per_quarter=480, tempos=[(0, 90), (5_000, 133)], meters=[(0, 3, 4), (2_880, 6, 8)], title="Élégie"
    )


def midi_seeds() -> list[File]:
    written = [write_midi(score(seed)) for seed in range(6)]
    type_2 = [data[:9] + b"\x02" + data[10:] for data in written[:2]]
    smpte = [data[:12] + b"\xe7\x28" + data[14:] for data in written[2:4]]
    return [("piece.mid", data) for data in (*written, *type_2, *smpte)]


def parquet_seeds() -> list[File]:
    batch = ScoreBatch.of([score(seed) for seed in range(4)])
    notes = pa.table(
        {
            "piece_id": [f"piece {piece}" for piece in batch.piece_of_note.tolist()],
            "onset_s": batch.notes.onset_ticks / 960,
            "duration_s": batch.notes.duration_ticks / 960,
            "pitch": batch.notes.pitch,
            "track": ["left" if track else "right" for track in batch.notes.track.tolist()],
        }
    )
    files = []
    for table in (pa.table(batch.arrow_columns()), notes):
        for compression in ("none", "snappy", "zstd"):
            sink = io.BytesIO()
            pq.write_table(table, sink, compression=compression, row_group_size=table.num_rows // 2)
            files.append(("notes.parquet", sink.getvalue()))
    return files


def written_seeds() -> list[File]:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml", b'<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'
        )
        archive.writestr("a.xml", MUSICXML)
    return [("air.abc", ABC), ("air.musicxml", MUSICXML), ("air.krn", KERN), ("air.mxl", packed.getvalue())]


@pytest.mark.parametrize(
    ("seeds", "count"),
    [(midi_seeds, 300), (parquet_seeds, 140), (written_seeds, 60)],
    ids=["midi", "parquet", "scores"],
)
def test_every_damaged_file_is_read_or_refused(seeds: Callable[[], list[File]], count: int) -> None:
    whole = seeds()
    sound = parse_many(whole, options=OPTIONS, on_file=lambda _: None)
    assert set(sound.file_of_piece.tolist()) == set(range(len(whole)))
    assert not sound.refusals

    files = list(mutants(whole, count=count, random=np.random.default_rng(count)))
    read = refused = 0
    for start in range(0, count, FILES_PER_CALL):
        some = files[start : start + FILES_PER_CALL]
        parsed = parse_untrusted(some, options=OPTIONS)
        taken = set(parsed.file_of_piece.tolist())
        assert taken | {file for file, _, _ in parsed.refusals} == set(range(len(some)))
        for _, reason, detail in parsed.refusals:
            assert reason in REFUSAL_REASONS
            assert reason != "parser_crashed" or DIED in detail, f"an exception left a reader: {detail}"
        _check(parsed.batch)
        read += len(taken)
        refused += len(some) - len(taken)
    assert read + refused == count
    assert min(read, refused) > count // 50, "the damage is too light or too heavy to test anything"


@pytest.mark.parametrize("name", MUTATORS)
def test_each_kind_of_damage_changes_files(name: str) -> None:
    random = np.random.default_rng(0)
    for _, data in (*midi_seeds()[:2], ("air.abc", ABC)):
        assert any(MUTATORS[name](data, random) != data for _ in range(10))


def _check(batch: ScoreBatch) -> None:
    """What every piece may rely on."""
    notes = batch.notes
    assert np.all(np.diff(batch.note_starts) > 0)
    assert notes.onset_ticks.min(initial=0) >= 0
    assert notes.duration_ticks.min(initial=1) >= 1
    assert notes.velocity.min(initial=1) >= 1
    assert max(notes.pitch.max(initial=0), notes.velocity.max(initial=0)) <= 127
    assert notes.program.max(initial=0) <= DRUM_PROGRAM
    assert batch.ticks_per_quarter.min(initial=1) >= 1
    assert np.all(np.isfinite(batch.length_s))
    assert np.all(batch.length_s > 0)
    assert not batch.tempo_ticks[batch.tempo_starts[:-1]].any()
    assert not batch.meter_ticks[batch.meter_starts[:-1]].any()
    assert len(batch.work_ids()) == len(batch)
