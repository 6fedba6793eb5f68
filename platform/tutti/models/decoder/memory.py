"""A cache of keys and values that also knows when each of its tokens is, and at which pitch.

Legend: B rows, S capacity in tokens, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tutti.models.cache import KeyValueCache
from tutti.models.decoder.relative import NONE, Heard, Listener


class RelativeCache(KeyValueCache):
    """As :class:`KeyValueCache`.

    Args:
        listener: of the network, which follows time and pitch.
        sizes: of the cache beneath.
    """

    def __init__(self, listener: Listener, *, rows: int, capacity_tokens: int, **sizes: Any) -> None:
        super().__init__(rows=rows, capacity_tokens=capacity_tokens, **sizes)
        self._listener = listener
        self.known_B5 = listener.silence(rows)
        self.time_BS = torch.full((rows, capacity_tokens), NONE, device=self.lengths_B.device)
        self.pitch_BS = torch.full_like(self.time_BS, NONE)

    def hear(
        self, tokens_BT: Tensor, positions_BT: Tensor, *, counts_B: Tensor | None, used: int
    ) -> tuple[Heard, Heard]:
        """The new tokens, and all of the first ``used`` places with them.

        Args:
            positions_BT: place of each new token.
            counts_B: how many of them are real in each row; None: all.
        """
        heard, known_BT5 = self._listener(tokens_BT, known_B5=self.known_B5)
        rows_B1 = torch.arange(len(tokens_BT), device=tokens_BT.device)[:, None]
        self.time_BS[rows_B1, positions_BT] = heard.time_BT
        self.pitch_BS[rows_B1, positions_BT] = heard.pitch_BT
        last_B = tokens_BT.shape[1] - 1 if counts_B is None else counts_B - 1
        self.known_B5 = known_BT5[rows_B1[:, 0], last_B]
        time_BS, pitch_BS = self.time_BS[:, :used], self.pitch_BS[:, :used]
        return heard, Heard(time_BS, pitch_BS, pitch_BS)

    def put_row(self, index: int, fresh: KeyValueCache) -> None:
        """Take the one row of another cache of the same network in place of a row."""
        super().put_row(index, fresh)
        assert isinstance(fresh, RelativeCache)
        self.known_B5 = self.known_B5.clone()
        self.known_B5[index] = fresh.known_B5[0]
        held = min(fresh.capacity_tokens, self.capacity_tokens)
        for mine, other in ((self.time_BS, fresh.time_BS), (self.pitch_BS, fresh.pitch_BS)):
            mine[index, :held] = other[0, :held]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``."""
        super().keep(rows)
        self.known_B5, self.time_BS, self.pitch_BS = self.known_B5[rows], self.time_BS[rows], self.pitch_BS[rows]
