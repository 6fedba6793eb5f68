"""Parcels to parts and parts to shards, each as a stream of Ray tasks; nothing but indices comes back to the caller.

The first stage needs the columns ``index`` and ``parcels`` and gives ``index`` and ``outcomes``; the second needs
``index`` and ``shard`` and gives ``index`` and ``file``.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data

from tutti.corpus.drafting import Analysis, Parsing
from tutti.corpus.ingest import ShardPlan, write_shard
from tutti.corpus.item import Item
from tutti.corpus.parts import Outcome, read_parcel
from tutti.errors import IntegrityError
from tutti.lineage import FileEntry
from tutti.storage import Folder
from tutti.telemetry import Reporter

# Ray Data takes a fifth of a second to give a worker its next task: tasks are long enough for that not to matter, a
# second or so, and many enough for all cores to end together.
MAX_PARCELS_PER_TASK = 16
TASKS_PER_CORE = 8

Parcel = tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Sofar:
    """How far a run is.

    Args:
        files, works: done and taken so far.
        refused: refusals by reason.
        bad: files of which nothing was taken, by reason.
        example: file and detail of one refusal; empty without any.
    """

    files: int
    works: int
    refused: Counter[str]
    bad: Counter[str]
    example: str


def read_parcels(
    parcels: Sequence[Parcel],
    *,
    parsing: Parsing,
    analysis: Analysis,
    folder: Folder,
    reporter: Reporter,
    check: Callable[[Sofar], None],
) -> list[Outcome]:
    """Read every parcel on the Ray cluster that this process is connected to.

    Args:
        parcels: what to read; paths must be visible to every node.
        parsing: settings.
        analysis: what is computed of pieces and sound; functions that workers can import.
        folder: of the parts.
        reporter: told of files as they are done.
        check: told how far the run is; may raise to stop it.

    Returns:
        One outcome for each parcel, in the parcels' order.

    Raises:
        IntegrityError: a parcel was lost or doubled on its way.
    """
    tasks = TASKS_PER_CORE * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    per_task = max(1, min(MAX_PARCELS_PER_TASK, len(parcels) // tasks))
    rows = [
        {"index": start, "parcels": pickle.dumps(list(parcels[start : start + per_task]))}
        for start in range(0, len(parcels), per_task)
    ]
    total = sum(len(parcel) for parcel in parcels)
    outcomes: dict[int, Outcome] = {}
    files = works = clips = 0
    refused, bad, example = Counter[str](), Counter[str](), ""
    with reporter.task("ingest", total=total, unit="files") as task:
        stage = _stream(rows, _read, parsing=parsing, analysis=analysis, folder=folder)
        for row in stage:
            for at, packed in enumerate(pickle.loads(row["outcomes"]), start=row["index"]):
                outcome = Outcome.unpacked(packed)
                _put(outcomes, at, outcome, what="parcel")
                files, works = files + len(parcels[at]), works + outcome.works.num_rows
                clips += outcome.clips.num_rows
                refused.update(refusal["reason"] for refusal in outcome.refusals)
                bad += outcome.bad
                example = example or next(map("{source_uri}: {detail}".format_map, outcome.refusals), "")
            found = [f"{works} works" if works else "", f"{clips} clips" if clips else ""]
            task.update(
                files, note=", ".join([*filter(None, found), *([f"{refused.total()} refused"] if refused else [])])
            )
            check(Sofar(files, works, refused, bad, example))
    return _in_order(outcomes, count=len(parcels), what="parcel")


def write_shards(shards: Sequence[ShardPlan], *, parts: Folder, folder: Folder, reporter: Reporter) -> list[FileEntry]:
    """Write every shard on the Ray cluster that this process is connected to.

    Args:
        shards: what each is made of.
        parts: folder of the parts.
        folder: of the dataset.
        reporter: told of shards as they are done.

    Returns:
        One file for each shard, in order.

    Raises:
        IntegrityError: a shard was lost or doubled on its way.
    """
    rows = [{"index": index, "shard": pickle.dumps(shard)} for index, shard in enumerate(shards)]
    files: dict[int, FileEntry] = {}
    with reporter.task("write", total=len(shards), unit="shards") as task:
        for row in _stream(rows, _write, parts=parts, folder=folder):
            _put(files, row["index"], FileEntry(**json.loads(row["file"])), what="shard")
            task.update(len(files))
    return _in_order(files, count=len(shards), what="shard")


def _stream(rows: list[dict[str, Any]], stage: Callable[..., pa.Table], **settings: Any) -> Iterator[dict[str, Any]]:
    """Rows through a stage, a task for each, in the order in which they are done."""
    if not rows:
        return
    with _quiet():
        made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            stage, fn_kwargs=settings, batch_size=1, batch_format="pyarrow"
        )
        yield from made.iter_rows()


def _read(batch: pa.Table, *, parsing: Parsing, analysis: Analysis, folder: Folder) -> pa.Table:
    (packed,) = batch["parcels"].to_pylist()
    outcomes = [
        read_parcel(parcel, parsing=parsing, analysis=analysis, folder=folder).packed()
        for parcel in pickle.loads(packed)
    ]
    return pa.table({"index": batch["index"], "outcomes": pa.array([pickle.dumps(outcomes)], pa.large_binary())})


def _write(batch: pa.Table, *, parts: Folder, folder: Folder) -> pa.Table:
    (packed,) = batch["shard"].to_pylist()
    file = write_shard(pickle.loads(packed), parts=parts, folder=folder)
    return pa.table({"index": batch["index"], "file": pa.array([json.dumps(asdict(file))])})


def _put(held: dict[int, Any], index: int, value: Any, *, what: str) -> None:
    if index in held:
        raise IntegrityError(f"{what} {index} came twice")
    held[index] = value


def _in_order(held: dict[int, Any], *, count: int, what: str) -> list[Any]:
    lost = sorted(set(range(count)) - set(held))
    if lost:
        raise IntegrityError(f"{what} {lost[0]} was lost on its way")
    return [held[index] for index in range(count)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its own bars and lines: the reporter tells how far the run is."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # One logger tells each stage, the other warns that the bars are off, which is what was asked for.
    levels = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
