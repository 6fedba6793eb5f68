"""``tutti catalogue zip``: a finished catalogue as one file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from tutti.errors import PlaceError
from tutti.storage import Folder
from tutti.units import format_bytes


@click.command(name="zip")
@click.argument("catalogue", metavar="CATALOGUE")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--out", metavar="FILE", help="Where it goes, s3://… too; by default NAME.zip in this folder.")
@click.option("--dry-run", is_flag=True, help="Say what it would hold, and write nothing.")
def command(catalogue: str, root: str, out: str | None, dry_run: bool) -> None:
    """Put what a catalogue ships into one ZIP: files, provenance, tables and page; the same bytes every time.

    CATALOGUE is its name below --root (the newest of that name) or its folder. An order with `zip: true` has it beside
    its files.

    \b
    Example:
        tutti catalogue zip calm-chorales --out calm.zip
    """
    from tutti import lineage
    from tutti.catalogue.archive import shipped, write_zip
    from tutti.catalogue.publish import KIND
    from tutti.dataset.inventory import newest

    is_folder = "/" in catalogue
    folder = Folder(catalogue) if is_folder else newest(Folder(root), kind=KIND, name=catalogue)
    dataset = lineage.load(folder)
    files = shipped(dataset.files)
    size = format_bytes(sum(entry.size_bytes for entry in files))
    place, _, name = _target(out or f"{dataset.name}.zip")
    if dry_run:
        click.echo(f"would put {len(files)} files of {folder.uri}, {size}, into {place}/{name}")
        return
    target = Folder(place)
    if target.is_local and not target.local_path.is_dir():
        raise PlaceError(f"folder {target.local_path} is not there", remedy="make it, or choose another")
    with tempfile.TemporaryDirectory(prefix="tutti-zip-", dir=target.local_path if target.is_local else None) as staged:
        made = Path(staged) / "catalogue.zip"
        write_zip(folder, dataset.files, name=dataset.name, target=made)
        target.write_from(name, made)
    click.echo(f"{len(files)} files, {size}: {place}/{name}")


def _target(out: str) -> tuple[str, str, str]:
    return (out if "://" in out else str(Path(out).absolute())).rpartition("/")
