"""How a step of learning is made of a batch: one learner for each way of learning.

The loop knows steps, checkpoints and failures; a learner knows networks, losses and what they are judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tutti.dataset.batch import Batch
from tutti.dataset.loader import Loader
from tutti.training.networks import Networks


@dataclass(frozen=True, slots=True)
class Learnt:
    """One rank's part of a step.

    Args:
        sums: figures summed over its places to be learnt; the first is the loss. The same names on all ranks.
        norms: global gradient norm before clipping of each network that moved.
    """

    sums: Mapping[str, Tensor]
    norms: Mapping[str, float]


class Judgement(Protocol):
    """What a split that is not learnt from says of a model."""

    @property
    def score(self) -> float:
        """The one figure by which checkpoints are compared: the lower the better."""

    def measures(self, split: str) -> dict[str, float]:
        """All of them, by the names that cards and trackers know."""


class Learner(Protocol):
    """One rank's networks and how they learn."""

    networks: Networks
    cycle_steps: int
    """After how many steps one is like the first again."""
    score_name: str
    """What :attr:`Judgement.score` is, such as ``nll_nats_per_token``."""

    def learn(self, share: Batch, *, step: int, num_targets: int, poison: float) -> Learnt:
        """One optimizer step; every rank calls with its share.

        Args:
            num_targets: places to be learnt in the whole global batch.
            poison: factor of the loss: 1, or no number where a fault is simulated.
        """

    def figure(self, name: str) -> str:
        """What a figure of :attr:`Learnt.sums` is called in the record."""

    def judged(self, loader: Loader) -> Judgement:
        """The judgement of a split; every rank calls."""


def tensors_of(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch's columns on a device; whole numbers as int64."""
    # Narrow over the bus, wide where the model is.
    found = {name: torch.from_numpy(array).to(device) for name, array in batch.arrays().items()}
    return {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in found.items()}


def floats(sums: Mapping[str, Any]) -> list[float]:
    """The sums as plain numbers, in their order."""
    return [float(value) for value in sums.values()]
