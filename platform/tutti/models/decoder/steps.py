"""A decoder made ready to step: one token of each row, over and over.

What a row hears never depends on the rows beside it, to the bit: products go row by row
(:mod:`tutti.models.matrices`), and attention goes block by block of the row's own places; of blocks that only others
reach, a row adds nothing. The norms' gains are multiplied into the weights behind them.

Legend: B rows, W width, H heads of queries, G of keys and values, D channels of a head, S places, P of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutti.models.attention import within_window
from tutti.models.decoder.blocks import BLOCK_TOKENS, BlockCache
from tutti.models.matrices import Matrix

if TYPE_CHECKING:
    from tutti.models.decoder.network import Block, Decoder

_EPSILON = 1e-6
# Blocks of rows that are walked through in vain, of all blocks, before rows move.
_MOST_WASTE = 0.1


class _Layer:
    """Weights of one block."""

    def __init__(self, block: Block) -> None:
        attention_gain, gain = block.attention_norm.weight, block.feed_forward_norm.weight
        gate, up = (block.gate_and_up.weight * gain).chunk(2)
        self.query_key_value = Matrix(block.attention.query_key_value.weight * attention_gain)
        self.output = Matrix(block.attention.output.weight)
        self.gate, self.up, self.down = Matrix(gate), Matrix(up), Matrix(block.down.weight)


class DecoderSteps:
    """Steps of a decoder; see :class:`tutti.models.reader.Steps`.

    Args:
        model: whose weights, as they are now, are taken.
    """

    draws = False

    def __init__(self, model: Decoder) -> None:
        configuration = model.configuration
        self._model = model
        self._heads, self._groups = configuration.heads, configuration.groups
        self._head_width = configuration.width // configuration.heads
        with torch.inference_mode():
            self._layers = [_Layer(block) for block in model.blocks]  # type: ignore[arg-type]
            self._head = Matrix(model.embedding.weight * model.norm.weight)
            # (d, d + D/2) turns by cos and -sin, sin: what is turned, times the one, and its halves swapped, the other.
            self._cosines = torch.cat((model.cosines, model.cosines), dim=1)[:, None]
            self._sines = torch.cat((-model.sines, model.sines), dim=1)[:, None]

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> BlockCache:
        """As :class:`tutti.models.reader.Steps`."""
        return BlockCache(
            self._model.configuration,
            room_rows=room_rows,
            capacity_tokens=capacity_tokens,
            listener=self._model.listener,
            like=self._model.embedding.weight.detach(),
        )

    def __call__(self, tokens_B: Tensor, memory: BlockCache) -> Tensor:
        """As :class:`tutti.models.reader.Steps`."""
        reached = reached_by(blocks_of(memory.lengths_B))
        mask = self._mask(tokens_B, memory, places=len(reached) * BLOCK_TOKENS)
        at_LN = self._places(memory)
        cosines_B1D, sines_B1D = self._cosines[memory.lengths_B], self._sines[memory.lengths_B]
        x_BW = self._model.embedding(tokens_B)
        for number, layer in enumerate(self._layers):
            packed = layer.query_key_value(_normed(x_BW)).view(len(tokens_B), -1, self._head_width)
            turned = _turned(packed[:, : self._heads + self._groups], cosines_B1D, sines_B1D)
            for held, new in (
                (memory.keys_NLRGPD, turned[:, self._heads :]),
                (memory.values_NLRGPD, packed[:, self._heads + self._groups :]),
            ):
                held.view(-1, self._head_width).index_copy_(0, at_LN[number], new.reshape(-1, self._head_width))
            mixed_BW = self._attended(turned[:, : self._heads], memory, number, reached, mask)
            x_BW = layer.output.added(mixed_BW, x_BW)
            normed = _normed(x_BW)
            x_BW = layer.down.added(layer.up.times(normed, layer.gate.swish(normed)), x_BW)
        memory.lengths_B = memory.lengths_B + 1
        return self._head(_normed(x_BW))

    def order(self, memory: BlockCache) -> NDArray[np.int64] | None:
        """As :class:`tutti.models.reader.Steps`: rows of many blocks before those of few."""
        return settled(blocks_of(memory.lengths_B))

    def _places(self, memory: BlockCache) -> Tensor:
        """Where each row's new keys go, of all places, head after head; shape (L, B * G)."""
        device = memory.lengths_B.device
        _, layers, room, groups, *_ = memory.keys_NLRGPD.shape
        rows_B, heads_G = torch.arange(len(memory.lengths_B), device=device), torch.arange(groups, device=device)
        block_B, place_B = memory.lengths_B // BLOCK_TOKENS, memory.lengths_B % BLOCK_TOKENS
        row_LB = (block_B * layers + torch.arange(layers, device=device)[:, None]) * room + rows_B
        return ((row_LB[:, :, None] * groups + heads_G) * BLOCK_TOKENS + place_B[:, None]).flatten(1)

    def _mask(self, tokens_B: Tensor, memory: BlockCache, *, places: int) -> Tensor:
        """What is added to the logits of attention, minus infinity where a token may not look: (B, G, H / G, S)."""
        lengths_B = memory.lengths_B
        window_tokens = self._model.configuration.window_tokens or places
        places_S = torch.arange(places, device=lengths_B.device)
        may_B1S = within_window(lengths_B[:, None], places_S, window_tokens=window_tokens)
        each = self._heads // self._groups
        if self._model.listener is not None:
            looking, seen = memory.hear(tokens_B, places=places)
            bias_BHS: Tensor = self._model.relative([(looking, seen, may_B1S)])[0][:, :, 0]
            return bias_BHS.reshape(len(tokens_B), self._groups, each, places)
        bias_B1S = torch.zeros_like(may_B1S, dtype=self._cosines.dtype).masked_fill_(~may_B1S, -torch.inf)
        return bias_B1S[:, None].expand(-1, self._groups, each, -1)

    def _attended(
        self, queries_BHD: Tensor, memory: BlockCache, layer: int, reached: Sequence[int], mask_BGMS: Tensor
    ) -> Tensor:
        """Attention to what each row has read; shape (B, W)."""
        each, scale = self._heads // self._groups, self._head_width**-0.5
        queries = queries_BHD.reshape(-1, each, self._head_width)
        scores = mask_BGMS.clone(memory_format=torch.contiguous_format).flatten(0, 1)
        for block, rows in enumerate(reached):
            keys = memory.keys_NLRGPD[block, layer, :rows].flatten(0, 1)
            start, heads = block * BLOCK_TOKENS, rows * self._groups
            found = torch.bmm(queries[:heads], keys.transpose(1, 2))
            scores[:heads, :, start : start + BLOCK_TOKENS].add_(found, alpha=scale)
        weights = scores.softmax(-1)
        mixed = torch.bmm(weights[:, :, :BLOCK_TOKENS], memory.values_NLRGPD[0, layer, : reached[0]].flatten(0, 1))
        for block, rows in enumerate(reached[1:], start=1):
            values = memory.values_NLRGPD[block, layer, :rows].flatten(0, 1)
            start, heads = block * BLOCK_TOKENS, rows * self._groups
            mixed[:heads].baddbmm_(weights[:heads, :, start : start + BLOCK_TOKENS], values)
        return mixed.view(len(queries_BHD), -1)


