"""Measures of piano-rolls: what MuseGAN was judged by, over boolean rolls of many tracks.

Goal: judge the rolls that a model of rolls gives before they are read as notes, by figures that stand beside published
ones. Convention: ``roll_NBSPK`` is boolean; each function gives a figure for each track, shape (K,), over all phrases
and bars. One track of (time, pitch) is ``roll_TP[None, None, :, :, None]``, a phrase of one bar: "per bar" is then of
the whole. Rows of pitch are semitones; ``lowest_pitch`` is the MIDI pitch of row 0. A note is a run of steps in one row
of one phrase, bar lines or not.

Source: MuseGAN (Dong et al. 2018, "MuseGAN: Multi-track sequential generative adversarial networks for symbolic music
generation and accompaniment", AAAI); its tonal distance is of Harte, Sandler and Gasser (2006, "Detecting harmonic
change in musical audio"). The figures equal Pypianoroll's (1.0.4) where that does what it says. We differ where it, and
MuseGAN's own code, do not:

- A pitch class is every twelfth row. Theirs adds up neighbouring rows, which touches used pitch classes, in-scale rate
  and tonal distance.
- A note's end is its own. Pypianoroll pairs it with another row's, and fails on boolean rolls.
- An empty beat is an empty one. Pypianoroll counts the others.
- The tonal distance is the mean over the beats in which both tracks sound, of the centroids of whole beats. MuseGAN's
  mean is no number where one is silent, and Pypianoroll's function gives an exception.
- Drum patterns go on from beat to beat. Pypianoroll takes one beat.

Without notes a rate or mean is NaN, except those of empty bars and beats, which are 1; without steps all are NaN.

Legend: N phrases, B bars in each, S steps in each bar, P pitches, K tracks, Q beats of all bars together, T steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.errors import RecipeError
from tutti.units import Key

Figures = NDArray[np.float64]
Roll = NDArray[np.bool_]

# Steps from one place of the drum pattern to the next, by steps of a quarter: sixteenths where there are as many,
# eighths otherwise, triplets where the resolution is one of triplets alone.
PATTERN_STEPS = {4: 2, 6: 3, 8: 2, 9: 3, 12: 3, 16: 4, 18: 6, 24: 6}
NEXT_TO_PATTERN = 0.1
"""What a drum note one step beside the pattern counts, in MuseGAN."""
RADII = (1.0, 1.0, 0.5)
"""Of the circles of fifths, minor thirds and major thirds, as Harte and others chose them."""


def empty_bars_rate(roll_NBSPK: Roll) -> Figures:
    """Share of bars without a note, 0 to 1; shape (K,)."""
    return _mean(~_any(roll_NBSPK, 2, 3).reshape(-1, roll_NBSPK.shape[-1]))


def empty_beat_rate(roll_NBSPK: Roll, *, steps_per_quarter: int) -> Figures:
    """Share of beats without a note, 0 to 1; shape (K,)."""
    return _mean(~_any(_beats(roll_NBSPK, steps_per_quarter), 1, 2))


def pitches_used(roll_NBSPK: Roll) -> Figures:
    """Mean number of different pitches in a bar that is not empty; shape (K,)."""
    return _per_bar(_any(roll_NBSPK, 2))


def pitch_classes_used(roll_NBSPK: Roll) -> Figures:
    """Mean number of different pitch classes in a bar that is not empty, 1 to 12; shape (K,)."""
    return _per_bar(_classes(_any(roll_NBSPK, 2)) > 0)


def pitch_range(roll_NBSPK: Roll) -> Figures:
    """Semitones from the lowest to the highest pitch of all; shape (K,)."""
    used_PK = _any(roll_NBSPK, 0, 1, 2)
    span = len(used_PK) - 1 - used_PK[::-1].argmax(axis=0) - used_PK.argmax(axis=0)
    return np.where(used_PK.any(axis=0), span, np.nan)


def polyphonic_rate(roll_NBSPK: Roll, *, threshold: int) -> Figures:
    """Share of steps with more than ``threshold`` pitches, 0 to 1; shape (K,). The peers' default is 2."""
    return _mean((np.count_nonzero(roll_NBSPK, axis=3) > threshold).reshape(-1, roll_NBSPK.shape[-1]))


def qualified_note_rate(roll_NBSPK: Roll, *, min_steps: int) -> Figures:
    """Share of notes of at least ``min_steps`` steps, 0 to 1: the others are fragments. Shape (K,).

    MuseGAN asks for three steps, a 32nd note at 24 steps a quarter.
    """
    phrases, bars, steps, pitches, tracks = roll_NBSPK.shape
    lines = roll_NBSPK.transpose(4, 0, 3, 1, 2).reshape(tracks, phrases * pitches, bars * steps)
    # A silent step after each line keeps the runs of one from those of the next.
    padded = np.pad(lines, ((0, 0), (0, 0), (0, 1))).reshape(tracks, -1)
    rate = np.full(tracks, np.nan)
    for track, steps_on in enumerate(padded):
        edges = np.flatnonzero(np.diff(steps_on, prepend=False, append=False))
        if len(edges):
            rate[track] = np.mean(edges[1::2] - edges[::2] >= min_steps)
    return rate


