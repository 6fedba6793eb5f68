"""Products with weights in which a row's result does not depend on the rows beside it.

The usual product picks its kernel by the number of rows, so a row's last bits change with its company, and a token that
is drawn from them can change too. oneDNN's product with weights that were laid out beforehand sums each row in one
order, however many there are (measured for 1 to 128 rows; ``tests/unit/test_steps.py`` holds it), and is the faster one
from eight rows on.

Legend: B rows, K inputs, N outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_USUAL_ROWS = 64


class Matrix:
    """Weights of a product without a bias, or with one.

    Args:
        weight_NK: what is multiplied with; a copy is laid out for products.
        bias_N: what is added.
    """

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None = None) -> None:
        weight_NK = weight_NK.detach()
        self._bias_N = None if bias_N is None else bias_N.detach().contiguous()
        self._laid_out = weight_NK.device.type == "cpu" and torch._C._has_mkldnn
        self._weight = (
            torch.ops.mkldnn._reorder_linear_weight(weight_NK.contiguous(), _USUAL_ROWS)
            if self._laid_out
            else weight_NK.contiguous()
        )

    def __call__(self, x_BK: Tensor) -> Tensor:
        """Shape (B, N)."""
        return self._made(x_BK, "none")

    def swish(self, x_BK: Tensor) -> Tensor:
        """The product, through SiLU."""
        return self._made(x_BK, "swish") if self._laid_out else functional.silu(self(x_BK))

    def added(self, x_BK: Tensor, to_BN: Tensor) -> Tensor:
        """The product, and another array added to it."""
        return self._joined(x_BK, to_BN, "add") if self._laid_out else self(x_BK) + to_BN

    def times(self, x_BK: Tensor, with_BN: Tensor) -> Tensor:
        """The product, number by number times another array."""
        return self._joined(x_BK, with_BN, "mul") if self._laid_out else self(x_BK) * with_BN

    def _made(self, x_BK: Tensor, then: str) -> Tensor:
        if not self._laid_out:
            return functional.linear(x_BK, self._weight, self._bias_N)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_BK, self._weight, self._bias_N, then, [], "")
        return out

    def _joined(self, x_BK: Tensor, other_BN: Tensor, how: str) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_BK, other_BN, self._weight, self._bias_N, how)
        return out
