"""Sound as frames: the one log-mel spectrogram that every consumer takes, and chroma.

Legend: S samples, F frames, W samples of a window, K frequency bins, M mel bands; ``…`` any leading axes (clips,
channels). Samples lie in -1 to 1, float32 in and out. Frame f is centred on sample ``f * hop_samples``, with silence
before the first sample and after the last, so S samples have ``1 + S // hop_samples`` frames. Power is relative to full
scale: the bins of a frame add up to the mean square of its windowed samples (Parseval), whatever the window's length.

Mel bands: the scale and the triangles of equal area of M. Slaney (1998, "Auditory Toolbox", Interval technical report
1998-010), which librosa has made common. Chroma: interpolated spectral peaks vote for their pitch class, after E. Gómez
(2006, "Tonal Description of Music Audio Signals", chapter 3); we differ in that peaks above 500 Hz, mostly overtones,
lose weight in proportion to their frequency, and that tuning is A4 = 440 Hz.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from tutti.errors import RecipeError
from tutti.mel import hertz_of_mel, mel_of_hertz

Floats = NDArray[np.float32]

CHROMA_LOW_HZ, CHROMA_HIGH_HZ = 65.0, 4000.0

_CHROMA_WINDOW_S = 0.15
_CHROMA_FULL_WEIGHT_HZ = 500.0
_CHROMA_RANGE = 1e-6
_A4_HZ, _A4_PITCH = 440.0, 69
_FRAMES_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class MelScale:
    """What a log-mel spectrogram is made with.

    Args:
        n_fft: samples of the Hann window.
        hop_samples: samples from one frame to the next.
        n_mels: bands.
        fmin_hz, fmax_hz: lower edge of the first band, upper edge of the last.
        floor_db: what silence reads, in decibels of power per hertz relative to full scale.
    """

    n_fft: int = 2048
    hop_samples: int = 512
    n_mels: int = 128
    fmin_hz: float = 20.0
    fmax_hz: float = 16_000.0
    floor_db: float = -120.0


MEL_SCALE = MelScale()
"""For 44.1 and 48 kHz: 86 and 94 frames a second."""


def log_mel(samples: Floats, *, sample_rate_hz: int, scale: MelScale = MEL_SCALE) -> Floats:
    """Log-mel spectrogram: ``samples_…S`` to ``mel_…FM`` in decibels of power per hertz, never under the floor.

    Raises:
        RecipeError: a band above half of the sample rate, or so narrow that it holds no frequency bin.
    """
    weights_KM = mel_weights(sample_rate_hz, scale=scale)
    length = samples.shape[-1]
    mel_BFM = np.empty((samples[..., 0].size, 1 + length // scale.hop_samples, scale.n_mels), dtype=np.float32)
    for mel_FM, samples_S in zip(mel_BFM, samples.reshape(-1, length), strict=True):
        for first, power_FK in _power_blocks(samples_S, n_fft=scale.n_fft, hop_samples=scale.hop_samples):
            np.matmul(power_FK, weights_KM, out=mel_FM[first : first + len(power_FK)])
    np.maximum(mel_BFM, np.float32(10 ** (scale.floor_db / 10)), out=mel_BFM)
    np.log10(mel_BFM, out=mel_BFM)
    mel_BFM *= 10
    np.maximum(mel_BFM, np.float32(scale.floor_db), out=mel_BFM)
    return mel_BFM.reshape(*samples.shape[:-1], *mel_BFM.shape[1:])


def power_spectrogram(samples_S: Floats, *, n_fft: int, hop_samples: int) -> Floats:
    """Power of each frequency bin: ``samples_S`` to ``power_FK``, K = 1 + n_fft // 2 from 0 Hz to half the rate."""
    return np.concatenate([power for _, power in _power_blocks(samples_S, n_fft=n_fft, hop_samples=hop_samples)])


