"""Detached processes: servers that outlive the command that started them.

A process is named by its pid and its start time, because the kernel hands a pid out again once its owner is gone:
stopping what was started must never stop a stranger.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOPBACK = "127.0.0.1"
POLL_S = 0.1
# psutil derives the start time from the boot time, which moves by parts of a second when the clock is corrected.
START_TIME_TOLERANCE_S = 2.0
# What is left once the process itself has ended gets this long to follow.
LAST_MOMENT_S = 2.0


@dataclass(frozen=True, slots=True)
class Detached:
    """One process that was started here; ``started_s`` is its start, in seconds since the epoch."""

    pid: int
    started_s: float


def start(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Detached:
    """Start ``command`` in a session of its own, its output appended to ``log``.

    Args:
        command: absolute path of the program, then its arguments.
        log: a file whose folder is there.
        environment: the whole environment of the process.

    Raises:
        OSError: the program or the log cannot be opened.
    """
    # posix_spawn, not Popen: a Popen object warns when it is collected before its process ends, which is the aim here.
    pid = os.posix_spawn(
        command[0],
        list(command),
        dict(environment),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Detached(pid, psutil.Process(pid).create_time())


def is_running(process: Detached) -> bool:
    """Whether that very process is alive; a pid that went to another program counts as gone."""
    return _find(process) is not None


def stop(process: Detached, *, grace_s: float) -> bool:
    """End the process and everything it started; False when it was gone already.

    It is asked first, so that it can end its own children in order; what is left after ``grace_s`` is killed.
    """
    found = _find(process)
    if found is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = [*found.children(recursive=True), found]
        found.terminate()
        psutil.wait_procs([found], timeout=grace_s)
        _signal(tree, psutil.Process.terminate)
        _, survivors = psutil.wait_procs(tree, timeout=LAST_MOMENT_S)
        _signal(survivors, psutil.Process.kill)
        psutil.wait_procs(survivors, timeout=LAST_MOMENT_S)
    return True


def ports_in_use(ports: Iterable[int]) -> set[int]:
    """Those of ``ports`` on which a program of this machine listens already."""
    return {port for port in ports if not _can_bind(port)}


def free_port() -> int:
    """A port that the kernel held free a moment ago."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def answers(url: str, *, timeout_s: float = 1.0) -> bool:
    """Whether an HTTP server stands at ``url``; a refusal (403 to a request without signature) is an answer too."""
    try:
        urllib.request.urlopen(url, timeout=timeout_s).close()
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code < 500
    except (OSError, http.client.HTTPException):
        return False
    return True


def wait_for_answer(url: str, *, process: Detached, timeout_s: float) -> bool:
    """Poll ``url`` until it answers; False when ``process`` ends first or ``timeout_s`` runs out."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if answers(url):
            return True
        if not is_running(process):
            return False
        time.sleep(POLL_S)
    return False


def _signal(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            send(process)


def _find(process: Detached) -> psutil.Process | None:
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.started_s) < START_TIME_TOLERANCE_S
        return found if same and found.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _can_bind(port: int) -> bool:
    with socket.socket() as listener:
        # A connection that closed a minute ago must not count as a listener.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
