"""Hashes of any stretch of a sequence, each one difference of two running sums (Karp and Rabin 1987).

The sum is of hashes of codes times powers of a base, modulo 2^64; a difference divided by the power at which it begins
depends on the codes alone, not on where they are. Equal stretches have equal hashes, unlike ones with a chance of about
2^-60.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(BASE, -1, 2**64)

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Stretches:
    """Running sums of a sequence of P hashes; shape (P + 1,)."""

    sums: Words

    @classmethod
    def of(cls, hashes: Words) -> Stretches:
        """Of one hash for each place, which should look random."""
        sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
        np.cumsum(hashes * _powers(len(hashes))[0][: len(hashes)], dtype=np.uint64, out=sums[1:])
        return cls(sums)

    def hashes(self, begins: Rows, ends: Rows) -> Words:
        """The hash of each stretch from its begin to before its end; of one shape."""
        inverses = _powers(len(self.sums))[1]
        return np.asarray((self.sums[ends] - self.sums[begins]) * inverses[begins])


def _powers(size: int) -> tuple[Words, Words]:
    """At least ``size`` powers of the base and of its inverse, from the first."""
    return _table(1 << max(size - 1, 1).bit_length())


# Every size is a power of two, so all that are kept take at most twice the largest.
@lru_cache(maxsize=64)
def _table(size: int) -> tuple[Words, Words]:
    powers, inverses = (np.full(size, base, dtype=np.uint64) for base in (BASE, _INVERSE))
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)
