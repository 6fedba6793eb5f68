"""What is done about a failure, as a pure table: it asks no cluster, so every row is tested without one.

An adapter (:mod:`tutti.training.on_ray`, the loop for what a rank meets itself) tells what it saw and obeys. The rows:

============== ============================================================================================
rank_killed    resume on as many workers; on fewer where there is no room for all
rank_hung      the same, after the adapter killed it
node_lost      the same; a training of a fixed size waits for a node to come back
preempted      the same, and it costs none of ``max_failures``: nobody did anything wrong
out_of_memory  halve the micro-batch: the same batch in more passes; a single sequence that does not fit is told
not_finite     roll back to the newest checkpoint and skip the batch
storage_away   ask again while patience lasts
tracker_away   ask again, for ever: a record is never worth a training
mistake, bug   tell it at once: it would happen again
============== ============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Failure(StrEnum):
    """What went wrong."""

    RANK_KILLED = "rank_killed"
    RANK_HUNG = "rank_hung"
    NODE_LOST = "node_lost"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_FINITE = "not_finite"
    STORAGE_AWAY = "storage_away"
    TRACKER_AWAY = "tracker_away"
    MISTAKE = "mistake"
    BUG = "bug"


class Action(StrEnum):
    """What is done about it."""

    RETRY = "retry"
    RESUME = "resume"
    SHRINK = "shrink"
    ROLL_BACK = "roll back"
    RAISE = "raise"


@dataclass(frozen=True, slots=True)
class Past:
    """What the run has been through.

    Args:
        failures: since the newest checkpoint, this one not counted.
        rollbacks: batches that were skipped so far.
        waited_s: how long what is away has been waited for.
    """

    failures: int = 0
    rollbacks: int = 0
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the recipe allows; see :class:`tutti.training.recipe.TrainingRecipe`."""

    max_failures: int
    max_rollbacks: int
    patience_s: float


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to go on with.

    Args:
        workers: workers of the attempt that failed.
        possible_workers: most workers, of those the recipe can use, that fit the cluster now; 0: not even the fewest.
        micro_batch: sequences of a forward pass.
    """

    workers: int
    possible_workers: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Args:
        workers: of the next attempt; 0 where there is none, or where room must be waited for.
        micro_batch: of the next attempt.
        counts: whether it is one of ``max_failures``.
        reason: one clause for people.
    """

    action: Action
    workers: int
    micro_batch: int
    counts: bool
    reason: str


def decide(failure: Failure, *, past: Past, limits: Limits, room: Room) -> Decision:
    """The row of the table for a failure."""
    if failure in (Failure.MISTAKE, Failure.BUG):
        return _raise(room, "it would happen again")
    if failure == Failure.TRACKER_AWAY:
        return Decision(Action.RETRY, room.workers, room.micro_batch, counts=False, reason="figures wait in a queue")
    if failure == Failure.STORAGE_AWAY:
        if past.waited_s < limits.patience_s:
            return Decision(Action.RETRY, room.workers, room.micro_batch, counts=False, reason="storage may come back")
        return _raise(room, f"storage was away for {past.waited_s:.0f} s")
    if failure == Failure.NOT_FINITE:
        if past.rollbacks < limits.max_rollbacks:
            return Decision(Action.ROLL_BACK, room.workers, room.micro_batch, counts=False, reason="skipping the batch")
        return _raise(room, f"{past.rollbacks} batches were skipped already")
    if failure == Failure.OUT_OF_MEMORY:
        return _smaller(past, limits, room)
    return _restart(failure, past, limits, room)


def _restart(failure: Failure, past: Past, limits: Limits, room: Room) -> Decision:
    counts = failure != Failure.PREEMPTED
    if counts and past.failures >= limits.max_failures:
        times = "once" if past.failures == 0 else f"{past.failures + 1} times"
        return _raise(room, f"it failed {times} without a new checkpoint")
    if room.possible_workers == 0:
        if past.waited_s < limits.patience_s:
            return Decision(Action.RETRY, 0, room.micro_batch, counts=False, reason="waiting for room on the cluster")
        return _raise(room, f"there was no room for {past.waited_s:.0f} s")
    if room.possible_workers < room.workers:
        reason = f"on {room.possible_workers} of {room.workers} workers"
        return Decision(Action.SHRINK, room.possible_workers, room.micro_batch, counts=counts, reason=reason)
    return Decision(Action.RESUME, room.workers, room.micro_batch, counts=counts, reason="from the newest checkpoint")


def _smaller(past: Past, limits: Limits, room: Room) -> Decision:
    if room.micro_batch % 2 or past.failures >= limits.max_failures:
        return _raise(room, f"not even {room.micro_batch} sequences at a time fit")
    half = room.micro_batch // 2
    reason = f"in micro-batches of {half} sequences instead of {room.micro_batch}"
    return Decision(Action.SHRINK, room.workers, half, counts=True, reason=reason)


def _raise(room: Room, reason: str) -> Decision:
    return Decision(Action.RAISE, 0, room.micro_batch, counts=True, reason=reason)


@dataclass(frozen=True, slots=True)
class Symptom:
    """What one rank's end looked like.

    Args:
        kind: name of the exception's class, without its module.
        text: what it said.
        died: whether the process is gone, rather than having raised.
        node_is_there: whether its machine still belongs to the cluster.
        passes: whether it says of itself that it may pass (storage that is away).
        users: whether it is one that a user can mend.
    """

    kind: str
    text: str = ""
    died: bool = False
    node_is_there: bool = True
    passes: bool = False
    users: bool = False


_MEMORY_KINDS = frozenset({"OutOfMemoryError", "MemoryError"})
_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "memory monitor", "OutOfMemory")
# What a living rank says when another one is gone in the middle of a collective.
_PEER_KINDS = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError", "PeerGoneError"})
_PEER_TEXTS = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "gloo",
               "NCCL", "Socket closed", "Timed out waiting", "wait timeout", "recvBytes")  # fmt: skip


def recognised(symptoms: tuple[Symptom, ...], *, hung: bool = False, notice: bool = False) -> Failure:
    """The failure behind what the ranks showed; a cause before its consequences.

    Args:
        hung: whether the adapter killed a rank for its silence.
        notice: whether a node of the run was to be taken away.
    """
    if any(symptom.kind == "PreemptionError" for symptom in symptoms):
        return Failure.PREEMPTED
    if hung:
        return Failure.RANK_HUNG
    if any(_is_memory(symptom) for symptom in symptoms):
        return Failure.OUT_OF_MEMORY
    if any(symptom.died and not symptom.node_is_there for symptom in symptoms):
        return Failure.PREEMPTED if notice else Failure.NODE_LOST
    told = [symptom for symptom in symptoms if not symptom.died and not _is_peers(symptom)]
    if any(symptom.users and not symptom.passes for symptom in told):
        return Failure.MISTAKE
    if any(symptom.died for symptom in symptoms):
        return Failure.PREEMPTED if notice else Failure.RANK_KILLED
    if any(symptom.passes for symptom in told):
        return Failure.STORAGE_AWAY
    return Failure.BUG if told or not symptoms else Failure.RANK_KILLED


def _is_memory(symptom: Symptom) -> bool:
    return symptom.kind in _MEMORY_KINDS or any(text in symptom.text for text in _MEMORY_TEXTS)


def _is_peers(symptom: Symptom) -> bool:
    return symptom.kind in _PEER_KINDS or (
        symptom.kind == "RuntimeError" and any(text in symptom.text for text in _PEER_TEXTS)
    )
