"""``tutti train``: a recipe to a registered version. What is finished is found; what was killed goes on."""

from __future__ import annotations

import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import click
import torch
import yaml

from cluster.embedded import start_embedded_ray
from jobs import examples as kinds
from jobs import ingest, samples, tuning
from jobs import recipe as recipes
from jobs.dry_run import check_here, explain
from jobs.examples import Examples
from jobs.recipe import Recipe
from tutti import lineage, telemetry
from tutti.errors import InputError, PlaceError
from tutti.lineage import Dataset
from tutti.models.bundle import Bundle
from tutti.progress import Record, recorded
from tutti.registry.runs import SAMPLE_FLAC, SAMPLE_MIDI, SAMPLE_PICTURE, MlflowTracking
from tutti.registry.versions import ModelVersion, Registry
from tutti.storage import Folder
from tutti.telemetry import Reporter, Task
from tutti.training import on_ray
from tutti.training.examples import configuration_of
from tutti.training.faults import Fault, parse
from tutti.training.ledger import Ledger
from tutti.training.loop import Trainer
from tutti.training.plan import Attempt, NoSignals, Outcome, Plan, Progress
from tutti.training.ranks import Ranks
from tutti.training.tracker import Tracking
from tutti.training.tuning import WEIGHTS

TRAIN_VERSION = 2
"""Moves whenever the same recipe and tokens would give another model."""
RUN_OPENS_WITHIN_S = 120.0
"""How long a finished training waits for an MLflow that is away, to be registered."""
_TERMINATED = 143


@dataclass(frozen=True)
class SoundSampler:
    """One piece of a model that is still learning, always of the same request, as MIDI, sound and picture.

    Args:
        name: of the model, for titles.
    """

    name: str

    def files(self, bundle: Bundle, *, step: int) -> dict[str, bytes]:
        """The piece's files by path below the run's record.

        Raises:
            InputError: the piece has no notes.
        """
        with tempfile.TemporaryDirectory(prefix="tutti-sample-") as folder:
            bundle.save(Path(folder))
            finished = samples.made(Path(folder), title=f"{self.name}: step {step}")
        return {f"samples/step-{step:08d}.{suffix}": data for suffix, data in finished.files.items()}


@dataclass(frozen=True)
class Trained:
    """What a training left: the datasets on the way, where there are any, and the registered version."""

    works: Dataset | None
    tokens: Dataset | None
    run: Dataset
    version: ModelVersion


def run(
    recipe: Recipe, *, root: Folder, registry: Registry, reporter: Reporter, faults: tuple[Fault, ...] = ()
) -> Trained:
    """Ingest, prepare examples, train and register, each only where it was not done before.

    Args:
        faults: what is to go wrong on purpose while it trains.

    Raises:
        UserError: a recipe that cannot be followed; nothing half-made stays that a later run would trust.
    """
    parent = tuning.parent_of(recipe, registry=registry)
    if parent is not None:
        recipe = tuning.followed(recipe, parent)
    works = None
    if recipe.corpus is not None:
        works = ingest.run(recipe.corpus, name=recipe.name, root=root, reporter=reporter)
    examples = kinds.prepare(recipe, works, root=root, reporter=reporter)
    if parent is not None:
        examples = tuning.examples_of(recipe, examples, parent=parent, root=root, reporter=reporter)
    plan = _plan(recipe, examples=examples, root=root)
    tracking = _tracking(plan, registry)
    dataset = lineage.find(plan.run)
    if dataset is None:
        check_here(recipe, root=root)
        registry.backend.prepare()
        _train(plan, examples=examples, tracking=tracking, reporter=reporter, faults=faults)
        dataset = lineage.load(plan.run)
    else:
        reporter.line(f"training {recipe.name}: found finished · {describe(dataset)}")
    version = _registered(dataset, recipe=recipe, registry=registry, tracking=tracking, reporter=reporter)
    return Trained(works=works, tokens=examples.tokens, run=dataset, version=version)


