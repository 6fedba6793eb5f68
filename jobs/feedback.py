"""``tutti feedback``: keep what listeners did with a catalogue's takes, and make pairs that tune a model of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import click
import pyarrow as pa

from tutti import lineage, telemetry
from tutti.catalogue import feedback, listening
from tutti.catalogue.feedback import Heard
from tutti.catalogue.publish import KIND, TABLE
from tutti.dataset.inventory import newest
from tutti.errors import RecipeError
from tutti.lineage import Dataset
from tutti.models import bundle as bundles
from tutti.registry.versions import Registry
from tutti.storage import Folder
from tutti.tables import TAKES, from_parquet
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
    table, data = listening.read_file(events)
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
@click.option("--name", metavar="NAME", help="Make pairs too, of this name, by which a recipe names them.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--dry-run", is_flag=True, help="Say what the feedback holds, and write nothing.")
def command(catalogue: str, events: Path, name: str | None, root: str, tracking_uri: str | None, dry_run: bool) -> None:
    """Keep what listeners did with takes, and turn it into pairs that tune a model.

    CATALOGUE is a catalogue's folder or name. EVENTS is what its page exports: Parquet or CSV with the columns listener
    (a pseudonym), take_id, event (rated, liked, kept, rejected, skipped, played or preferred), other_take_id, value
    (-1 to 1) and unix_s. Events are kept for `tutti catalogue recommend`; --name makes pairs of them too.

    \b
    Example:
        tutti feedback calm-chorales feedback-calm-chorales.csv
        tutti feedback calm-chorales listeners.csv --name listeners
        tutti train tune-demo --set tuning.pairs=listeners
    """
    place = Folder(root)
    held = found_at(catalogue, kind=KIND, root=place)
    table, data = listening.read_file(events)
    listening.check(table.to_pylist())
    if dry_run:
        _say_what_it_holds(held, table, name=name)
        return
    place.check_writable()
    kept = listening.keep(table, data, name=held.name, catalogue=held.address, root=place)
    click.echo(f"feedback: {kept.folder.uri}, {kept.facts['events']:,} events of {kept.facts['listeners']:,} listeners")
    if name is None:
        return
    registry = Registry.embedded(place, tracking_uri=tracking_uri)
    dataset = run(held, events, name=name, root=place, registry=registry, reporter=telemetry.reporter())
    click.echo(f"pairs: {dataset.folder.uri}")


def _say_what_it_holds(catalogue: Dataset, table: pa.Table, *, name: str | None) -> None:
    rows = table.to_pylist()
    counted = Counter(event["event"] for event in rows)
    told = ", ".join(f"{number:,} {event}" for event, number in sorted(counted.items()))
    click.echo(f"feedback: {len(rows):,} events of {len({event['listener'] for event in rows}):,} listeners ({told})")
    if name is not None:
        takes = [Heard.of_row(row) for row in from_parquet(catalogue.read(TABLE), TAKES).to_pylist()]
        found = feedback.preferences(rows, takes)
        click.echo(f"pairs {name}: {len(found.pairs):,} of {len(takes):,} takes · left out: {dict(found.left_out)}")
