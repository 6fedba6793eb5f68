"""Two sets of pieces: features worked out by hand, and distances, divergence and overlap that are what they must be."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from tests.drawn import scores
from tests.music import walk
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics import set_distance, set_features
from tutti.metrics.set_distance import SCHEMA, compare, compare_features

SCALARS = ("pitch count", "pitch count per bar", "note count", "note count per bar", "pitch range", "pitch interval",
           "inter-onset interval")  # fmt: skip


def columns(found: pa.Table) -> dict[str, dict[str, float]]:
    return {row["feature"]: row for row in found.to_pylist()}


def test_features_worked_out_by_hand() -> None:
    # Part 0: C4 and E4 (quarters), then G4 (half), C5 (quarter); part 1: C3 for four quarters, at 60 a minute.
    notes = Notes.of(
        onset_ticks=np.array([0, 0, 24, 72, 0]) + 48,
        duration_ticks=[24, 24, 48, 24, 96],
        pitch=[60, 64, 67, 72, 48],
        track=[0, 0, 0, 0, 1],
    )
    score = Score.of(notes, ticks_per_quarter=24, tempos=[(0, 60.0)], meters=[(0, 2, 4)])
    found = {name: rows[0] for name, rows in set_features.describe(ScoreBatch.of([score])).items()}
    assert found["pitch count"] == 5
    # Bars 1 and 2 begin C3, C4, E4, G4, and C5; bar 0 is silent.
    assert found["pitch count per bar"] == pytest.approx(5 / 3)
    assert (found["note count"], found["note count per bar"]) == (5, pytest.approx(5 / 3))
    assert found["pitch range"] == 24
    # The line of part 0 is E4, G4, C5.
    assert found["pitch interval"] == 4
    # Moments at 2, 3 and 5 seconds.
    assert found["inter-onset interval"] == 1.5
    assert found["pitch class histogram"][[0, 4, 7]].tolist() == pytest.approx([6 / 9, 1 / 9, 2 / 9])
    transitions = np.zeros((12, 12))
    transitions[4, 7] = transitions[7, 0] = 0.5
    assert found["pitch class transitions"].tolist() == transitions.tolist()
    assert found["note length histogram"][:3].tolist() == [0.2, 0.2, 0.6]
    lengths = np.zeros((12, 12))
    lengths[2, 1] = lengths[1, 2] = 0.5
    assert found["note length transitions"].tolist() == lengths.tolist()


@given(st.lists(scores(), min_size=1, max_size=4))
@settings(max_examples=50)
def test_features_of_a_batch_are_those_of_each_piece_and_shares_sum_to_one(drawn: list[Score]) -> None:
    together = set_features.describe(ScoreBatch.of(drawn))
    for number, score in enumerate(drawn):
        for name, rows in set_features.describe(ScoreBatch.of([score])).items():
            np.testing.assert_allclose(together[name][number], rows[0], rtol=1e-9, err_msg=name)
    for name, rows in together.items():
        if name not in SCALARS:
            total = rows.reshape(len(drawn), -1).sum(axis=1)
            assert np.all(np.isnan(total) | (np.abs(total - 1) < 1e-9)), name


def test_nothing_has_no_features_and_drums_have_no_pitch() -> None:
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    beat = Notes.of(onset_ticks=[0, 24], duration_ticks=12, pitch=[36, 38], program=DRUM_PROGRAM)
    found = set_features.describe(ScoreBatch.of([nothing, Score.of(beat, ticks_per_quarter=24)]))
    zeros = ("pitch count", "pitch count per bar", "note count", "note count per bar", "pitch range")
    assert all(found[name][0] == 0 for name in zeros)
    assert all(np.isnan(rows[0]).all() for name, rows in found.items() if name not in zeros)
    assert (found["note count"][1], found["inter-onset interval"][1]) == (2, 0.5)
    assert np.isnan(found["pitch class transitions"][1]).all()
    assert found["note length transitions"][1, 3, 3] == 1
    assert all(len(rows) == 0 for rows in set_features.describe(ScoreBatch.of([])).values())


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 30), st.floats(0.1, 20))
@settings(max_examples=15)
def test_divergence_and_overlap_are_those_of_scipys_estimates(seed: int, one: int, other: int, scale: float) -> None:
    """Each pair of a set counts twice, as in mgeval; integrals are of the estimates themselves."""
    random = np.random.default_rng(seed)
    first, second = random.normal(0, 1, (one + 1, 3)), random.normal(0.5, scale, (other + 1, 3))
    row = columns(compare_features({"x": first}, {"x": second}))["x"]
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j]
    between = [np.linalg.norm(a - b) for a in first for b in second]
    assert row["intra"] == pytest.approx(np.mean(pairs))
    assert row["inter"] == pytest.approx(np.mean(between))
    intra, inter = stats.gaussian_kde(pairs), stats.gaussian_kde(between)
    tail = 5 * max(np.sqrt(intra.covariance[0, 0]), np.sqrt(inter.covariance[0, 0]))
    at = np.linspace(min(*pairs, *between) - tail, max(*pairs, *between) + tail, 4001)
    overlap = integrate.trapezoid(np.minimum(intra(at), inter(at)), at)
    logs = np.log(np.maximum(intra(at), 1e-300)), inter.logpdf(at)
    divergence = integrate.trapezoid(intra(at) * (logs[0] - logs[1]), at)
    assert row["overlap"] == pytest.approx(overlap, abs=1e-3)
    assert row["divergence"] == pytest.approx(divergence, abs=2e-3, rel=2e-3)


def test_a_set_overlaps_with_another_draw_of_itself_and_hardly_with_what_lies_elsewhere() -> None:
    random = np.random.default_rng(3)
    real, again, elsewhere = (random.normal(mean, 1, 200) for mean in (0, 0, 8))
    narrow = random.normal(0, 0.05, 200)
    found = {
        name: columns(compare_features({"x": side}, {"x": real}))["x"]
        for name, side in (("again", again), ("elsewhere", elsewhere), ("narrow", narrow))
    }
    assert found["again"]["overlap"] > 0.95
    assert found["again"]["divergence"] < 0.02
    assert found["elsewhere"]["overlap"] < 0.05
    assert found["elsewhere"]["divergence"] > 5
    # What repeats itself lies among the real ones, but is told by its own distances.
    assert found["narrow"]["overlap"] < 0.35 < 0.7 < found["narrow"]["other_overlap"]


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30), st.floats(0.01, 100), st.floats(-9, 9))
def test_figures_are_bounded_and_do_not_depend_on_the_unit(values: list[float], scale: float, shift: float) -> None:
    rows = np.array(values)
    others = np.sort(rows)[::-1] * 1.5 + 1
    plain, other = (
        columns(compare_features({"x": rows * k + c}, {"x": others * k + c}))["x"]
        for k, c in ((1.0, 0.0), (scale, shift))
    )
    for name in ("overlap", "other_overlap"):
        assert 0 <= plain[name] <= 1
    for name in ("divergence", "other_divergence"):
        assert plain[name] >= 0
    if np.ptp(rows) > 1e-3:
        assert plain["overlap"] == pytest.approx(other["overlap"], abs=1e-3)


def test_sets_that_do_not_vary_and_sets_of_nothing() -> None:
    same, moved, varied = np.full(5, 3.0), np.full(4, 7.0), np.arange(6.0)
    found = columns(compare_features({"x": same}, {"x": same}))["x"]
    assert (found["intra"], found["inter"], found["divergence"], found["overlap"]) == (0, 0, 0, 1)
    found = columns(compare_features({"x": same}, {"x": moved}))["x"]
    assert (found["inter"], found["divergence"], found["overlap"]) == (4, np.inf, 0)
    found = columns(compare_features({"x": same}, {"x": varied}))["x"]
    assert (found["overlap"], found["other_overlap"] > 0.3) == (0, True)
    for few in (np.array([]), np.array([1.0]), np.array([1.0, np.nan])):
        found = columns(compare_features({"x": few}, {"x": varied}))["x"]
        assert np.isnan(found["intra"])
        assert np.isnan(found["overlap"])
        assert found["other_intra"] > 2
    assert np.isnan(columns(compare_features({"x": varied}, {"x": np.array([])}))["x"]["other_overlap"])


def test_two_sets_of_pieces_make_one_table() -> None:
    batch, others = (ScoreBatch.of([walk(seed) for seed in range(*span)]) for span in ((0, 12), (12, 20)))
    found = compare(batch, others)
    assert found.schema.equals(SCHEMA)
    assert found.column("feature").to_pylist() == list(set_features.describe(batch))
    rows = columns(found)
    assert rows["note count"]["mean"] == rows["note count"]["other_mean"] == 20
    assert np.isnan(rows["pitch class histogram"]["mean"])
    assert rows["pitch class histogram"]["overlap"] > 0.6
    assert set_distance.compare(batch, batch).num_rows == len(rows)
