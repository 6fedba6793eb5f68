"""Negative log-likelihood of tokens.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from tutti.models.family import NOT_LEARNT


def summed_nll(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """In nats, summed over the tokens to be learnt; a scalar."""
    return functional.cross_entropy(
        logits_BTV.flatten(0, -2).float(), targets_BT.flatten(), ignore_index=NOT_LEARNT, reduction="sum"
    )


class NextToken:
    """The objective of a network whose outputs are logits."""

    loss_name = "nll"

    def loss(self, outputs: Tensor, targets_BT: Tensor, *, step: int) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """NLL; no figures beside it."""
        return summed_nll(outputs, targets_BT), {}

    def nats(self, outputs: Tensor, targets_BT: Tensor) -> Tensor:
        """NLL."""
        return summed_nll(outputs, targets_BT)
