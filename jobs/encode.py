"""``tutti encode``: works to tokens, a Ray task for each shard, a bounded number of them at once.

A task writes its shard's tokens and, last, a **receipt**: what it wrote, of which bytes. A run that goes on after a
kill takes a receipt's word only where its works are the same bytes and its tokens are there; the receipts go when the
manifest is written.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc

from cluster.embedded import start_embedded_ray
from jobs.receipts import RECEIPTS
from jobs.receipts import found as found_receipt
from tutti import lineage, telemetry
from tutti.corpus import rights
from tutti.corpus.splits import SPLITS
from tutti.errors import RecipeError
from tutti.features.encoding import ENCODE_VERSION, encode_works
from tutti.features.vocabulary import EVENTS, MAX_COLLECTIONS
from tutti.lineage import Dataset, FileEntry
from tutti.storage import Folder
from tutti.tables import WORKS, from_parquet, to_parquet
from tutti.telemetry import Reporter

SHARDS_WAITING_PER_CORE = 2


def run(works: Dataset, *, licences: tuple[str, ...], root: Folder, reporter: Reporter) -> Dataset:
    """Encode the works whose licence was named; found, where it was done before.

    Args:
        works: a ``works`` dataset.
        licences: the licences whose works may train.
        root: results root.

    Raises:
        UserError: no work has such a licence, or there are too many collections.
    """
    inputs = {
        "works": works.address,
        "licences": sorted(licences),
        "vocabulary": EVENTS.hash,
        "version": ENCODE_VERSION,
    }
    folder = lineage.place(root, kind="tokens", name=works.name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"tokens {works.name}: found finished · {counts(found)}")
        return found
    for line in rights.told(works, named=licences):
        reporter.line(f"tokens {works.name}: {line}")
    collections = _collections(works)
    paths = [path for path in works.paths(".parquet") if path.startswith("works-")]
    encoded: dict[str, dict[str, Any]] = {}
    with reporter.task("encode", total=len(paths), unit="shards") as task:
        for path, receipt in _stream(works, paths, licences=licences, collections=collections, folder=folder):
            encoded[path] = receipt
            task.update(len(encoded))
    receipts = [encoded[path] for path in paths]
    dataset = lineage.publish(
        folder,
        kind="tokens",
        name=works.name,
        inputs=inputs,
        files=[FileEntry(**receipt["file"]) for receipt in receipts],
        facts=_facts(receipts, works=works, collections=collections),
    )
    folder.delete(RECEIPTS)
    reporter.line(f"tokens {works.name}: {counts(dataset)}")
    return dataset


def counts(tokens: Dataset) -> str:
    """What a token dataset holds, in one short text."""
    facts = tokens.facts
    return f"{facts['works']:,} works · {facts['notes']:,} notes · {facts['tokens']:,} tokens"


def _collections(works: Dataset) -> tuple[str, ...]:
    names = tuple(sorted(works.facts["collections"]))
    if len(names) > MAX_COLLECTIONS:
        raise RecipeError(
            f"{len(names)} collections are more than the vocabulary's {MAX_COLLECTIONS}",
            remedy="ingest several folders as one source",
        )
    return names


def _stream(
    works: Dataset, paths: list[str], *, licences: tuple[str, ...], collections: tuple[str, ...], folder: Folder
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each shard with its receipt, in the order in which they are done."""
    import ray  # a second run, which encodes nothing, must not wait for it

    start_embedded_ray()
    task, shared = ray.remote(_encode_shard), ray.put(works)
    left, waiting = iter(paths), dict[Any, str]()
    while True:
        # Asked for anew each time: a cluster grows and shrinks. Never more than a few a core, however many shards.
        most = SHARDS_WAITING_PER_CORE * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        while len(waiting) < most and (path := next(left, None)) is not None:
            reference = task.remote(shared, path, licences=licences, collections=collections, folder=folder)
            waiting[reference] = path
        if not waiting:
            return
        (done, *_), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


def _encode_shard(
    works: Dataset, path: str, *, licences: tuple[str, ...], collections: tuple[str, ...], folder: Folder
) -> dict[str, Any]:
    name = path.replace("works-", "tokens-")
    receipt_path = f"{RECEIPTS}/{name}.json"
    (source,) = (entry for entry in works.files if entry.path == path)
    found = found_receipt(folder, receipt_path, source=source)
    if found is not None:
        return found
    table = from_parquet(works.read(path), WORKS)
    table = table.filter(
        pa.array([rights.allowed(licence, named=licences) for licence in table.column("licence").to_pylist()])
    )
    tokens = encode_works(table, collections=collections)
    receipt = {
        "source_sha256": source.sha256,
        "file": asdict(lineage.write_file(folder, name, to_parquet(tokens), rows=tokens.num_rows)),
        "notes": pc.sum(tokens.column("notes")).as_py() or 0,
        "tokens": pc.sum(pc.list_value_length(tokens.column("tokens"))).as_py() or 0,
        "splits": Counter(tokens.column("split").to_pylist()),
        "licences": Counter(table.column("licence").to_pylist()),
        "programs": pc.unique(pc.list_flatten(table.column("program"))).to_pylist(),
    }
    folder.write(receipt_path, json.dumps(receipt).encode())
    return receipt


def _facts(receipts: list[dict[str, Any]], *, works: Dataset, collections: tuple[str, ...]) -> dict[str, Any]:
    def total(name: str) -> dict[str, int]:
        summed = sum((Counter(receipt[name]) for receipt in receipts), start=Counter[str]())
        return dict(sorted(summed.items()))

    notes, tokens = (sum(receipt[name] for receipt in receipts) for name in ("notes", "tokens"))
    return {
        "works": sum(receipt["file"]["rows"] for receipt in receipts),
        "notes": notes,
        "tokens": tokens,
        "tokens_per_note": round(tokens / notes, 3) if notes else None,
        "splits": {split: number for split in SPLITS if (number := total("splits").get(split))},
        "licences": total("licences"),
        "programs": sorted({program for receipt in receipts for program in receipt["programs"]}),
        "collections": list(collections),
        "vocabulary": EVENTS.hash,
        "works_address": works.address,
    }


@click.command(name="encode")
@click.argument("works_address", metavar="WORKS")
@click.option("--licence", "licences", multiple=True, required=True, help="Licence whose works may train; repeatable.")
@click.option("--root", default="results", show_default=True, metavar="FOLDER", help="Results.")
@click.option("--dry-run", is_flag=True, help="Say what would be encoded and where, and write nothing.")
def command(works_address: str, licences: tuple[str, ...], root: str, dry_run: bool) -> None:
    """Turn a works dataset into tokens.

    WORKS is the dataset's folder, as `tutti ingest` printed it.

    \b
    Example:
        tutti encode results/works/bach/0123456789abcdef --licence LicenseRef-music21-corpus
    """
    works = lineage.load(Folder(works_address.rstrip("/")))
    for licence in licences:
        rights.check(licence)
    if dry_run:
        for line in rights.told(works, named=licences):
            click.echo(line)
        click.echo(f"they would be encoded below {root}/tokens/{works.name}/")
        return
    dataset = run(works, licences=licences, root=Folder(root), reporter=telemetry.reporter())
    click.echo(f"tokens: {dataset.folder.uri}")
