"""What lies below a results root: finished datasets, runs in progress, and what they left when they were stopped.

Manifests are read and not held against their files, so a root of thousands of objects is listed in one request a kind.
Who works on a dataset opens it with :func:`tutti.lineage.load`, which does look at its files.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tutti.errors import IntegrityError, MissingError
from tutti.lineage import MANIFEST
from tutti.progress import PROGRESS, Progress
from tutti.storage import Folder

KINDS = (
    "works", "clips", "tokens", "sequences", "spectra", "tuning", "runs", "catalogues", "feedback", "pairs",
    "served",
)  # fmt: skip
"""Kinds of datasets, as music goes through them."""
_NEVER = datetime.min.replace(tzinfo=UTC)


class State(StrEnum):
    """What became of a dataset."""

    FINISHED = "finished"
    RUNNING = "running"
    STOPPED = "stopped"
    UNFINISHED = "unfinished"
    """Without a manifest, and nothing tells whether somebody works on it."""
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Found:
    """One address below a root.

    Args:
        folder: where it is.
        kind, name, address: the three names that lead to it.
        state: what became of it.
        size_bytes: of all objects that lie there.
        created: when it was finished; None where it was not.
        facts: of its manifest; empty without one.
        progress: of its run, where it is not finished and its run writes a record.
        fault: what is damaged.
    """

    folder: Folder
    kind: str
    name: str
    address: str
    state: State
    size_bytes: int
    created: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    fault: str = ""


def found_below(root: Folder, *, kinds: Iterable[str] = KINDS, now: datetime) -> list[Found]:
    """Every address below a root, by kind, then name, then age with the newest first.

    Args:
        root: results root; nothing there is no error.
        kinds: which kinds, in which order.
        now: by which runs elsewhere are judged to be alive.

    Raises:
        PlaceError: the root cannot be read.
    """
    return [found for kind in kinds for found in _of_kind(root, kind, now=now)]


def newest(root: Folder, *, kind: str, name: str) -> Folder:
    """The folder of the last finished dataset of a kind and name.

    Raises:
        MissingError: there is none.
    """
    finished = [
        found for found in found_below(root, kinds=(kind,), now=datetime.now(UTC)) if found.state == State.FINISHED
    ]
    named = [found for found in finished if found.name == name]
    if named:
        return max(named, key=lambda found: found.created or _NEVER).folder
    names = sorted({found.name for found in finished})
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        remedy = f"did you mean {near[0]!r}?"
    else:
        remedy = f"there are {', '.join(names[:10])}" if names else "name another --root, or make one"
    raise MissingError(f"no finished {kind} {name!r} below {root.uri}", remedy=remedy)


def _of_kind(root: Folder, kind: str, *, now: datetime) -> list[Found]:
    objects: dict[tuple[str, str], dict[str, int]] = {}
    for entry in root.entries(kind):
        _, *parts = entry.path.split("/", 3)
        if len(parts) == 3:
            name, address, path = parts
            objects.setdefault((name, address), {})[path] = entry.size_bytes
    found = [
        _look(root / kind / name / address, sizes, names=(kind, name, address), now=now)
        for (name, address), sizes in objects.items()
    ]
    return sorted(found, key=lambda each: (each.name, -(each.created or now).timestamp(), each.address))


def _look(folder: Folder, sizes: Mapping[str, int], *, names: tuple[str, str, str], now: datetime) -> Found:
    kind, name, address = names
    told: dict[str, Any] = {"state": State.UNFINISHED}
    try:
        if MANIFEST in sizes:
            told = {"state": State.FINISHED, **_manifest(folder)}
        elif PROGRESS in sizes and (progress := Progress.read(folder)):
            told = {"state": State.RUNNING if progress.is_alive(now=now) else State.STOPPED, "progress": progress}
    except (IntegrityError, MissingError) as error:
        told = {"state": State.DAMAGED, "fault": str(error)}
    return Found(folder, kind, name, address, size_bytes=sum(sizes.values()), **told)


def _manifest(folder: Folder) -> dict[str, Any]:
    try:
        document = json.loads(folder.read(MANIFEST))
        return {"created": datetime.fromisoformat(document["created"]), "facts": dict(document["facts"])}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{folder.uri}/{MANIFEST} is not a manifest ({error!r})") from error
