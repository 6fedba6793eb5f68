"""Readings: what a code says, what it does not, and how much it tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drawn import scores
from tutti.corpus.lines import PIECES_AT_ONCE
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics import readings
from tutti.metrics.readings import FIGURE_CODES, Reading
from tutti.metrics.suffixes import NOTHING

READINGS = (readings.melody, readings.texture)


def of(pitch: list[int], *, onset: list[int] | None = None, **columns: object) -> Score:
    onset = [24 * number for number in range(len(pitch))] if onset is None else onset
    notes = Notes.of(onset_ticks=onset, duration_ticks=6, pitch=pitch, **columns)
    return Score.of(notes, ticks_per_quarter=24)


def texture(score: Score) -> Reading:
    return readings.texture(ScoreBatch.of([score]))


def test_a_texture_has_a_place_for_each_moment_and_counts_equal_pitches_once() -> None:
    chords = of([60, 64, 67, 67, 62, 65, 72], onset=[0, 0, 0, 0, 24, 24, 48], program=[0, 0, 0, 9, 0, 0, 0])
    found = texture(chords)
    assert found.pitch.tolist() == [67, 65, 72]
    assert found.notes.tolist() == [3, 2, 1]
    assert (found.steps / found.steps_per_quarter[0]).tolist() == [0, 1, 2]
    assert found.codes[:2].tolist() == [NOTHING] * 2
    assert found.codes[2] >= 0
    assert found.bits[:2].tolist() == [0, 0]


def test_a_code_tells_the_chord_the_move_and_the_ratio_of_times_and_nothing_else() -> None:
    plain = of([60, 67, 62, 69, 64, 71], onset=[0, 0, 24, 24, 48, 48])
    same = {
        "higher": of([65, 72, 67, 74, 69, 76], onset=[0, 0, 24, 24, 48, 48]),
        "slower": of([60, 67, 62, 69, 64, 71], onset=[0, 0, 72, 72, 144, 144]),
        "in two parts": of(
            [60, 67, 62, 69, 64, 71], onset=[0, 0, 24, 24, 48, 48], track=[1, 0] * 3, program=[7, 40] * 3
        ),
        "with drums": of(
            [60, 67, 40, 62, 69, 64, 71], onset=[0, 0, 12, 24, 24, 48, 48], program=[0, 0, 128, 0, 0, 0, 0]
        ),
    }
    other = {
        "another chord": of([60, 67, 62, 69, 65, 71], onset=[0, 0, 24, 24, 48, 48]),
        "another move": of([60, 67, 62, 69, 65, 72], onset=[0, 0, 24, 24, 48, 48]),
        "another rhythm": of([60, 67, 62, 69, 64, 71], onset=[0, 0, 24, 24, 72, 72]),
        "a note less": of([60, 67, 62, 69, 71], onset=[0, 0, 24, 24, 48]),
    }
    code = texture(plain).codes[2]
    assert {name: texture(score).codes[2] == code for name, score in same.items()} == dict.fromkeys(same, True)
    assert {name: texture(score).codes[2] == code for name, score in other.items()} == dict.fromkeys(other, False)


def test_leaps_and_chords_tell_more_than_steps_and_lone_notes() -> None:
    def bits(score: Score) -> int:
        return int(texture(score).bits[-1])

    step, leap = of([60, 67, 69]), of([60, 67, 77])
    chord = of([60, 67, 60, 64, 69], onset=[0, 24, 48, 48, 48])
    assert bits(step) < bits(leap)
    assert bits(chord) == bits(step) + 2 * readings.BITS_OF_A_NOTE


@pytest.mark.parametrize("read", READINGS)
def test_a_figure_tells_something_once(read: object) -> None:
    random = np.random.default_rng(3)
    figure = random.integers(55, 80, 12).tolist()
    again = read(ScoreBatch.of([of(figure * 5)]))  # type: ignore[operator]
    first_line = again.line == 0
    told = again.bits[first_line]
    # Where the figure begins anew, codes that look back over the seam are new once more.
    assert told[: len(figure)].sum() > 0
    assert told[len(figure) : len(figure) + FIGURE_CODES + 2].sum() > 0
    assert told[2 * len(figure) :].sum() == 0


@given(st.lists(scores(), min_size=1, max_size=4))
@settings(max_examples=40)
def test_readings_of_a_batch_are_those_of_each_piece(drawn: list[Score]) -> None:
    for read in READINGS:
        together = read(ScoreBatch.of(drawn))
        assert np.all((together.codes == NOTHING) <= (together.bits == 0))
        for number, score in enumerate(drawn):
            alone, mine = read(ScoreBatch.of([score])), together.piece == number
            for name in ("codes", "bits", "notes", "steps", "pitch", "shapes"):
                assert getattr(together, name)[mine].tolist() == getattr(alone, name).tolist(), name
        # No line is of two pieces.
        assert len(np.unique(together.line)) == len(
            {*zip(together.line.tolist(), together.piece.tolist(), strict=True)}
        )


def test_more_pieces_than_are_sorted_at_once_keep_their_places() -> None:
    pieces = [of([60 + number % 7, 62, 64, 60 + number % 11]) for number in range(2 * PIECES_AT_ONCE + 3)]
    for read in READINGS:
        together = read(ScoreBatch.of(pieces))
        last = read(ScoreBatch.of(pieces[-1:]))
        assert together.codes[together.piece == len(pieces) - 1].tolist() == last.codes.tolist()
        assert len(together.steps_per_quarter) == len(pieces)


def test_drums_are_read_where_there_is_nothing_else_and_nothing_reads_as_nothing() -> None:
    beat = of([36, 38, 36, 42], program=DRUM_PROGRAM)
    assert len(texture(beat)) == 4
    song = of([60, 36, 62, 38], program=[0, DRUM_PROGRAM, 0, DRUM_PROGRAM])
    assert texture(song).pitch.tolist() == [60, 62]
    nothing = Score.of(Notes.none(), ticks_per_quarter=24)
    for read in READINGS:
        assert len(read(ScoreBatch.of([nothing, nothing]))) == 0
        assert len(read(ScoreBatch.of([]))) == 0
        both = read(ScoreBatch.of([nothing, replace(beat, notes=beat.notes)]))
        assert set(both.piece.tolist()) == {1}
