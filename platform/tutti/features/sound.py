"""What can be said of a clip in a few figures: loudness, tempo, key, onsets.

Legend: S samples, C channels, F frames. Tempo, key and onsets are of the mean of the channels.

Key: the chroma of :mod:`tutti.features.spectral`, less what a note's third and fifth overtones add to its fifth and its
third, is fitted with the same profiles as the notes of a work (:mod:`tutti.features.tonality`). Measured on 96 rendered
works: the key that their notes give for 0.83; on their 868 clips of 10 seconds, the key of the clip's own notes for
0.74.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tutti.features.loudness import integrated_lufs
from tutti.features.pulse import onset_strength, onsets_s, tempo_qpm
from tutti.features.spectral import Floats, chroma
from tutti.features.tonality import KEYS, best_keys, fit_of_classes
from tutti.units import Key

_OVERTONE_SHARE = 0.1
_FIFTH_SEMITONES, _THIRD_SEMITONES = 7, 4


def describe(samples_SC: Floats, *, sample_rate_hz: int) -> dict[str, Any]:
    """The descriptor columns of the ``clips`` table, by name; each is None or 0 where the sound tells nothing of it."""
    mono_S = samples_SC.mean(axis=1)
    strength_F = onset_strength(mono_S, sample_rate_hz=sample_rate_hz)
    tempo, tempo_confidence = tempo_qpm(strength_F, sample_rate_hz=sample_rate_hz)
    key, key_confidence = key_of_chroma(chroma(mono_S, sample_rate_hz=sample_rate_hz))
    loudness_lufs = integrated_lufs(samples_SC, sample_rate_hz=sample_rate_hz)
    return {
        "loudness_lufs": loudness_lufs if math.isfinite(loudness_lufs) else None,
        "tempo_qpm": tempo,
        "tempo_confidence": tempo_confidence,
        "key": str(key),
        "key_confidence": key_confidence,
        "onsets_per_s": len(onsets_s(strength_F, sample_rate_hz=sample_rate_hz)) * sample_rate_hz / len(mono_S),
    }


def key_of_chroma(chroma_F12: Floats) -> tuple[Key, float]:
    """The likeliest key and its confidence: correlation of its profile less that of the second best, 0 to 2."""
    heard = chroma_F12.sum(axis=0, dtype=np.float64)
    overtones = np.roll(heard, _FIFTH_SEMITONES) + np.roll(heard, _THIRD_SEMITONES)
    best, confidence = best_keys(fit_of_classes(np.clip(heard - _OVERTONE_SHARE * overtones, 0, None))[None])
    return KEYS[int(best[0])], float(confidence[0])
