"""Form of long pieces beside real ones: ``python -m benchmarks.form --works FOLDER``.

The demo's model (or the bundle in ``--model``) makes ``--takes`` pieces of three, five and ten minutes each way: with a
form (:data:`FORMS` by turns), and as one stretch, the same seeds. Beside them stand works of those lengths, within
:data:`NEAR`, from the MIDI files below ``--works``; without it they are left out. All are measured by
:mod:`tutti.metrics.form`, and by the fitness of long segments (:mod:`tutti.metrics.scape`). Of pieces with a form it is
also counted how many of the planned boundaries novelty finds within two bars, what a join does to the notes, and, for
the first of each length, how loud its sections sound. ``--picture`` draws self-similarity, ``--rolls`` piano-rolls.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.guidance import SEED, demo
from benchmarks.harness import Bench, run
from tutti.corpus.midi import read_midi
from tutti.corpus.score import Score
from tutti.errors import TuttiError
from tutti.generation.engine import Engine
from tutti.generation.form.plan import Plan, planned
from tutti.generation.harmony import bar_ticks
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.metrics import form, scape, structure
from tutti.render.pairs import rendering
from tutti.render.picture import piano_rolls_png

LENGTHS_S = (180.0, 300.0, 600.0)
FORMS = ("rondo", "A A' B A'", "verse-chorus", "theme and variations", "sonata", "arch", "intro A B A' B' A'' outro")
NEAR, WORKS = 0.15, 20
"""By which share a work's length may differ, and most works of a length."""
SHOWN = (0, 3, 4)
"""Which take of each length is drawn."""
FEWEST_NOTES_A_S = 1.0
FRAMES, LONG_S = 100, 15.0
"""Frames of a piece for fitness, and the shortest segment."""
FOUND_BARS = 2
SAMPLE_RATE_HZ, MOMENT_S, SILENT_DB = 22_050, 3.0, -60.0
MEASURES = ("sections", "returning", "same", "varied", "returns", "loop", "fitness", "silence")

Figures = NDArray[np.float64]


def measure(bench: Bench) -> None:
    """Make, measure, tell, draw."""
    takes, arguments = int(bench.settings["takes"]), bench.arguments
    engine = demo()[0] if arguments.model is None else Engine.load(Path(arguments.model), max_batch=2 * takes)
    works = [work for folder in arguments.works for work in read(Path(folder))]
    shown: dict[str, list[tuple[str, Score]]] = {}
    for length_s in LENGTHS_S:
        asked = [
            Request(form=FORMS[take % len(FORMS)], length=length_s, seed=SEED + take)
            for take in range(takes)
        ]  # fmt: skip
        formed, formed_rate = made(engine, asked)
        plain, plain_rate = made(engine, [_plain(each) for each in asked])
        rates = {"with a form": formed_rate, "one stretch": plain_rate}
        bench.count(f"{length_s / 60:g} minutes: made together", rates, unit="seconds of music a second")
        near = of_length(works, length_s, most=WORKS)
        groups = {
            "with a form": [piece.score for piece in formed],
            "one stretch": [piece.score for piece in plain],
            "real works": [score for _, score in near],
        }
        for name, scores in groups.items():
            tell(bench, f"{length_s / 60:g} minutes, {name}", scores)
        tell_joins(bench, f"{length_s / 60:g} minutes", formed)
        names = [[f"{each.form}" for each in asked], ["no form"] * takes, [name for name, _ in near]]
        take = SHOWN[LENGTHS_S.index(length_s)] % takes
        for (name, scores), titles in zip(groups.items(), names, strict=True):
            if scores:
                place = take % len(scores)
                title = f"{titles[place][:28]}, {scores[place].length_s / 60:.1f} min"
                shown.setdefault(name, []).append((title, scores[place]))
    bench.note(f"{takes} takes a length and way; medians and ranges; works within {NEAR:.0%} of the length")
    if arguments.picture:
        draw(shown, Path(arguments.picture))
    if arguments.rolls:
        rolls = [scores[0] for scores in shown.values()]
        Path(arguments.rolls).write_bytes(
            piano_rolls_png([score for _, score in rolls], titles=[title for title, _ in rolls])
        )


