from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib import image
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.render.picture import piano_roll_png
from tutti.training.picture import loss_curve_png


def pixels(png: bytes) -> NDArray[np.float32]:
    return np.asarray(image.imread(io.BytesIO(png), format="png"))[:, :, :3]


def score_of(**columns: object) -> Score:
    columns.setdefault("duration_ticks", 480)
    return Score.of(Notes.of(**columns), ticks_per_quarter=480)


def band(*, seed: int = 0, notes: int = 300) -> Score:
    random = np.random.default_rng(seed)
    return score_of(
        onset_ticks=random.integers(0, 40_000, notes),
        pitch=random.integers(36, 84, notes),
        velocity=random.integers(1, 128, notes),
        program=random.choice([0, 25, 33, 48, DRUM_PROGRAM], notes),
    )


@pytest.mark.parametrize(
    "score",
    [
        band(),
        score_of(onset_ticks=[0], pitch=[60]),
        score_of(onset_ticks=[0], pitch=[0]),
        score_of(onset_ticks=[0, 0], pitch=[0, 127]),
        score_of(onset_ticks=[0, 480], pitch=[36, 80], program=DRUM_PROGRAM),
        score_of(onset_ticks=np.arange(17) * 480, pitch=60, program=np.arange(17) * 8),
        score_of(onset_ticks=[0, 960 * 1700], pitch=60),
    ],
    ids=["band", "one note", "lowest", "all keys", "drums alone", "all families", "half an hour"],
)
def test_every_score_has_a_picture_with_ink_in_it(score: Score) -> None:
    picture = pixels(piano_roll_png(score))
    assert picture.shape == (648, 1440, 3)
    assert (picture.min(axis=2) < 0.6).sum() > 20


def test_a_picture_is_the_same_each_time_and_in_any_thread() -> None:
    scores = [band(seed=seed) for seed in range(2)] * 2
    alone = [piano_roll_png(score, title="Take") for score in scores]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda score: piano_roll_png(score, title="Take"), scores)) == alone
    assert len(set(alone)) == 2


def test_a_louder_note_is_darker_and_a_higher_note_is_higher() -> None:
    picture = pixels(piano_roll_png(score_of(onset_ticks=[0, 480], pitch=[50, 70], velocity=[20, 120])))
    inked = picture.max(axis=2) - picture.min(axis=2) > 0.05
    inked[:150] = False
    rows_left, rows_right = (np.flatnonzero(half.any(axis=1)).mean() for half in (inked[:, 100:720], inked[:, 800:]))
    assert rows_right < rows_left
    darkness = [picture[:, columns][inked[:, columns]].mean() for columns in (slice(100, 720), slice(800, 1440))]
    assert darkness[1] < darkness[0] - 0.1


@pytest.mark.parametrize("title", ["costs $\\frac$", "音楽", "line\nbreak", "x" * 500, ""])
def test_a_title_is_drawn_as_it_is_written(title: str) -> None:
    assert piano_roll_png(band(notes=3), title=title).startswith(b"\x89PNG")


def test_bars_beyond_counting_are_left_out() -> None:
    notes = Notes.of(onset_ticks=[0, 2_000_000_000], duration_ticks=[100, 100], pitch=[60, 62])
    score = Score.of(notes, ticks_per_quarter=32_767, tempos=[(0, 60_000.0)], meters=[(0, 1, 128)])
    bar_numbers = slice(100, 118)
    assert pixels(piano_roll_png(score))[bar_numbers].min() == 1
    assert pixels(piano_roll_png(band()))[bar_numbers].min() < 0.6


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="the score has no notes"):
        piano_roll_png(Score.of(Notes.none(), ticks_per_quarter=480))


@pytest.mark.parametrize("steps", [0, 1, 200])
def test_a_loss_picture_at_any_stage_of_a_run(steps: int) -> None:
    losses = [3 * 0.99**step for step in range(steps)]
    png = loss_curve_png(
        list(range(steps)),
        losses,
        list(range(steps))[::20],
        losses[::20],
        baselines={"unigram": 2.9, "bigram": 2.85},
        title="A run",
    )
    assert pixels(png).shape == (576, 1080, 3)
