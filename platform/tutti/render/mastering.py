"""Loudness and peak: every piece leaves equally loud and never over the limit.

Loudness is ITU-R BS.1770-4's integrated loudness (pyloudnorm), in LUFS; true peak is the largest value of the signal at
four times its rate (BS.1770-4 Annex 2), in dB relative to full scale (dBTP). Legend: S samples, C channels.

The limiter looks ahead: the gain each sample needs is spread to its neighbours by a sliding minimum, recovers at a
steady rate in decibels, and is smoothed by a window no wider than the minimum's, so it never exceeds what was needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy import ndimage, signal

from tutti.errors import InputError

Audio = NDArray[np.float32]

LOUDNESS_LUFS = -16.0
TRUE_PEAK_DBTP = -1.0
LOUDNESS_TOLERANCE_LU = 0.5

OVERSAMPLING = 4
SILENCE_DB = -100.0

_METER_BLOCK_S = 0.4
_WORKING_PEAK = 0.5
_AIM_TOLERANCE_LU = 0.1
_MOST_LIMITING_DB = 12.0
_MOST_PASSES = 6
_LEAST_SLOPE = 0.1
# Other meters interpolate with other filters and read up to this much more.
_PEAK_MARGIN_DB = 0.1
_LOOKAHEAD_S = 0.005
_RECOVERY_DB_PER_S = 200.0
_FADE_IN_S, _FADE_OUT_S = 0.001, 0.01
_BLOCK_SAMPLES = 1 << 18
_CONTEXT_SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Mastered:
    """Finished sound, and what was measured on it.

    Args:
        audio_SC: float32.
        loudness_lufs: integrated; below the target where the peak limit did not let it be reached.
        true_peak_dbtp: never above the limit.
    """

    audio_SC: Audio
    loudness_lufs: float
    true_peak_dbtp: float


def measure_loudness_lufs(audio_SC: Audio, *, sample_rate_hz: int) -> float:
    """Integrated loudness; what is shorter than the meter's 0.4 s block is measured with silence after it.

    Returns:
        LUFS, ``-inf`` where nothing passes the meter's gate of -70 LUFS.
    """
    shortfall = int(np.ceil(_METER_BLOCK_S * sample_rate_hz)) + 1 - len(audio_SC)
    if shortfall > 0:
        audio_SC = np.concatenate((audio_SC, np.zeros((shortfall, audio_SC.shape[1]), dtype=audio_SC.dtype)))
    return float(pyloudnorm.Meter(sample_rate_hz).integrated_loudness(audio_SC))


def measure_true_peak_dbtp(audio_SC: Audio) -> float:
    """True peak over all channels; ``-inf`` for digital silence."""
    return _decibels(max((float(block_S.max()) for block_S in _peak_blocks(audio_SC)), default=0.0))


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _peak_blocks(audio_SC: Audio) -> Iterator[Audio]:
    """Largest oversampled magnitude from each sample to the next, over all channels, in blocks of S."""
    for start in range(0, len(audio_SC), _BLOCK_SAMPLES):
        before = min(start, _CONTEXT_SAMPLES)
        length = min(_BLOCK_SAMPLES, len(audio_SC) - start)
        peaks_S = np.zeros(length, dtype=np.float32)
        for sound_S in np.ascontiguousarray(audio_SC[start - before : start + length + _CONTEXT_SAMPLES].T):
            finer_S = np.abs(signal.resample_poly(sound_S, OVERSAMPLING, 1))
            for phase in range(OVERSAMPLING):
                first = before * OVERSAMPLING + phase
                np.maximum(peaks_S, finer_S[first : first + length * OVERSAMPLING : OVERSAMPLING], out=peaks_S)
            # The interpolating filter meets the samples themselves only up to its ripple.
            np.maximum(peaks_S, np.abs(sound_S[before : before + length]), out=peaks_S)
        yield peaks_S


def master(
    audio_SC: Audio,
    *,
    sample_rate_hz: int,
    loudness_lufs: float = LOUDNESS_LUFS,
    true_peak_dbtp: float = TRUE_PEAK_DBTP,
) -> Mastered:
    """Bring sound to a loudness under a true-peak limit, with short fades at both ends against clicks.

    The peak limit always holds. Loudness is met within 0.5 LU unless that would take more than 12 dB of limiting, as
    for a lone click: then it stays lower, and the result says how loud it is.

    Args:
        audio_SC: finite values of any size.
        sample_rate_hz: its rate.
        loudness_lufs: target.
        true_peak_dbtp: limit.

    Raises:
        InputError: no samples and channels, values that are not finite, or silence.
    """
    source_SC = _at_working_level(audio_SC)
    _fade_ends(source_SC, sample_rate_hz)
    envelope_S = np.concatenate(list(_peak_blocks(source_SC)))
    peak_db, limit_db = _decibels(float(envelope_S.max())), true_peak_dbtp - _PEAK_MARGIN_DB
    source_lufs = measure_loudness_lufs(source_SC, sample_rate_hz=sample_rate_hz)
    most_db = limit_db - peak_db + _MOST_LIMITING_DB
    gain_db = min(loudness_lufs - source_lufs, most_db)
    if peak_db + gain_db <= limit_db:
        return Mastered(_amplified(source_SC, gain_db), source_lufs + gain_db, peak_db + gain_db)
    slope, last = 1.0, (0.0, -math.inf)
    for _ in range(_MOST_PASSES):
        limited_SC = _limited(source_SC, envelope_S, gain_db=gain_db, limit_db=limit_db, sample_rate_hz=sample_rate_hz)
        reached_lufs = measure_loudness_lufs(limited_SC, sample_rate_hz=sample_rate_hz)
        if math.isfinite(last[1]):
            # The limiter gives back less than it is fed: step along the secant.
            slope = float(np.clip((reached_lufs - last[1]) / (gain_db - last[0]), _LEAST_SLOPE, 1))
        missing_db = loudness_lufs - reached_lufs
        step_db = min(missing_db / slope, most_db - gain_db)
        if min(abs(missing_db), abs(step_db)) <= _AIM_TOLERANCE_LU:
            break
        last = (gain_db, reached_lufs)
        gain_db += step_db
    # A moving gain bends the signal between samples: take off the hundredths of a decibel that this may add.
    reached_dbtp = measure_true_peak_dbtp(limited_SC)
    trim_db = min(limit_db - reached_dbtp, 0)
    return Mastered(_amplified(limited_SC, trim_db), reached_lufs + trim_db, reached_dbtp + trim_db)


def _amplified(audio_SC: Audio, gain_db: float) -> Audio:
    return np.asarray(audio_SC * np.float32(10 ** (gain_db / 20)), dtype=np.float32)


def _at_working_level(audio_SC: Audio) -> Audio:
    """A checked copy whose largest sample is half of full scale, so that no meter's gate swallows quiet sound."""
    if audio_SC.ndim != 2 or not audio_SC.size:
        raise InputError(
            f"audio of shape {audio_SC.shape} is not samples by channels", remedy="give at least one sample"
        )
    peak = max(float(audio_SC.max()), -float(audio_SC.min()))
    if not math.isfinite(peak):
        raise InputError("the audio holds values that are not finite", remedy="render it again")
    if _decibels(peak) < SILENCE_DB:
        raise InputError(f"the audio is silent: its peak is under {SILENCE_DB:g} dB", remedy="render sounding notes")
    return (audio_SC * (_WORKING_PEAK / peak)).astype(np.float32)


