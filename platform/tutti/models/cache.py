"""Keys and values of what was already read, preallocated, each row at its own length.

Legend: L layers, B rows, H heads, S capacity in tokens, D channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """A cache for B rows of at most S tokens.

    Args:
        layers, rows, heads, capacity_tokens, head_width: L, B, H, S, D.

    Memory: ``2 * L * B * H * S * D`` elements.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        heads: int,
        capacity_tokens: int,
        head_width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (layers, rows, heads, capacity_tokens, head_width)
        self.keys_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths_B = torch.zeros(rows, device=device, dtype=torch.long)

    @property
    def capacity_tokens(self) -> int:
        """S."""
        return self.keys_LBHSD.shape[3]

    @property
    def size_bytes(self) -> int:
        """Memory of keys and values."""
        return 2 * self.keys_LBHSD.numel() * self.keys_LBHSD.element_size()

    def put(
        self, layer: int, keys_BHTD: Tensor, values_BHTD: Tensor, positions_BT: Tensor, *, used: int
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's new keys and values at ``positions_BT``; return views of the first ``used`` tokens."""
        rows_B1 = torch.arange(keys_BHTD.shape[0], device=keys_BHTD.device)[:, None]
        keys, values = self.keys_LBHSD[layer], self.values_LBHSD[layer]
        keys[rows_B1, :, positions_BT] = keys_BHTD.transpose(1, 2)
        values[rows_B1, :, positions_BT] = values_BHTD.transpose(1, 2)
        return keys[:, :, :used], values[:, :, :used]

    def put_row(self, index: int, fresh: KeyValueCache) -> None:
        """Take the one row of another cache in place of a row; it has read no more than this one can hold."""
        held = min(fresh.capacity_tokens, self.capacity_tokens)
        self.keys_LBHSD[:, index, :, :held] = fresh.keys_LBHSD[:, 0, :, :held]
        self.values_LBHSD[:, index, :, :held] = fresh.values_LBHSD[:, 0, :, :held]
        self.lengths_B[index] = fresh.lengths_B[0]

    def join(self, fresh: KeyValueCache) -> None:
        """Take the one row of another cache as one more row; it has read no more than this one can hold."""
        self.keys_LBHSD, self.values_LBHSD = (
            torch.cat((held, held.new_zeros(held.shape[0], 1, *held.shape[2:])), dim=1)
            for held in (self.keys_LBHSD, self.values_LBHSD)
        )
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))
        self.put_row(len(self.lengths_B) - 1, fresh)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""
        self.keys_LBHSD = self.keys_LBHSD[:, rows]
        self.values_LBHSD = self.values_LBHSD[:, rows]
        self.lengths_B = self.lengths_B[rows]
