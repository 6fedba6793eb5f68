"""From finished blocks to a catalogue: one table, one CSV, one page, the manifest last."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutti import lineage, tables
from tutti.catalogue import page
from tutti.catalogue.blocks import FinishedBlock, files_of
from tutti.catalogue.order import FORMATS, HOW
from tutti.catalogue.provenance import data_licences
from tutti.catalogue.review import FAILED, failed_checks, from_json
from tutti.catalogue.settling import Settlement, settle, settled_blocks
from tutti.catalogue.takes import ACCEPTED, Plan, check_complete
from tutti.errors import IntegrityError
from tutti.lineage import Dataset, FileEntry
from tutti.progress import PROGRESS
from tutti.storage import Folder

KIND = "catalogues"
STAGE_VERSION = 1
TABLE, SHEET, PAGE, BLOCKS = "takes.parquet", "catalogue.csv", "index.html", "blocks"
ROWS_OF_GROUP = 512
"""About how many takes a group of the table holds."""
_NOTE_COLUMNS = ("onset_ticks", "duration_ticks", "pitch", "velocity", "program")
_SHEET_COLUMNS = (
    "title", "verdict", "key", "mood", "tempo_qpm", "length_s", "notes", "loudness_lufs", "true_peak_dbtp",
    "nearest_title", "nearest_licence", "nearest_work",
    "take_id", "line", "number", "attempt", "seed", "model", "model_version",
)  # fmt: skip


def inputs_of(plan: Plan) -> dict[str, Any]:
    """What a catalogue's address is made of."""
    order = {name: value for name, value in plan.order.document().items() if name not in HOW}
    return {
        "order": order,
        "model": {"name": plan.model, "version": plan.model_version, "digest": plan.model_digest},
        "stage": STAGE_VERSION,
        **({"timbres": [timbre.to_dict() for timbre in plan.timbres]} if plan.timbres else {}),
        **({"compared": dict(plan.compared)} if plan.compared else {}),
    }


def place_of(plan: Plan, *, root: Folder) -> Folder:
    """Where the plan's catalogue lives, finished or not."""
    return lineage.place(root, kind=KIND, name=plan.order.name, inputs=inputs_of(plan))


def publish(
    folder: Folder,
    *,
    plan: Plan,
    model_facts: Mapping[str, Any],
    settlement: Settlement | None = None,
    pace: Mapping[str, Any] | None = None,
) -> Dataset:
    """Make the catalogue of blocks that are all done.

    Args:
        folder: :func:`place_of` the plan.
        plan: what was to be made.
        model_facts: what the model's version tells of its making; its ``licences`` are shown.
        settlement: which takes are duplicates of others; None looks for them here.
        pace: what the run that ends here took, for the plans of later orders.

    Raises:
        IntegrityError: a take is lost or doubled, or a file differs from what was written.
        PlaceError: the folder cannot be written.
    """
    blocks = settled_blocks(folder, plan=plan, settlement=settlement or settle(folder, plan=plan))
    rows = [row for block in blocks for row in block.rows.drop_columns(list(_NOTE_COLUMNS)).to_pylist()]
    check_complete(rows, plan=plan)
    files = _once([entry for block in blocks for entry in block.files])
    files += [
        lineage.write_file(folder, TABLE, _one_table(blocks), rows=len(rows)),
        lineage.write_file(folder, SHEET, _sheet(rows, formats=plan.order.formats)),
    ]
    all_rows = (row for block in blocks for row in block.rows.to_pylist())
    known = {**model_facts, "licences": data_licences(model_facts)}
    shown = page.render(all_rows, folder=folder, files=files, plan=plan, model_facts=known)
    files.append(lineage.write_file(folder, PAGE, shown))
    _sweep(folder, {entry.path for entry in files})
    dataset = lineage.publish(
        folder,
        kind=KIND,
        name=plan.order.name,
        inputs=inputs_of(plan),
        files=files,
        facts=_facts(rows, plan=plan, model_facts=model_facts) | ({"pace": dict(pace)} if pace else {}),
    )
    folder.delete(BLOCKS)
    return dataset


def _once(files: Sequence[FileEntry]) -> list[FileEntry]:
    doubled = [path for path, count in Counter(entry.path for entry in files).items() if count > 1]
    if doubled:
        raise IntegrityError(f"two takes share the file {doubled[0]}")
    return list(files)


def _one_table(blocks: Sequence[FinishedBlock]) -> bytes:
    """All rows in order, in groups that a reader can stream and that do not cost a search more than their columns."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tables.TAKES, compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for block in blocks:
            waiting.append(block.rows)
            if sum(map(len, waiting)) >= ROWS_OF_GROUP:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    return sink.getvalue()


def _sheet(rows: Sequence[Mapping[str, Any]], *, formats: Sequence[str]) -> bytes:
    """The catalogue for spreadsheets: UTF-8 with a byte-order mark, which Excel needs to see that it is."""
    kinds = [kind for kind in FORMATS if kind == "midi" or kind in formats]
    text = io.StringIO()
    writer = csv.DictWriter(text, (*_SHEET_COLUMNS, "failed_checks", *kinds), restval="")
    writer.writeheader()
    for row in rows:
        failed = [finding.check for finding in from_json(row["checks"]) if finding.verdict == FAILED]
        measured = {name: _cell(row[name]) for name in _SHEET_COLUMNS}
        writer.writerow({**measured, "failed_checks": " ".join(failed), **files_of(row, formats=formats)})
    return text.getvalue().encode("utf-8-sig")


def _cell(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def _sweep(folder: Folder, listed: set[str]) -> None:
    """Remove what an earlier, killed run left and this one does not name."""
    for path in folder.paths():
        if path not in listed and path != PROGRESS and not path.startswith(f"{BLOCKS}/"):
            folder.delete(path)


def _facts(rows: Sequence[Mapping[str, Any]], *, plan: Plan, model_facts: Mapping[str, Any]) -> dict[str, Any]:
    accepted = [row for row in rows if row["verdict"] == ACCEPTED]
    failed = failed_checks(finding for row in rows for finding in from_json(row["checks"]))
    return {
        "ordered": plan.order.takes,
        "accepted": len(accepted),
        "rejected": len(rows) - len(accepted),
        "unfilled": plan.order.takes - len(accepted),
        "music_s": round(sum(row["length_s"] for row in accepted), 3),
        "failed_checks": failed,
        "licences": data_licences(model_facts),
        **({"timbres": [timbre.to_dict() for timbre in plan.timbres]} if plan.timbres else {}),
    }
