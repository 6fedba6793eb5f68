"""What is computed of many pieces at once is what is computed of each."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch, note_order, reduced, work_id


@st.composite
def scores(draw: st.DrawFn) -> Score:
    count = draw(st.integers(0, 12))

    def column(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    notes = Notes.of(
        onset_ticks=column(0, 40),
        duration_ticks=column(1, 30),
        pitch=column(0, 127),
        velocity=column(1, 127),
        program=column(0, 128),
        track=column(0, 3),
    )
    return Score.of(
        notes,
        ticks_per_quarter=draw(st.sampled_from([5, 24, 480, 960])),
        tempos=draw(st.lists(st.tuples(st.integers(0, 60), st.floats(20, 300)), max_size=3)),
        meters=draw(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9), st.sampled_from([4, 8])), max_size=3)),
        title=draw(st.sampled_from([None, "Élégie"])),
    )


batches = st.lists(scores(), max_size=5)


def same(left: Score, right: Score) -> bool:
    return left.same_music(right) and (left.title, left.composer) == (right.title, right.composer)


@given(batches)
def test_a_batch_holds_its_scores(held: list[Score]) -> None:
    batch = ScoreBatch.of(held)
    assert len(batch) == len(held)
    assert all(same(*pair) for pair in zip(batch, held, strict=True))
    assert batch.end_ticks.tolist() == [score.end_ticks for score in held]
    assert batch.length_s == pytest.approx([score.length_s for score in held])


@given(batches)
def test_a_table_of_works_gives_the_batch_back(held: list[Score]) -> None:
    columns = ScoreBatch.of(held).arrow_columns()
    table = pa.concat_tables([pa.table(columns).slice(0, 1), pa.table(columns).slice(1)])
    assert all(same(*pair) for pair in zip(ScoreBatch.from_table(table), held, strict=True))


@given(batches, st.randoms(use_true_random=False))
def test_taking_and_joining_are_those_of_lists(held: list[Score], random: object) -> None:
    batch = ScoreBatch.of(held)
    index = np.array(random.choices(range(len(held)), k=4) if held else [], dtype=np.int64)  # type: ignore[attr-defined]
    assert all(same(*pair) for pair in zip(batch.take(index), [held[i] for i in index], strict=True))
    mask = np.arange(len(held)) % 2 == 0
    assert all(same(*pair) for pair in zip(batch.take(mask), held[::2], strict=True))
    joined = ScoreBatch.joined([batch, batch.take(index), ScoreBatch.of([])])
    assert all(same(*pair) for pair in zip(joined, [*held, *(held[i] for i in index)], strict=True))


@given(batches)
def test_ids_do_not_depend_on_the_company(held: list[Score]) -> None:
    assert ScoreBatch.of(held).work_ids() == [work_id(score) for score in held]


@given(scores())
def test_ids_are_of_the_music_alone(score: Score) -> None:
    finer = score.with_resolution(480).with_resolution(960)
    assert work_id(finer) == work_id(score.with_resolution(480))
    if len(score.notes):
        moved = Notes(**{field.name: getattr(score.notes, field.name) for field in fields(Notes)})
        moved = Notes(moved.onset_ticks + 1, *[getattr(moved, field.name) for field in fields(Notes)[1:]])
        assert work_id(Score.of(moved, ticks_per_quarter=score.ticks_per_quarter)) != work_id(
            Score.of(score.notes, ticks_per_quarter=score.ticks_per_quarter)
        )


@given(batches)
def test_the_order_of_notes_is_the_lexical_one(held: list[Score]) -> None:
    batch = ScoreBatch.of(held)
    assert note_order(batch.piece_of_note, batch.notes.onset_ticks, batch.notes) is None or len(
        np.unique(
            np.stack([batch.piece_of_note, batch.notes.onset_ticks, batch.notes.program, batch.notes.pitch]), axis=1
        ).T
    ) < len(batch.notes)
    shuffled = np.random.default_rng(0).permutation(len(batch.notes))
    piece, notes = batch.piece_of_note[shuffled], batch.notes.take(shuffled)
    order = note_order(piece, notes.onset_ticks, notes)
    ordered = notes if order is None else notes.take(order)
    for field in fields(Notes):
        assert np.array_equal(getattr(ordered, field.name), getattr(batch.notes, field.name))


def test_a_piece_without_rows_is_reduced_to_what_is_said() -> None:
    starts = np.array([0, 2, 2, 3])
    assert reduced(np.maximum, np.array([3, 1, 7]), starts, empty=-1).tolist() == [3, -1, 7]
    assert reduced(np.maximum, np.array([], dtype=np.int64), np.array([0, 0])).tolist() == [0]
