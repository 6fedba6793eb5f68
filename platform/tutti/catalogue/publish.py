"""From finished blocks to a catalogue: one table, one CSV, one page, the manifest last."""

from __future__ import annotations

import csv
import io
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tutti import lineage, tables
from tutti.catalogue import page
from tutti.catalogue.archive import ARCHIVE, write_zip
from tutti.catalogue.blocks import FinishedBlock, files_of
from tutti.catalogue.order import FORMATS, HOW
from tutti.catalogue.provenance import data_licences
from tutti.catalogue.review import failed_checks, from_json
from tutti.catalogue.settling import Settlement, settle, settled_blocks
from tutti.catalogue.takes import ACCEPTED, Plan, check_complete
from tutti.errors import IntegrityError
from tutti.lineage import Dataset, FileEntry
from tutti.progress import PROGRESS
from tutti.render.sound import SOUND_VERSION
from tutti.storage import Folder

KIND = "catalogues"
STAGE_VERSION = 1
TABLE, SHEET, PAGE, BLOCKS = "takes.parquet", "catalogue.csv", "index.html", "blocks"
ROWS_OF_GROUP = 512
"""About how many takes a group of the table holds."""
ROWS_AT_ONCE = 32
_NOTE_COLUMNS = ("onset_ticks", "duration_ticks", "pitch", "velocity", "program")
_IDENTITY = ("take_id", "line", "number", "attempt", "verdict")
_SHEET_COLUMNS = (
    "title", "verdict", "key", "mood", "tempo_qpm", "length_s", "notes", "loudness_lufs", "true_peak_dbtp",
    "nearest_title", "nearest_licence", "nearest_work",
    "take_id", "line", "number", "attempt", "seed", "model", "model_version",
)  # fmt: skip


def inputs_of(plan: Plan) -> dict[str, Any]:
    """What a catalogue's address is made of."""
    order = {name: value for name, value in plan.order.document().items() if name not in HOW}
    if plan.font:  # the same bytes at another address are the same font
        order["sound"] = {name: value for name, value in order["sound"].items() if name != "soundfont"}
    return {
        "order": order,
        "model": {"name": plan.model, "version": plan.model_version, "digest": plan.model_digest},
        "stage": STAGE_VERSION,
        **({"timbres": [timbre.to_dict() for timbre in plan.timbres]} if plan.timbres else {}),
        # What is only notes is the same under every version of the sound.
        **({"sound": SOUND_VERSION} if plan.order.wants_audio else {}),
        **({"soundfont": plan.font.sha256} if plan.font else {}),
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
    sizes = lineage.sizes_below(folder)
    with tempfile.TemporaryDirectory(prefix="tutti-catalogue-") as staged:
        settled = settlement or settle(folder, plan=plan, sizes=sizes)
        blocks = settled_blocks(folder, plan=plan, settlement=settled, sizes=sizes)
        gathered = _gather(blocks, plan=plan, table=Path(staged) / TABLE)
        check_complete(gathered.rows, plan=plan)
        files = [
            *_once(gathered.files),
            lineage.write_from(folder, TABLE, Path(staged) / TABLE, rows=len(gathered.rows)),
            # Excel needs a byte-order mark to see that it is UTF-8.
            lineage.write_file(folder, SHEET, gathered.sheet.getvalue().encode("utf-8-sig")),
        ]
        known = {**model_facts, "licences": data_licences(model_facts)}
        shown = page.render(_rows(Path(staged) / TABLE), folder=folder, files=files, plan=plan, model_facts=known)
        files.append(lineage.write_file(folder, PAGE, shown))
        if plan.order.zip:
            write_zip(folder, files, name=plan.order.name, target=Path(staged) / ARCHIVE)
            files.append(lineage.write_from(folder, ARCHIVE, Path(staged) / ARCHIVE))
    _sweep(folder, {entry.path for entry in files})
    facts = _facts(gathered, plan=plan, model_facts=model_facts) | ({"pace": dict(pace)} if pace else {})
    dataset = lineage.publish(folder, kind=KIND, name=plan.order.name, inputs=inputs_of(plan), files=files, facts=facts)
    folder.delete(BLOCKS)
    return dataset


@dataclass
class _Gathered:
    """What is kept of each block, as all of them are read one after the other."""

    files: list[FileEntry] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sheet: io.StringIO = field(default_factory=io.StringIO)
    failed: Counter[str] = field(default_factory=Counter)
    music_s: float = 0.0


def _gather(blocks: Iterable[FinishedBlock], *, plan: Plan, table: Path) -> _Gathered:
    """Take in one block after the other; all rows go to the file ``table``."""
    gathered = _Gathered()
    writer = _sheet(gathered.sheet, formats=plan.order.formats)
    with pq.ParquetWriter(table, tables.TAKES, compression="zstd") as whole:
        for group in _groups(blocks, gathered=gathered):
            whole.write_table(group)
            for row in group.drop_columns(list(_NOTE_COLUMNS)).to_pylist():
                failed = failed_checks(from_json(row["checks"]))
                gathered.failed.update(failed)
                gathered.music_s += row["length_s"] if row["verdict"] == ACCEPTED else 0.0
                gathered.rows.append({name: row[name] for name in _IDENTITY})
                measured = {name: _cell(row[name]) for name in _SHEET_COLUMNS}
                named = files_of(row, formats=plan.order.formats)
                writer.writerow({**measured, "failed_checks": " ".join(failed), **named})
    return gathered


def _groups(blocks: Iterable[FinishedBlock], *, gathered: _Gathered) -> Iterator[pa.Table]:
    """Rows of all blocks, in groups that a reader can stream and that do not cost a search more than their columns."""
    waiting: list[pa.Table] = []
    for block in blocks:
        gathered.files += block.files
        waiting.append(block.rows)
        if sum(map(len, waiting)) >= ROWS_OF_GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    """All rows in order, few of them in memory at a time."""
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            yield from batch.to_pylist()


def _once(files: Sequence[FileEntry]) -> list[FileEntry]:
    doubled = [path for path, count in Counter(entry.path for entry in files).items() if count > 1]
    if doubled:
        raise IntegrityError(f"two takes share the file {doubled[0]}")
    return list(files)


def _sheet(text: io.StringIO, *, formats: Sequence[str]) -> csv.DictWriter[str]:
    """A writer of the catalogue for spreadsheets, its heading written."""
    kinds = [kind for kind in FORMATS if kind == "midi" or kind in formats]
    writer = csv.DictWriter(text, (*_SHEET_COLUMNS, "failed_checks", *kinds), restval="")
    writer.writeheader()
    return writer


def _cell(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


def _sweep(folder: Folder, listed: set[str]) -> None:
    """Remove what an earlier, killed run left and this one does not name."""
    for path in folder.paths():
        if path not in listed and path != PROGRESS and not path.startswith(f"{BLOCKS}/"):
            folder.delete(path)


def _facts(gathered: _Gathered, *, plan: Plan, model_facts: Mapping[str, Any]) -> dict[str, Any]:
    accepted = sum(row["verdict"] == ACCEPTED for row in gathered.rows)
    return {
        "ordered": plan.order.takes,
        "accepted": accepted,
        "rejected": len(gathered.rows) - accepted,
        "unfilled": plan.order.takes - accepted,
        "music_s": round(gathered.music_s, 3),
        "failed_checks": dict(sorted(gathered.failed.items())),
        "licences": data_licences(model_facts),
        **({"timbres": [timbre.to_dict() for timbre in plan.timbres]} if plan.timbres else {}),
    }
