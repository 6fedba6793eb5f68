"""A decoder made ready to step: one token of each row, over and over.

What a row hears never depends on the rows beside it: products go row by row (:mod:`tutti.models.matrices`), and
attention looks at a stretch of the cache whose size follows from the row's own length. Neighbouring rows of one such
size share a call. On a GPU every step has one shape instead, all rows that there is room for and the whole cache, so
that a graph of its kernels is recorded once and played again.

The norms' gains are multiplied into the weights behind them.

Legend: B rows, W width, H heads of queries, G of keys and values, D channels of a head, S places of a stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tutti.models.attention import within_window
from tutti.models.cache import KeyValueCache
from tutti.models.decoder.memory import RelativeCache
from tutti.models.matrices import Matrix

if TYPE_CHECKING:
    from tutti.models.decoder.network import Block, Decoder

_FIRST_STRETCH = 64
# Calls more than there are lengths, which cost less than moving rows.
_SPARE_RUNS = 4
_EPSILON = 1e-6


class Run(NamedTuple):
    """Neighbouring rows that look at the same number of places."""

    start: int
    stop: int
    places: int


def stretches(capacity_tokens: int) -> tuple[int, ...]:
    """Numbers of places that attention looks at: 64, 128, 192, 256, then two to each octave, up to a capacity."""
    sizes = [*range(_FIRST_STRETCH, 4 * _FIRST_STRETCH, _FIRST_STRETCH)]
    octave = 4 * _FIRST_STRETCH
    while octave < capacity_tokens:
        sizes += [octave, octave + octave // 2]
        octave *= 2
    return (*(size for size in sizes if size < capacity_tokens), capacity_tokens)


def settled(looks_B: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """An order in which rows that look equally far are neighbours and as few as may be move; None: not worth it."""
    if np.count_nonzero(np.diff(looks_B)) + 1 <= len(np.unique(looks_B)) + _SPARE_RUNS:
        return None
    wanted_B = np.sort(looks_B)[::-1]
    places = np.flatnonzero(looks_B != wanted_B)
    order = np.arange(len(looks_B))
    order[places] = places[np.argsort(-looks_B[places], kind="stable")]
    return order


def _looks(lengths_B: Tensor, capacity_tokens: int) -> NDArray[np.int64]:
    """How many places rows of these lengths look at; shape (B,)."""
    sizes = np.array(stretches(capacity_tokens))
    return sizes[np.searchsorted(sizes, lengths_B.cpu().numpy())]


def _runs_of(places: NDArray[np.int64]) -> list[Run]:
    """Runs of rows that look at so many places."""
    edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    return [Run(start, stop, int(places[start])) for start, stop in pairwise(edges)]


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

    def __init__(self, model: Decoder) -> None:
        configuration = model.configuration
        self._model = model
        self._heads, self._groups = configuration.heads, configuration.groups
        self._head_width = configuration.width // configuration.heads
        self._window_tokens = configuration.window_tokens
        with torch.inference_mode():
            self._layers = [_Layer(block) for block in model.blocks]  # type: ignore[arg-type]
            self._head = Matrix(model.embedding.weight * model.norm.weight)
            # (d, d + D/2) turns by cos and -sin, sin: what is turned, times the one, and its halves swapped, the other.
            self._cosines = torch.cat((model.cosines, model.cosines), dim=1)[:, None]
            self._sines = torch.cat((-model.sines, model.sines), dim=1)[:, None]

    def __call__(self, tokens_B: Tensor, memory: KeyValueCache) -> Tensor:
        """As :class:`tutti.models.reader.Steps`."""
        lengths_B = memory.lengths_B
        runs = _runs_of(_looks(lengths_B + 1, memory.capacity_tokens))
        masks = self._masks(tokens_B, memory, runs)
        at = self._places(memory)
        cosines_B1D, sines_B1D = self._cosines[lengths_B], self._sines[lengths_B]
        x_BW = self._model.embedding(tokens_B)
        for number, layer in enumerate(self._layers):
            packed = layer.query_key_value(_normed(x_BW)).view(len(tokens_B), -1, self._head_width)
            turned = self._turned(packed[:, : self._heads + self._groups], cosines_B1D, sines_B1D)
            for held, new in (
                (memory.all_keys_LRHSD[number], turned[:, self._heads :]),
                (memory.all_values_LRHSD[number], packed[:, self._heads + self._groups :]),
            ):
                held.view(-1, self._head_width).index_copy_(0, at, new.reshape(-1, self._head_width))
            mixed_BW = self._attended(turned[:, : self._heads], memory, number, runs, masks)
            x_BW = layer.output.added(mixed_BW, x_BW)
            normed = _normed(x_BW)
            x_BW = layer.down.added(layer.up.times(normed, layer.gate.swish(normed)), x_BW)
        memory.lengths_B = lengths_B + 1
        return self._head(_normed(x_BW))

    def order(self, memory: KeyValueCache) -> NDArray[np.int64] | None:
        """As :class:`tutti.models.reader.Steps`: rows that look equally far lie side by side."""
        return settled(_looks(memory.lengths_B + 1, memory.capacity_tokens))

    def _places(self, memory: KeyValueCache) -> Tensor:
        """Where each row's new keys go, of all places of a layer, head after head; shape (B * G,)."""
        rows_B1 = torch.arange(len(memory.lengths_B), device=memory.lengths_B.device)[:, None]
        heads_G = torch.arange(self._groups, device=rows_B1.device)
        place_BG = (rows_B1 * self._groups + heads_G) * memory.capacity_tokens + memory.lengths_B[:, None]
        return place_BG.flatten()

    def _masks(self, tokens_B: Tensor, memory: KeyValueCache, runs: Sequence[Run]) -> list[Tensor]:
        """What is added to the logits of attention, minus infinity where a token may not look.

        One a run, of shape (rows * G, 1 or H / G, S).
        """
        lengths_B, capacity = memory.lengths_B, memory.capacity_tokens
        longest = max(run.places for run in runs)
        places_S = torch.arange(longest, device=lengths_B.device)
        may_B1S = within_window(lengths_B[:, None], places_S, window_tokens=self._window_tokens or capacity)
        if isinstance(memory, RelativeCache):
            looking, seen = memory.hear(tokens_B[:, None], lengths_B[:, None], counts_B=None, used=longest)
            bias_BHS = self._model.relative([(looking, seen, may_B1S)])[0][:, :, 0]
            parts = [bias_BHS[run.start : run.stop, :, : run.places] for run in runs]
            each = self._heads // self._groups
            return [part.reshape(-1, each, part.shape[-1]) for part in parts]
        bias_B1S = torch.zeros_like(may_B1S, dtype=torch.float32).masked_fill_(~may_B1S, -torch.inf)
        parts = [bias_B1S[run.start : run.stop, None, :, : run.places] for run in runs]
        return [part.expand(-1, self._groups, -1, -1).flatten(0, 1) for part in parts]

    def _attended(
        self, queries_BHD: Tensor, memory: KeyValueCache, layer: int, runs: Sequence[Run], masks: Sequence[Tensor]
    ) -> Tensor:
        """Attention to the cache; shape (B, W)."""
        each, scale = self._heads // self._groups, self._head_width**-0.5
        parts = []
        for run, mask in zip(runs, masks, strict=True):
            queries = queries_BHD[run.start : run.stop].reshape(-1, each, self._head_width)
            keys, values = (
                held[layer, run.start : run.stop, :, : run.places].flatten(0, 1)
                for held in (memory.all_keys_LRHSD, memory.all_values_LRHSD)
            )
            scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=scale)
            parts.append(torch.bmm(scores.softmax(-1), values).view(run.stop - run.start, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @staticmethod
    def _turned(x_BHD: Tensor, cosines_B1D: Tensor, sines_B1D: Tensor) -> Tensor:
        swapped = x_BHD.view(*x_BHD.shape[:2], 2, -1).flip(2).flatten(2)
        return torch.addcmul(x_BHD * cosines_B1D, swapped, sines_B1D)


def _normed(x_BW: Tensor) -> Tensor:
    return functional.rms_norm(x_BW, x_BW.shape[-1:], eps=_EPSILON)
