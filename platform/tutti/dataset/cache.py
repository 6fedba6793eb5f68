"""A cache of blocks, bounded in bytes, that threads fill ahead of who needs them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What can be held: it knows how much memory it takes."""

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class Cache(Generic[K, V]):
    """The values last used, of at most ``most_bytes`` together; those being read, one a thread, come on top.

    Args:
        read: gives the value of a key; called from several threads.
        most_bytes: a value beyond it is given and not held.
        readers: threads.
    """

    def __init__(self, read: Callable[[K], V], *, most_bytes: int, readers: int) -> None:
        self.held_bytes = self.peak_bytes = self.reads = 0
        self.most_bytes = most_bytes
        self._read = read
        self._held = OrderedDict[K, V]()
        self._reading = dict[K, Future[V]]()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="blocks")

    def request(self, keys: Iterable[K]) -> None:
        """Have values read that are not there; an error is raised to who gets the value."""
        with self._lock:
            for key in keys:
                if key not in self._held:
                    self._begun(key)

    def get(self, keys: Sequence[K]) -> list[V]:
        """The value of each key, waited for if need be.

        Raises:
            Exception: whatever ``read`` raised; the next who asks has it read again.
        """
        found: list[V | Future[V]] = []
        with self._lock:
            for key in keys:
                held = self._held.get(key)
                if held is not None:
                    self._held.move_to_end(key)
                found.append(self._begun(key) if held is None else held)
        return [value.result() if isinstance(value, Future) else value for value in found]

    def close(self) -> None:
        """Read nothing more, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begun(self, key: K) -> Future[V]:
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = self._pool.submit(self._fetch, key)
        return reading

    def _fetch(self, key: K) -> V:
        try:
            value = self._read(key)
        except BaseException:
            with self._lock:
                del self._reading[key]
            raise
        with self._lock:
            del self._reading[key]
            self.reads += 1
            if value.size_bytes <= self.most_bytes:
                while self.held_bytes + value.size_bytes > self.most_bytes:
                    _, gone = self._held.popitem(last=False)
                    self.held_bytes -= gone.size_bytes
                self._held[key] = value
                self.held_bytes += value.size_bytes
                self.peak_bytes = max(self.peak_bytes, self.held_bytes)
        return value
