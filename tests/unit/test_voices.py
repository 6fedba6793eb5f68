"""Chorales as grids: there and back, and what is no chorale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tutti.corpus.score import Notes, Score
from tutti.errors import DataError
from tutti.features.voices import FIRST_PITCH, SILENCE, VOCABULARY_SIZE, VOICES, score_of, voices_of


@st.composite
def grids(draw: st.DrawFn) -> NDArray[np.uint16]:
    """Voices that do not cross on the whole: each sounds in a compass of its own, and all of them to the end."""
    steps = draw(st.integers(1, 40))
    quarter = (VOCABULARY_SIZE - FIRST_PITCH) // VOICES
    columns = []
    for voice in range(VOICES):
        lowest = FIRST_PITCH + (VOICES - 1 - voice) * quarter
        pitch = st.one_of(st.just(SILENCE), st.integers(lowest, lowest + quarter - 1))
        column = draw(drawn.arrays(np.uint16, steps, elements=pitch))
        column[-1] = lowest
        columns.append(column)
    return np.stack(columns, axis=1)


@given(grids())
def test_a_grid_comes_back_from_its_score(grid: NDArray[np.uint16]) -> None:
    assert_array_equal(voices_of(score_of(grid, tempo_qpm=80)), grid)


@given(grids(), st.permutations(range(VOICES)))
def test_the_order_of_tracks_does_not_matter(grid: NDArray[np.uint16], order: list[int]) -> None:
    assert_array_equal(voices_of(score_of(grid[:, order], tempo_qpm=80)), grid)


def _score(**columns: list[int]) -> Score:
    return Score.of(Notes.of(**columns), ticks_per_quarter=480)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"onset_ticks": [0], "duration_ticks": [480], "pitch": [60]}, "1 tracks with notes are not the 4 voices"),
        (
            {"onset_ticks": [0] * 4, "duration_ticks": [480] * 4, "pitch": [72, 67, 60, 12], "track": [0, 1, 2, 3]},
            "pitches 12 to 72 are not all from 24 to 96",
        ),
        (
            {
                "onset_ticks": [0, 0, 0, 0, 240],
                "duration_ticks": [480] * 5,
                "pitch": [72, 67, 60, 48, 50],
                "track": [0, 1, 2, 3, 3],
            },
            "a voice sounds two notes at sixteenth 2",
        ),
    ],
)
def test_what_is_no_chorale_is_refused(columns: dict[str, list[int]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        voices_of(_score(**columns))


def test_a_grid_with_padding_has_no_score() -> None:
    with pytest.raises(DataError, match="identifiers from 1 to"):
        score_of(np.zeros((3, VOICES), dtype=np.uint16), tempo_qpm=80)