def blocks_of(lengths_B: Tensor) -> NDArray[np.int64]:
    """Blocks that rows look at with one more token; shape (B,)."""
    blocks_B: NDArray[np.int64] = lengths_B.cpu().numpy() // BLOCK_TOKENS + 1
    return blocks_B


def reached_by(blocks_B: NDArray[np.int64]) -> list[int]:
    """How many rows from the first on must be walked through for each block: to the last one that has it."""
    deepest_B = np.maximum.accumulate(blocks_B[::-1])[::-1]
    return [int(np.count_nonzero(deepest_B > block)) for block in range(int(blocks_B.max()))]


def settled(blocks_B: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """An order in which rows of many blocks come first and as few as may be move; None: little would be won."""
    needed = int(blocks_B.sum())
    if sum(reached_by(blocks_B)) <= needed * (1 + _MOST_WASTE):
        return None
    wanted_B = np.sort(blocks_B)[::-1]
    places = np.flatnonzero(blocks_B != wanted_B)
    order = np.arange(len(blocks_B))
    order[places] = places[np.argsort(-blocks_B[places], kind="stable")]
    return order


def _turned(x_BHD: Tensor, cosines_B1D: Tensor, sines_B1D: Tensor) -> Tensor:
    swapped = x_BHD.view(*x_BHD.shape[:2], 2, -1).flip(2).flatten(2)
    return torch.addcmul(x_BHD * cosines_B1D, swapped, sines_B1D)


def _normed(x_BW: Tensor) -> Tensor:
    return functional.rms_norm(x_BW, x_BW.shape[-1:], eps=_EPSILON)
