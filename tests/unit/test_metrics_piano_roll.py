"""Measures of piano-rolls: equal to Pypianoroll's where that does what it says, laws, and rolls of nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tutti.errors import RecipeError
from tutti.metrics import piano_roll
from tutti.units import Key

C_MAJOR = Key(0, minor=False)
MEASURES: dict[str, Callable[[NDArray[np.bool_], int], NDArray[Any]]] = {
    "pitches_used": lambda roll, _: piano_roll.pitches_used(roll),
    "pitch_classes_used": lambda roll, _: piano_roll.pitch_classes_used(roll),
    "pitch_range": lambda roll, _: piano_roll.pitch_range(roll),
    "polyphonic_rate": lambda roll, _: piano_roll.polyphonic_rate(roll, threshold=2),
    "empty_beat_rate": lambda roll, steps: piano_roll.empty_beat_rate(roll, steps_per_quarter=steps),
    "qualified_note_rate": lambda roll, _: piano_roll.qualified_note_rate(roll, min_steps=3),
    "in_c_major": lambda roll, _: piano_roll.in_scale_rate(roll, key=C_MAJOR, lowest_pitch=0),
    "drum_in_pattern_rate": lambda roll, steps: piano_roll.drum_pattern_rate(roll, steps_per_quarter=steps),
    "tonal_distance": lambda roll, steps: piano_roll.tonal_distance(roll, steps_per_quarter=steps)[0, 1:],
}
RATES = ("polyphonic_rate", "empty_beat_rate", "qualified_note_rate", "in_c_major", "drum_in_pattern_rate")

rolls = arrays(bool, st.tuples(*(st.integers(1, 3), st.integers(1, 3), st.just(8), st.integers(1, 40), st.just(3))))


def of_cells(roll: dict[str, Any]) -> NDArray[np.bool_]:
    """Two tracks as one phrase of one bar."""
    made = np.zeros((1, 1, roll["steps"], 128, 2), dtype=bool)
    for track, name in enumerate(("cells", "other_cells")):
        for step, pitch in roll[name]:
            made[0, 0, step, pitch, track] = True
    return made


@pytest.mark.parametrize("name", MEASURES)
def test_figures_are_those_of_pypianoroll(name: str) -> None:
    path = Path(__file__).parents[1] / "golden" / "music_measures.json"
    held = json.loads(path.read_text(encoding="utf-8"))["rolls"]
    ours = [MEASURES[name](of_cells(roll), roll["steps_per_quarter"])[0] for roll in held]
    theirs = [np.nan if roll["figures"][name] is None else roll["figures"][name] for roll in held]
    assert len(set(theirs)) > 2
    if name in ("pitches_used", "pitch_classes_used"):
        # A mean over bars that are not empty has none of an empty roll.
        theirs = [figure or np.nan for figure in theirs]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_figures_worked_out_by_hand() -> None:
    # Two phrases of two bars of four steps, from C4: track 0 plays C4 and E4 over a bar line and C5; track 1 one G4.
    roll = np.zeros((2, 2, 4, 13, 2), dtype=bool)
    roll[0, 0, 2:, [0, 4], 0] = roll[0, 1, :1, [0, 4], 0] = True
    roll[1, 1, 3, 12, 0] = True
    roll[0, 0, 3, 7, 1] = True
    assert piano_roll.empty_bars_rate(roll).tolist() == [0.25, 0.75]
    assert piano_roll.empty_beat_rate(roll, steps_per_quarter=2).tolist() == [5 / 8, 7 / 8]
    assert piano_roll.pitches_used(roll).tolist() == [5 / 3, 1]
    assert piano_roll.pitch_range(roll).tolist() == [12, 0]
    # Two notes of three steps over the bar line, one of one step.
    assert piano_roll.qualified_note_rate(roll, min_steps=3).tolist() == [2 / 3, 0]
    assert piano_roll.qualified_note_rate(roll, min_steps=4).tolist() == [0, 0]
    assert piano_roll.polyphonic_rate(roll, threshold=1).tolist() == [3 / 16, 0]
    # E4 is not in C minor; of 7 cells 3.
    in_c_minor = piano_roll.in_scale_rate(roll, key=Key(0, minor=True), lowest_pitch=60)
    assert in_c_minor.tolist() == pytest.approx([4 / 7, 1])
    # The rows start at D: C4 is D, E4 is F sharp.
    assert piano_roll.in_scale_rate(roll, key=Key(2, minor=False), lowest_pitch=62)[0] == 1
    matrix = piano_roll.tonal_matrix()
    expected = np.linalg.norm(matrix[:, [0, 4]].mean(axis=1) - matrix[:, 7])
    assert piano_roll.tonal_distance(roll, steps_per_quarter=2)[0, 1] == pytest.approx(expected)


def test_an_octave_is_one_pitch_class_and_neighbours_are_two() -> None:
    roll = np.zeros((1, 1, 4, 84, 2), dtype=bool)
    roll[0, 0, :, [0, 12, 72], 0] = True
    roll[0, 0, :, [0, 1, 2], 1] = True
    assert piano_roll.pitch_classes_used(roll).tolist() == [1, 3]


@pytest.mark.parametrize("steps_per_quarter", sorted(piano_roll.PATTERN_STEPS))
def test_drums_on_the_pattern_are_in_it_and_drums_beside_it_hardly(steps_per_quarter: int) -> None:
    roll = np.zeros((1, 2, 4 * steps_per_quarter, 3, 2), dtype=bool)
    roll[:, :, :: piano_roll.PATTERN_STEPS[steps_per_quarter], 0, 0] = True
    roll[:, :, 1 :: piano_roll.PATTERN_STEPS[steps_per_quarter], 0, 1] = True
    found = piano_roll.drum_pattern_rate(roll, steps_per_quarter=steps_per_quarter)
    assert found.tolist() == pytest.approx([1, piano_roll.NEXT_TO_PATTERN])


def test_the_tonal_distance_orders_intervals_as_harte_says() -> None:
    """A fifth is nearer than a major third, and that nearer than a tritone."""
    roll = np.zeros((1, 1, 4, 12, 4), dtype=bool)
    for track, pitch in enumerate((0, 7, 4, 6)):
        roll[0, 0, :, pitch, track] = True
    fifth, third, tritone = piano_roll.tonal_distance(roll, steps_per_quarter=4)[0, 1:]
    assert 0 < fifth < third < tritone


@given(rolls, st.integers(0, 20))
def test_laws(roll: NDArray[np.bool_], semitones: int) -> None:
    distance = piano_roll.tonal_distance(roll, steps_per_quarter=4)
    np.testing.assert_array_equal(distance, distance.T)
    assert np.all(np.isnan(distance) | (distance >= 0))
    assert np.all(np.isnan(np.diagonal(distance)) | (np.diagonal(distance) == 0))
    sounds = roll.any(axis=(0, 1, 2, 3))
    assert np.array_equal(~np.isnan(np.diagonal(distance)), sounds)
    higher = np.pad(roll, ((0, 0), (0, 0), (0, 0), (semitones, 0), (0, 0)))
    for name, measure in MEASURES.items():
        found = measure(roll, 4)
        if name in RATES:
            assert np.all(np.isnan(found) | ((found >= 0) & (found <= 1 + 1e-12))), name
        if name != "in_c_major":
            np.testing.assert_allclose(measure(higher, 4), found, atol=1e-9, err_msg=name)
        # Tracks do not depend on each other.
        if name != "tonal_distance":
            np.testing.assert_allclose(measure(roll[..., ::-1], 4), found[::-1], err_msg=name)
    assert np.all(piano_roll.empty_beat_rate(roll, steps_per_quarter=4) >= piano_roll.empty_bars_rate(roll) - 1e-12)
    moved = piano_roll.in_scale_rate(higher, key=C_MAJOR, lowest_pitch=0)
    np.testing.assert_allclose(piano_roll.in_scale_rate(roll, key=C_MAJOR, lowest_pitch=semitones), moved)


@pytest.mark.parametrize("shape", [(2, 2, 8, 12, 3), (0, 2, 8, 12, 3)])
def test_silent_and_empty_rolls(shape: tuple[int, ...]) -> None:
    roll = np.zeros(shape, dtype=bool)
    empty = 1.0 if shape[0] else np.nan
    np.testing.assert_equal(piano_roll.empty_bars_rate(roll), [empty] * 3)
    np.testing.assert_equal(MEASURES["empty_beat_rate"](roll, 4), [empty] * 3)
    np.testing.assert_equal(MEASURES["polyphonic_rate"](roll, 4), [0.0 if shape[0] else np.nan] * 3)
    for name in ("pitches_used", "pitch_range", "qualified_note_rate", "in_c_major", "drum_in_pattern_rate"):
        assert np.isnan(MEASURES[name](roll, 4)).all(), name
    assert np.isnan(piano_roll.tonal_distance(roll, steps_per_quarter=4)).all()


def test_resolutions_that_cannot_be_judged_are_refused() -> None:
    roll = np.zeros((1, 1, 10, 12, 1), dtype=bool)
    with pytest.raises(RecipeError, match="5 steps per quarter have no drum pattern: use one of 4, 6, 8"):
        piano_roll.drum_pattern_rate(roll, steps_per_quarter=5)
    with pytest.raises(RecipeError, match="a bar of 10 steps is no whole number of beats of 4: cut or pad"):
        piano_roll.tonal_distance(roll, steps_per_quarter=4)
