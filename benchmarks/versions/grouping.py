"""Group the sketches of a file and say what it cost: ``python -m benchmarks.versions.grouping FILE.npz LABELS.npy``.

A process of its own, so that what it holds at most is what grouping holds.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from tutti.corpus.duplicates import groups

BUDGET_BYTES = 2**28
STATUS = Path("/proc/self/status")


def most_held_bytes() -> int:
    """The most memory that this process has held."""
    if STATUS.exists():
        # Linux gives a child what its parent held in getrusage, and its own here.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(sketches_file: str, labels_file: str) -> None:
    """Read, group, write; one JSON object on standard output."""
    before_bytes = most_held_bytes()
    with np.load(sketches_file) as held:
        values, starts = held["values"], held["starts"]
    read_bytes = most_held_bytes()
    started_s = time.process_time()
    np.save(labels_file, groups(values, starts, budget_bytes=BUDGET_BYTES))
    facts = {
        "seconds": time.process_time() - started_s,
        "python_bytes": before_bytes,
        "read_bytes": read_bytes,
        "peak_bytes": most_held_bytes(),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