def _plain(request: Request) -> Request:
    """The same without a form, in the key and tempo that it had with one."""
    base = planned(request).base
    return Request(length=request.length, seed=request.seed, key=base.key, tempo=base.tempo, meter=base.meter)


def made(engine: Engine, requests: Sequence[Request]) -> tuple[list[Piece], float]:
    """Pieces of requests, all together, and how many seconds of music came in a second."""
    began_s = time.perf_counter()
    pieces = engine.generate(requests)
    return pieces, sum(piece.score.length_s for piece in pieces) / (time.perf_counter() - began_s)


def read(folder: Path) -> list[tuple[str, Score]]:
    """Every readable MIDI file below a folder, in an order that its names give, whatever the file system."""
    found = []
    for path in sorted(folder.rglob("*.mid"), key=lambda path: hashlib.sha256(path.name.encode()).digest()):
        try:
            score = read_midi(path.read_bytes())
        except TuttiError:
            continue
        if len(score.notes) and len(score.notes) / score.length_s >= FEWEST_NOTES_A_S:
            found.append((" ".join(path.stem.split("__")[:2]), score))
    return found


def of_length(works: Sequence[tuple[str, Score]], length_s: float, *, most: int) -> list[tuple[str, Score]]:
    """The first works that last about so long."""
    return [each for each in works if abs(each[1].length_s / length_s - 1) <= NEAR][:most]


def figures_of(score: Score) -> dict[str, float]:
    """All measures of one piece."""
    frames_per_s = FRAMES / score.length_s
    fitness = scape.structureness(score, shortest_s=LONG_S, longest_s=score.length_s, frames_per_s=frames_per_s)
    return {**asdict(form.form_figures(score)), "fitness": fitness, "silence": longest_silence_s(score)}


def longest_silence_s(score: Score) -> float:
    """Longest stretch without a sounding note, seconds."""
    onset = score.seconds_at(score.notes.onset_ticks)
    end = score.seconds_at(score.notes.onset_ticks.astype(np.int64) + score.notes.duration_ticks)
    return float(np.maximum(onset[1:] - np.maximum.accumulate(end)[:-1], 0.0).max(initial=0.0))


def tell(bench: Bench, subject: str, scores: Sequence[Score]) -> None:
    """Measures of a group of pieces."""
    if not scores:
        return
    all_figures = [figures_of(score) for score in scores]
    units = {"sections": "sections", "fitness": "0 to 1", "silence": "s, the longest"}
    for name in MEASURES:
        values = [each[name] for each in all_figures if not math.isnan(each[name])]
        if values:
            bench.rates(f"{subject}: {name}", {f"{len(values)} pieces": values}, unit=units.get(name, "share"))
            bench.name(f"{subject}_{name}".replace(", ", "_").replace(" ", "_"), float(np.median(values)))


def tell_joins(bench: Bench, subject: str, pieces: Sequence[Piece]) -> None:
    """What is heard where sections meet."""
    plans = [planned(piece.request) for piece in pieces]
    hits = [_found(plan, piece.score) for plan, piece in zip(plans, pieces, strict=True)]
    found, chance = ([each[side] for each in hits] for side in (0, 1))
    within = f"{subject}: planned boundaries found within {FOUND_BARS} bars"
    bench.rates(within, {"by novelty": found, "by chance": chance}, unit="share")
    gaps = [gap for plan, piece in zip(plans, pieces, strict=True) for gap in gaps_s(plan, piece.score)]
    bench.rates(f"{subject}: silence at a join", {f"{len(gaps)} joins": gaps}, unit="s")
    plan, piece = plans[0], pieces[0]
    sound = rendering(piece.score, sample_rate_hz=SAMPLE_RATE_HZ, mastered=False)
    levels, steps, silent_s = loudness(plan, piece.score, sound.mean(axis=1))
    arc = float(spearmanr([_level(plan, number) for number in range(len(levels))], levels).statistic)
    bench.record(f"{subject}: loudness of sections as planned", "Spearman", arc, unit="correlation")
    bench.rates(f"{subject}: step of loudness at a join", {"3 s before and after": steps}, unit="dB")
    bench.record(f"{subject}: longest silence in the sound", "below -60 dB", silent_s, unit="s")


