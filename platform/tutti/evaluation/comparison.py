"""Three sets of pieces side by side: what a model made, works held out, and works that it learnt from.

Convention: a row is one measure; a cell is one set's figure with its spread and how many pieces it is of, or why there
is none. Means are over the pieces that have the measure, the spread is their standard deviation (with one degree of
freedom less); rates of faults and shares of copies are over all pieces together and have no spread. Nothing is left
out because it has no figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import InputError
from tutti.evaluation.borrowing import Borrowings
from tutti.evaluation.measures import MEASURES
from tutti.metrics import set_distance, voice_leading
from tutti.metrics.diversity import Diversity, diversity

Figures = NDArray[np.float64]

TAKES, HELD_OUT, TRAIN = "takes", "held_out", "train"
SETS = (TAKES, HELD_OUT, TRAIN)
VOICE_LEADING, ORIGINALITY, DIVERSITY = "Voice leading", "Originality", "Diversity"
NGRAM = 3
"""Codes of the n-grams by which pieces of a set are told apart: four notes."""
STEPS_PER_QUARTER = 4
"""Of the grid on which voice leading is read: sixteenths."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure.

    Args:
        value: the figure; None where there is none.
        spread: standard deviation over pieces, where it is a mean of several.
        pieces: how many pieces it is of.
        why: where there is no figure, why.
    """

    value: float | None
    spread: float | None = None
    pieces: int = 0
    why: str = ""

    @classmethod
    def none(cls, why: str) -> Cell:
        """A cell without a figure."""
        return cls(None, why=why)

    @classmethod
    def mean(cls, figures: Figures, *, needs: str) -> Cell:
        """The mean of what is a number among figures of pieces; ``needs`` says what a piece must have for it."""
        known = figures[np.isfinite(figures)]
        if not len(known):
            return cls.none(f"none of {len(figures)} has {needs}" if len(figures) else "no pieces")
        spread = float(known.std(ddof=1)) if len(known) > 1 else None
        return cls(float(known.mean()), spread, len(known))


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of all sets.

    Args:
        section: what it belongs to.
        name: in files.
        title: for people.
        unit: of the figures; empty where they have none.
        cells: by the names of :data:`SETS`.
    """

    section: str
    name: str
    title: str
    unit: str
    cells: Mapping[str, Cell]

    @property
    def apart(self) -> float | None:
        """How far the takes are from the works held out, in the latter's standard deviations."""
        takes, held_out = self.cells[TAKES], self.cells[HELD_OUT]
        if takes.value is None or held_out.value is None or not held_out.spread:
            return None
        return (takes.value - held_out.value) / held_out.spread


@dataclass(frozen=True)
class Feature:
    """One of Yang and Lerch's features in two sets, by the columns of :data:`tutti.metrics.set_distance.SCHEMA`.

    Args:
        name: of the feature.
        takes: takes beside works held out.
        train: works of the training beside works held out: what another draw of the same music comes to.
    """

    name: str
    takes: Mapping[str, float]
    train: Mapping[str, float] | None


def rows_of_measures(measured: Mapping[str, Mapping[str, Figures]]) -> list[Row]:
    """A row for each measure of single pieces; ``measured`` by set, then by measure."""
    rows = []
    for measure in MEASURES:
        cells = {name: Cell.mean(figures[measure.name], needs=measure.needs) for name, figures in measured.items()}
        rows.append(Row(measure.section, measure.name, measure.title, measure.unit, cells))
    return rows


def rows_of_voice_leading(scores: Mapping[str, ScoreBatch], *, why_not: Mapping[str, str]) -> list[Row]:
    """Faults of each kind per hundred changes, over the pieces with four parts of each set of which half have four.

    Args:
        scores: by set, parts apart.
        why_not: by set, why none of it may have four parts, where something is known of it.
    """
    found = {name: _faults(batch, why=why_not.get(name, "")) for name, batch in scores.items()}
    return [
        Row(
            VOICE_LEADING, kind.replace(" ", "_"), kind.capitalize(), "per 100 changes",
            {name: cells if isinstance(cells, Cell) else cells[kind] for name, cells in found.items()},
        )
        for kind in voice_leading.KINDS
    ]  # fmt: skip


