"""A catalogue's plan: slots, takes, blocks; all of it a pure function of order and model.

A **slot** is a place in the order (line, number). A **take** is one attempt to fill it: a request with its own seed;
its identity is a hash of request, seed and model. A **block** is a fixed group of slots that is written together. Its
takes are drafted beside each other and beside those of other blocks; one that fails its checks is followed by its
slot's next seed, until one passes or the attempts are used up. A take is a function of its request, seed and model
alone, so a block that was lost half made is made again whole, and comes out the same.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeVar

from tutti.catalogue.order import Order
from tutti.corpus.score import Score
from tutti.errors import IntegrityError
from tutti.generation.request import Request
from tutti.render.fonts import KnownFont
from tutti.render.timbres import KnownTimbre
from tutti.seeding import derive

D = TypeVar("D")
ACCEPTED, REJECTED = "accepted", "rejected"

SECONDS_PER_BAR = 2.0  # 4/4 at 120 quarters a minute, for estimates
BYTES_PER_SECOND = {
    "midi": 100, "musicxml": 2_000, "flac": 60_000, "wav": 176_400, "mp3": 16_000, "ogg": 13_000, "stems": 400_000,
    "png": 0, "waveform": 0,
}  # fmt: skip
PROVENANCE_BYTES = 5_000
BYTES_PER_TAKE = {
    "midi": 1_000, "musicxml": 2_000, "flac": 9_000, "wav": 600, "mp3": 1_000, "ogg": 4_000, "stems": 30_000,
    "png": 45_000, "waveform": 50_000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in the order: take ``number`` of ``line``, both from 0."""

    line: int
    number: int
    title: str
    controls: Request


@dataclass(frozen=True, slots=True)
class Take:
    """One attempt (from 0) to fill a slot; ``request`` carries the attempt's own seed."""

    take_id: str
    slot: Slot
    attempt: int
    request: Request