def describe(run_dataset: Dataset) -> str:
    """Figures of a finished training in one short text."""
    measures, score = run_dataset.facts["measures"], run_dataset.facts["score"]
    told = {"nll_nats_per_token": ("NLL", " nats per token")}.get(score, (score.replace("_", " "), ""))
    before, after = measures[f"before_valid_{score}"], measures[f"valid_{score}"]
    steps = run_dataset.facts["training"]["steps"]
    return f"{steps} steps · valid {told[0]} {before:.3f} → {after:.3f}{told[1]}"


def _plan(recipe: Recipe, *, examples: Examples, root: Folder) -> Plan:
    model = recipe.model_of(examples.decided)
    inputs = {
        examples.dataset.kind: examples.dataset.address,
        "model": model.model_dump(mode="json"),
        "training": recipe.training.identity(),
        "version": TRAIN_VERSION,
    }
    place = lineage.place(root, kind="runs", name=recipe.name, inputs=inputs)
    return Plan(
        name=recipe.name,
        model=model,
        training=recipe.training,
        examples=examples.dataset.folder,
        run=place,
        inputs=inputs,
        collections=tuple(examples.told["collections"]),
        data=dict(examples.told),
        starts_from=WEIGHTS if recipe.tuning else "",
        recipe_text=yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        fingerprint=recipe.digest(),
    )


def _train(
    plan: Plan, *, examples: Examples, tracking: Tracking, reporter: Reporter, faults: tuple[Fault, ...]
) -> None:
    with recorded(plan.run, verb="train", files=plan.training.steps, unit="steps") as record:
        _train_recorded(plan, record, examples=examples, tracking=tracking, reporter=reporter, faults=faults)


def _train_recorded(
    plan: Plan, record: Record, *, examples: Examples, tracking: Tracking, reporter: Reporter, faults: tuple[Fault, ...]
) -> None:
    plan = replace(plan, baselines=examples.baselines())

    def watch(progress: Progress) -> None:
        # A record that cannot be written for a while is old, and no more.
        with suppress(PlaceError):
            record.update(done=progress.step, figures={f"{progress.unit}_per_s": progress.per_s})

    size = configuration_of(plan.model, plan.training)
    reporter.line(
        f"training {plan.name}: {plan.model.family} {plan.model.flavour} of {size.parameters / 1e6:.2f} M parameters · "
        f"{plan.training.steps} steps · {plan.training.workers} workers · {plan.training.strategy}"
    )
    sampler = SoundSampler(plan.name)
    if plan.training.strategy == "plain" and plan.training.workers.max == 1 and not faults:
        outcome = _train_here(plan, tracking=tracking, reporter=reporter, watch=watch, sampler=sampler)
    else:
        start_embedded_ray()
        outcome = on_ray.run(plan, tracking=tracking, reporter=reporter, watch=watch, faults=faults, sampler=sampler)
    if outcome == Outcome.PAUSED:
        raise click.exceptions.Exit(_TERMINATED)
    reporter.line(f"training {plan.name}: {describe(lineage.load(plan.run))}")


def _train_here(
    plan: Plan,
    *,
    tracking: Tracking,
    reporter: Reporter,
    watch: Callable[[Progress], None],
    sampler: SoundSampler,
) -> Outcome:
    torch.set_num_threads(plan.training.threads_per_worker)
    device = torch.device("cuda" if plan.training.gpus_per_worker else "cpu")
    attempt = Attempt(name=uuid.uuid4().hex[:8], began_unix_s=time.time(), ledger=Ledger.read(plan.run))
    with reporter.task("train", total=plan.training.steps, unit="steps") as task:
        signals = _Here(task, reporter, watch=watch, name=plan.name)
        trainer = Trainer(
            plan, attempt, ranks=Ranks(device=device), tracker=tracking.open(), signals=signals, sampler=sampler
        )
        with signals.pausing_on_sigterm():
            return trainer.run()


