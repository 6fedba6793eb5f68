"""What recurs in sound: onsets, how many a second, and the tempo.

Legend: S samples, F frames, about 100 a second. Onset strength is the rise of the log-mel spectrogram from frame to
frame, mean over its bands, in decibels (D. Ellis 2007, "Beat Tracking by Dynamic Programming", Journal of New Music
Research 36). Tempo is the lag at which onset strength resembles itself most, weighted by a log-normal prior around 120
beats a minute, with the support of its double or triple (Ellis's duple and triple meter). We differ in a local mean
that is taken off the strength first, in that support counts no more than the lag's own likeness, and in reading the lag
off between frames from its multiples.

The beat is called a quarter, as nothing in the sound tells otherwise: half and double tempo are the usual mistake.
Measured on 104 rendered works of one tempo (songs, keyboard and chamber music, bands, drummers): the written tempo
within 2 % for 0.60, it or an octave of it for 0.79, a level of its meter (thirds and three halves too) for 0.91; on the
10-second clips of these 0.54, 0.75 and 0.88. Onsets of 40 such works: F-measure 0.92 within 50 ms.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

from tutti.features.spectral import Floats, MelScale, log_mel

FRAMES_PER_S = 100
SLOWEST_QPM, FASTEST_QPM = 40.0, 300.0
PRIOR_QPM, PRIOR_OCTAVES = 120.0, 0.9
LEAST_CONFIDENCE = 0.15

_WINDOW_S = 0.03
_BANDS = 40
_LOW_HZ, _HIGH_HZ = 30.0, 11_000.0
_RANGE_DB = 60.0
_SMOOTH_FRAMES = 1.5
_LEAST_PULSES = 4
_PEAK_APART_S = 0.03
_PEAK_MEAN_S = 0.1
_PEAK_TIMES_MEAN, _PEAK_OVER_MEAN_DB = 1.5, 0.3


def onset_strength(samples_S: Floats, *, sample_rate_hz: int) -> Floats:
    """How much louder the bands get at each frame: ``samples_S`` to ``strength_F`` in dB, 0 or more.

    Frame f is centred on sample ``f * hop_samples(sample_rate_hz)``; what is 60 dB under the loudest band is silence,
    and so is what came before: what sounds at the start begins there.
    """
    scale = _scale(sample_rate_hz)
    mel_FM = log_mel(samples_S, sample_rate_hz=sample_rate_hz, scale=scale)
    silence_db = mel_FM.max() - np.float32(_RANGE_DB)
    np.maximum(mel_FM, silence_db, out=mel_FM)
    rise_FM = np.diff(mel_FM, axis=0, prepend=silence_db if mel_FM.max() > scale.floor_db else mel_FM[:1])
    return np.asarray(np.maximum(rise_FM, 0, out=rise_FM).mean(axis=1))


def hop_samples(sample_rate_hz: int) -> int:
    """Samples from one frame of onset strength to the next."""
    return round(sample_rate_hz / FRAMES_PER_S)


def tempo_qpm(strength_F: Floats, *, sample_rate_hz: int) -> tuple[float | None, float]:
    """Tempo of an onset strength, 40 to 300 quarters a minute, and how alike the strength is one pulse later, 0 to 1.

    None where fewer than four onsets are heard, where no tempo fits in four times, and where the confidence is under
    0.15. The onset at the very start, which may be a cut, does not count.
    """
    strength_F = np.concatenate((np.zeros(1, np.float32), strength_F[1:]))
    if len(onsets_s(strength_F, sample_rate_hz=sample_rate_hz)) < _LEAST_PULSES:
        return None, 0.0
    frames_per_minute = 60 * sample_rate_hz / hop_samples(sample_rate_hz)
    slowest = min(frames_per_minute / SLOWEST_QPM, len(strength_F) / _LEAST_PULSES)
    lags = np.arange(int(frames_per_minute / FASTEST_QPM), int(slowest) + 1)
    likeness = _autocorrelation(strength_F, lags=3 * max(int(slowest), 1) + 3)
    if not len(lags) or not likeness[0] > 0:
        return None, 0.0
    octaves = np.log2(frames_per_minute / lags / PRIOR_QPM)
    prior = np.exp(-0.5 * np.square(octaves / PRIOR_OCTAVES))
    duple = likeness[2 * lags] / 2 + (likeness[2 * lags - 1] + likeness[2 * lags + 1]) / 4
    triple = (likeness[3 * lags] + likeness[3 * lags - 1] + likeness[3 * lags + 1]) / 3
    support = np.minimum(np.maximum(duple, triple), likeness[lags])
    lag = float(lags[(prior * (likeness[lags] + support)).argmax()])
    for multiple in (1, 2, 3):
        lag = _peak_near(likeness, lag * multiple) / multiple
    confidence = float(np.clip(likeness[round(lag)], 0, 1))
    return (float(frames_per_minute / lag), confidence) if confidence >= LEAST_CONFIDENCE else (None, confidence)


def onsets_s(strength_F: Floats, *, sample_rate_hz: int) -> NDArray[np.float64]:
    """When sounds begin, in seconds: peaks of the strength that stand out of their neighbourhood (S. Böck and others
    2012, "Evaluating the Online Capabilities of Onset Detection Methods", ISMIR)."""
    frames_per_s = sample_rate_hz / hop_samples(sample_rate_hz)
    apart, around = (2 * round(length_s * frames_per_s) + 1 for length_s in (_PEAK_APART_S, _PEAK_MEAN_S))
    highest_F = ndimage.maximum_filter1d(strength_F, apart, mode="constant")
    mean_F = ndimage.uniform_filter1d(strength_F, around, mode="constant")
    stands_out_F = strength_F > _PEAK_TIMES_MEAN * mean_F + _PEAK_OVER_MEAN_DB
    return np.flatnonzero((strength_F == highest_F) & stands_out_F) / frames_per_s


@lru_cache(maxsize=32)
def _scale(sample_rate_hz: int) -> MelScale:
    return MelScale(
        n_fft=1 << int(np.ceil(np.log2(_WINDOW_S * sample_rate_hz))),
        hop_samples=hop_samples(sample_rate_hz),
        n_mels=_BANDS,
        fmin_hz=_LOW_HZ,
        fmax_hz=min(_HIGH_HZ, sample_rate_hz / 2),
    )


def _autocorrelation(strength_F: Floats, *, lags: int) -> NDArray[np.float64]:
    """Of the strength over its local mean, 1 at lag 0; lags beyond the sound are 0, all are where nothing changes."""
    smooth_F = ndimage.gaussian_filter1d(strength_F.astype(np.float64), _SMOOTH_FRAMES)
    smooth_F -= ndimage.uniform_filter1d(smooth_F, FRAMES_PER_S)
    length = scipy.fft.next_fast_len(len(smooth_F) + lags, real=True)
    power = np.square(np.abs(scipy.fft.rfft(smooth_F, length)))
    likeness = scipy.fft.irfft(power, length)[:lags]
    return np.asarray(likeness / likeness[0]) if likeness[0] > 1e-9 else np.zeros(lags)


def _peak_near(likeness: NDArray[np.float64], lag: float) -> float:
    """The top of the parabola through the highest of the lags around ``lag``; ``lag`` itself where there is no top."""
    nearest = round(lag)
    if nearest + 2 >= len(likeness):
        return lag
    highest = nearest - 1 + int(likeness[nearest - 1 : nearest + 2].argmax())
    below, here, above = likeness[highest - 1 : highest + 2]
    bend = below - 2 * here + above
    return highest + 0.5 * (below - above) / bend if here >= max(below, above) and bend < 0 else lag
