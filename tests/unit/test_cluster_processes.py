"""Detached processes: they outlive their caller, and stopping them stops nothing else."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.processes import (
    Detached,
    answers,
    free_port,
    is_running,
    ports_in_use,
    start,
    stop,
    wait_for_answer,
)

SLEEPER = "import time; print('awake', flush=True); time.sleep(60)"
# Deaf to requests to end, with a child that is deaf too.
STUBBORN = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
print(child.pid, flush=True)
time.sleep(60)
"""


def _started(code: str, log: Path) -> Detached:
    process = start([sys.executable, "-c", code], log=log, environment=os.environ)
    deadline_s = time.monotonic() + 20
    while not log.read_text() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return process


def test_a_process_runs_in_a_session_of_its_own_and_stops_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = _started(SLEEPER, log)
    assert log.read_text() == "awake\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert is_running(process)
    assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert stop(process, grace_s=10)
    assert not is_running(process)
    assert not stop(process, grace_s=10)


def test_stopping_ends_the_whole_tree_even_when_it_is_deaf(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = _started(STUBBORN, log)
    child = psutil.Process(int(log.read_text().split()[0]))
    assert stop(process, grace_s=0.2)
    assert not is_running(process)
    assert not child.is_running()


def test_a_pid_that_went_to_another_program_is_left_alone() -> None:
    stranger = Detached(os.getpid(), started_s=psutil.Process().create_time() - 3600)
    assert not is_running(stranger)
    assert not stop(stranger, grace_s=0.1)  # were it not left alone, this test would not live to say so


def test_a_process_that_was_killed_counts_as_gone_before_anyone_buries_it(tmp_path: Path) -> None:
    process = _started(SLEEPER, tmp_path / "log")
    os.kill(process.pid, signal.SIGKILL)
    deadline_s = time.monotonic() + 10
    while is_running(process) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert not stop(process, grace_s=0.1)
    os.waitpid(process.pid, 0)


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start([str(tmp_path / "nothing")], log=tmp_path / "log", environment={})


def test_ports_in_use_are_those_with_a_listener() -> None:
    free = free_port()
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert ports_in_use([taken, free]) == {taken}
    assert ports_in_use([taken]) == set()


class _Refusing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.path.removeprefix("/")))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing_server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_refusal_is_an_answer_and_a_fault_is_not(refusing_server: str) -> None:
    assert answers(f"{refusing_server}/403")
    assert not answers(f"{refusing_server}/503")
    assert not answers(f"http://127.0.0.1:{free_port()}/")


def test_waiting_ends_when_the_process_does(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", ""], log=tmp_path / "log", environment=os.environ)
    started_s = time.monotonic()
    assert not wait_for_answer(f"http://127.0.0.1:{free_port()}/", process=process, timeout_s=60)
    assert time.monotonic() - started_s < 30


def test_waiting_ends_when_time_runs_out(tmp_path: Path) -> None:
    process = _started(SLEEPER, tmp_path / "log")
    assert not wait_for_answer(f"http://127.0.0.1:{free_port()}/", process=process, timeout_s=0.3)
    assert is_running(process)
    stop(process, grace_s=10)
