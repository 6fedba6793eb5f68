"""How fast a training is, lately, and how much of the machine that uses."""

from __future__ import annotations

import resource
import sys
import time
from collections import deque
from dataclasses import dataclass, field

import torch

_WINDOW_STEPS = 20


@dataclass
class Speedometer:
    """Places learnt a second over the last steps; time between them that is not training's does not count.

    Args:
        flops_per_place: of forward and backward.
        ceiling_flops_per_s: what the workers' matrix products reach together.
    """

    flops_per_place: float
    ceiling_flops_per_s: float
    _steps: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_WINDOW_STEPS))
    _began_s: float = 0.0

    def begin(self) -> None:
        """A step begins."""
        self._began_s = time.perf_counter()

    def end(self, places: int) -> None:
        """It ended, having learnt so many places over all ranks."""
        self._steps.append((places, time.perf_counter() - self._began_s))

    @property
    def places_per_s(self) -> float:
        """Over the last steps; 0 before the first."""
        seconds = sum(seconds for _, seconds in self._steps)
        return sum(places for places, _ in self._steps) / seconds if seconds else 0.0

    @property
    def model_flops_utilisation(self) -> float:
        """Share of the ceiling that the model's own arithmetic reaches (Chowdhery et al., arXiv 2204.02311, B)."""
        return self.places_per_s * self.flops_per_place / self.ceiling_flops_per_s if self.ceiling_flops_per_s else 0.0


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this process has held: of its GPU where it has one, of the processor elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
