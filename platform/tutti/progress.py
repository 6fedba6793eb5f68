"""How far an unfinished dataset is: a small record that the run writes beside its data and others read.

``progress.json`` lies in the dataset's folder from the start of the run until its manifest is published. A run that was
killed leaves it behind, and it then says where the run came to; a finished dataset needs none.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

import psutil

from tutti.errors import IntegrityError
from tutti.storage import Folder

PROGRESS = "progress.json"
WRITE_EVERY_S = 2.0
SILENCE_OF_THE_DEAD_S = 60.0
# What a process table and a clock may differ by for one process.
_CLOCK_SLACK_S = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, at one moment.

    Args:
        verb: what runs, such as ``ingest``.
        files: inputs of the whole run.
        done: inputs that are dealt with, taken or refused.
        works: works among them.
        refusals: refusals by reason.
        started, updated: when the run began and when it last said so; with a time zone.
        pid, host: the process that drives the run.
        failure: why it ended without a result; empty while it runs, and after a kill.
        unit: what ``files`` and ``done`` count: files, or the steps of a training.
        figures: what else is worth telling, by name, such as ``tokens_per_s``.
        found: of ``done``, what an earlier run had made.
    """

    verb: str
    files: int
    done: int
    works: int
    refusals: Mapping[str, int]
    started: datetime
    updated: datetime
    pid: int
    host: str
    failure: str = ""
    unit: str = "files"
    figures: Mapping[str, float] = field(default_factory=dict)
    found: int = 0

    @classmethod
    def begun(cls, verb: str, *, files: int, unit: str = "files", found: int = 0) -> Progress:
        """Of a run that this process begins now, ``found`` of its inputs being done."""
        now = datetime.now(UTC)
        return cls(
            verb, files, found, 0, {}, started=now, updated=now, pid=os.getpid(), host=socket.gethostname(), unit=unit,
            found=found,
        )  # fmt: skip

    def write(self, folder: Folder) -> None:
        """Put the record into the dataset's folder, whole or not at all.

        Raises:
            PlaceError: the folder cannot be written.
        """
        document = {
            **asdict(self),
            "started": self.started.isoformat(),
            "updated": self.updated.isoformat(),
            # For readers that do not reckon; read back, they are reckoned anew.
            "state": "stopped" if self.failure else "running",
            "left_s": None if self.failure else self.left_s(now=self.updated),
        }
        folder.write(PROGRESS, json.dumps(document, ensure_ascii=False).encode())

    @classmethod
    def read(cls, folder: Folder) -> Progress | None:
        """The record in a dataset's folder, or None where none was written.

        Raises:
            IntegrityError: what is there is not a record.
            PlaceError: the folder cannot be read.
        """
        if not folder.exists(PROGRESS):
            return None
        try:
            return cls._from_document(json.loads(folder.read(PROGRESS)))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{folder.uri}/{PROGRESS} is not a record of progress ({error!r})") from error

    @classmethod
    def _from_document(cls, document: Mapping[str, Any]) -> Progress:
        moments = {name: datetime.fromisoformat(document[name]) for name in ("started", "updated")}
        if any(moment.tzinfo is None for moment in moments.values()):
            raise ValueError("a time without its zone")
        # A later version may write more; what is here must be there.
        known = {each.name: document[each.name] for each in fields(cls) if each.name in document}
        mappings = {"refusals": dict(document["refusals"]), "figures": dict(document.get("figures", {}))}
        return cls(**{**known, **moments, **mappings})

    def is_alive(self, *, now: datetime) -> bool:
        """Whether the run goes on: its process is there or, on another machine, spoke within the last minute."""
        if self.failure:
            return False
        if self.host == socket.gethostname():
            return self._process_is_there()
        return (now - self.updated).total_seconds() < SILENCE_OF_THE_DEAD_S

    def left_s(self, *, now: datetime) -> float | None:
        """Seconds to the end at the mean pace so far; None before the first input is done."""
        if self.done <= self.found:
            return None
        spent_s = (self.updated - self.started).total_seconds()
        still_s = spent_s * (self.files - self.done) / (self.done - self.found)
        return max(0.0, still_s - (now - self.updated).total_seconds())

    def _process_is_there(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            # Numbers of processes are given again: one that was born after the run began is another.
            is_it = process.create_time() <= self.started.timestamp() + _CLOCK_SLACK_S
            return is_it and bool(process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False


@dataclass
class Record:
    """The record of a run of this process, as :func:`recorded` keeps it."""

    folder: Folder
    progress: Progress
    _written: datetime = field(init=False)

    def __post_init__(self) -> None:
        self._write()

    def update(
        self,
        *,
        done: int,
        works: int = 0,
        refusals: Mapping[str, int] | None = None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Say how far the run is; written every :data:`WRITE_EVERY_S` at most, so it may be called for each input.

        Args:
            done: inputs dealt with since the start.
            works: works among them.
            refusals: refusals among them by reason.
            figures: what else is worth telling, by name.
        """
        now = datetime.now(UTC)
        self.progress = replace(
            self.progress,
            done=done,
            works=works,
            refusals=dict(refusals or {}),
            figures=dict(figures or {}),
            updated=now,
        )
        if (now - self._written).total_seconds() >= WRITE_EVERY_S:
            self._write()

    def fail(self, why: str) -> None:
        """Say that the run ended without a result."""
        self.progress = replace(self.progress, updated=datetime.now(UTC), failure=" ".join(why.split()))
        self._write()

    def _write(self) -> None:
        self.progress.write(self.folder)
        self._written = datetime.now(UTC)


@contextmanager
def recorded(folder: Folder, *, verb: str, files: int, unit: str = "files", found: int = 0) -> Iterator[Record]:
    """Keep a record of progress while the block runs: publish the dataset within it.

    The record is removed where the block ends well, and says why where it does not.

    Raises:
        PlaceError: the folder cannot be written.
    """
    record = Record(folder, Progress.begun(verb, files=files, unit=unit, found=found))
    try:
        yield record
    except BaseException as error:
        # Ray's own way of leaving on SIGTERM is SystemExit.
        was_stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        record.fail("interrupted" if was_stopped else str(error) or type(error).__name__)
        raise
    folder.delete(PROGRESS)
