"""Machines without a home folder that can be written: containers, service accounts, CI."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

# Nobody can make a folder there, root included.
NO_HOME = "/proc/no-home"


def test_a_verbs_engines_start_without_a_home(tmp_path: Path) -> None:
    script = """
        import warnings
        warnings.simplefilter("ignore")
        import jobs.cli, os
        for name, value in jobs.cli.ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import deepspeed, matplotlib.figure, mlflow, music21, torch
        from cluster.embedded import start_embedded_ray
        start_embedded_ray(address="local", num_cpus=1)
        import ray
        assert "RAY_AUTH_TOKEN" not in os.environ
        ray.shutdown()
        start_embedded_ray(address="local", num_cpus=1)
        import ray.data
        print(ray.data.range(42).map_batches(lambda batch: batch).count())
        ray.shutdown()
        """
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=200, cwd=tmp_path, env={**environment, "HOME": NO_HOME},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["42"], done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []
