"""What a recurrent network remembers of each row.

Legend: L layers, B rows, R rows that there is room for, H hidden units.
"""

from __future__ import annotations

import torch
from torch import Tensor

ENDLESS_TOKENS = 2**31


class RecurrentState:
    """Hidden and cell states of B rows.

    Args:
        layers, rows, hidden: L, B, H.
        room_rows: R: rows that may join before anything is allocated again; at least B.

    Memory: ``2 * L * R * H`` elements, however long a piece.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        hidden: int,
        device: torch.device | str,
        dtype: torch.dtype,
        room_rows: int = 0,
    ) -> None:
        self._hidden_LRH = torch.zeros(layers, max(rows, room_rows), hidden, device=device, dtype=dtype)
        self._cell_LRH = torch.zeros_like(self._hidden_LRH)
        self.lengths_B = torch.zeros(rows, device=device, dtype=torch.long)

    @property
    def hidden_LBH(self) -> Tensor:  # noqa: N802
        """Hidden states of the rows that there are."""
        return self._hidden_LRH[:, : len(self.lengths_B)]

    @property
    def cell_LBH(self) -> Tensor:  # noqa: N802
        """Cell states of the rows that there are."""
        return self._cell_LRH[:, : len(self.lengths_B)]

    @property
    def capacity_tokens(self) -> int:
        """It never fills up."""
        return ENDLESS_TOKENS

    @property
    def size_bytes(self) -> int:
        """Memory of the states."""
        return 2 * self._hidden_LRH.numel() * self._hidden_LRH.element_size()

    def take(self, hidden_LBH: Tensor, cell_LBH: Tensor) -> None:
        """Remember these states of all rows."""
        self.hidden_LBH.copy_(hidden_LBH)
        self.cell_LBH.copy_(cell_LBH)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""
        rows = rows.to(self.lengths_B.device)
        hidden_LBH, cell_LBH = self.hidden_LBH[:, rows], self.cell_LBH[:, rows]
        self.lengths_B = self.lengths_B[rows]
        self.take(hidden_LBH, cell_LBH)

    def join(self, fresh: RecurrentState) -> None:
        """Take the one row of another memory as one more row."""
        index = len(self.lengths_B)
        if index == self._hidden_LRH.shape[1]:
            self._hidden_LRH = torch.cat((self._hidden_LRH, torch.zeros_like(self._hidden_LRH[:, :1])), dim=1)
            self._cell_LRH = torch.cat((self._cell_LRH, torch.zeros_like(self._cell_LRH[:, :1])), dim=1)
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))
        self.put_row(index, fresh)

    def put_row(self, index: int, fresh: RecurrentState) -> None:
        """Take the one row of another memory in place of a row."""
        self.hidden_LBH[:, index], self.cell_LBH[:, index] = fresh.hidden_LBH[:, 0], fresh.cell_LBH[:, 0]
        self.lengths_B[index] = fresh.lengths_B[0]
