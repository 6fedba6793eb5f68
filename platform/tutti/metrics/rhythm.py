"""Time as a whole: groove, silence, note lengths, the times between onsets, drum patterns.

Goal: say of many pieces at once what the field reports of generated music, so that figures here stand beside published
ones. Convention: pieces as a :class:`~tutti.corpus.score_batch.ScoreBatch` (one score is ``ScoreBatch.of([score])``);
each function gives one row a piece; drums count like other notes, except where their patterns are meant. A beat is a
quarter, a measure is a bar as long as its meter says, a rate is a share from 0 to 1.

Source: MusPy (Dong et al. 2020, "MusPy: A toolkit for symbolic music generation", ISMIR), whose figures on the same
notes these equal to the last digit wherever MusPy has one: in pieces of one meter. Groove consistency is of Wu and Yang
(2020, "The Jazz Transformer on the front line", ISMIR), the drum patterns are MuseGAN's (Dong et al. 2018), note length
classes are of Yang and Lerch (2020, "On the evaluation of generative models in music").

As in MusPy a piece reaches into the beat and the bar in which its last note ends, and a note into those in which it
ends, even where it ends on their first tick. The descriptors of :mod:`tutti.features.rhythm` ask what is heard instead:
there a bar that begins where the last note stops is none, and one that is silent is empty.

We differ where the meter changes, of which MusPy's figures know nothing: neighbouring bars of unlike length are
compared over the longer one. Note length classes are parts of a whole note, where Yang and Lerch's tool takes parts of
a bar; in 4/4 they are the same.

Without notes, and of one bar where two are compared, a rate is NaN; counts are 0.

Legend: W pieces, N notes, I intervals of all pieces together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import ScoreBatch, Starts
from tutti.features import rhythm
from tutti.features.rhythm import BarLines

Figures = NDArray[np.float64]
Index = NDArray[np.int64]

NOTE_LENGTHS = (
    "whole",
    "half",
    "quarter",
    "eighth",
    "16th",
    "dotted half",
    "dotted quarter",
    "dotted eighth",
    "dotted 16th",
    "half triplet",
    "quarter triplet",
    "eighth triplet",
)
"""Classes of note lengths, in the order of Yang and Lerch."""
NOTE_LENGTHS_QUARTERS = np.array([96, 48, 24, 12, 6, 72, 36, 18, 9, 32, 16, 8]) / 24

# Parts of a quarter on which drum notes are in their pattern, the finest that the resolution can tell.
_PATTERNS = {"duple": (4, 2), "triple": (3,)}


def groove_consistency(batch: ScoreBatch, *, steps_per_quarter: int) -> Figures:
    """1 less the mean share of steps in which two neighbouring bars differ: one begins a note there, the other not.

    Args:
        batch: W pieces.
        steps_per_quarter: to which onsets are rounded, and over which the share is taken: a finer grid makes every
            piece more consistent. MusPy takes a piece's own ticks.

    Returns:
        Shape (W,); NaN for a piece of one bar.
    """
    bars = rhythm.bars(batch, steps_per_quarter=steps_per_quarter, until_ticks=batch.end_ticks)
    several = np.diff(bars.starts) > 1
    return np.where(_has_length(batch) & several, rhythm.groove_consistency(bars), np.nan)


def empty_beat_rate(batch: ScoreBatch) -> Figures:
    """Share of the beats in which no note begins, sounds or ends; shape (W,)."""
    resolution = batch.ticks_per_quarter.astype(np.int64)
    onset = batch.notes.onset_ticks.astype(np.int64)
    end = onset + batch.notes.duration_ticks
    beat_ticks = resolution[batch.piece_of_note]
    return _empty_rate(
        batch, first=onset // beat_ticks, last=end // beat_ticks, count=batch.end_ticks // resolution + 1
    )


def empty_measure_rate(batch: ScoreBatch) -> Figures:
    """Share of the bars in which no note begins, sounds or ends; shape (W,)."""
    lines, piece = BarLines.of(batch), batch.piece_of_note
    onset = batch.notes.onset_ticks.astype(np.int64)
    first, last = (lines.at(ticks, piece)[0] for ticks in (onset, onset + batch.notes.duration_ticks))
    return _empty_rate(batch, first=first, last=last, count=lines.at(batch.end_ticks, np.arange(len(batch)))[0] + 1)


def drum_in_pattern_rate(batch: ScoreBatch, *, meter: str) -> Figures:
    """Share of the drum notes that begin on a sixteenth (``duple``) or a triplet (``triple``) of a beat; shape (W,).

    A resolution that cannot tell these counts eighths or whole beats instead.

    Raises:
        KeyError: another meter.
    """
    parts = _PATTERNS[meter]
    drums = batch.notes.program == DRUM_PROGRAM
    piece = batch.piece_of_note[drums]
    beat_ticks = batch.ticks_per_quarter.astype(np.int64)[piece]
    place = batch.notes.onset_ticks[drums] % beat_ticks
    inside = place == 0
    for part in parts:
        inside |= (beat_ticks % part == 0) & (place % np.maximum(beat_ticks // part, 1) == 0)
    total = np.bincount(piece, minlength=len(batch))
    return np.where(total > 0, np.bincount(piece, weights=inside, minlength=len(batch)) / np.maximum(total, 1), np.nan)


def drum_pattern_consistency(batch: ScoreBatch) -> Figures:
    """The larger of the two drum-in-pattern rates; shape (W,)."""
    duple, triple = (drum_in_pattern_rate(batch, meter=meter) for meter in _PATTERNS)
    return np.maximum(duple, triple)


def inter_onset_intervals(batch: ScoreBatch) -> tuple[Figures, Starts]:
    """Quarters from each moment at which notes begin to the next; shape (I,), and where each piece begins, (W + 1,).

    Notes that begin on one tick are one moment.
    """
    moment = (batch.piece_of_note << 32) + batch.notes.onset_ticks
    moment = moment[np.diff(moment, prepend=-1) != 0]
    piece = moment >> 32
    inside = np.diff(piece) == 0
    intervals = np.diff(moment)[inside] / batch.ticks_per_quarter[piece[1:]][inside]
    counts = np.bincount(piece[1:][inside], minlength=len(batch))
    return intervals, np.concatenate(([0], np.cumsum(counts)))


def note_length_classes(batch: ScoreBatch) -> Index:
    """The nearest of :data:`NOTE_LENGTHS` for each note, the first of two equally near; shape (N,)."""
    quarters = batch.notes.duration_ticks / batch.ticks_per_quarter[batch.piece_of_note]
    kinds, kind = np.unique(quarters, return_inverse=True)
    return np.asarray(np.abs(kinds[:, None] - NOTE_LENGTHS_QUARTERS).argmin(axis=1)[kind])


def note_length_histogram(batch: ScoreBatch) -> Index:
    """Notes of each length, drums or not; shape (W, 12), columns as :data:`NOTE_LENGTHS`."""
    counts = np.bincount(batch.piece_of_note * 12 + note_length_classes(batch), minlength=12 * len(batch))
    return counts.reshape(len(batch), 12)


def _has_length(batch: ScoreBatch) -> NDArray[np.bool_]:
    return np.asarray(batch.end_ticks > 0)


def _empty_rate(batch: ScoreBatch, *, first: Index, last: Index, count: Index) -> Figures:
    """Share of ``count`` units of each piece that no note touches from its ``first`` to its ``last``; shape (W,)."""
    starts = np.concatenate(([0], np.cumsum(count)))
    offset = starts[:-1][batch.piece_of_note]
    total = int(starts[-1])
    touched = np.cumsum(
        np.bincount(offset + first, minlength=total + 1) - np.bincount(offset + last + 1, minlength=total + 1)
    )[:total]
    owner = np.repeat(np.arange(len(batch)), count)
    empty = np.bincount(owner[touched == 0], minlength=len(batch))
    return np.where(_has_length(batch), empty / count, np.nan)
