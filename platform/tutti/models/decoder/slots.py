"""Keys and values of rows that step together on a processor: each row has a slot, and keeps it as long as it is there.

Both lie as panels of a product (:mod:`tutti.models.panels`): a block's places are the columns of its keys and the
inputs of its values. All heads of a block lie together, so that what a row has read is dense however far it might read.

Legend: R slots, L layers, B rows, G heads of keys and values, D channels of a head, T places, N blocks of S of them; P,
K, C, E as in :mod:`tutti.models.panels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutti.models.cache import KeyValueCache
from tutti.models.decoder.loops import BLOCK_TOKENS
from tutti.models.panels import COLUMNS, pair_of, zeros

if TYPE_CHECKING:
    from tutti.models.decoder.network import DecoderConfiguration


class SlotCache:
    """A memory of no rows at first; see :class:`tutti.models.reader.Memory`.

    Args:
        configuration: of the decoder.
        room_rows, capacity_tokens: R, T; the decoder reads no further than its own limit.
        dtype: ``float32``, or ``bfloat16``, which is kept as ``uint16``.

    Memory: ``2 * R * L * G * N * S * D`` numbers, channels of values rounded up to whole lines; the machine hands it
    out page by page as it is first used.
    """

    def __init__(
        self, configuration: DecoderConfiguration, *, room_rows: int, capacity_tokens: int, dtype: torch.dtype
    ) -> None:
        self._capacity_tokens = min(capacity_tokens, configuration.max_tokens)
        blocks = -(-self._capacity_tokens // BLOCK_TOKENS)
        width = configuration.width // configuration.heads
        kept = np.dtype(np.uint16 if dtype == torch.bfloat16 else np.float32)
        pair, across = pair_of(kept), -(-width // COLUMNS) * COLUMNS
        held = (room_rows, configuration.layers, blocks, configuration.groups)
        self.keys_RLNGKCE = zeros((*held, width // pair, BLOCK_TOKENS, pair), kept)
        self.values_RLNGKCE = zeros((*held, BLOCK_TOKENS // pair, across, pair), kept)
        self._dtype = dtype
        self.lengths_B = torch.zeros(0, dtype=torch.long)
        self.slots_B = np.zeros(0, dtype=np.int64)
        self._free = list(range(room_rows))[::-1]

    @property
    def capacity_tokens(self) -> int:
        """T."""
        return self._capacity_tokens

    @property
    def room_rows(self) -> int:
        """R."""
        return len(self.keys_RLNGKCE)

    @property
    def size_bytes(self) -> int:
        """Memory of keys and values."""
        return self.keys_RLNGKCE.nbytes + self.values_RLNGKCE.nbytes

    def join(self, fresh: KeyValueCache) -> None:
        """Take the one row that the decoder has read in as one more row."""
        self.lengths_B = torch.cat((self.lengths_B, fresh.lengths_B))
        self.slots_B = np.append(self.slots_B, self._free.pop())
        self.put_row(len(self.lengths_B) - 1, fresh)

    def put_row(self, index: int, fresh: KeyValueCache) -> None:
        """Take the one row that the decoder has read in in place of a row."""
        length, slot = int(fresh.lengths_B[0]), self.slots_B[index]
        keys_LGTD, values_LGTD = (
            self._kept(given[:, 0, :, :length].detach()) for given in (fresh.keys_LBHSD, fresh.values_LBHSD)
        )
        layers, groups, _, width = keys_LGTD.shape
        pair, across = self.values_RLNGKCE.shape[-1], self.values_RLNGKCE.shape[-2]
        for start in range(0, length, BLOCK_TOKENS):
            some, block = slice(start, start + BLOCK_TOKENS), start // BLOCK_TOKENS
            places = min(BLOCK_TOKENS, length - start)
            keys = np.zeros((layers, groups, BLOCK_TOKENS, width // pair, pair), dtype=keys_LGTD.dtype)
            values = np.zeros((layers, groups, BLOCK_TOKENS, across), dtype=keys_LGTD.dtype)
            keys.reshape((*values.shape[:3], width))[:, :, :places] = keys_LGTD[:, :, some]
            values[:, :, :places, :width] = values_LGTD[:, :, some]
            self.keys_RLNGKCE[slot, :, block] = keys.swapaxes(2, 3)
            self.values_RLNGKCE[slot, :, block] = values.reshape(layers, groups, -1, pair, across).swapaxes(3, 4)
        self.lengths_B[index] = length

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these; their order becomes the order of ``rows``. Nothing moves."""
        kept_B = self.slots_B[rows.numpy()]
        self._free += np.setdiff1d(self.slots_B, kept_B).tolist()
        self.slots_B, self.lengths_B = kept_B, self.lengths_B[rows]

    def _kept(self, values: Tensor) -> NDArray[Any]:
        if self._dtype == torch.float32:
            return values.numpy()
        halves: NDArray[Any] = values.to(self._dtype).view(torch.uint16).numpy()
        return halves
