"""``tutti models``: list registered versions, show a card, promote one, roll back, export one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.registry.gate import Finding
    from tutti.registry.versions import ModelVersion, Registry

HEAD = ("NAME", "VERSION", "ALIAS", "CREATED", "PARAMETERS", "VALID NLL", "DIGEST")
ABSENT = "–"
DIGEST_CHARACTERS_SHOWN = 12


@click.group(name="models")
def command() -> None:
    """List registered versions, promote one, roll back, export one.

    \b
    Example:
        tutti models list
        tutti models show bach@production
        tutti models promote bach/3
        tutti models rollback bach
        tutti models export bach@production --out bach
        tutti models export --checkpoint results/runs/bach/0f3a --out bach
    """


def _with_place(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the models are."""
    function = click.option(
        "--tracking-uri",
        metavar="URL",
        envvar="MLFLOW_TRACKING_URI",
        show_envvar=True,
        help="An MLflow server; without it, the SQLite file below --root.",
    )(function)
    return click.option("--root", metavar="FOLDER", default="results", show_default=True, help="Results.")(function)


def _registry(root: str, tracking_uri: str | None) -> Registry:
    from tutti.registry.versions import Registry  # MLflow takes two seconds to import: --help does without

    return Registry.embedded(Folder(root), tracking_uri=tracking_uri)


@command.command(name="list")
@_with_place
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
@click.argument("name", required=False)
def list_versions(name: str | None, root: str, tracking_uri: str | None, as_json: bool) -> None:
    """List versions, of one model or of all, the newest of a model first.

    \b
    Example:
        tutti models list bach --json
    """
    registry = _registry(root, tracking_uri)
    versions = registry.versions(name)
    if as_json:
        click.echo(json.dumps([_plain(version) for version in versions], indent=2, ensure_ascii=False))
        return
    if versions:
        click.echo(table([HEAD, *(_row(version) for version in versions)]))
    click.echo(f"{len(versions)} version{'' if len(versions) == 1 else 's'} at {registry.backend.shown}")


@command.command()
@_with_place
@click.argument("reference", metavar="NAME[@ALIAS|/VERSION]")
def show(reference: str, root: str, tracking_uri: str | None) -> None:
    """Print a version's model card and what its gate finds; a bare name means production, or else the newest.

    \b
    Example:
        tutti models show bach@production
    """
    registry = _registry(root, tracking_uri)
    version = registry.resolve(reference)
    click.echo(registry.card(version))
    for finding in registry.findings(version):
        click.echo(_verdict(finding))
    click.echo(f"{_named(version)} at {version.source}")


@command.command()
@_with_place
@click.option("--dry-run", is_flag=True, help="Say what its gate finds and what would be done.")
@click.argument("reference", metavar="NAME/VERSION")
def promote(reference: str, root: str, tracking_uri: str | None, dry_run: bool) -> None:
    """Make a version the one in production, where it shows what its gate asks and its files are whole.

    \b
    Example:
        tutti models promote bach/3
        tutti models promote bach/3 --dry-run
    """
    registry = _registry(root, tracking_uri)
    version = registry.resolve(reference)
    if dry_run:
        for finding in registry.findings(version):
            click.echo(_verdict(finding))
        registry.check_promotable(version)
        click.echo(f"would make {version} production at {registry.backend.shown}")
        return
    registry.promote(version.name, version.version)
    click.echo(f"{version} is {version.name}@production at {registry.backend.shown}")


@command.command()
@_with_place
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@click.argument("name")
def rollback(name: str, root: str, tracking_uri: str | None, dry_run: bool) -> None:
    """Bring back the version that was in production before; again goes back further.

    \b
    Example:
        tutti models rollback bach
    """
    registry = _registry(root, tracking_uri)
    if dry_run:
        click.echo(f"would make {registry.previous(name)} production at {registry.backend.shown}")
        return
    version = registry.rollback(name)
    click.echo(f"{version} is {name}@production again at {registry.backend.shown}")


