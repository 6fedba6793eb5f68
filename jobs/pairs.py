"""Works to paired audio: every work rendered and cut into clips that know where in it they stand.

``tutti ingest --render`` calls this after its works are published. A Ray task renders a few works, writes their clips
and, last, a receipt; a run that goes on after a kill takes a receipt's word where its clips are there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from cluster.embedded import start_embedded_ray
from jobs.receipts import RECEIPTS
from jobs.receipts import found as found_receipt
from tutti import lineage
from tutti.config import Settings
from tutti.corpus.clips import Cutting
from tutti.corpus.splits import SPLITS
from tutti.errors import DataError, UserError
from tutti.lineage import Dataset, FileEntry
from tutti.progress import recorded
from tutti.render.pairs import clips_of_work
from tutti.render.soundfont import default_path
from tutti.storage import Folder
from tutti.tables import CLIPS, REFUSALS, VERSIONS, WORKS, from_parquet, to_parquet, to_table
from tutti.telemetry import Reporter
from tutti.units import format_seconds

KIND = "clips"
STAGE = "render"
# Moves whenever the same works would give other sound.
RENDER_VERSION = 1
# A minute of stereo is some 5 MiB of FLAC: what a task holds, and what one Parquet file has.
WORKS_PER_TASK = 16
TASKS_WAITING_PER_CORE = 2


class PairSettings(Settings):
    """How works are rendered for training."""

    cutting: Cutting = Field(default=Cutting(), description="how the sound is cut into clips")
    mastered: bool = Field(
        default=False, description="brought to the loudness of a finished piece; else as it is synthesised"
    )


def run(works: Dataset, *, settings: PairSettings, root: Folder, reporter: Reporter) -> Dataset:
    """Render every work into the clips table; found, where it was done before.

    Args:
        works: a ``works`` dataset.
        settings: how.
        root: results root.
        reporter: told how far it is.

    Raises:
        UserError: no work gives a clip, or the folder cannot be written.
    """
    inputs = {
        "works": works.address,
        "settings": settings.model_dump(mode="json"),
        "soundfont": hashlib.sha256(default_path().read_bytes()).hexdigest(),
        "version": [RENDER_VERSION, VERSIONS["clips"]],
    }
    folder = lineage.place(root, kind=KIND, name=works.name, inputs=inputs)
    found = lineage.find(folder)
    if found is not None:
        reporter.line(f"clips {works.name}: found finished · {counts(found)}")
        return found
    stretches = _stretches(works)
    receipts: dict[int, dict[str, Any]] = {}
    with recorded(folder, verb="render", files=works.facts["works"]) as record:
        with reporter.task("render", total=works.facts["works"], unit="works") as task:
            done, refused = 0, Counter[str]()
            for number, receipt in _stream(works, stretches, settings=settings, folder=folder):
                receipts[number] = receipt
                done += receipt["works"]
                refused.update(row["reason"] for row in receipt["refusals"])
                task.update(done)
                record.update(done=done, works=done - refused.total(), refusals=refused)
        dataset = _published([receipts[at] for at in range(len(stretches))], works=works, inputs=inputs, folder=folder)
    reporter.line(f"clips {works.name}: {counts(dataset)}")
    return dataset


def counts(clips: Dataset) -> str:
    """What a dataset of rendered clips holds, in one short text."""
    facts = clips.facts
    text = f"{facts['clips']:,} clips · {format_seconds(facts['length_s'])} of sound · {facts['works']:,} works"
    refused = ", ".join(f"{count:,} {reason}" for reason, count in facts["refusals"].items())
    return f"{text} · refused: {refused}" if refused else text


def _stretches(works: Dataset) -> list[tuple[str, int]]:
    """Path and first row of what each task renders, in order."""
    return [
        (entry.path, start)
        for entry in works.files
        if entry.path.startswith("works-")
        for start in range(0, entry.rows or 0, WORKS_PER_TASK)
    ]


def _stream(
    works: Dataset, stretches: Sequence[tuple[str, int]], *, settings: PairSettings, folder: Folder
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each stretch with its receipt, in the order in which they are done; a few a core wait at once."""
    import ray  # a second run, which renders nothing, must not wait for it

    start_embedded_ray()
    task, shared = ray.remote(_render), ray.put(works)
    left, waiting = iter(enumerate(stretches)), dict[Any, int]()
    while True:
        most = TASKS_WAITING_PER_CORE * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        while len(waiting) < most and (entry := next(left, None)) is not None:
            number, (path, start) = entry
            waiting[task.remote(shared, path, start, number=number, settings=settings, folder=folder)] = number
        if not waiting:
            return
        (done, *_), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


def _render(
    works: Dataset, path: str, start: int, *, number: int, settings: PairSettings, folder: Folder
) -> dict[str, Any]:
    """Clips of a stretch of works, written; the receipt."""
    receipt_path = f"{RECEIPTS}/{number:05d}.json"
    (source,) = (entry for entry in works.files if entry.path == path)
    found = found_receipt(folder, receipt_path, source=source)
    if found is not None:
        return found
    rows = from_parquet(works.read(path), WORKS).slice(start, WORKS_PER_TASK).to_pylist()
    tables, refusals = [CLIPS.empty_table()], []
    for row in rows:
        try:
            tables.append(clips_of_work(row, cutting=settings.cutting, mastered=settings.mastered))
        except DataError as error:
            told = {"reason": error.reason, "detail": error.detail}
            refusals.append({"source_uri": row["source_uri"], "stage": STAGE, **told})
    clips = pa.concat_tables(tables).combine_chunks()
    file = None
    if clips.num_rows:
        file = lineage.write_file(folder, f"clips-{number:05d}.parquet", to_parquet(clips), rows=clips.num_rows)
    receipt = {
        "source_sha256": source.sha256,
        "file": asdict(file) if file else None,
        "works": len(rows),
        "length_s": pc.sum(clips["length_s"]).as_py() or 0.0,
        "licences": Counter(clips["licence"].to_pylist()),
        "splits": Counter(clips["split"].to_pylist()),
        "refusals": refusals,
    }
    folder.write(receipt_path, json.dumps(receipt).encode())
    return receipt


def _published(
    receipts: Sequence[dict[str, Any]], *, works: Dataset, inputs: dict[str, Any], folder: Folder
) -> Dataset:
    files = [FileEntry(**receipt["file"]) for receipt in receipts if receipt["file"]]
    refusals = [row for receipt in receipts for row in receipt["refusals"]]
    by_reason = Counter(row["reason"] for row in refusals)
    if not files:
        raise UserError(f"no work of {works.name} gives a clip: {dict(by_reason)}", remedy="render other works")
    table = to_table(refusals, REFUSALS)
    splits = sum((Counter(receipt["splits"]) for receipt in receipts), Counter[str]())
    dataset = lineage.publish(
        folder,
        kind=KIND,
        name=works.name,
        inputs=inputs,
        files=[*files, lineage.write_file(folder, "refusals.parquet", to_parquet(table), rows=table.num_rows)],
        facts={
            "clips": sum(entry.rows or 0 for entry in files),
            "length_s": round(sum(receipt["length_s"] for receipt in receipts), 1),
            "works": works.facts["works"] - len(refusals),
            "refusals": dict(sorted(by_reason.items())),
            "licences": dict(sum((Counter(receipt["licences"]) for receipt in receipts), Counter[str]())),
            "splits": {split: splits.get(split, 0) for split in SPLITS},
            "works_address": works.address,
        },
    )
    folder.delete(RECEIPTS)
    return dataset
