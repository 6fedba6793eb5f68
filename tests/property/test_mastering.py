from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from tutti.errors import InputError
from tutti.render.mastering import (
    LOUDNESS_LUFS,
    LOUDNESS_TOLERANCE_LU,
    TRUE_PEAK_DBTP,
    master,
    measure_loudness_lufs,
    measure_true_peak_dbtp,
)

RATE_HZ = 44_100
# Four-fold oversampling may miss 0.688 dB next to half the rate (BS.1770-4 Annex 2), and interpolating filters as short
# as the standard's fade over the highest tenth of the band, which white noise and squares fill and music does not.
LARGEST_UNDER_READING_DB = 1.5
# Radians a sample. A burst that turns its sign at every sample lies on half the rate itself: how high it rises between
# samples depends on the length of whichever filter looks, without bound, and no converter plays it.
_SINE_RADIANS = st.floats(0.001, 0.9 * math.pi)
_SQUARE_RADIANS = st.floats(0.001, 0.2 * math.pi)


def sine(hertz: float, *, length_s: float, peak: float = 1.0) -> NDArray[np.float32]:
    wave = peak * np.sin(2 * np.pi * hertz * np.arange(round(length_s * RATE_HZ)) / RATE_HZ)
    return np.repeat(wave[:, None], 2, axis=1).astype(np.float32)


