from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.notes import PROGRAMS, played
from tutti.features.fundamental import hertz_of, note_pitch
from tutti.features.spectra import FREQUENCY, LEVEL, SpectrumScale, centres_hz, extended, to_sound, to_spectra
from tutti.metrics.timbre import log_spectral_distance_db

RATE_HZ = 16_000
SCALE = SpectrumScale(sample_rate_hz=RATE_HZ, n_fft=2048, bins=128, frames=32)
PITCHES = (28, 43, 60, 79)
Floats = NDArray[np.float32]


def notes(program: int, *, seconds: float = 1.2) -> Floats:
    return np.stack([played(program=program, pitch=pitch, rate_hz=RATE_HZ, seconds=seconds) for pitch in PITCHES])


def sines(pitches: NDArray[np.float64], *, seconds: float = 1.2) -> Floats:
    time_S = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.sin(2 * np.pi * hertz_of(pitches)[:, None] * time_S).astype(np.float32)


def level_db(samples_S: Floats, *, start_s: float, stop_s: float) -> float:
    return 10 * float(np.log10(np.square(samples_S[round(start_s * RATE_HZ) : round(stop_s * RATE_HZ)]).mean()))


@pytest.mark.parametrize("program", PROGRAMS)
def test_sound_comes_back_from_pictures_in_tune_and_alike(program: int) -> None:
    samples_BS = notes(program)
    spectra_B2KF = to_spectra(samples_BS, scale=SCALE).astype(np.float16)
    assert np.abs(spectra_B2KF).max() <= 1
    back_BS = to_sound(spectra_B2KF.astype(np.float32), scale=SCALE, length_s=1.0)
    samples_BS = samples_BS[:, : back_BS.shape[1]]
    for pitch, before_S, after_S in zip(PITCHES, samples_BS, back_BS, strict=True):
        before, after = (note_pitch(samples_S, sample_rate_hz=RATE_HZ) for samples_S in (before_S, after_S))
        assert abs(after - before) < 0.06, pitch
    assert log_spectral_distance_db(samples_BS, back_BS, sample_rate_hz=RATE_HZ).max() < 3.8
    of_another = log_spectral_distance_db(samples_BS, back_BS[::-1], sample_rate_hz=RATE_HZ)
    assert of_another.min() > 5, "another note is no nearer than the note itself"


def test_a_tone_lies_where_its_frequency_is() -> None:
    pitches = np.arange(36.0, 100.0, 3.7)
    for pitch, spectrum_2KF in zip(pitches, to_spectra(sines(pitches), scale=SCALE), strict=True):
        loudest_F = spectrum_2KF[LEVEL].argmax(axis=0)
        frames = np.arange(4, SCALE.frames)
        place_F = spectrum_2KF[FREQUENCY, loudest_F[frames], frames]
        centres_K = np.concatenate(([0], centres_hz(SCALE), [RATE_HZ / 2]))
        reach_F = (centres_K[loudest_F[frames] + 2] - centres_K[loudest_F[frames]]) / 2
        told_F = centres_hz(SCALE)[loudest_F[frames]] + reach_F * place_F
        assert np.abs(1200 * np.log2(told_F / hertz_of(np.array(pitch)))).max() < 1, pitch


def test_loudness_does_not_change_a_picture_and_silence_has_one() -> None:
    samples_BS = notes(0)
    loud_B2KF, soft_B2KF = (to_spectra(samples_BS * np.float32(gain), scale=SCALE) for gain in (1.0, 0.01))
    assert np.allclose(loud_B2KF, soft_B2KF, atol=1e-3)
    silent_2KF = to_spectra(np.zeros((1, 100), dtype=np.float32), scale=SCALE)[0]
    assert silent_2KF.shape == SCALE.shape
    assert (silent_2KF[LEVEL] == -1).all()
    assert (silent_2KF[FREQUENCY] == 0).all()
    assert not to_sound(silent_2KF[None], scale=SCALE, length_s=0.5).any()


