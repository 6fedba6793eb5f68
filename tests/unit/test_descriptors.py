"""Descriptors of scores whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.scores import read_scores
from tutti.corpus.sources import music21_folder
from tutti.features.descriptors import describe, estimate_key
from tutti.features.mood import Cues, estimate_mood, mood_word
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
MIDDLE = Cues(mode_lean=0.0, onsets_per_s=3.03, velocity=80.0, pitch=62.0, legato=0.95)


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
    found = describe(Score.of(notes, ticks_per_quarter=TICKS, tempos=[(0, 60.0)]))
    assert found["notes"] == 4
    assert found["length_s"] == pytest.approx(6.0)
    # From quarter 2 to 6; quarter 4 to 5 is silent.
    assert found["notes_per_quarter"] == pytest.approx(1.0)
    assert found["polyphony"] == pytest.approx(5 / 3)
    assert (found["pitch_low"], found["pitch_high"]) == (48, 72)
    assert found["mood_source"] == "estimate"


def test_descriptors_are_columns_of_the_works_table() -> None:
    assert set(describe(cadence(60, minor=False))) < set(WORKS.names)


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
    found = describe(score)
    figures = [value for value in found.values() if isinstance(value, float | int)]
    assert np.all(np.isfinite(figures))
    assert 0 <= found["key_confidence"] <= 2
    assert -1 <= found["valence"] <= 1
    assert -1 <= found["arousal"] <= 1
    assert found["notes_per_quarter"] <= max(len(score.notes), 1)
    if set(score.notes.program.tolist()) <= {DRUM_PROGRAM}:
        assert (found["key"], found["key_confidence"], found["pitch_low"], found["pitch_high"]) == ("C major", 0, 0, 0)


def test_each_cue_moves_the_mood_as_the_literature_says() -> None:
    valence, arousal = estimate_mood(MIDDLE)
    assert abs(valence) < 0.02
    assert abs(arousal) < 0.02

    def moved(**cue: float) -> tuple[float, float]:
        values = {name: getattr(MIDDLE, name) for name in Cues.__slots__}
        return estimate_mood(Cues(**{**values, **cue}))

    assert moved(mode_lean=1.0)[0] > 0.5 > -0.5 > moved(mode_lean=-1.0)[0]
    assert moved(onsets_per_s=8.0)[1] > 0.3 > -0.3 > moved(onsets_per_s=1.0)[1]
    assert moved(velocity=110.0)[1] > arousal > moved(velocity=40.0)[1]
    assert moved(pitch=75.0)[0] > valence > moved(pitch=50.0)[0]
    assert moved(legato=0.4)[1] > arousal


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
    fast = describe(chords(*[(72, 76, 79), (72, 77, 81), (71, 74, 79)] * 8, quarters=0.25))
    slow = describe(chords(*[(48, 51, 55), (48, 53, 56), (47, 50, 55)] * 8, quarters=4))
    assert mood_word(fast["valence"], fast["arousal"]) == "happy"
    assert mood_word(slow["valence"], slow["arousal"]) == "sad"