@st.composite
def sounds(draw: st.DrawFn) -> NDArray[np.float32]:
    """Up to two seconds of noise bursts, clicks and sines at any level from nearly silent to far too loud."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    length = draw(st.integers(1, 2 * RATE_HZ))
    audio_SC = np.zeros((length, draw(st.sampled_from([1, 2]))))
    for _ in range(draw(st.integers(1, 6))):
        at, size = draw(st.integers(0, length - 1)), draw(st.integers(1, RATE_HZ))
        part_SC = audio_SC[at : at + size]
        level = 10 ** draw(st.floats(-4, 1))
        match draw(st.sampled_from(["noise", "click", "sine", "square"])):
            case "noise":
                part_SC += level * random.normal(size=part_SC.shape)
            case "click":
                part_SC[0] += level * draw(st.sampled_from([-1, 1]))
            case "sine":
                part_SC += level * np.sin(np.arange(len(part_SC)) * draw(_SINE_RADIANS))[:, None]
            case _:
                part_SC += level * np.sign(np.sin(np.arange(len(part_SC)) * draw(_SQUARE_RADIANS)))[:, None]
    assume(np.abs(audio_SC).max() > 1e-4)
    return audio_SC.astype(np.float32)


def oversampled_peak_dbtp(audio_SC: NDArray[np.float32]) -> float:
    """The true peak by another road: band-limited interpolation of the whole signal by Fourier transform."""
    padded = np.pad(audio_SC, ((64, 64), (0, 0)))
    return float(20 * np.log10(np.abs(signal.resample(padded, 8 * len(padded), axis=0)).max()))


@settings(max_examples=60)
@given(audio_SC=sounds())
@example(audio_SC=np.ones((1, 2), dtype=np.float32))
@example(audio_SC=np.eye(4, 1, dtype=np.float32))
@example(audio_SC=sine(11_025.0, length_s=0.3, peak=4.0))
def test_the_true_peak_never_passes_the_limit(audio_SC: NDArray[np.float32]) -> None:
    mastered = master(audio_SC, sample_rate_hz=RATE_HZ)
    assert mastered.audio_SC.dtype == np.float32
    assert mastered.audio_SC.shape == audio_SC.shape
    assert mastered.true_peak_dbtp <= TRUE_PEAK_DBTP
    assert measure_true_peak_dbtp(mastered.audio_SC) == pytest.approx(mastered.true_peak_dbtp, abs=0.01)
    assert oversampled_peak_dbtp(mastered.audio_SC) <= TRUE_PEAK_DBTP + LARGEST_UNDER_READING_DB
    reached = measure_loudness_lufs(mastered.audio_SC, sample_rate_hz=RATE_HZ)
    assert mastered.loudness_lufs == pytest.approx(reached, abs=0.05)
    assert mastered.loudness_lufs <= LOUDNESS_LUFS + LOUDNESS_TOLERANCE_LU


@settings(max_examples=20)
@given(
    level=st.floats(-80, 20),
    loudness=st.floats(-30, -10),
    limit=st.floats(-6, 0),
    length_s=st.floats(0.5, 3),
)
def test_noise_at_any_level_meets_both_targets(level: float, loudness: float, limit: float, length_s: float) -> None:
    random = np.random.default_rng(0)
    audio_SC = (10 ** (level / 20) * random.normal(size=(round(length_s * RATE_HZ), 2))).astype(np.float32)
    mastered = master(audio_SC, sample_rate_hz=RATE_HZ, loudness_lufs=loudness, true_peak_dbtp=limit)
    assert abs(mastered.loudness_lufs - loudness) <= LOUDNESS_TOLERANCE_LU
    assert mastered.true_peak_dbtp <= limit


def test_a_sine_is_measured_as_the_standard_says() -> None:
    # BS.1770-4: a 997 Hz sine at 0 dBFS in one front channel reads -3.01 LKFS; in both, 3.01 LU more.
    assert measure_loudness_lufs(sine(997.0, length_s=2), sample_rate_hz=RATE_HZ) == pytest.approx(0.0, abs=0.1)
    # A quarter-rate sine whose samples miss the crests by 45 degrees: its true peak is 3.01 dB over its samples.
    wave = np.sin(np.pi / 2 * np.arange(RATE_HZ) + np.pi / 4).astype(np.float32)
    # Its abrupt ends overshoot by themselves: fade them, and only the crests between samples are left.
    wave[:500] *= np.linspace(0, 1, 500)
    wave[-500:] *= np.linspace(1, 0, 500)
    assert np.abs(wave).max() == pytest.approx(math.sqrt(0.5), abs=1e-4)
    assert measure_true_peak_dbtp(wave[:, None]) == pytest.approx(0.0, abs=0.1)


def test_the_peak_wins_over_loudness_and_the_result_says_so() -> None:
    click = np.zeros((RATE_HZ, 2), dtype=np.float32)
    click[RATE_HZ // 2] = 1
    mastered = master(click, sample_rate_hz=RATE_HZ)
    assert mastered.true_peak_dbtp <= TRUE_PEAK_DBTP
    assert mastered.loudness_lufs < LOUDNESS_LUFS - 5


def test_limiting_one_burst_leaves_what_is_far_from_it_alone() -> None:
    audio_SC = sine(300.0, length_s=4, peak=0.2)
    audio_SC[2 * RATE_HZ : 2 * RATE_HZ + 200] *= 5
    mastered = master(audio_SC, sample_rate_hz=RATE_HZ)
    gain_S = np.abs(mastered.audio_SC[:, 0]).reshape(-1, RATE_HZ // 20).max(axis=1)
    assert abs(mastered.loudness_lufs - LOUDNESS_LUFS) <= LOUDNESS_TOLERANCE_LU
    assert np.ptp(gain_S[1:38]) < 1e-3 * gain_S.max()
    assert np.ptp(gain_S[46:79]) < 1e-3 * gain_S.max()


def test_the_ends_are_faded_so_that_nothing_clicks() -> None:
    mastered = master(np.ones((RATE_HZ, 2), dtype=np.float32), sample_rate_hz=RATE_HZ)
    assert np.abs(mastered.audio_SC[[0, -1]]).max() < 0.03 * np.abs(mastered.audio_SC).max()


@pytest.mark.parametrize(
    ("audio_SC", "reason"),
    [
        (np.zeros((1000, 2), dtype=np.float32), "the audio is silent: its peak is under -100 dB"),
        (np.full((1000, 2), 1e-6, dtype=np.float32), "the audio is silent"),
        (np.full((1000, 2), np.nan, dtype=np.float32), "not finite"),
        (np.array([[1.0, -np.inf]], dtype=np.float32), "not finite"),
        (np.zeros((0, 2), dtype=np.float32), "shape (0, 2) is not samples by channels"),
        (np.ones(10, dtype=np.float32), "shape (10,) is not samples by channels"),
    ],
)
def test_what_cannot_be_mastered_is_refused(audio_SC: NDArray[np.float32], reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        master(audio_SC, sample_rate_hz=RATE_HZ)
