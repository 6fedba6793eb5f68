"""Form of a long piece: where its sections begin, which of them return, and from how far away its bars come again.

Goal: tell a piece with sections from one that wanders and from one that circles, at three to ten minutes. Convention: a
bar is described by its pitch classes (sounding time, percussion aside) and its rhythm (onsets in sixteenths of the
bar), each of length 1; two bars are as similar as the weighted cosine of both, 0 to 1 (:func:`bar_similarity`). What
comes again note for note is measured on the notes themselves (:mod:`tutti.metrics.structure`).

Source: novelty by a checkerboard kernel along the diagonal is Foote's (2000, "Automatic audio segmentation using a
measure of audio novelty"), tapered as in Müller's "Fundamentals of Music Processing" (2nd ed., section 4.4); here with
bars for frames. We differ at the ends: the kernel is cut there, and what is left of it counts.

A piece without notes has no bars, no sections, and rates NaN.

Legend: B bars, up to that of the last onset; S sections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import rhythm
from tutti.metrics import structure

Figures = NDArray[np.float64]

KERNEL_BARS, SHORTEST_BARS = 8, 4
"""Half the width of the kernel, and the shortest section."""
PROMINENCE, OF_HIGHEST = 0.04, 0.2
"""By how much a peak of novelty stands out where a section begins, and by what share of the piece's highest."""
SAME, ALIKE = 0.999, 0.5
"""Similarity of the notes of two bars from which on one repeats the other, and one varies the other."""
FAR_BARS = 16
"""From which distance on a passage that comes again is a return, and no echo."""
_PASSAGE_BARS = 4
_STEPS = 16
_RHYTHM = 1 / 3


@dataclass(frozen=True, slots=True)
class FormFigures:
    """Form of one piece.

    Args:
        bars: up to that of the last onset.
        sections: that novelty finds.
        returning: share of the sections after the first of which half and more comes again of far before.
        same: share of bars that repeat an earlier one note for note.
        varied: share of the others that have half their notes and more from an earlier one, in any key.
        returns: share of bars in passages of four and more that come again after :data:`FAR_BARS` or more.
        loop: share of bars that are like the bar one, two or four before; what circles has much of it.
    """

    bars: int
    sections: int
    returning: float
    same: float
    varied: float
    returns: float
    loop: float


def form_figures(score: Score) -> FormFigures:
    """All figures of one piece.

    Raises:
        InputError: it has more than :data:`tutti.metrics.structure.MAX_BARS` bars.
    """
    plain_BB = structure.similarity(score, transposed=False)
    moved_BB = structure.similarity(score, transposed=True)
    edges = sections(novelty(bar_similarity(score)))
    same = structure.repetition_rate(plain_BB, threshold=SAME)
    again_B = far_returns(moved_BB)
    return FormFigures(
        bars=len(plain_BB),
        sections=max(len(edges) - 1, 0),
        returning=returning(again_B, edges=edges),
        same=same,
        varied=structure.repetition_rate(moved_BB, threshold=ALIKE) - same,
        returns=float(again_B.mean()) if len(again_B) else math.nan,
        loop=loop_rate(plain_BB),
    )


