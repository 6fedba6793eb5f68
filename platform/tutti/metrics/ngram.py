"""Count models: what a lookup table reaches, so that a network has something to beat.

Goal: NLL of unigram and bigram models on the very tokens that a network is judged on. Convention: natural logarithm,
token mean. Smoothing: Witten and Bell 1991 ("The zero-frequency problem", IEEE Trans. Inf. Theory 37), the bigram
backing off into the unigram and that into the uniform distribution. Empty input returns NaN.

Legend: V vocabulary, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.integer]


class CountModel:
    """Unigram and bigram counts over a vocabulary of V tokens."""

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size
        self._pairs_VV = np.zeros((vocabulary_size, vocabulary_size), dtype=np.int64)

    def fit(self, sequences: Iterable[Tokens], *, judged: NDArray[np.bool_]) -> CountModel:
        """Count pairs whose second token is judged.

        Args:
            sequences: token ids.
            judged: which tokens are predicted (controls are given, not predicted); shape (V,).
        """
        for tokens in sequences:
            before, after = _pairs(tokens, judged)
            np.add.at(self._pairs_VV, (before, after), 1)
        return self

    def nll(self, sequences: Iterable[Tokens], *, judged: NDArray[np.bool_]) -> dict[str, float]:
        """Mean NLL of the judged tokens in nats per token, as ``unigram`` and ``bigram``."""
        counts_V = self._pairs_VV.sum(axis=0)
        unigram_V = _witten_bell(counts_V, np.full(self._size, 1 / self._size))
        seen_V = self._pairs_VV.sum(axis=1)
        kinds_V = (self._pairs_VV > 0).sum(axis=1)
        backing_V = np.where(seen_V > 0, kinds_V / np.maximum(seen_V + kinds_V, 1), 1.0)
        pairs = [_pairs(tokens, judged) for tokens in sequences]
        if not pairs:
            return {"unigram": float("nan"), "bigram": float("nan")}
        before = np.concatenate([pair[0] for pair in pairs])
        after = np.concatenate([pair[1] for pair in pairs])
        direct = self._pairs_VV[before, after] / np.maximum(seen_V + kinds_V, 1)[before]
        bigram = direct + backing_V[before] * unigram_V[after]
        return {"unigram": float(-np.log(unigram_V[after]).mean()), "bigram": float(-np.log(bigram).mean())}


def _witten_bell(counts_V: NDArray[np.int64], prior_V: NDArray[np.float64]) -> NDArray[np.float64]:
    total, kinds = counts_V.sum(), (counts_V > 0).sum()
    if total == 0:
        return prior_V
    out: NDArray[np.float64] = (counts_V + kinds * prior_V) / (total + kinds)
    return out


def _pairs(tokens: Tokens, judged: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    before, after = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
    kept = judged[after]
    return before[kept], after[kept]