def test_a_sine_comes_back_as_loud_as_it_was() -> None:
    pitches = np.array([30.0, 45.0, 60.0, 81.0])
    samples_BS = sines(pitches)
    back_BS = to_sound(to_spectra(samples_BS, scale=SCALE), scale=SCALE, length_s=1.0)
    # The loudest bin stands for amplitude 1, and its neighbours hold the rest of the tone.
    levels = [level_db(back_S, start_s=0.2, stop_s=0.9) for back_S in back_BS]
    assert max(levels) - min(levels) < 2.5
    for back_S in back_BS:
        steps = [level_db(back_S, start_s=start, stop_s=start + 0.1) for start in np.arange(0, 0.9, 0.1)]
        assert max(steps) - min(steps) < 0.3, "it neither swells nor beats"
    for pitch, back_S in zip(pitches, back_BS, strict=True):
        phase_S = 2 * np.pi * hertz_of(pitch) * np.arange(RATE_HZ // 4) / RATE_HZ
        waves_S2, heard_S = np.stack((np.sin(phase_S), np.cos(phase_S)), axis=1), back_S[RATE_HZ // 4 : RATE_HZ // 2]
        rest_S = heard_S - waves_S2 @ np.linalg.lstsq(waves_S2, heard_S, rcond=None)[0]
        assert np.square(rest_S).sum() < 1e-3 * np.square(heard_S).sum(), "30 dB under the tone there is nothing else"


def test_a_struck_string_sounds_at_once_and_a_bowed_one_swells() -> None:
    for program, rises_db in ((0, -1.0), (48, 3.0)):
        samples_BS = notes(program)
        back_BS = to_sound(to_spectra(samples_BS, scale=SCALE), scale=SCALE, length_s=1.0)
        for before_S, after_S in zip(samples_BS, back_BS, strict=True):
            rise_db, back_db = (
                level_db(sound_S, start_s=0.3, stop_s=0.4) - level_db(sound_S, start_s=0.004, stop_s=0.044)
                for sound_S in (before_S, after_S)
            )
            assert abs(rise_db - back_db) < 7
            assert (back_db > 0) == (rises_db > 0)


def test_beyond_its_picture_a_piano_dies_away_and_a_violin_does_not() -> None:
    for program, fall_db in ((11, 12.0), (0, 12.0), (40, 0.0)):
        pitch = 60
        real_S = played(program=program, pitch=pitch, rate_hz=RATE_HZ, seconds=3.0)
        spectra_B2KF = to_spectra(real_S[None], scale=SCALE)
        long_S = to_sound(spectra_B2KF, scale=SCALE, length_s=3.0)[0]
        assert len(long_S) == 3 * RATE_HZ
        falls_db = [
            level_db(sound_S, start_s=0.6, stop_s=1.0) - level_db(sound_S, start_s=2.6, stop_s=3.0)
            for sound_S in (real_S, long_S)
        ]
        assert falls_db[0] == pytest.approx(falls_db[1], abs=6)
        assert falls_db[1] > fall_db - 2
        assert note_pitch(long_S[-RATE_HZ:], sample_rate_hz=RATE_HZ) == pytest.approx(pitch, abs=0.12)
        short_S = to_sound(spectra_B2KF, scale=SCALE, length_s=0.5)[0]
        assert np.allclose(short_S, long_S[: len(short_S)], atol=1e-5), "what is short is the beginning of what is long"


@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_any_picture_sounds(seed: int, frames: int) -> None:
    scale = SpectrumScale(sample_rate_hz=8_000, n_fft=256, bins=16, frames=8)
    drawn = np.random.default_rng(seed)
    spectra_B2KF = drawn.uniform(-1.5, 1.5, (3, *scale.shape)).astype(np.float32)
    spectra_B2KF[drawn.random(spectra_B2KF.shape) < 0.5] = -1
    length_s = frames * scale.hop_samples / scale.sample_rate_hz
    sound_BS = to_sound(spectra_B2KF, scale=scale, length_s=length_s)
    assert sound_BS.shape == (3, frames * scale.hop_samples)
    assert np.isfinite(sound_BS).all()
    alone_S = to_sound(spectra_B2KF[1:2], scale=scale, length_s=length_s)[0]
    assert np.allclose(alone_S, sound_BS[1], atol=1e-5), "notes do not know of each other"
    longer_B2KF = extended(np.clip(spectra_B2KF, -1, 1), frames=frames, scale=scale)
    assert longer_B2KF.shape[-1] == frames
    assert np.abs(longer_B2KF).max() <= 1
