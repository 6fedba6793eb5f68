"""``tutti catalogue ORDER``: all pieces of an order, checked, rendered, on one page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from cluster.embedded import start_embedded_ray
from jobs import archiving, estimates, finding, starting
from jobs.branching import Branching
from tutti import config, lineage, telemetry
from tutti.catalogue import publish
from tutti.catalogue.blocks import is_done
from tutti.catalogue.known import References, Sources, references_of, sources_of
from tutti.catalogue.order import Order
from tutti.catalogue.pace import Estimate
from tutti.catalogue.settling import settle
from tutti.catalogue.takes import Block, Plan
from tutti.corpus.score import Score
from tutti.errors import InputError, PlaceError
from tutti.generation.restoring import Ends, works_of
from tutti.generation.sentences.scenes import understood
from tutti.lineage import Dataset
from tutti.progress import Record, recorded
from tutti.registry.versions import ModelVersion, Registry
from tutti.render.fonts import KnownFont, known_font
from tutti.render.timbres import KnownTimbre, known
from tutti.storage import Folder
from tutti.telemetry import Reporter
from tutti.units import format_bytes, format_seconds


def run(
    order: Order,
    *,
    root: Folder,
    registry: Registry,
    reporter: Reporter,
    files: Mapping[tuple[str, ...], Score] | None = None,
) -> Dataset:
    """Make the catalogue, or find it; killed anywhere and started again, it makes what is missing and nothing twice.

    Args:
        order: what is asked for.
        root: results root.
        registry: where the order's model is found.
        reporter: told how far it is.
        files: music that takes start from, by its identity; see :func:`with_files`.

    Raises:
        UserError: the model is not there, the model cannot take a request, the folder cannot be used.
    """
    version = registry.resolve(order.model)
    drawn = known(order.timbres, registry=registry)
    font = font_of(order)
    sources = sources_of(order.checks, facts=version.facts, own_name=order.name, root=root)
    timbres = [timbre for timbre, _ in drawn]
    plan = plan_of(order, version=version, timbres=timbres, files=files or {}, compared=sources.addresses, font=font)
    folder = publish.place_of(plan, root=root)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"catalogue {order.name}: found finished · {_counts(found)}")
        return found
    bundle = registry.fetch(version)
    facts = check_requests(plan, bundle=bundle)
    check_space(plan, folder=folder)
    folder.check_writable()
    sizes = lineage.sizes_below(folder)
    waiting: Sequence[Block] = [block for block in plan.blocks() if not is_done(folder, block, sizes=sizes)]
    if waiting:
        from tutti.catalogue.on_ray import check_device  # a second run, which makes nothing, must not wait for Ray

        start_embedded_ray()
        check_device(plan)
    there = order.takes - sum(len(block.slots) for block in waiting)
    with recorded(folder, verb="catalogue", files=order.takes, unit="takes", found=there) as record:
        makes = _Maker(
            plan, folder, bundle, [path for _, path in drawn], sources, version.facts, root, reporter, record
        )
        pace = makes(waiting)
        while (settlement := settle(folder, plan=plan, sizes=lineage.sizes_below(folder))).wanting:
            copies = len(settlement.wanting)
            reporter.line(f"catalogue {order.name}: {copies} takes copy another of it; their next seeds are tried")
            again = makes(settlement.wanting)
            pace = pace or again
        dataset = publish.publish(folder, plan=plan, model_facts=facts, settlement=settlement, pace=pace)
    reporter.line(f"catalogue {order.name}: {_counts(dataset)}")
    return dataset


def plan_of(
    order: Order,
    *,
    version: ModelVersion,
    timbres: Sequence[KnownTimbre] = (),
    files: Mapping[tuple[str, ...], Score] | None = None,
    font: KnownFont | None = None,
    compared: Mapping[str, Any] | None = None,
) -> Plan:
    """The order under one version of its model, and of those that play it."""
    return Plan(
        order,
        model=version.name,
        model_version=version.version,
        model_digest=version.digest,
        timbres=tuple(timbres),
        files=dict(files or {}),
        font=font,
        compared=dict(compared or {}),
    )


def font_of(order: Order) -> KnownFont | None:
    """The SoundFont that an order names, fetched and tried; None where it names none, or nothing sounds.

    Raises:
        UserError: there is none, it cannot be reached, or it is no font.
    """
    if order.sound.soundfont is None or not order.wants_audio:
        return None
    return known_font(order.sound.soundfont)


def check_requests(plan: Plan, *, bundle: Path) -> Mapping[str, Any]:
    """Hold every request of a plan against the model in ``bundle``; return what is known of that model.

    Raises:
        RecipeError: the model cannot take a request.
    """
    from tutti.generation import composers  # brings torch: a second run, which makes nothing, must not wait for it

    composer = composers.load(bundle)
    for line in plan.order.lines:
        composer.check(line.controls, plan.material(line.controls))
    return composer.facts


def check_space(plan: Plan, *, folder: Folder) -> None:
    """Refuse a catalogue that its disk cannot hold, before any of it is made.

    Raises:
        PlaceError: less is free than the catalogue is estimated to need.
    """
    if not folder.is_local:
        return
    there = next(parent for parent in (folder.local_path, *folder.local_path.parents) if parent.exists())
    free, needed = shutil.disk_usage(there).free, plan.estimated_bytes
    if needed > free:
        raise PlaceError(
            f"the catalogue needs about {format_bytes(needed)} and {format_bytes(free)} are free at {there}",
            remedy="free some space, name another --root, or order fewer formats or takes",
        )


def read_order(path: Path, *, overrides: Sequence[str] = ()) -> Order:
    """The order in a YAML file.

    Raises:
        InputError: the file cannot be read.
        RecipeError: it is not an order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"cannot read the order {path} ({reason})", remedy="name a YAML file") from None
    return config.parse(Order, text, overrides=overrides, origin=str(path))