@dataclass(frozen=True, slots=True)
class Block:
    """Slots that are written together; ``index`` from 0.

    A slot whose take turned out to copy another's has a block of its own that begins with its next attempt.
    """

    index: int
    slots: tuple[Slot, ...]
    first_attempt: int = 0

    @property
    def path(self) -> str:
        """The block's rows, below the catalogue's folder."""
        if self.first_attempt:
            (slot,) = self.slots
            return f"blocks/again-{slot.line:05d}-{slot.number:05d}-{self.first_attempt:03d}.parquet"
        return f"blocks/block-{self.index:05d}.parquet"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before the first note.

    Args:
        order: what was asked.
        model: name of the registered model.
        model_version: its version.
        model_digest: hash of weights, configuration and vocabulary.
        timbres: models of notes that play in place of the SoundFont.
        files: music that takes start from, by its identity.
        font: the SoundFont that the order names; None: the bundled one.
        compared: addresses of what takes are held against, by its kind.
    """

    order: Order
    model: str
    model_version: str
    model_digest: str
    timbres: tuple[KnownTimbre, ...] = ()
    files: Mapping[tuple[str, ...], Score] = field(default_factory=dict)
    font: KnownFont | None = None
    compared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return -(-self.order.takes // self.order.takes_per_block)

    @property
    def attempts(self) -> int:
        """Largest number of takes of one slot."""
        return 1 + self.order.retries

    @property
    def estimated_bytes(self) -> int:
        """About what the catalogue will take on storage, every take filled at once; for a plan, not a promise."""
        kinds = {"midi", *self.order.formats}
        per_second = sum(BYTES_PER_SECOND[kind] for kind in kinds)
        fixed = PROVENANCE_BYTES + sum(BYTES_PER_TAKE[kind] for kind in kinds)
        total = round(self.estimated_music_s * per_second + self.order.takes * fixed)
        return 2 * total if self.order.zip else total

    @property
    def estimated_music_s(self) -> float:
        """About how much music is asked for, seconds."""
        length_s = 0.0
        for line in self.order.lines:
            bars, _ = line.controls.extent
            length_s += line.count * (line.controls.length_s if bars is None else bars * SECONDS_PER_BAR)
        return length_s

    def slot(self, position: int) -> Slot:
        """The place at ``position`` (from 0) of the whole order, line after line."""
        ends = list(accumulate(line.count for line in self.order.lines))
        line = bisect_right(ends, position)
        asked = self.order.lines[line]
        number = position - (ends[line] - asked.count)
        return Slot(line, number, asked.title_of(number, order=self.order.name, line=line), asked.controls)

    def block(self, index: int) -> Block:
        """The ``takes_per_block`` slots from ``index * takes_per_block`` on; the last block may have fewer.

        From :attr:`num_blocks` on, one slot from an attempt on: see :meth:`again`.
        """
        if index >= self.num_blocks:
            position, attempt = divmod(index - self.num_blocks, self.attempts)
            return Block(index, (self.slot(position),), attempt)
        size = self.order.takes_per_block
        positions = range(index * size, min((index + 1) * size, self.order.takes))
        return Block(index, tuple(self.slot(position) for position in positions))

    def again(self, position: int, attempt: int) -> Block:
        """The slot at ``position`` from ``attempt`` (1 or more) on, after an accepted take of it fell away."""
        return self.block(self.num_blocks + position * self.attempts + attempt)

    def blocks(self) -> list[Block]:
        """The blocks of the first takes; together they hold every slot once."""
        return [self.block(index) for index in range(self.num_blocks)]

    def material(self, request: Request) -> Score | None:
        """What a request starts from."""
        return None if request.start is None else self.files[request.start.works]

    def take(self, slot: Slot, attempt: int) -> Take:
        """The take that fills ``slot`` at ``attempt``."""
        seed = derive(self.order.seed, "take", slot.line, slot.number, attempt)
        request = slot.controls.model_copy(update={"seed": seed})
        take_id = take_id_of(request, model_digest=self.model_digest, precision=self.order.precision)
        return Take(take_id, slot, attempt, request)


def take_id_of(request: Request, *, model_digest: str, precision: str = "auto") -> str:
    """Identity of a take: hash of the full request, its seed in it, and the model; 24 hexadecimal digits.

    Args:
        precision: of the model's products; one that is asked for, and not left to the machine, is part of it.
    """
    state = hashlib.sha256(model_digest.encode())
    state.update(request.digest().encode())
    if precision != "auto":
        state.update(precision.encode())
    return state.hexdigest()[:24]


def fill(
    block: Block,
    *,
    plan: Plan,
    begin: Callable[[Sequence[Take]], None],
    ended: Callable[[], Sequence[tuple[Take, D]]],
    passes: Callable[[D], bool],
) -> list[D]:
    """Make a block: its first takes, and the next one of a slot as soon as one of it failed.

    Args:
        block: which slots.
        plan: whose seeds and number of attempts.
        begin: takes under way from now on.
        ended: some of those under way, at least one, with what each is; in whatever order they end.
        passes: whether one keeps the order's checks.

    Returns:
        Every attempt, by slot and attempt; at most the last one of a slot passes.

    Raises:
        IntegrityError: a take was lost, or came twice.
    """
    made: dict[tuple[int, int], list[D]] = {(slot.line, slot.number): [] for slot in block.slots}
    takes = [plan.take(slot, block.first_attempt) for slot in block.slots]
    under_way: dict[str, Take] = {}
    while takes or under_way:
        if takes:
            begin(takes)
            under_way |= {take.take_id: take for take in takes}
        takes, drafts = [], ended()
        if not drafts:
            raise IntegrityError(f"{len(under_way)} takes of {block.path} were lost")
        for take, drafted in drafts:
            if under_way.pop(take.take_id, None) is None:
                raise IntegrityError(f"take {take.take_id} of {block.path} came twice, or was not asked for")
            made[take.slot.line, take.slot.number].append(drafted)
            if not passes(drafted) and take.attempt + 1 < plan.attempts:
                takes.append(plan.take(take.slot, take.attempt + 1))
    return [drafted for attempts in made.values() for drafted in attempts]


def check_complete(rows: Iterable[Mapping[str, Any]], *, plan: Plan) -> None:
    """Hold rows of the ``takes`` table against the plan.

    Every slot must be there with attempts 0, 1, …, of which only the last may be accepted, and an unfilled slot must
    have used all its attempts; every ``take_id`` must be the plan's.

    Args:
        rows: with at least ``take_id``, ``line``, ``number``, ``attempt`` and ``verdict``.
        plan: what was to be made.

    Raises:
        IntegrityError: a take is lost, doubled or foreign; the first one is named.
    """
    slots = {(slot.line, slot.number): slot for block in plan.blocks() for slot in block.slots}
    verdicts: dict[tuple[int, int], dict[int, str]] = {place: {} for place in slots}
    for row in rows:
        place, attempt = (row["line"], row["number"]), row["attempt"]
        name = f"take {attempt} of line {place[0]} number {place[1]}"
        if place not in slots or plan.take(slots[place], attempt).take_id != row["take_id"]:
            raise IntegrityError(f"{name} ({row['take_id']}) is not of this order")
        if attempt in verdicts[place]:
            raise IntegrityError(f"{name} is there twice")
        verdicts[place][attempt] = row["verdict"]
    for place, found in verdicts.items():
        name = f"line {place[0]} number {place[1]}"
        if not found or sorted(found) != list(range(len(found))):
            raise IntegrityError(f"a take of {name} is lost: attempts {sorted(found)} are there")
        *earlier, last = (found[attempt] for attempt in sorted(found))
        if ACCEPTED in earlier:
            raise IntegrityError(f"{name} was tried again after an accepted take")
        if last != ACCEPTED and len(found) != plan.attempts:
            raise IntegrityError(f"{name} is not filled: {len(found)} of {plan.attempts} attempts were made")
