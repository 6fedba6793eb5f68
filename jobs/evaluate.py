"""``tutti evaluate``: what a registered model makes, beside works that it never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tutti.errors import PlaceError
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.evaluation.evaluation import Asked, Material
    from tutti.lineage import Dataset
    from tutti.models.bundle import Bundle
    from tutti.registry.versions import ModelVersion, Registry
    from tutti.telemetry import Reporter

EVALUATION_VERSION = 1
"""Moves whenever the same model and works would give other figures."""
PAIRS = 4
HEAD = ("MEASURE", "TAKES", "HELD OUT", "TRAINING", "APART")


def run(asked: Asked, *, model: str, pairs: int, root: Folder, registry: Registry, reporter: Reporter) -> Dataset:
    """Evaluate a version, or find it evaluated; what was found is kept in its run and below its card.

    Args:
        asked: how.
        model: NAME, NAME@ALIAS or NAME/VERSION.
        pairs: takes that are rendered, each with the work beside it.
        root: results root.
        registry: where the model is found.
        reporter: told how far it is.

    Raises:
        UserError: no such model, its works are gone, there is nothing to hold it against, a place cannot be used.
        IntegrityError: stored bytes are damaged.
    """
    from jobs import note_evaluation
    from tutti.evaluation import page, publishing, report, samples
    from tutti.evaluation.evaluation import evaluate, gathered
    from tutti.models import bundle as bundles

    version = registry.resolve(model)
    bundle_folder = registry.fetch(version)
    bundle = bundles.load(bundle_folder)
    if note_evaluation.is_of_notes(bundle):
        return note_evaluation.run(version, bundle, asked, pairs=pairs, root=root, registry=registry, reporter=reporter)
    material = gathered(bundle, asked, root=root)

    def make() -> publishing.Made:
        examples = _examples(bundle, material, root=root, reporter=reporter)
        evaluation = evaluate(bundle, bundle_folder, material, examples, asked, reporter=reporter)
        reporter.line(f"rendering {pairs} takes and the works beside them")
        rendered = samples.rendered(evaluation, pairs=pairs)
        document = report.plain(evaluation, model=str(version), digest=version.digest)
        contents = {
            **rendered.files,
            report.DOCUMENT: report.to_json(document),
            report.TABLE: report.to_csv(document),
            report.PAGE: page.render(evaluation, rendered, model=str(version)),
        }
        return contents, {"takes": material.num_takes}

    return publishing.published(
        version, make, split=asked.split, inputs=_inputs(version, material, asked, pairs=pairs),
        figures=report.figures, root=root, registry=registry, reporter=reporter,
    )  # fmt: skip


def _examples(bundle: Bundle, material: Material, *, root: Folder, reporter: Reporter) -> Dataset | None:
    """What the model's training read, found or packed again; None where its recipe is not known."""
    from jobs.examples import PACKERS
    from tutti.dataset import packing
    from tutti.evaluation import judgement
    from tutti.models.families import family_of

    recipe = judgement.recipe_of(bundle.facts)
    name = str(bundle.facts.get("name", bundle.family))
    pack = PACKERS.get(family_of(bundle.family).reads)
    if recipe is not None and pack is not None:
        licences = tuple(bundle.facts["data"]["licences"])
        return pack(material.works, licences=licences, root=root, name=name, reporter=reporter)
    if recipe is None or material.tokens is None:
        return None
    return packing.pack(
        material.tokens, root=root, name=name, sequence_tokens=recipe.sequence_tokens, reporter=reporter
    )


def _inputs(version: ModelVersion, material: Material, asked: Asked, *, pairs: int) -> dict[str, Any]:
    return {
        "model": version.digest, "works": material.works.address,
        "tokens": None if material.tokens is None else material.tokens.address,
        **asdict(asked), "takes": material.num_takes, "pairs": pairs, "version": EVALUATION_VERSION,
    }  # fmt: skip


def summary(document: Mapping[str, Any]) -> list[str]:
    """The evaluation in a terminal: a table, and why cells of it are empty."""
    from jobs import note_evaluation
    from jobs.models import ABSENT, table
    from tutti.evaluation.report import written

    if document.get("kind") == "notes":
        return note_evaluation.summary(document)

    def cell(found: Mapping[str, Any], unit: str) -> str:
        if found["value"] is None:
            return ABSENT
        value = written(found["value"], unit=unit, spread=found["spread"])
        return (
            value
            if found["spread"] is None
            else (f"{value} ± {written(found['spread'], unit=unit, spread=found['spread'])}")
        )

    rows, whys = list[tuple[str, ...]]([HEAD]), dict[str, None]()
    for row in document["table"]:
        cells = [row["cells"][name] for name in ("takes", "held_out", "train")]
        if all(found["value"] is None for found in cells):
            whys[f"{row['title']}: {cells[0]['why']}"] = None
            continue
        whys |= {f"{row['section']}, {name.replace('_', ' ')}: {found['why']}": None
                 for name, found in row["cells"].items() if found["value"] is None}  # fmt: skip
        unit = "" if row["unit"] in ("", "share") else f" [{row['unit']}]"
        apart = ABSENT if row["apart"] is None else f"{row['apart']:+.1f}"
        rows.append((f"{row['title']}{unit}", *(cell(found, row["unit"]) for found in cells), apart))
    lines = [*_foretelling(document), "", table(rows), "", *_features(document), ""]
    return [*lines, *(f"{ABSENT} {why}" for why in whys)]


