"""``tutti ingest SOURCE…``: scores from folders, URLs or music21 into the works table."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence

import click
import yaml
from pydantic import Field

from cluster.embedded import start_embedded_ray
from tutti import config, lineage, telemetry
from tutti.config import Settings
from tutti.corpus import ingest, rights
from tutti.corpus.drafting import Analysis
from tutti.corpus.file_index import HashIndex
from tutti.corpus.item import Item
from tutti.corpus.parcels import parcels
from tutti.corpus.sources import survey
from tutti.errors import PlaceError, RecipeError
from tutti.features.descriptors import describe
from tutti.features.hearing import hear_untrusted
from tutti.lineage import Dataset
from tutti.progress import recorded
from tutti.storage import Folder
from tutti.telemetry import Reporter
from tutti.units import format_seconds

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_NAMES_IN_NAME = 3
FILE_INDEX = "parts/files.index"
ANALYSIS = Analysis(describe=describe, hear=hear_untrusted)


class IngestRecipe(ingest.IngestSettings):
    """What to read, under which terms, and how."""

    sources: tuple[str, ...] = Field(
        min_length=1, description="folders, files, http(s) or s3 addresses, music21:COLLECTION[/SCORE]"
    )
    licence: rights.Licence = Field(
        default=rights.UNKNOWN, description="terms of the files: SPDX, LicenseRef-…, or unknown; music21 has its own"
    )
    max_files: int | None = Field(
        default=None, ge=1, description="files to read at most, the first by source and name; all where left out"
    )

    @property
    def settings(self) -> ingest.IngestSettings:
        """The settings that the rows depend on, beside the files themselves."""
        return ingest.IngestSettings(**{name: getattr(self, name) for name in ingest.IngestSettings.model_fields})


def run(recipe: IngestRecipe, *, name: str | None = None, root: Folder, reporter: Reporter) -> Dataset:
    """Read the sources into the works table; found, where it was done before.

    A run that was killed goes on, and one with more files reads only those: what each parcel of files became is kept
    below ``parts/`` of the results root.

    Args:
        recipe: what to read.
        name: name of the dataset; where left out, that of its collections.
        root: results root.
        reporter: told how far it is.

    Raises:
        UserError: a source is not there or holds no music, its licence must be named, more files are bad than the
            recipe allows, nothing could be read, or the folder cannot be written.
    """
    index = HashIndex.read(root, path=FILE_INDEX)
    items, metadata = survey_of(recipe, index=index)
    name = name or _name_of(items)
    folder = _place(recipe, items=items, name=name, root=root)
    found = lineage.find(folder)
    if found is not None:
        # The index only saves time, and what is finished is found below a root that cannot be written, too.
        with contextlib.suppress(PlaceError):
            index.write()
        reporter.line(f"works {name}: found finished · {counts(found)}")
        return found
    folder.check_writable()
    index.write()
    for line in metadata:
        reporter.line(line)
    # Not at the top: a second run, which reads nothing, must not wait for Ray.
    from tutti.corpus.on_ray import Sofar, read_parcels, write_shards

    start_embedded_ray()
    settings = recipe.settings
    parts = ingest.parts_folder(root, settings)

    with recorded(folder, verb="ingest", files=len(items)) as record:

        def check(sofar: Sofar) -> None:
            record.update(done=sofar.files, works=sofar.works, refusals=sofar.refused)
            share, example = settings.max_refused_share, sofar.example
            ingest.check_refused(sofar.bad, files=len(items), max_share=share, example=example)

        outcomes = read_parcels(
            parcels(items), parsing=settings.parsing, analysis=ANALYSIS, folder=parts, reporter=reporter, check=check
        )
        made = ingest.plan(outcomes, settings=settings)
        files = write_shards(made.shards, parts=parts, folder=folder, reporter=reporter)
        dataset = ingest.publish(
            made,
            files=files,
            items=items,
            settings=settings,
            folder=folder,
            name=name,
            sources=recipe.sources,
            metadata=metadata,
        )
    reporter.line(f"works {name}: {counts(dataset)}")
    return dataset


def items_of(recipe: IngestRecipe, *, index: HashIndex | None = None) -> list[Item]:
    """The files of all sources, in the recipe's order.

    Args:
        recipe: what to read.
        index: hashes of files that were read before.

    Raises:
        UserError: a source is not there or holds no music, or its licence must be named.
    """
    return survey_of(recipe, index=index)[0]


def survey_of(recipe: IngestRecipe, *, index: HashIndex | None = None) -> tuple[list[Item], list[str]]:
    """As :func:`items_of`, and what came of each table beside the files, for people."""
    listings = [survey(source, licence=recipe.licence, index=index) for source in dict.fromkeys(recipe.sources)]
    items = [item for listing in listings for item in listing.items]
    twice = [uri for uri, count in Counter(item.uri for item in items).items() if count > 1]
    if twice:
        raise RecipeError(
            f"two sources give files of one name, such as {twice[0]!r}",
            remedy="name the folder above them, or ingest them one by one",
        )
    return items[: recipe.max_files], [str(usage) for listing in listings for usage in listing.usages]


def counts(works: Dataset) -> str:
    """What a works dataset holds, in one short text."""
    facts = works.facts
    text = f"{facts['works']:,} works · {facts['notes']:,} notes · {format_seconds(facts['length_s'])} of music"
    clips = facts.get("clips")
    refusals = dict(facts["refusals"])
    duplicates = refusals.pop("duplicate", 0)
    near = facts["near_duplicates"]
    refused = ", ".join(f"{count:,} {reason}" for reason, count in refusals.items())
    parts = [
        text if facts["works"] or not clips else "",
        f"{clips['clips']:,} clips · {format_seconds(clips['length_s'])} of sound" if clips else "",
        f"{duplicates:,} duplicates" if duplicates else "",
        f"{near['works']:,} in {near['groups']:,} groups of near duplicates" if near["groups"] else "",
        f"refused: {refused}" if refused else "",
    ]
    return " · ".join(filter(None, parts))


def _place(recipe: IngestRecipe, *, items: Sequence[Item], name: str, root: Folder) -> Folder:
    if not _NAME.fullmatch(name):
        raise RecipeError(f"name {name!r} cannot be a folder", remedy="use letters, digits, '.', '_' and '-'")
    return lineage.place(root, kind=ingest.KIND, name=name, inputs=ingest.inputs_of(items, recipe.settings))


def _name_of(items: Sequence[Item]) -> str:
    """A name from the collections, where the caller gave none."""
    collections = [
        re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") for name in {item.collection: 0 for item in items}
    ]
    named = [name for name in collections if name]
    return "-".join(named)[:64].rstrip("-._") if 0 < len(named) <= MAX_NAMES_IN_NAME else "works"


def _plan_lines(recipe: IngestRecipe, *, items: Sequence[Item], name: str, folder: Folder) -> list[str]:
    state = "finished" if lineage.find(folder) else "not made yet"
    files = Counter((item.collection, item.licence) for item in items)
    refused = Counter(item.reason for item in items if item.reason)
    return [
        f"works       {name}, {state}",
        *(f"source      {source}" for source in dict.fromkeys(recipe.sources)),
        *(f"collection  {collection}: {count} files under {licence}" for (collection, licence), count in files.items()),
        *(f"refused     {count} files already, as {reason}" for reason, count in sorted(refused.items())),
        f"address     {folder.uri}",
    ]


def _settings_told() -> str:
    """Every field that --set can set, with its sentence and default."""

    def lines(kind: type[Settings], prefix: str) -> list[tuple[str, str]]:
        told = []
        for name, field in kind.model_fields.items():
            if isinstance(field.default, Settings):
                told += lines(type(field.default), f"{prefix}{name}.")
            elif prefix + name not in ("sources", "licence"):
                default = "" if field.default is None else f" [{field.default}]"
                told.append((prefix + name, f"{field.description}{default}"))
        return told

    return "\n".join(
        ("\b", "Settings (--set KEY=VALUE):", *(f"  {key}: {text}" for key, text in lines(IngestRecipe, "")))
    )


@click.command(name="ingest", epilog=_settings_told())
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option("--licence", default=rights.UNKNOWN, show_default=True, help="Terms of the files: SPDX or LicenseRef-….")
@click.option("--name", help="Name of the dataset; by default that of its collections.")
@click.option("--root", default="results", show_default=True, help="Results root: a folder or s3://bucket/prefix.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set another field of the recipe.")
@click.option("--render", is_flag=True, help="Then render each work to audio, cut into clips aligned with its notes.")
@click.option("--dry-run", is_flag=True, help="Say what would be read and where it would go, and read nothing.")
def command(
    sources: tuple[str, ...],
    licence: str,
    name: str | None,
    root: str,
    overrides: tuple[str, ...],
    render: bool,
    dry_run: bool,
) -> None:
    """Read music into the works table, and sound into the clips table.

    A SOURCE is a folder, a file, a zip or tar of MIDI, MusicXML, ABC, kern, WAV, FLAC, OGG, MP3 or Parquet tables of
    notes, an http(s) or s3 address of one, or music21:COLLECTION, such as music21:bach. A CSV or JSONL beside the files
    may tell title, composer, licence, tags and mood. What cannot be read becomes a row in the refusals table. A run
    that was killed goes on, and sources that were read before are found, not read again.

    \b
    Example:
      tutti ingest music21:bach ~/midi --licence CC0-1.0 --name chorales
      tutti ingest s3://bucket/lakh.zip --set screening.min_notes=50 --set screening.drop_drums_only=true
    """
    telemetry.quiet_libraries()
    text = yaml.safe_dump({"sources": list(sources), "licence": licence})
    recipe = config.parse(IngestRecipe, text, overrides=overrides, origin="ingest")
    place = Folder(root)
    if dry_run:
        items = items_of(recipe)
        chosen = name or _name_of(items)
        folder = _place(recipe, items=items, name=chosen, root=place)
        click.echo("\n".join(_plan_lines(recipe, items=items, name=chosen, folder=folder)))
        return
    dataset = run(recipe, name=name, root=place, reporter=telemetry.reporter())
    click.echo(f"works: {dataset.folder.uri}")
    if render:
        from jobs import pairs  # the synthesiser is slow to load, and not every ingest renders

        settings = pairs.PairSettings(cutting=recipe.cutting)
        clips = pairs.run(dataset, settings=settings, root=place, reporter=telemetry.reporter())
        click.echo(f"clips: {clips.folder.uri}")
