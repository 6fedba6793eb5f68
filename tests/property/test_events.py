"""Laws of the event vocabulary: what is on the grid survives the journey through tokens unchanged."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tutti.corpus.score import Notes, Score
from tutti.features.controls import Controls
from tutti.features.events import bar_windows, decode, encode, on_grid
from tutti.features.vocabulary import BAR, EVENTS, INSTRUMENTS, METERS, MOODS

_note = st.tuples(
    st.integers(0, 2000),
    st.integers(1, 1000),
    st.integers(0, 127),
    st.integers(1, 127),
    st.sampled_from([0, 5, 40, 127, 128]),
)


@st.composite
def scores(draw: st.DrawFn) -> Score:
    rows = draw(st.lists(_note, max_size=40))
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return Score.of(
        Notes.of(
            onset_ticks=columns[:, 0],
            duration_ticks=columns[:, 1],
            pitch=columns[:, 2],
            velocity=columns[:, 3],
            program=columns[:, 4],
        ),
        ticks_per_quarter=draw(st.sampled_from([24, 96, 480, 7])),
        tempos=draw(st.lists(st.tuples(st.integers(0, 2500), st.floats(5, 500)), max_size=4)),
        meters=[
            (tick, *meter)
            for tick, meter in draw(
                st.lists(st.tuples(st.integers(0, 2500), st.sampled_from([*METERS, (7, 1), (5, 32)])), max_size=4)
            )
        ],
    )


_controls = st.builds(
    Controls,
    collection=st.none() | st.integers(0, 63),
    mood=st.none() | st.sampled_from(MOODS),
    instruments=st.lists(st.sampled_from(INSTRUMENTS), unique=True, max_size=3).map(tuple),
)


@given(scores())
def test_normal_form_is_reached_in_one_step(score: Score) -> None:
    once = on_grid(score)
    assert on_grid(once).same_music(once)


@settings(max_examples=300)
@given(scores(), _controls)
def test_score_on_the_grid_survives_tokens(score: Score, controls: Controls) -> None:
    normal = on_grid(score)
    tokens = encode(normal, controls)
    decoded = decode(tokens)
    assert decoded.refused == 0
    assert decoded.ended
    assert decoded.score.same_music(normal)
    assert_array_equal(encode(decoded.score, controls), tokens)


@given(scores())
def test_nothing_said_twice(score: Score) -> None:
    tokens = encode(score)
    kinds = [EVENTS.kinds[kind] for kind in EVENTS.kind_of[tokens]]
    assert "Pad" not in kinds
    assert kinds.count("Start") == kinds.count("End") == 1
    assert not any(a == b and a not in ("Bar", "Pitch", "Drum", "Instruments") for a, b in itertools.pairwise(kinds))


@given(st.lists(st.integers(-3, len(EVENTS) + 5), max_size=80))
def test_any_tokens_decode_and_no_refusal_is_silent(tokens: list[int]) -> None:
    decoded = decode(np.array(tokens, dtype=np.int64))
    notes = sum(1 for token in tokens if token in EVENTS.span("Pitch") or token in EVENTS.span("Drum"))
    assert len(decoded.score.notes) + decoded.refused >= notes
    assert on_grid(decoded.score).same_music(decoded.score)


@given(scores(), st.integers(24, 60))
def test_windows_lose_no_token(score: Score, max_tokens: int) -> None:
    tokens = encode(score)
    windows = bar_windows(tokens, max_tokens=max_tokens)
    head = list(tokens).index(BAR)
    meters = EVENTS.span("Meter")

    def events(sequence: list[int]) -> list[int]:
        return [token for token in sequence if token != BAR and token not in meters]

    assert all(len(window) <= max_tokens for window in windows)
    assert all(window[head] == BAR and window[head + 1] in meters for window in windows)
    assert events([t for w in windows for t in w[head:].tolist()]) == events(tokens[head:].tolist())
