"""Trainings whose data, checkpoints and record lie on servers that go away in the middle: a delay, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking.client import MlflowClient

from cluster import processes, services
from tests.music import sequences_dataset
from tests.trainings import Watch, assert_same_bits, plan_of, train, weights_of
from tutti import lineage, s3, storage
from tutti.models import bundle as bundles
from tutti.registry import runs
from tutti.registry.runs import MlflowTracking
from tutti.storage import Folder
from tutti.training import checkpoint
from tutti.training.faults import parse
from tutti.training.ledger import Bill
from tutti.training.plan import Outcome, Progress

STARTS_WITHIN_S = 30.0
CHANGES: dict[str, Any] = {
    "steps": 12, "checkpoint_every_steps": 2, "keep_checkpoints_every_steps": 2, "validate_every_steps": 4,
    "record_order": True, "most_semitones": 2,
}  # fmt: skip


class Server:
    """A real S3 server that can be stopped and started again."""

    def __init__(self, home: Path, *, port: int) -> None:
        self._home, self._port = home, port
        self._process: Any = None
        (home / "s3" / "bucket").mkdir(parents=True)

    def start(self) -> None:
        self._server = services.s3_server(self._home, port=self._port, environment=os.environ)
        environment = {**os.environ, **self._server.environment}
        self._process = processes.start(self._server.command, log=self._home / "log.txt", environment=environment)
        ready = processes.wait_for_answer(self._server.ready_url, process=self._process, timeout_s=STARTS_WITHIN_S)
        assert ready, (self._home / "log.txt").read_text()

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process, grace_s=self._server.grace_s)
            self._process = None


@pytest.fixture
def server(tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    # So that a test's outage of a second is longer than what a client forgives by itself.
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 0.05)
    monkeypatch.setattr(storage, "LONGEST_PATIENT_PAUSE_S", 0.2)
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    server = Server(tmp_path / "server", port=free_port)
    server.start()
    yield server
    server.stop()


class Outage(Watch):
    """Stops the server after a step; starts it again once somebody has said that it is away.

    Args:
        stop_after: that step.
        goes_on_steps: how many more steps the training must make meanwhile before the server comes back.
    """

    def __init__(self, server: Server, *, stop_after: int, goes_on_steps: int = 0) -> None:
        super().__init__()
        self._server, self._stop_after, self._back_at = server, stop_after, stop_after + goes_on_steps
        self._told, self._made = threading.Event(), threading.Event()
        self._starting = threading.Thread(target=self._start)

    def report(self, progress: Progress) -> None:
        super().report(progress)
        if progress.step == self._stop_after and not self._starting.is_alive() and not self._made.is_set():
            self._server.stop()
            self._starting.start()
        if progress.step >= self._back_at:
            self._made.set()

    def say(self, line: str) -> None:
        super().say(line)
        self._told.set()

    def join(self) -> None:
        self._told.set()
        self._made.set()
        self._starting.join()

    def _start(self) -> None:
        self._told.wait()
        self._made.wait()
        self._server.start()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on this machine's disk that nothing happened to."""
    torch.set_num_threads(1)
    sequences = sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder
    run = tmp_path_factory.mktemp("run")
    train(plan_of(sequences, run, **CHANGES))
    return run


def _fetched(run: Folder, into: Path) -> dict[str, torch.Tensor]:
    dataset = lineage.load(run)
    (into / "bundle").mkdir(parents=True)
    for path in dataset.paths():
        if path.startswith("bundle/"):
            (into / path).write_bytes(dataset.read(path))
    return dict(bundles.load(into / "bundle").weights)


def test_a_training_on_object_storage_is_the_one_on_disk(s3_folder: Folder, undisturbed: Path, tmp_path: Path) -> None:
    sequences = sequences_dataset(s3_folder / "data").folder
    plan = plan_of(sequences, s3_folder / "run", **CHANGES)
    outcome, _ = train(plan, watch=Watch(pause_at=5))
    assert outcome == Outcome.PAUSED
    assert checkpoint.steps(plan.run)[-1] == 5
    outcome, watch = train(plan)
    assert outcome == Outcome.FINISHED
    assert min(watch.losses) == 6
    assert watch.lines == []
    assert_same_bits(_fetched(plan.run, tmp_path), weights_of(undisturbed))
    assert plan.run.read("order.csv") == (undisturbed / "order.csv").read_bytes()


