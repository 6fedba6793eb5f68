"""Faults on order: how they are named, that one happens once, and that they are the real thing."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs.cli
from tutti import storage
from tutti.errors import PlaceError, RecipeError
from tutti.storage import Folder
from tutti.training.faults import LASTING, Fault, Faults, Kind, parse


@given(
    kind=st.sampled_from(Kind),
    step=st.integers(0, 10**6),
    rank=st.integers(0, 64),
    seconds=st.integers(0, 10**4).map(float),
)
def test_what_is_written_is_read(kind: Kind, step: int, rank: int, seconds: float) -> None:
    fault = Fault(kind, step, rank, seconds if kind in LASTING else 0.0)
    assert parse(str(fault)) == fault


def test_what_is_not_said_is_the_first_rank_and_two_minutes() -> None:
    assert parse("rank_killed@step=120") == Fault(Kind.RANK_KILLED, 120, 0, 0.0)
    assert parse("storage_down@step=60") == Fault(Kind.STORAGE_DOWN, 60, 0, 120.0)
    assert parse("tracker_down@seconds=2.5,rank=1,step=3") == Fault(Kind.TRACKER_DOWN, 3, 1, 2.5)


REFUSED = [
    ("rank_kiled@step=3", "fault 'rank_kiled@step=3' is not known: did you mean rank_killed@step=120?"),
    ("meteor@step=3", "fault 'meteor@step=3' is not known: write KIND@step=120; kinds are rank_killed, rank_hung"),
    ("rank_killed", "fault 'rank_killed' is not known: did you mean rank_killed@step=120?"),
    ("rank_killed@", "fault 'rank_killed@' is not known: did you mean"),
    ("rank_killed@step", "fault 'rank_killed@step' is not known: did you mean"),
    ("rank_killed@step=-1", "fault 'rank_killed@step=-1' is not known: did you mean"),
    ("", "fault '' is not known: write KIND@step=120"),
    ("rank_killed@rank=1", "fault 'rank_killed@rank=1' names no step: settings of rank_killed are rank, step"),
    ("nan_loss@step=3,seconds=2", "does not know 'seconds': settings of nan_loss are rank, step"),
    ("storage_down@step=3,second=2", "does not know 'second': settings of storage_down are rank, seconds, step"),
    ("rank_hung@step=soon", "fault 'rank_hung@step=soon' cannot be read (invalid literal"),
    ("rank_hung@step=1.5", "fault 'rank_hung@step=1.5' cannot be read (invalid literal"),
    ("storage_down@step=1,seconds=long", "cannot be read (could not convert string to float: 'long')"),
    ("rank_hung@step=1,step=2", "fault 'rank_hung@step=1,step=2' names 'step' twice"),
    ("storage_down@step=1,seconds=nan", "cannot be read (seconds are no number from 0)"),
    ("storage_down@step=1,seconds=inf", "cannot be read (seconds are no number from 0)"),
]


@pytest.mark.parametrize(("text", "line"), REFUSED)
def test_what_names_no_fault_is_refused_in_one_line(text: str, line: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(line)) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_them_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    for text, line in (REFUSED[0], REFUSED[7]):
        assert jobs.cli.run(["train", "demo", "--simulate-fault", text]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"error: {line}")
        assert told.err.count("\n") == 1


@pytest.fixture
def run() -> Folder:
    return Folder(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def happened() -> list[float | str]:
    return []


@pytest.fixture
def faults_of(run: Folder, happened: list[float | str]) -> Callable[..., Faults]:
    def made(*texts: str, rank: int = 0) -> Faults:
        return Faults(
            [parse(text) for text in texts], run=run, rank=rank,
            preempt=lambda: happened.append("notice"), cut_tracker=happened.append,
        )  # fmt: skip

    return made


def test_one_happens_once_in_the_life_of_a_run(faults_of: Callable[..., Faults], happened: list[float | str]) -> None:
    texts = ("tracker_down@step=3,seconds=7", "preempted@step=5")
    first = faults_of(*texts)
    for step in range(4):
        first.before(step)
        assert happened == ([7.0] if step >= 3 else [])
    # The next attempt goes on from an older checkpoint and comes by the same step again.
    second = faults_of(*texts)
    for step in range(2, 8):
        second.before(step)
    assert happened == [7.0, "notice"]
    for step in range(8):
        faults_of(*texts).before(step)
    assert happened == [7.0, "notice"]


def test_it_happens_late_rather_than_never(faults_of: Callable[..., Faults], happened: list[float | str]) -> None:
    faults_of("preempted@step=3", "tracker_down@step=4,seconds=2").before(10)
    assert happened == ["notice", 2.0]


def test_two_of_a_kind_are_two(faults_of: Callable[..., Faults], happened: list[float | str]) -> None:
    faults = faults_of("preempted@step=3", "preempted@step=3", "preempted@step=4")
    for step in range(6):
        faults.before(step)
    assert happened == ["notice"] * 3


def test_it_befalls_its_rank(faults_of: Callable[..., Faults], happened: list[float | str]) -> None:
    faults_of("preempted@step=0,rank=1").before(0)
    assert happened == []
    faults_of("preempted@step=0,rank=1", rank=1).before(0)
    assert happened == ["notice"]


@pytest.fixture
def storage_is_back() -> Iterator[None]:
    yield None
    storage.cut_off(0.0)


@pytest.mark.usefixtures("storage_is_back")
def test_storage_is_away_for_every_rank(faults_of: Callable[..., Faults], run: Folder) -> None:
    faults_of("storage_down@step=0,seconds=3600", rank=3).before(0)
    with pytest.raises(PlaceError, match="cut off on purpose"):
        run.read("anything")
    storage.cut_off(0.0)
    assert run.paths("faults") == ["faults/0-rank-3"]


@pytest.mark.usefixtures("storage_is_back")
def test_one_that_storage_keeps_back_happens_later(
    faults_of: Callable[..., Faults], happened: list[float | str]
) -> None:
    faults = faults_of("storage_down@step=1,seconds=3600", "preempted@step=2")
    faults.before(1)
    for _ in range(2):
        with pytest.raises(PlaceError, match="cut off on purpose"):
            faults.before(2)
    assert happened == []
    storage.cut_off(0.0)
    faults.before(2)
    assert happened == ["notice"]


def test_that_it_happened_is_written_before(run: Folder) -> None:
    def preempt() -> None:
        assert run.read("faults/0-rank-0") == b"preempted@step=1,rank=0"
        raise RuntimeError("the worker is gone")

    with pytest.raises(RuntimeError, match="gone"):
        Faults([parse("preempted@step=1")], run=run, rank=0, preempt=preempt).before(1)


@given(poisoned=st.sets(st.integers(0, 50), max_size=5), rank=st.integers(0, 3))
def test_a_poisoned_batch_is_always_the_same_for_all_ranks(poisoned: set[int], rank: int) -> None:
    folder = Folder("memory://nobody-writes-here")
    faults = Faults([Fault(Kind.NAN_LOSS, number) for number in poisoned], run=folder, rank=rank)
    for step in range(51):
        faults.before(step)
    assert {number for number in range(51) if faults.poisons(number)} == poisoned
    assert folder.paths() == []


EXHAUST = """
import resource
from tutti.training import faults
from tutti.training.recovery import Failure, Symptom, recognised
before = resource.getrlimit(resource.RLIMIT_AS)
for _ in range(2):
    try:
        faults._exhaust_memory()
    except (RuntimeError, MemoryError) as error:
        symptom = Symptom(type(error).__name__, str(error))
        assert recognised((symptom,)) == Failure.OUT_OF_MEMORY, symptom
        print(type(error).__name__)
assert resource.getrlimit(resource.RLIMIT_AS) == before
"""

DIE = """
import os, sys
from tutti.storage import Folder
from tutti.training.faults import Faults, parse
Faults([parse(sys.argv[1])], run=Folder(sys.argv[2]), rank=0).before(0)
print("alive")
"""


def _python(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)


def test_memory_runs_out_for_real_and_is_there_again() -> None:
    done = _python(EXHAUST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() in (["RuntimeError"] * 2, ["MemoryError"] * 2, ["OutOfMemoryError"] * 2)


def test_a_killed_rank_dies_at_once_and_only_once(tmp_path: Path) -> None:
    first, second = (_python(DIE, "rank_killed@step=0", str(tmp_path)) for _ in range(2))
    assert (first.returncode, first.stdout) == (-9, "")
    assert (second.returncode, second.stdout) == (0, "alive\n")


def test_a_node_is_lost_on_a_cluster_alone(run: Folder) -> None:
    with pytest.raises(RecipeError, match="node_lost needs a worker of a Ray node: train on a cluster"):
        Faults([parse("node_lost@step=0")], run=run, rank=0).before(0)
