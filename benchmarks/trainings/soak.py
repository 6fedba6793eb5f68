"""One training on a cluster that others disturb: ``python -m benchmarks.trainings.soak ADDRESS PLAN STAMPS LOG``.

A program of its own, because one process knows one Ray, and because the driver is among what may be killed.
``PLAN`` is a pickle of this benchmark's own making.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from pathlib import Path

from jobs.cli import ENVIRONMENT

os.environ.update({**ENVIRONMENT, "DS_ACCELERATOR": "cpu"})

import ray

from benchmarks.trainings.stamps import Stamps
from tutti.telemetry import Silent
from tutti.training import on_ray
from tutti.training.plan import Plan


class Story(Silent):
    """Keeps what the training says in a file, each line with its moment."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def line(self, text: str) -> None:
        """Keep a line."""
        self._file.write(f"{time.time():.1f} {text}\n")


def main() -> None:
    """Train to the end."""
    address, plan_file, stamps_file, log = sys.argv[1:]
    plan: Plan = pickle.loads(Path(plan_file).read_bytes())
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        on_ray.run(plan, tracking=Stamps(Path(stamps_file)), reporter=Story(Path(log)))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
