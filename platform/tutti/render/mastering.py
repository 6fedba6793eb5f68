"""Loudness and peak: every piece leaves equally loud and never over the limit.

Loudness is ITU-R BS.1770-4's integrated loudness, in LUFS, with the filters of pyloudnorm; true peak is the largest
value of the signal at four times its rate (BS.1770-4 Annex 2), in dB relative to full scale (dBTP). Legend: S samples,
C channels, H hops of 16 samples, B blocks.

The limiter looks ahead: the gain each hop needs is spread to its neighbours by a sliding minimum, recovers at a steady
rate in decibels, and is smoothed by a window no wider than the minimum's, so it never exceeds what was needed. Between
hops the gain moves in a straight line. What loudness a gain gives is foretold from the energies of hops, and measured
on what was made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyloudnorm
from numpy.typing import NDArray
from scipy import ndimage, signal

from tutti.errors import InputError
from tutti.render import loops

Audio = NDArray[np.float32]

LOUDNESS_LUFS = -16.0
TRUE_PEAK_DBTP = -1.0
LOUDNESS_TOLERANCE_LU = 0.5

OVERSAMPLING = 4
SILENCE_DB = -100.0

_METER_BLOCK_S, _METER_HOPS = 0.4, 4
_METER_OFFSET_DB, _METER_GATE_LUFS, _METER_RELATIVE_LU = -0.691, -70.0, -10.0
_WORKING_PEAK = 0.5
_AIM_TOLERANCE_LU = 0.02
_MOST_LIMITING_DB = 12.0
_MOST_PASSES, _MOST_STEPS = 3, 12
_LEAST_SLOPE = 0.1
# Other meters interpolate with other filters and read up to this much more.
_PEAK_MARGIN_DB = 0.1
_LOOKAHEAD_S = 0.005
_RECOVERY_DB_PER_S = 200.0
_FADE_IN_S, _FADE_OUT_S = 0.001, 0.01
_HOP = 16
_PEAK_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Mastered:
    """Finished sound, and what was measured on it.

    Args:
        audio_SC: float32.
        loudness_lufs: integrated; below the target where the peak limit did not let it be reached.
        true_peak_dbtp: never above the limit.
        gain_S: what each sample of the source was multiplied by.
    """

    audio_SC: Audio
    loudness_lufs: float
    true_peak_dbtp: float
    gain_S: Audio


def measure_loudness_lufs(audio_SC: Audio, *, sample_rate_hz: int) -> float:
    """Integrated loudness; what is shorter than the meter's 0.4 s block is measured with silence after it.

    Returns:
        LUFS, ``-inf`` where nothing passes the meter's gate of -70 LUFS.
    """
    shortfall = int(np.ceil(_METER_BLOCK_S * sample_rate_hz)) + 1 - len(audio_SC)
    if shortfall > 0:
        audio_SC = np.concatenate((audio_SC, np.zeros((shortfall, audio_SC.shape[1]), dtype=audio_SC.dtype)))
    hop, rest = divmod(round(_METER_BLOCK_S * sample_rate_hz), _METER_HOPS)
    if rest or audio_SC.shape[1] > 2:
        return float(pyloudnorm.Meter(sample_rate_hz).integrated_loudness(audio_SC))
    return _gated(_energies(_planar(audio_SC), hop=hop, sample_rate_hz=sample_rate_hz), hop=hop)


def _planar(audio_SC: Audio) -> Audio:
    return np.ascontiguousarray(audio_SC.T, dtype=np.float32)


@lru_cache(maxsize=8)
def _weighting(sample_rate_hz: int) -> NDArray[np.float64]:
    stages = pyloudnorm.Meter(sample_rate_hz)._filters.values()
    return np.array([[*stage.b, *stage.a[1:]] / stage.a[0] for stage in stages])


def _energies(sound_CS: Audio, *, hop: int, sample_rate_hz: int) -> NDArray[np.float64]:
    """Weighted energy of each whole hop."""
    energy_B = np.empty(sound_CS.shape[1] // hop)
    loops.weighted_energies(sound_CS, _weighting(sample_rate_hz), hop, energy_B)
    return energy_B


def _gated(energy_B: NDArray[np.float64], *, hop: int) -> float:
    """Loudness of hops of a quarter of the meter's block; the gates of BS.1770-4."""
    power_B = np.convolve(energy_B, np.ones(_METER_HOPS), mode="valid") / (_METER_HOPS * hop)

    def above(gate_lufs: float) -> float:
        kept = power_B[power_B > 10 ** ((gate_lufs - _METER_OFFSET_DB) / 10)]
        return _METER_OFFSET_DB + 10 * math.log10(kept.mean()) if len(kept) else -math.inf

    loud = above(_METER_GATE_LUFS)
    return above(max(loud + _METER_RELATIVE_LU, _METER_GATE_LUFS)) if math.isfinite(loud) else -math.inf


