"""What a training's record keeps where a real MLflow server goes away and comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow.tracking.client import MlflowClient

from tests.mlflow_server import serving
from tutti.registry.backend import Backend
from tutti.registry.runs import MlflowTracking


def test_a_server_that_is_restarted_in_a_training_costs_nothing(tables: Path, tmp_path: Path, free_port: int) -> None:
    shutil.copy(tables, tmp_path / "mlflow.db")
    tracker = MlflowTracking(f"http://127.0.0.1:{free_port}", "restarted", "key1", finish_limit_s=120.0).open()

    def log(steps: range) -> None:
        for step in steps:
            tracker.log({"loss": 1 / (step + 1)}, step=step)

    with serving(tmp_path, port=free_port):
        run_id = tracker.start(parameters={"steps": 60}, tags={"tutti.fingerprint": "89ab"})
        log(range(20))
        tracker.artifact("recipe.yaml", b"name: bach")
    # These return although nobody is there to take anything.
    log(range(20, 40))
    for suffix in ("mid", "flac", "png"):
        tracker.artifact(f"samples/step-000040.{suffix}", suffix.encode())
    with serving(tmp_path, port=free_port) as address:
        log(range(40, 60))
        tracker.finish()
        client: MlflowClient = Backend(address).client()
        history = client.get_metric_history(run_id, "loss")
        run = client.get_run(run_id)
        kept = {entry.path for folder in (None, "samples") for entry in client.list_artifacts(run_id, folder)}
    assert sorted((point.step, point.value) for point in history) == [(step, 1 / (step + 1)) for step in range(60)]
    assert (run.info.status, run.data.tags["tutti.fingerprint"]) == ("FINISHED", "89ab")
    assert kept == {"recipe.yaml", "samples", *(f"samples/step-000040.{suffix}" for suffix in ("mid", "flac", "png"))}
    assert tracker.dropped_calls == 0
