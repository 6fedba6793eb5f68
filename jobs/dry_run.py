"""``--dry-run`` of a training: what it would do, what it wants, and what it would cost; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import click

from jobs.recipe import Recipe
from tutti import lineage
from tutti.dataset.inventory import newest
from tutti.errors import MissingError
from tutti.storage import Folder
from tutti.training import sizing
from tutti.training.examples import configuration_of, kind_of
from tutti.training.ledger import kind_of as kind_of_worker
from tutti.training.recipe import TrainingRecipe
from tutti.training.rehearsal import pace_of
from tutti.training.sizing import Asked, Machine, Memory
from tutti.units import format_bytes, format_seconds


def asked_of(recipe: Recipe) -> Asked:
    """What of a recipe decides the training's size."""
    training = recipe.training
    size = configuration_of(recipe.expected_model, training)
    places = kind_of(recipe.model, training).places(training)
    return Asked(
        parameters=size.parameters,
        footprint=size.footprint,
        flops_per_place=size.training_flops_per_place(places),
        steps=training.steps,
        places=places,
        micro_batch=training.micro_batch,
        micro_batches=training.num_grains,
        fewest_workers=training.possible_workers[0],
        most_workers=training.possible_workers[-1],
        threads_per_worker=training.threads_per_worker,
        gpus_per_worker=training.gpus_per_worker,
        strategy=training.strategy,
        zero_stage=training.zero_stage,
        offload=training.offload,
        precision=training.precision,
        activation_checkpointing=training.activation_checkpointing,
        checkpoint_every_steps=training.checkpoint_every_steps,
        kept_checkpoints=training.keep_checkpoints + training.keep_best_checkpoints + _milestones(training),
    )


def check_here(recipe: Recipe, *, root: Folder) -> None:
    """Refuse a training that this machine cannot run, unless a cluster is to run it.

    Raises:
        RecipeError: the first thing that is too small, its value, its limit, the remedy.
    """
    if not _cluster():
        sizing.check(asked_of(recipe), Machine.here(results=root.local_path if root.is_local else None))


def explain(recipe: Recipe, *, root: Folder) -> None:
    """Say what a recipe would do and what it wants, and write nothing.

    Raises:
        RecipeError: it cannot run on this machine, and no cluster is named.
    """
    for line in told(recipe, root=root):
        click.echo(line)


def told(recipe: Recipe, *, root: Folder) -> Iterator[str]:
    """The lines of :func:`explain`."""
    asked, training = asked_of(recipe), recipe.training
    size = configuration_of(recipe.expected_model, training)
    unit = kind_of(recipe.model, training).layout(training, size).unit
    prices = training.prices
    yield f"recipe {recipe.name} · {recipe.digest()}"
    yield f"sources: {', '.join(_sources(recipe))} · licences: {', '.join(recipe.licences)}"
    yield f"model: {recipe.model.family} {recipe.model.flavour}, {size.parameters / 1e6:.2f} M parameters"
    zero = f" ZeRO {training.zero_stage}" if training.strategy == "deepspeed" else ""
    yield (
        f"training: {training.steps} steps of {training.batch_sequences} x {asked.places} {unit}, "
        f"{asked.all_places / 1e6:.1f} M in all{_epochs(recipe, asked, root=root)}, {asked.flops / 1e12:.1f} TFLOP, "
        f"{training.workers} workers, {training.strategy}{zero}, {training.precision}"
    )
    yield from _memory(sizing.memory_of(asked, workers=asked.fewest_workers))
    # Before anything is tried: what does not fit must not be tried either.
    check_here(recipe, root=root)
    pace = pace_of(recipe.expected_model, recipe.training, asked)
    kind = kind_of_worker(gpus_per_worker=asked.gpus_per_worker)
    wanted = sizing.estimate(
        asked, micro_batch_s=pace.micro_batch_s, optimizer_s=pace.optimizer_s, prices=prices, kind=kind
    )
    worker_hours = wanted.workers * wanted.seconds / 3600
    yield f"time: about {format_seconds(wanted.seconds)} ({pace.how}; reading and registering come on top)"
    spent = f"{worker_hours:.3g} {kind} worker-hours"
    each = f"{spent} at {prices.of(kind):g} {prices.currency}"
    yield f"price: {wanted.price:,.2f} {prices.currency} ({each})" if wanted.price else f"price: none is set ({spent})"
    yield (
        f"checkpoints: {wanted.checkpoints} of {format_bytes(wanted.checkpoint_bytes)}; "
        f"disk: {format_bytes(wanted.disk_bytes)} at most"
    )
    place = _cluster()
    yield f"fits: not compared with the cluster at {place}" if place else "fits: yes, on this machine"


def _sources(recipe: Recipe) -> Iterator[str]:
    if recipe.notes is not None and recipe.notes.programs:
        yield f"{len(set(recipe.notes.programs))} programs of the bundled SoundFont"
    if recipe.corpus is not None:
        yield from recipe.corpus.sources


def _epochs(recipe: Recipe, asked: Asked, *, root: Folder) -> str:
    """How often the training split is seen, if tokens of that name are there."""
    try:
        facts = lineage.load(newest(root, kind="tokens", name=recipe.name)).facts
    except MissingError:
        return ""
    splits: Mapping[str, int] = facts["splits"]
    share = splits.get("train", 0) / max(sum(splits.values()), 1)
    tokens = facts["tokens"] * share
    return f" (about {asked.all_places / tokens:.3g} epochs of the newest tokens)" if tokens else ""


def _memory(held: Memory) -> Iterator[str]:
    for where, parts, total in (("GPU memory", held.gpu, held.gpu_bytes), ("memory", held.host, held.host_bytes)):
        if parts:
            listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items())
            yield f"{where} of a worker: {format_bytes(total)} ({listed})"


def _milestones(training: TrainingRecipe) -> int:
    """Checkpoints that stay because their step is a multiple of the recipe's."""
    every = training.keep_checkpoints_every_steps
    return (training.steps - 1) // every if every else 0


def _cluster() -> str | None:
    """The cluster that this shell's verbs run on; None where they run on this machine."""
    address = os.environ.get("RAY_ADDRESS", "")
    return None if address in ("", "local") else address