def bar_similarity(score: Score) -> Figures:
    """Similarity of every two bars by pitch classes and rhythm; shape (B, B). A silent bar resembles itself alone."""
    bars = rhythm.bars(ScoreBatch.of([score]))
    count = int(bars.starts[-1])
    if not count:
        return np.zeros((0, 0))
    notes, of_note = score.notes, bars.of_note
    pitched = notes.program != DRUM_PROGRAM
    classes_B12, steps_BS = np.zeros((count, 12)), np.zeros((count, _STEPS))
    np.add.at(classes_B12, (of_note[pitched], notes.pitch[pitched] % 12), notes.duration_ticks[pitched])
    step = np.minimum(bars.step_of_note * _STEPS // np.maximum(bars.steps[of_note], 1), _STEPS - 1)
    np.add.at(steps_BS, (of_note, step), 1.0)
    similarity_BB = (1 - _RHYTHM) * _cosine(classes_B12) + _RHYTHM * _cosine(steps_BS)
    np.fill_diagonal(similarity_BB, 1.0)
    return np.asarray(similarity_BB)


def novelty(similarity_BB: Figures, *, kernel_bars: int = KERNEL_BARS) -> Figures:
    """How much the bars from each on differ from those before, and are like one another; shape (B,), at most 1."""
    count = len(similarity_BB)
    found = np.zeros(count)
    offsets = np.arange(-kernel_bars, kernel_bars) + 0.5
    taper = np.exp(-0.5 * (2 * offsets / kernel_bars) ** 2)
    weight_KK = np.outer(taper, taper)
    sign_KK = np.sign(np.outer(offsets, offsets))
    # That a bar is like itself says nothing.
    np.fill_diagonal(sign_KK, 0)
    for bar in range(1, count):
        low, high = max(bar - kernel_bars, 0), min(bar + kernel_bars, count)
        here = slice(low - bar + kernel_bars, high - bar + kernel_bars)
        held, sign = weight_KK[here, here], sign_KK[here, here]
        patch = similarity_BB[low:high, low:high]
        alike, unlike = sign > 0, sign < 0
        if not alike.any():
            continue
        found[bar] = np.average(patch[alike], weights=held[alike]) - np.average(patch[unlike], weights=held[unlike])
    return found


def sections(novelty_B: Figures) -> NDArray[np.int64]:
    """First bar of each section, and the number of bars; shape (S + 1,), empty without bars."""
    count = len(novelty_B)
    if not count:
        return np.zeros(0, dtype=np.int64)
    stands_out = max(PROMINENCE, OF_HIGHEST * float(novelty_B.max()))
    peaks, _ = find_peaks(novelty_B, distance=SHORTEST_BARS, prominence=stands_out)
    inside = peaks[(peaks >= SHORTEST_BARS) & (peaks <= count - SHORTEST_BARS)]
    return np.concatenate(([0], inside, [count])).astype(np.int64)


def returning(again_B: NDArray[np.bool_], *, edges: NDArray[np.int64]) -> float:
    """Share of the sections after the first of which half the bars and more come again; NaN where there are none.

    Args:
        again_B: bars that come again of far before (:func:`far_returns`).
        edges: of the sections.
    """
    if len(edges) < 3:
        return math.nan
    shares = np.add.reduceat(again_B.astype(float), edges[:-1]) / np.diff(edges)
    return float((shares[1:] >= 0.5).mean())


def far_returns(similarity_BB: Figures) -> NDArray[np.bool_]:
    """Bars in passages of four and more that come again of bars :data:`FAR_BARS` or more before; shape (B,)."""
    count = len(similarity_BB)
    covered = np.zeros(count, dtype=bool)
    for lag in range(FAR_BARS, count - _PASSAGE_BARS + 1):
        alike = np.diagonal(similarity_BB, -lag)
        means = np.convolve(alike, np.ones(_PASSAGE_BARS) / _PASSAGE_BARS, mode="valid")
        for start in np.flatnonzero(means >= ALIKE).tolist():
            covered[start + lag : start + lag + _PASSAGE_BARS] = True
    return covered


def loop_rate(similarity_BB: Figures) -> float:
    """Share of bars that are, half their notes and more, the bar one, two or four before."""
    count = len(similarity_BB)
    if not count:
        return math.nan
    alike = np.zeros(count, dtype=bool)
    for lag in (1, 2, 4):
        alike[lag:] |= np.diagonal(similarity_BB, -lag) >= ALIKE
    return float(alike.mean())


def _cosine(rows_BF: Figures) -> Figures:
    norm = np.linalg.norm(rows_BF, axis=1, keepdims=True)
    unit = np.divide(rows_BF, norm, out=np.zeros_like(rows_BF), where=norm > 0)
    return np.asarray(unit @ unit.T)
