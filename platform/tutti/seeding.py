"""Random streams: named, derived from one root seed, the same on every machine and library version.

A stream's key is ``BLAKE2b(root, names…)``. Draws that must never change (order, generation, splits) are computed from
:func:`uniform_at`, a counter-based hash (SplitMix64's finaliser, Steele et al. 2014), because NumPy promises no stable
streams across releases (NEP 19).
"""

from __future__ import annotations

import hashlib
import json
from operator import index

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)


def derive(root: int, *names: str | int) -> int:
    """A 63-bit seed for the stream ``names`` under ``root``."""
    # As JSON no two lists have the same text, 1 differs from "1", and NumPy's integers equal Python's.
    text = json.dumps([name if isinstance(name, str) else index(name) for name in (root, *names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(root: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for draws that may differ between library versions."""
    return np.random.Generator(np.random.Philox(derive(root, *names)))


def mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's bijective finaliser, element by element."""
    if np.ndim(values):
        return _mixed(values)
    # Of a single number numpy would warn that it wraps.
    with np.errstate(over="ignore"):
        return _mixed(values)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_A
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_B
    return mixed ^ (mixed >> np.uint64(31))


def uniform_at(seeds: NDArray[np.uint64], counter: NDArray[np.uint64] | int) -> NDArray[np.float64]:
    """The ``counter``-th draw in [0, 1) of each stream in ``seeds``, 53 bits each."""
    keyed = mix64(seeds ^ mix64(np.asarray(counter, dtype=np.uint64)))
    return (keyed >> np.uint64(11)).astype(np.float64) * 2.0**-53
