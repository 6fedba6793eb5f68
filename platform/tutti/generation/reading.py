"""What a model has read of rows under way, and what it says next of each; led by conditions as strongly as is asked.

A row whose guidance is not 1 is read twice, with its soft conditions and without them, and what the conditions change
in the logarithms of the probabilities is multiplied:

    log p = log p_without + guidance * (log p_with - log p_without), up to a constant

Sources: Ho and Salimans 2022 (classifier-free guidance, arXiv 2207.12598); Sanchez et al. 2023 (for language models,
arXiv 2306.17806), whose convention this is: 1 leaves the model as it is.

Legend: B rows, N readings of them, V vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from tutti.features.vocabulary import ANY, BAR, EVENTS
from tutti.models.reader import Memory, PlainSteps, Reader, Steps

SOFT_KINDS = ("Collection", "Density", "Mood")
"""Controls that lead and do not bind; what binds is the grammar's, and stands in both readings."""

_MOST_SHARED, _MOST_SHARED_TOKENS = 16, 32
"""Beginnings that are kept, the latest used ones, and how long they may be."""

_UNSAID = {token: EVENTS[f"{kind}_{ANY}"] for kind in SOFT_KINDS for token in EVENTS.span(kind)}


def unled(tokens: Sequence[int], *, head: int) -> list[int]:
    """A sequence whose first ``head`` tokens state no soft condition; as long as it was."""
    return [_UNSAID.get(token, token) for token in tokens[:head]] + list(tokens[head:])


