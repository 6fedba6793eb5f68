"""What listeners did, kept: files of the table ``feedback`` below a results root, each as it came, and all read as one.

A file is kept under the name of the catalogue that was heard, at the hash of its bytes, so giving it twice doubles
nothing. A listener is a pseudonym: who stands behind it is known to whoever gave it out, and not written here.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv

from tutti import lineage
from tutti.errors import InputError, IntegrityError
from tutti.lineage import MANIFEST, Dataset
from tutti.storage import Folder
from tutti.tables import FEEDBACK, FEEDBACK_EVENTS, from_parquet, to_parquet

KIND, TABLE = "feedback", "feedback.parquet"
FEEDBACK_VERSION = 1
MAX_PSEUDONYM = 64
RATINGS: Mapping[str, float] = {"kept": 1.0, "liked": 1.0, "rejected": -1.0, "skipped": -0.5}
"""What counts as a rating, without being one."""


def read_file(path: Path) -> tuple[pa.Table, bytes]:
    """The table ``feedback`` in a Parquet or CSV file, and the file's bytes.

    Raises:
        InputError: it cannot be read, or is no such table.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the feedback {path} ({error.strerror})", remedy="name a file") from None
    try:
        if path.suffix == ".csv":
            kinds: dict[str, Any] = {field.name: field.type for field in FEEDBACK}
            nulls = csv.ConvertOptions(column_types=kinds, include_columns=FEEDBACK.names, strings_can_be_null=True)
            return csv.read_csv(io.BytesIO(data), convert_options=nulls).cast(FEEDBACK), data
        return from_parquet(data, FEEDBACK), data
    except (pa.ArrowException, KeyError, ValueError, IntegrityError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no table of feedback ({reason})", remedy=f"give Parquet or CSV of {', '.join(FEEDBACK.names)}"
        ) from None


def value_of(event: Mapping[str, Any]) -> float | None:
    """How much an event says that its take was liked, -1 to 1; None: how long it was heard says nothing.

    Raises:
        InputError: an event that is none, or one that lacks what it needs.
    """
    kind, value = event["event"], event["value"]
    if kind not in FEEDBACK_EVENTS:
        raise InputError(f"feedback event {kind!r} is none of {', '.join(FEEDBACK_EVENTS)}")
    if kind == "preferred" and event["other_take_id"] is None:
        raise InputError(f"take {event['take_id']} was preferred to none: other_take_id is empty")
    if kind == "rated" and (value is None or not -1 <= value <= 1):
        raise InputError(f"take {event['take_id']} was rated {value}: a rating lies between -1 and 1")
    if kind == "played":
        if value is None or not 0 <= value <= 1:
            raise InputError(f"take {event['take_id']} was played {value}: a share of its length lies between 0 and 1")
        return None
    return float(value) if kind == "rated" else RATINGS.get(kind, 0.0)


def check(events: Iterable[Mapping[str, Any]]) -> None:
    """Hold events against what the table asks.

    Raises:
        InputError: the first one that is wrong.
    """
    for event in events:
        value_of(event)
        listener = event["listener"]
        if not 0 < len(listener) <= MAX_PSEUDONYM or "@" in listener or not listener.isprintable():
            raise InputError(
                f"listener {listener!r} is no pseudonym", remedy=f"give 1 to {MAX_PSEUDONYM} letters and no address"
            )


def keep(table: pa.Table, data: bytes, *, name: str, catalogue: str, root: Folder) -> Dataset:
    """Keep events; found, where they were kept before.

    Args:
        table: as :func:`read_file` gives it.
        data: bytes of the file.
        name: of the catalogue that was heard.
        catalogue: its address.

    Raises:
        InputError: an event that is none; nothing is kept then.
        PlaceError: the root cannot be written.
    """
    check(table.to_pylist())
    inputs = {
        "catalogue": catalogue,
        "events": hashlib.sha256(data).hexdigest(),
        "version": FEEDBACK_VERSION,
    }
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    held = lineage.find(folder)
    if held is not None:
        return held
    file = lineage.write_file(folder, TABLE, to_parquet(table), rows=table.num_rows)
    facts = {"events": table.num_rows, "listeners": len(set(table.column("listener").to_pylist()))}
    return lineage.publish(folder, kind=KIND, name=name, inputs=inputs, files=[file], facts=facts)


def events_below(root: Folder) -> pa.Table:
    """Every event that was kept below a results root, each once, in the order of time.

    Raises:
        IntegrityError: a table differs from its manifest.
    """
    tables = [FEEDBACK.empty_table()]
    for name in root.children(KIND):
        for address in root.children(f"{KIND}/{name}"):
            folder = root / KIND / name / address
            if folder.exists(MANIFEST):
                tables.append(from_parquet(lineage.load(folder).read(TABLE), FEEDBACK))
    table = pa.concat_tables(tables)
    # Two exports of one browser share what came before the first.
    table = table.group_by(FEEDBACK.names, use_threads=False).aggregate([]).select(FEEDBACK.names)
    return table.sort_by([("unix_s", "ascending"), ("listener", "ascending"), ("take_id", "ascending")])
