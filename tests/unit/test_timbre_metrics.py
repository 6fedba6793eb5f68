from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.notes import played
from tutti.features.spectra import SpectrumScale, to_spectra
from tutti.metrics.timbre import (
    compared,
    embedded,
    frechet_distance,
    halves_distance,
    log_spectral_distance_db,
    pitch_accuracy,
    pitch_errors_cents,
)

RATE_HZ = 16_000
SCALE = SpectrumScale(sample_rate_hz=RATE_HZ, n_fft=2048, bins=128, frames=32)
PITCHES = np.arange(40, 80)


def notes(program: int, pitches: NDArray[np.int64] = PITCHES) -> NDArray[np.float32]:
    return np.stack([played(program=program, pitch=pitch, rate_hz=RATE_HZ, seconds=1.1) for pitch in pitches.tolist()])


@pytest.fixture(scope="module")
def piano() -> NDArray[np.float32]:
    return notes(0)


@pytest.fixture(scope="module")
def violin() -> NDArray[np.float32]:
    return notes(40)


def test_notes_are_in_tune_with_their_own_pitch_and_with_no_other(piano: NDArray[np.float32]) -> None:
    errors = pitch_errors_cents(piano, pitch_B=PITCHES, sample_rate_hz=RATE_HZ)
    assert np.abs(errors).max() < 15
    assert pitch_accuracy(piano, pitch_B=PITCHES, sample_rate_hz=RATE_HZ) == 1
    assert pitch_accuracy(piano, pitch_B=PITCHES + 1, sample_rate_hz=RATE_HZ) == 0
    asked = np.where(np.arange(len(PITCHES)) % 4 == 0, PITCHES + 12, PITCHES)
    assert pitch_accuracy(piano, pitch_B=asked, sample_rate_hz=RATE_HZ) == 0.75


def test_a_note_without_a_pitch_is_wrong(piano: NDArray[np.float32]) -> None:
    sounds_BS = np.stack((piano[0], np.random.default_rng(0).normal(0, 0.1, piano.shape[1]), 0 * piano[0]))
    errors = pitch_errors_cents(sounds_BS.astype(np.float32), pitch_B=PITCHES[:3], sample_rate_hz=RATE_HZ)
    assert np.isnan(errors).tolist() == [False, True, True]
    assert pitch_accuracy(sounds_BS.astype(np.float32), pitch_B=PITCHES[:3], sample_rate_hz=RATE_HZ) == pytest.approx(
        1 / 3
    )


def test_an_embedding_hears_no_loudness(piano: NDArray[np.float32]) -> None:
    loud, soft = (embedded(piano * np.float32(gain), sample_rate_hz=RATE_HZ) for gain in (1, 0.02))
    assert loud.shape == (len(PITCHES), 30)
    assert np.allclose(loud, soft, atol=0.01)


def test_the_distance_tells_instruments_apart(piano: NDArray[np.float32], violin: NDArray[np.float32]) -> None:
    pianos, violins = (embedded(sound, sample_rate_hz=RATE_HZ) for sound in (piano, violin))
    halves = halves_distance(pianos)
    assert halves_distance(pianos) == halves
    assert frechet_distance(pianos, violins) > 3 * max(halves, halves_distance(violins))
    assert frechet_distance(pianos, violins) == pytest.approx(frechet_distance(violins, pianos), rel=1e-3)
    assert frechet_distance(pianos, pianos) == pytest.approx(0, abs=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_distance_is_that_of_gaussians(seed: int, size: int) -> None:
    drawn = np.random.default_rng(seed)
    some = drawn.normal(0, 1, (20, size))
    shift, factor = drawn.normal(0, 3, size), drawn.uniform(0.2, 4)
    assert frechet_distance(some, some + shift) == pytest.approx(shift @ shift, rel=1e-6, abs=1e-6)
    scaled = some.mean(axis=0) + factor * (some - some.mean(axis=0))
    spread = np.var(some, axis=0, ddof=1).sum()
    assert frechet_distance(some, scaled) == pytest.approx((factor - 1) ** 2 * spread, rel=1e-5, abs=1e-6)
    assert math.isnan(frechet_distance(some, some[:1]))


def test_the_log_spectral_distance_is_in_decibels(piano: NDArray[np.float32], violin: NDArray[np.float32]) -> None:
    def apart(others_BS: NDArray[np.float32]) -> NDArray[np.float64]:
        return log_spectral_distance_db(piano, others_BS, sample_rate_hz=RATE_HZ)

    assert np.allclose(apart(piano * np.float32(0.1)), 0, atol=1e-3), "level does not count"
    assert apart(violin).mean() > 8
    noise_BS = np.random.default_rng(0).normal(0, 1, (1, RATE_HZ)).astype(np.float32)
    half_BS = noise_BS.copy()
    half_BS[:, RATE_HZ // 2 :] *= 0.5
    # 6 dB between the halves, 3.98 dB under full power and 2.04 dB over half of it.
    mean_db = (10 * np.log10(1 / 0.625) + 10 * np.log10(0.625 / 0.25)) / 2
    assert log_spectral_distance_db(noise_BS, half_BS, sample_rate_hz=RATE_HZ)[0] == pytest.approx(mean_db, abs=0.1)


def test_real_notes_beside_themselves_and_beside_a_poor_generators(
    piano: NDArray[np.float32], violin: NDArray[np.float32]
) -> None:
    sounds_BS, pitch_B = np.concatenate((piano, violin)), np.concatenate((PITCHES, PITCHES))
    real_B2KF = to_spectra(sounds_BS, scale=SCALE)
    same = compared(real_B2KF, real_B2KF, pitch_B=pitch_B, scale=SCALE)
    assert same["pitch_accuracy"] == same["real_pitch_accuracy"] == 1
    assert same["pitch_cents"] < 10
    assert same["timbre_distance"] == pytest.approx(0, abs=1e-2)
    assert same["real_timbre_distance"] > 0
    shifted = compared(real_B2KF, np.roll(real_B2KF, 1, axis=0), pitch_B=pitch_B, scale=SCALE)
    assert shifted["pitch_accuracy"] == 0
    assert shifted["timbre_distance"] == pytest.approx(0, abs=1e-2), "pitch and timbre are measured apart"
    poor_B2KF = np.random.default_rng(0).uniform(-1, 1, real_B2KF.shape).astype(np.float32)
    poor = compared(real_B2KF, poor_B2KF, pitch_B=pitch_B, scale=SCALE)
    assert poor["pitch_accuracy"] < 0.2
    assert poor["timbre_distance"] > 5 * poor["real_timbre_distance"]
