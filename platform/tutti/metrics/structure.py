"""How a piece repeats itself: which bars resemble which, how much comes again, the longest passage that does.

Goal: tell music with a form from music that wanders or circles, on the notes themselves. Convention: a piece as a
:class:`~tutti.corpus.score.Score`; the similarity of two bars is Dice's coefficient of their notes (onset in 24ths of a
quarter from the bar line, and pitch), twice what both have over what each has, 0 to 1; lengths and loudness do not
matter. Drums count as pitches of their own. A bar in which nothing begins resembles none, not even itself, so silence
is no repetition.

Source: self-similarity matrices are Foote's (1999, "Visualizing music and audio using self-similarity"), here with
bars for frames. Fitness of segments and the structureness indicator are in :mod:`tutti.metrics.scape`.

A piece without notes has a matrix of shape (0, 0), rates NaN and no repeat.

Legend: B bars, up to that of the last onset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import InputError
from tutti.features import rhythm

Figures = NDArray[np.float64]

# A cell is a step, then a pitch with room for a transposition on either side, or a drum key.
_PITCHES = 128
_CELLS_OF_A_STEP = 4 * _PITCHES
MOST_SEMITONES = 11
MAX_BARS = 4096
"""More need matrices of over 128 MiB."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A passage that comes again.

    Args:
        bars: its length.
        first: bar in which it begins, from 0.
        again: bar in which it begins again, no earlier than it has ended.
    """

    bars: int
    first: int
    again: int


def similarity(score: Score, *, transposed: bool) -> Figures:
    """Similarity of every two bars; shape (B, B), symmetric.

    Args:
        score: the piece.
        transposed: whether a bar may be up to 11 semitones higher or lower than the other, whichever resembles most.

    Raises:
        InputError: the piece has more than :data:`MAX_BARS` bars.
    """
    bars = rhythm.bars(ScoreBatch.of([score]))
    if bars.starts[-1] > MAX_BARS:
        raise InputError(f"a piece of {bars.starts[-1]} bars has more than {MAX_BARS}", remedy="cut it into parts")
    drums = score.notes.program == DRUM_PROGRAM
    pitch = score.notes.pitch + np.where(drums, 2 * _PITCHES, 0)
    cells = np.unique(bars.of_note * (1 << 40) + bars.step_of_note * _CELLS_OF_A_STEP + pitch)
    bar, cell = cells >> 40, cells & ((1 << 40) - 1)
    names, column = np.unique(cell, return_inverse=True)
    size = (int(bars.starts[-1]), len(names))
    notes = np.bincount(bar, minlength=size[0])
    plain = sparse.csr_array((np.ones(len(bar)), (bar, column)), shape=size)
    common = (plain @ plain.T).toarray()
    if transposed:
        movable = names % _CELLS_OF_A_STEP < _PITCHES
        for semitones in range(1, MOST_SEMITONES + 1):
            # Drums stay where they are.
            target = np.searchsorted(names, np.where(movable, names + semitones, names))
            target = np.minimum(target, len(names) - 1)
            held = names[target] == np.where(movable, names + semitones, names)
            held &= ~movable | (names % _CELLS_OF_A_STEP + semitones < _PITCHES)
            kept = held[column]
            moved = sparse.csr_array((np.ones(kept.sum()), (bar[kept], target[column[kept]])), shape=size)
            higher = (moved @ plain.T).toarray()
            common = np.maximum(common, np.maximum(higher, higher.T))
    return np.asarray(2 * common / np.maximum(notes[:, None] + notes, 1))


def mean_similarity(similarity_BB: Figures) -> float:
    """Mean similarity of two different bars in which something begins: how uniform a piece is, 0 to 1."""
    sounds = np.flatnonzero(np.diagonal(similarity_BB) > 0)
    if len(sounds) < 2:
        return float("nan")
    held = similarity_BB[np.ix_(sounds, sounds)]
    return float((held.sum() - np.trace(held)) / (held.size - len(sounds)))


def repetition_rate(similarity_BB: Figures, *, threshold: float) -> float:
    """Share of the bars in which something begins that resemble an earlier one by ``threshold`` or more, 0 to 1."""
    sounds = np.diagonal(similarity_BB) > 0
    if not sounds.any():
        return float("nan")
    comes_again = (np.tril(similarity_BB, -1) >= threshold).any(axis=1)
    return float(np.count_nonzero(comes_again & sounds) / np.count_nonzero(sounds))


def longest_repeat(similarity_BB: Figures, *, threshold: float) -> Repeat | None:
    """The longest passage of which every bar resembles the one so many bars later by ``threshold`` or more.

    The two do not overlap; of several equally long it is the first, and of its repeats the first. None where no bar
    comes again.
    """
    best: Repeat | None = None
    for lag in range(1, len(similarity_BB)):
        alike = np.diagonal(similarity_BB, lag) >= threshold
        edges = np.flatnonzero(np.diff(alike, prepend=False, append=False))
        lengths = np.minimum(edges[1::2] - edges[::2], lag)
        if len(lengths):
            longest = int(lengths.argmax())
            found = Repeat(int(lengths[longest]), int(edges[2 * longest]), int(edges[2 * longest]) + lag)
            if best is None or (found.bars, -found.first, -found.again) > (best.bars, -best.first, -best.again):
                best = found
    return best


def period_bars(similarity_BB: Figures) -> int | None:
    """After how many bars a piece resembles itself most, up to half of it; the first of equals, None where never."""
    size = len(similarity_BB)
    means = [float(np.diagonal(similarity_BB, lag).mean()) for lag in range(1, size // 2 + 1)]
    return int(np.argmax(means)) + 1 if means and max(means) > 0 else None
