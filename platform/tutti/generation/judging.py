"""Which of several pieces of one request is the best, by measures, before anything of them is rendered.

Goal: sort out what a listener would: pieces that leave their key, wander or circle, fall silent, miss what was asked of
mood, density or length, or that the model itself finds unlikely. Convention: each measure gives points, 0 where nothing
is wanting, each as much as real works differ among themselves (:data:`MEASURES` says in what unit). Points are added,
those of what was asked four times, and the fewest win; of equals the first. A measure that a piece has no cause for
gives none. Points only compare pieces of one request.

Sources: scale and groove consistency as in MusPy and Wu and Yang (:mod:`tutti.metrics.pitch`,
:mod:`tutti.metrics.rhythm`), likeness of bars as in :mod:`tutti.metrics.structure`, mood as
:mod:`tutti.features.mood` estimates it. Choosing among candidates by a likelihood and by rules, in the stage where a
candidate costs little, is best-of-N or rejection sampling (Stiennon et al. 2020, arXiv 2009.01325, for language).

Legend: W pieces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import rhythm as bar_lines
from tutti.features.descriptors import describe
from tutti.features.events import bars_of, on_grid
from tutti.features.mood import NEUTRAL_RADIUS
from tutti.features.vocabulary import DENSITIES, DENSITY_LIMITS_NOTES_PER_QUARTER, METERS, TICKS_PER_QUARTER
from tutti.generation.chords import Progression
from tutti.generation.harmony import Harmony
from tutti.generation.leading import DIFFICULTIES
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.generation.start import PLANTED
from tutti.metrics import pitch, rhythm, structure
from tutti.units import PitchRange

Figures = NDArray[np.float64]

UNUSABLE = 1000.0
"""Points of a piece without notes, or with tokens that could not be decoded."""
ASKED = ("mood", "density", "chords", "length")
"""Measures of what was asked."""
ASKED_WEIGHT = 4
"""How often their points count. Of the best of 16 the asked class came in 0.51, 0.58 and 0.60 of the takes where they
count 2, 4 and 6 times, with a scale consistency of 0.866, 0.858 and 0.852 (demo's model, ``benchmarks/best_of.py``)."""
_LIKE, _ALIKE = 0.15, 0.6
"""Mean likeness of two bars below which a piece wanders, and above which it circles."""
_NARROW, _WIDE = 12, 60
"""Pitch range in semitones that is narrow, and wide."""
_EMPTY_BEATS = 0.1


@dataclass(frozen=True, slots=True)
class Measure:
    """Points of pieces of one request.

    Args:
        name: in rows and answers.
        sentence: what gives points, and what one is worth.
        points: of W pieces, shape (W,); NaN: none.
    """

    name: str
    sentence: str
    points: Callable[[Sequence[Piece], ScoreBatch, Request], Figures]


def _scale(_: Sequence[Piece], batch: ScoreBatch, __: Request) -> Figures:
    return (1 - pitch.scale_consistency(batch)) / 0.05


def _groove(_: Sequence[Piece], batch: ScoreBatch, __: Request) -> Figures:
    return (1 - rhythm.groove_consistency(batch, steps_per_quarter=TICKS_PER_QUARTER)) / 0.05


def _repetition(_: Sequence[Piece], batch: ScoreBatch, __: Request) -> Figures:
    bars = np.diff(bar_lines.bars(batch).starts)
    likeness = np.array([
        structure.mean_similarity(structure.similarity(score, transposed=False))
        if 1 < count <= structure.MAX_BARS and len(score.notes) else math.nan
        for score, count in zip(batch, bars.tolist(), strict=True)
    ])  # fmt: skip
    return np.maximum(_LIKE - likeness, 0) / 0.05 + np.maximum(likeness - _ALIKE, 0) / 0.1


def _range(_: Sequence[Piece], batch: ScoreBatch, __: Request) -> Figures:
    semitones = pitch.pitch_range(batch)
    pitched = np.diff(batch.without_drums().note_starts) > 0
    points = np.maximum(_NARROW - semitones, 0) / 6 + np.maximum(semitones - _WIDE, 0) / 6
    return np.where(pitched, points, np.nan)


def _silence(_: Sequence[Piece], batch: ScoreBatch, __: Request) -> Figures:
    return np.maximum(rhythm.empty_beat_rate(batch) - _EMPTY_BEATS, 0) / 0.1


def _likelihood(pieces: Sequence[Piece], batch: ScoreBatch, _: Request) -> Figures:
    nats = np.array([math.nan if piece.nats is None else piece.nats for piece in pieces])
    a_note = nats / np.maximum(np.diff(batch.note_starts), 1)
    return (a_note - np.nanmin(a_note)) / 0.2 if np.isfinite(a_note).any() else a_note


def _mood(_: Sequence[Piece], batch: ScoreBatch, request: Request) -> Figures:
    if request.feeling is None:
        return np.full(len(batch), np.nan)
    described = describe(batch)
    valence, arousal = (described[name].to_numpy() for name in ("valence", "arousal"))
    if request.mood is None:
        asked = (request.valence, valence), (request.arousal, arousal)
        return np.asarray(np.sqrt(sum((got - point) ** 2 for point, got in asked if point is not None)) / 0.1)
    radius = np.hypot(valence, arousal)
    if request.mood == "neutral":
        return np.asarray(np.maximum(radius - NEUTRAL_RADIUS, 0) / 0.1)
    glad, lively = (1 if request.mood in words else -1 for words in (("happy", "calm"), ("happy", "tense")))
    beyond = np.hypot(np.maximum(-glad * valence, 0), np.maximum(-lively * arousal, 0))
    return np.asarray((beyond + np.maximum(NEUTRAL_RADIUS - radius, 0)) / 0.1)


def _density(_: Sequence[Piece], batch: ScoreBatch, request: Request) -> Figures:
    density = request.density or DIFFICULTIES.get(request.difficulty or "", {}).get("density")
    if density is None:
        return np.full(len(batch), np.nan)
    notes = np.log2(np.maximum(bar_lines.notes_per_quarter(batch), 1 / 16))
    limits = (0, *DENSITY_LIMITS_NOTES_PER_QUARTER, math.inf)
    place = DENSITIES.index(density)
    low, high = (math.log2(limit) if limit else -math.inf for limit in limits[place : place + 2])
    return np.asarray((np.maximum(low - notes, 0) + np.maximum(notes - high, 0)) / 0.5)


def _chords(_: Sequence[Piece], batch: ScoreBatch, request: Request) -> Figures:
    whole = request.start is None or request.start.kind in PLANTED
    if request.progression is None or not whole:
        return np.full(len(batch), np.nan)
    return np.array([_unheard(score, request.progression) if len(score.notes) else math.nan for score in batch]) / 0.25


def _unheard(score: Score, progression: Progression) -> float:
    """Share of the chords' tones that do not sound while their chord lasts, the longer chords counting more."""
    grid = on_grid(score)
    lines = bars_of(grid)
    meters = tuple(METERS[meter] for meter in lines.meter.tolist())
    harmony = Harmony(
        progression, bars=len(meters), scale=None, pitch_range=PitchRange(0, 127), has_bass=True, meters=meters
    )
    notes = grid.notes.take(grid.notes.program != DRUM_PROGRAM)
    ends = notes.onset_ticks + notes.duration_ticks
    missing = total_ticks = 0.0
    for start, stop, chord in harmony.regions(meters[0]):
        heard = set((notes.pitch[(notes.onset_ticks < stop) & (start < ends)] % 12).tolist())
        missing += (stop - start) * len(chord.tones - heard) / len(chord.tones)
        total_ticks += stop - start
    return missing / total_ticks


def _length(_: Sequence[Piece], batch: ScoreBatch, request: Request) -> Figures:
    if request.bars is not None:
        return np.full(len(batch), np.nan)
    return np.asarray(np.abs(batch.length_s - request.length_s) / request.length_s / 0.1)


MEASURES = (
    Measure("scale", "notes outside the scale that holds most of them; 5 of 100", _scale),
    Measure("groove", "steps in which two neighbouring bars differ; 5 of 100", _groove),
    Measure("repetition", "bars less alike than 0.15 on average, 0.05; or more than 0.6, 0.1", _repetition),
    Measure("range", "pitches within less than an octave, or more than five; 6 semitones", _range),
    Measure("silence", "empty beats beyond a tenth; 10 of 100", _silence),
    Measure("likelihood", "how much less likely than the likeliest, to the model; 0.2 nats a note", _likelihood),
    Measure("mood", "distance from the asked mood, on axes of -1 to 1; 0.1", _mood),
    Measure(
        "density", "notes a quarter beyond the class that is asked, or of the difficulty; half an octave", _density
    ),
    Measure("chords", "tones of asked chords that do not sound while their chord lasts; a quarter of them", _chords),
    Measure("length", "deviation from the asked seconds; a tenth", _length),
)
"""What pieces are judged by."""


def points_of(pieces: Sequence[Piece], *, request: Request) -> list[Mapping[str, float]]:
    """Points of each piece, by the measures that it has cause for; ``unusable`` alone of one that is none.

    Args:
        request: which all of them answer.
    """
    batch = ScoreBatch.of([piece.score for piece in pieces])
    columns = {measure.name: measure.points(pieces, batch, request) for measure in MEASURES}
    found: list[Mapping[str, float]] = []
    for place, piece in enumerate(pieces):
        if piece.refused_tokens or not len(piece.score.notes):
            found.append({"unusable": UNUSABLE})
            continue
        points = {name: float(column[place]) for name, column in columns.items()}
        found.append({name: round(each, 4) for name, each in points.items() if math.isfinite(each)})
    return found


def total(points: Mapping[str, float]) -> float:
    """All points of one piece, those of what was asked :data:`ASKED_WEIGHT` times."""
    return round(sum(each * (ASKED_WEIGHT if name in ASKED else 1) for name, each in points.items()), 4)