@lru_cache(maxsize=32)
def mel_weights(sample_rate_hz: int, *, scale: MelScale) -> Floats:
    """Slaney's triangles: ``weights_KM``, each column of area 1 over frequency in hertz.

    Raises:
        RecipeError: as :func:`log_mel`.
    """
    if not 0 <= scale.fmin_hz < scale.fmax_hz <= sample_rate_hz / 2:
        raise RecipeError(
            f"mel bands from {scale.fmin_hz:g} to {scale.fmax_hz:g} Hz do not fit a rate of {sample_rate_hz} Hz",
            remedy=f"end them at {sample_rate_hz / 2:g} Hz or below",
        )
    low, high = (float(mel_of_hertz(np.array(hertz))) for hertz in (scale.fmin_hz, scale.fmax_hz))
    edges_hz = hertz_of_mel(np.linspace(low, high, scale.n_mels + 2))
    bins_hz = np.arange(1 + scale.n_fft // 2)[:, None] * (sample_rate_hz / scale.n_fft)
    left, centre, right = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)
    weights_KM = np.clip(np.minimum(rising, falling), 0, None) * (2 / (right - left))
    if not weights_KM.any(axis=0).all():
        raise RecipeError(
            f"{scale.n_mels} mel bands are more than a window of {scale.n_fft} samples can tell apart",
            remedy="ask for fewer bands or a longer window",
        )
    return _frozen(weights_KM)


def chroma(samples_S: Floats, *, sample_rate_hz: int) -> Floats:
    """How strongly each pitch class sounds: ``samples_S`` to ``chroma_F12``, C to B, two windows overlapping by half.

    Peaks from 65 to 4,000 Hz count, by amplitude, if they are within 60 dB of the clip's largest. Zeros for silence.
    """
    n_fft = _power_of_two(_CHROMA_WINDOW_S * sample_rate_hz)
    power_FK = power_spectrogram(samples_S, n_fft=n_fft, hop_samples=n_fft // 2)
    hz_per_bin = sample_rate_hz / n_fft
    low, high = int(CHROMA_LOW_HZ / hz_per_bin), int(min(CHROMA_HIGH_HZ / hz_per_bin, n_fft // 2 - 1))
    level_FK = np.log(power_FK[:, low - 1 : high + 2] + np.float32(1e-20))
    below, here, above = level_FK[:, :-2], level_FK[:, 1:-1], level_FK[:, 2:]
    audible = np.log(max(float(power_FK[:, low : high + 1].max()) * _CHROMA_RANGE, 1e-18))
    frame, bin_ = np.nonzero((here > below) & (here >= above) & (here > audible))
    below, here, above = below[frame, bin_], here[frame, bin_], above[frame, bin_]
    shift = 0.5 * (below - above) / (below - 2 * here + above)
    hertz = (low + bin_ + shift) * hz_per_bin
    pitch = _A4_PITCH + 12 * np.log2(hertz / _A4_HZ)
    nearest = np.rint(pitch).astype(np.int64)
    votes = np.exp(here / 2) * np.square(np.cos(np.pi * (pitch - nearest)))
    votes *= np.minimum(1.0, _CHROMA_FULL_WEIGHT_HZ / hertz)
    chroma_F12 = np.bincount(frame * 12 + nearest % 12, weights=votes, minlength=12 * len(power_FK))
    return chroma_F12.reshape(-1, 12).astype(np.float32)


def _power_blocks(samples_S: Floats, *, n_fft: int, hop_samples: int) -> Iterator[tuple[int, Floats]]:
    """First frame and ``power_FK`` of some frames after the others: a bounded part of a long recording at once."""
    window_W = _hann(n_fft)
    padded_S = np.pad(np.asarray(samples_S, dtype=np.float32), n_fft // 2)
    frames_FW = np.lib.stride_tricks.sliding_window_view(padded_S, n_fft)[::hop_samples]
    frames_FW = frames_FW[: 1 + len(samples_S) // hop_samples]
    for first in range(0, len(frames_FW), _FRAMES_AT_ONCE):
        spectrum_FK = scipy.fft.rfft(frames_FW[first : first + _FRAMES_AT_ONCE] * window_W, axis=-1)
        power_FK = np.square(spectrum_FK.real)
        power_FK += np.square(spectrum_FK.imag)
        # Only the half with positive frequencies is held: all but the ends stand for two bins.
        power_FK[:, 1 : (n_fft + 1) // 2] *= 2
        yield first, power_FK


@lru_cache(maxsize=32)
def _hann(n_fft: int) -> Floats:
    """Periodic Hann window, scaled so that a frame's bins add up to its windowed mean square."""
    window_W = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    return _frozen(window_W / np.sqrt(n_fft * np.square(window_W).sum()))


def _frozen(values: NDArray[np.float64]) -> Floats:
    """For a cache: nobody may change it."""
    kept = values.astype(np.float32)
    kept.setflags(write=False)
    return kept


def _power_of_two(length: float) -> int:
    return 1 << int(np.ceil(np.log2(length)))
