"""Choosing tokens: temperature, top-p, and draws that belong to a row, not to a batch.

Legend: B rows, V vocabulary, K tokens that are still candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti import seeding

# Scores this far below the likeliest, in nats, have no mass that a draw of 53 bits could find.
_FURTHEST = 64.0


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
    scores_BV = logits_BV / temperature_B[:, None].astype(np.float32)
    np.copyto(scores_BV, -np.inf, where=~allowed_BV)
    below_BV = scores_BV.max(axis=1, keepdims=True) - scores_BV
    tokens_BK = _likeliest(below_BV, most=int(np.count_nonzero(allowed_BV, axis=1).max()))
    rows_B = np.arange(len(tokens_BK))
    reached_BK = np.cumsum(np.exp(-below_BV[rows_B[:, None], tokens_BK]), axis=1, dtype=np.float64)
    # A token is in while those before it do not hold the mass yet: the first always, and none that is not allowed.
    inside_B = (reached_BK < top_p_B[:, None] * reached_BK[:, -1:]).sum(axis=1)
    inside_B = np.minimum(inside_B, (reached_BK < reached_BK[:, -1:]).sum(axis=1))
    draws_B = seeding.uniform_at(seeds_B, counters_B) * reached_BK[rows_B, inside_B]
    picked_B = np.minimum((reached_BK <= draws_B[:, None]).sum(axis=1), inside_B)
    chosen_B: NDArray[np.int64] = tokens_BK[rows_B, picked_B]
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


def _likeliest(below_BV: NDArray[np.float32], *, most: int) -> NDArray[np.int64]:
    """The ``most`` likeliest tokens of each row in their order, equal ones by their number; shape (B, K).

    One sort of whole numbers, how far a score lies below the best above its token: numpy sorts 32 bits several times
    faster than it finds the order of floats. Scores within a 65,000th of a nat are equal.

    Args:
        below_BV: of each score below the best of its row; infinite where it is not allowed.
    """
    tokens = below_BV.shape[1]
    token_bits = (tokens - 1).bit_length()
    # Whole numbers that 32-bit floats hold, one by one.
    steps = 2 ** min(32 - token_bits, 22) - 1
    far_BV = np.minimum(below_BV * np.float32((steps - 1) / _FURTHEST), np.float32(steps - 1))
    keys_BV = far_BV.astype(np.uint32)
    np.copyto(keys_BV, steps, where=np.isinf(below_BV))
    keys_BV <<= np.uint32(token_bits)
    keys_BV |= np.arange(tokens, dtype=np.uint32)
    keys_BV.sort(axis=1)
    tokens_BK: NDArray[np.int64] = (keys_BV[:, :most] & np.uint32(2**token_bits - 1)).astype(np.int64)
    return tokens_BK
