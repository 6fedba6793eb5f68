"""Items in batches whose borders follow the items themselves, so that a changed file changes one batch and not all.

A border stands behind an item whose hash is the smallest among its neighbours' on both sides (Bjørner, Blass and
Gurevich 2010, "Content-dependent chunking for differential compression, the local maximum approach", Journal of
Computer and System Sciences 76:154). Borders are then more than a neighbourhood apart, and an item moves only borders
in its own neighbourhood: a file whose bytes changed changes its own parcel alone, one that is added or removed changes
one parcel, seldom two, and three at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tutti.config import digest_of
from tutti.corpus.archives import STREAMED_KINDS
from tutti.corpus.item import Item

# A border is the smallest of 2 * 31 + 1 hashes: a parcel holds 63 items on average, and never fewer than 31.
NEIGHBOURS = 31
MAX_ITEMS = 256
# Enough to share the work and to go on after a kill, and few times that a compressed tar is unpacked.
MAX_STREAMED_ITEMS = 4096
MAX_BYTES = 64 * 2**20


def parcels(items: Sequence[Item]) -> list[tuple[Item, ...]]:
    """All items in order, in batches that are read and parsed each as a whole.

    A parcel holds 31 to 256 items, 63 on average; fewer where all are fewer, or that many are more than 64 MiB. The
    members of a compressed tar are cut evenly and by thousands: each parcel unpacks what stands before it once more.
    """
    found: list[tuple[Item, ...]] = []
    for is_streamed, run in groupby(items, key=lambda item: _streamed(item) is not None):
        if is_streamed:
            found += [part for _, members in groupby(run, key=_streamed) for part in _even(tuple(members))]
        else:
            found += _cut(tuple(run))
    return found


def parcel_digest(parcel: Sequence[Item]) -> str:
    """What a parcel's result is known by: a hash of every item's identity, in order."""
    return digest_of([item.identity() for item in parcel])


def _streamed(item: Item) -> str | None:
    return item.archive.place if item.archive is not None and item.archive.kind in STREAMED_KINDS else None


def _even(members: tuple[Item, ...]) -> list[tuple[Item, ...]]:
    return [members[start : start + MAX_STREAMED_ITEMS] for start in range(0, len(members), MAX_STREAMED_ITEMS)]


def _cut(items: tuple[Item, ...]) -> list[tuple[Item, ...]]:
    hashes = np.array([_hash(item.uri) for item in items], dtype=np.uint64)
    borders = _borders(hashes)
    parts = []
    for start, stop in zip(borders, [*borders[1:], len(items)], strict=True):
        parts += _small_enough(items[start:stop], hashes[start:stop])
    return parts


def _borders(hashes: NDArray[np.uint64]) -> list[int]:
    """Where parcels begin: 0, and behind each hash that is smaller than its NEIGHBOURS before it and behind it."""
    if len(hashes) <= 2 * NEIGHBOURS:
        return [0]
    # Of two that are equal argmin gives the first, so that two borders never stand in one window.
    smallest = sliding_window_view(hashes, 2 * NEIGHBOURS + 1).argmin(axis=1) == NEIGHBOURS
    return [0, *(np.flatnonzero(smallest) + NEIGHBOURS + 1).tolist()]


def _small_enough(items: tuple[Item, ...], hashes: NDArray[np.uint64]) -> list[tuple[Item, ...]]:
    """Cut behind the smallest hash, and each part again, until each may be a parcel."""
    if len(items) == 1 or (len(items) <= MAX_ITEMS and sum(item.size_bytes for item in items) <= MAX_BYTES):
        return [items]
    at = int(hashes[:-1].argmin()) + 1
    return _small_enough(items[:at], hashes[:at]) + _small_enough(items[at:], hashes[at:])


def _hash(uri: str) -> int:
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "big")
