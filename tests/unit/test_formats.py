"""Many files at once: which pieces and refusals come of which file."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutti.corpus.formats import Parsed, ParseOptions, is_known, max_bytes, parse, parse_many
from tutti.corpus.midi import read_midi, write_midi
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.note_tables import MAX_PIECES_OF_FILE
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import MAX_PIECES, ScoreBatch
from tutti.errors import DataError

OPTIONS = ParseOptions(tempo_without_mark_qpm=77.0)
ABC = b"X:1\nT:One\nM:4/4\nL:1/4\nK:C\nCDEF|\n\nX:2\nT:Two\nM:4/4\nL:1/4\nK:C\nGABc|\n"
END = b"\x00\xff\x2f\x00"
NOTE = b"\x00\x90\x3c\x64" + b"\x60\x80\x3c\x00"
TEMPO_0 = b"\x00\xff\x51\x03\x00\x00\x00"


def piece(pitch: int, *, title: str | None = None) -> Score:
    notes = Notes.of(onset_ticks=[0, 96], duration_ticks=[96, 96], pitch=[pitch, pitch + 1])
    return Score.of(notes, ticks_per_quarter=96, title=title)


def type_2(*tracks: bytes) -> bytes:
    chunks = b"".join(b"MTrk" + struct.pack(">I", len(track + END)) + track + END for track in tracks)
    return b"MThd" + struct.pack(">IHHH", 6, 2, len(tracks), 96) + chunks


def table(*scores: Score) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(ScoreBatch.of(scores).arrow_columns()), sink)
    return sink.getvalue()


def read(*files: tuple[str, bytes], options: ParseOptions = OPTIONS) -> Parsed:
    return parse_many(files, options=options, on_file=lambda _: None)


def test_pieces_come_in_the_order_of_their_files_whatever_their_format() -> None:
    parsed = read(
        ("a.parquet", table(piece(40, title="P1"), piece(41, title="P2"))),
        ("b.mid", write_midi(piece(50, title="M1"))),
        ("c.txt", b"words"),
        ("d.abc", ABC),
        ("e.MID", write_midi(piece(60, title="M2"))),
        ("f.mid", b""),
        ("g.mid", b"junk"),
    )
    assert parsed.file_of_piece.tolist() == [0, 0, 1, 3, 3, 4]
    assert parsed.batch.titles == ("P1", "P2", "M1", "One", "Two", "M2")
    assert [score.notes.pitch[0] for score in parsed.batch] == [40, 41, 50, 60, 67, 60]
    assert [score.tempo_qpm[0] for score in parsed.batch] == [120, 120, 120, 77, 77, 120]
    assert [(file, reason) for file, reason, _ in parsed.refusals] == [
        (2, "unknown_format"), (5, "empty"), (6, "unreadable"),
    ]  # fmt: skip


def test_each_file_is_told_before_it_is_touched() -> None:
    files = [("a.mid", write_midi(piece(60))), ("b.what", b"x"), ("c.mid", b"")]
    told: list[int] = []
    parse_many(files, options=OPTIONS, on_file=told.append)
    assert told == [0, 1, 2]

    def stop(number: int) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parse_many(files, options=OPTIONS, on_file=stop)


def test_no_files_are_no_pieces() -> None:
    parsed = read()
    assert (len(parsed.batch), len(parsed.file_of_piece), parsed.refusals) == (0, 0, ())


def test_each_track_of_a_type_2_file_is_a_piece() -> None:
    other = NOTE.replace(b"\x3c", b"\x40")
    parsed = read(("two.mid", type_2(NOTE, other)), ("one.mid", write_midi(piece(60))))
    assert parsed.file_of_piece.tolist() == [0, 0, 1]
    assert [score.notes.pitch.tolist() for score in parsed.batch] == [[60], [64], [60, 61]]
    with pytest.raises(DataError, match="holds 2 independent pieces"):
        read_midi(type_2(NOTE, other))
    assert read_midi(type_2(NOTE)).notes.pitch.tolist() == [60]


def test_a_piece_of_several_that_cannot_be_taken_is_refused_alone() -> None:
    parsed = read(("two.mid", type_2(NOTE, TEMPO_0 + NOTE, b"\x00\x3c\x64", NOTE)))
    assert parsed.file_of_piece.tolist() == [0, 0]
    assert sorted(reason for _, reason, _ in parsed.refusals) == ["bad_time", "unreadable"]


def test_an_empty_track_is_refused_only_where_no_other_holds_music() -> None:
    assert read(("two.mid", type_2(NOTE, b""))).refusals == ()
    assert [refusal[:2] for refusal in read(("two.mid", type_2(b"", b""))).refusals] == [
        (0, "no_notes"),
        (0, "no_notes"),
    ]


def test_limits_are_the_callers() -> None:
    hanging = ("a.mid", type_2(b"\x00\x90\x3c\x64" + b"\xff\x7f\xb0\x07\x00"))
    for quarters in (1.0, 2.5):
        options = ParseOptions(tempo_without_mark_qpm=77.0, hanging_note_quarters=quarters)
        assert read(hanging, options=options).batch.notes.duration_ticks.tolist() == [96 * quarters]
    options = ParseOptions(tempo_without_mark_qpm=77.0, max_notes=1)
    parsed = read(("a.mid", write_midi(piece(60))), ("b.mid", type_2(NOTE)), options=options)
    assert parsed.file_of_piece.tolist() == [1]
    assert parsed.refusals == ((0, "too_long", "2 notes are more than the limit of 1"),)


def test_a_million_notes_are_taken_and_no_more() -> None:
    def notes(count: int) -> bytes:
        return type_2(b"\x00\x90\x3c\x64" + b"\x01\x3c\x00\x01\x3c\x64" * (count - 1) + b"\x01\x3c\x00")

    parsed = read(("a.mid", notes(1_000_000)), ("b.mid", notes(1_000_001)))
    assert len(parsed.batch.notes) == 1_000_000
    assert parsed.refusals == ((1, "too_long", "1000001 notes are more than the limit of 1000000"),)


def test_more_tracks_and_pieces_than_can_be_told_apart_are_refused() -> None:
    whole = type_2(NOTE)
    parsed = read(("a.mid", whole[:14] + whole[14:] * 65_536))
    assert parsed.refusals[0][1:] == (
        "too_long",
        "65536 tracks are more than the limit of 65535, which a header can count",
    )

    sink = io.BytesIO()
    ones = pa.array([[1]] * MAX_PIECES_OF_FILE)
    pq.write_table(pa.table({"pitch": ones, "onset_s": ones, "duration_s": ones}), sink)
    many = [("a.parquet", sink.getvalue())] * (MAX_PIECES // MAX_PIECES_OF_FILE)
    parsed = read(*many, ("b.mid", write_midi(piece(60))))
    assert len(parsed.batch) == MAX_PIECES
    assert parsed.refusals[0][:2] == (len(many), "too_long")


def test_a_file_beyond_the_size_of_its_format_is_refused() -> None:
    assert read(("a.mid", bytes(MAX_FILE_BYTES + 1))).refusals[0][1] == "too_long"
    assert max_bytes("notes.parquet") > max_bytes("a.mid") == MAX_FILE_BYTES


def test_one_file_alone_is_read_or_raises() -> None:
    assert parse(ABC, name="d.abc", tempo_without_mark_qpm=77.0)[1].title == "Two"
    with pytest.raises(DataError, match=r"unknown_format: a\.doc ends in none of \.mid"):
        parse(b"words", name="a.doc", tempo_without_mark_qpm=77.0)
    assert is_known("deep/er/Piece.MXL")
    assert not is_known("mid")


def test_reading_midi_and_parquet_imports_nothing_heavy() -> None:
    script = (
        "import sys; from tutti.corpus.formats import *;"
        "files = [('a.mid', sys.stdin.buffer.read()), ('b.parquet', b'x')];"
        "parsed = parse_many(files, options=ParseOptions(tempo_without_mark_qpm=90.0), on_file=print);"
        "print(len(parsed.batch), {'torch', 'ray', 'mlflow', 'music21', 'pretty_midi'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=write_midi(piece(60)), capture_output=True, check=True, timeout=60
    )
    assert done.stdout.split(b"\n")[2] == b"1 set()"


def test_the_same_notes_come_of_all_files_at_once_and_of_each_alone() -> None:
    random = np.random.default_rng(5)
    scores = [
        Score.of(
            Notes.of(
                onset_ticks=random.integers(0, 500, 50), duration_ticks=random.integers(0, 99, 50),
                pitch=random.integers(50, 60, 50), track=random.integers(0, 3, 50),
            ),
            ticks_per_quarter=int(random.integers(1, 999)), tempos=[(int(random.integers(0, 9)), 88.0)],
        )
        for _ in range(40)
    ]  # fmt: skip
    data = [write_midi(score) for score in scores]
    together = read(*(("a.mid", one) for one in data)).batch
    assert all(one.same_music(read_midi(alone)) for one, alone in zip(together, data, strict=True))


def test_more_bars_than_a_piece_may_have_are_refused() -> None:
    notes = Notes.of(onset_ticks=[0, 90_000 * 24], duration_ticks=[1, 1], pitch=[60, 60])
    few = Score.of(notes, ticks_per_quarter=24)
    many = Score.of(notes, ticks_per_quarter=24, meters=[(0, 1, 128)])
    files = [(f"{number}.mid", write_midi(score)) for number, score in enumerate((few, many))]
    parsed = parse_many(files, options=ParseOptions(tempo_without_mark_qpm=80.0), on_file=lambda _: None)
    assert parsed.file_of_piece.tolist() == [0]
    assert [refusal[:2] for refusal in parsed.refusals] == [(1, "bad_time")]
    assert "bars are more than the limit of 200000" in parsed.refusals[0][2]


BOOK = """%abc-2.1
X:1
T:Reel
M:4/4
L:1/4
K:D
DFAd|dAFD|

X:2
T:Odd
M:x/y
K:D
DFAd|

X:3
T:Empty
K:D

X:4
T:Grüße
M:3/4
L:1/4
K:G
GBd|
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_bad_tune_costs_itself_and_not_its_book(encoding: str) -> None:
    told: list[int] = []
    files = [("book.abc", BOOK.encode(encoding)), ("one.abc", b"X:7\nT:Alone\nL:1/4\nK:C\nCDE|\n")]
    parsed = parse_many(files, options=ParseOptions(tempo_without_mark_qpm=80.0), on_file=told.append)
    assert [score.title for score in parsed.batch] == ["Reel", "Grüße", "Alone"]
    assert parsed.file_of_piece.tolist() == [0, 0, 1]
    assert [refusal[:2] for refusal in parsed.refusals] == [(0, "unreadable"), (0, "no_notes")]
    # A book of a thousand tunes has as long for each as other files have for all.
    assert told == [0, 0, 0, 0, 0, 1, 1]
