"""Diversity: sets that differ, sets that repeat themselves, and sets of nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics.diversity import Diversity, distances, diversity, effective_number

NGRAM = 3


def tune(seed: int, *, notes: int = 60) -> Score:
    random = np.random.default_rng(seed)
    gaps = random.choice([12, 24, 24, 36, 48], notes)
    pitch = 60 + np.cumsum(random.choice([-5, -4, -2, -1, 1, 2, 3, 4, 7], notes)) % 20
    return Score.of(
        Notes.of(onset_ticks=np.cumsum(gaps) - gaps, duration_ticks=gaps, pitch=pitch), ticks_per_quarter=24
    )


def changed(score: Score) -> Score:
    """In another key, in note values twice as long, on another instrument."""
    notes = score.notes
    made = replace(
        notes,
        onset_ticks=notes.onset_ticks * np.int32(2),
        duration_ticks=notes.duration_ticks * np.int32(2),
        pitch=notes.pitch + np.uint8(5),
        program=notes.program + np.uint8(40),
    )
    return replace(score, notes=made)


def of(*pieces: Score) -> Diversity:
    return diversity(ScoreBatch.of(list(pieces)), ngram=NGRAM)


def test_tunes_that_differ_are_as_many_as_they_are() -> None:
    found = of(*(tune(seed) for seed in range(20)))
    assert found.pieces == 20
    assert found.mean_distance > 0.95
    assert found.effective_pieces > 18
    assert found.distinct_ngrams > 0.3
    assert (found.near_duplicates, found.same_melodies) == (0, 0)


def test_a_set_that_repeats_itself_is_seen_in_every_figure() -> None:
    once = of(*(tune(seed) for seed in range(5)))
    tenfold = of(*[change(tune(seed)) for seed in range(5) for change in (lambda score: score, changed) * 5])
    assert tenfold.pieces == 50
    assert tenfold.effective_pieces == pytest.approx(once.effective_pieces, rel=0.01)
    assert tenfold.nearest_distance == 0
    assert tenfold.mean_distance == pytest.approx(once.mean_distance * 40 / 49)
    assert tenfold.distinct_ngrams == pytest.approx(once.distinct_ngrams / 10)
    assert tenfold.near_duplicates == 1
    # Twice as long is another melody to the note.
    assert tenfold.same_melodies == 1
    assert once.nearest_distance > 0.9


def test_a_near_duplicate_is_not_the_same_melody() -> None:
    notes = tune(0, notes=200).notes
    pitch = notes.pitch.copy()
    pitch[100] += 1
    found = of(tune(0, notes=200), replace(tune(0, notes=200), notes=replace(notes, pitch=pitch)), tune(1), tune(2))
    assert (found.near_duplicates, found.same_melodies) == (0.5, 0)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=12))
@settings(max_examples=30)
def test_distances_are_a_metric_of_sets(seeds: list[int]) -> None:
    found = distances(ScoreBatch.of([tune(seed, notes=12 + seed) for seed in seeds]), ngram=NGRAM)
    np.testing.assert_array_equal(found, found.T)
    assert found.min() >= 0
    assert found.max() <= 1
    for one, first in enumerate(seeds):
        for other, second in enumerate(seeds):
            assert (found[one, other] == 0) == (first == second)
            assert np.all(found[one] <= found[one, other] + found[other] + 1e-12)


@given(st.integers(1, 8), st.integers(1, 5))
def test_the_effective_number_counts_kinds_however_often_they_come(kinds: int, times: int) -> None:
    alike = np.kron(np.eye(kinds), np.ones((times, times)))
    assert effective_number(alike) == pytest.approx(kinds)


def test_the_order_of_pieces_changes_nothing() -> None:
    straight, reverse = (
        of(*(tune(seed % 4, notes=20 + seed % 3) for seed in order)) for order in (range(9), range(8, -1, -1))
    )
    assert vars_of(straight) == pytest.approx(vars_of(reverse))


def vars_of(found: Diversity) -> list[float]:
    return [getattr(found, name) for name in Diversity.__slots__]


def test_few_pieces_and_pieces_of_few_notes() -> None:
    none = of()
    assert (none.pieces, none.effective_pieces) == (0, 0)
    assert math.isnan(none.mean_distance)
    assert math.isnan(none.distinct_ngrams)
    assert math.isnan(none.near_duplicates)
    one = of(tune(0))
    assert (one.pieces, one.effective_pieces, one.near_duplicates) == (1, pytest.approx(1), 0)
    assert math.isnan(one.nearest_distance)
    short = Score.of(Notes.of(onset_ticks=[0, 24], duration_ticks=24, pitch=[60, 62]), ticks_per_quarter=24)
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    found = distances(ScoreBatch.of([short, nothing, tune(0)]), ngram=NGRAM)
    assert found.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
