"""Parquet tables of notes from other corpora: what their columns may be called and what becomes of their rows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tutti.corpus.found_pieces import FoundPieces
from tutti.corpus.note_tables import read_pieces
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import DataError

Columns = dict[str, Any]
ONE_NOTE: Columns = {
    "piece_id": ["a"],
    "onset_ticks": [0],
    "duration_ticks": [96],
    "ticks_per_quarter": [96],
    "pitch": [60],
}


def walk(seed: int) -> Score:
    """A melody in two parts, with a tempo and a meter of its own."""
    random = np.random.default_rng(seed)
    notes = Notes.of(
        onset_ticks=np.arange(20) * 24, duration_ticks=24, pitch=random.integers(40, 80, 20), track=np.arange(20) % 2
    )
    return Score.of(
        notes,
        ticks_per_quarter=24 + seed,
        tempos=[(0, 90.5 + seed), (48, 60)],
        meters=[(0, 3, 4)],
        title=f"Walk {seed}",
    )


def parquet(columns: Columns, *, row_group_size: int | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=row_group_size)
    return sink.getvalue()


def read(columns: Columns, *, row_group_size: int | None = None) -> list[Score]:
    batch, _, refused = read_pieces(parquet(columns, row_group_size=row_group_size)).settled(max_notes=1000)
    assert not refused
    return list(batch)


def refusals(columns: Columns) -> dict[int, tuple[str, str]]:
    return read_pieces(parquet(columns)).settled(max_notes=1000)[2]


def sounds(score: Score) -> list[tuple[int, ...]]:
    """Onset, duration, pitch, velocity and program of each note."""
    notes = score.notes
    columns = (notes.onset_ticks, notes.duration_ticks, notes.pitch, notes.velocity, notes.program)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_one_row_a_note_with_only_what_must_be() -> None:
    (score,) = read(ONE_NOTE)
    assert sounds(score) == [(0, 96, 60, 64, 0)]
    assert (score.ticks_per_quarter, score.tempo_qpm.tolist(), score.title) == (96, [120.0], None)
    assert (score.meter_numerator.tolist(), score.meter_denominator.tolist()) == ([4], [4])


def test_rows_of_a_piece_may_lie_anywhere() -> None:
    columns = {
        "work": ["b", "a", "b", "a"],
        "START_TICK": [96, 0, 0, 50],
        "end_tick": [100, 10, 5, 60],
        "tpq": [48, 96, 48, 96],
        "Pitch": [60, 61, 62, 63],
        "title": ["B", None, "B", "late"],
    }
    for row_group_size in (None, 1, 3):
        first, second = read(columns, row_group_size=row_group_size)
        assert (first.title, first.ticks_per_quarter) == ("B", 48)
        assert [sound[:3] for sound in sounds(first)] == [(0, 5, 62), (96, 4, 60)]
        assert (second.title, [sound[:3] for sound in sounds(second)]) == (None, [(0, 10, 61), (50, 10, 63)])


@pytest.mark.parametrize(
    ("times", "ticks_per_quarter", "onset", "duration"),
    [
        ({"onset_quarters": [1.5], "duration_quarters": [0.25]}, 480, 720, 120),
        ({"onset_beat": [np.float32(1 / 3)], "duration_beat": [np.float32(1 / 3)]}, 480, 160, 160),
        ({"onset_quarter": [1 / 7], "end_quarter": [2 / 7]}, 10_080, 1440, 1440),
        ({"onset_beats": [-1.0], "duration_beats": [1.0]}, 480, 1440, 480),
        ({"onset_s": [0.5], "duration_s": [0.25]}, 480, 480, 240),
        ({"start_time": [0.5], "end_time": [0.75]}, 480, 480, 240),
        ({"start_s": [0], "offset_s": [2]}, 480, 0, 1920),
        # Ticks without a resolution say nothing; quarters before seconds.
        ({"onset_ticks": [7], "duration_ticks": [7], "onset_s": [1.0], "duration_s": [1.0]}, 480, 960, 960),
        ({"onset_quarters": [1], "duration_quarters": [1], "onset_s": [9.0], "duration_s": [9.0]}, 480, 480, 480),
    ],
)
def test_time_in_each_unit(times: Columns, ticks_per_quarter: int, onset: int, duration: int) -> None:
    (score,) = read({"piece": [7], "pitch": [60], **times})
    assert score.ticks_per_quarter == ticks_per_quarter
    assert sounds(score)[0][:2] == (onset, duration)


def test_drums_programs_tracks_and_velocities() -> None:
    columns = {
        **{name: values * 3 for name, values in ONE_NOTE.items()},
        "program": [5, 5, 7],
        "is_drum": [False, True, False],
        "velocity": [1, 100, 0],
        "instrument": ["flute", "kit", "flute"],
    }
    (score,) = read(columns)
    notes = score.notes
    found = zip(notes.program.tolist(), notes.velocity.tolist(), notes.track.tolist(), strict=True)
    assert list(found) == [(5, 1, 0), (7, 1, 0), (DRUM_PROGRAM, 100, 1)]


def test_dictionaries_large_lists_and_half_floats_are_read() -> None:
    columns = {
        "pitch": pa.array([[60, 62]], pa.large_list(pa.int64())),
        "onset_quarters": pa.array([[0.0, 1.0]], pa.list_(pa.float16())),
        "duration_quarters": pa.array([[1.0, 1.0]], pa.list_(pa.float32(), 2)),
        "title": pa.array(["Air"]).dictionary_encode(),
    }
    (score,) = read(columns)
    assert (score.title, [sound[:3] for sound in sounds(score)]) == ("Air", [(0, 480, 60), (480, 480, 62)])


def test_a_works_table_gives_its_works() -> None:
    batch = ScoreBatch.of([walk(seed) for seed in range(9)])
    found = read_pieces(parquet({"work_id": batch.work_ids(), **batch.arrow_columns()}, row_group_size=4))
    again, _, refused = found.settled(max_notes=1000)
    assert not refused
    assert again.work_ids() == batch.work_ids()
    assert again.titles == batch.titles
    assert all(one.same_music(other) for one, other in zip(again, batch, strict=True))


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"pitch": [60]}, r"without time \(onset_ticks.* and piece_id: it has \['pitch'\]"),
        ({"piece_id": ["a"], "onset_s": [0.0], "duration_s": [1.0]}, "without pitch"),
        ({"piece_id": ["a"], "pitch": [60], "onset_s": [0.0]}, "without time"),
        ({"piece_id": ["a"], "pitch": [60], "onset_ticks": [0], "duration_ticks": [1]}, "without time"),
        ({"pitch": [60], "onset_s": [0.0], "duration_s": [1.0]}, "without piece_id"),
        ({**ONE_NOTE, "velocity": ["loud"]}, "column of string stands where numbers"),
    ],
)
def test_a_table_without_what_it_needs_says_what(columns: Columns, detail: str) -> None:
    with pytest.raises(DataError, match=f"unreadable: .*{detail}"):
        read_pieces(parquet(columns))


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"pitch": [60, 128, 60]}, "unreadable", "pitch 128"),
        ({"pitch": [60, None, 60]}, "unreadable", "pitch -1"),
        ({"velocity": [1, 300, 1]}, "unreadable", "velocity 300"),
        ({"program": [1, 129, 1]}, "unreadable", "program 129"),
        ({"track": [1, 2**16, 1]}, "unreadable", "track 65536"),
        ({"onset_ticks": [0, -1, 0]}, "unreadable", "begins before the piece"),
        ({"onset_ticks": [0, None, 0]}, "unreadable", "no finite number"),
        ({"onset_ticks": [0.0, np.inf, 0.0]}, "unreadable", "no finite number"),
        ({"duration_ticks": [1, -1, 1]}, "unreadable", "ends before it begins"),
        ({"duration_ticks": [1, 2**62, 1]}, "too_long", "past the limit"),
        ({"duration_ticks": [1, 96 * 100_001, 1]}, "too_long", "100001 quarters"),
        ({"ticks_per_quarter": [96, 0, 96]}, "bad_time", "0 ticks per quarter"),
        ({"ticks_per_quarter": [96, None, 96]}, "bad_time", "-1 ticks per quarter"),
    ],
)
def test_a_broken_piece_is_refused_alone(change: Columns, reason: str, detail: str) -> None:
    columns = {**{name: values * 3 for name, values in ONE_NOTE.items()}, "piece_id": ["a", "b", "c"]}
    found = refusals({**columns, **change})
    assert list(found) == [1]
    assert found[1][0] == reason
    assert detail in found[1][1]


def test_two_resolutions_in_one_piece_are_refused() -> None:
    columns = {**{name: values * 2 for name, values in ONE_NOTE.items()}, "ticks_per_quarter": [96, 48]}
    assert refusals(columns) == {0: ("bad_time", "its notes have more than one resolution")}


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"pitch": [[60], [60, 61]]}, "unreadable", "not one onset for each pitch"),
        ({"pitch": [[60], None]}, "unreadable", "for each pitch"),
        ({"velocity": [[1], []]}, "unreadable", "not one velocity for each pitch"),
        ({"pitch": [[60], []], "onset_s": [[0.0], []], "duration_s": [[1.0], []]}, "no_notes", "no note"),
        ({"tempo_ticks": [[0], [0]], "tempo_qpm": [[90.0], [0.0]]}, "bad_time", "tempo of 0"),
        ({"tempo_ticks": [[0], [0, 5]], "tempo_qpm": [[90.0], [90.0]]}, "bad_time", "tempo begins at tick -1"),
        (
            {"meter_ticks": [[0], [0]], "meter_numerator": [[3], [0]], "meter_denominator": [[4], [4]]},
            "bad_time",
            "meter of 0/4",
        ),
    ],
)
def test_a_broken_row_of_lists_is_refused_alone(change: Columns, reason: str, detail: str) -> None:
    columns = {"pitch": [[60], [60]], "onset_s": [[0.0], [0.0]], "duration_s": [[1.0], [1.0]]}
    found = refusals({**columns, **change})
    assert list(found) == [1]
    assert found[1][0] == reason
    assert detail in found[1][1]


def test_a_table_without_rows_holds_no_notes() -> None:
    for columns in (ONE_NOTE, {name: [values] for name, values in ONE_NOTE.items()}):
        with pytest.raises(DataError, match="no_notes"):
            read_pieces(parquet({name: pa.array(values)[:0] for name, values in columns.items()}))


def test_what_is_no_parquet_is_refused() -> None:
    whole = parquet(ONE_NOTE)
    for data in (whole[:-1], whole[: len(whole) // 2], whole[4:], b"PAR1" * 9):
        with pytest.raises(DataError, match="unreadable"):
            read_pieces(data)


def test_what_unpacks_to_too_much_is_refused_before_it_is() -> None:
    many = pa.array(np.zeros(10_000_001, dtype=np.uint8))
    with pytest.raises(DataError, match="too_long: more than the limit of 10000000 notes"):
        read_pieces(parquet({"piece_id": many, "pitch": many, "onset_s": many, "duration_s": many}))


def test_found_pieces_of_several_readers_keep_their_places() -> None:
    parts = [FoundPieces.of([walk(1)]), read_pieces(parquet({**ONE_NOTE, "pitch": [200]})), FoundPieces.of([walk(2)])]
    batch, kept, refused = FoundPieces.joined(parts).settled(max_notes=1000)
    assert (kept.tolist(), list(refused)) == ([0, 2], [1])
    assert [score.title for score in batch] == ["Walk 1", "Walk 2"]
