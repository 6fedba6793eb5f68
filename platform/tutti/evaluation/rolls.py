"""Measures of piano-rolls track by track, for models that write rolls: MuseGAN's, as training's judge takes them.

Convention: a figure is of all rolls of a set together, so it has no spread. Pieces are read as windows of whole phrases
that do not overlap; what is left at their ends is not looked at.

Legend: R rolls, M marks, B bars, S steps, P pitches, K tracks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from tutti.corpus.score_batch import ScoreBatch
from tutti.evaluation.comparison import Cell, Row
from tutti.features import roll
from tutti.features.vocabulary import ANY
from tutti.training.roll_judge import measured

ROLLS = "Piano-roll"
_PITCHED = [name for track, name in enumerate(roll.TRACKS) if track != roll.DRUMS]
_PAIRS = [f"{one} and {other}" for one, other in combinations(_PITCHED, 2)]
_DRUMS = [roll.TRACKS[roll.DRUMS]]
_MEASURES: Mapping[str, tuple[str, str, list[str]]] = {
    "empty_bars_rate": ("Empty bars", "share", list(roll.TRACKS)),
    "pitch_classes_used": ("Pitch classes of a bar", "classes", list(roll.TRACKS)),
    "qualified_note_rate": ("Notes of an eighth or more", "share", list(roll.TRACKS)),
    "polyphonic_rate": ("Time with two pitches or more", "share", list(roll.TRACKS)),
    "notes": ("Notes of a phrase", "notes", list(roll.TRACKS)),
    "drum_pattern_rate": ("Hits on the pattern of eighths", "", _DRUMS),
    "tonal_distance": ("Tonal distance", "", _PAIRS),
    "variety": ("Cells that are not those of the next phrase", "share", [""]),
}
"""Title, unit and of what: tracks, pairs of them in the order of their figures, or all together."""


def rows_of_rolls(scores: Mapping[str, ScoreBatch]) -> list[Row]:
    """A row for each measure and track, or pair of tracks.

    Args:
        scores: by set; the track of a note is that of a roll.
    """
    marks = {name: marks_of(batch) for name, batch in scores.items()}
    found = {name: measured(roll_RMBSPK) for name, roll_RMBSPK in marks.items() if len(roll_RMBSPK)}
    rows = []
    for measure, (title, unit, parts) in _MEASURES.items():
        for place, part in enumerate(parts):
            cells = {}
            for name, batch in scores.items():
                value = float(found[name][measure][place]) if name in found else math.nan
                why = f"{part} play in no phrase" if part else "there are no two phrases"
                cells[name] = Cell(value, pieces=len(batch)) if math.isfinite(value) else Cell.none(why)
            row = f"{measure} {part}".strip().replace(" and ", " ").replace(" ", "_")
            rows.append(Row(ROLLS, row, f"{title}, {part}" if part else title, unit, cells))
    return rows


def marks_of(batch: ScoreBatch) -> roll.Marks:
    """All phrases of pieces whose notes name a roll's tracks; ``roll_RMBSPK``."""
    tokens = [
        phrase
        for score in batch
        for phrase in roll.rolls_of(
            score, tracks=score.notes.track.astype(np.int64), mood=ANY, hop_bars=roll.BARS
        ).tokens
    ]
    if not tokens:
        return np.zeros((0, *roll.SHAPE), dtype=bool)
    _, marks = roll.dense(np.concatenate(tokens), lengths=np.array([len(phrase) for phrase in tokens]))
    return marks
