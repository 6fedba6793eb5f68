"""Laws of piano-rolls: what a roll says comes back, whatever music it was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.drawn import scores
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.features import roll
from tutti.features.roll import BARS, BEGINS, DRUMS, LOWEST_PITCH, PITCHES, SHAPE, SOUNDS, STEPS, TRACKS, Rolls
from tutti.features.vocabulary import MOODS, TICKS_PER_QUARTER

STEP_TICKS = TICKS_PER_QUARTER // 4
MOST_QUARTERS, MOST_WINDOWS = 10_000, 20


@st.composite
def marks(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Consecutive rolls that music can have: what begins sounds, what sounds on sounded before, drums are hits."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 3)), *SHAPE)
    density, again = draw(st.sampled_from((0.0, 1e-4, 0.01, 0.6))), draw(st.sampled_from((0.0, 0.2, 1.0)))
    found = random.random(shape) < density
    # With a margin, so that transposition finds room.
    margin = draw(st.sampled_from((0, 6)))
    found[..., :margin, DRUMS + 1 :] = found[..., PITCHES - margin :, DRUMS + 1 :] = False
    sounds = found[:, SOUNDS].reshape(-1, *SHAPE[3:])
    before = np.concatenate((np.zeros_like(sounds[:1]), sounds[:-1]))
    begins = sounds & (~before | (random.random(sounds.shape) < again))
    begins[..., DRUMS] = sounds[..., DRUMS]
    found[:, SOUNDS], found[:, BEGINS] = (part.reshape(found[:, SOUNDS].shape) for part in (sounds, begins))
    return found


@st.composite
def exact_scores(draw: st.DrawFn) -> tuple[Score, NDArray[np.int64]]:
    """Scores in 4/4 in normal form, and a track for each note."""
    bars = BARS * draw(st.integers(1, 3))
    notes = dict[tuple[int, int, int], int]()
    for _ in range(draw(st.integers(1, 40))):
        track = draw(st.integers(0, len(TRACKS) - 1))
        pitch = draw(st.one_of(st.integers(60, 62), st.integers(LOWEST_PITCH, LOWEST_PITCH + PITCHES - 1)))
        step = draw(st.integers(0, bars * STEPS - 1))
        notes[track, pitch, step] = 1 if track == DRUMS else draw(st.integers(1, 40))
    # Something must begin in the last bar, or the score has fewer.
    notes[0, 36, bars * STEPS - 1] = 1
    rows = sorted((*key, length) for key, length in notes.items())
    ends = [
        min(step + length, bars * STEPS, after[2] if after and after[:2] == (track, pitch) else bars * STEPS)
        for (track, pitch, step, length), after in zip(rows, [*rows[1:], None], strict=True)
    ]
    columns = np.array([(*row[:3], end - row[2]) for row, end in zip(rows, ends, strict=True)])
    track, pitch, step, length = columns.T
    order = np.lexsort((length, pitch, np.array(roll.PROGRAMS)[track], step))
    made = Notes.of(
        onset_ticks=step * STEP_TICKS,
        duration_ticks=length * STEP_TICKS,
        pitch=pitch,
        velocity=np.full(len(rows), roll.VELOCITY),
        program=np.array(roll.PROGRAMS)[track],
        track=track,
    ).take(order)
    return Score.of(made, ticks_per_quarter=TICKS_PER_QUARTER, tempos=[(0, 96.0)]), track[order]


def together(rolls: Rolls) -> NDArray[np.bool_]:
    lengths = np.array([len(tokens) for tokens in rolls.tokens])
    return roll.dense(np.concatenate(rolls.tokens), lengths=lengths)[1]


def score_again(rolls: Rolls) -> Score:
    return roll.score_of(together(rolls), tempo_qpm=96.0)


@given(exact_scores())
def test_music_in_normal_form_comes_back_note_by_note(drawn: tuple[Score, NDArray[np.int64]]) -> None:
    score, tracks = drawn
    again = score_again(roll.rolls_of(score, tracks=tracks, mood="calm", hop_bars=BARS))
    assert again.same_music(score)


@given(marks())
def test_rolls_come_back_from_the_score_that_they_say(drawn: NDArray[np.bool_]) -> None:
    score = roll.score_of(drawn, tempo_qpm=96.0)
    # Bars after the last onset are no part of a score.
    windows = int(score.notes.onset_ticks.max(initial=0)) // (BARS * STEPS * STEP_TICKS) + 1
    score = with_last_bar(score, windows=windows)
    again = together(roll.rolls_of(score, tracks=score.notes.track.astype(int), mood="sad", hop_bars=BARS))
    again[-1, :, -1, -1, 0, DRUMS] = drawn[windows - 1, :, -1, -1, 0, DRUMS]
    assert_array_equal(again, drawn[:windows])


def with_last_bar(score: Score, *, windows: int) -> Score:
    """With a hit of the lowest drum in the last step of so many windows."""
    columns = {name: getattr(score.notes, name) for name in score.notes.__dataclass_fields__}
    extra = {
        "onset_ticks": (windows * BARS * STEPS - 1) * STEP_TICKS, "duration_ticks": STEP_TICKS,
        "pitch": LOWEST_PITCH, "velocity": 1, "program": DRUM_PROGRAM, "track": DRUMS,
    }  # fmt: skip
    notes = Notes.of(**{name: np.append(column, extra[name]) for name, column in columns.items()})
    return Score.of(notes, ticks_per_quarter=score.ticks_per_quarter, tempos=[(0, 96.0)])


@given(scores(), st.integers(1, BARS), st.sampled_from(MOODS))
def test_any_music_becomes_rolls_whose_marks_agree(score: Score, hop_bars: int, mood: str) -> None:
    assume(score.end_ticks / score.ticks_per_quarter < MOST_QUARTERS)
    tracks = roll.tracks_of(score.notes)
    assert_array_equal(tracks == DRUMS, score.notes.program == DRUM_PROGRAM)
    rolls = roll.rolls_of(score, tracks=tracks, mood=mood, hop_bars=hop_bars)
    if not rolls.tokens:
        return
    classes, found = _dense(rolls.tokens[:MOST_WINDOWS])
    assert_array_equal(classes[:, 0], roll.CLASSES["mood"].index(mood))
    sounds, begins = found[:, SOUNDS], found[:, BEGINS]
    assert not (begins & ~sounds).any()
    held = sounds[:, :, 1:] & ~begins[:, :, 1:]
    assert not (held & ~sounds[:, :, :-1]).any(), "what sounds on, sounded a step before"
    assert not (sounds & ~begins)[..., DRUMS].any()
    assert all(np.all(np.diff(tokens[roll.HEAD_TOKENS :].astype(int)) > 0) for tokens in rolls.tokens)


@given(marks())
def test_sparse_is_the_inverse_of_dense(drawn: NDArray[np.bool_]) -> None:
    classes = np.array([[number % 6, number % 8] for number in range(len(drawn))])
    again_classes, again = _dense(roll.sparse(classes, drawn))
    assert_array_equal(again_classes, classes)
    assert_array_equal(again, drawn)


@given(marks(), st.data())
def test_transposition_moves_pitches_and_nothing_else(drawn: NDArray[np.bool_], data: Any) -> None:
    semitones = np.array([data.draw(st.integers(-6, 6)) for _ in drawn])
    classes = np.tile([1, 2], (len(drawn), 1))
    tokens = roll.sparse(classes, drawn)
    lengths = np.array([len(each) for each in tokens])
    moved = roll.transposed(np.concatenate(tokens), lengths=lengths, semitones=semitones)
    again_classes, again = roll.dense(moved, lengths=lengths)
    assert_array_equal(again_classes, classes)
    assert_array_equal(again[..., DRUMS], drawn[..., DRUMS])
    for before, after, by in zip(drawn, again, semitones.tolist(), strict=True):
        pitched = before[..., DRUMS + 1 :]
        wanted = np.roll(pitched, by, axis=-2)
        at_edge = pitched[..., PITCHES - by :, :] if by > 0 else pitched[..., : -by or 0, :]
        assert_array_equal(after[..., DRUMS + 1 :], pitched if at_edge.any() else wanted)
    # Sorted as encoding sorts them, so that equal rolls are equal bytes.
    assert_array_equal(moved, np.concatenate(roll.sparse(again_classes, again)))


def _dense(tokens: list[NDArray[np.uint16]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    return roll.dense(np.concatenate(tokens), lengths=np.array([len(each) for each in tokens]))
