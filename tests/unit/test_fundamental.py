from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.notes import PROGRAMS, played
from tutti.features.fundamental import PERIODIC, fundamental, hertz_of, note_pitch, pitch_of
from tutti.features.single_notes import single_notes

RATE_HZ = 16_000
Floats = NDArray[np.float32]


def tone(pitch: float, *, harmonics: range, rate_hz: int = RATE_HZ, noise: float = 0.0, seconds: float = 0.6) -> Floats:
    time_S = np.arange(round(seconds * rate_hz)) / rate_hz
    hertz = float(hertz_of(np.array(pitch)))
    tones = [np.sin(2 * np.pi * h * hertz * time_S + h * h) / h for h in harmonics if h * hertz < 0.45 * rate_hz]
    sound_S = np.sum(tones, axis=0) + np.random.default_rng(0).normal(0, 1, len(time_S)) * noise
    return (0.2 * sound_S).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("harmonics", [range(1, 2), range(1, 30)])
def test_the_pitch_of_a_tone_is_told_within_two_cents(rate_hz: int, harmonics: range) -> None:
    for pitch in np.arange(24, 96, 2.37):
        heard = note_pitch(tone(pitch, harmonics=harmonics, rate_hz=rate_hz, noise=0.01), sample_rate_hz=rate_hz)
        assert abs(heard - pitch) < 0.02, pitch


def test_a_fundamental_that_is_missing_is_heard_from_its_harmonics() -> None:
    assert note_pitch(tone(45, harmonics=range(2, 20)), sample_rate_hz=RATE_HZ) == pytest.approx(45, abs=0.02)


@pytest.mark.parametrize("program", PROGRAMS)
def test_played_notes_have_the_pitch_of_their_key(program: int) -> None:
    for pitch in range(24, 85, 12):
        heard = note_pitch(played(program=program, pitch=pitch, rate_hz=RATE_HZ), sample_rate_hz=RATE_HZ)
        assert abs(heard - pitch) < 0.15, pitch


def test_noise_and_silence_have_no_pitch() -> None:
    noise_S = np.random.default_rng(1).normal(0, 0.1, RATE_HZ).astype(np.float32)
    assert (fundamental(noise_S, sample_rate_hz=RATE_HZ).aperiodicity_F > PERIODIC).all()
    assert math.isnan(note_pitch(noise_S, sample_rate_hz=RATE_HZ))
    assert math.isnan(note_pitch(np.zeros(RATE_HZ, dtype=np.float32), sample_rate_hz=RATE_HZ))
    assert math.isnan(note_pitch(np.zeros(100, dtype=np.float32), sample_rate_hz=RATE_HZ))


def test_frequencies_and_pitches_are_each_others_inverse() -> None:
    pitches = np.linspace(0, 127, 50)
    assert np.allclose(pitch_of(hertz_of(pitches)), pitches)
    assert float(hertz_of(np.array(69.0))) == 440.0


def test_single_notes_are_found_where_they_begin_and_chords_and_runs_are_not() -> None:
    silence_S = np.zeros(4_000, dtype=np.float32)
    notes = [played(program=0, pitch=pitch, rate_hz=RATE_HZ, seconds=1.1) for pitch in (60, 64, 48)]
    chord_S = np.mean(notes, axis=0)
    power_chord_S = sum(played(program=0, pitch=pitch, rate_hz=RATE_HZ, seconds=1.1) for pitch in (55, 62, 67))
    run_S = np.concatenate([played(program=0, pitch=p, rate_hz=RATE_HZ, seconds=0.25) for p in (60, 62, 64, 65)])
    whole_S = np.concatenate([silence_S, notes[0], notes[1], silence_S, chord_S, power_chord_S, run_S, notes[2]])
    found = single_notes(whole_S, sample_rate_hz=RATE_HZ, length_s=1.0)
    assert [note.pitch for note in found] == [60, 64, 48]
    starts = np.array([note.start_samples for note in found])
    length = len(notes[0])
    expected = np.array([4_000, 4_000 + length, len(whole_S) - length])
    assert np.abs(starts - expected).max() <= 0.02 * RATE_HZ
    assert all(abs(note.cents) < 15 for note in found)
    assert single_notes(whole_S[: RATE_HZ // 2], sample_rate_hz=RATE_HZ, length_s=1.0) == []