def _fade_ends(audio_SC: Audio, sample_rate_hz: int) -> None:
    for length_s, end_SC in ((_FADE_IN_S, audio_SC), (_FADE_OUT_S, audio_SC[::-1])):
        length = min(round(length_s * sample_rate_hz), len(audio_SC) // 4)
        end_SC[:length] *= np.linspace(0, 1, length + 2, dtype=np.float32)[1:-1, None]


def _limited(source_SC: Audio, envelope_S: Audio, *, gain_db: float, limit_db: float, sample_rate_hz: int) -> Audio:
    """``source_SC`` raised by ``gain_db`` and held under ``limit_db``."""
    floor = 10 ** ((limit_db - gain_db) / 20)
    needed_db_S = 20 * np.log10(floor / np.maximum(envelope_S, floor, dtype=np.float64))
    recovery_S = np.arange(len(needed_db_S)) * (_RECOVERY_DB_PER_S / sample_rate_hz)
    needed_db_S -= recovery_S
    np.minimum.accumulate(needed_db_S, out=needed_db_S)
    needed_db_S += recovery_S
    np.minimum(needed_db_S, 0, out=needed_db_S)
    reach = max(1, round(_LOOKAHEAD_S * sample_rate_hz) // 2)
    held_db_S = ndimage.minimum_filter1d(needed_db_S, 4 * reach + 1, mode="nearest")
    for _ in range(2):
        held_db_S = ndimage.uniform_filter1d(held_db_S, 2 * reach + 1, mode="nearest")
    factors_S = (10 ** ((held_db_S + gain_db) / 20)).astype(np.float32)
    return np.asarray(source_SC * factors_S[:, None], dtype=np.float32)
