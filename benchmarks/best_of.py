"""The first of N beside the best of N, by its judges and by others: ``python -m benchmarks.best_of``.

The demo's model, trained into ``results`` where it is not there yet, makes ``--candidates`` pieces of each of
``--requests`` requests, a fifth each with nothing asked but a length, a mood (calm, sad, happy) or a density. Of the
same candidates the best of the first 1, 2, 4, … is chosen. Each choice is held against works of the splits that were
held out, cut to the same bars:

- **points**: the judges' own (:mod:`tutti.generation.judging`), which cannot but fall.
- figures that nobody chose by, beside those of the works: entropy of pitch classes, structureness, the bigram counts'
  likelihood (fitted on the training works in every transposition), overlap of the features of Yang and Lerch.
- **asked**: how often the asked mood or density came, by its class, which the judges see as a distance.

A figure of differences is paired: the same requests, 95 % by a bootstrap over them.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Bench, run
from jobs import recipe as recipes
from jobs import train
from tutti import seeding, telemetry
from tutti.config import build
from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import learnt, shards
from tutti.evaluation.measures import measured
from tutti.features.augment import transpose
from tutti.features.controls import density_class
from tutti.features.descriptors import describe
from tutti.features.events import bars_of, on_grid
from tutti.features.mood import mood_word
from tutti.features.vocabulary import BAR, END, EVENTS
from tutti.generation.choosing import best, candidates_of
from tutti.generation.composing import drained
from tutti.generation.engine import Engine
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.metrics import set_distance
from tutti.metrics.ngram import CountModel
from tutti.registry.versions import Registry
from tutti.storage import Folder

ROOT = Folder("results")
ASKS: tuple[Mapping[str, str], ...] = (
    {}, {"mood": "calm"}, {"mood": "sad"}, {"mood": "happy"}, {"density": "medium"},
)  # fmt: skip
BARS = 8
ROWS = 64
SEED = 20261128
DRAWS = 10_000
OTHERS = ("pitch_class_entropy", "structureness_short", "mean_similarity", "scale_consistency", "groove_consistency")
IS_JUDGED = (np.arange(len(EVENTS)) >= BAR) | (np.arange(len(EVENTS)) == END)


def measure(bench: Bench) -> None:
    """Make, choose, measure, tell."""
    telemetry.quiet_libraries()
    registry = Registry.embedded(ROOT)
    trained = train.run(recipes.read("demo"), root=ROOT, registry=registry, reporter=telemetry.reporter())
    assert trained.tokens is not None
    assert trained.works is not None
    with tempfile.TemporaryDirectory() as folder:
        for path in trained.run.paths():
            if path.startswith("bundle/"):
                (Path(folder) / Path(path).name).write_bytes(trained.run.read(path))
        engine = Engine.load(Path(folder), max_batch=ROWS)
    most = int(bench.settings["candidates"])
    requests = [
        build(Request, {**ASKS[number % len(ASKS)], "bars": BARS, "seed": SEED + number, "best_of": most}, origin="")
        for number in range(int(bench.settings["requests"]))
    ]
    groups = _made(engine, requests)
    held_out = [
        _cut(score) for split in learnt.HELD_OUT for score in _works(trained.works, trained.tokens, split=split)
    ]
    _tell(bench, requests, groups, held_out, counts=_counts(trained.tokens), most=most)
    _cost(bench, engine, requests)
    bench.note(
        f"{len(requests)} requests of {BARS} bars; works: {len(held_out)} of the splits held out, cut to as many"
    )


def _made(engine: Engine, requests: Sequence[Request]) -> list[list[Piece]]:
    """All candidates of each request."""
    session = engine.open()
    pieces = iter(drained(session, [session.submit(each) for request in requests for each in candidates_of(request)]))
    return [[next(pieces) for _ in range(request.best_of)] for request in requests]


def _tell(
    bench: Bench,
    requests: Sequence[Request],
    groups: Sequence[Sequence[Piece]],
    held_out: Sequence[Score],
    *,
    counts: CountModel,
    most: int,
) -> None:
    real = ScoreBatch.of(held_out)
    works_figures = {name: float(np.nanmean(measured(real)[name])) for name in OTHERS}
    sizes = [2**power for power in range(int(math.log2(most)) + 1)]
    chosen = {
        size: [best(group[:size], request=request) for group, request in zip(groups, requests, strict=True)]
        for size in sizes
    }
    for name in OTHERS:
        figures = {size: measured(_batch(pieces))[name] for size, pieces in chosen.items()}
        bench.count(name, {"works": works_figures[name]} | _by_size(figures), unit="mean")
        _gain(bench, name, figures, most=most)
    bench.count("nats a token of bigram counts", _by_size({
        size: np.array([counts.nll([piece.tokens], judged=IS_JUDGED)["bigram"] for piece in pieces])
        for size, pieces in chosen.items()
    }), unit="mean")  # fmt: skip
    overlaps = {
        size: set_distance.compare(_batch(pieces), real)["overlap"].to_numpy() for size, pieces in chosen.items()
    }
    bench.count("overlap with works, Yang and Lerch's features", _by_size(overlaps), unit="mean of features")
    points = {size: _points(groups, pieces, requests) for size, pieces in chosen.items()}
    bench.count("points of the judges", _by_size(points), unit="mean")
    _gain(bench, "points", points, most=most)
    came = {size: np.array(_came(pieces, requests)) for size, pieces in chosen.items()}
    bench.count("what was asked came", _by_size(came), unit="share of takes that asked")
    _gain(bench, "asked", came, most=most)


def _points(
    groups: Sequence[Sequence[Piece]], pieces: Sequence[Piece], requests: Sequence[Request]
) -> NDArray[np.float64]:
    """The points of each choice among all candidates of its request, so that choices of different sizes compare."""
    found = []
    for group, piece, request in zip(groups, pieces, requests, strict=True):
        judged = best(group, request=request).candidates
        place = next(n for n, each in enumerate(group) if np.array_equal(each.tokens, piece.tokens))
        found.append(judged[place].score)
    return np.array(found)


def _came(pieces: Sequence[Piece], requests: Sequence[Request]) -> list[float]:
    """1 where the asked class came, 0 where another did; of those that asked."""
    described = describe(_batch(pieces))
    moods = [
        mood_word(*each)
        for each in zip(described["valence"].to_pylist(), described["arousal"].to_pylist(), strict=True)
    ]
    densities = [density_class(each) for each in described["notes_per_quarter"].to_pylist()]
    rows = zip(requests, moods, densities, strict=True)
    asked = [(request.mood, mood) if request.mood else (request.density, density) for request, mood, density in rows]
    return [float(want == got) for want, got in asked if want is not None]


def _gain(bench: Bench, name: str, figures: Mapping[int, NDArray[np.float64]], *, most: int) -> None:
    """The mean difference of the best of most to the first, and where it lies in 95 of 100 draws."""
    differences = figures[most] - figures[1]
    differences = differences[np.isfinite(differences)]
    random = seeding.generator(SEED, "bootstrap")
    means = differences[random.integers(0, len(differences), (DRAWS, len(differences)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    bench.count(
        f"{name}: best of {most} less the first",
        {"mean": float(differences.mean()), "95 % from": float(low), "to": float(high)},
        unit="paired",
    )
    bench.name(f"{name}_gain_of_{most}", float(differences.mean()))


def _cost(bench: Bench, engine: Engine, requests: Sequence[Request]) -> None:
    """What choosing itself costs, beside making."""
    some = requests[:8]
    groups = _made(engine, some)
    started_s = time.process_time()
    for request, group in zip(some, groups, strict=True):
        best(group, request=request)
    bench.record("judging", "a request", 1000 * (time.process_time() - started_s) / len(some), unit="ms of one core")


def _by_size(figures: Mapping[int, NDArray[np.float64]]) -> dict[str, float]:
    return {f"best of {size}" if size > 1 else "the first": float(np.nanmean(each)) for size, each in figures.items()}


def _batch(pieces: Sequence[Piece]) -> ScoreBatch:
    return ScoreBatch.of([piece.score for piece in pieces])


def _works(held: Dataset, tokens: Dataset, *, split: str) -> ScoreBatch:
    return learnt.read(held, tokens, split=split, licences=()).batch


def _cut(score: Score) -> Score:
    """Its first bars."""
    normal = on_grid(score)
    starts = bars_of(normal).start_ticks
    if len(starts) <= BARS:
        return normal
    return replace(normal, notes=normal.notes.take(normal.notes.onset_ticks < starts[BARS]))


def _counts(tokens: Dataset) -> CountModel:
    pieces = shards.read(tokens, split="train")
    moved = (transpose(pieces[piece], semitones=by) for piece in range(len(pieces)) for by in range(-5, 7))
    return CountModel(len(EVENTS)).fit(moved, judged=IS_JUDGED)


if __name__ == "__main__":
    run(
        "best_of",
        measure,
        settings={"requests": (100, "how many"), "candidates": (16, "of each request, a power of two")},
    )
