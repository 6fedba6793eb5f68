"""One evaluation: a model's takes beside works held out and works that it learnt from.

The same model, works, seed and number of takes give the same figures on the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import learnt
from tutti.dataset.learnt import Named, Works
from tutti.errors import UserError
from tutti.evaluation import comparison, judgement, latents, measures, takes
from tutti.evaluation.borrowing import MOST_NOTES, Borrowings, Lender
from tutti.evaluation.comparison import HELD_OUT, SETS, TAKES, TRAIN, Feature, Row
from tutti.evaluation.takes import Takes
from tutti.evaluation.writing import Writing, writing_of
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.metrics import set_features
from tutti.models.bar_vae import BAR_VAE
from tutti.models.bundle import Bundle
from tutti.models.families import family_of
from tutti.storage import Folder
from tutti.telemetry import Reporter, Task

Figures = NDArray[np.float64]

MOST_TAKES = 64
"""Where no number is asked for: as many takes as there are works held out, up to this."""


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated.

    Args:
        split: of works held out: valid or test.
        takes: how many; None is as many as there are works held out, up to :data:`MOST_TAKES`.
        seed: root of all that is drawn.
        temperature, top_p: of sampling.
        device: where the network runs.
    """

    split: str = "test"
    takes: int | None = None
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.95
    device: str = "cpu"


@dataclass(frozen=True)
class Material:
    """What takes are held against.

    Args:
        works, tokens: the datasets; no tokens where the model reads none.
        held_out: works of the split: all, or as many as there are takes.
        held_out_of: how many the split holds that can be written as the model writes.
        unwritten: how many it holds that cannot.
        train: all works that the model learnt from; None where there are too many notes for an index.
        num_takes: how many takes are made.
    """

    works: Dataset
    tokens: Dataset | None
    held_out: Works
    held_out_of: int
    unwritten: int
    train: Works | None
    num_takes: int


