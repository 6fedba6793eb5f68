"""``tutti reproduce TAKE``: a take made again from its provenance, and held against its hashes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tutti import telemetry
from tutti.errors import InputError, IntegrityError, MissingError
from tutti.storage import Folder

_ID = re.compile(r"[0-9a-f]{8,24}")


@click.command(name="reproduce")
@click.argument("take")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="An MLflow server.")
@click.option("--out", metavar="FOLDER", help="Write the files there; by default they are compared and dropped.")
@click.option("--dry-run", is_flag=True, help="Say what would be made from what, and make nothing.")
def command(take: str, root: str, tracking_uri: str | None, out: str | None, dry_run: bool) -> None:
    """Make a take again from its provenance, and say whether it is the same to the byte.

    TAKE is a provenance file of a catalogue, any other file of the take beside it, or the take's id (8 or more of its
    digits) in a catalogue below --root. Exit code 2 where a byte differs; what differs is said.

    \b
    Example:
      tutti reproduce results/catalogues/demo/d86ab75eade3158d/provenance/vigil-1-in-a-minor-c123f63d.json
      tutti reproduce c123f63d --out again/
    """
    telemetry.quiet_libraries()
    from tutti.registry.versions import Registry

    told, origin = find(take, root=Folder(root))
    registry = Registry.embedded(Folder(root), tracking_uri=tracking_uri)
    if dry_run:
        model = told["model"]
        click.echo(f"would make take {told['take_id']} by {model['name']}/{model['version']} and compare:")
        for path, file in told["files"].items():
            click.echo(f"  {path}  {file['size_bytes']:,} bytes  {file['sha256']}")
        return
    files, now = made_again(told, registry=registry)
    different = [path for path, file in told["files"].items() if _sha256(files.get(path)) != file["sha256"]]
    for path in told["files"]:
        click.echo(f"{'DIFFERS' if path in different else 'same'}  {path}")
    if out is not None:
        for path, data in files.items():
            Folder(out).write(path, data)
    if different:
        raise IntegrityError(
            f"{len(different)} of {len(told['files'])} files differ from those of {origin}{_why(told, now)}"
        )
    click.echo(f"take {told['take_id']}: all {len(told['files'])} files are the same to the byte")


def find(take: str, *, root: Folder) -> tuple[dict[str, Any], str]:
    """A take's provenance, and where it was found.

    Raises:
        MissingError: there is none.
        InputError: several takes begin with these digits.
        IntegrityError: it is damaged.
    """
    from tutti.catalogue import provenance

    if _ID.fullmatch(take):
        folder, path = _by_id(take, root=root)
    else:
        folder, path = _by_file(take)
    try:
        data = folder.read(path)
    except MissingError:
        raise MissingError(
            f"no provenance of {take} at {folder.uri}/{path}", remedy="name a provenance file, or a take's id"
        ) from None
    told = provenance.from_bytes(data, origin=f"{folder.uri}/{path}")
    if _ID.fullmatch(take) and not told["take_id"].startswith(take):
        raise MissingError(f"no take {take} below {root.uri}", remedy="take the id from catalogue.csv")
    return told, f"{folder.uri}/{path}"


def _by_id(take: str, *, root: Folder) -> tuple[Folder, str]:
    from tutti.catalogue import provenance, publish
    from tutti.dataset.inventory import State, found_below

    catalogues = found_below(root, kinds=(publish.KIND,), now=datetime.now(UTC))
    found = [
        (each.folder, path)
        for each in catalogues
        if each.state == State.FINISHED
        for path in each.folder.paths(provenance.FOLDER)
        if path.endswith(f"-{take[:8]}.json")
    ]
    if not found:
        raise MissingError(f"no take {take} below {root.uri}", remedy="take the id from catalogue.csv, or name --root")
    if len({path for _, path in found}) > 1:
        raise InputError(f"{len(found)} takes begin with {take}", remedy="name the provenance file")
    return found[0]


def _by_file(take: str) -> tuple[Folder, str]:
    from tutti.catalogue import provenance

    place, _, name = (take if "://" in take else str(Path(take).absolute())).rpartition("/")
    if name.endswith(".json"):
        return Folder(place), name
    catalogue, _, _ = place.rpartition("/")
    return Folder(catalogue), provenance.path_of(name.partition(".")[0])


def made_again(told: Mapping[str, Any], *, registry: Any) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A take's files by path, and its provenance as it is now.

    Args:
        told: its provenance.
        registry: where its model, and those that play it, are found.

    Raises:
        IntegrityError: the registry's model is another, or the document contradicts itself.
        MissingError: no such model.
    """
    import torch

    from tutti.catalogue import provenance
    from tutti.catalogue.blocks import make_take
    from tutti.catalogue.on_ray import composed, engine_facts
    from tutti.generation import composers
    from tutti.generation.desk import Desk

    plan, take = provenance.plan_and_take(told)
    version = registry.resolve(f"{plan.model}/{plan.model_version}")
    if version.digest != plan.model_digest:
        raise IntegrityError(
            f"model {version} has digest {version.digest}, and the take was made by {plan.model_digest}"
        )
    torch.set_num_threads(1)
    order = plan.order
    # What was left to the machine that made it is not left to this one.
    precision = told["made_by"].get("precision", "auto") if order.precision == "auto" else order.precision
    composer = composers.load(
        registry.fetch(version), device=order.device, cache_bytes=order.cache_bytes, precision=precision
    )
    instruments = _players(plan, registry=registry)
    desk = Desk(composer)
    piece = composed(take, plan=plan, desk=desk)
    desk.close()
    draft = provenance.draft_of(told, take, piece.score, candidates=piece.candidates)
    facts = engine_facts(composer, device=order.device, precision=precision)
    made = make_take(draft, plan=plan, instruments=instruments, engine=facts)
    return made.files, made.provenance


def _players(plan: Any, *, registry: Any) -> dict[int, Any]:
    from tutti.models import bundle as bundles
    from tutti.render.timbres import players

    loaded = []
    for timbre in plan.timbres:
        bundle = bundles.load(registry.fetch(registry.resolve(timbre.version)))
        if bundle.digest() != timbre.digest:
            raise IntegrityError(f"the files of {timbre.version} have digest {bundle.digest()}, not {timbre.digest}")
        loaded.append((timbre, bundle))
    return players(loaded)


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _why(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What is another now than when the take was made."""
    from tutti.catalogue.provenance import differences

    changed = [
        line
        for name in ("made_by", "vocabulary", "sound")
        for line in differences({name: then.get(name)}, {name: now.get(name)})
    ]
    return f"; since then: {'; '.join(changed)}" if changed else "; nothing that is recorded has changed since"
