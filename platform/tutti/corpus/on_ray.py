"""Items through Ray Data: one row is one file, from its place to its rows.

The stage needs the columns ``index`` and ``item`` and gives ``index``, ``works`` and ``refusals``.
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import ray.data

from tutti.corpus.ingest import Describe, Outcome, Reading, read_item
from tutti.corpus.sources import Item
from tutti.errors import IntegrityError
from tutti.telemetry import Reporter

MAX_FILES_PER_TASK = 16
TASKS_AT_LEAST = 32

_READ = pa.schema([("index", pa.int64()), ("works", pa.large_binary()), ("refusals", pa.large_string())])


def read_items(items: Sequence[Item], *, reading: Reading, describe: Describe, reporter: Reporter) -> list[Outcome]:
    """Read every item on the Ray cluster that this process is connected to.

    Args:
        items: what to read; paths must be visible to every node.
        reading: settings.
        describe: the descriptor columns of a score; a function that workers can import.
        reporter: told of files as they are done.

    Returns:
        One outcome for each item, in the items' order.

    Raises:
        IntegrityError: a file was lost or doubled on its way.
    """
    files_per_task = max(1, min(MAX_FILES_PER_TASK, len(items) // TASKS_AT_LEAST))
    rows = [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)]
    outcomes: dict[int, Outcome] = {}
    works = refused = 0
    with reporter.task("ingest", total=len(items), unit="files") as task, _quiet():
        read = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // files_per_task)).map_batches(
            _read,
            fn_kwargs={"reading": reading, "describe": describe},
            batch_size=files_per_task,
            batch_format="pyarrow",
        )
        for row in read.iter_rows():
            if row["index"] in outcomes:
                raise IntegrityError(f"{items[row['index']].uri} came twice")
            outcome = Outcome(works=_unpacked(row["works"]), refusals=tuple(json.loads(row["refusals"])))
            outcomes[row["index"]] = outcome
            works, refused = works + outcome.works.num_rows, refused + len(outcome.refusals)
            task.update(len(outcomes), note=f"{works} works" + (f", {refused} refused" if refused else ""))
    if len(outcomes) != len(items):
        lost = next(item for index, item in enumerate(items) if index not in outcomes)
        raise IntegrityError(f"{lost.uri} was lost on its way")
    return [outcomes[index] for index in range(len(items))]


def _read(batch: pa.Table, *, reading: Reading, describe: Describe) -> pa.Table:
    outcomes = [read_item(pickle.loads(item), reading=reading, describe=describe) for item in batch["item"].to_pylist()]
    columns = {
        "index": batch["index"],
        "works": [_packed(outcome.works) for outcome in outcomes],
        "refusals": [json.dumps(outcome.refusals) for outcome in outcomes],
    }
    return pa.table(columns, schema=_READ)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _unpacked(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


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
