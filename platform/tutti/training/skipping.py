"""Batches that are left out for good, because their loss was no number; the order of all others does not move.

Which they are is written into the run's folder before the training goes on, so that every later attempt knows.
"""

from __future__ import annotations

import json

from tutti.errors import MissingError
from tutti.storage import Folder

SKIPPED = "skipped.json"


def number_of(step: int, skipped: tuple[int, ...]) -> int:
    """Number of the batch that a step learns: the ``step``-th of those that are not skipped.

    Args:
        skipped: rising.
    """
    number = step
    for each in skipped:
        if each <= number:
            number += 1
    return number


def read(run: Folder) -> tuple[int, ...]:
    """Numbers of the batches that a run skips, rising."""
    try:
        return tuple(sorted(json.loads(run.read(SKIPPED))["batches"]))
    except MissingError:
        return ()


def write(run: Folder, skipped: tuple[int, ...]) -> None:
    """Write them, whole or not at all."""
    run.write(SKIPPED, json.dumps({"batches": sorted(skipped)}).encode())
