"""The measures of single pieces, by name: what each is called, in which unit, and how it is found.

Each is of :mod:`tutti.metrics`, with the settings that are named here, and gives one figure a piece. A figure that is
not a number is of a piece that has no such measure, and stays out of means.

Legend: W pieces, B bars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import rhythm as bar_lines
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.metrics import pitch, rhythm, scape, structure

Figures = NDArray[np.float64]

POLYPHONY_THRESHOLD = 2
"""MusPy's: a step counts where three pitches or more sound."""
REPEATS_FROM = 0.8
"""From which similarity on a bar repeats another: four of five notes."""
FRAMES_PER_S = 1.0
"""Of structureness; Wu and Yang take 2, which costs sixteen times as much for the longest segments."""
STRUCTURE_MOST_S = 180.0
"""Longer pieces have no structureness here: its time grows with the fourth power of the length."""
RANGES_S: Mapping[str, tuple[float, float]] = {"short": (3, 8), "mid": (8, 15), "long": (15, STRUCTURE_MOST_S)}
"""Lengths of segments that the indicators of structureness look at, as Wu and Yang report them."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure a piece.

    Args:
        name: in files.
        title: what it measures, for people.
        unit: of the figure; empty where it has none.
        section: what it belongs to.
        needs: what a piece must have to have such a figure.
    """

    name: str
    title: str
    unit: str
    section: str
    needs: str


PITCH, TIME, FORM = "Pitch", "Time", "Form"
_NOTES, _PITCHED, _BARS, _DRUMS = "notes", "pitched notes", "two bars", "drums"

_OF_BATCHES: dict[Measure, Callable[[ScoreBatch], NDArray[Any]]] = {
    Measure("pitch_class_entropy", "Pitch-class entropy", "bits", PITCH, _PITCHED): pitch.pitch_class_entropy,
    Measure("pitch_entropy", "Pitch entropy", "bits", PITCH, _PITCHED): pitch.pitch_entropy,
    Measure("scale_consistency", "Scale consistency", "", PITCH, _PITCHED): pitch.scale_consistency,
    Measure("pitches_used", "Different pitches", "pitches", PITCH, _NOTES): pitch.pitches_used,
    Measure("pitch_classes_used", "Different pitch classes", "classes", PITCH, _NOTES): pitch.pitch_classes_used,
    Measure("pitch_range", "Pitch range", "semitones", PITCH, _NOTES): pitch.pitch_range,
    Measure("polyphony", "Polyphony", "pitches at once", PITCH, _PITCHED): pitch.polyphony,
    Measure("polyphony_rate", "Time with three pitches or more", "share", PITCH, _NOTES): (
        lambda batch: pitch.polyphony_rate(batch, threshold=POLYPHONY_THRESHOLD)
    ),
    Measure("length_s", "Length", "s", TIME, _NOTES): lambda batch: batch.length_s,
    Measure("groove_consistency", "Groove consistency", "", TIME, _BARS): (
        lambda batch: rhythm.groove_consistency(batch, steps_per_quarter=TICKS_PER_QUARTER)
    ),
    Measure("empty_beat_rate", "Empty beats", "share", TIME, _NOTES): rhythm.empty_beat_rate,
    Measure("empty_measure_rate", "Empty bars", "share", TIME, _NOTES): rhythm.empty_measure_rate,
    Measure("drum_pattern_consistency", "Drum pattern consistency", "", TIME, _DRUMS): (
        rhythm.drum_pattern_consistency
    ),
}
_FEW_BARS = f"two bars with notes, and at most {structure.MAX_BARS:,} bars"
_OF_SIMILARITIES: dict[Measure, Callable[[Figures], float]] = {
    Measure("mean_similarity", "Likeness of two bars", "", FORM, _FEW_BARS): structure.mean_similarity,
    Measure("repetition_rate", "Bars that repeat an earlier one", "share", FORM, _FEW_BARS): (
        lambda alike_BB: structure.repetition_rate(alike_BB, threshold=REPEATS_FROM)
    ),
    Measure("longest_repeat_bars", "Longest passage that comes again", "bars", FORM, _FEW_BARS): (
        lambda alike_BB: _bars(structure.longest_repeat(alike_BB, threshold=REPEATS_FROM))
    ),
}
_SHORT = f"notes, and at most {STRUCTURE_MOST_S:g} s"
_OF_SEGMENTS: dict[Measure, tuple[float, float]] = {
    Measure(f"structureness_{name}", f"Structureness, {name}", "", FORM, _SHORT): lengths_s
    for name, lengths_s in RANGES_S.items()
}
MEASURES: tuple[Measure, ...] = (*_OF_BATCHES, *_OF_SIMILARITIES, *_OF_SEGMENTS)


def measured(batch: ScoreBatch, *, told: Callable[[int], None] | None = None) -> dict[str, Figures]:
    """Every measure of every piece, each of shape (W,), by its name.

    Args:
        batch: W pieces.
        told: called with the number of pieces of which all is measured.
    """
    found = {measure.name: np.asarray(of(batch), dtype=np.float64) for measure, of in _OF_BATCHES.items()}
    form = {measure.name: np.full(len(batch), np.nan) for measure in (*_OF_SIMILARITIES, *_OF_SEGMENTS)}
    for piece, score in enumerate(batch):
        for name, figure in _form_of(score).items():
            form[name][piece] = figure
        if told is not None:
            told(piece + 1)
    # What no note begins has no length either, where a measure says 0.
    silent = np.diff(batch.note_starts) == 0
    return {name: np.where(silent, np.nan, figures) for name, figures in (found | form).items()}


def similarity(score: Score) -> Figures | None:
    """How alike every two bars are, as the measures of form take it, shape (B, B); None of a piece of too many bars."""
    if int(bar_lines.bars(ScoreBatch.of([score])).starts[-1]) > structure.MAX_BARS:
        return None
    return structure.similarity(score, transposed=False)


def _form_of(score: Score) -> dict[str, float]:
    found: dict[str, float] = {}
    if not len(score.notes):
        return found
    alike_BB = similarity(score)
    if alike_BB is not None:
        found |= {measure.name: of(alike_BB) for measure, of in _OF_SIMILARITIES.items()}
    if score.length_s <= STRUCTURE_MOST_S:
        found |= {
            measure.name: scape.structureness(
                score, shortest_s=shortest_s, longest_s=longest_s, frames_per_s=FRAMES_PER_S
            )
            for measure, (shortest_s, longest_s) in _OF_SEGMENTS.items()
        }
    return found


def _bars(repeat: structure.Repeat | None) -> int:
    return 0 if repeat is None else repeat.bars
