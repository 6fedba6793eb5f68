"""What a training left on storage, and how far two of them lie apart."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from tutti import lineage
from tutti.models import bundle as bundles
from tutti.training.ledger import Activity, Bill
from tutti.training.plan import Plan


@dataclass(frozen=True)
class Finished:
    """What a training left.

    Args:
        order: ``order.csv``.
        losses: nats per token by step.
        lost_s, useful_s, spent_s: worker-seconds thrown away by failures, of steps and validations that count, of all.
        wall_s: from the first start of the command to its end.
    """

    order: bytes
    losses: dict[int, float]
    weights: dict[str, torch.Tensor]
    restarts: int
    lost_s: float
    useful_s: float
    spent_s: float
    wall_s: float


def finished(plan: Plan, *, wall_s: float) -> Finished:
    """Read what a training published."""
    dataset, bill = lineage.load(plan.run), Bill.read(plan.run)
    assert bill is not None
    with tempfile.TemporaryDirectory() as name:
        for path in dataset.paths():
            target = Path(name) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(dataset.read(path))
        weights = dict(bundles.load(Path(name) / "bundle").weights)
    ledger = bill.ledger
    return Finished(
        order=dataset.read("order.csv"),
        losses={int(step): loss for step, loss in json.loads(dataset.read("history.json"))["train"]},
        weights=weights,
        restarts=ledger.restarts,
        lost_s=ledger.lost_seconds,
        useful_s=ledger.worker_seconds(activity=Activity.TRAIN) + ledger.worker_seconds(activity=Activity.VALIDATE),
        spent_s=ledger.worker_seconds(),
        wall_s=wall_s,
    )


def loss_difference(left: Finished, right: Finished) -> float:
    """Largest difference of the loss of any step, nats per token; infinite where a step or a number is missing."""
    if left.losses.keys() != right.losses.keys():
        return math.inf
    return _largest([torch.tensor(left.losses[step] - right.losses[step]) for step in right.losses])


def parameter_difference(left: Finished, right: Finished) -> float:
    """Largest difference of any weight; 0 means the same bits, infinity that one is no number."""
    return _largest([left.weights[name] - weight for name, weight in right.weights.items()])


def _largest(differences: list[torch.Tensor]) -> float:
    largest = torch.stack([difference.abs().max() for difference in differences]).max()
    return float(largest.nan_to_num(nan=math.inf))
