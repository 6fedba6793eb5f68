"""What can be said of a score in a few figures: key, density, polyphony, range, mood.

Convention: figures are computed from the columns of one score; drums (program 128) count as notes but have no pitch. A
score without pitched notes is in C major with confidence 0.

Key: the vector of sounding time by pitch class is correlated with 24 rotated key profiles (Krumhansl 1990, chapter 4);
the profiles are those that Albrecht and Shanahan counted in 490 works (2013, "The use of large corpora to train a new
type of key-finding algorithm", Music Perception 31). We differ in that the last 4 quarters get a sixth of all weight:
tonal music ends where it is at home. Measured: the encoded key of 0.82 of 409 Bach chorales (music21's own analysis
0.795, Krumhansl's profiles 0.69), the key signature of 0.91 of 700 Lieder (0.87 without the end's weight).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.features.mood import Cues, estimate_mood
from tutti.units import Key

# Albrecht and Shanahan (2013), from the tonic upwards.
MAJOR_PROFILE = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
MINOR_PROFILE = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
END_QUARTERS = 4
END_WEIGHT = 0.2
MODE_SLOPE = 4.0


def describe(score: Score) -> dict[str, Any]:
    """The descriptor columns of the ``works`` table, by name."""
    key_fit = _key_fit(score)
    key, confidence = _best_key(key_fit)
    notes = score.notes
    pitched = _pitched(notes)
    valence, arousal = estimate_mood(_cues(score, key_fit))
    return {
        "notes": len(notes),
        "length_s": score.length_s,
        "key": str(key),
        "key_confidence": confidence,
        "notes_per_quarter": _notes_per_quarter(score),
        "polyphony": _polyphony(pitched if len(pitched) else notes),
        "pitch_low": int(pitched.pitch.min()) if len(pitched) else 0,
        "pitch_high": int(pitched.pitch.max()) if len(pitched) else 0,
        "valence": valence,
        "arousal": arousal,
        "mood_source": "estimate",
    }


def estimate_key(score: Score) -> tuple[Key, float]:
    """The likeliest key and its confidence: correlation of its profile less that of the second best, 0 to 2."""
    return _best_key(_key_fit(score))


def _profiles() -> NDArray[np.float64]:
    """Key profiles centred and of unit length, C major to B major, then C minor to B minor; shape (24, 12)."""
    rows = np.array([np.roll(profile, tonic) for profile in (MAJOR_PROFILE, MINOR_PROFILE) for tonic in range(12)])
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


_PROFILES = _profiles()


def _key_fit(score: Score) -> NDArray[np.float64]:
    """Correlation with each profile, in the order of :func:`_profiles`; zeros where pitch tells nothing."""
    notes = _pitched(score.notes)
    if not len(notes):
        return np.zeros(24)
    ends = notes.onset_ticks.astype(np.int64) + notes.duration_ticks
    weight = notes.duration_ticks.astype(np.float64)
    total = weight.sum()
    home = ends.max() - END_QUARTERS * score.ticks_per_quarter
    late = np.clip(ends - np.maximum(notes.onset_ticks, home), 0, None).astype(np.float64)
    weight = weight + END_WEIGHT * total * late / late.sum()
    by_class = np.bincount(notes.pitch % 12, weights=weight, minlength=12)
    centred = by_class - by_class.mean()
    norm = np.linalg.norm(centred)
    return np.asarray(_PROFILES @ (centred / norm)) if norm > 0 else np.zeros(24)


def _best_key(key_fit: NDArray[np.float64]) -> tuple[Key, float]:
    order = np.argsort(-key_fit, kind="stable")
    best = int(order[0])
    return Key(best % 12, minor=best >= 12), float(key_fit[best] - key_fit[order[1]])


def _pitched(notes: Notes) -> Notes:
    return notes.take(notes.program != DRUM_PROGRAM)


def _notes_per_quarter(score: Score) -> float:
    """Notes over the quarters from the first onset to the last end, of which there is at least one."""
    if not len(score.notes):
        return 0.0
    span_ticks = score.end_ticks - int(score.notes.onset_ticks.min())
    return len(score.notes) / max(span_ticks / score.ticks_per_quarter, 1.0)


def _polyphony(notes: Notes) -> float:
    """Mean number of notes that sound where any sounds; 0 without notes."""
    if not len(notes):
        return 0.0
    order = np.argsort(notes.onset_ticks, kind="stable")
    onset = notes.onset_ticks[order].astype(np.int64)
    end = onset + notes.duration_ticks[order]
    covered = np.concatenate(([onset[0]], np.maximum.accumulate(end)[:-1]))
    sounding_ticks = np.clip(end - np.maximum(onset, covered), 0, None).sum()
    return float((end - onset).sum() / max(sounding_ticks, 1))


def _cues(score: Score, key_fit: NDArray[np.float64]) -> Cues:
    notes = score.notes
    if not len(notes):
        return Cues(mode_lean=0.0, onsets_per_s=0.0, velocity=None, pitch=None, legato=1.0)
    pitched = _pitched(notes)
    onsets = np.unique(notes.onset_ticks)
    bounds_s = score.seconds_at(np.array([onsets[0], score.end_ticks]))
    return Cues(
        mode_lean=float(np.tanh(MODE_SLOPE * (key_fit[:12].max() - key_fit[12:].max()))),
        onsets_per_s=len(onsets) / max(float(bounds_s[1] - bounds_s[0]), 1.0),
        velocity=float(notes.velocity.mean()) if np.ptp(notes.velocity) else None,
        pitch=float(np.average(pitched.pitch, weights=pitched.duration_ticks)) if len(pitched) else None,
        legato=_legato(notes),
    )


def _legato(notes: Notes) -> float:
    """Median of duration over the time to the next onset of the same part; 1 where no part has two onsets."""
    order = np.lexsort((notes.onset_ticks, notes.track))
    track, onset = notes.track[order], notes.onset_ticks[order].astype(np.int64)
    begins = np.concatenate(([True], (np.diff(onset) != 0) | (np.diff(track) != 0)))
    group = np.cumsum(begins) - 1
    starts, owners = onset[begins], track[begins]
    gap = np.where(np.diff(owners) == 0, np.diff(starts), 0)
    gap_of_note = np.append(gap, 0)[group]
    known = gap_of_note > 0
    if not known.any():
        return 1.0
    return float(np.median(np.minimum(notes.duration_ticks[order][known] / gap_of_note[known], 2.0)))
