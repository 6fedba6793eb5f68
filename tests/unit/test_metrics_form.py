"""Form of pieces whose form is known: sections, returns, loops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tutti.corpus.score import Notes, Score
from tutti.metrics import form
from tutti.metrics.form import FAR_BARS, bar_similarity, form_figures, novelty, sections

BAR = 96
KEYS = {"A": (0, 2, 4, 5, 7, 9, 11), "B": (1, 3, 6, 8, 10)}


def passage(name: str, *, bars: int = 16, seed: int = 0) -> list[list[tuple[int, int]]]:
    """Eight notes a bar of the passage's own pitches; the same for the same name and seed."""
    draws = np.random.default_rng([ord(name), seed])
    return [
        [(12 * step, 60 + int(draws.choice(KEYS[name])) + 12 * int(draws.integers(2))) for step in range(8)]
        for _ in range(bars)
    ]


def piece(bars: Sequence[Sequence[tuple[int, int]]]) -> Score:
    found = [(bar * BAR + tick, pitch) for bar, notes in enumerate(bars) for tick, pitch in notes]
    onsets, pitches = zip(*found, strict=True)
    return Score.of(Notes.of(onset_ticks=onsets, duration_ticks=[12] * len(found), pitch=pitches), ticks_per_quarter=24)


def test_sections_begin_where_the_music_changes() -> None:
    score = piece(passage("A") + passage("B", bars=20) + passage("A"))
    edges = sections(novelty(bar_similarity(score)))
    assert edges.tolist() == [0, 16, 36, 52]


def test_a_return_is_told_from_new_music_and_a_repeat_from_a_variation() -> None:
    first = passage("A")
    varied = [[(tick, pitch + (step == 0)) for step, (tick, pitch) in enumerate(bar)] for bar in first]
    returning = form_figures(piece(first + passage("B") + first))
    assert (returning.sections, returning.returning) == (3, 0.5)
    assert returning.same == pytest.approx(1 / 3)
    assert returning.returns == pytest.approx(1 / 3)
    changed = form_figures(piece(first + passage("B") + varied))
    assert (changed.same, changed.returning) == (0.0, 0.5)
    assert changed.varied == pytest.approx(1 / 3, abs=0.05)
    new = form_figures(piece(first + passage("B") + passage("A", seed=1)))
    assert (new.same, new.returning, new.returns) == (0.0, 0.0, 0.0)


def test_another_key_is_a_return_too() -> None:
    first = passage("A")
    moved = [[(tick, pitch + 5) for tick, pitch in bar] for bar in first]
    assert form_figures(piece(first + passage("B") + moved)).returning == 0.5


def test_a_loop_is_no_form() -> None:
    loop = form_figures(piece(passage("A", bars=4) * 12))
    assert loop.loop == pytest.approx(44 / 48)
    assert loop.sections == 1
    assert math.isnan(loop.returning)
    assert form_figures(piece(passage("A") + passage("B") + passage("A"))).loop == 0.0


def test_what_comes_again_at_once_is_no_return() -> None:
    again = passage("A", bars=FAR_BARS - 1) * 2
    assert form_figures(piece(again)).returns == 0.0
    assert form_figures(piece(passage("A", bars=FAR_BARS) * 2)).returns == 0.5


def test_silence_and_nothing() -> None:
    silent = piece([*passage("A", bars=4), *[[]] * 8, *passage("A", bars=4)])
    similarity_BB = bar_similarity(silent)
    assert similarity_BB[5, 6] == 0.0
    assert similarity_BB[5, 5] == 1.0
    nothing = form_figures(Score.of(Notes.none(), ticks_per_quarter=24))
    assert (nothing.bars, nothing.sections) == (0, 0)
    assert math.isnan(nothing.returns)
    assert math.isnan(nothing.same)
    assert form.sections(np.zeros(0)).tolist() == []
