"""Checkpoints: which stay, how they are found, and how several ranks bring one to storage."""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tutti import lineage, storage
from tutti.errors import IntegrityError, PlaceError
from tutti.storage import Folder
from tutti.training import checkpoint
from tutti.training.accounts import Accounts
from tutti.training.checkpoint import HISTORY, Kept, staying
from tutti.training.ledger import Bill, Prices
from tutti.training.plan import Attempt
from tutti.training.snapshot import host_copy
from tutti.training.uploader import Policy, Uploader

ALL = Policy(last=100, best=0, every_steps=0)
WITHIN_S = 60.0


@pytest.fixture(params=["memory", "files", "s3"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        return request.getfixturevalue("s3_folder")  # type: ignore[no-any-return]
    return Folder(str(tmp_path)) if request.param == "files" else Folder(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def memory() -> Folder:
    return Folder(f"memory://{uuid.uuid4().hex}")


# Which stay

KEPT = st.dictionaries(st.integers(0, 60), st.none() | st.floats(0, 9, allow_nan=False), max_size=12).map(
    lambda found: [Kept(step, nll) for step, nll in found.items()]
)


@given(found=KEPT, last=st.integers(0, 4), best=st.integers(0, 4), every_steps=st.integers(0, 7), data=st.data())
def test_the_newest_the_best_and_the_multiples_stay_and_nothing_else(
    found: list[Kept], last: int, best: int, every_steps: int, data: st.DataObject
) -> None:
    stay = staying(data.draw(st.permutations(found)), last=last, best=best, every_steps=every_steps)
    judged = [kept for kept in found if kept.valid_score is not None]

    def newer(kept: Kept) -> int:
        return sum(other.step > kept.step for other in found)

    def better(kept: Kept) -> int:
        mine = (kept.valid_score, kept.step)
        return sum((other.valid_score, other.step) < mine for other in judged)  # type: ignore[operator]

    for kept in found:
        is_newest = newer(kept) < last
        is_best = kept in judged and better(kept) < best
        is_multiple = every_steps > 0 and kept.step % every_steps == 0
        assert (kept.step in stay) == (is_newest or is_best or is_multiple), kept
    assert stay <= {kept.step for kept in found}


@given(found=KEPT, last=st.integers(1, 4), best=st.integers(0, 4), every_steps=st.integers(0, 7))
def test_to_remove_twice_is_to_remove_once(found: list[Kept], last: int, best: int, every_steps: int) -> None:
    stay = staying(found, last=last, best=best, every_steps=every_steps)
    left = [kept for kept in found if kept.step in stay]
    assert staying(left, last=last, best=best, every_steps=every_steps) == stay
    assert not found or max(kept.step for kept in found) in stay


# What is found


def put(run: Folder, step: int, *, attempt: str = "a0", valid_score: float | None = None, whole: bool = True) -> Folder:
    """A checkpoint as a rank alone writes it; without its manifest where it is not ``whole``."""
    folder = checkpoint.place(run, step=step, attempt=attempt)
    history = json.dumps({"train": [[step, 1.0]]}).encode()
    files = [lineage.write_file(folder, path, data) for path, data in {"state.pt": b"s", HISTORY: history}.items()]
    if whole:
        facts = {"step": step, "valid_score": valid_score}
        lineage.publish(folder, kind="checkpoints", name=f"step {step}", inputs={}, files=files, facts=facts)
    return folder


def test_what_is_whole_is_found_and_nothing_else(run: Folder) -> None:
    assert (checkpoint.latest(run), checkpoint.best(run), checkpoint.steps(run)) == (None, None, [])
    for step, valid_score in ((100, 2.0), (20, 1.5), (3, None), (7, 1.5)):
        put(run, step, valid_score=valid_score)
    put(run, 200, whole=False)
    run.write("checkpoints/notes.txt", b"no checkpoint")
    assert checkpoint.steps(run) == [3, 7, 20, 100]
    newest, best, third = checkpoint.latest(run), checkpoint.best(run), checkpoint.at(run, step=3)
    assert newest is not None
    assert best is not None
    assert third is not None
    # Of two that are equally good, the one that was learnt sooner.
    assert (newest.step, best.step, third.step) == (100, 7, 3)
    assert (newest.valid_score, third.valid_score) == (2.0, None)
    assert newest.history == {"train": [[100, 1.0]]}
    assert checkpoint.at(run, step=200) is None
    assert checkpoint.at(run, step=10) is None


def test_pruned_it_keeps_what_stays_and_what_is_on_its_way(run: Folder) -> None:
    for step, valid_score in ((2, 1.0), (4, 3.0), (6, 2.0), (8, None), (10, 4.0)):
        put(run, step, valid_score=valid_score)
    coming = put(run, 12, whole=False)
    checkpoint.prune(run, last=1, best=1, every_steps=4)
    assert checkpoint.steps(run) == [2, 4, 8, 10]
    assert sorted(coming.paths()) == [HISTORY, "state.pt"]
    assert len((run / "checkpoints").children()) == 5


def test_orphans_are_collected_but_not_ones_own(run: Folder) -> None:
    put(run, 2, attempt="a0")
    for step, attempt in ((4, "a0"), (4, "b1"), (6, "b1"), (4, "c2")):
        put(run, step, attempt=attempt, whole=False)
    assert checkpoint.collect_orphans(run, attempt="b1") == 2
    assert (run / "checkpoints").children() == ["step-00000002-a0", "step-00000004-b1", "step-00000006-b1"]
    assert checkpoint.collect_orphans(run, attempt="b1") == 0


def test_of_two_attempts_at_a_step_the_whole_one_counts(run: Folder) -> None:
    put(run, 4, attempt="ff", whole=False)
    put(run, 4, attempt="aa")
    put(run, 4, attempt="00", whole=False)
    saved = checkpoint.at(run, step=4)
    assert saved is not None
    assert saved.dataset.folder.uri.endswith("step-00000004-aa")
    assert checkpoint.steps(run) == [4]


def test_damage_is_noticed_where_it_is_read(run: Folder, tmp_path: Path) -> None:
    folder = put(run, 4)
    saved = checkpoint.latest(run)
    assert saved is not None
    checkpoint.fetch(saved, tmp_path / "whole", wanted=lambda path: path == "state.pt")
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["state.pt"]
    folder.write("state.pt", b"t")
    with pytest.raises(IntegrityError, match=r"state\.pt differs from its manifest"):
        checkpoint.fetch(saved, tmp_path / "damaged", wanted=lambda _: True)
    folder.write("state.pt", b"longer")
    with pytest.raises(IntegrityError, match=r"state\.pt differs from its manifest"):
        checkpoint.latest(run)


# On their way


@pytest.fixture
def uploaders() -> Iterator[Callable[..., list[Uploader]]]:
    made: list[Uploader] = []

    def make(run: Folder, num_ranks: int, *, attempt: str = "a0", policy: Policy = ALL, **more: Any) -> list[Uploader]:
        ranks = [
            Uploader(run, attempt, rank, num_ranks, policy, patience_s=0.0, told=lambda _: None, **more)
            for rank in range(num_ranks)
        ]
        made.extend(ranks)
        return ranks

    yield make
    for each in made:
        each.stop()


def send(rank: Uploader, step: int, *, valid_score: float | None = None) -> None:
    rank.submit(
        step=step,
        files={f"rank-{rank.rank}.pt": {"rank": rank.rank, "weight": torch.full((3,), float(step))}},
        history={"train": [[step, 0.5]]},
        facts={"valid_score": valid_score, "num_ranks": rank.num_ranks},
    )


def arrive(rank: Uploader) -> None:
    """Wait until what is on its way has arrived."""
    assert rank._thread is not None
    rank._thread.join(WITHIN_S)
    assert not rank.is_busy
    rank.check()


def test_it_exists_once_all_ranks_have_written(run: Folder, uploaders: Callable[..., list[Uploader]]) -> None:
    first, second, third = uploaders(run, 3)
    send(second, 4)
    arrive(second)
    send(first, 4)
    assert first.is_busy
    assert checkpoint.latest(run) is None
    send(third, 4)
    for rank in (third, first):
        arrive(rank)
    saved = checkpoint.latest(run)
    assert saved is not None
    assert set(saved.dataset.paths()) == {"rank-0.pt", "rank-1.pt", "rank-2.pt", HISTORY}
    assert saved.history == {"train": [[4, 0.5]]}
    assert (saved.step, saved.dataset.facts["num_ranks"]) == (4, 3)
    for rank in range(3):
        state = torch.load(io.BytesIO(saved.dataset.read(f"rank-{rank}.pt")), weights_only=True)
        assert state["rank"] == rank
        assert torch.equal(state["weight"], torch.full((3,), 4.0))


def test_a_rank_that_never_writes_leaves_no_checkpoint_and_nobody_waiting(
    memory: Folder, uploaders: Callable[..., list[Uploader]]
) -> None:
    first, second, _ = uploaders(memory, 3)
    for rank in (first, second):
        send(rank, 4)
    arrive(second)
    assert first.is_busy
    first.stop()
    assert not first.is_busy
    first.check()
    assert checkpoint.latest(memory) is None
    assert not any(path.endswith(lineage.MANIFEST) for path in memory.paths())


def test_attempts_do_not_take_each_others_parts(memory: Folder, uploaders: Callable[..., list[Uploader]]) -> None:
    _, dead = uploaders(memory, 2, attempt="dead")
    send(dead, 4)
    arrive(dead)
    first, second = uploaders(memory, 2, attempt="11fe")
    send(first, 4)
    first._stopped.wait(0.1)
    assert first.is_busy
    assert checkpoint.latest(memory) is None
    send(second, 4)
    for rank in (second, first):
        arrive(rank)
    saved = checkpoint.latest(memory)
    assert saved is not None
    assert saved.dataset.folder.uri.endswith("-11fe")
    assert checkpoint.collect_orphans(memory, attempt="11fe") == 1


def test_the_manifest_comes_last_and_the_policy_after_it(
    memory: Folder, uploaders: Callable[..., list[Uploader]]
) -> None:
    seen: list[tuple[int, list[int]]] = []

    def published(step: int) -> None:
        seen.append((step, checkpoint.steps(memory)))

    (rank,) = uploaders(memory, 1, policy=Policy(last=1, best=1, every_steps=4), published=published)
    for step, valid_score in ((1, 0.5), (2, 3.0), (3, 2.0), (4, 1.0), (5, 0.7)):
        send(rank, step, valid_score=valid_score)
        arrive(rank)
    # At the moment of publishing, the one before is still there: never is there none.
    assert seen == [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 3, 4]), (5, [1, 4, 5])]
    assert checkpoint.steps(memory) == [1, 4, 5]


def test_the_receipt_tells_what_was_written(memory: Folder, uploaders: Callable[..., list[Uploader]]) -> None:
    _, second = uploaders(memory, 2)
    send(second, 4)
    arrive(second)
    folder = checkpoint.place(memory, step=4, attempt="a0")
    (entry,) = json.loads(folder.read("receipts/rank-00001.json"))
    data = folder.read("rank-1.pt")
    assert entry["sha256"] == hashlib.sha256(data).hexdigest()
    assert (entry["path"], entry["size_bytes"]) == ("rank-1.pt", len(data))


def test_curves_are_those_of_the_moment(memory: Folder, uploaders: Callable[..., list[Uploader]]) -> None:
    first, second = uploaders(memory, 2)
    history: dict[str, list[Any]] = {"train": [[1, 2.0]]}
    first.submit(step=1, files={}, history=history, facts={})
    history["train"].append([2, 1.0])
    send(second, 1)
    for rank in (second, first):
        arrive(rank)
    saved = checkpoint.latest(memory)
    assert saved is not None
    assert saved.history == {"train": [[1, 2.0]]}


def test_what_cannot_be_written_is_raised_in_the_training(
    tmp_path: Path, uploaders: Callable[..., list[Uploader]]
) -> None:
    (tmp_path / "checkpoints").write_bytes(b"a file where a folder must be")
    (rank,) = uploaders(Folder(str(tmp_path)), 1)
    send(rank, 1)
    with pytest.raises(PlaceError, match=r"cannot write .*/checkpoints/step-00000001-a0/rank-0\.pt"):
        arrive(rank)
    with pytest.raises(PlaceError, match="cannot write"):
        send(rank, 2)


def test_what_vanishes_on_the_way_is_raised_too(memory: Folder, uploaders: Callable[..., list[Uploader]]) -> None:
    first, second = uploaders(memory, 2)
    send(second, 1)
    arrive(second)
    folder = checkpoint.place(memory, step=1, attempt="a0")
    folder.write("rank-1.pt", b"somebody else's")
    send(first, 1)
    with pytest.raises(IntegrityError, match=r"rank-1\.pt is not the file that was written"):
        arrive(first)
    assert checkpoint.latest(memory) is None


def test_a_bill_that_cannot_be_written_yet_is_written_later(
    memory: Folder, uploaders: Callable[..., list[Uploader]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 0.01)
    attempt = Attempt(name="a0", began_unix_s=time.time())
    accounts = Accounts(memory, attempt, kind="cpu", workers=1, prices=Prices())
    away: list[str] = []

    def published(step: int) -> None:
        # Storage goes between the manifest and the bill.
        if not away:
            storage.cut_off(WITHIN_S)
        accounts.published(step)

    def told(line: str) -> None:
        away.append(line)
        storage.cut_off(0.0)

    (rank,) = uploaders(memory, 1, published=published)
    rank.patience_s, rank.told = WITHIN_S, told
    accounts.taken(4, tokens=1234)
    send(rank, 4)
    arrive(rank)
    bill = Bill.read(memory)
    assert bill is not None
    assert (accounts.published_step, accounts.tokens, bill.tokens) == (4, 1234, 1234)
    assert len(away) == 1
    assert "ledger.json (cut off on purpose); trying again" in away[0]


# Copies

LEAVES = st.integers(1, 5).map(lambda size: torch.arange(float(size))) | st.integers() | st.text(max_size=3)
STATES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


def tensors_of(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for each in inner for tensor in tensors_of(each)]


@given(STATES)
def test_a_copy_shares_nothing_and_says_the_same(state: Any) -> None:
    copy = host_copy(state)
    assert type(copy) is type(state)
    pairs = list(zip(tensors_of(state), tensors_of(copy), strict=True))
    for tensor, copied in pairs:
        assert torch.equal(tensor, copied)
        assert tensor.untyped_storage().data_ptr() != copied.untyped_storage().data_ptr()
    for tensor in tensors_of(state):
        tensor.fill_(-1.0)
    for _, copied in pairs:
        assert torch.equal(copied, torch.arange(float(len(copied))))


def test_a_view_is_copied_without_what_it_views() -> None:
    whole = torch.nn.Parameter(torch.arange(1000.0).reshape(100, 10))
    copy = host_copy({"part": whole[:2], "turned": whole[:3].t()})
    assert copy["part"].untyped_storage().nbytes() == 2 * 10 * 4
    assert copy["turned"].is_contiguous()
    assert not copy["part"].requires_grad
    assert torch.equal(copy["turned"], whole[:3].t())
