"""Order as a pure function of integers.

``(seed, epoch, number of samples)`` gives one permutation, ``(step, rank, num_ranks)`` its slice. Nothing is
remembered: the global batch at a step is the same on any number of ranks, after a crash and after a resize.

The permutation is a four-round Feistel network over the smallest even number of bits that holds the samples, walked
along its cycle until it falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Any
element is found alone, so a thousand million samples need no memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti import seeding

Index = NDArray[np.int64]
_ROUNDS = 4


def permuted(positions: NDArray[np.integer], *, seed: int, epoch: int, num_samples: int) -> Index:
    """Sample at each position of an epoch's permutation; positions in [0, num_samples), same shape."""
    half_bits = max((max(num_samples - 1, 1).bit_length() + 1) // 2, 1)
    keys = np.array(
        [seeding.derive(seed, "order", epoch, round_number) for round_number in range(_ROUNDS)], dtype=np.uint64
    )
    values = np.asarray(positions, dtype=np.uint64).copy()
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys=keys, half_bits=half_bits)
        outside = values >= num_samples
    return values.astype(np.int64)


def global_batch(step: int, *, seed: int, num_samples: int, batch_size: int) -> tuple[Index, Index]:
    """Epochs and samples of the batch at ``step``, counted from 0; each of shape (batch_size,).

    The stream of samples is epoch after epoch without a remainder, so a batch may hold the end of one and the start of
    the next.
    """
    stream = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
    epochs, positions = np.divmod(stream, num_samples)
    samples = np.empty_like(stream)
    for epoch in np.unique(epochs).tolist():
        here = epochs == epoch
        samples[here] = permuted(positions[here], seed=seed, epoch=epoch, num_samples=num_samples)
    return epochs, samples


def slice_of_rank(batch: Index, *, rank: int, num_ranks: int) -> Index:
    """The part of a global batch that one rank takes: contiguous, equal parts.

    Raises:
        ValueError: the batch cannot be divided equally.
    """
    if len(batch) % num_ranks:
        raise ValueError(f"a global batch of {len(batch)} cannot be divided among {num_ranks} ranks")
    share = len(batch) // num_ranks
    return batch[rank * share : (rank + 1) * share]


def _feistel(values: NDArray[np.uint64], *, keys: NDArray[np.uint64], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (seeding.mix64(right ^ key) & mask)
    return (left << shift) | right
