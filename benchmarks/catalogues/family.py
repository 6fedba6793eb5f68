"""A command and all processes that it starts: their processor time and memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

LOOK_EVERY_S = 0.2
MIB = 1 << 20


@dataclass
class Family:
    """What a process and its descendants used until now; those that have gone are remembered as they were last seen.

    Args:
        root: the process.
        cpu_s: processor seconds of each, by its number and when it was born.
        driver_mib: resident memory of the root, as it was seen each time.
    """

    root: psutil.Process
    cpu_s: dict[tuple[int, float], float] = field(default_factory=dict)
    driver_mib: list[tuple[float, float]] = field(default_factory=list)

    def look(self) -> None:
        """Look once."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.driver_mib.append((time.time(), self.root.memory_info().rss / MIB))
            for process in (self.root, *self.root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self.cpu_s[process.pid, process.create_time()] = times.user + times.system

    @property
    def total_cpu_s(self) -> float:
        """Of all of them together."""
        return sum(self.cpu_s.values())


def tutti(
    *words: str, log: Path, environment: dict[str, str] | None = None, cores: Sequence[int] | None = None,
    watch: Callable[[Family], None] | None = None,
) -> tuple[Family, float]:  # fmt: skip
    """Run ``tutti WORDS`` to its end; what its processes used, and seconds on the wall.

    Args:
        cores: that it and its descendants may run on.
        watch: called now and then while it runs.

    Raises:
        RuntimeError: it failed.
    """
    began_s = time.monotonic()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", *words], stdout=errors, stderr=errors,
            env={**os.environ, **(environment or {})},
            preexec_fn=(lambda: os.sched_setaffinity(0, set(cores))) if cores else None,
        )  # fmt: skip
    family, ended = Family(psutil.Process(process.pid)), threading.Event()

    def looking() -> None:
        while not ended.wait(LOOK_EVERY_S):
            family.look()
            if watch is not None:
                watch(family)

    looker = threading.Thread(target=looking)
    looker.start()
    try:
        code = process.wait()
    finally:
        ended.set()
        looker.join()
    if code:
        raise RuntimeError(log.read_text()[-4000:])
    return family, time.monotonic() - began_s
