"""Copies of known works found, and other works let pass: ``python -m benchmarks.originality``.

A fifth of the groups of near duplicates (:mod:`tutti.corpus.duplicates`) is held out, drawn three times; the other
works are known. Every known work is copied, changed in one way or several (:mod:`benchmarks.versions.perturbations`),
and most copies are cut to 8 bars. What is counted is how many copies :func:`tutti.metrics.originality.is_copy` misses,
and how many of the works held out, whole or cut to 8 bars, it takes for copies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.duplicates import works
from benchmarks.harness import Bench, run
from benchmarks.versions import perturbations
from benchmarks.versions.grouping import BUDGET_BYTES
from tutti.corpus.duplicates import groups
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.sketch import sketches
from tutti.features.events import on_grid
from tutti.metrics.originality import LIMITS, Originality, WorkIndex, is_copy

COLLECTIONS = ("lieder", "mutopia", "freedoom")
MIN_NOTES = 24
BARS = 8
DRAWS = 3
HELD_OUT = 5  # one group of so many
SEED = 20261127

Change = Callable[[Score, np.random.Generator], Score | None]


def eight_bars(score: Score, draw: np.random.Generator) -> Score | None:
    """Eight bars from any place."""
    return perturbations.some_bars(score, draw, count=BARS)


def on_the_grid(score: Score, _: np.random.Generator) -> Score:
    """On the grid of event tokens, where everything lies that a model writes."""
    return on_grid(score)


ALL = (
    perturbations.transposed,
    perturbations.at_another_tempo,
    perturbations.in_other_note_values,
    perturbations.on_another_instrument,
)
COPIES: dict[str, tuple[Change, ...]] = {
    "8 bars": (eight_bars,),
    "8 bars, transposed": (eight_bars, perturbations.transposed),
    "8 bars, doubled or halved values": (eight_bars, perturbations.in_other_note_values),
    "8 bars, stretched": (eight_bars, perturbations.stretched),
    "8 bars, another instrument": (eight_bars, perturbations.on_another_instrument),
    "8 bars, all of these": (eight_bars, *ALL, perturbations.stretched),
    "8 bars, another key and instrument, on the grid of tokens": (
        eight_bars, perturbations.transposed, perturbations.on_another_instrument, on_the_grid,
    ),
    "8 bars, all but stretched, on the grid of tokens": (eight_bars, *ALL, on_the_grid),
    "whole, all of these": (*ALL, perturbations.stretched),
}  # fmt: skip


def changed(scores: Sequence[Score], changes: Sequence[Change], draw: np.random.Generator) -> ScoreBatch:
    """What the changes make of those scores of which they leave enough notes."""
    made = []
    for score in scores:
        found: Score | None = score
        for change in changes:
            found = None if found is None else change(found, draw)
        if found is not None:
            made.append(found)
    return ScoreBatch.of(made)


def copies_among(found: Sequence[Originality]) -> int:
    """How many are taken for copies."""
    return sum(is_copy(each, limits=LIMITS) for each in found)


def draws(batch: ScoreBatch) -> list[NDArray[np.bool_]]:
    """Which works are held out, in each draw."""
    group = groups(*sketches(batch), budget_bytes=BUDGET_BYTES)
    names = np.unique(group)
    return [
        np.isin(group, np.random.default_rng(SEED + number).choice(names, len(names) // HELD_OUT, replace=False))
        for number in range(DRAWS)
    ]


def measure(bench: Bench) -> None:
    """Copies missed and works held out that are taken for copies, and how long an index and an answer take."""
    what, batch = works(COLLECTIONS)
    melodic = [score for score in batch if np.count_nonzero(score.notes.program != DRUM_PROGRAM) >= MIN_NOTES]
    batch = ScoreBatch.of(melodic)
    bench.note(f"{len(batch):,} works, {len(batch.notes):,} notes: {what}")
    bench.note(f"limits: {LIMITS}")
    missed: dict[str, float] = {}
    for number, held in enumerate(draws(batch)):
        known = batch.take(~held)
        begin = time.perf_counter()
        index = WorkIndex.of(known, work_ids=[str(work) for work in np.flatnonzero(~held)])
        seconds = time.perf_counter() - begin
        bench.count(f"index {number + 1}", {"notes": float(len(known.notes)), "seconds": seconds}, unit="")
        draw = np.random.default_rng(SEED)
        others = [score for score, out in zip(batch, held, strict=True) if out]
        for name, pieces in (("whole", ScoreBatch.of(others)), ("8 bars", changed(others, (eight_bars,), draw))):
            taken = copies_among(index.originality(pieces))
            share = {"of": float(len(pieces)), "taken for copies": float(taken), "share": taken / len(pieces)}
            bench.count(f"held out {number + 1}, {name}", share, unit="works")
        for name, changes in COPIES.items():
            copies = changed(list(known), changes, draw)
            lost = len(copies) - copies_among(index.originality(copies))
            missed[name] = missed.get(name, 0.0) + lost
            missed["of"] = missed.get("of", 0.0) + len(copies)
    bench.count(f"copies missed, {DRAWS} draws", missed, unit="copies")
    times(bench, index, batch)


def times(bench: Bench, index: WorkIndex, batch: ScoreBatch) -> None:
    """One piece of about 300 notes, and a hundred pieces at once."""
    sizes = np.diff(batch.note_starts)
    some = np.argsort(np.abs(sizes - 300), kind="stable")[:100]
    one, many = batch.take(some[:1]), batch.take(some)
    bench.race("one piece", {"asked": lambda: index.originality(one)}, amount=1, unit="pieces")
    bench.race("a hundred pieces", {"asked": lambda: index.originality(many)}, amount=len(many), unit="pieces")


if __name__ == "__main__":
    run("originality", measure)
