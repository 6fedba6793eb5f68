"""What a model has read of rows under way, and what it says next of each; led by conditions as strongly as is asked.

A row whose guidance is not 1 is read twice, with its soft conditions and without them, and what the conditions change
in the logarithms of the probabilities is multiplied:

    log p = log p_without + guidance * (log p_with - log p_without), up to a constant

Sources: Ho and Salimans 2022 (classifier-free guidance, arXiv 2207.12598); Sanchez et al. 2023 (for language models,
arXiv 2306.17806), whose convention this is: 1 leaves the model as it is.

Legend: B rows, G rows read twice, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from tutti.features.vocabulary import ANY, BAR, EVENTS
from tutti.models.reader import Memory, Reader

SOFT_KINDS = ("Collection", "Density", "Mood")
"""Controls that lead and do not bind; what binds is the grammar's, and stands in both readings."""

_UNSAID = {token: EVENTS[f"{kind}_{ANY}"] for kind in SOFT_KINDS for token in EVENTS.span(kind)}


def unled(tokens: Sequence[int], *, head: int) -> list[int]:
    """A sequence whose first ``head`` tokens state no soft condition; as long as it was."""
    return [_UNSAID.get(token, token) for token in tokens[:head]] + list(tokens[head:])


class Reading:
    """A model's memory of B rows, each at its own length.

    Args:
        model: that reads.
        sequences: what there is of each row.
        heads: how many tokens of each are controls, which are never forgotten.
        seeds_B: of each row, for models that draw.
        context_tokens: how far back the model looks.
    """

    def __init__(
        self,
        model: Reader,
        sequences: Sequence[Sequence[int]],
        *,
        heads: Sequence[int],
        seeds_B: NDArray[np.uint64],
        context_tokens: int,
    ) -> None:
        self._model, self._seeds_B, self._context_tokens = model, seeds_B, context_tokens
        self._tokens, self._heads = [list(sequence) for sequence in sequences], list(heads)
        self._cache: Memory = model.new_cache(rows=len(sequences), capacity_tokens=context_tokens, seeds=seeds_B)

    def first(self) -> NDArray[np.float32]:
        """Logits of the token after each sequence; shape (B, V)."""
        prompts = [self._recent(tokens, head) for tokens, head in zip(self._tokens, self._heads, strict=True)]
        longest = max(len(prompt) for prompt in prompts)
        device = self._cache.lengths_B.device
        padded_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
        for index, prompt in enumerate(prompts):
            padded_BT[index, : len(prompt)] = torch.tensor(prompt)
        counts_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        logits_BTV = self._model.read(padded_BT.to(device), self._cache, counts_B=counts_B)
        last = logits_BTV[torch.arange(len(prompts), device=device), counts_B - 1]
        return last.float().cpu().numpy()

    def following(self, tokens_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits after one more token of each row; shape (B, V)."""
        for index in torch.nonzero(self._cache.lengths_B >= self._cache.capacity_tokens).flatten().tolist():
            self._look_back(index)
        for sequence, token in zip(self._tokens, tokens_B.tolist(), strict=True):
            sequence.append(token)
        device = self._cache.lengths_B.device
        logits = self._model.read(torch.from_numpy(tokens_B)[:, None].to(device), self._cache)[:, -1]
        return logits.float().cpu().numpy()

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._tokens = [self._tokens[row] for row in rows.tolist()]
        self._heads = [self._heads[row] for row in rows.tolist()]
        self._seeds_B = self._seeds_B[rows]
        self._cache.keep(torch.from_numpy(rows))

    def _look_back(self, index: int) -> None:
        """A row whose cache is full reads its latest bars anew, leaving room for as many tokens again."""
        recent = self._recent(self._tokens[index], self._heads[index])
        fresh = self._model.new_cache(
            rows=1, capacity_tokens=self._cache.capacity_tokens, seeds=self._seeds_B[index : index + 1]
        )
        self._model.read(torch.tensor([recent], device=self._cache.lengths_B.device), fresh)
        self._cache.put_row(index, fresh)

    def _recent(self, tokens: list[int], head: int) -> list[int]:
        """The head and the latest whole bars that fit half of the context; all of it where it fits."""
        room = self._context_tokens // 2
        if len(tokens) <= room:
            return tokens
        bars = [index for index in range(head, len(tokens)) if tokens[index] == BAR]
        meters = EVENTS.span("Meter")
        start = next((bar for bar in bars if len(tokens) - bar + head + 1 <= room), len(tokens) - room + head + 1)
        meter = next(token for token in reversed(tokens[: start + 2]) if token in meters)
        recent = tokens[start:]
        if recent[0] == BAR and len(recent) > 1 and recent[1] not in meters:
            recent = [BAR, meter, *recent[1:]]
        return tokens[:head] + recent


class GuidedReading:
    """A reading of B rows, of which those are read a second time that ask to be led otherwise than the model would.

    Args:
        model, sequences, heads, seeds_B, context_tokens: as for :class:`Reading`.
        guidance_B: of each row; 1 costs nothing, nor does a row without a soft condition.
    """

    def __init__(
        self,
        model: Reader,
        sequences: Sequence[Sequence[int]],
        *,
        heads: Sequence[int],
        guidance_B: Sequence[float],
        seeds_B: NDArray[np.uint64],
        context_tokens: int,
    ) -> None:
        self._led = Reading(model, sequences, heads=heads, seeds_B=seeds_B, context_tokens=context_tokens)
        plain = [unled(tokens, head=head) for tokens, head in zip(sequences, heads, strict=True)]
        twice = [
            guidance != 1 and list(tokens) != other
            for guidance, tokens, other in zip(guidance_B, sequences, plain, strict=True)
        ]
        self._guided_G = np.flatnonzero(twice)
        self._guidance_G = np.array(guidance_B, dtype=np.float64)[self._guided_G]
        self._unled: Reading | None = None
        if len(self._guided_G):
            rows = self._guided_G.tolist()
            self._unled = Reading(
                model,
                [plain[row] for row in rows],
                heads=[heads[row] for row in rows],
                seeds_B=seeds_B[self._guided_G],
                context_tokens=context_tokens,
            )

    def first(self) -> NDArray[np.float32]:
        """Logits of the token after each sequence; shape (B, V)."""
        led_BV = self._led.first()
        return led_BV if self._unled is None else self._extrapolated(led_BV, self._unled.first())

    def following(self, tokens_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits after one more token of each row; shape (B, V)."""
        led_BV = self._led.following(tokens_B)
        if self._unled is None:
            return led_BV
        return self._extrapolated(led_BV, self._unled.following(tokens_B[self._guided_G]))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these, which are in their order."""
        self._led.keep(rows)
        if self._unled is None:
            return
        stays = np.flatnonzero(np.isin(self._guided_G, rows))
        if len(stays) < len(self._guided_G):
            self._unled.keep(stays)
        self._guided_G = np.searchsorted(rows, self._guided_G[stays])
        self._guidance_G = self._guidance_G[stays]
        if not len(stays):
            self._unled = None

    def _extrapolated(self, led_BV: NDArray[np.float32], unled_GV: NDArray[np.float32]) -> NDArray[np.float32]:
        with_GV = log_softmax(led_BV[self._guided_G].astype(np.float64), axis=1)
        without_GV = log_softmax(unled_GV.astype(np.float64), axis=1)
        out_BV = led_BV.copy()
        out_BV[self._guided_G] = without_GV + self._guidance_G[:, None] * (with_GV - without_GV)
        return out_BV