@dataclass(frozen=True)
class Judged:
    """How well works are foretold.

    Args:
        model: measures of the split by training's names.
        counts: nats per token and bits per note of count models, by name.
        why: why there are none, where there are none.
    """

    model: Mapping[str, float]
    counts: Mapping[str, Mapping[str, float]]
    why: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Args:
        bundle: the model.
        asked: what was asked.
        material: what the takes were held against.
        judged: how well it foretells the split.
        requests: of the takes.
        refused_tokens: of all takes together.
        scores: the pieces of each set that were compared, takes and works written alike.
        named: the works of each set but the takes.
        rows: measure by measure.
        features: Yang and Lerch's.
        described: figures behind them, by set and feature.
        borrowings: by set; none where it was not looked at.
        between: pieces from one work held out to another, of models with latents.
    """

    bundle: Bundle
    asked: Asked
    material: Material
    judged: Judged
    requests: tuple[Request, ...]
    refused_tokens: int
    scores: Mapping[str, ScoreBatch]
    named: Mapping[str, tuple[Named, ...]]
    rows: tuple[Row, ...]
    features: tuple[Feature, ...]
    described: Mapping[str, Mapping[str, Figures]]
    borrowings: Mapping[str, Borrowings]
    between: tuple[Score, ...] = ()


def gathered(bundle: Bundle, asked: Asked, *, root: Folder) -> Material:
    """The works that a model is held against; nothing is made.

    Raises:
        RecipeError: the model makes no pieces.
        MissingError: its datasets are gone, or it does not name them.
        UserError: the split, or the training, has no works.
        IntegrityError: a table is damaged.
    """
    data, written = bundle.facts.get("data", {}), writing_of(family_of(bundle.family).reads)
    held_in = learnt.dataset_of(bundle.facts, kind="works", root=root)
    tokens = learnt.dataset_of(bundle.facts, kind="tokens", root=root) if "tokens_address" in data else None
    licences = tuple(data.get("licences", ()))
    read = learnt.read(held_in, tokens, split=asked.split, licences=licences)
    held_out = read.take(np.flatnonzero(written.write(read.batch)[1]))
    if not len(held_out):
        raise UserError(
            f"none of the {len(read)} works of {asked.split} can be written as a {bundle.family} writes",
            remedy="evaluate on another split",
        )
    num_takes = asked.takes or min(len(held_out), MOST_TAKES)
    too_many = int(held_in.facts.get("notes", 0)) > MOST_NOTES
    return Material(
        works=held_in,
        tokens=tokens,
        held_out=learnt.drawn(held_out, most=num_takes, seed=asked.seed),
        held_out_of=len(held_out),
        unwritten=len(read) - len(held_out),
        train=None if too_many else learnt.read(held_in, tokens, split="train", licences=licences),
        num_takes=num_takes,
    )


def evaluate(
    bundle: Bundle, folder: Path, material: Material, examples: Dataset | None, asked: Asked, *, reporter: Reporter
) -> Evaluation:
    """Everything.

    Args:
        bundle: the model.
        folder: its files.
        material: of :func:`gathered`.
        examples: of the kind that its family reads, packed as for its training; None leaves it unjudged.
        asked: as for the material.
        reporter: told how far it is.

    Raises:
        UserError: the model cannot be judged or generate.
        IntegrityError: stored bytes are damaged.
    """
    judged = _judged(bundle, folder, material, examples, asked, reporter=reporter)
    reporter.line(f"generating {material.num_takes} takes, as long as works of {asked.split}")
    written, _ = writing_of(family_of(bundle.family).reads).write(material.held_out.batch)
    requests = takes.requests_like(
        takes.bars_of(written).tolist(),
        takes=material.num_takes, seed=asked.seed, temperature=asked.temperature, top_p=asked.top_p,
    )  # fmt: skip
    made = takes.made(folder, requests, device=asked.device)
    evaluation = compared(bundle, made, judged, material, asked, reporter=reporter)
    if bundle.family != BAR_VAE.name:
        return evaluation
    reporter.line("reading works through the latents of their bars")
    engine = latents.engine_of(folder, device=asked.device)
    return replace(
        evaluation,
        rows=(*evaluation.rows, *latents.rows_of_latents(engine, evaluation.scores)),
        between=latents.between(engine, evaluation.scores, seed=asked.seed),
    )


def compared(
    bundle: Bundle, made: Takes, judged: Judged, material: Material, asked: Asked, *, reporter: Reporter
) -> Evaluation:
    """Takes that are made already, measure by measure beside works held out and works of the training."""
    held_out, writing = material.held_out, writing_of(family_of(bundle.family).reads)
    scores = {TAKES: made.batch, HELD_OUT: writing.write(held_out.batch)[0]}
    apart = {TAKES: made.batch, HELD_OUT: held_out.batch}
    named = {HELD_OUT: held_out.named}
    borrowings: dict[str, Borrowings] = {}
    if material.train is not None:
        drawn = learnt.drawn(material.train, most=material.num_takes, seed=asked.seed)
        scores[TRAIN], could = writing.write(drawn.batch)
        drawn = drawn.take(np.flatnonzero(could))
        apart[TRAIN], named[TRAIN] = drawn.batch, drawn.named
        reporter.line(f"holding takes against {len(material.train):,} works of the training")
        lender = Lender(material.train)
        borrowings = {name: lender.asked(scores[name]) for name in (TAKES, HELD_OUT)}
    described = {name: set_features.describe(batch) for name, batch in scores.items()}
    return Evaluation(
        bundle=bundle,
        asked=asked,
        material=material,
        judged=judged,
        requests=made.requests,
        refused_tokens=made.refused_tokens,
        scores=scores,
        named=named,
        rows=tuple(_rows(scores, apart, borrowings, writing=writing, reporter=reporter)),
        features=tuple(comparison.features_of(described)),
        described=described,
        borrowings=borrowings,
    )


def _judged(
    bundle: Bundle, folder: Path, material: Material, examples: Dataset | None, asked: Asked, *, reporter: Reporter
) -> Judged:
    recipe = judgement.recipe_of(bundle.facts)
    if recipe is None or examples is None:
        return Judged({}, {}, why="the model's facts hold no recipe, so its examples cannot be packed again")
    reporter.line(f"judging every work of {asked.split}")
    model = judgement.judged(folder, examples, recipe, split=asked.split, device=asked.device)
    if material.tokens is None or family_of(bundle.family).reads != "sequences":
        return Judged(model, {})
    return Judged(model, judgement.counted(material.tokens, split=asked.split, most_semitones=recipe.most_semitones))


def _rows(
    scores: Mapping[str, ScoreBatch],
    apart: Mapping[str, ScoreBatch],
    borrowings: Mapping[str, Borrowings],
    *,
    writing: Writing,
    reporter: Reporter,
) -> list[Row]:
    measured, before = {}, 0
    with reporter.task("measure", total=sum(map(len, scores.values())), unit="pieces") as task:
        for name, batch in scores.items():
            measured[name] = measures.measured(batch, told=partial(_told, task, before))
            before += len(batch)
    none_at_all = "the training holds more notes than an index of known works takes"
    rows = [
        *comparison.rows_of_measures(measured),
        *writing.rows(scores),
        *comparison.rows_of_voice_leading(apart, why_not={TAKES: writing.one_part}),
        *comparison.rows_of_originality(
            borrowings, why_not={TAKES: none_at_all, HELD_OUT: none_at_all, TRAIN: "these are the known works"}
        ),
        *comparison.rows_of_diversity(scores),
    ]
    return [_whole(row, missing=none_at_all) for row in rows]


def _whole(row: Row, *, missing: str) -> Row:
    """The row with a cell for every set."""
    cells = {name: row.cells.get(name, comparison.Cell.none(missing)) for name in SETS}
    return Row(row.section, row.name, row.title, row.unit, cells)


def _told(task: Task, before: int, done: int) -> None:
    task.update(before + done)
