"""Choosing tokens: temperature, top-p, and draws that belong to a row, not to a batch.

Legend: B rows, V vocabulary, K tokens that are still candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.models.compiled import compiled, exponential, within

# Scores this far below the likeliest, in nats, have no mass that a draw of 53 bits could find.
_FURTHEST = np.float32(64)
_BINS = 512
_BINS_A_NAT = np.float32(_BINS / 64)


def choose(
    logits_BV: NDArray[np.float32],
    *,
    allowed_BV: NDArray[np.bool_],
    temperature_B: NDArray[np.float64],
    top_p_B: NDArray[np.float64],
    seeds_B: NDArray[np.uint64],
    counters_B: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """One token a row: the inverse of the cumulative distribution over the likeliest tokens that hold ``top_p``.

    Nucleus sampling is Holtzman et al. 2020 (arXiv 1904.09751). Tokens of the nucleus stand in the order of their
    numbers; of equally likely ones at its edge the first are in. The draw is a function of a row's seed and counter
    alone, so a neighbour in the batch never changes it.

    Args:
        logits_BV: scores.
        allowed_BV: tokens that may come; at least one a row.
        temperature_B, top_p_B: of each row's request.
        seeds_B, counters_B: random stream of each row and how far it is.
    """
    chosen_B = np.empty(len(logits_BV), dtype=np.int64)
    draws_B = seeding.uniform_at(seeds_B, counters_B)
    _choose(logits_BV, allowed_BV, (1 / temperature_B).astype(np.float32), top_p_B, draws_B, chosen_B)
    return chosen_B


def nats_of(
    tokens_B: NDArray[np.int64], *, logits_BV: NDArray[np.float32], allowed_BV: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How unlikely each token was among those that were allowed, at temperature 1, nats; shape (B,).

    A row's figure is a sum over the vocabulary in one order, whatever rows are beside it.
    """
    scores_BV = np.where(allowed_BV, logits_BV, -np.inf).astype(np.float64)
    scores_BV -= scores_BV.max(axis=1, keepdims=True)
    nats_B: NDArray[np.float64] = np.log(np.exp(scores_BV).sum(axis=1)) - scores_BV[np.arange(len(tokens_B)), tokens_B]
    return nats_B


@compiled
def _choose(logits_BV: Any, allowed_BV: Any, coolness_B: Any, top_p_B: Any, draws_B: Any, chosen_B: Any) -> None:
    vocabulary = logits_BV.shape[1]
    tokens_K = np.empty(vocabulary, dtype=np.int64)
    below_K, mass_K = np.empty(vocabulary, dtype=np.float32), np.empty(vocabulary, dtype=np.float32)
    for row in range(len(logits_BV)):
        candidates = _gathered(logits_BV[row], allowed_BV[row], coolness_B[row], tokens_K, below_K)
        for number in range(candidates):
            mass_K[number] = exponential(-below_K[number])
        if top_p_B[row] < 1:
            _keep_nucleus(below_K[:candidates], mass_K[:candidates], top_p_B[row])
        chosen_B[row] = tokens_K[_drawn(mass_K[:candidates], draws_B[row])]


@within
def _gathered(logits_V: Any, allowed_V: Any, coolness: Any, tokens_K: Any, below_K: Any) -> int:
    """The tokens that may come and have any mass, and how far they score below the likeliest; how many there are."""
    highest = np.float32(-np.inf)
    for token in range(len(logits_V)):
        if allowed_V[token]:
            highest = max(highest, logits_V[token])
    candidates = 0
    for token in range(len(logits_V)):
        if allowed_V[token]:
            below = (highest - logits_V[token]) * coolness
            tokens_K[candidates], below_K[candidates] = token, below
            candidates += below < _FURTHEST
    return candidates


@within
def _keep_nucleus(below_K: Any, mass_K: Any, top_p: float) -> None:
    """Take away the mass of all but the likeliest that hold ``top_p``: bins of like mass first, then one bin's own."""
    held_by = np.zeros(_BINS, dtype=np.float64)
    whole = 0.0
    for number in range(len(mass_K)):
        held_by[int(below_K[number] * _BINS_A_NAT)] += mass_K[number]
        whole += mass_K[number]
    wanted = top_p * whole
    held, edge = 0.0, 0
    while edge < _BINS - 1 and held + held_by[edge] < wanted:
        held += held_by[edge]
        edge += 1
    inside = np.flatnonzero((below_K * _BINS_A_NAT).astype(np.int64) == edge)
    order = np.argsort(below_K[inside], kind="mergesort")
    for place in range(len(order)):
        number = inside[order[place]]
        held, before = held + mass_K[number], held
        if before >= wanted:
            mass_K[number] = np.float32(0)
    for number in range(len(mass_K)):
        if int(below_K[number] * _BINS_A_NAT) > edge:
            mass_K[number] = np.float32(0)


@within
def _drawn(mass_K: Any, draw: float) -> int:
    """The candidate at a share of all mass."""
    whole = 0.0
    for number in range(len(mass_K)):
        whole += mass_K[number]
    reached, last = 0.0, 0
    for number in range(len(mass_K)):
        if mass_K[number] > 0:
            last = number
            reached += mass_K[number]
            if reached > draw * whole:
                break
    return last
