"""Choosing tokens: temperature, top-p, and draws that belong to a row, not to a batch.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti import seeding


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

    Nucleus sampling is Holtzman et al. 2020 (arXiv 1904.09751). The draw is a function of a row's seed and counter
    alone, so a neighbour in the batch never changes it.

    Args:
        logits_BV: scores.
        allowed_BV: tokens that may come; at least one a row.
        temperature_B, top_p_B: of each row's request.
        seeds_B, counters_B: random stream of each row and how far it is.
    """
    scores = np.where(allowed_BV, logits_BV.astype(np.float64) / temperature_B[:, None], -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(axis=1, keepdims=True)
    before = np.cumsum(weights, axis=1) - weights
    weights[before >= top_p_B[:, None]] = 0.0
    reached = np.cumsum(weights, axis=1)
    draws = seeding.uniform_at(seeds_B, counters_B) * reached[:, -1]
    picked = np.minimum((reached <= draws[:, None]).sum(axis=1), (weights > 0).sum(axis=1) - 1)
    return np.take_along_axis(order, picked[:, None], axis=1)[:, 0]
