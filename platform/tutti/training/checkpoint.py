"""Checkpoints that are complete or absent.

Every rank writes its files to a local staging folder and puts them on storage; when all have, rank 0 publishes the
manifest. A folder without a manifest is no checkpoint, whoever died while writing it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutti.lineage import MANIFEST, Dataset, FileEntry, find, publish, write_file
from tutti.storage import Folder

_HISTORY = "history.json"


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was found: its step, its facts, the curves until then."""

    step: int
    dataset: Dataset
    history: dict[str, Any]


def save(
    run: Folder,
    *,
    step: int,
    write: Callable[[Path], None],
    gather: Callable[[list[FileEntry]], list[FileEntry] | None],
    history: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Save the state after ``step`` steps; every rank calls.

    Args:
        write: puts this rank's files into a folder.
        gather: waits for every rank; gives rank 0 the files of all, the others None.
    """
    folder = _folder(run, step)
    with tempfile.TemporaryDirectory(prefix="tutti-checkpoint-") as staging:
        write(Path(staging))
        files = sorted(path for path in Path(staging).rglob("*") if path.is_file())
        entries = [write_file(folder, path.relative_to(staging).as_posix(), path.read_bytes()) for path in files]
    gathered = gather(entries)
    if gathered is None:
        return
    gathered.append(write_file(folder, _HISTORY, json.dumps(history).encode()))
    publish(folder, kind="checkpoints", name=f"step {step}", inputs={}, files=gathered, facts={"step": step, **facts})


def latest(run: Folder) -> Saved | None:
    """The newest complete checkpoint of a run."""
    for step in sorted(steps(run), reverse=True):
        dataset = find(_folder(run, step))
        if dataset is not None:
            return Saved(step=step, dataset=dataset, history=json.loads(dataset.read(_HISTORY)))
    return None


def fetch(saved: Saved, folder: Path) -> None:
    """Copy a checkpoint's files below a local folder, verified."""
    for entry in saved.dataset.files:
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(saved.dataset.read(entry.path))


def prune(run: Folder, *, keep: int) -> None:
    """Remove all but the newest ``keep`` complete checkpoints, and what never became one before them."""
    complete = [step for step in sorted(steps(run)) if _folder(run, step).exists(MANIFEST)]
    for step in sorted(steps(run)):
        if complete and step < complete[-keep:][0]:
            # The manifest goes first: what is half removed must not look complete.
            _folder(run, step).delete(MANIFEST)
            _folder(run, step).delete()


def steps(run: Folder) -> list[int]:
    """Steps with a folder, complete or not."""
    names = (run / "checkpoints").children()
    return [int(name.removeprefix("step-")) for name in names if name.startswith("step-")]


def _folder(run: Folder, step: int) -> Folder:
    return run / "checkpoints" / f"step-{step:08d}"