def _faults(batch: ScoreBatch, *, why: str) -> Cell | dict[str, Cell]:
    examined = []
    for score in batch:
        try:
            grid_TV = voice_leading.voices_of(score, steps_per_quarter=STEPS_PER_QUARTER)
        except InputError:  # it has not four parts: the number of pieces in the cell says so
            continue
        examined.append(voice_leading.examine(grid_TV))
    changes = sum(each.changes for each in examined)
    # Four instruments that happen to meet are no chorale.
    if not changes or 2 * len(examined) < len(batch):
        some = f"only {len(examined)}" if examined else "none"
        return Cell.none(f"{some} of {len(batch)} has four parts{f': {why}' if why else ''}")
    counts = [each.counts() for each in examined]
    return {
        kind: Cell(100 * sum(count[kind] for count in counts) / changes, pieces=len(examined))
        for kind in voice_leading.KINDS
    }


def rows_of_originality(found: Mapping[str, Borrowings], *, why_not: Mapping[str, str]) -> list[Row]:
    """What pieces have in common with the works of the training, by set; ``why_not`` where it was not looked at."""

    def row(name: str, title: str, unit: str, cell: Any) -> Row:
        cells = {
            each: cell(found[each]) if each in found else Cell.none(why_not.get(each, "not looked at")) for each in SETS
        }
        return Row(ORIGINALITY, name, title, unit, cells)

    def share(borrowings: Borrowings) -> Cell:
        copies = borrowings.copies
        return Cell(float(copies.mean()), pieces=len(copies)) if len(copies) else Cell.none("no pieces")

    def mean(figures: Figures) -> Cell:
        return Cell.mean(figures, needs="notes")

    return [
        row("copies", "Taken for copies of a training work", "share", share),
        row("melody_bits", "Longest shared passage, melody", "bits", lambda each: mean(each.melody_bits)),
        row("texture_bits", "Longest shared passage, texture", "bits", lambda each: mean(each.texture_bits)),
        row("shared_share", "Notes shared with one work", "share", lambda each: mean(each.shared_share)),
    ]


_OF_DIVERSITY = {
    "mean_distance": ("Distance of two pieces", "0 to 1"),
    "nearest_distance": ("Distance of the nearest piece", "0 to 1"),
    "effective_pieces": ("Effective number of pieces", "pieces"),
    "distinct_ngrams": ("Different n-grams of four notes", "share"),
    "near_duplicates": ("Versions of another piece", "share"),
    "same_melodies": ("Same melody as another piece", "share"),
}


def rows_of_diversity(scores: Mapping[str, ScoreBatch]) -> list[Row]:
    """How the pieces of each set differ among themselves, of as many pieces of each: those that come first."""
    size = min(len(batch) for batch in scores.values())
    found = {name: diversity(batch.take(np.arange(size)), ngram=NGRAM) for name, batch in scores.items()}
    assert _OF_DIVERSITY.keys() == {field.name for field in fields(Diversity)} - {"pieces"}
    return [
        Row(DIVERSITY, name, title, unit, {each: _diverse(asdict(of)[name], size=size) for each, of in found.items()})
        for name, (title, unit) in _OF_DIVERSITY.items()
    ]


def _diverse(value: float, *, size: int) -> Cell:
    return Cell.none(f"{size} of the pieces cannot be told apart") if math.isnan(value) else Cell(value, pieces=size)


def features_of(described: Mapping[str, Mapping[str, Figures]]) -> list[Feature]:
    """Yang and Lerch's features of takes, and of works of the training, held against those of works held out."""
    takes = set_distance.compare_features(described[TAKES], described[HELD_OUT]).to_pylist()
    train: Sequence[Mapping[str, Any] | None] = [None] * len(takes)
    if TRAIN in described:
        train = set_distance.compare_features(described[TRAIN], described[HELD_OUT]).to_pylist()
    return [
        Feature(row["feature"], _without_name(row), None if reference is None else _without_name(reference))
        for row, reference in zip(takes, train, strict=True)
    ]


def _without_name(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "feature"}
