"""The Ray that a command starts for itself: its size, and what it says where it cannot start or join."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import ray

from cluster.embedded import object_store_bytes, sized_store_bytes, start_embedded_ray
from cluster.processes import free_port
from tutti.errors import PlaceError, RecipeError

GIB, MIB = 1 << 30, 1 << 20


@pytest.mark.parametrize(
    ("memory", "shared_memory", "store"),
    [
        (8 * GIB, 4 * GIB, 1 * GIB),
        (256 * GIB, 128 * GIB, 1 * GIB),
        (2 * GIB, 1 * GIB, 256 * MIB),
        (512 * MIB, 256 * MIB, 128 * MIB),
        (8 * GIB, 500 * MIB, 450 * MIB),  # kept within /dev/shm
        (8 * GIB, 64 * MIB, 1 * GIB),  # Docker's own /dev/shm is too small for any store: on disk, then
        (8 * GIB, None, 1 * GIB),
    ],
)
def test_the_store_leaves_a_laptop_its_memory(memory: int, shared_memory: int | None, store: int) -> None:
    assert sized_store_bytes(memory_bytes=memory, shared_memory_bytes=shared_memory) == store


def test_this_machine_gets_a_store_within_the_limits() -> None:
    assert 128 * MIB <= object_store_bytes() <= GIB


@pytest.mark.parametrize("address", ["bogus", "http://127.0.0.1:8265", "host:port", "host:99999", "ray://"])
def test_an_address_that_cannot_be_is_refused_by_name(address: str) -> None:
    with pytest.raises(RecipeError, match=f"Ray address '{address}' cannot be read: write host:6379"):
        start_embedded_ray(address=address)


def test_no_cores_are_too_few() -> None:
    with pytest.raises(RecipeError, match="0 cores for Ray are too few: give at least 1"):
        start_embedded_ray(num_cpus=0)


def test_a_cluster_that_does_not_answer_costs_seconds_and_one_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    started_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "cluster.smoke"],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: no Ray cluster answers at {address} within 5 s")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - started_s < 60, "Ray itself would have tried for two minutes"


def test_a_node_that_is_slow_to_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(**_: object) -> None:
        # As ray._private.node raises it on a machine that has too much else to do.
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", slow)
    # Tests before this one may have a Ray that goes on.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(PlaceError, match=r"does not start on this machine \(The current node timed out during startup"):
        start_embedded_ray()