@command.command()
@_with_place
@click.option("--out", required=True, metavar="FOLDER", help="New or empty folder, also on S3.")
@click.option("--checkpoint", "run", metavar="RUN_FOLDER", help="Take a checkpoint of this run, not a version.")
@click.option("--step", type=click.IntRange(min=0), help="Which checkpoint; the newest by default.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(("tutti", "llama")),
    default="tutti",
    show_default=True,
    help="llama: weights and config.json as Hugging Face's Llama, for other engines; decoders alone.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
@click.argument("reference", metavar="[NAME[@ALIAS|/VERSION]]", required=False)
def export(
    reference: str | None,
    out: str,
    run: str | None,
    step: int | None,
    layout: str,
    root: str,
    tracking_uri: str | None,
    dry_run: bool,
) -> None:
    """Write a version's files, verified: weights as safetensors, settings, vocabulary, card, and what MLflow needs.

    A run that is not finished, or that kept checkpoints, gives one of them instead: those of all its workers become one
    model.

    \b
    Example:
        tutti models export bach@production --out bach
        tutti models export --checkpoint results/runs/bach/0f3a --step 200 --out bach-200
        tutti models export bach@production --format llama --out bach-llama
    """
    if (reference is None) == (run is None):
        raise click.UsageError("name a version, or a run by --checkpoint")
    if run is None and step is not None:
        raise click.UsageError("--step is of a checkpoint: name its run by --checkpoint")
    if run is not None:
        _export_checkpoint(Folder(run), step=step, layout=layout, out=Folder(out), dry_run=dry_run)
        return
    registry = _registry(root, tracking_uri)
    version = registry.resolve(reference or "")
    names = sorted(version.checksums)
    if dry_run:
        written = ", ".join(names) if layout == "tutti" else f"the {layout} layout"
        click.echo(f"would write {written} of {version} to {Folder(out).uri}")
        return
    from tutti.registry import files

    fetched = registry.fetch(version)
    written_files = {name: (fetched / name).read_bytes() for name in names} if layout == "tutti" else _llama(fetched)
    files.export(written_files, into=Folder(out))
    click.echo(f"{_named(version)}: {len(written_files)} files in {Folder(out).uri}")


def _llama(folder: Path) -> dict[str, bytes]:
    """Files of a bundle in the layout of Hugging Face's Llama."""
    from tutti.features.vocabulary import END, EVENTS, PAD, START
    from tutti.models import bundle
    from tutti.models.decoder.llama import llama_files

    start, end, pad = (EVENTS.names[token] for token in (START, END, PAD))
    return llama_files(bundle.load(folder), start=start, end=end, pad=pad)


def _export_checkpoint(run: Folder, *, step: int | None, layout: str, out: Folder, dry_run: bool) -> None:
    from tutti.registry import files  # as MLflow, torch takes a while to import
    from tutti.training import exporting

    saved = exporting.found(run, step=step)
    if dry_run:
        click.echo(f"would write the checkpoint of step {saved.step} of {run.uri} to {out.uri}")
        return
    with tempfile.TemporaryDirectory(prefix="tutti-bundle-") as folder:
        exporting.bundle_of(saved).save(Path(folder))
        written = files.stage(Path(folder)).files if layout == "tutti" else _llama(Path(folder))
    files.export(written, into=out)
    click.echo(f"checkpoint of step {saved.step}: {len(written)} files in {out.uri}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in columns as wide as their widest cell, two spaces between."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(version: ModelVersion) -> tuple[str, ...]:
    parameters = version.figures.get("parameters")
    nll = version.figures.get("valid_nll_nats_per_token")
    return (
        version.name,
        version.version,
        ", ".join(version.aliases) or ABSENT,
        f"{version.created.astimezone():%Y-%m-%d %H:%M}",
        ABSENT if parameters is None else f"{parameters:,.0f}",
        ABSENT if nll is None else f"{nll:.4f}",
        version.digest[:DIGEST_CHARACTERS_SHOWN],
    )


def _plain(version: ModelVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(version.aliases),
        "created": version.created.isoformat(timespec="seconds"),
        "digest": version.digest,
        "run_id": version.run_id,
        "figures": version.figures,
        "source": version.source,
    }


def _verdict(finding: Finding) -> str:
    return f"{'passed ' if finding.holds else 'refused'} {finding}"


def _named(version: ModelVersion) -> str:
    return f"{version} ({', '.join(version.aliases)})" if version.aliases else str(version)
