"""Ray Train for real: what goes wrong on the way changes no weight, on workers of one machine and on several nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.music import rolls_dataset, sequences_dataset
from tests.trainings import assert_close, assert_same_bits, plan_of, train, weights_of
from tutti import lineage
from tutti.errors import UserError
from tutti.storage import Folder
from tutti.telemetry import Silent
from tutti.training import on_ray
from tutti.training.faults import parse
from tutti.training.ledger import Activity, Bill
from tutti.training.plan import Plan
from tutti.training.tracker import NoTracking

CHANGES: dict[str, Any] = {
    "steps": 12, "batch_sequences": 8, "strategy": "deepspeed", "zero_stage": 1, "workers": 2, "record_order": True,
    "hang_timeout_s": 8,
}  # fmt: skip


class Told(Silent):
    """Remembers the lines for people."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, sequences: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happened to."""
    return _run(plan_of(sequences, tmp_path_factory.mktemp("undisturbed"), **CHANGES))[0]


def _run(plan: Plan, *faults: str) -> tuple[Path, list[str]]:
    told = Told()
    on_ray.run(plan, tracking=NoTracking(), reporter=told, faults=tuple(map(parse, faults)))
    return plan.run.local_path, told.lines


def _said(lines: list[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in lines)


def test_killed_hung_preempted_and_without_storage_it_ends_as_if_nothing_had_been(
    sequences: Folder, undisturbed: Path, tmp_path: Path
) -> None:
    plan = plan_of(sequences, tmp_path, **CHANGES)
    run, lines = _run(
        plan, "rank_killed@step=4,rank=1", "rank_hung@step=6", "preempted@step=8", "storage_down@step=9,seconds=3"
    )
    assert _said(lines, "rank_killed: resume")
    assert _said(lines, "worker 0 is silent for", "killing it")
    assert _said(lines, "rank_hung: resume")
    assert _said(lines, "saved and stopped (a node will be taken away)")
    assert _said(lines, "cut off on purpose", "trying again")
    assert_same_bits(weights_of(run), weights_of(undisturbed))
    assert (run / "order.csv").read_bytes() == (undisturbed / "order.csv").read_bytes()
    bill = Bill.read(plan.run)
    assert bill is not None
    assert bill.ledger.restarts == lineage.load(plan.run).facts["recovery"]["restarts"] == 2
    assert bill.ledger.worker_seconds(activity=Activity.LOST) > 2 * CHANGES["hang_timeout_s"]


@pytest.mark.usefixtures("ray_cluster")
def test_out_of_memory_it_takes_smaller_bites_and_a_bad_batch_is_left_out(sequences: Folder, tmp_path: Path) -> None:
    changes = {**CHANGES, "dropout": 0.0}
    run, lines = _run(plan_of(sequences, tmp_path / "ray", **changes), "out_of_memory@step=2", "nan_loss@step=7")
    assert _said(lines, "out_of_memory: shrink in micro-batches of 1 sequences instead of 2")
    assert _said(lines, "step 7, batch 7; rolling back and skipping the batch")
    alone = plan_of(sequences, tmp_path / "alone", **{**changes, "strategy": "plain", "workers": 1})
    train(alone, faults=[parse("nan_loss@step=7")])
    assert_close(weights_of(run), weights_of(tmp_path / "alone"))
    assert (run / "order.csv").read_bytes() == (tmp_path / "alone" / "order.csv").read_bytes()


@pytest.mark.usefixtures("ray_cluster")
def test_a_generator_and_its_critic_both_come_back_after_a_kill(tmp_path: Path) -> None:
    rolls = rolls_dataset(Folder(str(tmp_path / "data"))).folder
    changes = {**CHANGES, "family": "roll_gan", "steps": 9, "batch_sequences": 4, "clip_norm": 0.0}
    run, lines = _run(plan_of(rolls, tmp_path / "ray", **changes), "rank_killed@step=5,rank=1")
    assert _said(lines, "rank_killed: resume")
    train(plan_of(rolls, tmp_path / "alone", **{**changes, "strategy": "plain", "workers": 1}))
    assert_close(weights_of(run), weights_of(tmp_path / "alone"))
    assert (run / "order.csv").read_bytes() == (tmp_path / "alone" / "order.csv").read_bytes()


@pytest.mark.usefixtures("ray_cluster")
def test_what_no_restart_mends_is_told_and_the_bill_is_kept(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(sequences, tmp_path, **{**CHANGES, "max_failures": 0})
    with pytest.raises(UserError, match=r"ended by rank killed: it failed once without a new checkpoint"):
        _run(plan, "rank_killed@step=1")
    bill = Bill.read(plan.run)
    assert bill is not None
    assert bill.ledger.worker_seconds(activity=Activity.LOST) == pytest.approx(bill.ledger.worker_seconds())


@pytest.mark.timeout(420)
def test_a_node_goes_another_comes_and_the_training_follows(sequences: Folder, tmp_path: Path) -> None:
    from tests.integration import nodes_of_one_machine as nodes

    program = [sys.executable, "-m", nodes.__name__, sequences.uri, str(tmp_path / "nodes")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node_lost: shrink on 1 of 2 workers" in done.stdout
    assert "saved and stopped (there is room for more workers)" in done.stdout
    workers = json.loads(done.stdout.splitlines()[-1])
    assert [number for number, before in zip(workers, [0, *workers], strict=False) if number != before] == [2, 1, 2]
    # One process by torch alone: the same data in the same order, the same loss within rounding.
    fixed = plan_of(sequences, tmp_path / "fixed", **{**nodes.recipe(), "strategy": "plain", "workers": 1})
    train(fixed)
    assert (tmp_path / "nodes" / "order.csv").read_bytes() == (tmp_path / "fixed" / "order.csv").read_bytes()
    np.testing.assert_allclose(_losses(tmp_path / "nodes"), _losses(tmp_path / "fixed"), rtol=2e-2)


def _losses(run: Path) -> list[float]:
    return [loss for _, loss in json.loads((run / "history.json").read_bytes())["train"]]
