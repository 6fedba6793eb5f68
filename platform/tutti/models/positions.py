"""Rotary positions (Su et al., "RoFormer", arXiv 2104.09864): angles that make attention see distances only.

Legend: B rows, H heads, T tokens, D channels of a head (even).
"""

from __future__ import annotations

import torch
from torch import Tensor


def angles(num_positions: int, head_width: int, *, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines; each of shape (num_positions, head_width / 2), float32."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    phases = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    return phases.cos(), phases.sin()


def rotate(x_BHTD: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of channels (d, d + D/2) by its position's angle.

    Args:
        x_BHTD: queries or keys.
        cosines, sines: broadcastable to (B, H, T, D/2).
    """
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=-1).to(x_BHTD.dtype)
