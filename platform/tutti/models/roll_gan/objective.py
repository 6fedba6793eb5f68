"""What a generator of rolls and its critic make small: Wasserstein's distance, with a penalty on the critic's slope.

The critic's score is to rise by 1 at most where one roll becomes another (I. Gulrajani et al. 2017, arXiv 1704.00028);
a small weight on the real rolls' scores keeps them from drifting (T. Karras et al. 2018, 1710.10196). All losses are
sums over the rows, and all randomness comes from a seed.

Legend: R rolls, M marks, B bars, S steps, P pitches, K tracks, G groups, N moments, Z noise, C kinds of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutti.models.roll_gan.network import Critic, RollConfiguration

_TINY = 1e-12
"""A root has no slope at 0."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much the parts of the critic's loss count beside the distance.

    Args:
        penalty: of the slope, away from 1.
        drift: of the square of the scores of real rolls.
    """

    penalty: float = 10.0
    drift: float = 0.001


@dataclass(frozen=True, slots=True)
class RollLearning:
    """Learning from examples by the names of their columns: ``roll`` (R, M, B, S, P, K) and ``classes`` (R, C).

    Args:
        configuration: of both networks.
        betas: Adam's, of both networks.
        weights: of the parts of the critic's loss.
    """

    configuration: RollConfiguration
    betas: tuple[float, float] = (0.5, 0.9)
    weights: Weights = Weights()

    @property
    def critic_steps(self) -> int:
        """Steps of the critic for each one of the generator."""
        return self.configuration.critic_steps

    def fakes(self, generator: nn.Module, examples: Mapping[str, Tensor], *, seed: int) -> Tensor:
        """As many rolls as there are examples, of their classes; (R, M, B, S, P, K)."""
        classes_RC = examples["classes"].long()
        latent_RGNZ = latent_noise(len(classes_RC), configuration=self.configuration, seed=seed)
        made: Tensor = generator(latent_RGNZ.to(classes_RC.device), classes_RC)
        return made

    def critic_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor, *, seed: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critic makes small, and figures by name; all summed over the rows."""
        assert isinstance(critic, Critic)
        classes_RC = examples["classes"].long()
        real_RTX, fake_RTX = (critic.seen(roll.to(fakes.dtype)) for roll in (examples["roll"], fakes.detach()))
        real_scores_R, fake_scores_R = (critic.scored(seen, classes_RC).float() for seen in (real_RTX, fake_RTX))
        slope_R = slopes(critic, real_RTX, fake_RTX, classes_RC, seed=seed)
        parts = {
            "distance": (real_scores_R - fake_scores_R).sum(),
            "penalty": torch.square(slope_R - 1).sum(),
        }
        drift = torch.square(real_scores_R).sum()
        loss = self.weights.penalty * parts["penalty"] - parts["distance"] + self.weights.drift * drift
        return loss, parts

    def generator_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator makes small, and figures by name; all summed over the rows."""
        return -critic(fakes, examples["classes"].long()).float().sum(), {}


def latent_noise(rows: int, *, configuration: RollConfiguration, seed: int) -> Tensor:
    """Normal noise for so many rolls, ``latent_RGNZ``; the same on every device."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, configuration.tracks + 1, configuration.bars + 1, configuration.latent, generator=random)


def slopes(critic: Critic, real_RTX: Tensor, fake_RTX: Tensor, classes_RC: Tensor, *, seed: int) -> Tensor:
    """How steeply the score rises at a drawn place between each real roll and a generated one; shape (R,).

    A step is seen through one matrix, so what is seen between two rolls lies between what is seen of them, and the
    slope at the cells is the slope at what is seen times that matrix: its length needs the matrix's products alone,
    and nothing is differentiated twice at the many cells.

    Args:
        critic: gives scores of what it has seen, and classes.
        real_RTX, fake_RTX: what it has seen of both.
        classes_RC: of both.
        seed: of the places.
    """
    random = torch.Generator().manual_seed(seed)
    share_R = torch.rand(len(real_RTX), generator=random).to(real_RTX)
    between_RTX = torch.lerp(real_RTX, fake_RTX, share_R[:, None, None])
    (rise_RTX,) = torch.autograd.grad(critic.scored(between_RTX, classes_RC).sum(), between_RTX, create_graph=True)
    rise_RTX, look = rise_RTX.float(), critic.look.float()
    square_R = (rise_RTX @ (look @ look.T) * rise_RTX).sum((1, 2))
    return torch.sqrt(square_R + _TINY)
