"""Laws of the spectrogram: energy is kept, time moves with the sound, a tone lies where its frequency is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.errors import RecipeError
from tutti.features.spectral import Floats, MelScale, chroma, log_mel, mel_weights, power_spectrogram

RATE_HZ = 44_100
SMALL = MelScale(n_fft=512, hop_samples=128, n_mels=20, fmin_hz=100, fmax_hz=8000)
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def sine(hertz: float, *, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> Floats:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)


@given(SEEDS, st.integers(1, 3000), st.sampled_from([(256, 64), (512, 512), (1000, 300)]))
def test_the_bins_of_a_frame_add_up_to_its_windowed_mean_square(seed: int, length: int, sizes: tuple[int, int]) -> None:
    n_fft, hop_samples = sizes
    samples_S = noise(seed, length)
    power_FK = power_spectrogram(samples_S, n_fft=n_fft, hop_samples=hop_samples)
    assert power_FK.shape == (1 + length // hop_samples, 1 + n_fft // 2)
    window_W = np.hanning(n_fft + 1)[:-1]
    padded_S = np.concatenate((np.zeros(n_fft // 2), samples_S, np.zeros(n_fft)))
    for frame, power_K in enumerate(power_FK):
        framed_W = padded_S[frame * hop_samples :][:n_fft] * window_W
        expected = np.square(framed_W).sum() / np.square(window_W).sum()
        assert power_K.sum() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@given(SEEDS, st.integers(1, 4), st.integers(600, 3000))
def test_a_shift_by_hops_shifts_the_frames(seed: int, hops: int, length: int) -> None:
    samples_S = noise(seed, length)
    later_S = np.concatenate((np.zeros(hops * SMALL.hop_samples, np.float32), samples_S))
    mel_FM = log_mel(samples_S, sample_rate_hz=RATE_HZ, scale=SMALL)
    shifted_FM = log_mel(later_S, sample_rate_hz=RATE_HZ, scale=SMALL)
    assert shifted_FM.shape == (len(mel_FM) + hops, SMALL.n_mels)
    assert np.allclose(shifted_FM[hops:], mel_FM, atol=1e-2)


@given(SEEDS, st.integers(0, 3), st.integers(0, 3), st.integers(1, 2000))
def test_many_at_once_are_each_alone(seed: int, clips: int, channels: int, length: int) -> None:
    samples_BCS = noise(seed, clips, channels, length)
    mel_BCFM = log_mel(samples_BCS, sample_rate_hz=RATE_HZ, scale=SMALL)
    assert mel_BCFM.shape == (clips, channels, 1 + length // SMALL.hop_samples, SMALL.n_mels)
    assert mel_BCFM.dtype == np.float32
    for clip in range(clips):
        for channel in range(channels):
            alone_FM = log_mel(samples_BCS[clip, channel], sample_rate_hz=RATE_HZ, scale=SMALL)
            assert np.array_equal(mel_BCFM[clip, channel], alone_FM)


@given(SEEDS, st.floats(1, 40))
def test_decibels_follow_the_gain(seed: int, gain_db: float) -> None:
    samples_S = noise(seed, 2000)
    quiet_FM, loud_FM = (
        log_mel(samples_S * np.float32(10 ** (db / 20)), sample_rate_hz=RATE_HZ, scale=SMALL) for db in (-gain_db, 0.0)
    )
    assert np.allclose(loud_FM - quiet_FM, gain_db, atol=0.01)


def test_a_long_recording_has_the_frames_of_its_parts() -> None:
    samples_S = noise(1, 400 * SMALL.hop_samples)
    whole_FM = log_mel(samples_S, sample_rate_hz=RATE_HZ, scale=SMALL)
    part_FM = log_mel(samples_S[250 * SMALL.hop_samples :], sample_rate_hz=RATE_HZ, scale=SMALL)
    assert np.allclose(whole_FM[255:], part_FM[5:], atol=1e-2)


def test_silence_reads_the_floor() -> None:
    assert (log_mel(np.zeros((2, 5000), np.float32), sample_rate_hz=RATE_HZ) == -120).all()
    assert (log_mel(noise(0, 5000) * np.float32(1e-9), sample_rate_hz=RATE_HZ) == -120).all()


@pytest.mark.parametrize("band", [3, 20, 60, 100, 125])
def test_a_sine_lands_in_the_band_around_it(band: int) -> None:
    weights_KM = mel_weights(RATE_HZ, scale=MelScale())
    hertz = np.arange(1025) * RATE_HZ / 2048
    centre_hz = float(np.average(hertz, weights=weights_KM[:, band]))
    mel_FM = log_mel(sine(centre_hz), sample_rate_hz=RATE_HZ)
    assert (mel_FM[5:-5].argmax(axis=1) == band).all()


def test_bands_are_slaneys() -> None:
    # Edges of 40 filters after librosa.mel_frequencies: 66.7 Hz a mel to 1 kHz, then 27 steps to 6.4 kHz.
    scale = MelScale(n_fft=1 << 16, n_mels=41, fmin_hz=0, fmax_hz=6400)
    weights_KM = mel_weights(22_050, scale=scale)
    hertz = np.arange(len(weights_KM)) * 22_050 / scale.n_fft
    peaks_hz = hertz[weights_KM.argmax(axis=0)]
    expected_hz = [*(200 / 3 * np.arange(1, 15)), *(1000 * 6.4 ** (np.arange(27) / 27))]
    assert np.allclose(peaks_hz, expected_hz, atol=0.5)
    assert np.allclose(weights_KM.sum(axis=0) * 22_050 / scale.n_fft, 1, rtol=1e-3)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (MelScale(fmax_hz=23_000), "mel bands from 20 to 23000 Hz do not fit a rate of 44100 Hz: end them at 22050 Hz"),
        (MelScale(n_fft=256), "128 mel bands are more than a window of 256 samples can tell apart"),
    ],
)
def test_bands_that_cannot_be_are_refused(odd: MelScale, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        log_mel(noise(0, 5000), sample_rate_hz=RATE_HZ, scale=odd)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("pitch", [43, 48, 57, 60, 66, 70, 81, 95])
def test_a_sine_sounds_its_pitch_class(pitch: int, rate_hz: int) -> None:
    chroma_F12 = chroma(sine(440 * 2 ** ((pitch - 69) / 12), rate_hz=rate_hz), sample_rate_hz=rate_hz)
    heard = chroma_F12.sum(axis=0)
    assert heard.argmax() == pitch % 12
    assert heard.max() > 0.95 * heard.sum()


def test_a_chord_sounds_its_pitch_classes_and_silence_none() -> None:
    chord_S = sum(sine(440 * 2 ** ((pitch - 69) / 12)) for pitch in (60, 64, 67)) / np.float32(3)
    heard = chroma(chord_S, sample_rate_hz=RATE_HZ).sum(axis=0)
    assert set(np.argsort(heard)[-3:].tolist()) == {0, 4, 7}
    assert not chroma(np.zeros(9000, np.float32), sample_rate_hz=RATE_HZ).any()
