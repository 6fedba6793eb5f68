"""Blocks of a catalogue at one desk: beside each other where company changes nothing, else alone and in rounds."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serving import save_untrained
from tutti.catalogue.on_ray import blocks_under_way, draft_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, passes
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.errors import RecipeError
from tutti.generation.composing import Gathered, drained
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.generation.piece import BarMade, Event, NoteMade, Piece, PieceMade
from tutti.generation.request import Request

LINES = [{"count": 4, "controls": {"bars": 1, "tempo": 100, "meter": "2/4"}},
         {"count": 2, "controls": {"bars": 2, "meter": "3/8", "best_of": 2}}]  # fmt: skip
CHECKS = {"min_notes": 40, "pitch_low": 0, "pitch_high": 127, "max_silence_s": 100, "max_silence_share": 1,
          "length_tolerance": 1, "max_stuck_share": 1}  # fmt: skip


class Whole(Engine):
    """An engine behind the doors of those that make pieces whole."""

    def open(self) -> Any:
        """As :class:`Engine`."""

        def made(requests: Sequence[Request], *, cancelled: Callable[[int], bool], **_: object) -> list[Piece]:
            session = Engine.open(self)
            return drained(session, [session.submit(each) for each in requests], cancelled=cancelled)

        return Gathered(made, check=self.check, model="whole", max_batch=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("drafting")
    save_untrained(folder)
    return folder


def plan(**checks: float) -> Plan:
    tree = {"name": "o", "model": "m", "retries": 2, "takes_per_block": 2, "max_batch": 4, "lines": LINES}
    return Plan(build(Order, {**tree, "checks": CHECKS | checks}), "m", "1", "")


def told_of(drafts: list[Draft]) -> list[Any]:
    return [(draft.take.take_id, draft.score.notes.pitch.tolist(), passes(draft.findings)) for draft in drafts]


def test_blocks_beside_each_other_are_what_each_is_alone(folder: Path) -> None:
    engine = Engine.load(folder, max_batch=4)
    beside = Desk(engine)
    with ThreadPoolExecutor(blocks_under_way(plan())) as threads:
        together = list(threads.map(lambda block: draft_block(block, plan=plan(), desk=beside), plan().blocks()))
    alone = [draft_block(block, plan=plan(), desk=Desk(engine)) for block in plan().blocks()]
    assert [told_of(drafts) for drafts in together] == [told_of(drafts) for drafts in alone]
    verdicts = [passes(draft.findings) for drafts in together for draft in drafts]
    assert True in verdicts
    assert False in verdicts
    assert [len(draft.candidates) for draft in together[-1]] == [2] * len(together[-1])


def test_what_makes_pieces_whole_drafts_in_rounds(folder: Path) -> None:
    desk = Desk(Whole.load(folder, max_batch=4))
    assert (desk.exact, desk.whole) == (False, True)
    submitted: list[int] = []
    submit = desk.submit

    def counted(requests: Any, **rest: Any) -> list[int]:
        submitted.append(len(requests))
        return submit(requests, **rest)

    desk.submit = counted  # type: ignore[method-assign]
    asked = plan(min_notes=10_000)
    drafts = draft_block(asked.block(0), plan=asked, desk=desk)
    exact = draft_block(asked.block(0), plan=asked, desk=Desk(Engine.load(folder)))
    assert told_of(drafts) == told_of(exact)
    assert submitted == [2, 2, 2], "the next seeds did not wait for all of the first"


def test_whole_pieces_are_told_of_when_they_are_there(folder: Path) -> None:
    desk = Desk(Whole.load(folder))
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    mine = desk.submit([Request(bars=2, tempo=100, meter="2/4", seed=1)], deliver=told.put, told=True)
    quiet = desk.submit([Request(bars=1, tempo=100, meter="2/4", seed=2)], deliver=told.put)
    events: list[Event] = []
    while sum(isinstance(event, PieceMade) for event in events) < 2:
        event = told.get(timeout=60)
        assert not isinstance(event, Exception), event
        events.append(event)
    of_mine = [event for event in events if event.number == mine[0]]
    assert isinstance(of_mine[-1], PieceMade)
    assert sum(isinstance(event, NoteMade) for event in of_mine) == len(of_mine[-1].piece.score.notes)
    assert [event.bar for event in of_mine if isinstance(event, BarMade)] == [0, 1]
    assert [type(event) for event in events if event.number == quiet[0]] == [PieceMade]


def test_a_take_that_the_model_cannot_make_ends_its_block_alone(folder: Path) -> None:
    desk = Desk(Engine.load(folder))
    lines = [{"count": 2, "controls": {"bars": 1, "collection": "folk"}}]
    broken = Plan(build(Order, {"name": "o", "model": "m", "lines": lines}), "m", "1", "")
    with pytest.raises(RecipeError, match="folk"):
        draft_block(broken.block(0), plan=broken, desk=desk)
    assert draft_block(plan().block(0), plan=plan(), desk=desk)
