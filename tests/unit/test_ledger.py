"""What a training costs: laws of the ledger, of the stopwatch, and of the file between them."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tutti.errors import IntegrityError
from tutti.storage import Folder
from tutti.training.ledger import LEDGER, Activity, Bill, Ledger, Prices, Stopwatch, kind_of

KINDS = st.sampled_from(["cpu", "gpu", "H100"])
SECONDS = st.floats(min_value=0, max_value=1e6, allow_nan=False)
CHARGES = st.lists(st.tuples(st.sampled_from(Activity), KINDS, st.integers(1, 64), SECONDS), max_size=12)
PRICES = Prices(currency="EUR", worker_hour={"cpu": 0.1, "gpu": 2.0})


def charged(charges: list[tuple[Activity, str, int, float]], *, restarts: int = 0) -> Ledger:
    ledger = Ledger(restarts=restarts)
    for activity, kind, workers, seconds in charges:
        ledger = ledger.charged(activity, kind=kind, workers=workers, seconds=seconds)
    return ledger


LEDGERS = st.builds(lambda charges, restarts: charged(charges, restarts=restarts), CHARGES, st.integers(0, 9))


@given(LEDGERS, LEDGERS, LEDGERS)
def test_merging_is_a_sum(one: Ledger, two: Ledger, three: Ledger) -> None:
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(two) == two.merged(one)
    assert one.merged(Ledger()) == one


@given(CHARGES)
def test_totals_are_wall_time_times_workers(charges: list[tuple[Activity, str, int, float]]) -> None:
    ledger = charged(charges)
    total = sum(workers * seconds for _, _, workers, seconds in charges)
    assert ledger.worker_seconds() == pytest.approx(total, abs=1e-3)
    by_kind = sum(ledger.worker_seconds(kind=kind) for kind in ledger.kinds)
    by_activity = sum(ledger.worker_seconds(activity=activity) for activity in Activity)
    assert by_kind == pytest.approx(ledger.worker_seconds())
    assert by_activity == pytest.approx(ledger.worker_seconds())


@given(LEDGERS, CHARGES)
def test_a_failure_moves_time_and_makes_none(checkpoint: Ledger, after: list[tuple[Activity, str, int, float]]) -> None:
    now = checkpoint.merged(charged(after))
    lost = now.lost_since(checkpoint)
    assert lost.worker_seconds() == now.worker_seconds()
    for kind in now.kinds:
        assert lost.worker_seconds(kind=kind) == now.worker_seconds(kind=kind)
    for activity in set(Activity) - {Activity.LOST}:
        assert lost.worker_seconds(activity=activity) == checkpoint.worker_seconds(activity=activity)
    assert lost.lost_since(lost) == lost
    assert lost.price(PRICES) == pytest.approx(now.price(PRICES))


@given(LEDGERS, st.integers(0, 10**12))
def test_what_was_written_is_read(ledger: Ledger, tokens: int) -> None:
    folder = Folder("memory://ledger")
    ledger.write(folder, prices=PRICES, tokens=tokens)
    assert Bill.read(folder) == Bill(ledger, PRICES, tokens)
    assert Ledger.read(folder) == ledger
    assert pickle.loads(pickle.dumps(ledger)) == ledger


def test_a_new_run_has_spent_nothing() -> None:
    folder = Folder("memory://ledger-of-a-new-run")
    assert Bill.read(folder) is None
    assert Ledger.read(folder) == Ledger()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"worker_seconds": {"cpu": {"dance": 1}}, "restarts": 0, "prices": {}, "tokens": 0}',
    ],
)  # fmt: skip
def test_what_is_no_ledger_is_refused(data: bytes) -> None:
    folder = Folder("memory://no-ledger")
    folder.write(LEDGER, data)
    with pytest.raises(IntegrityError, match="is not a ledger"):
        Ledger.read(folder)


def test_the_file_says_seconds() -> None:
    folder = Folder("memory://ledger-for-people")
    charged([(Activity.TRAIN, "gpu", 4, 90.5)]).write(folder, prices=PRICES, tokens=7)
    assert json.loads(folder.read(LEDGER))["worker_seconds"] == {"gpu": {"train": 362.0}}


def test_money() -> None:
    ledger = charged(
        [(Activity.TRAIN, "gpu", 4, 3600), (Activity.LOST, "gpu", 4, 900), (Activity.TRAIN, "cpu", 10, 3600)]
    )
    assert ledger.price(PRICES) == pytest.approx(4 * 2.0 + 2.0 + 10 * 0.1)
    assert ledger.price(PRICES, activity=Activity.LOST) == pytest.approx(2.0)
    assert ledger.tokens_per_unit(PRICES, 22_000) == pytest.approx(2000)
    assert ledger.tokens_per_unit(Prices(), 22_000) is None
    assert ledger.lost_seconds == 3600
    figures = ledger.figures(PRICES, tokens=22_000)
    assert figures["cost_worker_s_lost"] == 3600
    assert figures["cost_worker_s_cpu"] == 36_000
    assert figures["cost_price"] == pytest.approx(11)
    assert all(type(value) is float for value in figures.values())
    assert "cost_tokens_per_unit" not in ledger.figures(Prices(), tokens=22_000)


def test_a_gpu_without_a_price_of_its_own_costs_what_a_gpu_does() -> None:
    named = Prices(worker_hour={"gpu": 2.0, "H100": 5.0})
    assert [named.of(kind) for kind in ("cpu", "gpu", "H100", "A10G")] == [0.0, 2.0, 5.0, 2.0]
    assert [kind_of(gpus_per_worker=0, accelerator="H100"), kind_of(gpus_per_worker=1)] == ["cpu", "gpu"]
    assert kind_of(gpus_per_worker=1, accelerator="H100") == "H100"
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Prices(worker_hour={"gpu": -1})


def test_restarts_are_counted_and_added() -> None:
    assert Ledger().restarted().restarted().merged(Ledger().restarted()).restarts == 3


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.tuples(st.sampled_from(Activity), st.integers(0, 1000), st.integers(0, 1000)), max_size=20))
def test_every_moment_belongs_to_one_activity(turns: list[tuple[Activity, int, int]]) -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    for activity, before_s, within_s in turns:
        clock.now_s += before_s
        with watch.on(activity):
            clock.now_s += within_s
    assert sum(watch.seconds().values()) == clock.now_s - 100
    assert watch.seconds() == watch.lap()
    assert watch.seconds() == {}


def test_blocks_in_blocks_count_once_and_an_error_ends_its_block() -> None:
    clock = Clock()
    watch = Stopwatch(clock=clock)
    clock.now_s += 1
    watch.turn(Activity.TRAIN)
    clock.now_s += 2

    def fails() -> None:
        with watch.on(Activity.VALIDATE):
            clock.now_s += 4
            with watch.on(Activity.WAIT):
                clock.now_s += 8
            clock.now_s += 16
            raise RuntimeError("loss is nan")

    with pytest.raises(RuntimeError, match="loss is nan"):
        fails()
    clock.now_s += 32
    assert watch.seconds() == {
        Activity.START: 1, Activity.TRAIN: 2 + 32, Activity.VALIDATE: 4 + 16, Activity.WAIT: 8,
    }  # fmt: skip
    ledger = Ledger().charged_all(watch.lap(), kind="cpu", workers=2)
    assert ledger.worker_seconds() == 2 * 63
