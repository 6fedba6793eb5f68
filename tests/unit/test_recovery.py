"""The table of decisions, row by row and at the edge of every limit, and what is read from what ranks showed."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.training.recovery import Action, Decision, Failure, Limits, Past, Room, Symptom, decide, recognised

LIMITS = Limits(max_failures=3, max_rollbacks=2, patience_s=600.0)
RESTARTED = (Failure.RANK_KILLED, Failure.RANK_HUNG, Failure.NODE_LOST)


def decided(failure: Failure, *, past: Past | None = None, room: Room | None = None) -> Decision:
    return decide(failure, past=past or Past(), limits=LIMITS, room=room or Room(4, 4, 8))


@pytest.mark.parametrize("failure", [Failure.MISTAKE, Failure.BUG])
def test_what_would_happen_again_is_told_at_once(failure: Failure) -> None:
    assert decided(failure).action == Action.RAISE
    assert decided(failure).reason == "it would happen again"


@pytest.mark.parametrize(
    ("failure", "failures", "action", "reason"),
    [
        *((failure, 0, Action.RESUME, "from the newest checkpoint") for failure in RESTARTED),
        *((failure, 2, Action.RESUME, "from the newest checkpoint") for failure in RESTARTED),
        *((failure, 3, Action.RAISE, "it failed 4 times without a new checkpoint") for failure in RESTARTED),
        (Failure.PREEMPTED, 3, Action.RESUME, "from the newest checkpoint"),
        (Failure.PREEMPTED, 1000, Action.RESUME, "from the newest checkpoint"),
        (Failure.OUT_OF_MEMORY, 2, Action.SHRINK, "in micro-batches of 4 sequences instead of 8"),
        (Failure.OUT_OF_MEMORY, 3, Action.RAISE, "not even 8 sequences at a time fit"),
    ],
)
def test_failures_without_a_new_checkpoint_are_counted(
    failure: Failure, failures: int, action: Action, reason: str
) -> None:
    decision = decided(failure, past=Past(failures=failures))
    assert (decision.action, decision.reason) == (action, reason)
    assert decision.counts == (failure != Failure.PREEMPTED)


def test_where_no_failure_is_allowed_the_first_is_the_last() -> None:
    limits = Limits(max_failures=0, max_rollbacks=0, patience_s=0.0)
    for failure in RESTARTED:
        decision = decide(failure, past=Past(), limits=limits, room=Room(2, 2, 1))
        assert (decision.action, decision.reason) == (Action.RAISE, "it failed once without a new checkpoint")
    for failure in (Failure.NOT_FINITE, Failure.STORAGE_AWAY, Failure.OUT_OF_MEMORY):
        assert decide(failure, past=Past(), limits=limits, room=Room(2, 2, 2)).action == Action.RAISE
    for failure, action in ((Failure.PREEMPTED, Action.RESUME), (Failure.TRACKER_AWAY, Action.RETRY)):
        assert decide(failure, past=Past(), limits=limits, room=Room(2, 2, 2)).action == action


@pytest.mark.parametrize("failure", [*RESTARTED, Failure.PREEMPTED])
@pytest.mark.parametrize(
    ("possible", "waited_s", "action", "workers"),
    [
        (4, 0.0, Action.RESUME, 4),
        (4, 1e9, Action.RESUME, 4),
        (8, 0.0, Action.RESUME, 4),
        (2, 0.0, Action.SHRINK, 2),
        (1, 1e9, Action.SHRINK, 1),
        (0, 0.0, Action.RETRY, 0),
        (0, 599.9, Action.RETRY, 0),
        (0, 600.0, Action.RAISE, 0),
    ],
)
def test_who_is_gone_is_replaced_or_done_without_or_waited_for(
    failure: Failure, possible: int, waited_s: float, action: Action, workers: int
) -> None:
    decision = decided(failure, past=Past(waited_s=waited_s), room=Room(4, possible, 8))
    assert (decision.action, decision.workers, decision.micro_batch) == (action, workers, 8)
    # Waiting for room is no failure of its own.
    assert decision.counts == (action == Action.RAISE or (action != Action.RETRY and failure != Failure.PREEMPTED))


@pytest.mark.parametrize(
    ("micro_batch", "action", "next_micro_batch"),
    [(8, Action.SHRINK, 4), (6, Action.SHRINK, 3), (2, Action.SHRINK, 1), (3, Action.RAISE, 3), (1, Action.RAISE, 1)],
)
def test_out_of_memory_it_bites_half(micro_batch: int, action: Action, next_micro_batch: int) -> None:
    # Room on the cluster plays no part: the workers are all still there.
    for possible in (0, 1, 4):
        decision = decided(Failure.OUT_OF_MEMORY, room=Room(4, possible, micro_batch))
        assert (decision.action, decision.micro_batch) == (action, next_micro_batch)
        assert decision.workers == (4 if action == Action.SHRINK else 0)


@pytest.mark.parametrize(
    ("rollbacks", "action", "reason"),
    [
        (0, Action.ROLL_BACK, "skipping the batch"),
        (1, Action.ROLL_BACK, "skipping the batch"),
        (2, Action.RAISE, "2 batches were skipped already"),
    ],
)
def test_bad_batches_are_skipped_up_to_the_limit(rollbacks: int, action: Action, reason: str) -> None:
    decision = decided(Failure.NOT_FINITE, past=Past(rollbacks=rollbacks, failures=100))
    assert (decision.action, decision.reason) == (action, reason)


@pytest.mark.parametrize(
    ("failure", "waited_s", "action"),
    [
        (Failure.STORAGE_AWAY, 0.0, Action.RETRY),
        (Failure.STORAGE_AWAY, 599.9, Action.RETRY),
        (Failure.STORAGE_AWAY, 600.0, Action.RAISE),
        (Failure.TRACKER_AWAY, 0.0, Action.RETRY),
        (Failure.TRACKER_AWAY, 1e9, Action.RETRY),
    ],
)
def test_storage_is_waited_for_a_while_and_the_record_for_ever(
    failure: Failure, waited_s: float, action: Action
) -> None:
    decision = decided(failure, past=Past(waited_s=waited_s, failures=100))
    assert decision.action == action
    assert decision.counts == (action == Action.RAISE)


def test_every_failure_has_a_row() -> None:
    actions = {failure: decided(failure).action for failure in Failure}
    assert set(actions.values()) == set(Action)


@given(
    failure=st.sampled_from(Failure),
    past=st.builds(
        Past, failures=st.integers(0, 5), rollbacks=st.integers(0, 5), waited_s=st.floats(0, 1200, allow_nan=False)
    ),
    limits=st.builds(
        Limits, max_failures=st.integers(0, 5), max_rollbacks=st.integers(0, 5), patience_s=st.floats(0, 1200)
    ),
    workers=st.integers(1, 64),
    possible=st.integers(0, 64),
    micro_batch=st.integers(1, 512),
)
def test_no_decision_asks_for_more_than_there_is(
    failure: Failure, past: Past, limits: Limits, workers: int, possible: int, micro_batch: int
) -> None:
    decision = decide(failure, past=past, limits=limits, room=Room(workers, possible, micro_batch))
    assert 0 <= decision.workers <= workers
    assert micro_batch % decision.micro_batch == 0
    assert decision.reason
    assert "\n" not in decision.reason
    if failure in (*RESTARTED, Failure.PREEMPTED):
        assert decision.workers <= possible
    if decision.action == Action.RAISE:
        assert (decision.workers, decision.counts) == (0, True)
    else:
        # What goes on without end must cost none of the failures, or be bounded by what is left to halve.
        assert not decision.counts or past.failures < limits.max_failures


DEAD = Symptom("ActorDiedError", died=True)
LOST = Symptom("ActorDiedError", died=True, node_is_there=False)
CLOSED = Symptom("RuntimeError", "[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242")
RESET = Symptom("DistBackendError", "NCCL error in: ncclUtils.hpp")
STORE = Symptom("DistNetworkError", "The client socket has failed to connect")
WRONG = Symptom("RecipeError", "lower training.learning_rate", users=True)
AWAY = Symptom("PlaceError", "cannot write s3://x", passes=True, users=True)
FORBIDDEN = Symptom("PlaceError", "no permission to write s3://x", users=True)
BROKEN = Symptom("KeyError", "'loss'")
CUDA = Symptom("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB")
ALLOCATOR = Symptom("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
PYTHON = Symptom("MemoryError")
MONITOR = Symptom("OutOfMemoryError", "Task was killed due to the node running low on memory", died=True)
NOTICE = Symptom("PreemptionError")


@pytest.mark.parametrize(
    ("symptoms", "failure"),
    [
        # One rank alone.
        ((DEAD,), Failure.RANK_KILLED),
        ((LOST,), Failure.NODE_LOST),
        ((WRONG,), Failure.MISTAKE),
        ((FORBIDDEN,), Failure.MISTAKE),
        ((AWAY,), Failure.STORAGE_AWAY),
        ((BROKEN,), Failure.BUG),
        ((CUDA,), Failure.OUT_OF_MEMORY),
        ((ALLOCATOR,), Failure.OUT_OF_MEMORY),
        ((PYTHON,), Failure.OUT_OF_MEMORY),
        ((MONITOR,), Failure.OUT_OF_MEMORY),
        ((NOTICE,), Failure.PREEMPTED),
        ((), Failure.BUG),
        # Peers of one that is gone tell of a connection, whoever is asked first.
        ((CLOSED, DEAD), Failure.RANK_KILLED),
        ((RESET, DEAD), Failure.RANK_KILLED),
        ((STORE, LOST, CLOSED), Failure.NODE_LOST),
        # Only the peers were heard: somebody died whom nobody saw.
        ((CLOSED, CLOSED), Failure.RANK_KILLED),
        # The one that raised leaves the others behind.
        ((CLOSED, WRONG, RESET), Failure.MISTAKE),
        ((CLOSED, BROKEN), Failure.BUG),
        ((CLOSED, CUDA), Failure.OUT_OF_MEMORY),
        ((CLOSED, AWAY), Failure.STORAGE_AWAY),
        # A process that dies beside a mistake died of it: with its peers.
        ((DEAD, WRONG), Failure.MISTAKE),
        ((DEAD, BROKEN), Failure.RANK_KILLED),
        ((DEAD, AWAY), Failure.RANK_KILLED),
        ((MONITOR, DEAD), Failure.OUT_OF_MEMORY),
        ((LOST, CUDA), Failure.OUT_OF_MEMORY),
        ((DEAD, LOST), Failure.NODE_LOST),
        ((AWAY, FORBIDDEN), Failure.MISTAKE),
        ((NOTICE, DEAD, CLOSED), Failure.PREEMPTED),
        ((LOST, NOTICE), Failure.PREEMPTED),
    ],
)
def test_a_cause_comes_before_its_consequences(symptoms: tuple[Symptom, ...], failure: Failure) -> None:
    assert recognised(symptoms) == failure
    assert recognised(symptoms[::-1]) == failure


@pytest.mark.parametrize(
    ("symptoms", "hung", "notice", "failure"),
    [
        ((DEAD, CLOSED), True, False, Failure.RANK_HUNG),
        ((CLOSED,), True, False, Failure.RANK_HUNG),
        ((LOST, CLOSED), False, True, Failure.PREEMPTED),
        ((DEAD,), False, True, Failure.PREEMPTED),
        ((WRONG,), False, True, Failure.MISTAKE),
        ((BROKEN,), False, True, Failure.BUG),
        ((CUDA,), False, True, Failure.OUT_OF_MEMORY),
        ((NOTICE,), True, True, Failure.PREEMPTED),
    ],
)
def test_what_the_adapter_knows_besides(
    symptoms: tuple[Symptom, ...], hung: bool, notice: bool, failure: Failure
) -> None:
    assert recognised(symptoms, hung=hung, notice=notice) == failure


@given(st.lists(st.sampled_from([DEAD, LOST, CLOSED, WRONG, AWAY, BROKEN, CUDA]), max_size=5), st.data())
def test_who_is_asked_first_does_not_matter(symptoms: list[Symptom], data: st.DataObject) -> None:
    other = data.draw(st.permutations(symptoms))
    for hung, notice in product((False, True), repeat=2):
        left, right = (recognised(tuple(each), hung=hung, notice=notice) for each in (symptoms, other))
        assert left == right
