"""Of how many bits the products of a model are that only speaks and no longer learns."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from tutti.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
"""``auto``: ``bfloat16`` on a processor that multiplies it by instructions of its own, else ``float32``."""


def dtype_of(precision: Precision, *, device: torch.device) -> torch.dtype:
    """What products and what is remembered are kept in; sums and logits are of 32 bits always.

    Raises:
        RecipeError: no such precision.
    """
    if precision not in get_args(Precision):
        raise RecipeError(f"precision {precision!r} is not known", remedy=f"choose {', '.join(get_args(Precision))}")
    if precision == "auto":
        fast = device.type == "cpu" and torch._C._has_mkldnn and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.float32 if precision == "float32" else torch.bfloat16
