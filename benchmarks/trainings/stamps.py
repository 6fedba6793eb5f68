"""When each step of a training was done: a record of moments instead of figures, from whatever process steps."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutti.training.tracker import NoTracker


@dataclass(frozen=True, slots=True)
class Stamp:
    """One step that was done.

    Args:
        step: number of steps done.
        unix_s: when.
        loss: nats per token.
    """

    step: int
    unix_s: float
    loss: float


@dataclass(frozen=True)
class Stamps:
    """Tracking that appends a line for every step to a file of this machine."""

    path: Path

    def open(self) -> Stamper:
        """The tracker of the first rank."""
        return Stamper(self.path)

    def read(self) -> list[Stamp]:
        """All steps in the order in which they were done; some of them twice where a training went back."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [Stamp(*json.loads(line)) for line in lines if line.endswith("]")]

    def resumed(self) -> Stamp:
        """The first step that was done a second time: the next one done after a training went back.

        Raises:
            ValueError: it never went back.
        """
        for before, stamp in itertools.pairwise(self.read()):
            if stamp.step <= before.step:
                return stamp
        raise ValueError(f"the training of {self.path} never went back")

    def seconds(self, *, after: int) -> list[float]:
        """Seconds from each step to the next, once ``after`` steps were done: loader and record are in it."""
        moments = [stamp.unix_s for stamp in self.read() if stamp.step >= after]
        return [right - left for left, right in itertools.pairwise(moments)]


class Stamper(NoTracker):
    """Writes one line a step."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def log(self, figures: Mapping[str, float], *, step: int) -> None:
        """Stamp a step; other figures are dropped."""
        if (loss := figures.get("train_nll_nats_per_token")) is not None:
            self._file.write(json.dumps([step, time.time(), loss]) + "\n")

    def finish(self, *, failed: bool = False) -> None:  # noqa: ARG002
        """Close the file."""
        self._file.close()


def cost_of_a_checkpoint(stamps: Sequence[Stamp], *, every_steps: int) -> tuple[float, float]:
    """Seconds that a checkpoint costs in all, and those of a step that goes without one.

    All that the steps after a checkpoint, until the next, took beyond as many median steps counts as the checkpoint's:
    the copy, and what the way to storage takes from the steps that go along with it. The median of all checkpoints.

    Args:
        every_steps: steps between checkpoints; the last of ``stamps`` took none.
    """
    moments = {stamp.step: stamp.unix_s for stamp in stamps}
    seconds = {step: moments[step + 1] - moments[step] for step in moments if step + 1 in moments}
    last = max(moments)
    # The first steps load code and caches.
    step_s = statistics.median(seconds[step] for step in range(every_steps, last))
    extra_s = [
        sum(seconds[step] - step_s for step in range(first, first + every_steps))
        for first in range(every_steps, last - every_steps + 1, every_steps)
    ]
    return max(statistics.median(extra_s), 0.0), step_s
