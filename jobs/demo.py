"""``tutti demo``: the whole river on the embedded corpus, in minutes, each stage by the verb that users call."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import click
import httpx
from rich.console import Console
from rich.table import Table

from cluster import processes
from jobs import catalogue, train
from jobs import recipe as recipes
from jobs.dry_run import explain
from jobs.train import Trained
from tutti import lineage, telemetry
from tutti.catalogue.order import Order
from tutti.config import digest_of, parse
from tutti.errors import PlaceError
from tutti.lineage import Dataset
from tutti.registry.versions import PRODUCTION, ModelVersion, Registry
from tutti.storage import Folder
from tutti.telemetry import Reporter
from tutti.units import format_seconds

SERVED_REQUEST = {"length": "20s", "key": "D minor", "tempo": 80, "seed": 1}
SERVE_STARTS_WITHIN_S = 120.0
ANSWER_WITHIN_S = 120.0


@click.command(name="demo")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Lies over the recipe; repeatable.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
def command(root: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Read chorales, train a model on them, register it, make a catalogue with it, serve it.

    What is finished is found: a second run takes seconds, and one that was killed goes on.

    \b
    Example:
        tutti demo
        tutti demo --set training.steps=1000 --root longer
    """
    telemetry.quiet_libraries()
    recipe = recipes.read("demo", overrides=overrides)
    place = Folder(root)
    if dry_run:
        explain(recipe, root=place)
        return
    reporter, started_s = telemetry.reporter(), time.monotonic()
    place.check_writable()
    registry = Registry.embedded(place)
    trained = train.run(recipe, root=place, registry=registry, reporter=reporter)
    if PRODUCTION not in trained.version.aliases:
        registry.promote(trained.version.name, trained.version.version)
        reporter.line(f"registry: {trained.version} is {PRODUCTION}")
    takes = catalogue.run(_order(), root=place, registry=registry, reporter=reporter)
    served = _served(trained.version, root=place, reporter=reporter)
    click.echo()
    Console().print(_table(trained, takes=takes))
    click.echo(f"listen: {catalogue.page_of(takes.folder)}")
    click.echo(f"served: {served.folder.uri}/answer.flac")
    click.echo(f"serve:  tutti serve --root {root}")
    click.echo(f"done in {format_seconds(time.monotonic() - started_s)}: {place.local_path}")


def _order() -> Order:
    text = (resources.files("jobs") / "recipes" / "order-demo.yaml").read_text(encoding="utf-8")
    return parse(Order, text, origin="order-demo.yaml")


def _served(version: ModelVersion, *, root: Folder, reporter: Reporter) -> Dataset:
    """One answer of the real service over HTTP, kept; found, where this model has given it before."""
    inputs = {"model": version.digest, "request": SERVED_REQUEST}
    folder = lineage.place(root, kind="served", name=version.name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"serve {version}: found an answer of {len(found.files)} file")
        return found
    import ray

    # The service brings its own Ray; two at once would share two cores.
    ray.shutdown()
    started_s = time.monotonic()
    with _service(version, root=root) as address:
        ready_s = time.monotonic() - started_s
        answer = httpx.post(
            f"{address}/v1/generate",
            json=SERVED_REQUEST,
            headers={"Accept": "audio/flac"},
            timeout=ANSWER_WITHIN_S,
        )
        answer.raise_for_status()
        answer_s = time.monotonic() - started_s - ready_s
    file = lineage.write_file(folder, "answer.flac", answer.content)
    facts = {"request": digest_of(SERVED_REQUEST), "ready_s": round(ready_s, 1), "answer_s": round(answer_s, 2)}
    dataset = lineage.publish(folder, kind="served", name=version.name, inputs=inputs, files=[file], facts=facts)
    reporter.line(
        f"serve {version}: ready in {format_seconds(ready_s)} · 20 s of music over HTTP in {format_seconds(answer_s)}"
    )
    return dataset


@contextmanager
def _service(version: ModelVersion, *, root: Folder) -> Iterator[str]:
    """``tutti serve`` as a user would run it, on a free port; its address once it is ready."""
    port = processes.free_port()
    arguments = ["serve", "--model", str(version), "--port", str(port), "--root", root.uri]
    with tempfile.TemporaryDirectory(prefix="tutti-serve-") as folder:
        log = Path(folder) / "serve.log"
        process = processes.start([sys.executable, "-m", "jobs.cli", *arguments], log=log, environment=os.environ)
        try:
            address = f"http://127.0.0.1:{port}"
            if not _is_ready(address, process=process):
                last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
                raise PlaceError(f"the service did not start ({last[0]})", remedy=f"try: tutti {' '.join(arguments)}")
            yield address
        finally:
            processes.stop(process, grace_s=30)


def _is_ready(address: str, *, process: processes.Detached) -> bool:
    """Wait until the application itself says so: the proxy before it answers earlier, for nobody."""
    deadline_s = time.monotonic() + SERVE_STARTS_WITHIN_S
    while time.monotonic() < deadline_s and processes.is_running(process):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/readyz").status_code == httpx.codes.OK:
                return True
        time.sleep(0.2)
    return False


def _table(trained: Trained, *, takes: Dataset) -> Table:
    measures = trained.run.facts["measures"]
    table = Table(show_header=False, box=None, pad_edge=False)
    assert trained.works is not None
    splits = " / ".join(f"{trained.works.facts['splits'].get(name, 0)}" for name in ("train", "valid", "test"))
    assert trained.tokens is not None
    rows = (
        ("works", f"{trained.works.facts['works']:,} (train / valid / test: {splits})"),
        ("notes", f"{trained.works.facts['notes']:,}"),
        ("tokens", f"{trained.tokens.facts['tokens']:,} ({trained.tokens.facts['tokens_per_note']:.2f} a note)"),
        ("NLL before", f"{measures['before_valid_nll_nats_per_token']:.3f} nats per token, valid split"),
        (
            "NLL after",
            f"{measures['valid_nll_nats_per_token']:.3f} (test {measures['test_nll_nats_per_token']:.3f}; "
            f"{measures['valid_bits_per_note']:.2f} bits per note)",
        ),
        (
            "unigram / bigram",
            f"{measures['unigram_nll_nats_per_token']:.3f} / {measures['bigram_nll_nats_per_token']:.3f}",
        ),
        ("model", f"{trained.version} ({trained.version.digest[:12]})"),
        ("takes", f"{takes.facts['accepted']} accepted, {takes.facts['rejected']} rejected"),
    )
    for name, figure in rows:
        table.add_row(name, figure)
    return table
