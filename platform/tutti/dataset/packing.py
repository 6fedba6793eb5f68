"""Packing: pieces of any length into sequences of one length.

Best-fit decreasing: the longest piece first, each into the fullest sequence that still has room. The plan is a pure
function of the lengths, so every rank makes the same one. No piece is cut here (windows are cut at bar lines before)
and none is left out.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Plan:
    """Which pieces share a sequence.

    Args:
        pieces: piece numbers, sequence after sequence; shape (pieces,).
        starts: where each sequence begins in ``pieces``, and its end; shape (sequences + 1,).
    """

    pieces: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, sequence: int) -> NDArray[np.int64]:
        """Pieces of one sequence, in their order within it."""
        return self.pieces[self.starts[sequence] : self.starts[sequence + 1]]


def plan(lengths: NDArray[np.integer], *, sequence_tokens: int) -> Plan:
    """Pack pieces of ``lengths`` tokens into sequences of at most ``sequence_tokens``.

    Raises:
        ValueError: a piece is longer than a sequence.
    """
    if len(lengths) and int(lengths.max()) > sequence_tokens:
        raise ValueError(f"a piece of {int(lengths.max())} tokens does not fit a sequence of {sequence_tokens}")
    members: list[list[int]] = []
    by_room: defaultdict[int, list[int]] = defaultdict(list)
    rooms: list[int] = []
    for piece in np.lexsort((np.arange(len(lengths)), -lengths.astype(np.int64))).tolist():
        length = int(lengths[piece])
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            sequence, room = len(members), sequence_tokens
            members.append([])
        else:
            room = rooms[at]
            sequence = by_room[room].pop()
            if not by_room[room]:
                rooms.pop(at)
        members[sequence].append(piece)
        left = room - length
        if not by_room[left]:
            bisect.insort(rooms, left)
        by_room[left].append(sequence)
    return Plan(
        pieces=np.array([piece for sequence in members for piece in sequence], dtype=np.int64),
        starts=np.cumsum([0, *(len(sequence) for sequence in members)], dtype=np.int64),
    )
