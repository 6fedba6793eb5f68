"""Ray Train and DeepSpeed for real: the same weights as torch alone, and a killed worker changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from tests.music import tokens_dataset
from tutti.models import bundle as bundles
from tutti.storage import Folder
from tutti.telemetry import Silent
from tutti.training import checkpoint, on_ray
from tutti.training.loop import Trainer
from tutti.training.plan import Plan
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.tracker import NoTracker, NoTracking

RECIPE = TrainingRecipe(
    steps=6, sequence_tokens=128, batch_sequences=8, micro_batch_sequences=2, workers=2, strategy="deepspeed",
    zero_stage=1, checkpoint_every_steps=2, validate_every_steps=3, warmup_steps=2, seed=1, max_failures=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    tokens = Folder(str(tmp_path_factory.mktemp("tokens")))
    tokens_dataset(tokens)
    return Plan(
        name="walks",
        model=ModelRecipe(flavour="nano", dropout=0.0),
        training=RECIPE,
        tokens=tokens,
        run=Folder(str(tmp_path_factory.mktemp("run"))),
        inputs={},
        collections=("walks",),
    )


@pytest.fixture(scope="module")
def alone(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights by torch alone in this process."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("alone")
    recipe = RECIPE.model_copy(update={"strategy": "plain", "workers": 1})
    Trainer(
        replace(plan, training=recipe, run=Folder(str(run))),
        rank=0,
        num_ranks=1,
        device=torch.device("cpu"),
        tracker=NoTracker(),
        watch=lambda _: None,
    ).run()
    return dict(bundles.load(run / "bundle").weights)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(bundles.load(run / "bundle").weights)


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert set(left) == set(right)
    for name, weight in left.items():
        torch.testing.assert_close(weight, right[name], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(("strategy", "stage"), [("deepspeed", 3), ("plain", 0)])
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_reach_the_weights_of_one(
    plan: Plan, alone: dict[str, torch.Tensor], tmp_path: Path, strategy: str, stage: int
) -> None:
    recipe = RECIPE.model_copy(update={"strategy": strategy, "zero_stage": stage})
    on_ray.run(replace(plan, training=recipe, run=Folder(str(tmp_path))), tracking=NoTracking(), reporter=Silent())
    _same(_weights(tmp_path), alone)


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker_is_replaced_and_the_run_ends_as_if_nothing_had_been(
    plan: Plan, alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = Folder(str(tmp_path))
    killed: list[int] = []

    def kill_one_after_the_first_checkpoint() -> None:
        deadline_s = time.monotonic() + 120
        while time.monotonic() < deadline_s and not checkpoint.latest(run):
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()) and not killed:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill_one_after_the_first_checkpoint)
    killer.start()
    # Long enough that the kill falls between two checkpoints.
    recipe = RECIPE.model_copy(update={"steps": 6})
    on_ray.run(replace(plan, training=recipe, run=run), tracking=NoTracking(), reporter=Silent())
    killer.join()
    assert killed
    _same(_weights(tmp_path), alone)
