"""``tutti feedback``: what listeners did with a catalogue's takes, as pairs that tune a model."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.csv as csv

from tutti import lineage, telemetry
from tutti.catalogue import feedback
from tutti.catalogue.feedback import Heard
from tutti.catalogue.publish import KIND, TABLE
from tutti.dataset.inventory import newest
from tutti.errors import InputError, IntegrityError, RecipeError
from tutti.lineage import Dataset
from tutti.models import bundle as bundles
from tutti.registry.versions import Registry
from tutti.storage import Folder
from tutti.tables import FEEDBACK, TAKES, from_parquet
from tutti.telemetry import Reporter


def run(
    catalogue: Dataset, events: Path, *, name: str, root: Folder, registry: Registry, reporter: Reporter
) -> Dataset:
    """Pairs of a catalogue's takes.

    Args:
        catalogue: whose takes were heard.
        events: rows of the table ``feedback``, as Parquet or CSV.
        name: of the new dataset.
        root: results root.
        registry: where the model of the takes is found.
        reporter: where progress goes.

    Raises:
        UserError: the events cannot be read, or hold no pair.
    """
    table, data = read_events(events)
    rows = from_parquet(catalogue.read(TABLE), TAKES).to_pylist()
    models = sorted({(row["model"], row["model_version"]) for row in rows})
    if len(models) != 1:
        raise RecipeError(f"catalogue {catalogue.name} is of {len(models)} models", remedy="name another one")
    version = registry.resolve("/".join(models[0]))
    collections = bundles.load(registry.fetch(version)).collections
    takes = [Heard.of_row(row) for row in rows]
    found = feedback.preferences(table.to_pylist(), takes)
    inputs = {"catalogue": catalogue.address, "events": hashlib.sha256(data).hexdigest()}
    dataset = feedback.publish(found, takes, root=root, name=name, collections=collections, inputs=inputs)
    reporter.line(f"pairs {name}: {counts(dataset)}")
    return dataset


def counts(pairs: Dataset) -> str:
    """What a dataset of pairs holds, in one short text."""
    facts = pairs.facts
    left_out = ", ".join(f"{number:,} {reason}" for reason, number in facts["left_out"].items())
    held = " / ".join(str(number) for number in facts["splits"].values())
    text = f"{facts['pairs']:,} pairs ({held}) of {facts['takes']:,} takes"
    return f"{text} · left out: {left_out}" if left_out else text


def read_events(path: Path) -> tuple[pa.Table, bytes]:
    """The table ``feedback`` in a Parquet or CSV file, and the file's bytes.

    Raises:
        InputError: it cannot be read, or is no such table.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the feedback {path} ({error.strerror})", remedy="name a file") from None
    try:
        if path.suffix == ".csv":
            kinds: dict[str, Any] = {field.name: field.type for field in FEEDBACK}
            nulls = csv.ConvertOptions(column_types=kinds, include_columns=FEEDBACK.names, strings_can_be_null=True)
            return csv.read_csv(io.BytesIO(data), convert_options=nulls).cast(FEEDBACK), data
        return from_parquet(data, FEEDBACK), data
    except (pa.ArrowException, KeyError, ValueError, IntegrityError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no table of feedback ({reason})", remedy=f"give Parquet or CSV of {', '.join(FEEDBACK.names)}"
        ) from None


def found_at(text: str, *, kind: str, root: Folder) -> Dataset:
    """The dataset in a folder, or the newest one of a name.

    Raises:
        MissingError: there is none.
    """
    is_folder = "/" in text or Path(text).is_dir()
    return lineage.load(Folder(text) if is_folder else newest(root, kind=kind, name=text))


@click.command(name="feedback")
@click.argument("catalogue", metavar="CATALOGUE")
@click.argument("events", metavar="EVENTS", type=click.Path(path_type=Path))
@click.option("--name", required=True, metavar="NAME", help="Of the pairs, by which a recipe names them.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Say what the feedback holds, and write nothing.")
def command(catalogue: str, events: Path, name: str, root: str, tracking_uri: str | None, dry_run: bool) -> None:
    """Turn what listeners did with takes into pairs that tune a model.

    CATALOGUE is a catalogue's folder or name. EVENTS is Parquet or CSV with the columns listener, take_id, event
    (rated, kept, rejected or preferred), other_take_id, value (-1 to 1) and unix_s.

    \b
    Example:
        tutti feedback calm-chorales listeners.csv --name listeners
        tutti train tune-demo --set tuning.pairs=listeners
    """
    place = Folder(root)
    held = found_at(catalogue, kind=KIND, root=place)
    if dry_run:
        takes = [Heard.of_row(row) for row in from_parquet(held.read(TABLE), TAKES).to_pylist()]
        found = feedback.preferences(read_events(events)[0].to_pylist(), takes)
        click.echo(f"pairs {name}: {len(found.pairs):,} of {len(takes):,} takes · left out: {dict(found.left_out)}")
        return
    place.check_writable()
    registry = Registry.embedded(place, tracking_uri=tracking_uri)
    dataset = run(held, events, name=name, root=place, registry=registry, reporter=telemetry.reporter())
    click.echo(f"pairs: {dataset.folder.uri}")