@pytest.mark.parametrize(("pause_at", "stop_after"), [(None, 2), (5, 6)], ids=["first", "resumed"])
def test_a_server_that_goes_away_in_the_middle_costs_no_checkpoint(
    server: Server, undisturbed: Path, tmp_path: Path, pause_at: int | None, stop_after: int
) -> None:
    place = Folder("s3://bucket/x")
    plan = plan_of(sequences_dataset(place / "data").folder, place / "run", **CHANGES)
    if pause_at:
        train(plan, watch=Watch(pause_at=pause_at))
    outage = Outage(server, stop_after=stop_after, goes_on_steps=2)
    try:
        outcome, _ = train(plan, watch=outage)
    finally:
        outage.join()
    assert outcome == Outcome.FINISHED
    # The checkpoint of that step is taken right after it: it meets the outage first, and arrives all the same.
    assert outage.lines[0].startswith(f"cannot write s3://bucket/x/run/checkpoints/step-{stop_after:08d}-")
    assert all("trying again in" in line and "giving up in" in line for line in outage.lines)
    assert stop_after in checkpoint.steps(plan.run)
    assert all(checkpoint.at(plan.run, step=step) for step in checkpoint.steps(plan.run))
    assert_same_bits(_fetched(plan.run, tmp_path), weights_of(undisturbed))
    assert plan.run.read("order.csv") == (undisturbed / "order.csv").read_bytes()
    assert json.loads(plan.run.read("history.json")) == json.loads((undisturbed / "history.json").read_bytes())
    assert Bill.read(plan.run) is not None


def test_data_that_is_away_is_waited_for(server: Server, undisturbed: Path, tmp_path: Path) -> None:
    place = Folder("s3://bucket/x")
    plan = plan_of(sequences_dataset(place / "data").folder, tmp_path / "run", **CHANGES)
    waiting: threading.Thread | None = None

    class Late(Watch):
        """Stops the server before the first block is read, and starts it a moment later."""

        def report(self, progress: Progress) -> None:
            nonlocal waiting
            super().report(progress)
            if waiting is None:
                server.stop()
                waiting = threading.Timer(2.0, server.start)
                waiting.start()

    try:
        outcome, watch = train(plan, watch=Late())
    finally:
        assert waiting is not None
        waiting.join()
    assert outcome == Outcome.FINISHED
    assert_same_bits(weights_of(plan.run), weights_of(undisturbed))
    # The run lies on disk: nothing of it had to wait. The data may have been waited for, if a block was due just then.
    assert [line for line in watch.lines if not line.startswith(f"cannot read {(place / 'data').uri}")] == []


def test_a_record_that_is_away_costs_neither_time_nor_a_point(
    undisturbed: Path, tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FIRST_PAUSE_S", 0.1)
    shutil.copy(tables, tmp_path / "mlflow.db")
    tracker = MlflowTracking(f"sqlite:///{tmp_path}/mlflow.db", "away", "key1", finish_limit_s=120.0).open()

    class BackAtTheEnd(Watch):
        """Ends the outage once the last step is made: a training that waited for the record would not get there."""

        def report(self, progress: Progress) -> None:
            super().report(progress)
            if progress.step == CHANGES["steps"]:
                tracker.cut_off(0.0)

    sequences = sequences_dataset(Folder(str(tmp_path / "data"))).folder
    plan = plan_of(sequences, tmp_path / "run", **CHANGES)
    train(plan, watch=BackAtTheEnd(), tracker=tracker, faults=[parse("tracker_down@step=3,seconds=3600")])
    assert tracker.dropped_calls == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("away").experiment_id])
    curve = client.get_metric_history(run.info.run_id, "train_nll_nats_per_token")
    known = json.loads((undisturbed / "history.json").read_bytes())["train"]
    assert sorted([point.step, point.value] for point in curve) == known
    assert run.info.status == "FINISHED"
    assert_same_bits(weights_of(plan.run), weights_of(undisturbed))
