"""Attention to the steps before, by content, by rotary position and by a learnt liking for certain distances.

A phrase that returns after two bars, or a bar that repeats the last, is found by its distance alone.

Sources: Su et al. 2021 (rotary positions, arXiv 2104.09864); Raffel et al. 2020 (a bias for each distance and head,
1910.10683, without their buckets).

Legend: B rows, T steps that are read, S steps that are looked at, W width, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.positions import rotate

_NEVER = -1e4
"""Of a step to come: small enough for every precision, and finite."""


@dataclass
class Heard:
    """Keys and values of the steps that one layer has read; None before the first."""

    keys_BHSD: Tensor | None = None
    values_BHSD: Tensor | None = None

    def add(self, keys_BHTD: Tensor, values_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, these among them."""
        if self.keys_BHSD is not None and self.values_BHSD is not None:
            keys_BHTD = torch.cat((self.keys_BHSD, keys_BHTD), dim=2)
            values_BHTD = torch.cat((self.values_BHSD, values_BHTD), dim=2)
        self.keys_BHSD, self.values_BHSD = keys_BHTD, values_BHTD
        return keys_BHTD, values_BHTD

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        if self.keys_BHSD is not None and self.values_BHSD is not None:
            self.keys_BHSD, self.values_BHSD = self.keys_BHSD[rows], self.values_BHSD[rows]


class CausalAttention(nn.Module):
    """Each step looks at itself and at those before it.

    Args:
        width, heads: W, H.
        distances: how many distances have a bias of their own; all beyond share the last.
    """

    def __init__(self, width: int, heads: int, *, distances: int) -> None:
        super().__init__()
        self._heads = heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.distance_HS = nn.Parameter(torch.zeros(heads, distances))

    def forward(self, x_BTW: Tensor, cosines: Tensor, sines: Tensor, *, heard: Heard | None = None) -> Tensor:
        """What each step takes from those before it; shape (B, T, W).

        Args:
            x_BTW: steps, normalised.
            cosines, sines: of their places; shape (T, D / 2).
            heard: steps before them, to which they are added.
        """
        rows, steps, width = x_BTW.shape
        heads, channels = self._heads, width // self._heads
        parts = self.query_key_value(x_BTW).view(rows, steps, 3, heads, channels).permute(2, 0, 3, 1, 4)
        query, key, value = rotate(parts[0], cosines, sines), rotate(parts[1], cosines, sines), parts[2]
        if heard is not None:
            key, value = heard.add(key, value)
        bias_HTS = self._bias(steps, key.shape[2])
        if x_BTW.is_cuda:
            mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias_HTS.to(query.dtype))
        else:
            # torch's own kernel for processors takes twice as long in bfloat16 as these two products (torch 2.13).
            flat = [part.reshape(rows * heads, -1, channels) for part in (query, key, value)]
            bias = bias_HTS.to(query.dtype).expand(rows, *bias_HTS.shape).reshape(rows * heads, steps, -1)
            scores = torch.baddbmm(bias, flat[0], flat[1].transpose(1, 2), alpha=channels**-0.5)
            mixed = torch.bmm(scores.softmax(-1, dtype=scores.dtype), flat[2]).view(rows, heads, steps, channels)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(rows, steps, width))
        return out

    def _bias(self, steps: int, seen: int) -> Tensor:
        """Liking of each head for each distance; shape (H, T, S)."""
        device = self.distance_HS.device
        distance_TS = torch.arange(seen - steps, seen, device=device)[:, None] - torch.arange(seen, device=device)
        liked = self.distance_HS[:, distance_TS.clamp(0, self.distance_HS.shape[1] - 1)]
        return liked.masked_fill(distance_TS < 0, _NEVER)
