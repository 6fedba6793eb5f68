"""A score as strokes: a piano-roll for pages, drawn from the notes, whose colours are the page's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.features.vocabulary import instrument_of
from tutti.units import format_seconds

ROLL_WIDTH, ROLL_HEIGHT = 1000, 200
_MIN_ROLL_PITCHES = 18
_ROLL_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Stroke:
    """Notes of one part as an SVG path of horizontal strokes; ``colour`` from 0."""

    colour: int
    path: str


@dataclass(frozen=True, slots=True)
class Roll:
    """A piano roll in :data:`ROLL_WIDTH` by :data:`ROLL_HEIGHT` units; time runs to the last note's end."""

    strokes: tuple[Stroke, ...]
    stroke_width: float
    caption: str


def instruments_of(score: Score) -> str:
    """The families of instruments that play, for people."""
    families = dict.fromkeys(instrument_of(int(program)) for program in sorted(score.notes.program.tolist()))
    return ", ".join(name.replace("_", " ") for name in families)


def roll_of(score: Score, *, pitches: tuple[int, int] | None = None) -> Roll | None:
    """The score drawn, a colour for each family of instruments; None without notes.

    Args:
        pitches: lowest and highest of the picture, so that several compare; None: the score's own.
    """
    notes = score.notes
    if not len(notes):
        return None
    onset_s = score.seconds_at(notes.onset_ticks.astype(np.int64))
    end_s = score.seconds_at(notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
    scale = ROLL_WIDTH / score.length_s
    low, high = pitches or (int(notes.pitch.min()), int(notes.pitch.max()))
    spare = max(0, _MIN_ROLL_PITCHES - (high - low + 1))
    step = ROLL_HEIGHT / (high - low + 3 + spare)
    middle = ROLL_HEIGHT - (notes.pitch.astype(np.float64) - low + 1.5 + spare / 2) * step
    families = [instrument_of(int(program)) for program in notes.program]
    strokes = []
    for colour, family in enumerate(dict.fromkeys(sorted(families, key=families.count, reverse=True))):
        own = np.array([name == family for name in families])
        strokes.append(Stroke(colour % _ROLL_COLOURS, _path(onset_s[own] * scale, end_s[own] * scale, middle[own])))
    caption = f"{len(notes)} notes over {format_seconds(score.length_s)}: {instruments_of(score)}"
    return Roll(tuple(strokes), round(step * 0.8, 2), caption)


def _path(left: NDArray[np.float64], right: NDArray[np.float64], middle: NDArray[np.float64]) -> str:
    """Strokes from ``left`` to ``right`` at ``middle``, a little apart where one follows another."""
    width = np.maximum(right - left - 1.0, 1.5)
    return "".join(f"M{x:.1f} {y:.1f}h{w:.1f}" for x, y, w in zip(left, middle, width, strict=True))