class Reading:
    """A model's memory of rows, each at its own length, that come and go.

    What a row hears is a function of its own tokens: it is read in by itself, and steps whose sums do not depend on the
    rows beside it.

    Args:
        model: that reads.
        steps: the same, made ready to step.
        room_rows: most rows at a time.
        context_tokens: how far back the model looks.
    """

    def __init__(self, model: Reader, steps: Steps, *, room_rows: int, context_tokens: int) -> None:
        self._model, self._steps, self._context_tokens = model, steps, context_tokens
        self._tokens: list[list[int]] = []
        self._heads: list[int] = []
        self._seeds: list[int] = []
        # Where the memory keeps each row: it may like another order.
        self._places_B = np.zeros(0, dtype=np.int64)
        self._heard: OrderedDict[tuple[int, ...], tuple[Memory, NDArray[np.float32]]] = OrderedDict()
        self._memory: Memory = steps.new_memory(room_rows=room_rows, capacity_tokens=context_tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def memory_bytes(self) -> int:
        """Of all rows that there is room for."""
        return self._memory.size_bytes

    @property
    def exact(self) -> bool:
        """Whether what a row hears does not depend, to the bit, on the rows beside it.

        So are steps on a processor; the usual products, and those of other devices, round by the number of rows.
        """
        return not isinstance(self._steps, PlainSteps) and self._memory.lengths_B.device.type == "cpu"

    def join(
        self, tokens: Sequence[int], *, head: int, seed: int, latents: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """One more row; logits of the token after it, of shape (V,).

        Args:
            tokens: what there is of it.
            head: how many of them are controls, which are never forgotten.
            seed: of the row, for models that draw.
            latents: that its first bars take in place of drawn ones, of models that have any; shape (bars, Z).
        """
        self._tokens.append(list(tokens))
        self._heads.append(head)
        self._seeds.append(seed)
        recent = self._beginning_and_end(self._tokens[-1], head)
        fresh, logits_V = self._read_in(len(self._tokens) - 1, recent, latents=latents)
        self._places_B = np.append(self._places_B, len(self._places_B))
        self._memory.join(fresh)
        return logits_V

    def following(self, tokens_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits after one more token of each row; shape (B, V)."""
        for row in np.flatnonzero(self._full()).tolist():
            fresh, _ = self._read_in(row, self._recent(self._tokens[row], self._heads[row]))
            self._memory.put_row(int(self._places_B[row]), fresh)
        for sequence, token in zip(self._tokens, tokens_B.tolist(), strict=True):
            sequence.append(token)
        order = self._steps.order(self._memory)
        if order is not None:
            self._place(order)
        held_B = np.empty_like(tokens_B)
        held_B[self._places_B] = tokens_B
        logits_BV = self._steps(torch.from_numpy(held_B).to(self._memory.lengths_B.device), self._memory)
        said: NDArray[np.float32] = logits_BV.float().cpu().numpy()
        return said[self._places_B]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._tokens = [self._tokens[row] for row in rows.tolist()]
        self._heads = [self._heads[row] for row in rows.tolist()]
        self._seeds = [self._seeds[row] for row in rows.tolist()]
        self._places_B = self._places_B[rows]
        # Who stays keeps its place, but that the last ones fill the gaps.
        order = np.arange(len(rows))
        gaps = np.setdiff1d(order, self._places_B)
        order[gaps] = self._places_B[self._places_B >= len(rows)]
        self._place(order)

    def nats(self, before: list[int], after: Sequence[int], *, head: int) -> float:
        """How unlikely tokens are after others: mean over them, in nats.

        Args:
            before: a sequence; of more than half of the context its latest bars count.
            after: what follows; as much of it counts as fits the other half.
            head: how many of the first tokens are controls.
        """
        recent, held = self._recent(before, head), list(after[: self._context_tokens // 2])
        memory: Memory = self._model.new_cache(
            rows=1, capacity_tokens=len(recent) + len(held), seeds=np.zeros(1, dtype=np.uint64)
        )
        tokens_T = torch.tensor([*recent, *held], device=memory.lengths_B.device)
        said_TV = self._model.read(tokens_T[None], memory)[0, len(recent) - 1 : -1].float().log_softmax(-1)
        return float(-said_TV.gather(-1, tokens_T[len(recent) :, None]).mean())

    def _place(self, order: NDArray[np.int64]) -> None:
        self._memory.keep(torch.from_numpy(order))
        now = np.zeros(int(order.max(initial=-1)) + 1, dtype=np.int64)
        now[order] = np.arange(len(order))
        self._places_B = now[self._places_B]

    def _full(self) -> NDArray[np.bool_]:
        lengths_B: NDArray[np.int64] = self._memory.lengths_B.cpu().numpy()
        return (lengths_B >= self._memory.capacity_tokens)[self._places_B]

    def _read_in(
        self, row: int, recent: list[int], *, latents: NDArray[np.float32] | None = None
    ) -> tuple[Memory, NDArray[np.float32]]:
        """A row by itself: its memory, and logits of what follows.

        Args:
            recent: what is read of it. A row whose memory is full reads its latest bars anew, which leaves room for as
                many tokens again.
        """
        key = tuple(recent)
        if key in self._heard:
            self._heard.move_to_end(key)
            return self._heard[key]
        fresh: Memory = self._model.new_cache(
            rows=1, capacity_tokens=len(recent), seeds=np.array([self._seeds[row]], dtype=np.uint64)
        )
        if latents is not None:
            fresh.plan([torch.from_numpy(latents)])  # type: ignore[attr-defined]
        tokens_1T = torch.tensor([recent], device=fresh.lengths_B.device)
        logits_V: NDArray[np.float32] = self._model.read(tokens_1T, fresh)[0, -1].float().cpu().numpy()
        if not self._steps.draws and len(recent) <= _MOST_SHARED_TOKENS:
            # Requests of one order share their controls, and with them the whole beginning.
            self._heard[key] = fresh, logits_V
            if len(self._heard) > _MOST_SHARED:
                self._heard.popitem(last=False)
        return fresh, logits_V

    def _beginning_and_end(self, tokens: list[int], head: int) -> list[int]:
        """Of a long file its first bars, which hold its theme, and its latest ones: three quarters of the context."""
        room = 3 * self._context_tokens // 4
        if len(tokens) <= room:
            return tokens
        first = [index for index in range(head, head + room // 4) if tokens[index] == BAR]
        theme = tokens[: first[-1]] if len(first) > 1 else tokens[:head]
        return theme + self._recent(tokens, head, room=room - len(theme) + head)[head:]

    def _recent(self, tokens: list[int], head: int, *, room: int | None = None) -> list[int]:
        """The head and the latest whole bars that fit.

        Args:
            room: how many tokens; None: half of the context. All of it where it fits.
        """
        room = self._context_tokens // 2 if room is None else room
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
        model, steps, room_rows, context_tokens: as for :class:`Reading`; a row that is read twice takes two.
    """

    def __init__(self, model: Reader, steps: Steps, *, room_rows: int, context_tokens: int) -> None:
        self._reading = Reading(model, steps, room_rows=room_rows, context_tokens=context_tokens)
        self._guidance_B = np.zeros(0)
        # Which reading is a row's, and which its second, led by no soft condition; -1: it has none.
        self._led_B = np.zeros(0, dtype=np.int64)
        self._unled_B = np.zeros(0, dtype=np.int64)

    @property
    def memory_bytes(self) -> int:
        """Of all rows that there is room for."""
        return self._reading.memory_bytes

    @property
    def exact(self) -> bool:
        """As :attr:`Reading.exact`."""
        return self._reading.exact

    @property
    def held(self) -> int:
        """Readings under way."""
        return len(self._reading)

    def nats(self, before: list[int], after: Sequence[int], *, head: int) -> float:
        """As :meth:`Reading.nats`."""
        return self._reading.nats(before, after, head=head)

    @staticmethod
    def needs(tokens: Sequence[int], *, head: int, guidance: float) -> int:
        """Readings of a row: one where it asks for no guidance, or has no condition to be led by."""
        return 1 if guidance == 1 or unled(tokens, head=head) == list(tokens) else 2

    def join(
        self,
        tokens: Sequence[int],
        *,
        head: int,
        guidance: float,
        seed: int,
        latents: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """One more row; logits of the token after it, of shape (V,).

        Args:
            tokens, head, seed, latents: as for :meth:`Reading.join`.
            guidance: how strongly its soft conditions lead it.
        """
        twice = self.needs(tokens, head=head, guidance=guidance) == 2
        held = len(self._reading)
        self._guidance_B = np.append(self._guidance_B, guidance)
        self._led_B = np.append(self._led_B, held)
        self._unled_B = np.append(self._unled_B, held + 1 if twice else -1)
        logits_V = self._reading.join(tokens, head=head, seed=seed, latents=latents)
        if not twice:
            return logits_V
        plain_V = self._reading.join(unled(tokens, head=head), head=head, seed=seed, latents=latents)
        guided_V: NDArray[np.float32] = _extrapolated(logits_V[None], plain_V[None], np.array([guidance]))[0]
        return guided_V

    def following(self, tokens_B: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits after one more token of each row; shape (B, V)."""
        guided = np.flatnonzero(self._unled_B >= 0)
        tokens_N = np.zeros(len(self._reading), dtype=np.int64)
        tokens_N[self._led_B] = tokens_B
        tokens_N[self._unled_B[guided]] = tokens_B[guided]
        logits_NV = self._reading.following(tokens_N)
        if not len(guided):
            return logits_NV
        led_BV = logits_NV[self._led_B]
        led_BV[guided] = _extrapolated(led_BV[guided], logits_NV[self._unled_B[guided]], self._guidance_B[guided])
        return led_BV

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._guidance_B, led_B, unled_B = self._guidance_B[rows], self._led_B[rows], self._unled_B[rows]
        stays = np.sort(np.concatenate((led_B, unled_B[unled_B >= 0])))
        if len(stays) < len(self._reading):
            self._reading.keep(stays)
        self._led_B = np.searchsorted(stays, led_B)
        self._unled_B = np.where(unled_B >= 0, np.searchsorted(stays, unled_B), -1)


def _extrapolated(
    led_BV: NDArray[np.float32], unled_BV: NDArray[np.float32], guidance_B: NDArray[np.float64]
) -> NDArray[np.float32]:
    with_BV = log_softmax(led_BV.astype(np.float64), axis=1)
    without_BV = log_softmax(unled_BV.astype(np.float64), axis=1)
    out_BV: NDArray[np.float32] = (without_BV + guidance_B[:, None] * (with_BV - without_BV)).astype(np.float32)
    return out_BV