def _found(plan: Plan, score: Score) -> tuple[float, float]:
    """Share of the planned boundaries where novelty finds one, and of all bars where it does."""
    edges = form.sections(form.novelty(form.bar_similarity(score)))[1:-1]
    near = np.abs(np.arange(plan.bars)[:, None] - edges).min(axis=1, initial=plan.bars) <= FOUND_BARS
    return float(near[np.cumsum(plan.extent.bars)[:-1]].mean()), float(near.mean())


def gaps_s(plan: Plan, score: Score) -> list[float]:
    """Silence before the first note of each section but the first, seconds."""
    onset = score.seconds_at(score.notes.onset_ticks)
    end = score.seconds_at(score.notes.onset_ticks.astype(np.int64) + score.notes.duration_ticks)
    found = []
    for join_s in _joins_s(plan, score):
        before, after = onset < join_s - 1e-6, onset >= join_s - 1e-6
        found.append(max(float(onset[after].min() - end[before].max()), 0.0))
    return found


def _joins_s(plan: Plan, score: Score) -> Figures:
    ticks = np.cumsum(plan.extent.bars)[:-1] * bar_ticks(plan.extent.meter)
    return score.seconds_at(ticks)


def _level(plan: Plan, section: int) -> float:
    return next(phrase.manner.level for phrase in plan.phrases if phrase.section == section)


def loudness(plan: Plan, score: Score, sound_S: NDArray[np.floating]) -> tuple[list[float], list[float], float]:
    """Level of each section in dB, the step at each join in dB, and the longest silence in seconds."""

    def level(begin_s: float, end_s: float) -> float:
        part = sound_S[int(begin_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
        return float(10 * np.log10(np.mean(part.astype(np.float64) ** 2) + 1e-12))

    joins_s = _joins_s(plan, score)
    edges_s = [0.0, *joins_s.tolist(), score.length_s]
    levels = [level(begin, end) for begin, end in itertools.pairwise(edges_s)]
    steps = [abs(level(join, join + MOMENT_S) - level(join - MOMENT_S, join)) for join in joins_s.tolist()]
    frame = SAMPLE_RATE_HZ // 20
    frames = sound_S[: int(score.length_s * SAMPLE_RATE_HZ) // frame * frame].reshape(-1, frame).astype(np.float64)
    silent = 10 * np.log10((frames**2).mean(axis=1) + 1e-12) < SILENT_DB
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False))
    return levels, steps, float((edges[1::2] - edges[::2]).max(initial=0)) / 20


def draw(shown: Mapping[str, Sequence[tuple[str, Score]]], path: Path) -> None:
    """For each group a row: bars by chroma and rhythm below the diagonal, by their notes above it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = max(len(scores) for scores in shown.values())
    figure, panels = pyplot.subplots(
        len(shown), columns, figsize=(4.2 * columns, 4.4 * len(shown)), layout="constrained", squeeze=False
    )
    for row, (name, scores) in zip(panels, shown.items(), strict=True):
        for panel in row[len(scores) :]:
            panel.axis("off")
        for panel, (title, score) in zip(row, scores, strict=False):
            plain_BB, notes_BB = form.bar_similarity(score), structure.similarity(score, transposed=True)
            scaled_BB = np.argsort(np.argsort(plain_BB, axis=None)).reshape(plain_BB.shape) / plain_BB.size
            panel.imshow(np.where(np.tri(len(plain_BB), dtype=bool), scaled_BB, notes_BB), cmap="magma", vmin=0, vmax=1)
            panel.set_title(f"{name}\n{title[:44]}", fontsize=9)
            panel.set_xlabel("bar")
    figure.savefig(path, dpi=64)
    pyplot.close(figure)


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FOLDER", help="a bundle; by default the demo's model, trained if need be")
    parser.add_argument(
        "--works", metavar="FOLDER", action="append", default=[], help="MIDI files of real works; repeatable"
    )
    parser.add_argument("--picture", metavar="FILE", help="where to draw self-similarity")
    parser.add_argument("--rolls", metavar="FILE", help="where to draw piano-rolls")


if __name__ == "__main__":
    run("form", measure, settings={"takes": (7, "pieces of each length and way")}, extend=_extend)
