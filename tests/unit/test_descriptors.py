"""Descriptors of scores whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.scores import read_scores
from tutti.corpus.sources import music21_folder
from tutti.features import rhythm
from tutti.features.descriptors import describe, describe_score, estimate_key
from tutti.features.mood import Cues, estimate_moods, mood_word
from tutti.features.vocabulary import MOODS
from tutti.tables import WORKS
from tutti.units import Key

TICKS = 480
# Chorales whose key nobody disputes: encoded key, music21's analysis and the last bass note agree.
CHORALES = {
    "bwv1.6": "F major",
    "bwv66.6": "F# minor",
    "bwv101.7": "D minor",
    "bwv103.6": "B minor",
    "bwv11.6": "D major",
}
MIDDLE = {
    "mode_lean": 0.0,
    "notes_per_s": 6.06,
    "moments_per_s": 3.36,
    "velocity": 64.0,
    "pitch": 62.0,
    "legato": 0.95,
}


def chords(*chords: tuple[int, ...], quarters: float = 1.0, program: int = 0) -> Score:
    """Chords one after the other."""
    length = round(quarters * TICKS)
    onset = np.repeat(np.arange(len(chords)) * length, [len(chord) for chord in chords])
    pitch = [key for chord in chords for key in chord]
    notes = Notes.of(onset_ticks=onset, duration_ticks=np.full(len(pitch), length), pitch=pitch, program=program)
    return Score.of(notes, ticks_per_quarter=TICKS)


def cadence(tonic: int, *, minor: bool) -> Score:
    third = tonic + (3 if minor else 4)
    sixth = tonic + (8 if minor else 9)
    home, subdominant = (tonic, third, tonic + 7), (tonic, tonic + 5, sixth)
    return chords(home, subdominant, (tonic - 1, tonic + 2, tonic + 5, tonic + 7), home)


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", range(12))
def test_a_cadence_tells_its_key(tonic: int, minor: bool) -> None:
    key, confidence = estimate_key(cadence(60 + tonic, minor=minor))
    assert key == Key(tonic, minor)
    assert confidence > 0.05


def test_long_notes_say_more_of_the_key_than_many_short_ones() -> None:
    passing = [66, 70, 73, 68, 71, 75, 65] * 4
    notes = Notes.of(
        onset_ticks=[*np.arange(len(passing)) * 10, 480, 480, 480],
        duration_ticks=[*np.full(len(passing), 10), *np.full(3, 8 * TICKS)],
        pitch=[*passing, 60, 64, 67],
    )
    assert estimate_key(Score.of(notes, ticks_per_quarter=TICKS))[0] == Key(0, minor=False)


@pytest.mark.parametrize(("name", "key"), CHORALES.items())
def test_chorales_tell_their_keys(name: str, key: str) -> None:
    (score,) = read_scores(music21_folder() / "bach" / f"{name}.mxl", tempo_without_mark_qpm=80.0)
    assert str(estimate_key(score)[0]) == key


def test_figures_of_a_small_piece() -> None:
    notes = Notes.of(
        onset_ticks=np.array([2, 2, 3, 5]) * TICKS,
        duration_ticks=np.array([2, 1, 1, 1]) * TICKS,
        pitch=[48, 64, 65, 72],
    )
    found = describe_score(Score.of(notes, ticks_per_quarter=TICKS, tempos=[(0, 60.0)]))
    assert found["notes"] == 4
    assert found["length_s"] == pytest.approx(6.0)
    # From quarter 2 to 6; quarter 4 to 5 is silent.
    assert found["notes_per_quarter"] == pytest.approx(1.0)
    assert found["polyphony"] == pytest.approx(5 / 3)
    assert (found["pitch_low"], found["pitch_high"]) == (48, 72)
    assert found["mood_source"] == "estimate"


def test_descriptors_are_columns_of_the_works_table() -> None:
    assert set(describe(ScoreBatch.of([cadence(60, minor=False)]))) < set(WORKS.names)


@pytest.mark.parametrize(
    "score",
    [
        Score.of(Notes.none(), ticks_per_quarter=TICKS),
        chords((60,)),
        chords((60,), quarters=1 / TICKS),
        chords((36, 42), (38,), program=DRUM_PROGRAM),
        chords(tuple(range(60, 72))),
    ],
    ids=["none", "one", "one tick", "drums", "chromatic cluster"],
)
def test_short_and_odd_pieces_get_sane_figures(score: Score) -> None:
    found = describe_score(score)
    figures = [value for value in found.values() if isinstance(value, float | int)]
    assert np.all(np.isfinite(figures))
    assert 0 <= found["key_confidence"] <= 2
    assert -1 <= found["valence"] <= 1
    assert -1 <= found["arousal"] <= 1
    assert found["notes_per_quarter"] <= max(len(score.notes), 1)
    if set(score.notes.program.tolist()) <= {DRUM_PROGRAM}:
        assert (found["key"], found["key_confidence"], found["pitch_low"], found["pitch_high"]) == ("C major", 0, 0, 0)


def mood(**cues: float) -> tuple[float, float]:
    valence, arousal = estimate_moods(Cues(**{name: np.array([value]) for name, value in {**MIDDLE, **cues}.items()}))
    return float(valence[0]), float(arousal[0])


def test_each_cue_moves_the_mood_as_the_literature_says() -> None:
    valence, arousal = mood()
    assert abs(valence) < 0.02
    assert abs(arousal) < 0.02
    assert mood(mode_lean=1.0)[0] > 0.5 > -0.5 > mood(mode_lean=-1.0)[0]
    assert mood(notes_per_s=16.0, moments_per_s=8.0)[1] > 0.3 > -0.3 > mood(notes_per_s=2.0, moments_per_s=1.0)[1]
    assert mood(velocity=110.0)[1] > 0.2 > -0.2 > mood(velocity=40.0)[1]
    assert mood(velocity=float("nan")) == mood(velocity=64.0)
    assert mood(pitch=75.0)[0] > valence > mood(pitch=50.0)[0]
    assert mood(pitch=float("nan")) == mood(pitch=62.0)
    assert mood(legato=0.4)[1] > arousal


def test_the_published_means_of_calm_and_excited_clips_fall_on_their_sides() -> None:
    # EMOPIA: tokens and seconds of the clips in each quadrant; 4.4 tokens a note in that encoding.
    excited = [1065 / 31.9 / 4.4, 1368 / 35.6 / 4.4]
    calm = [771 / 40.6 / 4.4, 729 / 38.2 / 4.4]
    assert min(mood(notes_per_s=rate, moments_per_s=rate / 1.8)[1] for rate in excited) > 0.05
    assert max(mood(notes_per_s=rate, moments_per_s=rate / 1.8)[1] for rate in calm) < -0.05


def test_moods_are_quadrants_around_a_neutral_middle() -> None:
    words = {
        (0.5, 0.5): "happy",
        (-0.5, 0.5): "tense",
        (-0.5, -0.5): "sad",
        (0.5, -0.5): "calm",
        (0.1, -0.1): "neutral",
    }
    assert {place: mood_word(*place) for place in words} == words
    assert set(words.values()) == set(MOODS)


def test_fast_major_is_happier_and_more_excited_than_slow_minor() -> None:
    fast = describe_score(chords(*[(72, 76, 79), (72, 77, 81), (71, 74, 79)] * 8, quarters=0.25))
    slow = describe_score(chords(*[(48, 51, 55), (48, 53, 56), (47, 50, 55)] * 8, quarters=4))
    assert mood_word(fast["valence"], fast["arousal"]) == "happy"
    assert mood_word(slow["valence"], slow["arousal"]) == "sad"


@st.composite
def pieces(draw: st.DrawFn) -> Score:
    count = draw(st.integers(0, 30))
    column = lambda low, high: draw(st.lists(st.integers(low, high), min_size=count, max_size=count))  # noqa: E731
    notes = Notes.of(
        onset_ticks=column(0, 9000),
        duration_ticks=column(1, 3000),
        pitch=column(20, 100),
        velocity=column(1, 127),
        program=[draw(st.sampled_from([0, 40, DRUM_PROGRAM])) for _ in range(count)],
        track=column(0, 2),
    )
    meters = draw(
        st.lists(st.sampled_from([(0, 4, 4), (0, 3, 8), (960, 3, 4), (2000, 5, 8), (5000, 2, 2)]), unique=True)
    )
    tempos = draw(st.lists(st.sampled_from([(0, 90.0), (1000, 60.0), (4444, 133.0)]), unique=True))
    return Score.of(notes, ticks_per_quarter=TICKS, tempos=tempos, meters=meters)


@given(st.lists(pieces(), min_size=1, max_size=5))
def test_pieces_described_together_are_described_as_each_alone(scores: list[Score]) -> None:
    together = describe(ScoreBatch.of(scores))
    for number, score in enumerate(scores):
        alone = describe_score(score)
        for name, value in alone.items():
            found = together[name][number].as_py()
            assert found == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), name


@given(pieces())
def test_bars_groove_and_emptiness_are_what_counting_bar_by_bar_gives(score: Score) -> None:
    batch = ScoreBatch.of([score])
    bars = rhythm.bars(batch)
    lines, patterns = bar_by_bar(score)
    assert bars.starts[-1] == len(lines)
    assert bars.steps.tolist() == [ticks * 24 // TICKS for _, ticks in lines]
    unlike = [
        len(patterns[bar] ^ patterns[bar + 1]) / max(bars.steps[bar], bars.steps[bar + 1])
        for bar in range(len(lines) - 1)
    ]
    assert rhythm.groove_consistency(bars)[0] == pytest.approx(1 - np.mean(unlike) if unlike else 1.0)
    onset = score.notes.onset_ticks
    end = onset + score.notes.duration_ticks
    until = [*(start for start, _ in lines[1:]), sum(lines[-1])] if lines else []
    empty = [not np.any((onset < stop) & (end > start)) for (start, _), stop in zip(lines, until, strict=True)]
    assert rhythm.empty_share(bars)[0] == pytest.approx(np.mean(empty) if empty else 0.0)


def bar_by_bar(score: Score) -> tuple[list[tuple[int, int]], list[set[int]]]:
    """Start and length of each bar in ticks, and the 24ths of a quarter at which it begins notes."""
    lines: list[tuple[int, int]] = []
    last = int(score.notes.onset_ticks.max()) if len(score.notes) else -1
    changes = [*score.meter_ticks.tolist()[1:], last + 1]
    for start, change, above, below in zip(
        score.meter_ticks.tolist(),
        changes,
        score.meter_numerator.tolist(),
        score.meter_denominator.tolist(),
        strict=True,
    ):
        length = 4 * TICKS * above // below
        lines += [(bar, length) for bar in range(start, min(change, last + 1), length)]
    patterns: list[set[int]] = [set() for _ in lines]
    for onset in score.notes.onset_ticks.tolist():
        bar = max(number for number, (start, _) in enumerate(lines) if start <= onset)
        patterns[bar].add((2 * (onset - lines[bar][0]) * 24 // TICKS + 1) // 2)
    return lines, patterns