class _Here(NoSignals):
    """Signals of a training in this very process."""

    def __init__(self, task: Task, reporter: Reporter, *, watch: Callable[[Progress], None], name: str) -> None:
        self._task, self._reporter, self._watch, self._name = task, reporter, watch, name
        self._pause = False

    def report(self, progress: Progress) -> None:
        self._task.update(progress.step, note=on_ray.describe(progress))
        self._watch(progress)

    def say(self, line: str) -> None:
        self._reporter.line(f"training {self._name}: {line}")

    def pause_is_asked(self) -> bool:
        return self._pause

    @contextmanager
    def pausing_on_sigterm(self) -> Iterator[None]:
        """Save and stop when the process is asked to end."""

        def ask(_: int, __: FrameType | None) -> None:
            self._pause = True
            self.say("saving and stopping; the same command goes on")

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _tracking(plan: Plan, registry: Registry) -> MlflowTracking:
    address = plan.run.uri.rstrip("/").rsplit("/", 1)[-1]
    return MlflowTracking(
        registry.backend.tracking_uri, experiment=plan.name, run_key=address, artifacts=registry.backend.artifacts
    )


def _registered(
    dataset: Dataset, *, recipe: Recipe, registry: Registry, tracking: MlflowTracking, reporter: Reporter
) -> ModelVersion:
    """The version of a finished run; made with its sample where there is none."""
    known = registry.with_digest(recipe.name, dataset.facts["digest"])
    if known is not None:
        reporter.line(f"registry: found {known} · {known.digest[:12]}")
        return registry.set_gate(known, recipe.gate)
    with _bundle_folder(dataset) as folder:
        tracker = tracking.open()
        tracker.start(parameters={}, tags={})
        try:
            made = samples.made(folder, title=f"{recipe.name}: sample").files
        except InputError as error:
            reporter.line(f"registry: no sample of {recipe.name}: {error}")
            made = {}
        for path, suffix in ((SAMPLE_MIDI, "mid"), (SAMPLE_FLAC, "flac"), (SAMPLE_PICTURE, "png")):
            if suffix in made:
                tracker.artifact(path, made[suffix])
        run_id = tracker.run_id(limit_s=RUN_OPENS_WITHIN_S)
        tracker.finish()
        version = registry.register(folder, name=recipe.name, run_id=run_id, gate=recipe.gate)
    reporter.line(f"registry: {version} · {version.digest[:12]}")
    return version


@contextmanager
def _bundle_folder(dataset: Dataset) -> Iterator[Path]:
    """A run's bundle as a local folder, verified."""
    with tempfile.TemporaryDirectory(prefix="tutti-bundle-") as staging:
        for path in dataset.paths():
            if path.startswith("bundle/"):
                (Path(staging) / path.removeprefix("bundle/")).write_bytes(dataset.read(path))
        yield Path(staging)


@click.command(name="train")
@click.argument("recipe", metavar="RECIPE")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lies over the recipe; repeatable.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Check the recipe, say what would be done, and write nothing.")
@click.option(
    "--simulate-fault",
    "fault_texts",
    multiple=True,
    metavar="KIND@step=N",
    help="Let a worker die (rank_killed) or hang, a node go, memory run out, a loss be no number, storage be down, on "
    "purpose, to see that the run recovers; repeatable.",
)
def command(
    recipe: str,
    overrides: tuple[str, ...],
    root: str,
    tracking_uri: str | None,
    dry_run: bool,
    fault_texts: tuple[str, ...],
) -> None:
    """Train a model from a recipe: ingest, encode, train, register.

    RECIPE is a YAML file, or the name of one that Tutti carries (demo). One with `tuning` tunes a registered model by
    pairs of takes (tutti feedback).

    \b
    Example:
        tutti train demo --set training.steps=500 --set model.flavour=small
        tutti train demo --simulate-fault rank_killed@step=120 --simulate-fault storage_down@step=60,seconds=30
    """
    faults = tuple(parse(text) for text in fault_texts)
    read = recipes.read(recipe, overrides=overrides)
    place = Folder(root)
    registry = Registry.embedded(place, tracking_uri=tracking_uri)
    if dry_run:
        parent = tuning.parent_of(read, registry=registry)
        explain(tuning.followed(read, parent) if parent else read, root=place)
        return
    place.check_writable()
    trained = run(read, root=place, registry=registry, reporter=telemetry.reporter(), faults=faults)
    click.echo(f"model: {trained.version} (run: {trained.run.folder.uri})")
    click.echo(f"make it the one that is served: tutti models promote {trained.version.name}/{trained.version.version}")
