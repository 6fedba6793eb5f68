"""Ports for servers of tests that run side by side.

They lie below those that the kernel gives to whoever asks for any, so that no connection takes one between the moment
when it is found free and the one when a server listens on it; and each process of pytest has a range of its own.
"""

from __future__ import annotations

import os
import random

from cluster.processes import ports_in_use

LOWEST, OF_A_PROCESS, PROCESSES = 20_000, 700, 16
_random = random.SystemRandom()


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    first = LOWEST + OF_A_PROCESS * process
    while ports_in_use([port := _random.randrange(first, first + OF_A_PROCESS)]):
        pass
    return port