def with_files(order: Order, *, beside: Path) -> tuple[Order, dict[tuple[str, ...], Score]]:
    """An order whose lines name the music that they start from, and that music by its identity; its font's whole path.

    Args:
        beside: folder that relative paths count from.

    Raises:
        MissingError: a file is not there.
        InputError: it cannot be read.
    """
    found: dict[tuple[str, ...], Score] = {}
    lines = []
    for line in order.lines:
        if line.file is not None and line.controls.start is not None:
            score = starting.read(beside / line.file)
            if line.second is not None:
                score = Ends.between(score, starting.read(beside / line.second))
            found[works_of(score)] = score
            start = line.controls.start.model_copy(update={"works": works_of(score)})
            line = line.model_copy(update={"controls": line.controls.model_copy(update={"start": start})})
        lines.append(line)
    sound = order.sound
    if sound.soundfont is not None and "://" not in sound.soundfont:
        sound = sound.model_copy(update={"soundfont": str((beside / Path(sound.soundfont).expanduser()).absolute())})
    return order.model_copy(update={"lines": tuple(lines), "sound": sound}), found


@dataclass
class _Maker:
    """Makes blocks on Ray; what only that needs is not waited for by a run that makes none."""

    plan: Plan
    folder: Folder
    bundle: Path
    timbres: Sequence[Path]
    sources: Sources
    model_facts: Mapping[str, Any]
    root: Folder
    reporter: Reporter
    record: Record

    @cached_property
    def references(self) -> References:
        """What takes are held against."""
        works = self.sources.works
        if works is not None and works.reason:
            self.reporter.line(f"catalogue {self.plan.order.name}: originality is not checked: {works.reason}")
        return references_of(self.sources, self.model_facts, root=self.root)

    def __call__(self, blocks: Sequence[Block]) -> Mapping[str, Any] | None:
        """Make blocks; what that took, or None where there were none."""
        if not blocks:
            return None
        takes = self.plan.order.takes
        there = takes - sum(len(block.slots) for block in blocks)
        if there and not any(block.first_attempt for block in blocks):
            self.reporter.line(f"catalogue {self.plan.order.name}: {there} of {takes} takes are done")
        from tutti.catalogue.on_ray import Tally, make_blocks

        def told(tally: Tally) -> None:
            figures = {"accepted": float(tally.accepted)}
            self.record.update(
                done=there + tally.slots, works=tally.accepted, refusals=tally.failed_checks, figures=figures
            )

        start_embedded_ray()
        pace = make_blocks(
            blocks,
            plan=self.plan,
            folder=self.folder,
            bundle=self.bundle,
            timbres=self.timbres,
            references=self.references,
            reporter=self.reporter,
            told=told,
        )
        return estimates.conditions(self.plan, pace)


