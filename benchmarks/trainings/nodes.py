"""A Ray cluster of several nodes on this machine that can lose and gain them: real daemons, a process tree each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cluster import processes

STORE_BYTES = 100 * 2**20
_READY_WITHIN_S, _LAST_MOMENT_S = 60.0, 10.0
# What Ray Train's workers are called among processes.
_WORKER = "RayTrainWorker"
_NODE = ("--num-cpus=1",)


@dataclass
class Cluster:
    """A head without cores, and nodes of one core each; :meth:`close` ends all processes.

    Args:
        bound: whether each node's processes may run on one core alone, another one for each.
    """

    log: Path
    address: str = ""
    bound: bool = False
    _head: subprocess.Popen[bytes] | None = None
    _nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _temporary: str = ""

    def open(self, *, nodes: int) -> None:
        """Start the head and the first nodes."""
        # Ray's sockets have paths of at most 107 characters.
        self._temporary = tempfile.mkdtemp(prefix="tutti-ray-")
        port = processes.free_port()
        self.address = f"127.0.0.1:{port}"
        self._head = self._start(
            "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={self._temporary}",
        )  # fmt: skip
        self._await_head(port)
        for _ in range(nodes):
            self.add()

    def add(self) -> None:
        """One more node."""
        node = self._start(*_NODE, f"--address={self.address}")
        if self.bound:
            cores = sorted(os.sched_getaffinity(0))
            # What it starts later inherits it.
            psutil.Process(node.pid).cpu_affinity([cores[len(self._nodes) % len(cores)]])
        self._nodes.append(node)

    def mend(self) -> None:
        """Start again the nodes that ended by themselves: on a busy machine Ray gives up some before they are up."""
        for number, node in enumerate(self._nodes):
            if node.poll() is not None:
                self._nodes[number] = self._start(*_NODE, f"--address={self.address}")

    def lose(self, number: int) -> None:
        """Kill a node with all its processes, as a power cut would."""
        node = self._nodes.pop(number)
        tree = _tree(node.pid)
        for process in tree:
            _signal(process, signal.SIGKILL)
        node.wait()

    @property
    def num_nodes(self) -> int:
        """Nodes that were not lost."""
        return len(self._nodes)

    def workers(self) -> list[psutil.Process]:
        """Processes that train, on all nodes."""
        return [process for node in self._nodes for process in _tree(node.pid) if _WORKER in _title(process)]

    def close(self) -> None:
        """End all processes and remove their files."""
        for node in [*self._nodes, *([self._head] if self._head else [])]:
            tree = _tree(node.pid)
            for process in tree:
                # What was stopped hears nothing else.
                _signal(process, signal.SIGKILL)
            node.wait()
            psutil.wait_procs(tree, timeout=_LAST_MOMENT_S)
        self._nodes.clear()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*command, f"--object-store-memory={STORE_BYTES}", *options],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _await_head(self, port: int) -> None:
        deadline_s = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return
            time.sleep(0.2)
        raise TimeoutError(f"the head of a Ray cluster did not start; see {self.log}")


def _tree(pid: int) -> list[psutil.Process]:
    """A process and all that it started, deepest first."""
    try:
        root = psutil.Process(pid)
        return [*reversed(root.children(recursive=True)), root]
    except psutil.NoSuchProcess:
        return []


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
