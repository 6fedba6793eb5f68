"""Learning against a critic: every step moves the critic, every few also the generator.

Each network has its own strategy (under DeepSpeed its own engine). Forward passes go through the networks themselves
and only backward and step through the strategies: an engine refuses the backward of a loss that another one's forward
ran through, and a gradient penalty must differentiate twice.

Sources: Goodfellow et al. 2014 (arXiv 1406.2661); Gulrajani et al. 2017 (1704.00028) for the order of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tutti import seeding
from tutti.dataset.batch import Batch
from tutti.dataset.loader import Loader
from tutti.models.family import Adversarial
from tutti.training.learner import Learnt, tensors_of
from tutti.training.networks import Networks
from tutti.training.ranks import Ranks
from tutti.training.recipe import TrainingRecipe
from tutti.training.schedule import learning_rate
from tutti.training.strategy import Strategy

GENERATOR, CRITIC = "generator", "critic"
MOST_JUDGED = 512
"""Examples of a split that are compared with as many generated ones."""


class Judge(Protocol):
    """Measures of examples beside as many that were generated, for one kind of examples."""

    score_name: str
    """Which of the measures is the score: the lower the better."""

    def compared(self, examples: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """By name.

        Args:
            examples: columns of the real ones.
            fakes: generated ones.
        """


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measures of one split beside what was generated under its conditions."""

    figures: Mapping[str, float]
    score_name: str

    @property
    def score(self) -> float:
        """The measure that the kind of examples is judged by."""
        return self.figures[self.score_name]

    def measures(self, split: str) -> dict[str, float]:
        """By the names that cards and trackers know."""
        return {f"{split}_{name}": value for name, value in self.figures.items()}


class AdversarialLearner:
    """A generator and its critic.

    Args:
        networks: both.
        objective: of the family.
        recipe: steps, grains and seeds.
        ranks: this process among all.
        judge: measures of a split's examples beside as many that were generated.
    """

    def __init__(
        self, networks: Networks, objective: Adversarial, recipe: TrainingRecipe, *, ranks: Ranks, judge: Judge
    ) -> None:
        self.networks = networks
        self._generator, self._critic = networks[GENERATOR], networks[CRITIC]
        self._objective, self._recipe, self._ranks, self._judge = objective, recipe, ranks, judge
        self.score_name, self.cycle_steps = judge.score_name, objective.critic_steps

    def learn(self, share: Batch, *, step: int, num_targets: int, poison: float) -> Learnt:
        """One step of the critic and, after every few, one of the generator over the same examples."""
        moves_generator = (step + 1) % self._objective.critic_steps == 0
        sums, norms = self._moved(self._critic, share, step=step, num_targets=num_targets, poison=poison)
        if moves_generator:
            with _still(self._critic.network):
                more, of_generator = self._moved(
                    self._generator, share, step=step, num_targets=num_targets, poison=poison
                )
            sums, norms = {**sums, **more}, {**norms, **of_generator}
        return Learnt(sums, norms)

    def figure(self, name: str) -> str:
        """Means over examples."""
        return f"train_{name}"

    def judged(self, loader: Loader) -> Comparison:
        """What is generated under the conditions of a split's first examples, beside them."""
        ranks, size = self._ranks, self._recipe.micro_batch
        self.networks.evaluating(True)
        columns: dict[str, list[Tensor]] = {}
        wanted = min(loader.num_sequences, MOST_JUDGED)
        seen = 0
        with torch.no_grad():
            for number, batch in enumerate(loader.in_order(rank=ranks.rank, num_ranks=ranks.num_ranks, rows=size)):
                if seen >= wanted:
                    break
                seen += size * ranks.num_ranks
                examples = tensors_of(batch, ranks.device)
                seed = seeding.derive(self._recipe.seed, "judged", number, ranks.rank)
                examples["fakes"] = self._objective.fakes(self._generator.network, examples, seed=seed)
                for name, column in examples.items():
                    columns.setdefault(name, []).append(column[: batch.num_targets].float().cpu())
        self.networks.evaluating(False)
        everyone = ranks.gathered({name: torch.cat(parts) for name, parts in columns.items()})
        figures: dict[str, float] = {}
        if everyone is not None:
            joined = {name: torch.cat([part[name] for part in everyone]) for name in everyone[0]}
            fakes = joined.pop("fakes")
            figures = self._judge.compared(joined, fakes)
        return Comparison(ranks.told(figures), self.score_name)

    def _moved(
        self, strategy: Strategy, share: Batch, *, step: int, num_targets: int, poison: float
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """One optimizer step of one network; its figures, summed over this rank's rows, and its gradient's norm."""
        recipe, size, is_critic = self._recipe, self._recipe.micro_batch, strategy is self._critic
        name = CRITIC if is_critic else GENERATOR
        micro_batches = recipe.num_grains // self._ranks.num_ranks
        sums: dict[str, Tensor] = {}
        for place in range(micro_batches):
            # Noise belongs to the step and the grain, so it does not move with the number of ranks.
            grain = self._ranks.rank * micro_batches + place
            seed = seeding.derive(recipe.seed, name, step, grain)
            examples = tensors_of(share.rows(place * size, (place + 1) * size), self._ranks.device)
            with strategy.autocast():
                loss, figures = self._loss(examples, seed=seed, is_critic=is_critic)
            loss = loss * poison
            strategy.backward(loss / num_targets, last=place == micro_batches - 1)
            for figure, value in {f"{name}_loss": loss, **figures}.items():
                sums[figure] = sums.get(figure, 0.0) + value.detach().double()
        return sums, {f"{name}_gradient_norm": strategy.step(learning_rate(step, recipe))}

    def _loss(self, examples: Mapping[str, Tensor], *, seed: int, is_critic: bool) -> tuple[Tensor, dict[str, Tensor]]:
        generator, critic = self._generator.network, self._critic.network
        with torch.set_grad_enabled(not is_critic):
            fakes = self._objective.fakes(generator, examples, seed=seed)
        if is_critic:
            return self._objective.critic_loss(critic, examples, fakes, seed=seeding.derive(seed, "penalty"))
        return self._objective.generator_loss(critic, examples, fakes)


@contextmanager
def _still(network: nn.Module) -> Iterator[None]:
    """Let gradients run through a network and not into it: its own engine would count them."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
