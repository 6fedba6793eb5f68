"""Single notes in sound: stretches that begin with an onset and hold one steady pitch, fit to learn an instrument from.

A stretch is taken where an onset is heard at its start and none after it, its fundamental (:mod:`.fundamental`) stays
within :data:`STEADY_CENTS` of its median for nine tenths of its frames, that median lies within :data:`TUNED_CENTS` of
a key, the first three harmonics carry a tenth of the power and the first one a thousandth. The last two keep chords
out: those of simple ratios repeat as exactly as a note one or two octaves below, at which nothing sounds.

Legend: S samples, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutti.features.fundamental import PERIODIC, Fundamental, fundamental, hertz_of, pitch_of
from tutti.features.pulse import onset_strength, onsets_s
from tutti.features.spectral import Floats, power_spectrogram

STEADY_CENTS, TUNED_CENTS = 40.0, 40.0
STEADY_SHARE = 0.9
HARMONICS, HARMONIC_POWER, FIRST_POWER = 3, 0.1, 0.001

_ONSET_TOLERANCE_S = 0.05
_HARMONIC_WIDTH = 0.03
_QUIETEST = 10 ** (-50 / 20)


@dataclass(frozen=True, slots=True)
class SingleNote:
    """One note in sound.

    Args:
        start_samples: where it begins.
        pitch: MIDI pitch of its key.
        cents: how far from the key it is tuned.
    """

    start_samples: int
    pitch: int
    cents: float


def single_notes(samples_S: Floats, *, sample_rate_hz: int, length_s: float) -> list[SingleNote]:
    """The notes of at least ``length_s`` that sound alone, in the order of time."""
    length = round(length_s * sample_rate_hz)
    if len(samples_S) < length:
        return []
    strength_F = onset_strength(samples_S, sample_rate_hz=sample_rate_hz)
    onset_N = np.rint(onsets_s(strength_F, sample_rate_hz=sample_rate_hz) * sample_rate_hz).astype(np.int64)
    alone_N = np.diff(onset_N, append=len(samples_S) + 1) > length - _ONSET_TOLERANCE_S * sample_rate_hz
    found = []
    for start in onset_N[alone_N & (onset_N + length <= len(samples_S))].tolist():
        heard = _steady_pitch(samples_S[start : start + length], sample_rate_hz=sample_rate_hz)
        if heard is not None:
            found.append(SingleNote(start, round(heard), 100 * (heard - round(heard))))
    return found


def _steady_pitch(samples_S: Floats, *, sample_rate_hz: int) -> float | None:
    if float(np.abs(samples_S).max()) < _QUIETEST:
        return None
    track = fundamental(samples_S, sample_rate_hz=sample_rate_hz)
    if not len(track.hertz_F):
        return None
    return _one_key(track, samples_S, sample_rate_hz=sample_rate_hz)


def _one_key(track: Fundamental, samples_S: Floats, *, sample_rate_hz: int) -> float | None:
    periodic_F = track.aperiodicity_F < PERIODIC
    if not periodic_F.any():
        return None
    pitch_F = pitch_of(track.hertz_F)
    pitch = float(np.median(pitch_F[periodic_F]))
    steady_F = periodic_F & (np.abs(pitch_F - pitch) < STEADY_CENTS / 100)
    if steady_F.mean() < STEADY_SHARE or abs(pitch - round(pitch)) > TUNED_CENTS / 100:
        return None
    n_fft = 1 << (len(samples_S).bit_length() - 1)
    power_K = power_spectrogram(samples_S, n_fft=n_fft, hop_samples=n_fft // 2).sum(axis=0)
    power_K /= power_K.sum()
    harmonic_K = np.arange(len(power_K)) * (sample_rate_hz / n_fft / float(hertz_of(np.array(pitch))))
    number_K = np.rint(harmonic_K)
    near_K = np.abs(harmonic_K - number_K) < _HARMONIC_WIDTH * number_K
    first, several = (float(power_K[near_K & (number_K <= last)].sum()) for last in (1, HARMONICS))
    return pitch if first >= FIRST_POWER and several >= HARMONIC_POWER else None
