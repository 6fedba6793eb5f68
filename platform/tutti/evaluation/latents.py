"""What the latents of a model's bars hold: how much of a work comes back of them, and whether their directions lead.

Convention: figures are of the first :data:`BARS` bars of the first :data:`WORKS` works of a set, so they have no
spread. Notes that come back are counted by onset, pitch and program; beside them stand pieces of the same length, tempo
and meter whose latents the model drew itself. Sources: :mod:`tutti.generation.latent`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.evaluation.comparison import HELD_OUT, SETS, TAKES, TRAIN, Cell, Row
from tutti.features.events import bars_of, on_grid
from tutti.generation import latent
from tutti.generation.engine import Engine

LATENTS = "Latents"
WORKS, BARS, STEPS = 8, 8, 5
_READINGS: Mapping[str, tuple[str, str]] = {
    "token_accuracy_told": ("Tokens that are the likeliest, latents known", "share"),
    "token_accuracy_blind": ("The same, latents unknown", "share"),
    "note_f1_sampled": ("Notes that come back of latents alone, F1", "share"),
    "note_f1_drawn": ("The same, latents drawn by the model", "share"),
    "kl_nats_per_bar": ("Divergence of a bar from its prior", "nats"),
    "active_units": ("Dimensions that are used", "dimensions"),
}
_ATTRIBUTES: Mapping[latent.Attribute, tuple[str, str]] = {
    "density": ("Notes, moved by -1 and by 1", "notes a quarter"),
    "pitch": ("Height, moved by -1 and by 1", "semitones"),
    "calmness": ("Calmness, moved by -1 and by 1", ""),
}


def rows_of_latents(engine: Engine, scores: Mapping[str, ScoreBatch]) -> list[Row]:
    """A row for each reading, and for each attribute how far it moves along its direction.

    Args:
        engine: with a model that has latents.
        scores: by set, as the model writes; directions are those of the training.
    """
    parts = {name: beginnings(batch) for name, batch in scores.items() if name != TAKES}
    parts = {name: pieces for name, pieces in parts.items() if pieces}
    read = {name: latent.readings(engine, pieces) for name, pieces in parts.items()}
    found = {name: {of: figures[name] for of, figures in read.items()} for name in _READINGS}
    effects: dict[str, dict[str, float]] = {f"{attribute}_effect": {} for attribute in _ATTRIBUTES}
    known = parts.get(TRAIN, [])
    for attribute in _ATTRIBUTES if known and HELD_OUT in parts else ():
        direction = latent.attribute_direction(engine, known, attribute)
        effect = latent.attribute_effect(engine, parts[HELD_OUT], direction, attribute)
        effects[f"{attribute}_effect"][HELD_OUT] = effect
    named = {**_READINGS, **{f"{attribute}_effect": told for attribute, told in _ATTRIBUTES.items()}}
    return [
        Row(LATENTS, name, title, unit, {of: _cell((found | effects)[name], of, parts) for of in SETS})
        for name, (title, unit) in named.items()
    ]


def _cell(figures: Mapping[str, float], of: str, parts: Mapping[str, list[Score]]) -> Cell:
    value = figures.get(of, math.nan)
    if math.isfinite(value):
        return Cell(value, pieces=len(parts[of]))
    return Cell.none("takes come of latents: nothing comes back of them" if of == TAKES else "not looked at")


def between(engine: Engine, scores: Mapping[str, ScoreBatch], *, seed: int) -> tuple[Score, ...]:
    """Pieces from the first work held out to the second, both as they come back; none where there are no two."""
    ends = beginnings(scores[HELD_OUT])[:2]
    if len(ends) < 2:
        return ()
    return tuple(piece.score for piece in latent.interpolate(engine, *ends, steps=STEPS, seed=seed))


def engine_of(folder: Path, *, device: str) -> Engine:
    """The engine of a bundle."""
    return Engine.load(folder, device=device)


def beginnings(batch: ScoreBatch, *, most: int = WORKS) -> list[Score]:
    """The first bars of the first pieces that hold notes there."""
    cut = (_beginning(score) for score in batch if len(score.notes))
    return list(islice((score for score in cut if len(score.notes)), most))


def _beginning(score: Score) -> Score:
    score = on_grid(score)
    starts = bars_of(score).start_ticks
    if len(starts) <= BARS:
        return score
    end_ticks = int(starts[BARS])
    notes = score.notes.take(score.notes.onset_ticks < end_ticks)
    room = end_ticks - notes.onset_ticks
    tempo, meter = score.tempo_ticks < end_ticks, score.meter_ticks < end_ticks
    return replace(
        score,
        notes=replace(notes, duration_ticks=np.minimum(notes.duration_ticks, room).astype(np.int32)),
        tempo_ticks=score.tempo_ticks[tempo], tempo_qpm=score.tempo_qpm[tempo],
        meter_ticks=score.meter_ticks[meter], meter_numerator=score.meter_numerator[meter],
        meter_denominator=score.meter_denominator[meter],
    )  # fmt: skip
