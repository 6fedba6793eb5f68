"""The board of a training: an actor beside the driver that carries what driver and ranks tell each other.

Progress, heartbeats and lines go one way, the wish to pause the other. It knows of the newest attempt alone: what a
worker of an older one still says is dropped.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tutti.training.plan import Progress

NOTICE = "a node will be taken away"
_BEAT_S = 0.25


@dataclass
class Heard:
    """What the board knows of one attempt.

    Args:
        progress: the newest, of the first rank.
        silent_s: how long ago each rank that is there was heard of.
        places: node and process of each rank.
        lines: for people, since the last time.
        pause: why all ranks shall save and stop; empty: they shall not.
    """

    progress: Progress | None = None
    silent_s: dict[int, float] = field(default_factory=dict)
    places: dict[int, tuple[str, int]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    pause: str = ""


@ray.remote(num_cpus=0)
class _Board:
    """What driver and ranks tell each other, of the newest attempt alone."""

    def __init__(self) -> None:
        self.begin("")

    def begin(self, attempt: str) -> None:
        self._attempt = attempt
        self._heard, self._beats = Heard(), dict[int, float]()

    def beat(self, attempt: str, rank: int, place: tuple[str, int], progress: Progress | None, lines: list[str]) -> str:
        """A rank lives; whether it shall pause."""
        if attempt == self._attempt:
            self._beats[rank] = time.monotonic()
            self._heard.places[rank] = place
            self._heard.progress = progress or self._heard.progress
            self._heard.lines += lines
        return self._heard.pause

    def leave(self, attempt: str, rank: int) -> None:
        if attempt == self._attempt:
            self._beats.pop(rank, None)

    def ask_pause(self, why: str) -> None:
        self._heard.pause = self._heard.pause or why

    def hear(self) -> Heard:
        now_s = time.monotonic()
        lines, self._heard.lines = self._heard.lines, []
        return replace(self._heard, silent_s={rank: now_s - at for rank, at in self._beats.items()}, lines=lines)


def new_board() -> Any:
    """A board on this very node: on one that is lost it would take the run's memory of it along."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return _Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class BoardSignals:
    """A rank's side of the board: a thread speaks and listens, so that a step pays nothing.

    It is a :class:`tutti.training.plan.Signals`.

    Args:
        board: of the run.
        attempt: the rank's own.
    """

    def __init__(self, board: Any, *, attempt: str, rank: int) -> None:
        self._board, self._attempt, self._rank = board, attempt, rank
        self._place = (ray.get_runtime_context().get_node_id(), os.getpid())
        self._progress: Progress | None = None
        self._lines: deque[str] = deque()
        self._pause = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._speak, daemon=True, name="training-signals")
        self._thread.start()

    def report(self, progress: Progress) -> None:
        """Keep it for the thread's next word."""
        self._progress = progress

    def pause_is_asked(self) -> bool:
        """As the board said last."""
        return self._pause

    def ask_pause(self) -> None:
        """Tell the board at once."""
        ray.get(self._board.ask_pause.remote(NOTICE))

    def say(self, line: str) -> None:
        """Keep it for the thread's next word."""
        self._lines.append(line)

    def close(self) -> None:
        """Say what is left, and leave."""
        self._stopped.set()
        self._thread.join()
        with suppress(ray.exceptions.RayActorError):
            ray.get(self._board.leave.remote(self._attempt, self._rank))

    def _speak(self) -> None:
        last = False
        while not last:
            last = self._stopped.wait(_BEAT_S)
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            try:
                why = ray.get(self._board.beat.remote(self._attempt, self._rank, self._place, self._progress, lines))
                self._pause = bool(why)
            except ray.exceptions.RayActorError:
                # Who does not reach the board trains on and tries again: silence would get this rank killed.
                self._lines.extendleft(reversed(lines))
