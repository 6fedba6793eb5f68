"""A decoder made ready to step on a processor: one compiled call a thread (:mod:`tutti.models.decoder.loops`).

Rows are shared out among threads that each go through the whole network by themselves and meet once a step: threads
that share each product wait for one another thirty times a step, and took longer than one alone. What a row hears never
depends on the rows beside it, to the bit.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutti.models.decoder import loops
from tutti.models.decoder.slots import SlotCache
from tutti.models.panels import panels_of, zeros

if TYPE_CHECKING:
    from tutti.models.decoder.network import Decoder

_FEWEST_ROWS = 8
"""Below so many rows for each, a second thread costs more than it brings."""
_ROW_TOKENS = 300.0
"""A row costs as much as looking at so many places."""


def _weights(model: Decoder, dtype: torch.dtype) -> loops.Weights:
    configuration = model.configuration
    names = ("query_key_value", "output", "gate_and_up", "down")
    panels: dict[str, NDArray[Any]] = {}
    blocks: Any = model.blocks
    for number, block in enumerate(blocks):
        attention_gain, gain = block.attention_norm.weight, block.feed_forward_norm.weight
        of_block = (
            block.attention.query_key_value.weight * attention_gain,
            block.attention.output.weight,
            block.gate_and_up.weight * gain,
            block.down.weight,
        )
        for name, weight in zip(names, of_block, strict=True):
            laid_out = panels_of(weight, dtype=dtype)
            if number == 0:
                panels[name] = zeros((configuration.layers, *laid_out.shape), laid_out.dtype)
            panels[name][number] = laid_out
    return loops.Weights(
        embedding_VW=model.embedding.weight.detach().numpy(),
        **panels,
        head=panels_of(model.embedding.weight * model.norm.weight, dtype=torch.float32),
        cosines_TD=model.cosines.numpy(),
        sines_TD=model.sines.numpy(),
        heads=configuration.heads,
        groups=configuration.groups,
        inner=configuration.feed_forward,
        window_tokens=configuration.window_tokens or configuration.max_tokens,
    )


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
        with torch.inference_mode():
            self._weights = _weights(model, dtype)

    @staticmethod
    def takes(model: Decoder) -> bool:
        """Whether a model has such steps: on a processor, without relative attention."""
        return model.embedding.weight.device.type == "cpu" and model.listener is None

    def new_memory(self, *, room_rows: int, capacity_tokens: int) -> SlotCache:
        """As :class:`tutti.models.reader.Steps`."""
        return SlotCache(self._configuration, room_rows=room_rows, capacity_tokens=capacity_tokens, dtype=self._dtype)

    def __call__(self, tokens_B: Tensor, memory: SlotCache) -> Tensor:
        """As :class:`tutti.models.reader.Steps`."""
        tokens, lengths_B = tokens_B.numpy(), memory.lengths_B.numpy()
        logits_BV = np.empty((len(tokens), loops.columns_of(self._weights.head)), dtype=np.float32)

        def step(start: int, stop: int) -> None:
            loops.step(
                self._weights, tokens[start:stop], lengths_B[start:stop], memory.slots_B[start:stop],
                memory.keys_RLNGKCE, memory.values_RLNGKCE, logits_BV[start:stop],
            )  # fmt: skip

        threads = max(min(torch.get_num_threads(), len(tokens) // _FEWEST_ROWS), 1)
        mine, *others = pairwise(_shares(lengths_B, threads))
        asked = [_pool(threads).submit(step, *other) for other in others]
        # Who asks steps too: to wake another thread takes longer than a row's step.
        step(*mine)
        for other in asked:
            other.result()
        memory.lengths_B = memory.lengths_B + 1
        return torch.from_numpy(logits_BV[:, : self._configuration.vocabulary_size])

    def order(self, memory: SlotCache) -> None:  # noqa: ARG002
        """As :class:`tutti.models.reader.Steps`: any."""
        return


def _shares(lengths_B: NDArray[np.int64], threads: int) -> list[int]:
    """Where each thread's rows begin, and where the last one's end: about as much work for each."""
    if threads == 1:
        return [0, len(lengths_B)]
    work_B = np.cumsum(lengths_B + _ROW_TOKENS)
    inner = np.searchsorted(work_B, work_B[-1] * np.arange(1, threads) / threads).tolist()
    return [0, *inner, len(lengths_B)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="steps")
