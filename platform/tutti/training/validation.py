"""What a model makes of a whole split that it does not learn from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tutti.dataset.loader import Loader
from tutti.training.objectives import summed_nll, to_tensors
from tutti.training.ranks import Ranks
from tutti.training.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Judgement:
    """NLL of one split.

    Args:
        nats: summed over its tokens.
        tokens, notes: how many it has.
    """

    nats: float
    tokens: int
    notes: int

    @property
    def nats_per_token(self) -> float:
        """Mean over tokens, padding and controls left out."""
        return self.nats / self.tokens

    @property
    def bits_per_note(self) -> float:
        """What a note costs to tell."""
        return self.nats / math.log(2) / self.notes

    def measures(self, split: str) -> dict[str, float]:
        """By the names that cards and trackers know."""
        return {
            f"{split}_nll_nats_per_token": self.nats_per_token,
            f"{split}_bits_per_note": self.bits_per_note,
        }


def judged(strategy: Strategy, loader: Loader, *, ranks: Ranks, rows: int) -> Judgement:
    """The model's judgement of every sequence of a split, divided among the ranks; every rank calls.

    Args:
        rows: sequences of one forward pass.
    """
    strategy.evaluating(True)
    nats = tokens = 0.0
    with torch.no_grad():
        for batch in loader.in_order(rank=ranks.rank, num_ranks=ranks.num_ranks, rows=rows):
            inputs, targets, segments = to_tensors(batch, ranks.device)
            nats += float(summed_nll(strategy.forward(inputs, segments), targets))
            tokens += batch.num_targets
    strategy.evaluating(False)
    summed = ranks.summed([nats, tokens])
    return Judgement(nats=summed[0], tokens=int(summed[1]), notes=loader.notes)
