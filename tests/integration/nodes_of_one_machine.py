"""A Ray cluster of several nodes on this machine: a node goes in mid-training, later another one comes.

Run as a program, because one process knows one Ray: ``python -m tests.integration.nodes_of_one_machine SEQUENCES RUN``.
Prints what the training said, a line each, and last the workers of each checkpoint as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.cli import ENVIRONMENT

os.environ.update({**ENVIRONMENT, "DS_ACCELERATOR": "cpu"})

import ray
import ray.train
from ray.cluster_utils import Cluster

from tests.trainings import plan_of
from tutti import lineage
from tutti.models.bundle import Bundle
from tutti.storage import Folder
from tutti.training import on_ray
from tutti.training.faults import parse
from tutti.training.plan import Plan
from tutti.training.tracker import NoTracking

STORE_BYTES = 100 * 2**20
STEPS, LOST_AT = 50, 18
COMES_WITHIN_S = 120.0
NODES = 3
"""The head, which trains nothing, and those of two workers."""


class Story:
    """Reports to standard output, and brings a new node once the training goes on without the one it lost."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._lost, self._brought = cluster, False, False
        self.newcomer: subprocess.Popen[bytes] | None = None

    def line(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201
        self._lost = self._lost or "node_lost" in text

    @contextmanager
    def task(self, *_: Any, **__: Any) -> Any:
        yield self

    def update(self, *_: Any, **__: Any) -> None:
        if self._lost and not self._brought:
            self._brought = True
            # Not add_node: it sets signals, which only the main thread may, and that one trains.
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
            given = [f"--address={self._cluster.address}", "--num-cpus=1", f"--object-store-memory={STORE_BYTES}"]
            self.newcomer = subprocess.Popen([*command, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Waiting:
    """Holds a worker that is alone until there is a node for another, and then for as long as the driver looks for one.

    So few steps are over before a node has started. It is a :class:`tutti.training.tracker.Sampler`.
    """

    def files(self, bundle: Bundle, *, step: int) -> dict[str, bytes]:  # noqa: ARG002
        if ray.train.get_context().get_world_size() == 1:
            until_s = time.monotonic() + COMES_WITHIN_S
            while sum(node["Alive"] for node in ray.nodes()) < NODES:
                assert time.monotonic() < until_s, "no other node came"
                time.sleep(0.1)
            time.sleep(1.0)
        return {}


def recipe() -> dict[str, Any]:
    return {
        "steps": STEPS, "batch_sequences": 16, "micro_batch_sequences": 4, "strategy": "deepspeed", "zero_stage": 2,
        "checkpoint_every_steps": 5, "validate_every_steps": STEPS, "sample_every_steps": 5, "record_order": True,
        "keep_checkpoints_every_steps": 1, "workers": {"min": 1, "max": 2},
    }  # fmt: skip


def train(plan: Plan) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        on_ray._GROW_AFTER_S = 1.0
        faults = (parse(f"node_lost@step={LOST_AT},rank=1"),)
        story = Story(cluster)
        on_ray.run(plan, tracking=NoTracking(), reporter=story, faults=faults, sampler=Waiting())
        if story.newcomer is not None:
            story.newcomer.terminate()
            story.newcomer.wait()
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    sequences, run = sys.argv[1:]
    plan = plan_of(Folder(sequences), Path(run), **recipe())
    train(plan)
    checkpoints = plan.run / "checkpoints"
    found = sorted(checkpoints.children())
    workers = [lineage.load(checkpoints / name).facts["num_ranks"] for name in found]
    print(json.dumps(workers))  # noqa: T201


if __name__ == "__main__":
    main()
