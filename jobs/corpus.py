"""``tutti corpus``: what a works dataset holds, in a summary and on one page of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.models import ABSENT, table
from tutti import lineage
from tutti.dataset.inventory import Found, found_below, newest
from tutti.errors import InputError, PlaceError
from tutti.lineage import MANIFEST, Dataset
from tutti.storage import Folder
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.dataset.overview import Overview

PAGES = "pages/corpus"
PAGE = "index.html"
HEAD = ("NAME", "ADDRESS", "FINISHED", "WORKS", "NOTES", "MUSIC", "CLIPS", "REFUSED", "DUPLICATES", "LICENCES")
MOST_NAMES = 8
"""Members of a list that a line of the summary names."""
_SUMMED_UP = ("tempo_mean_qpm", "length_s", "notes_per_quarter", "polyphony")


@click.group(name="corpus")
def command() -> None:
    """Look at what was ingested.

    \b
    Example:
        tutti corpus list
        tutti corpus show chorales
    """


@command.command(name="list")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array instead of a table.")
def list_corpora(root: str, as_json: bool) -> None:
    """List finished corpora, the newest of a name first.

    \b
    Example:
        tutti corpus list --json
    """
    place = Folder(root)
    found = [each for each in found_below(place, kinds=("works",), now=datetime.now(UTC)) if each.created]
    if as_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2, ensure_ascii=False))
        return
    if found:
        click.echo(table([HEAD, *(_row(each) for each in found)]))
    click.echo(f"{len(found)} finished {'corpus' if len(found) == 1 else 'corpora'} below {place.uri}")


@command.command()
@click.argument("dataset", metavar="DATASET")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page's file; by default below --root, in pages/corpus.",
)
@click.option("--dry-run", is_flag=True, help="Say where the page would go, and write nothing.")
def show(dataset: str, root: str, out: Path | None, dry_run: bool) -> None:
    """Print what a corpus holds and write a page of pictures of it.

    DATASET is a folder, as `tutti ingest` printed it, or the name of a corpus: the newest finished one below --root.
    The page is one file that loads nothing from the network.

    \b
    Example:
        tutti corpus show chorales --out chorales.html
    """
    place = Folder(root)
    works = find(dataset, root=place)
    folder, name = page_place(works, root=place, out=out)
    where = str(folder.local_path / name) if folder.is_local else f"{folder.uri}/{name}"
    if dry_run:
        click.echo(f"would look at {works.folder.uri} and write {where}")
        return
    from tutti.dataset.overview import overview_of
    from tutti.dataset.overview_page import render

    overview = overview_of(works)
    page = render(overview)
    click.echo("\n".join(summary(overview)))
    folder.write(name, page)
    click.echo(f"page: {where}")


def find(dataset: str, *, root: Folder) -> Dataset:
    """The dataset at an address, or the newest finished corpus of a name.

    Raises:
        MissingError: neither is there.
        IntegrityError: its files differ from its manifest.
    """
    if "/" in dataset or Folder(dataset).exists(MANIFEST):
        return lineage.load(Folder(dataset.rstrip("/")))
    return lineage.load(newest(root, kind="works", name=dataset))


def page_place(works: Dataset, *, root: Folder, out: Path | None) -> tuple[Folder, str]:
    """Folder and file name of a corpus' page.

    Raises:
        InputError: ``out`` names no file.
        PlaceError: the dataset's own folder, which never changes once it is finished.
    """
    if out is None:
        return root / PAGES / works.name / works.address, PAGE
    if not out.name:
        raise InputError(f"--out {str(out)!r} names no file", remedy="write it like corpus.html")
    folder = Folder(str(out.parent))
    if works.folder.is_local and folder.local_path.resolve().is_relative_to(works.folder.local_path.resolve()):
        raise PlaceError(f"{out} lies in the dataset itself, which never changes", remedy="choose another folder")
    return folder, out.name


def summary(overview: Overview) -> list[str]:
    """A corpus in a few lines."""
    from tutti.dataset.scales import SCALES

    moods, groups = overview.moods, overview.groups
    lines = {
        "corpus": f"{overview.dataset.name} {overview.dataset.address}",
        "works": f"{overview.works:,} · {overview.notes:,} notes · {format_seconds(overview.length_s)} of music",
        "splits": _counted(overview.splits),
        "collections": _counted({part.name: part.works for part in overview.collections}),
        "licences": _counted({part.name: part.works for part in overview.licences}),
        "keys": _counted(_ranked(overview.keys)),
        "meters": _counted(overview.meters),
        "instruments": _counted(_ranked(overview.families)),
        "moods": f"{_counted(moods.quadrants)} · {moods.labels:,} of them labels",
    }
    for scale in SCALES:
        figures = overview.measures[scale.column].quartiles
        if scale.column in _SUMMED_UP and figures:
            low, middle, high = (scale.write(value) for value in figures[1:4])
            lines[scale.title.lower()] = f"{middle} {scale.unit}".rstrip() + f" · half between {low} and {high}"
    lines |= {"composers": _counted(overview.composers), "tags": _counted(overview.tags)}
    if overview.clips is not None:
        clips = overview.clips
        lines["clips"] = f"{clips.clips:,} · {format_seconds(clips.length_s)} · {clips.works:,} works rendered"
    largest = f", the largest of {overview.largest_group:,}" if groups else ""
    lines["near duplicates"] = f"{overview.grouped:,} works in {groups:,} groups{largest}"
    duplicates = sum(each.inputs for each in overview.refusals if each.reason == "duplicate")
    lines["refused"] = f"{overview.refused - duplicates:,}" + (
        f" of {overview.files:,} files" if overview.files else ""
    )
    lines["duplicates"] = f"{duplicates:,}" if duplicates else ""
    lines |= {f"  {each.reason}": f"{each.inputs:,} · {each.example}: {each.detail}" for each in overview.refusals}
    width = max(map(len, lines)) + 2
    return [f"{name.ljust(width)}{text}" for name, text in lines.items() if text]


def _ranked(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _counted(counts: Mapping[str, int]) -> str:
    """Names with their counts, those of nothing left out."""
    held = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count]
    return " · ".join(held[:MOST_NAMES]) + (f" · {len(held) - MOST_NAMES:,} more" if len(held) > MOST_NAMES else "")


def _row(found: Found) -> tuple[str, ...]:
    facts = found.facts
    sound, refusals = facts.get("clips", {}), facts.get("refusals", {})
    duplicates = refusals.get("duplicate", 0)
    finished = f"{found.created.astimezone():%Y-%m-%d %H:%M}" if found.created else ABSENT
    return (
        found.name,
        found.address,
        finished,
        *(f"{facts[name]:,}" if name in facts else ABSENT for name in ("works", "notes")),
        format_seconds(facts["length_s"]) if "length_s" in facts else ABSENT,
        f"{sound['clips']:,}" if sound else ABSENT,
        f"{sum(refusals.values()) - duplicates:,}",
        f"{duplicates:,}",
        ", ".join(dict.fromkeys((*facts.get("licences", {}), *sound.get("licences", {})))),
    )


def _plain(found: Found) -> dict[str, object]:
    return {
        "name": found.name,
        "address": found.address,
        "uri": found.folder.uri,
        "created": found.created.isoformat() if found.created else None,
        "size_bytes": found.size_bytes,
        "facts": dict(found.facts),
    }
