"""Measures of pitch and rhythm: equal to MusPy's, laws, and what is asked of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.drawn import scores
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics import pitch, rhythm
from tutti.units import Key

Measure = Callable[[ScoreBatch], NDArray[Any]]

MEASURES: dict[str, Measure] = {
    "pitches_used": pitch.pitches_used,
    "pitch_classes_used": pitch.pitch_classes_used,
    "pitch_range": pitch.pitch_range,
    "pitch_entropy": pitch.pitch_entropy,
    "pitch_class_entropy": pitch.pitch_class_entropy,
    "scale_consistency": pitch.scale_consistency,
    "in_d_major": lambda batch: pitch.pitch_in_scale_rate(batch, key=Key(2, minor=False)),
    "in_g_minor": lambda batch: pitch.pitch_in_scale_rate(batch, key=Key(7, minor=True)),
    "polyphony": pitch.polyphony,
    "polyphony_rate_1": lambda batch: pitch.polyphony_rate(batch, threshold=1),
    "polyphony_rate_2": lambda batch: pitch.polyphony_rate(batch, threshold=2),
    "empty_beat_rate": rhythm.empty_beat_rate,
    "empty_measure_rate": rhythm.empty_measure_rate,
    "groove_consistency": lambda batch: np.concatenate(
        [
            rhythm.groove_consistency(ScoreBatch.of([score]), steps_per_quarter=score.ticks_per_quarter)
            for score in batch
        ]
    ),
    "drum_in_duple_pattern_rate": lambda batch: rhythm.drum_in_pattern_rate(batch, meter="duple"),
    "drum_in_triple_pattern_rate": lambda batch: rhythm.drum_in_pattern_rate(batch, meter="triple"),
    "drum_pattern_consistency": rhythm.drum_pattern_consistency,
}
COUNTS = ("pitches_used", "pitch_classes_used", "pitch_range")
SHARES = [name for name in MEASURES if name not in COUNTS and "entropy" not in name and name != "polyphony"]


def piece(row: dict[str, Any]) -> Score:
    columns = ("onset_ticks", "duration_ticks", "pitch", "program")
    return Score.of(
        Notes.of(**{name: row[name] for name in columns}),
        ticks_per_quarter=row["ticks_per_quarter"],
        meters=[(0, *row["meter"])],
    )


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    path = Path(__file__).parents[1] / "golden" / "music_measures.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", MEASURES)
def test_figures_are_those_of_muspy(peers: dict[str, Any], name: str) -> None:
    rows = [row for row in peers["pieces"] if name in row["figures"]]
    ours = MEASURES[name](ScoreBatch.of([piece(row) for row in rows]))
    theirs = np.array([np.nan if row["figures"][name] is None else row["figures"][name] for row in rows])
    # Drums alone have no range; MusPy gives -127.
    theirs = np.where(theirs == -127, 0, theirs)
    assert len(rows) >= 23
    assert np.unique(theirs[~np.isnan(theirs)]).size > 3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_figures_worked_out_by_hand() -> None:
    # C4 and E4 for a quarter, a quarter of silence, then G4 for two quarters with C4 in its second; 2/4.
    notes = Notes.of(onset_ticks=[0, 0, 48, 72], duration_ticks=[24, 24, 48, 24], pitch=[60, 64, 67, 60])
    batch = ScoreBatch.of([Score.of(notes, ticks_per_quarter=24, meters=[(0, 2, 4)])])
    figures = {name: float(measure(batch)[0]) for name, measure in MEASURES.items() if "drum" not in name}
    assert figures["pitches_used"] == figures["pitch_classes_used"] == 3
    assert figures["pitch_range"] == 7
    assert figures["pitch_class_entropy"] == pytest.approx(1.5)
    assert figures["polyphony"] == pytest.approx(5 / 3)
    # Two of the four quarters.
    assert figures["polyphony_rate_1"] == pytest.approx(0.5)
    # The chord's end lies on the second beat, the last one's on a beat of its own.
    assert figures["empty_beat_rate"] == 0
    # Bars begin notes on 0; on 0 and 24; on none: 1 and 2 of 48 steps unlike.
    assert figures["groove_consistency"] == pytest.approx(1 - (1 / 48 + 2 / 48) / 2)
    intervals, starts = rhythm.inter_onset_intervals(batch)
    assert (intervals.tolist(), starts.tolist()) == ([2.0, 1.0], [0, 2])
    assert rhythm.note_length_histogram(batch)[0].tolist() == [0, 1, 3] + [0] * 9


def test_each_note_length_is_its_own_class_and_others_are_the_nearest() -> None:
    ticks = [96, 48, 24, 12, 6, 72, 36, 18, 9, 32, 16, 8, 1, 100, 22]
    notes = Notes.of(onset_ticks=range(len(ticks)), duration_ticks=ticks, pitch=60)
    found = rhythm.note_length_classes(ScoreBatch.of([Score.of(notes, ticks_per_quarter=24)]))
    assert found.tolist() == [*range(12), 4, 0, 2]
    assert rhythm.NOTE_LENGTHS[9] == "half triplet"
    # In 96ths of a whole note, as Yang and Lerch list them.
    assert (rhythm.NOTE_LENGTHS_QUARTERS * 24).tolist() == [96, 48, 24, 12, 6, 72, 36, 18, 9, 32, 16, 8]


@pytest.mark.parametrize("name", MEASURES)
def test_nothing_has_no_rates_and_counts_of_0(name: str) -> None:
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    drums = Score.of(
        Notes.of(onset_ticks=[0], duration_ticks=[24], pitch=[40], program=DRUM_PROGRAM), ticks_per_quarter=24
    )
    assert rhythm.groove_consistency(ScoreBatch.of([]), steps_per_quarter=24).shape == (0,)
    expected = 0 if name in COUNTS else np.nan
    np.testing.assert_equal(MEASURES[name](ScoreBatch.of([nothing, drums]))[0], expected)
    if hasattr(pitch, name):
        np.testing.assert_equal(MEASURES[name](ScoreBatch.of([nothing, drums]))[1], expected)
    if name != "groove_consistency":
        assert MEASURES[name](ScoreBatch.of([])).shape == (0,)


@given(st.lists(scores(), min_size=1, max_size=4), st.data())
def test_measures_of_a_batch_are_those_of_each_piece(drawn: list[Score], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in MEASURES if name != "groove_consistency"]))
    together = MEASURES[name](ScoreBatch.of(drawn))
    alone = np.concatenate([MEASURES[name](ScoreBatch.of([score])) for score in drawn])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    if name in SHARES:
        assert np.all(np.isnan(together) | ((together >= 0) & (together <= 1 + 1e-12)))


@given(scores(), st.integers(1, 11))
def test_transposition_changes_no_measure_of_relations(score: Score, semitones: int) -> None:
    notes = score.notes
    melodic = notes.program != DRUM_PROGRAM
    kept = notes.take(melodic & (notes.pitch < 128 - semitones))
    moved = Notes.of(**{**{name: getattr(kept, name) for name in Notes.__slots__}, "pitch": kept.pitch + semitones})
    batch = ScoreBatch.of([Score.of(each, ticks_per_quarter=score.ticks_per_quarter) for each in (kept, moved)])
    for name, measure in MEASURES.items():
        if name not in ("in_d_major", "in_g_minor", "groove_consistency"):
            one, other = measure(batch)
            np.testing.assert_allclose(one, other, rtol=1e-12, err_msg=name)


@given(scores(), st.integers(0, 11), st.booleans())
def test_no_scale_holds_more_than_the_best(score: Score, tonic: int, minor: bool) -> None:
    batch = ScoreBatch.of([score])
    inside = pitch.pitch_in_scale_rate(batch, key=Key(tonic, minor=minor))[0]
    assert np.isnan(inside) or inside <= pitch.scale_consistency(batch)[0] + 1e-12


def test_groove_is_told_on_the_steps_that_are_asked_for() -> None:
    """The same piece at two resolutions is as consistent on one grid, and bars of unlike length can be compared."""
    coarse = Score.of(
        Notes.of(onset_ticks=[0, 2, 4, 10, 12], duration_ticks=2, pitch=60),
        ticks_per_quarter=2,
        meters=[(0, 3, 4), (6, 2, 4)],
    )
    fine = coarse.with_resolution(480)
    figures = [rhythm.groove_consistency(ScoreBatch.of([score]), steps_per_quarter=4)[0] for score in (coarse, fine)]
    assert figures[0] == figures[1]
    # Bars of 12, 8, 8 and 8 steps begin notes on 0, 4, 8; on none; on 0, 4; on none.
    assert figures[0] == pytest.approx(1 - (3 / 12 + 2 / 8 + 2 / 8) / 3)