def _counts(dataset: Dataset) -> str:
    facts = dataset.facts
    takes = "take" if facts["accepted"] == 1 else "takes"
    why = ", ".join(f"{check} {number}" for check, number in facts["failed_checks"].items())
    rejected = f"{facts['rejected']} rejected" + (f" ({why})" if why else "")
    text = f"{facts['accepted']} {takes}, {format_seconds(facts['music_s'])} of music, {rejected}"
    return f"{text}, {facts['unfilled']} of {facts['ordered']} unfilled" if facts["unfilled"] else text


def _plan_lines(plan: Plan, *, sources: Sources, root: Folder, estimate: Estimate) -> list[str]:
    order, folder = plan.order, publish.place_of(plan, root=root)
    state = "finished" if lineage.find(folder) else "not made yet"
    lines = [
        f"catalogue   {order.name}, {state}",
        f"model       {plan.model} {plan.model_version} ({plan.model_digest})",
        *(f"played by   {timbre} ({timbre.digest[:12]})" for timbre in plan.timbres),
        *([f"soundfont   {plan.font.address} ({plan.font.sha256[:12]})"] if plan.font else []),
        *(f"compared    with {line}" for line in sources.lines()),
        f"takes       {order.takes} in {len(order.lines)} lines, up to {plan.attempts} attempts each",
        f"blocks      {plan.num_blocks} of {order.takes_per_block} takes",
        f"formats     {', '.join(dict.fromkeys(('midi', *order.formats)))}",
        f"storage     about {format_bytes(plan.estimated_bytes)}",
        *estimate.lines(),
        f"address     {folder.uri}",
    ]
    for index, line in enumerate(order.lines):
        asked = line.controls.model_dump(exclude_defaults=True, exclude={"seed"})
        controls = ", ".join(f"{name} {_text(value)}" for name, value in asked.items()) or "the model's choice"
        lines.append(f"line {index + 1:<6} {line.count} x {line.title!r}: {controls}")
        if line.sentence is not None:
            reading = understood(line.sentence)
            given = [name for name, value in reading.controls.items() if getattr(line.controls, name) != value]
            lines += [f"            {text}" for text in reading.lines(given)]
    return lines


def _text(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def page_of(folder: Folder) -> str:
    """Where people open the catalogue in ``folder``."""
    return str(folder.local_path / publish.PAGE) if folder.is_local else f"{folder.uri}/{publish.PAGE}"


@click.command(name="catalogue", cls=Branching)
@click.argument("order", type=click.Path(path_type=Path))
@click.option("--root", default="results", show_default=True, help="Results root: a folder or s3://bucket/prefix.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lie a value over the order's.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; by default the one below --root.")
@click.option("--dry-run", is_flag=True, help="Say what would be made and where, and make nothing.")
def command(order: Path, root: str, overrides: tuple[str, ...], tracking_uri: str | None, dry_run: bool) -> None:
    """Make all pieces of an order, with checks and a page to play them.

    ORDER is a YAML file. A catalogue that is already there is found, not made again; one that was killed half made is
    completed, and comes out the same.

    \b
    Example:
      tutti catalogue jobs/recipes/order-calm-chorales.yaml --set seed=7
      tutti catalogue search "calm, minor, strings, 3 min"
    """
    telemetry.quiet_libraries()
    asked, files = with_files(read_order(order, overrides=overrides), beside=order.parent)
    place = Folder(root)
    registry = Registry.embedded(place, tracking_uri=tracking_uri)
    if dry_run:
        version = registry.resolve(asked.model)
        timbres = [timbre for timbre, _ in known(asked.timbres, registry=registry)]
        sources = sources_of(asked.checks, facts=version.facts, own_name=asked.name, root=place)
        plan = plan_of(
            asked, version=version, timbres=timbres, files=files, compared=sources.addresses, font=font_of(asked)
        )
        bundle = registry.fetch(version)
        check_requests(plan, bundle=bundle)
        found = estimates.estimate(plan, root=place, bundle=bundle)
        click.echo("\n".join(_plan_lines(plan, sources=sources, root=place, estimate=found)))
        return
    dataset = run(asked, root=place, registry=registry, reporter=telemetry.reporter(), files=files)
    click.echo(f"catalogue: {page_of(dataset.folder)}")


for _below in (archiving.command, finding.search, finding.similar, finding.recommend):
    command.add_command(_below)