def in_scale_rate(roll_NBSPK: Roll, *, key: Key, lowest_pitch: int) -> Figures:
    """Share of all sounding cells in the scale of ``key``, major or natural minor, 0 to 1; shape (K,)."""
    scale = np.array([0, 2, 3, 5, 7, 8, 10] if key.minor else [0, 2, 4, 5, 7, 9, 11])
    counts_12K = _classes(np.count_nonzero(roll_NBSPK, axis=(0, 1, 2))[None])[0]
    return _share(counts_12K[(scale + key.tonic - lowest_pitch) % 12].sum(axis=0), counts_12K.sum(axis=0))


def drum_pattern_rate(roll_NBSPK: Roll, *, steps_per_quarter: int, beside: float = NEXT_TO_PATTERN) -> Figures:
    """How far the notes lie on sixteenths or triplets, 0 to 1; shape (K,). It says something of drums only.

    Args:
        roll_NBSPK: drums and other tracks.
        steps_per_quarter: 4, 6, 8, 9, 12, 16, 18 or 24.
        beside: what a cell one step beside the pattern counts; one on it counts 1, one farther away 0.

    Raises:
        RecipeError: other steps per quarter.
    """
    if steps_per_quarter not in PATTERN_STEPS:
        known = ", ".join(str(steps) for steps in PATTERN_STEPS)
        raise RecipeError(f"{steps_per_quarter} steps per quarter have no drum pattern", remedy=f"use one of {known}")
    apart = PATTERN_STEPS[steps_per_quarter]
    away = np.arange(steps_per_quarter) % apart
    weight = np.where(away == 0, 1.0, np.where((away == 1) | (away == apart - 1), beside, 0.0))
    struck = np.count_nonzero(_beats(roll_NBSPK, steps_per_quarter), axis=(0, 2))
    return _share(weight @ struck, struck.sum(axis=0))


def tonal_distance(roll_NBSPK: Roll, *, steps_per_quarter: int, radii: tuple[float, float, float] = RADII) -> Figures:
    """Mean distance of the tonal centroids of two tracks over the beats in which both sound; shape (K, K).

    0 where both play the same pitch classes alike; 0 on the diagonal of a track that sounds.
    """
    counts_Q12K = _classes(np.count_nonzero(_beats(roll_NBSPK, steps_per_quarter), axis=1))
    total_QK = counts_Q12K.sum(axis=1)
    sounds_QK = total_QK > 0
    share_Q12K = counts_Q12K / np.maximum(total_QK, 1)[:, None]
    centroid_Q6K = tonal_matrix(radii) @ share_Q12K
    tracks = roll_NBSPK.shape[-1]
    distance = np.full((tracks, tracks), np.nan)
    for one in range(tracks):
        for other in range(one, tracks):
            both = sounds_QK[:, one] & sounds_QK[:, other]
            if both.any():
                apart = centroid_Q6K[both, :, one] - centroid_Q6K[both, :, other]
                distance[one, other] = distance[other, one] = np.linalg.norm(apart, axis=1).mean()
    return distance


def tonal_matrix(radii: tuple[float, float, float] = RADII) -> Figures:
    """From pitch classes to places on the circles of fifths, minor and major thirds; shape (6, 12)."""
    turns = np.arange(12) * np.pi * np.array([[7 / 6], [3 / 2], [2 / 3]])
    circles = np.stack((np.sin(turns), np.cos(turns)), axis=1) * np.array(radii)[:, None, None]
    return np.asarray(circles.reshape(6, 12))


def _beats(roll_NBSPK: Roll, steps_per_quarter: int) -> Roll:
    """Beats of all bars, end to end: from (N, B, S, P, K) to (Q, steps, P, K).

    Raises:
        RecipeError: a bar is no whole number of beats.
    """
    phrases, bars, steps, pitches, tracks = roll_NBSPK.shape
    if steps % steps_per_quarter:
        raise RecipeError(
            f"a bar of {steps} steps is no whole number of beats of {steps_per_quarter}",
            remedy="cut or pad the roll to whole beats",
        )
    return roll_NBSPK.reshape(phrases * bars * steps // steps_per_quarter, steps_per_quarter, pitches, tracks)


def _classes(counts_P: NDArray[np.generic]) -> NDArray[np.int64]:
    """Sums over octaves: (..., P, K) to (..., 12, K); class 0 is that of row 0."""
    *_, pitches, tracks = counts_P.shape
    num_octaves = -(-pitches // 12)
    padding = [(0, 0)] * (counts_P.ndim - 2) + [(0, 12 * num_octaves - pitches), (0, 0)]
    octaves = np.pad(counts_P, padding).reshape(*counts_P.shape[:-2], num_octaves, 12, tracks)
    return np.asarray(octaves.sum(axis=-3, dtype=np.int64))


def _any(roll: Roll, *axes: int) -> Roll:
    return np.asarray(roll.any(axis=axes))


def _per_bar(used_NBPK: Roll) -> Figures:
    """Mean number of what is used, over the bars in which anything is."""
    number = np.count_nonzero(used_NBPK, axis=2).reshape(-1, used_NBPK.shape[-1])
    return _share(number.sum(axis=0), np.count_nonzero(number, axis=0))


def _mean(rows: NDArray[np.bool_]) -> Figures:
    return _share(np.count_nonzero(rows, axis=0), np.full(rows.shape[1], len(rows)))


def _share(part: NDArray[np.generic], whole: NDArray[np.int64]) -> Figures:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