def _foretelling(document: Mapping[str, Any]) -> Iterator[str]:
    told, split = document["foretelling"], document["asked"]["split"]
    if not told["model"]:
        yield f"NLL: not measured: {told['why']}"
    for name, value in told["model"].items():
        counts = " · ".join(
            f"{of} {measures[figure]:.4f}" for of, measures in told["counts"].items()
            for figure in measures if name == f"{split}_{figure}"
        )  # fmt: skip
        yield f"{name.replace('_', ' ')}: {value:.4f}" + (f" ({counts})" if counts else "")


def _features(document: Mapping[str, Any]) -> Iterator[str]:
    from jobs.models import ABSENT, table

    rows: list[tuple[str, ...]] = [("FEATURE", "OVERLAP", "DIVERGENCE", "OVERLAP OF TRAINING")]
    for feature in document["features"]:
        takes, train = feature["takes"], feature["train"] or {}
        shown = (takes["overlap"], takes["divergence"], train.get("overlap"))
        rows.append((feature["name"], *(ABSENT if value is None else f"{value:.3g}" for value in shown)))
    yield table(rows)


@click.command(name="evaluate")
@click.argument("model", metavar="MODEL")
@click.option(
    "--split", type=click.Choice(["test", "valid"]), default="test", show_default=True, help="Works held out."
)
@click.option(
    "--takes",
    type=click.IntRange(min=2),
    help="Pieces or notes to make; by default as many as are held out, up to 64 or 128.",
)
@click.option(
    "--samples", "pairs", type=click.IntRange(min=0), default=PAIRS, show_default=True,
    help="Takes to render, each with the work beside it.",
)  # fmt: skip
@click.option("--temperature", default=1.0, show_default=True, help="Sampling temperature.")
@click.option("--top-p", default=0.95, show_default=True, help="Probability mass that sampling keeps.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same figures.")
@click.option("--device", default="cpu", show_default=True, help="Where the network runs: cpu or cuda.")
@click.option("--out", metavar="FOLDER", help="A folder that gets a copy of all files, also on S3.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Say what would be compared and where it would go, and write nothing.")
def command(
    model: str,
    split: str,
    takes: int | None,
    pairs: int,
    temperature: float,
    top_p: float,
    seed: int,
    device: str,
    out: str | None,
    root: str,
    tracking_uri: str | None,
    dry_run: bool,
) -> None:
    """Hold what a model makes against works that it never saw: a table, a page of pictures, rendered samples.

    MODEL is NAME, NAME@production or NAME/VERSION. Takes are asked for nothing but to be as long as the works beside
    them. Of a model of notes, notes are held against notes. What is found is kept in the version's MLflow run and below
    its card.

        \b
        Example:
            tutti evaluate bach@production
            tutti evaluate bach/3 --split valid --takes 64 --out evaluation
    """
    from jobs import note_evaluation
    from tutti import telemetry
    from tutti.evaluation import publishing
    from tutti.evaluation.evaluation import Asked, gathered
    from tutti.evaluation.report import DOCUMENT, PAGE
    from tutti.models import bundle as bundles
    from tutti.registry.versions import Registry

    place = Folder(root)
    registry = Registry.embedded(place, tracking_uri=tracking_uri)
    asked = Asked(split=split, takes=takes, seed=seed, temperature=temperature, top_p=top_p, device=device)
    if dry_run:
        version = registry.resolve(model)
        bundle = bundles.load(registry.fetch(version))
        if note_evaluation.is_of_notes(bundle):
            click.echo("\n".join(note_evaluation.plan(version, bundle, asked, pairs=pairs, root=place)))
            return
        material = gathered(bundle, asked, root=place)
        folder = publishing.place(version, _inputs(version, material, asked, pairs=pairs), root=place)
        click.echo("\n".join(_plan(version, material, asked, folder=folder)))
        return
    found = run(asked, model=model, pairs=pairs, root=place, registry=registry, reporter=telemetry.reporter())
    click.echo("\n".join(summary(json.loads(found.read(DOCUMENT)))))
    folder = found.folder
    if out is not None:
        folder = Folder(out)
        if folder.uri.rstrip("/") == found.folder.uri.rstrip("/"):
            raise PlaceError(f"{out} is where the evaluation already is", remedy="choose another folder")
        for path in found.paths():
            folder.write(path, found.read(path))
    click.echo(f"page: {folder.local_path / PAGE if folder.is_local else f'{folder.uri}/{PAGE}'}")


def _plan(version: ModelVersion, material: Material, asked: Asked, *, folder: Folder) -> Iterator[str]:
    from tutti import lineage

    held_out, train = material.held_out, material.train
    yield f"model      {version} ({version.digest[:12]})"
    yield (
        f"held out   {len(held_out)} of {material.held_out_of} works of {asked.split}"
        + (f", {held_out.left_out} more left out for their licences" if held_out.left_out else "")
        + (f", {material.unwritten} that the model could not write" if material.unwritten else "")
    )
    yield "training   " + ("too many notes to hold takes against" if train is None else f"{len(train):,} works")
    yield f"takes      {material.num_takes}, seed {asked.seed}"
    yield f"address    {folder.uri}, {'finished' if lineage.find(folder) else 'not made yet'}"
