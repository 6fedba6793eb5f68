"""A recurrent network made ready to step: one token of each row, over and over.

Each layer's two products are one, over inputs and state side by side; see :mod:`tutti.models.matrices`.

Legend: B rows, V vocabulary, H hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from tutti.models.matrices import Matrix
from tutti.models.recurrent.state import RecurrentState

if TYPE_CHECKING:
    from tutti.models.recurrent.network import Recurrent


class RecurrentSteps:
    """Steps of a recurrent network; see :class:`tutti.models.reader.Steps`.

    Args:
        model: whose weights, as they are now, are taken.
        dtype: of the products; states and logits are of 32 bits always.
    """

    draws = False

    def __init__(self, model: Recurrent, *, dtype: torch.dtype = torch.float32) -> None:
        self._dtype = dtype
        self._embedding, self._hidden = model.embedding, model.configuration.hidden
        weights = dict(model.memory.named_parameters())
        with torch.inference_mode():
            self._gates = [
                Matrix(
                    torch.cat((weights[f"weight_ih_l{layer}"], weights[f"weight_hh_l{layer}"]), dim=1).to(dtype),
                    (weights[f"bias_ih_l{layer}"] + weights[f"bias_hh_l{layer}"]).to(dtype),
                )
                for layer in range(model.configuration.layers)
            ]
            self._output = Matrix(model.output.weight.to(dtype))
            self._head = Matrix(model.embedding.weight * model.norm.weight)

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> RecurrentState:  # noqa: ARG002
        """As :class:`tutti.models.reader.Steps`."""
        weight = self._embedding.weight
        return RecurrentState(
            layers=len(self._gates),
            rows=0,
            hidden=self._hidden,
            room_rows=room_rows,
            device=weight.device,
            dtype=weight.dtype,
        )

    def __call__(self, tokens_B: Tensor, memory: RecurrentState) -> Tensor:
        """As :class:`tutti.models.reader.Steps`."""
        x_BH = self._embedding(tokens_B)
        for layer, gates in enumerate(self._gates):
            hidden_BH, cell_BH = memory.hidden_LBH[layer], memory.cell_LBH[layer]
            heard_BH = torch.cat((x_BH, hidden_BH), dim=1).to(self._dtype)
            taken, kept, new, shown = gates(heard_BH).float().chunk(4, dim=1)
            cell_BH.mul_(kept.sigmoid()).add_(taken.sigmoid() * new.tanh())
            x_BH = hidden_BH.copy_(shown.sigmoid() * cell_BH.tanh())
        memory.lengths_B = memory.lengths_B + 1
        out_BW = self._output(x_BH.to(self._dtype)).float()
        return self._head(functional.rms_norm(out_BW, out_BW.shape[-1:], eps=1e-6))

    def order(self, memory: RecurrentState) -> None:  # noqa: ARG002
        """As :class:`tutti.models.reader.Steps`: any."""
        return
