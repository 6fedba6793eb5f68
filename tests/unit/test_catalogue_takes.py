"""The plan of a catalogue is a pure function of order and model: laws, not examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.catalogue.order import Order
from tutti.catalogue.takes import ACCEPTED, REJECTED, Block, Plan, Take, check_complete, fill
from tutti.config import build
from tutti.errors import IntegrityError

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**63 - 1)


def plan_of(counts: Sequence[int], *, size: int = 4, seed: int = 0, retries: int = 2, digest: str = "d" * 32) -> Plan:
    lines = [{"count": count} for count in counts]
    tree = {"name": "o", "model": "m", "seed": seed, "retries": retries, "takes_per_block": size, "lines": lines}
    return Plan(build(Order, tree), model="m", model_version="1", model_digest=digest)


def rows_of(plan: Plan, *, luck: int) -> list[dict[str, Any]]:
    """Rows as a run would give them, where a take passes by a coin that its own seed throws."""

    return [
        row
        for block in plan.blocks()
        for row in fill(
            block, plan=plan, **in_rounds(partial(row_of, luck=luck)), passes=lambda row: row["verdict"] == ACCEPTED
        )
    ]


def row_of(take: Take, *, luck: int) -> dict[str, Any]:
    return {
        "take_id": take.take_id,
        "line": take.slot.line,
        "number": take.slot.number,
        "attempt": take.attempt,
        "verdict": ACCEPTED if take.request.seed % 4 >= luck else REJECTED,
    }


def in_rounds(draft: Callable[[Take], Any]) -> dict[str, Any]:
    """All that are under way end together."""
    under_way: list[Take] = []

    def ended() -> list[tuple[Take, Any]]:
        taken, under_way[:] = list(under_way), []
        return [(take, draft(take)) for take in taken]

    return {"begin": under_way.extend, "ended": ended}


@given(COUNTS, SIZES)
def test_blocks_hold_every_slot_once_and_in_order(counts: list[int], size: int) -> None:
    plan = plan_of(counts, size=size)
    blocks = plan.blocks()
    places = [(slot.line, slot.number) for block in blocks for slot in block.slots]
    assert places == [(line, number) for line, count in enumerate(counts) for number in range(count)]
    assert all(len(block.slots) == size for block in blocks[:-1])
    assert 1 <= len(blocks[-1].slots) <= size
    assert len({block.path for block in blocks}) == len(blocks)


@given(COUNTS, SEEDS)
def test_take_ids_and_seeds_are_all_different(counts: list[int], seed: int) -> None:
    plan = plan_of(counts, seed=seed)
    takes = [
        plan.take(slot, attempt) for block in plan.blocks() for slot in block.slots for attempt in range(plan.attempts)
    ]
    assert len({take.take_id for take in takes}) == len(takes)
    assert len({take.request.seed for take in takes}) == len(takes)


@given(COUNTS, SIZES, SIZES)
def test_a_take_is_the_same_take_in_any_block(counts: list[int], one: int, other: int) -> None:
    first, second = plan_of(counts, size=one), plan_of(counts, size=other)
    assert [first.take(first.slot(i), 1) for i in range(sum(counts))] == [
        second.take(second.slot(i), 1) for i in range(sum(counts))
    ]


def test_another_model_seed_or_request_is_another_take() -> None:
    plan = plan_of([2])
    take = plan.take(plan.slot(0), 0)
    other_model = replace(plan, model_digest="e" * 32)
    other_seed = plan_of([2], seed=1)
    ids = {
        take.take_id,
        other_model.take(plan.slot(0), 0).take_id,
        other_seed.take(other_seed.slot(0), 0).take_id,
        plan.take(replace(plan.slot(0), controls=take.request.model_copy(update={"tempo": 90.0})), 0).take_id,
    }
    assert len(ids) == 4


def test_the_first_take_is_pinned() -> None:
    """What reproduces old catalogues: changing this is a visible act, with a new stage version."""
    plan = plan_of([1], seed=7)
    take = plan.take(plan.slot(0), 0)
    assert (take.request.seed, take.take_id) == PINNED


PINNED = (9117466943065404696, "0fb7a2a70ff9bb36ae770059")


@given(COUNTS, SIZES, st.integers(0, 4))
def test_whatever_fails_the_rows_keep_the_plan(counts: list[int], size: int, luck: int) -> None:
    plan = plan_of(counts, size=size)
    rows = rows_of(plan, luck=luck)
    check_complete(rows, plan=plan)
    places = [(row["line"], row["number"], row["attempt"]) for row in rows]
    assert places == sorted(set(places))


@given(COUNTS, SIZES, st.integers(0, 4), st.data())
def test_a_lost_a_doubled_and_a_foreign_row_are_refused(counts: list[int], size: int, luck: int, data: Any) -> None:
    plan = plan_of(counts, size=size)
    rows = rows_of(plan, luck=luck)
    index = data.draw(st.integers(0, len(rows) - 1))
    with pytest.raises(IntegrityError, match=r"lost|not filled"):
        check_complete(rows[:index] + rows[index + 1 :], plan=plan)
    with pytest.raises(IntegrityError, match="is there twice"):
        check_complete([*rows, rows[index]], plan=plan)
    with pytest.raises(IntegrityError, match="is not of this order"):
        check_complete([*rows[:index], {**rows[index], "take_id": "0" * 24}, *rows[index + 1 :]], plan=plan)


def test_only_what_failed_is_tried_again() -> None:
    plan = plan_of([4], retries=2)
    rounds: list[list[tuple[int, int]]] = []
    drafts = in_rounds(lambda take: take)

    def begin(takes: Sequence[Take]) -> None:
        rounds.append([(take.slot.number, take.attempt) for take in takes])
        drafts["begin"](takes)

    passing = {(0, 0), (2, 0), (3, 1)}
    made = fill(
        plan.block(0),
        plan=plan,
        begin=begin,
        ended=drafts["ended"],
        passes=lambda take: (take.slot.number, take.attempt) in passing,
    )
    assert rounds == [[(0, 0), (1, 0), (2, 0), (3, 0)], [(1, 1), (3, 1)], [(1, 2)]]
    assert [(take.slot.number, take.attempt) for take in made] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (3, 0),
        (3, 1),
    ]


@given(COUNTS, st.integers(0, 4), st.randoms(use_true_random=False))
def test_in_whatever_order_takes_end_the_block_is_the_same(counts: list[int], luck: int, random: Random) -> None:
    plan = plan_of(counts, size=7)
    under_way: list[Take] = []

    def ended() -> list[tuple[Take, dict[str, Any]]]:
        random.shuffle(under_way)
        number = random.randint(1, len(under_way))
        taken = [under_way.pop() for _ in range(number)]
        return [(take, row_of(take, luck=luck)) for take in taken]

    def filled(block: Block) -> list[dict[str, Any]]:
        passes = lambda row: row["verdict"] == ACCEPTED  # noqa: E731
        return fill(block, plan=plan, begin=under_way.extend, ended=ended, passes=passes)

    assert [row for block in plan.blocks() for row in filled(block)] == rows_of(plan, luck=luck)


def test_a_take_that_is_lost_or_comes_twice_is_refused() -> None:
    plan = plan_of([3])
    begun: list[Take] = []

    def fails(match: str, ends: Callable[[], Sequence[Take]]) -> None:
        begun.clear()
        with pytest.raises(IntegrityError, match=match):
            fill(
                plan.block(0),
                plan=plan,
                begin=begun.extend,
                ended=lambda: [(take, take) for take in ends()],
                passes=lambda _: True,
            )

    answers = [[0, 1], []]
    fails("1 takes of .* were lost", lambda: [begun[number] for number in answers.pop(0)])
    fails("came twice", lambda: [begun[0], begun[0]])


def test_an_accepted_take_is_final() -> None:
    plan = plan_of([1], retries=1)
    rows = [{**row, "verdict": ACCEPTED} for row in rows_of(plan, luck=4)]
    with pytest.raises(IntegrityError, match="tried again after an accepted take"):
        check_complete(rows, plan=plan)


def test_the_estimate_grows_with_what_is_ordered() -> None:
    assert plan_of([4]).estimated_bytes > plan_of([2]).estimated_bytes > 0
