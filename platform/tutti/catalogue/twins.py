"""Takes of one catalogue that copy one another: which of them stay.

A slot's attempts are tried in their order; the first that copies no take kept in an earlier slot is kept. That says
for every slot what is kept there, by what stands before it alone: in whatever order takes were made, whichever of them
are there already, and however many more than are needed, the same ones are kept.

A take is held against all kept ones before it by as many indices as their places have binary digits: the highest digit
in which two places differ is 0 in the earlier one, and those before it are the same. Of equal notes it is said without
an index. What starts from a file shares that file with others by order: there only equal notes count.

Legend: W takes (attempts of all slots).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics.originality import Closeness, Limits, WorkIndex, closest

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Attempts:
    """W takes that keep every other check.

    Args:
        music: of each.
        slot: place in the order of each, from 0; shape (W,). Those of one slot stand in the order of their attempts.
        free: which start from no file; shape (W,).
    """

    music: ScoreBatch
    slot: Rows
    free: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a take has of one of an earlier slot.

    Args:
        row: the earlier take.
        near: what comes nearest to a copy.
    """

    row: int
    near: Closeness


@dataclass(frozen=True)
class Settled:
    """What became of each take; those in neither mapping were not needed.

    Args:
        kept: the rows that stay, and what each has of those before it.
        copies: the rows that copy one that stays.
        wanting: slots of which every attempt is a copy.
    """

    kept: Mapping[int, Likeness | None]
    copies: Mapping[int, Likeness]
    wanting: tuple[int, ...]


def settle(attempts: Attempts, *, limits: Limits) -> Settled:
    """Keep of each slot the first attempt that copies nothing kept before it."""
    # Mostly the copies that are seen at once are all; where one was seen of a take that falls away, one by one.
    settled = _settled(attempts, limits=limits, one_by_one=False)
    return settled or _settled(attempts, limits=limits, one_by_one=True) or _none()


def likenesses(
    attempts: Attempts, *, kept: Sequence[int], asked: Sequence[int], limits: Limits
) -> dict[int, Likeness | None]:
    """What each row of ``asked`` has of the rows of ``kept`` in slots before its own; see the module.

    Args:
        attempts: all takes.
        kept: at most one row of each slot.
        asked: any rows.
        limits: from where on a take is a copy.
    """
    found: dict[int, Likeness | None] = dict.fromkeys(asked)
    free_kept, free_asked = (_rows(row for row in rows if attempts.free[row]) for rows in (kept, asked))
    for digit in range(int(attempts.slot.max(initial=0)).bit_length()):
        left = free_kept[attempts.slot[free_kept] >> digit & 1 == 0]
        right = free_asked[attempts.slot[free_asked] >> digit & 1 == 1]
        left_part, right_part = (attempts.slot[rows] >> (digit + 1) for rows in (left, right))
        left, right = left[np.isin(left_part, right_part)], right[np.isin(right_part, left_part)]
        if len(right):
            index = WorkIndex.of(
                attempts.music.take(left),
                work_ids=[str(row) for row in left],
                apart=attempts.slot[left] >> (digit + 1),
            )
            answers = index.originality(attempts.music.take(right), apart=attempts.slot[right] >> (digit + 1))
            for row, answer in zip(right.tolist(), answers, strict=True):
                near = closest(answer, limits=limits)
                if near is not None:
                    found[row] = _nearer(found[row], Likeness(int(near.work_id), near), slot=attempts.slot)
    for row, other in _equal(attempts, kept=kept, asked=asked).items():
        found[row] = Likeness(other, Closeness(str(other), "share", 1.0, limits.share))
    return found


def _settled(attempts: Attempts, *, limits: Limits, one_by_one: bool) -> Settled | None:
    """None where a take was given up for one that does not stay."""
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, slot in enumerate(attempts.slot.tolist()):
        rows_of[slot].append(row)
    given_up: list[int] = []
    while True:
        kept = {slot: rows[0] for slot, rows in sorted(rows_of.items()) if rows}
        near = likenesses(attempts, kept=list(kept.values()), asked=list(kept.values()), limits=limits)
        copies = {slot: found.row for slot, row in kept.items() if (found := near[row]) and found.near.is_copy}
        if not copies:
            break
        first = min(copies)
        for slot, other in copies.items():
            source = int(attempts.slot[other])
            if slot == first or (source < first if one_by_one else source not in copies):
                given_up.append(rows_of[slot].pop(0))
    again = likenesses(attempts, kept=list(kept.values()), asked=given_up, limits=limits)
    held = {row: found for row, found in again.items() if found is not None and found.near.is_copy}
    if len(held) < len(given_up):
        return None
    wanting = tuple(slot for slot, rows in sorted(rows_of.items()) if not rows)
    return Settled({row: near[row] for row in kept.values()}, held, wanting)


def _none() -> Settled:
    raise AssertionError("a take that was given up for one that stays is no copy of it")


def _nearer(one: Likeness | None, other: Likeness, *, slot: Rows) -> Likeness:
    """Which of two comes nearer to its limit; of equals the one in the earlier slot."""
    if one is None:
        return other

    def key(each: Likeness) -> tuple[float, int]:
        return each.near.figure / each.near.limit, -int(slot[each.row])

    return max(one, other, key=key)


def _equal(attempts: Attempts, *, kept: Sequence[int], asked: Sequence[int]) -> dict[int, int]:
    """For rows of ``asked`` the first row of ``kept`` in a slot before its own that has the same notes."""
    rows = _rows(sorted({*kept, *asked}))
    music = attempts.music.take(rows)
    plain = replace(
        music,
        notes=replace(music.notes, velocity=np.full_like(music.notes.velocity, 64)),
        tempo_qpm=np.full_like(music.tempo_qpm, 120.0),
    )
    notes = dict(zip(rows.tolist(), plain.work_ids(), strict=True))
    first: dict[str, int] = {}
    for row in sorted(kept, key=lambda row: int(attempts.slot[row])):
        first.setdefault(notes[row], row)
    return {
        row: other
        for row in asked
        if (other := first.get(notes[row])) is not None and attempts.slot[other] < attempts.slot[row]
    }


def _rows(rows: Iterable[int]) -> Rows:
    return np.array(list(rows), dtype=np.int64)
