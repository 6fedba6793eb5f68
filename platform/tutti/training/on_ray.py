"""The adapter to Ray Train: workers, restarts, and a board where a driver reads progress.

Ray's own checkpoints are not used: a run's state is what :mod:`tutti.training.checkpoint` published on storage, so a
worker that Ray restarts, and a driver that a person restarts, find the same truth.
"""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from tutti.telemetry import Reporter, Task
from tutti.training.loop import Trainer
from tutti.training.plan import Plan, Progress
from tutti.training.tracker import NoTracker, Tracking

_POLL_S = 0.5


@ray.remote(num_cpus=0)
class _Board:
    """The latest progress of a run."""

    def __init__(self) -> None:
        self._latest: Progress | None = None

    def post(self, progress: Progress) -> None:
        self._latest = progress

    def latest(self) -> Progress | None:
        return self._latest


def run(plan: Plan, *, tracking: Tracking, reporter: Reporter) -> None:
    """Train on Ray; returns when the run is published.

    Raises:
        UserError: what a worker raised, as it was raised there.
    """
    recipe = plan.training
    board = _Board.remote()  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory(prefix="tutti-ray-train-") as state:
        trainer = TorchTrainer(
            _train,
            train_loop_config={"plan": plan, "tracking": tracking, "board": board},
            torch_config=TorchConfig(backend="nccl" if recipe.gpus_per_worker else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=recipe.workers,
                use_gpu=recipe.gpus_per_worker > 0,
                resources_per_worker=_resources(recipe.threads_per_worker, recipe.gpus_per_worker),
            ),
            run_config=RunConfig(
                # A used name would resume Ray's own, other state silently.
                name=f"{plan.name}-{uuid.uuid4().hex[:8]}",
                storage_path=state,
                failure_config=FailureConfig(max_failures=recipe.max_failures),
                worker_runtime_env={"env_vars": _environment(recipe.threads_per_worker, recipe.gpus_per_worker)},
            ),
        )
        with reporter.task("train", total=recipe.steps, unit="steps") as task:
            watching = threading.Event()
            watcher = threading.Thread(target=_show, args=(board, task, watching), daemon=True)
            watcher.start()
            try:
                trainer.fit()
            finally:
                watching.set()
                watcher.join(timeout=5)


def describe(progress: Progress) -> str:
    """Figures of a step in one short text."""
    valid = "" if progress.valid_nll is None else f" · valid {progress.valid_nll:.3f}"
    return f"loss {progress.loss:.3f}{valid} · {progress.tokens_per_s:,.0f} tokens/s"


def _train(config: dict[str, Any]) -> None:
    context = ray.train.get_context()
    plan: Plan = config["plan"]
    torch.set_num_threads(plan.training.threads_per_worker)
    rank = context.get_world_rank()
    board = config["board"]
    Trainer(
        plan,
        rank=rank,
        num_ranks=context.get_world_size(),
        device=ray.train.torch.get_device(),
        tracker=config["tracking"].open() if rank == 0 else NoTracker(),
        watch=board.post.remote,
    ).run()


def _show(board: Any, task: Task, stopped: threading.Event) -> None:
    shown = 0
    while not stopped.is_set():
        progress = ray.get(board.latest.remote())
        if progress is not None and progress.step != shown:
            shown = progress.step
            task.update(progress.step, note=describe(progress))
        time.sleep(_POLL_S)


def _resources(threads: int, gpus: int) -> dict[str, float]:
    return {"CPU": threads, **({"GPU": gpus} if gpus else {})}


def _environment(threads: int, gpus: int) -> dict[str, str]:
    environment = {"OMP_NUM_THREADS": str(threads)}
    if not gpus:
        environment["DS_ACCELERATOR"] = "cpu"
    return environment
