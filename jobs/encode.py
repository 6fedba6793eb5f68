"""``tutti encode``: works to tokens, a Ray task for each shard."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click
import pyarrow as pa
import pyarrow.compute as pc

from cluster.embedded import start_embedded_ray
from tutti import lineage, telemetry
from tutti.corpus import rights
from tutti.errors import RecipeError, UserError
from tutti.features.encoding import ENCODE_VERSION, encode_works
from tutti.features.vocabulary import EVENTS, MAX_COLLECTIONS
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import WORKS, from_parquet, to_parquet
from tutti.telemetry import Reporter


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
    collections = _collections(works)
    import ray  # a second run, which encodes nothing, must not wait for it

    start_embedded_ray()
    encode_shard = ray.remote(_encode_shard)
    waiting = [
        encode_shard.remote(works, path, licences=licences, collections=collections, folder=folder)
        for path in works.paths(".parquet")
        if path.startswith("works-")
    ]
    encoded: list[dict[str, Any]] = []
    with reporter.task("encode", total=len(waiting), unit="shards") as task:
        while waiting:
            done, waiting = ray.wait(waiting)
            encoded += ray.get(done)
            task.update(len(encoded))
    facts = _facts(encoded, works=works, collections=collections)
    if not facts["works"]:
        raise UserError(
            f"no work of {works.name} has a licence of {', '.join(licences)}",
            remedy=f"name one of {', '.join(sorted(works.facts['licences']))}",
        )
    files = [shard["file"] for shard in encoded]
    dataset = lineage.publish(folder, kind="tokens", name=works.name, inputs=inputs, files=files, facts=facts)
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


def _encode_shard(
    works: Dataset, path: str, *, licences: tuple[str, ...], collections: tuple[str, ...], folder: Folder
) -> dict[str, Any]:
    table = from_parquet(works.read(path), WORKS)
    table = table.filter(
        pa.array([rights.allowed(name, named=licences) for name in table.column("licence").to_pylist()])
    )
    tokens = encode_works(table, collections=collections)
    lengths = pc.list_value_length(tokens.column("tokens"))
    name = path.replace("works-", "tokens-")
    return {
        "file": lineage.write_file(folder, name, to_parquet(tokens), rows=tokens.num_rows),
        "works": tokens.num_rows,
        "notes": pc.sum(tokens.column("notes")).as_py() or 0,
        "tokens": pc.sum(lengths).as_py() or 0,
        "splits": Counter(tokens.column("split").to_pylist()),
        "licences": Counter(table.column("licence").to_pylist()),
        "programs": Counter(pc.list_flatten(table.column("program")).to_pylist()),
    }


def _facts(encoded: list[dict[str, Any]], *, works: Dataset, collections: tuple[str, ...]) -> dict[str, Any]:
    def total(name: str) -> Any:
        return sum((shard[name] for shard in encoded), start=type(encoded[0][name])()) if encoded else 0

    notes, tokens = total("notes"), total("tokens")
    return {
        "works": total("works"),
        "notes": notes,
        "tokens": tokens,
        "tokens_per_note": round(tokens / notes, 3) if notes else None,
        "splits": dict(total("splits")),
        "licences": dict(total("licences")),
        "programs": sorted(total("programs")),
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
        allowed = sum(number for name, number in works.facts["licences"].items() if name in licences)
        click.echo(f"would encode {allowed} of {works.facts['works']} works below {root}/tokens/{works.name}/")
        return
    dataset = run(works, licences=licences, root=Folder(root), reporter=telemetry.reporter())
    click.echo(f"tokens: {dataset.folder.uri}")
