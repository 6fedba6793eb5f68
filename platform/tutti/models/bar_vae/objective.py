"""The evidence lower bound of bars, with the weights that keep latents in use.

Legend: B rows, T tokens, V vocabulary, N bars, Z latent dimensions.
"""

from __future__ import annotations

from torch import Tensor

from tutti.models.bar_vae.configuration import BarVaeConfiguration
from tutti.models.likelihood import summed_nll

Outputs = tuple[Tensor, Tensor]
"""Logits of shape (B, T, V), and divergences from the prior of shape (N, Z)."""


class Bound:
    """NLL under latents drawn from the posterior, and the posterior's divergence from the prior.

    Args:
        configuration: whose weights hold.
    """

    loss_name = "objective"

    def __init__(self, configuration: BarVaeConfiguration) -> None:
        self._configuration = configuration

    def loss(self, outputs: Outputs, targets_BT: Tensor, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """NLL and the annealed divergence above what is free; beside it both as they are."""
        logits_BTV, divergence_NZ = outputs
        nll = summed_nll(logits_BTV, targets_BT)
        # Below the free nats the slope is 0: the optimizer neither gains nor loses by it.
        costs = divergence_NZ.clamp_min(self._configuration.free_nats).sum()
        return nll + self.kl_weight(step) * costs, {"nll": nll, "kl": divergence_NZ.sum()}

    def nats(self, outputs: Outputs, targets_BT: Tensor) -> Tensor:
        """The bound itself: one drawn latent a bar, full weight, nothing free."""
        logits_BTV, divergence_NZ = outputs
        return summed_nll(logits_BTV, targets_BT) + divergence_NZ.sum()

    def kl_weight(self, step: int) -> float:
        """Of the divergence, at a step of the training."""
        annealing = self._configuration.annealing_steps
        return self._configuration.kl_weight * (min(1.0, (step + 1) / annealing) if annealing else 1.0)
