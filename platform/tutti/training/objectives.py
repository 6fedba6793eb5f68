"""What a model is asked to make small.

Legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tutti.dataset.loader import Batch
from tutti.features.vocabulary import PAD


def summed_nll(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Negative log-likelihood in nats, summed over the tokens to be learnt; a scalar."""
    return functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(), targets_BT.flatten(), ignore_index=PAD, reduction="sum"
    )


def to_tensors(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, targets and segments on a device, as int64; each of shape (B, T)."""
    inputs, targets, segments = (
        # Narrow over the bus, wide where the model is.
        torch.from_numpy(array).to(device).long()
        for array in (batch.inputs_BT, batch.targets_BT, batch.segments_BT)
    )
    return inputs, targets, segments
