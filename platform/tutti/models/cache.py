"""Keys and values of what was already read, preallocated, each row at its own length.

Legend: L layers, B rows, R rows that there is room for, H heads, S capacity in tokens, D channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """A cache for B rows of at most S tokens.

    Args:
        layers, rows, heads, capacity_tokens, head_width: L, B, H, S, D.
        room_rows: R: rows that may join before anything is allocated again; at least B.

    Memory: ``2 * L * R * H * S * D`` elements.
    """

    def __init__(
        self,
        *,
        layers: int,
        rows: int,
        heads: int,
        capacity_tokens: int,
        head_width: int,
        room_rows: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (layers, max(rows, room_rows), heads, capacity_tokens, head_width)
        self.all_keys_LRHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.all_values_LRHSD = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths_B = torch.zeros(rows, device=device, dtype=torch.long)

    @property
    def keys_LBHSD(self) -> Tensor:  # noqa: N802
        """Keys of the rows that there are."""
        return self.all_keys_LRHSD[:, : len(self.lengths_B)]

    @property
    def values_LBHSD(self) -> Tensor:  # noqa: N802
        """Values of the rows that there are."""
        return self.all_values_LRHSD[:, : len(self.lengths_B)]

    @property
    def capacity_tokens(self) -> int:
        """S."""
        return self.all_keys_LRHSD.shape[3]

    @property
    def room_rows(self) -> int:
        """R."""
        return self.all_keys_LRHSD.shape[1]

    @property
    def size_bytes(self) -> int:
        """Memory of keys and values."""
        return 2 * self.all_keys_LRHSD.numel() * self.all_keys_LRHSD.element_size()

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
        self.all_keys_LRHSD[:, index, :, :held] = fresh.keys_LBHSD[:, 0, :, :held]
        self.all_values_LRHSD[:, index, :, :held] = fresh.values_LBHSD[:, 0, :, :held]
        self.lengths_B[index] = fresh.lengths_B[0]

    def join(self, fresh: KeyValueCache) -> None:
        """Take the one row of another cache as one more row; it has read no more than this one can hold."""
        index = len(self.lengths_B)
        if index == self.room_rows:
            self._grow()
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))
        self.put_row(index, fresh)

    def keep(self, rows: Tensor, *, used_tokens: int | None = None) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``. Who keeps its place costs nothing.

        Args:
            used_tokens: what of each row matters; None: as much as the longest has read.
        """
        rows = rows.to(self.lengths_B.device)
        moved = torch.nonzero(rows != torch.arange(len(rows), device=rows.device)).flatten()
        if len(moved):
            used = int(self.lengths_B[rows[moved]].max()) if used_tokens is None else used_tokens
            for held in (self.all_keys_LRHSD, self.all_values_LRHSD):
                held[:, moved, :, :used] = held[:, rows[moved], :, :used]
        self.lengths_B = self.lengths_B[rows]

    def _grow(self) -> None:
        layers, room, *rest = self.all_keys_LRHSD.shape
        for name in ("all_keys_LRHSD", "all_values_LRHSD"):
            held = getattr(self, name)
            grown = held.new_zeros((layers, 2 * room or 1, *rest))
            grown[:, :room] = held
            setattr(self, name, grown)
