"""One rank among all: what it must agree on with the others, through torch's process group where there is one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of a training; every method but the properties is called by all ranks alike.

    Args:
        rank, num_ranks: this process among all.
        rank_of_node: this process among those of its machine.
        device: where the model lives; figures travel from there.
    """

    rank: int = 0
    num_ranks: int = 1
    rank_of_node: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks for all."""
        return self.rank == 0

    def summed(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, place by place."""
        if self.num_ranks == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def gathered(self, value: T) -> list[T] | None:
        """The values of all ranks by rank, on the first; None on the others."""
        if self.num_ranks == 1:
            return [value]
        everyone: list[T] = [value] * self.num_ranks
        distributed.all_gather_object(everyone, value)
        return everyone if self.is_first else None

    def told(self, value: T) -> T:
        """The first rank's value, on all."""
        if self.num_ranks == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.num_ranks > 1:
            distributed.barrier()

    def wait_for(self, is_done: bool, *, poll_s: float = 0.05) -> bool:
        """Whether all are done; pauses a moment where not, for a loop to ask again."""
        if self.summed([0.0 if is_done else 1.0])[0] == 0:
            return True
        time.sleep(poll_s)
        return False
