"""What a long step tells its user: a bar with ETA on a terminal, plain lines elsewhere.

Nothing here writes unless a verb asked for it: the library takes a :class:`Reporter`, and :class:`Silent` is one.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tutti.units import format_seconds

PLAIN_LINE_EVERY_S = 10.0


class Task(Protocol):
    """One counted step in progress."""

    def update(self, done: float, *, total: float | None = None, note: str = "") -> None:
        """Say that ``done`` of the total is finished; ``note`` is a short text of figures."""


class Reporter(Protocol):
    """Where a verb's progress goes."""

    def line(self, text: str) -> None:
        """One line for people."""

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """A counted step; leaving the context ends it."""


class Silent:
    """A reporter that says nothing."""

    def line(self, text: str) -> None:
        """Drop ``text``."""

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:  # noqa: ARG002
        """A task that shows nothing."""
        yield self

    def update(self, done: float, *, total: float | None = None, note: str = "") -> None:
        """Show nothing."""


class _PlainTask:
    def __init__(self, stream: TextIO, *, name: str, total: float | None, unit: str, every_s: float) -> None:
        self._stream, self._name, self._total, self._unit, self._every_s = stream, name, total, unit, every_s
        self._started_s = self._last_line_s = time.monotonic()

    def update(self, done: float, *, total: float | None = None, note: str = "") -> None:
        self._total = total if total is not None else self._total
        now_s = time.monotonic()
        if now_s - self._last_line_s < self._every_s:
            return
        self._last_line_s = now_s
        spent_s = now_s - self._started_s
        eta = ""
        if self._total and 0 < done < self._total:
            eta = f" · {format_seconds(spent_s * (self._total - done) / done)} left"
        of = f"/{self._total:g}" if self._total else ""
        text = f"  {self._name}: {done:g}{of} {self._unit}{eta}{' · ' + note if note else ''}"
        self._stream.write(text + "\n")
        self._stream.flush()


class Plain:
    """Lines without control codes, for logs and pipes.

    Args:
        stream: where they go, standard error by default.
        every_s: a task writes at most one line in this time.
    """

    def __init__(self, stream: TextIO | None = None, *, every_s: float = PLAIN_LINE_EVERY_S) -> None:
        self._stream = stream or sys.stderr
        self._every_s = every_s

    def line(self, text: str) -> None:
        """Write ``text``."""
        self._stream.write(text + "\n")
        self._stream.flush()

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """A task that writes a line now and then."""
        yield _PlainTask(self._stream, name=name, total=total, unit=unit, every_s=self._every_s)


class _RichTask:
    def __init__(self, progress: Progress, *, name: str, total: float | None) -> None:
        self._progress = progress
        self._id = progress.add_task(name, total=total, note="")

    def update(self, done: float, *, total: float | None = None, note: str = "") -> None:
        if total is not None:
            self._progress.update(self._id, total=total)
        self._progress.update(self._id, completed=done, note=note)


class Terminal:
    """A live bar with ETA."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def line(self, text: str) -> None:
        """Write ``text`` above any bar."""
        self._console.print(text, markup=False)

    @contextmanager
    def task(self, name: str, *, total: float | None, unit: str) -> Iterator[Task]:
        """A task that draws a bar."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _RichTask(progress, name=name, total=total)


def reporter() -> Reporter:
    """A bar where standard error is a terminal, plain lines elsewhere."""
    return Terminal() if sys.stderr.isatty() else Plain()


def quiet_libraries() -> None:
    """Raise the level of loggers that speak on every run of a verb about things its user cannot change."""
    for name in (
        "alembic",
        "mlflow",
        "mlflow.store.db.utils",
        "fsspec",
        "botocore",
        "aiobotocore",
        "matplotlib",
        "DeepSpeed",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
