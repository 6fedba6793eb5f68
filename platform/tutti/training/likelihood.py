"""Learning by likelihood: forward, negative log-likelihood, backward, over the grains of a step.

Legend: B rows, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tutti import seeding
from tutti.dataset.batch import Batch
from tutti.dataset.loader import Loader
from tutti.models.family import Likelihood
from tutti.training.learner import Learnt, tensors_of
from tutti.training.networks import ALONE, Networks
from tutti.training.ranks import Ranks
from tutti.training.recipe import TrainingRecipe
from tutti.training.schedule import learning_rate


@dataclass(frozen=True, slots=True)
class NatsJudgement:
    """NLL of one split.

    Args:
        nats: summed over its tokens.
        tokens, notes: how many it has.
        nats_per_token_of_pieces: mean over its pieces of their own means, as some papers tell it; None where rows hold
            several pieces.
    """

    nats: float
    tokens: int
    notes: int
    nats_per_token_of_pieces: float | None = None

    @property
    def nats_per_token(self) -> float:
        """Mean over tokens, padding and controls left out."""
        return self.nats / self.tokens

    @property
    def bits_per_note(self) -> float:
        """What a note costs to tell."""
        return self.nats / math.log(2) / self.notes

    @property
    def score(self) -> float:
        """:attr:`nats_per_token`."""
        return self.nats_per_token

    def measures(self, split: str) -> dict[str, float]:
        """By the names that cards and trackers know."""
        told = {
            f"{split}_nll_nats_per_token": self.nats_per_token,
            f"{split}_bits_per_note": self.bits_per_note,
        }
        if self.nats_per_token_of_pieces is not None:
            told[f"{split}_nll_nats_per_token_of_pieces"] = self.nats_per_token_of_pieces
        return told


class LikelihoodLearner:
    """One network that learns what comes next.

    Args:
        networks: it alone.
        objective: of its family.
        recipe: steps, grains and seeds.
        ranks: this process among all.
    """

    cycle_steps = 1
    score_name = "nll_nats_per_token"

    def __init__(self, networks: Networks, objective: Likelihood, recipe: TrainingRecipe, *, ranks: Ranks) -> None:
        self.networks = networks
        self._model, self._objective = networks[ALONE], objective
        self._recipe, self._ranks = recipe, ranks

    def learn(self, share: Batch, *, step: int, num_targets: int, poison: float) -> Learnt:
        """One optimizer step over the global batch."""
        recipe, size = self._recipe, self._recipe.micro_batch
        micro_batches = recipe.num_grains // self._ranks.num_ranks
        sums: dict[str, Tensor] = {}
        for place in range(micro_batches):
            # Dropout's stream belongs to the step and the grain, so it does not move with the number of ranks.
            grain = self._ranks.rank * micro_batches + place
            torch.manual_seed(seeding.derive(recipe.seed, "dropout", step, grain))
            inputs, targets = self._taken_apart(share.rows(place * size, (place + 1) * size))
            loss, figures = self._objective.loss(self._model.forward(*inputs), targets, step=step)
            loss = loss * poison
            self._model.backward(loss / num_targets, last=place == micro_batches - 1)
            for name, value in {self._objective.loss_name: loss, **figures}.items():
                sums[name] = sums.get(name, 0.0) + value.detach().double()
        return Learnt(sums, {"gradient_norm": self._model.step(learning_rate(step, recipe))})

    def figure(self, name: str) -> str:
        """All are nats, and means over tokens."""
        return f"train_{name}_nats_per_token"

    def judged(self, loader: Loader) -> NatsJudgement:
        """The model's judgement of every sequence of a split, divided among the ranks."""
        ranks = self._ranks
        self.networks.evaluating(True)
        nats = tokens = of_pieces = pieces = 0.0
        with torch.no_grad():
            batches = loader.in_order(rank=ranks.rank, num_ranks=ranks.num_ranks, rows=self._recipe.micro_batch)
            for batch in batches:
                inputs, targets = self._taken_apart(batch)
                outputs = self._model.forward(*inputs)
                nats += float(self._objective.nats(outputs, targets))
                tokens += batch.num_targets
                if loader.rows_are_pieces:
                    for row, row_targets in enumerate(torch.split(targets, 1)):
                        if learnt := int(torch.count_nonzero(row_targets)):
                            of_pieces += float(self._objective.nats(outputs[row : row + 1], row_targets)) / learnt
                            pieces += 1
        self.networks.evaluating(False)
        nats, tokens, of_pieces, pieces = ranks.summed([nats, tokens, of_pieces, pieces])
        return NatsJudgement(
            nats=nats,
            tokens=int(tokens),
            notes=loader.notes,
            nats_per_token_of_pieces=of_pieces / pieces if pieces else None,
        )

    def _taken_apart(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What the network reads, in the order of the batch's columns, and what it should say."""
        tensors = tensors_of(batch, self._ranks.device)
        targets = tensors.pop("targets")
        return list(tensors.values()), targets
