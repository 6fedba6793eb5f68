"""What a recurrent network remembers of each row.

Legend: L layers, B rows, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

ENDLESS_TOKENS = 2**31


class RecurrentState:
    """Hidden and cell states of B rows.

    Args:
        layers, rows, hidden: L, B, H.

    Memory: ``2 * L * B * H`` elements, however long a piece.
    """

    def __init__(self, *, layers: int, rows: int, hidden: int, device: torch.device | str, dtype: torch.dtype) -> None:
        self.hidden_LBH = torch.zeros(layers, rows, hidden, device=device, dtype=dtype)
        self.cell_LBH = torch.zeros_like(self.hidden_LBH)
        self.lengths_B = torch.zeros(rows, device=device, dtype=torch.long)

    @property
    def capacity_tokens(self) -> int:
        """It never fills up."""
        return ENDLESS_TOKENS

    @property
    def size_bytes(self) -> int:
        """Memory of the states."""
        return 2 * self.hidden_LBH.numel() * self.hidden_LBH.element_size()

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""
        self.hidden_LBH, self.cell_LBH = self.hidden_LBH[:, rows], self.cell_LBH[:, rows]
        self.lengths_B = self.lengths_B[rows]

    def put_row(self, index: int, fresh: RecurrentState) -> None:
        """Take the one row of another memory in place of a row."""
        self.hidden_LBH[:, index], self.cell_LBH[:, index] = fresh.hidden_LBH[:, 0], fresh.cell_LBH[:, 0]
        self.lengths_B[index] = fresh.lengths_B[0]
