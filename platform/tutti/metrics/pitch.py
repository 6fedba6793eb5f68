"""Pitch as a whole: how many pitches, how far apart, how evenly used, how well in a scale, how many at once.

Goal: say of many pieces at once what the field reports of generated music, so that figures here stand beside published
ones. Convention: pieces as a :class:`~tutti.corpus.score_batch.ScoreBatch` (one score is ``ScoreBatch.of([score])``);
each function gives one figure a piece, shape (W,); drums (program 128) have no pitch and are left out. Entropies are in
bits, ranges in semitones, shares from 0 to 1; notes are counted, not their lengths, except in polyphony, which is a
mean over time.

Source: MusPy (Dong et al. 2020, "MusPy: A toolkit for symbolic music generation", ISMIR), whose figures on the same
notes these equal; scale consistency is C-RNN-GAN's (Mogren 2016), pitch in scale and polyphony rate are MuseGAN's (Dong
et al. 2018). We differ in one: the range of drums alone is 0, where MusPy 0.5.0 gives -127.

Without pitched notes counts and ranges are 0, entropies and shares NaN.

Legend: W pieces, N notes, I stretches of time in which a pitch sounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch, reduced
from tutti.features import tonality
from tutti.units import Key

Figures = NDArray[np.float64]
Index = NDArray[np.int64]

# A sort key holds piece, pitch and tick.
_PITCH_BITS, _TICK_BITS = 7, 32


def pitches_used(batch: ScoreBatch) -> Index:
    """Number of different pitches, 0 to 128; shape (W,)."""
    return np.asarray(np.count_nonzero(_by_pitch(batch), axis=1))


def pitch_classes_used(batch: ScoreBatch) -> Index:
    """Number of different pitch classes, 0 to 12; shape (W,)."""
    return np.asarray(np.count_nonzero(pitch_class_counts(batch), axis=1))


def pitch_range(batch: ScoreBatch) -> Index:
    """Semitones from the lowest to the highest pitch; shape (W,)."""
    pitched = batch.without_drums()
    pitch = pitched.notes.pitch.astype(np.int64)
    highest, lowest = (reduced(side, pitch, pitched.note_starts) for side in (np.maximum, np.minimum))
    return np.asarray(highest - lowest)


def pitch_entropy(batch: ScoreBatch) -> Figures:
    """Shannon entropy of the pitches, 0 to 7 bits; shape (W,)."""
    pitched = batch.without_drums()
    return _known(tonality.entropies(pitched)[0], pitched)


def pitch_class_entropy(batch: ScoreBatch) -> Figures:
    """Shannon entropy of the pitch classes, 0 to log2(12) = 3.585 bits; shape (W,)."""
    pitched = batch.without_drums()
    return _known(tonality.entropies(pitched)[1], pitched)


def scale_consistency(batch: ScoreBatch) -> Figures:
    """Share of the notes in the major or natural minor scale that holds most of them, 7/12 to 1; shape (W,)."""
    pitched = batch.without_drums()
    return _known(tonality.scale_consistency(pitched), pitched)


def pitch_in_scale_rate(batch: ScoreBatch, *, key: Key) -> Figures:
    """Share of the notes in the scale of ``key``, major or natural minor; shape (W,)."""
    scale = np.array([0, 2, 3, 5, 7, 8, 10] if key.minor else [0, 2, 4, 5, 7, 9, 11])
    counts = pitch_class_counts(batch)
    total = counts.sum(axis=1)
    inside = counts[:, (scale + key.tonic) % 12].sum(axis=1)
    return np.where(total > 0, inside / np.maximum(total, 1), np.nan)


def pitch_class_counts(batch: ScoreBatch) -> Index:
    """Notes of each pitch class, C first; shape (W, 12)."""
    pitched = batch.without_drums()
    counts = np.bincount(pitched.piece_of_note * 12 + pitched.notes.pitch % 12, minlength=12 * len(batch))
    return counts.reshape(len(batch), 12)


def polyphony(batch: ScoreBatch) -> Figures:
    """Mean number of different pitches that sound, over the time in which any does; shape (W,)."""
    piece, lasts_ticks, sounding = _levels(batch)
    total = np.bincount(piece, weights=lasts_ticks * sounding, minlength=len(batch))
    covered = np.bincount(piece, weights=lasts_ticks * (sounding > 0), minlength=len(batch))
    return np.where(covered > 0, total / np.maximum(covered, 1), np.nan)


def polyphony_rate(batch: ScoreBatch, *, threshold: int) -> Figures:
    """Share of the time to the end of the piece in which more than ``threshold`` different pitches sound; shape (W,).

    The end is that of the last note, drums or not. MusPy's default threshold is 2: three pitches or more.
    """
    piece, lasts_ticks, sounding = _levels(batch)
    above = np.bincount(piece, weights=lasts_ticks * (sounding > threshold), minlength=len(batch))
    return np.where(batch.end_ticks > 0, above / np.maximum(batch.end_ticks, 1), np.nan)


def _known(figures: Figures, pitched: ScoreBatch) -> Figures:
    return np.where(np.diff(pitched.note_starts) > 0, figures, np.nan)


def _by_pitch(batch: ScoreBatch) -> Index:
    pitched = batch.without_drums()
    counts = np.bincount(pitched.piece_of_note * 128 + pitched.notes.pitch, minlength=128 * len(batch))
    return counts.reshape(len(batch), 128)


def _levels(batch: ScoreBatch) -> tuple[Index, Index, Index]:
    """Stretches of time between changes: piece, length in ticks and how many pitches sound; shapes (2 I,)."""
    piece, begins, ends = _sounding(batch.without_drums())
    at = np.concatenate((begins, ends)) + (np.concatenate((piece, piece)) << _TICK_BITS)
    change = np.concatenate((np.ones(len(begins), np.int64), np.full(len(ends), -1)))
    order = np.argsort(at)
    at, owner = at[order], at[order] >> _TICK_BITS
    # A piece's changes add up to nothing, so that the sum needs no new start at the next.
    sounding = np.cumsum(change[order])
    lasts = np.diff(at, append=at[-1:])
    lasts[owner != np.append(owner[1:], -1)[: len(owner)]] = 0
    return owner, lasts, sounding


def _sounding(pitched: ScoreBatch) -> tuple[Index, Index, Index]:
    """Stretches in which one pitch sounds without a break: piece, first tick and tick after the last; shapes (I,)."""
    notes = pitched.notes
    voice = (pitched.piece_of_note << _PITCH_BITS) + notes.pitch
    order = np.argsort((voice << _TICK_BITS) + notes.onset_ticks)
    onset = (voice[order] << _TICK_BITS) + notes.onset_ticks[order]
    end = onset + notes.duration_ticks[order]
    # A voice's ticks end before the next voice's begin, so that one running maximum serves all.
    covered = np.maximum.accumulate(end)
    opens = np.ones(len(onset), dtype=bool)
    opens[1:] = (onset[1:] > covered[:-1]) | (voice[order][1:] != voice[order][:-1])
    first = np.flatnonzero(opens)
    last = np.append(first[1:], len(onset))[: len(first)] - 1
    mask = (1 << _TICK_BITS) - 1
    begins = onset[first]
    return begins >> (_TICK_BITS + _PITCH_BITS), begins & mask, (covered[last] - (begins & ~mask))
