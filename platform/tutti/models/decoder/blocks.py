"""Keys and values of rows that step together, preallocated in blocks of places.

A block holds the same 64 places of every row, row beside row, so that attention walks through memory without gaps
however short the rows are, and a row costs what it has read.

Legend: N blocks, L layers, B rows, R rows that there is room for, G heads of keys and values, P places of a block,
D channels of a head, S capacity in tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tutti.models.cache import KeyValueCache
from tutti.models.decoder.memory import RelativeCache
from tutti.models.decoder.relative import NONE, Heard, Listener

if TYPE_CHECKING:
    from tutti.models.decoder.network import DecoderConfiguration

BLOCK_TOKENS = 64


class BlockCache:
    """A memory of no rows at first; see :class:`tutti.models.reader.Memory`.

    Args:
        configuration: of the decoder.
        room_rows, capacity_tokens: R, S; S becomes a whole number of blocks, unless the decoder reads no further.
        listener: of a decoder that follows time and pitch.
        like: a tensor of its device and precision.

    Memory: ``2 * N * L * R * G * P * D`` elements.
    """

    def __init__(
        self,
        configuration: DecoderConfiguration,
        *,
        room_rows: int,
        capacity_tokens: int,
        listener: Listener | None,
        like: Tensor,
    ) -> None:
        self._capacity_tokens = min(capacity_tokens, configuration.max_tokens)
        blocks = -(-self._capacity_tokens // BLOCK_TOKENS)
        head_width = configuration.width // configuration.heads
        shape = (blocks, configuration.layers, room_rows, configuration.groups, BLOCK_TOKENS, head_width)
        self.keys_NLRGPD, self.values_NLRGPD = _zeros(shape, like), _zeros(shape, like)
        self.lengths_B = torch.zeros(0, dtype=torch.long, device=like.device)
        self._listener = listener
        if listener is not None:
            self._known_B5 = listener.silence(0)
            self._time_RS = torch.full((room_rows, blocks * BLOCK_TOKENS), NONE, device=like.device)
            self._pitch_RS = torch.full_like(self._time_RS, NONE)

    @property
    def capacity_tokens(self) -> int:
        """S."""
        return self._capacity_tokens

    @property
    def room_rows(self) -> int:
        """R."""
        return self.keys_NLRGPD.shape[2]

    @property
    def size_bytes(self) -> int:
        """Memory of keys and values."""
        return 2 * self.keys_NLRGPD.numel() * self.keys_NLRGPD.element_size()

    def hear(self, tokens_B: Tensor, *, places: int) -> tuple[Heard, Heard]:
        """One more token of each row, and all of the first ``places`` with them."""
        assert self._listener is not None
        heard, known_B15 = self._listener(tokens_B[:, None], known_B5=self._known_B5)
        self._known_B5 = known_B15[:, 0]
        rows_B = torch.arange(len(tokens_B), device=tokens_B.device)
        self._time_RS[rows_B, self.lengths_B] = heard.time_BT[:, 0]
        self._pitch_RS[rows_B, self.lengths_B] = heard.pitch_BT[:, 0]
        time_BS, pitch_BS = (held[: len(rows_B), :places] for held in (self._time_RS, self._pitch_RS))
        return heard, Heard(time_BS, pitch_BS, pitch_BS)

    def join(self, fresh: KeyValueCache) -> None:
        """Take the one row that the decoder has read in as one more row."""
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))
        if self._listener is not None:
            self._known_B5 = torch.cat((self._known_B5, self._listener.silence(1)))
        self.put_row(len(self.lengths_B) - 1, fresh)

    def put_row(self, index: int, fresh: KeyValueCache) -> None:
        """Take the one row that the decoder has read in in place of a row."""
        length = int(fresh.lengths_B[0])
        for block in range(-(-length // BLOCK_TOKENS)):
            start, stop = block * BLOCK_TOKENS, min(length, (block + 1) * BLOCK_TOKENS)
            for held, given in ((self.keys_NLRGPD, fresh.keys_LBHSD), (self.values_NLRGPD, fresh.values_LBHSD)):
                held[block, :, index, :, : stop - start] = given[:, 0, :, start:stop]
        self.lengths_B[index] = length
        if self._listener is not None:
            assert isinstance(fresh, RelativeCache)
            self._known_B5[index] = fresh.known_B5[0]
            self._time_RS[index, :length], self._pitch_RS[index, :length] = (
                given[0, :length] for given in (fresh.time_BS, fresh.pitch_BS)
            )

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``. Who keeps its place costs nothing."""
        rows = rows.to(self.lengths_B.device)
        to = torch.nonzero(rows != torch.arange(len(rows), device=rows.device)).flatten()
        if len(to):
            longest = int(self.lengths_B[rows[to]].max())
            for block in range(-(-longest // BLOCK_TOKENS)):
                for held in (self.keys_NLRGPD[block], self.values_NLRGPD[block]):
                    held[:, to] = held[:, rows[to]]
            if self._listener is not None:
                for held in (self._time_RS, self._pitch_RS):
                    held[to] = held[rows[to]]
        self.lengths_B = self.lengths_B[rows]
        if self._listener is not None:
            self._known_B5 = self._known_B5[rows]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros that a processor's memory hands out page by page as they are first used, where it can."""
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, dtype=np.float32))
    return like.new_zeros(shape)
