"""Scores that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from tutti.corpus.found_pieces import MAX_BARS, MAX_QUARTERS
from tutti.corpus.midi_closing import MAX_DELTA_TICKS
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score


@st.composite
def scores(draw: st.DrawFn) -> Score:
    """Scores with overlapping equal pitches, many parts, gaps of any size and dense maps."""
    count = draw(st.integers(1, 20))
    ticks_per_quarter = draw(st.sampled_from((1, 24, 96, 480, 10_080, 32_767)))
    meters = draw(st.lists(st.tuples(st.integers(1, 255), st.sampled_from((1, 2, 4, 8, 16, 32, 64, 128))), max_size=5))
    shortest_ticks = min([4, *(4 * above / below for above, below in meters)]) * ticks_per_quarter
    limits = (MAX_QUARTERS * ticks_per_quarter, MAX_DELTA_TICKS, int((MAX_BARS - 10) * shortest_ticks))
    most = min(limits) // 2
    tick = st.one_of(st.integers(0, 40), st.integers(0, most))

    def column(kind: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(kind, min_size=count, max_size=count))

    notes = Notes.of(
        onset_ticks=column(tick),
        duration_ticks=column(st.one_of(st.integers(0, 40), st.integers(0, most))),
        pitch=column(st.one_of(st.integers(58, 62), st.integers(0, 127))),
        velocity=column(st.integers(0, 127)),
        program=column(st.one_of(st.sampled_from((0, DRUM_PROGRAM)), st.integers(0, DRUM_PROGRAM))),
        track=column(st.one_of(st.integers(0, 1), st.integers(0, 65_535))),
    )
    return Score.of(
        notes,
        ticks_per_quarter=ticks_per_quarter,
        tempos=draw(st.lists(st.tuples(tick, st.floats(1, 5_000)), max_size=5)),
        meters=[(draw(tick), above, below) for above, below in meters],
        title=draw(st.none() | st.sampled_from(("Air", "Élégie № 2"))),
    )
