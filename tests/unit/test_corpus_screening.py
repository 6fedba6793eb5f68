"""What a recipe drops, and the words in which it is told."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tutti.config import build
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.screening import SCREENED, Screening
from tutti.errors import RecipeError
from tutti.features.descriptors import describe
from tutti.tables import REFUSAL_REASONS

QUARTER = 480


def piece(onsets: list[int], *, pitch: int | list[int] = 60, program: int = 0, quarters: int = 1) -> Score:
    """Notes at quarters, 120 to the minute."""
    onset = np.array(onsets) * QUARTER
    pitches = [pitch] * len(onsets) if isinstance(pitch, int) else pitch
    notes = Notes.of(
        onset_ticks=onset, duration_ticks=np.full(len(onsets), quarters * QUARTER), pitch=pitches, program=program
    )
    return Score.of(notes, ticks_per_quarter=QUARTER)


MELODY = piece([0, 1, 2, 3], pitch=[60, 62, 64, 65])
PIECES = {
    "melody": MELODY,
    "one note": piece([0]),
    "pause": piece([0, 40], pitch=[60, 62]),
    "drums": piece([0, 1, 2], pitch=[36, 38, 36], program=DRUM_PROGRAM),
    "drone": piece([0, 2, 4], quarters=2),
    "cluster": piece([0] * 8, pitch=list(range(60, 68))),
    "long": piece(list(range(100)), pitch=[60 + number % 5 for number in range(100)]),
}


def dropped(**limits: object) -> dict[str, str]:
    """Reason and detail of each piece of PIECES that is dropped."""
    batch = ScoreBatch.of(list(PIECES.values()))
    works = pa.table({**batch.arrow_columns(), **describe(batch)})
    names = list(PIECES)
    return {names[row]: f"{reason}: {detail}" for row, reason, detail in build(Screening, dict(limits)).dropped(works)}


def test_by_default_everything_is_kept() -> None:
    assert dropped() == {}


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"min_notes": 2}, {"one note": "too_few_notes: 1 notes are fewer than the limit of 2"}),
        ({"max_notes": 99}, {"long": "too_long: 100 notes are more than the limit of 99"}),
        ({"max_length_s": 30}, {"long": "too_long: 50 s are more than the limit of 30 s"}),
        (
            {"min_length_s": 0.6},
            dict.fromkeys(("one note", "cluster"), "too_short: 0.5 s are less than the limit of 0.6 s"),
        ),
        ({"max_polyphony": 6}, {"cluster": "too_dense: 8 notes at once are more than the limit of 6"}),
        (
            {"max_empty_bars_share": 0.5},
            {"pause": "mostly_empty: 0.818182 of the bars without sound are more than the limit of 0.5"},
        ),
        ({"drop_drums_only": True}, {"drums": "drums_only: 3 notes, all of them of a drum kit"}),
        (
            {"drop_one_pitch": True},
            {"one note": "one_pitch: 1 notes of one pitch", "drone": "one_pitch: 3 notes of one pitch"},
        ),
    ],
)
def test_each_rule_drops_what_it_says(limits: dict[str, object], found: dict[str, str]) -> None:
    assert dropped(**limits) == found


def test_a_work_is_told_once_by_the_first_rule() -> None:
    found = dropped(min_notes=2, min_length_s=0.6, drop_one_pitch=True)
    assert found["one note"].startswith("too_few_notes")


def test_limits_that_nothing_passes_are_refused() -> None:
    with pytest.raises(RecipeError, match="min_notes 10 is above max_notes 5: nothing can pass"):
        build(Screening, {"min_notes": 10, "max_notes": 5})


def test_the_reasons_are_of_the_closed_list() -> None:
    assert set(SCREENED) <= set(REFUSAL_REASONS)
