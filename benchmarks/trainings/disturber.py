"""Drawn faults, one after the other, on processes and storage that a training is using."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from benchmarks.trainings.nodes import Cluster

KILL, HANG, NODE, STORAGE, DRIVER = "rank killed", "rank hung", "node lost", "storage away", "driver killed"
# A draw's weight; what costs most comes least.
WEIGHTS = {KILL: 4, HANG: 2, NODE: 3, STORAGE: 2, DRIVER: 1}
ON_FIXED = {KILL: 3, HANG: 2}
_OUTAGE_S, _ALONE_S = (2.0, 8.0), (4.0, 15.0)


class Store(Protocol):
    """Storage that can be away."""

    def storm(self, share: float, *, seed: int) -> None:
        """Fail a share of all requests."""

    def calm(self) -> None:
        """Fail no more."""


@dataclass
class Disturber:
    """A thread that lets something happen, waits until the training steps again, and goes on.

    Args:
        weights: how often each fault is drawn, relative to the others.
        pause_s: shortest and longest time between a step after a fault and the next fault.
        steps_done: how many steps were ever done, those done twice counted twice.
        kill_driver: ends the program that drives the training.
        seed: of all draws.
    """

    cluster: Cluster
    store: Store
    weights: dict[str, int]
    pause_s: tuple[float, float]
    steps_done: Callable[[], int]
    kill_driver: Callable[[], None]
    say: Callable[[str], None]
    seed: int
    happened: Counter[str] = field(default_factory=Counter)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._disturb, name="disturber", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave the training alone, with all nodes and storage there."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _disturb(self) -> None:
        draw = random.Random(self.seed)
        while self._await_steps() and not self._stopped.wait(draw.uniform(*self.pause_s)):
            kind = draw.choices(list(self.weights), weights=list(self.weights.values()))[0]
            if self._happen(kind, draw):
                self.happened[kind] += 1

    def _await_steps(self) -> bool:
        """Wait until the training made a step since now; False once nobody wants more faults."""
        before = self.steps_done()
        while self.steps_done() <= before:
            if self._stopped.wait(0.2):
                return False
        return True

    def _happen(self, kind: str, draw: random.Random) -> bool:
        workers = self.cluster.workers()
        if kind in (KILL, HANG):
            if not workers:
                return False
            number = draw.randrange(len(workers))
            self.say(f"{kind}: {number} of {len(workers)}")
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[number].send_signal(signal.SIGKILL if kind == KILL else signal.SIGSTOP)
        elif kind == NODE:
            number = draw.randrange(self.cluster.num_nodes)
            self.say(f"{kind}: {number} of {self.cluster.num_nodes}")
            self.cluster.lose(number)
            self._stopped.wait(draw.uniform(*_ALONE_S))
            self.cluster.add()
            self.say("a node came")
        elif kind == STORAGE:
            seconds = draw.uniform(*_OUTAGE_S)
            self.say(f"{kind} for {seconds:.0f} s")
            self.store.storm(1.0, seed=self.seed)
            self._stopped.wait(seconds)
            self.store.calm()
        else:
            self.say(kind)
            self.kill_driver()
        return True
