"""The local stack for real: started, used by other processes, mended, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from cluster import local
from cluster.processes import is_running, ports_in_use, stop
from cluster.services import Ports
from tests.ports import free_port


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_a_stack_starts_works_is_mended_and_stops(root: Path) -> None:
    ports = Ports(**{name: free_port() for name in asdict(Ports())})
    before = set(psutil.Process().children(recursive=True))
    try:
        stack = local.up(root, ports=ports, num_cpus=1)
        assert [service.name for service in stack.services] == ["s3", "mlflow", "ray"]
        assert local.up(root) == stack, "started again, it is the same"
        assert local.running_stack(root) == stack

        (mlflow,) = [service for service in stack.services if service.name == "mlflow"]
        stop(mlflow.process, grace_s=0)
        assert local.running_stack(root) is None
        mended = local.up(root)
        assert mended.environment == stack.environment
        assert {service.process.pid for service in mended.services} > {
            service.process.pid for service in stack.services if service is not mlflow
        }

        smoke = subprocess.run(
            [sys.executable, "-m", "cluster.smoke", "--storage", "s3://tutti/smoke"],
            env={**os.environ, **stack.environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert smoke.returncode == 0, smoke.stdout + smoke.stderr
        assert [line.split()[:2] for line in smoke.stdout.splitlines()[:4]] == [
            ["ok", "nodes"],
            ["ok", "objects"],
            ["ok", "storage"],
            ["ok", "mlflow"],
        ]
        started = set(psutil.Process().children(recursive=True)) - before
        assert len(started) > 3
    finally:
        stopped = local.down(root)
    assert stopped == ("mlflow", "ray", "s3")
    assert not any(is_running(service.process) for service in mended.services)
    _, left = psutil.wait_procs(list(started), timeout=10)
    assert left == []
    assert ports_in_use(asdict(ports).values()) == set()
    assert not stack.ray_temp_dir.exists()
    assert local.down(root) == ()
    assert (root / "mlflow" / "mlflow.db").exists(), "records outlive the stack"
