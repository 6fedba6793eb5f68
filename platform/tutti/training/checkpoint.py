"""Checkpoints that are complete or absent: where they are, which stay, how one is read.

One lies in ``checkpoints/step-00000120-<attempt>/`` below its run. A folder without a manifest is no checkpoint,
whoever died while writing it; folders are of one attempt, so what a dead or a stopped worker wrote is never taken for a
living one's. :mod:`tutti.training.uploader` writes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutti.errors import IntegrityError
from tutti.lineage import MANIFEST, Dataset, find
from tutti.storage import Folder

HISTORY = "history.json"
_NAME = re.compile(r"step-(\d{8})-([0-9a-f]+)")


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was found.

    Args:
        step: optimizer steps done.
        dataset: its files.
        history: the curves until then.
    """

    step: int
    dataset: Dataset
    history: dict[str, Any]

    @property
    def valid_score(self) -> float | None:
        """NLL on the valid split when it was written, nats per token; None where that was not measured."""
        value = self.dataset.facts.get("valid_score")
        return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a checkpoint decides whether it stays."""

    step: int
    valid_score: float | None = None


def staying(found: Iterable[Kept], *, last: int, best: int, every_steps: int) -> set[int]:
    """Steps whose checkpoints stay: the ``last`` ones, the ``best`` by valid NLL, multiples of ``every_steps``.

    Args:
        every_steps: 0: no multiples.
    """
    by_step = sorted(found, key=lambda kept: kept.step)
    judged = sorted((kept.valid_score, kept.step) for kept in by_step if kept.valid_score is not None)
    newest = by_step[max(len(by_step) - last, 0) :]
    stay = {kept.step for kept in newest} | {step for _, step in judged[:best]}
    return stay | {kept.step for kept in by_step if every_steps and kept.step % every_steps == 0}


def place(run: Folder, *, step: int, attempt: str) -> Folder:
    """Where the checkpoint of a step is written by an attempt."""
    return run / "checkpoints" / f"step-{step:08d}-{attempt}"


def latest(run: Folder) -> Saved | None:
    """The newest complete checkpoint of a run."""
    return _first_readable(run, sorted(_folders(run), reverse=True))


def best(run: Folder) -> Saved | None:
    """The complete checkpoint of lowest valid NLL; None where none was judged."""
    return next(iter(ranked(run)), None)


def ranked(run: Folder) -> list[Saved]:
    """The complete checkpoints that were judged, that of lowest valid NLL first."""
    judged = [saved for step in steps(run) if (saved := at(run, step=step)) and saved.valid_score is not None]
    return sorted(judged, key=lambda saved: (saved.valid_score or 0.0, saved.step))


def at(run: Folder, *, step: int) -> Saved | None:
    """The complete checkpoint of one step."""
    return _first_readable(run, [each for each in _folders(run) if each[0] == step])


def _first_readable(run: Folder, folders: list[tuple[int, str]]) -> Saved | None:
    """The first that is complete; one that lost a file since is passed over while there is another."""
    damage: IntegrityError | None = None
    for step, name in folders:
        try:
            dataset = find(run / "checkpoints" / name)
        except IntegrityError as error:
            damage = damage or error
            continue
        if dataset is not None:
            return Saved(step=step, dataset=dataset, history=json.loads(dataset.read(HISTORY)))
    if damage is not None:
        raise damage
    return None


def steps(run: Folder) -> list[int]:
    """Steps with a complete checkpoint, rising."""
    return sorted({step for step, name in _folders(run) if (run / "checkpoints" / name).exists(MANIFEST)})


def fetch(saved: Saved, folder: Path, *, wanted: Callable[[str], bool]) -> None:
    """Copy those of a checkpoint's files whose path is ``wanted`` below a local folder, verified."""
    for path in filter(wanted, saved.dataset.paths()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(saved.dataset.read(path))


def prune(run: Folder, *, last: int, best: int, every_steps: int) -> None:
    """Remove the complete checkpoints that the policy does not keep."""
    complete = [(step, name) for step, name in _folders(run) if (run / "checkpoints" / name).exists(MANIFEST)]
    found = {step: Kept(step, _valid_score(run / "checkpoints" / name) if best else None) for step, name in complete}
    stay = staying(found.values(), last=last, best=best, every_steps=every_steps)
    for step, name in complete:
        if step not in stay:
            _remove(run / "checkpoints" / name)


def collect_orphans(run: Folder, *, attempt: str) -> int:
    """Remove what earlier attempts left without a manifest; how many folders those were.

    Nobody else may be writing: a run has one attempt at a time.
    """
    orphans = [
        name
        for _, name in _folders(run)
        if not name.endswith(f"-{attempt}") and not (run / "checkpoints" / name).exists(MANIFEST)
    ]
    for name in orphans:
        (run / "checkpoints" / name).delete()
    return len(orphans)


def _remove(folder: Folder) -> None:
    # The manifest goes first: what is half removed must not look complete.
    folder.delete(MANIFEST)
    folder.delete()


def _valid_score(folder: Folder) -> float | None:
    value = json.loads(folder.read(MANIFEST))["facts"].get("valid_score")
    return None if value is None else float(value)


def _folders(run: Folder) -> list[tuple[int, str]]:
    found = (_NAME.fullmatch(name) for name in (run / "checkpoints").children())
    return sorted((int(match[1]), match[0]) for match in found if match)