def measure_true_peak_dbtp(audio_SC: Audio) -> float:
    """True peak over all channels; ``-inf`` for digital silence."""
    return _decibels(_largest(_planar(audio_SC)))


def _largest(sound_CS: Audio) -> float:
    """The true peak; looked for between samples only where it can be."""
    largest = float(max(sound_CS.max(initial=0), -sound_CS.min(initial=0)))
    return float(_peaks(sound_CS, hop=_PEAK_BLOCK, quiet=largest).max(initial=0))


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


@lru_cache(maxsize=1)
def _between() -> Audio:
    """Taps for the three phases between samples, those of ``scipy.signal.resample_poly``; at unity for steady sound."""
    reach = 10 * OVERSAMPLING
    taps = signal.firwin(2 * reach + 1, 1 / OVERSAMPLING, window=("kaiser", 5.0)) * OVERSAMPLING
    return np.stack([taps[phase : phase + 2 * reach : OVERSAMPLING][::-1] for phase in range(1, OVERSAMPLING)]).astype(
        np.float32
    )


def _peaks(sound_CS: Audio, *, hop: int, quiet: float = 0.0) -> Audio:
    """Largest oversampled magnitude of each hop, over all channels; only samples' own where under ``quiet``."""
    taps_PK = _between()
    reach = taps_PK.shape[1]
    blocks = -(-sound_CS.shape[1] // hop)
    peak_B = np.zeros(blocks, dtype=np.float32)
    padded_S = np.zeros(blocks * hop + 2 * reach, dtype=np.float32)
    for sound_S in sound_CS:
        padded_S[reach : reach + len(sound_S)] = sound_S
        loops.peaks(padded_S, taps_PK, hop, np.float32(quiet), peak_B)
    return peak_B


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
        loudness_lufs: what to reach.
        true_peak_dbtp: what never to exceed.

    Raises:
        InputError: no samples, silence, or values that are not finite.
    """
    working = _working_gain(audio_SC)
    source_CS = _planar(audio_SC) * np.float32(working)
    fades_S = _fades(source_CS.shape[1], sample_rate_hz)
    source_CS *= fades_S
    peak_db, limit_db = _decibels(_largest(source_CS)), true_peak_dbtp - _PEAK_MARGIN_DB
    source_lufs = measure_loudness_lufs(source_CS.T, sample_rate_hz=sample_rate_hz)
    most_db = limit_db - peak_db + _MOST_LIMITING_DB
    gain_db = min(loudness_lufs - source_lufs, most_db)
    if peak_db + gain_db <= limit_db:
        factor = np.float32(10 ** (gain_db / 20))
        source_CS *= factor
        fades_S *= np.float32(working) * factor
        return Mastered(source_CS.T, source_lufs + gain_db, peak_db + gain_db, fades_S)
    # What stays under the limit at the largest gain needs no closer look.
    peak_H = _peaks(source_CS, hop=_HOP, quiet=10 ** ((limit_db - most_db) / 20))
    limiter = _Limiter(source_CS, peak_H, sample_rate_hz=sample_rate_hz, limit_db=limit_db)
    aim_lufs = loudness_lufs
    for _ in range(_MOST_PASSES):
        gain_db = limiter.gain_for(aim_lufs, first_db=gain_db, most_db=most_db)
        factors_S = limiter.factors(gain_db)
        limited_CS = source_CS * factors_S
        reached_lufs = measure_loudness_lufs(limited_CS.T, sample_rate_hz=sample_rate_hz)
        missing_db = loudness_lufs - reached_lufs
        if abs(missing_db) <= LOUDNESS_TOLERANCE_LU / 5 or gain_db >= most_db:
            break
        aim_lufs += missing_db
    # A moving gain bends the signal between samples: take off the hundredths of a decibel that this may add.
    reached_dbtp = measure_true_peak_dbtp(limited_CS.T)
    trim_db = min(limit_db - reached_dbtp, 0)
    trim = np.float32(10 ** (trim_db / 20))
    limited_CS *= trim
    factors_S *= fades_S * (np.float32(working) * trim)
    return Mastered(limited_CS.T, reached_lufs + trim_db, reached_dbtp + trim_db, factors_S)


def _working_gain(audio_SC: Audio) -> float:
    """What brings the largest sample to half of full scale, so that no meter's gate swallows quiet sound."""
    if audio_SC.ndim != 2 or not audio_SC.size:
        raise InputError(
            f"audio of shape {audio_SC.shape} is not samples by channels", remedy="give at least one sample"
        )
    peak = max(float(audio_SC.max()), -float(audio_SC.min()))
    if not math.isfinite(peak):
        raise InputError("the audio holds values that are not finite", remedy="render it again")
    if _decibels(peak) < SILENCE_DB:
        raise InputError(f"the audio is silent: its peak is under {SILENCE_DB:g} dB", remedy="render sounding notes")
    return _WORKING_PEAK / peak


def _fades(samples: int, sample_rate_hz: int) -> Audio:
    """Factors that fade both ends."""
    fades_S = np.ones(samples, dtype=np.float32)
    for length_s, end_S in ((_FADE_IN_S, fades_S), (_FADE_OUT_S, fades_S[::-1])):
        length = min(round(length_s * sample_rate_hz), samples // 4)
        end_S[:length] *= np.linspace(0, 1, length + 2, dtype=np.float32)[1:-1]
    return fades_S


class _Limiter:
    """What a gain does to a sound that must stay under a limit."""

    def __init__(self, source_CS: Audio, peak_H: Audio, *, sample_rate_hz: int, limit_db: float) -> None:
        self._peak_db_H = 20 * np.log10(np.maximum(peak_H, 1e-9, dtype=np.float64))
        self._limit_db, self._rate_hz, self._samples = limit_db, sample_rate_hz, source_CS.shape[1]
        padded_CS = source_CS
        if self._samples < len(peak_H) * _HOP:
            padded_CS = np.pad(source_CS, ((0, 0), (0, len(peak_H) * _HOP - self._samples)))
        self._energy_H = _energies(padded_CS, hop=_HOP, sample_rate_hz=sample_rate_hz)
        # Hops do not divide the meter's steps: each counts where most of it lies.
        self._meter_hop = max(round(_METER_BLOCK_S / _METER_HOPS * sample_rate_hz), 1)
        middle_H = np.arange(len(peak_H)) * _HOP + _HOP // 2
        self._step_H = middle_H // self._meter_hop

    def gain_for(self, loudness_lufs: float, *, first_db: float, most_db: float) -> float:
        """The gain that is foretold to give a loudness, found by secants; at most ``most_db``."""
        gain_db, slope, last = first_db, 1.0, (0.0, -math.inf)
        for _ in range(_MOST_STEPS):
            reached_lufs = self._foretold_lufs(gain_db)
            if math.isfinite(last[1]) and gain_db != last[0]:
                # The limiter gives back less than it is fed.
                slope = float(np.clip((reached_lufs - last[1]) / (gain_db - last[0]), _LEAST_SLOPE, 1))
            missing_db = loudness_lufs - reached_lufs
            step_db = min(missing_db / slope, most_db - gain_db)
            if min(abs(missing_db), abs(step_db)) <= _AIM_TOLERANCE_LU:
                break
            last = (gain_db, reached_lufs)
            gain_db += step_db
        return gain_db

    def _foretold_lufs(self, gain_db: float) -> float:
        energy_H = self._energy_H * 10 ** (self._moved_db(gain_db) / 10)
        energy_B = np.bincount(self._step_H, weights=energy_H, minlength=_METER_HOPS)
        return _gated(np.asarray(energy_B, dtype=np.float64), hop=self._meter_hop)

    def _moved_db(self, gain_db: float) -> NDArray[np.float64]:
        """Gain of each hop: ``gain_db``, less where the limit asks it."""
        needed_db_H = np.minimum(self._limit_db - gain_db - self._peak_db_H, 0)
        recovery_H = np.arange(len(needed_db_H)) * (_RECOVERY_DB_PER_S * _HOP / self._rate_hz)
        needed_db_H -= recovery_H
        np.minimum.accumulate(needed_db_H, out=needed_db_H)
        needed_db_H += recovery_H
        np.minimum(needed_db_H, 0, out=needed_db_H)
        reach = max(1, round(_LOOKAHEAD_S * self._rate_hz / _HOP) // 2)
        # One hop more on either side than the means reach: the gain is straight between the middles of hops.
        held_db_H = ndimage.minimum_filter1d(needed_db_H, 4 * reach + 3, mode="nearest")
        for _ in range(2):
            held_db_H = ndimage.uniform_filter1d(held_db_H, 2 * reach + 1, mode="nearest")
        return np.asarray(held_db_H + gain_db)

    def factors(self, gain_db: float) -> Audio:
        """Gain of each sample, straight from the middle of a hop to the next one's."""
        gain_H = (10 ** (self._moved_db(gain_db) / 20)).astype(np.float32)
        ends_H = np.concatenate((gain_H[:1], gain_H, gain_H[-1:]))
        share_S = (np.arange(_HOP, dtype=np.float32) + np.float32(0.5)) / np.float32(_HOP)
        gain_HS = ends_H[:-1, None] + (ends_H[1:] - ends_H[:-1])[:, None] * share_S
        return np.ascontiguousarray(gain_HS.reshape(-1)[_HOP // 2 :][: self._samples])
