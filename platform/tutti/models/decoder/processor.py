"""A decoder made ready to step on a processor: oneDNN's products, and compiled loops between them.

Rows are shared out among threads that each go through the whole network by themselves and meet once a step: threads
that share each product wait for one another thirty times a step, and took longer than one alone. What a row hears never
depends on the rows beside it, to the bit (:mod:`tutti.models.matrices`, :mod:`tutti.models.decoder.loops`).

Legend: B rows, W width, F inner width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from threading import Barrier
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutti.models.decoder import loops
from tutti.models.decoder.slots import SlotCache
from tutti.models.matrices import Matrix

if TYPE_CHECKING:
    from tutti.models.decoder.network import Block, Decoder

_FEWEST_ROWS = 8
"""Below so many rows for each, a second thread costs more than it brings."""
_SAME_SHAPE_ROWS = 4
"""Rows of a product are rounded up to a multiple of these: oneDNN prepares itself anew for each number of rows."""
_ROW_TOKENS = 300.0
"""A row costs as much as looking at so many places."""


class _Layer:
    """Weights of one block; the norms' gains are multiplied into those behind them."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention_gain, gain = block.attention_norm.weight, block.feed_forward_norm.weight
        self.query_key_value = Matrix((block.attention.query_key_value.weight * attention_gain).to(dtype))
        self.output = Matrix(block.attention.output.weight.to(dtype))
        self.gate_and_up = Matrix((block.gate_and_up.weight * gain).to(dtype))
        self.down = Matrix(block.down.weight.to(dtype))


class ProcessorSteps:
    """Steps of a decoder without relative attention; see :class:`tutti.models.reader.Steps`.

    Args:
        model: whose weights, as they are now, are taken.
        dtype: of the products and of what is remembered: ``float32`` or ``bfloat16``. Sums, the residual stream and the
            logits are of 32 bits always.
    """

    draws = False

    def __init__(self, model: Decoder, *, dtype: torch.dtype = torch.float32) -> None:
        self._configuration, self._dtype = model.configuration, dtype
        self._window_tokens = model.configuration.window_tokens or model.configuration.max_tokens
        with torch.inference_mode():
            self._layers = [_Layer(block, dtype) for block in model.blocks]  # type: ignore[arg-type]
            self._head = Matrix(model.embedding.weight * model.norm.weight)
            self._embedding_VW = model.embedding.weight.detach().numpy()
            self._cosines_SD, self._sines_SD = model.cosines.numpy(), model.sines.numpy()

    @staticmethod
    def takes(model: Decoder) -> bool:
        """Whether a model has such steps: on a processor, no relative attention, heads of whole turns of a loop."""
        configuration = model.configuration
        return (
            model.embedding.weight.device.type == "cpu"
            and torch._C._has_mkldnn
            and model.listener is None
            and (configuration.width // configuration.heads) % loops.CHANNELS_A_TURN == 0
        )

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> SlotCache:
        """As :class:`tutti.models.reader.Steps`."""
        return SlotCache(self._configuration, room_rows=room_rows, capacity_tokens=capacity_tokens, dtype=self._dtype)

    def __call__(self, tokens_B: Tensor, memory: SlotCache) -> Tensor:
        """As :class:`tutti.models.reader.Steps`."""
        lengths_B = memory.lengths_B.numpy()
        tokens = tokens_B.numpy()
        logits_BV = torch.empty(len(tokens), self._configuration.vocabulary_size)
        threads = max(min(torch.get_num_threads(), len(tokens) // _FEWEST_ROWS), 1)
        at = _shares(lengths_B, threads)
        parts = [slice(start, stop) for start, stop in pairwise(at)]

        def walk(part: slice) -> None:
            self._walk(tokens[part], lengths_B[part], memory.slots_B[part], memory, logits_BV[part])

        others = [_pool().submit(walk, part) for part in parts[1:]]
        # Who asks walks too: to wake another thread takes longer than a row's step.
        with _alone():
            walk(parts[0])
        for other in others:
            other.result()
        memory.lengths_B = memory.lengths_B + 1
        return logits_BV

    def order(self, memory: SlotCache) -> None:  # noqa: ARG002
        """As :class:`tutti.models.reader.Steps`: any."""
        return

    @torch.inference_mode()
    def _walk(
        self,
        tokens_B: NDArray[np.int64],
        lengths_B: NDArray[np.int64],
        slots_B: NDArray[np.int64],
        memory: SlotCache,
        out_BV: Tensor,
    ) -> None:
        """Some rows through the whole network."""
        rows, width, inner = len(tokens_B), self._configuration.width, self._configuration.feed_forward
        padded = -(-rows // _SAME_SHAPE_ROWS) * _SAME_SHAPE_ROWS if rows > 2 else rows
        x_BW = np.empty((rows, width), dtype=np.float32)
        normed, mixed = torch.zeros(2, padded, width, dtype=self._dtype)
        inside = torch.zeros(padded, inner, dtype=self._dtype)
        normed_BW, mixed_BW, inside_BF = _numbers(normed)[:rows], _numbers(mixed)[:rows], _numbers(inside)[:rows]
        loops.embed(tokens_B, self._embedding_VW, x_BW, normed_BW)
        for number, layer in enumerate(self._layers):
            packed_BN = _numbers(layer.query_key_value(normed))[:rows]
            loops.attend(
                packed_BN, self._cosines_SD, self._sines_SD, lengths_B, slots_B,
                memory.keys_RLNGDP, memory.values_RLNGPD, number, self._window_tokens, mixed_BW,
            )  # fmt: skip
            loops.add_and_norm(_numbers(layer.output(mixed))[:rows], x_BW, normed_BW)
            loops.swish_and_multiply(_numbers(layer.gate_and_up(normed))[:rows], inside_BF)
            if number + 1 < len(self._layers):
                loops.add_and_norm(_numbers(layer.down(inside))[:rows], x_BW, normed_BW)
        last = torch.zeros(padded, width)
        loops.add_and_norm(_numbers(layer.down(inside))[:rows], x_BW, last.numpy()[:rows])
        out_BV.copy_(self._head(last)[:rows])


def _numbers(values: Tensor) -> NDArray[np.float32] | NDArray[np.uint16]:
    """The same memory as loops take it."""
    return (values if values.dtype == torch.float32 else values.view(torch.uint16)).numpy()


def _shares(lengths_B: NDArray[np.int64], threads: int) -> list[int]:
    """Where each thread's rows begin, and where the last one's end: about as much work for each."""
    if threads == 1:
        return [0, len(lengths_B)]
    work_B = np.cumsum(lengths_B + _ROW_TOKENS)
    inner = np.searchsorted(work_B, work_B[-1] * np.arange(1, threads) / threads).tolist()
    return [0, *inner, len(lengths_B)]


@contextmanager
def _alone() -> Iterator[None]:
    """Products of this thread are its own meanwhile."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads whose products are their own."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="steps", initializer=torch.set_num_threads, initargs=(1,))
    # New threads begin with the process's number of threads, which the initialiser changes too: all of them are there
    # before it is put back.
    meeting = Barrier(threads)
    for started in [pool.submit(meeting.wait) for _ in range(threads)]:
        started.result()
    torch.set_num_threads(threads)
    return pool
