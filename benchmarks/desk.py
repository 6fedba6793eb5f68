"""How full an engine's batch is while a catalogue of mixed lengths is drafted: ``python -m benchmarks.desk``.

Fresh weights of flavour ``nano`` draft ``--takes`` takes, of which two thirds fail a check and are followed by their
slot's next seed. The same takes come either way, and their notes are compared:

- **block after block, in rounds**: the takes of a block step together, then the next seeds of those that failed, then
  the next block: a batch is as large as a block, and runs until its longest take is over.
- **all through one desk**: what a catalogue's engine does. Blocks are under way beside each other, takes join as others
  end.

Both have the same weights, room for as many rows and one thread. What counts is rows that step, of the room for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from benchmarks.harness import Bench, run
from tutti import telemetry
from tutti.catalogue.on_ray import blocks_under_way, draft_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, passes, review
from tutti.catalogue.takes import Block, Plan, Take, fill
from tutti.config import build
from tutti.features.vocabulary import EVENTS
from tutti.generation.desk import Desk
from tutti.generation.engine import Engine
from tutti.generation.session import Session
from tutti.models.decoder import DECODER, Decoder

SEED = 20261128
BARS = (1, 1, 2, 2, 3, 4, 6, 8)
CONTEXT_TOKENS = 1024


class Counted(Engine):
    """An engine that counts its steps and the rows in them."""

    steps = rows = 0

    def open(self) -> Session:
        """As :class:`tutti.generation.engine.Engine`."""
        session = super().open()
        step = session.step

        def counted() -> list[Any]:
            self.steps, self.rows = self.steps + 1, self.rows + session.under_way
            return step()

        session.step = counted  # type: ignore[method-assign]
        return session


def measure(bench: Bench) -> None:
    """Draft the catalogue either way."""
    telemetry.quiet_libraries()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    takes, size, batch = (int(bench.settings[name]) for name in ("takes", "block", "batch"))
    checks: dict[str, float] = {
        "min_notes": 1,
        "pitch_low": 0,
        "pitch_high": 127,
        "max_silence_s": 1000,
        "max_silence_share": 1,
    }
    checks |= {"length_tolerance": 1, "max_stuck_share": 1, "max_note_s": 6.0}
    lines = [{"count": 1, "controls": {"bars": BARS[n % len(BARS)]}} for n in range(takes)]
    tree = {"name": "mixed", "model": "m", "seed": SEED, "retries": 2, "takes_per_block": size, "max_batch": batch}
    plan = Plan(build(Order, tree | {"lines": lines, "checks": checks}), "m", "1", "")
    shape = {"vocabulary_size": len(EVENTS), "max_tokens": CONTEXT_TOKENS}
    network = Decoder(DECODER.configure("nano", shape=shape)).eval()
    ways: dict[str, tuple[int, Callable[[Plan, Engine], list[Draft]]]] = {
        "block after block, in rounds": (size, _in_rounds),
        "all through one desk": (batch, _through_a_desk),
    }
    drafts, shares, rates, rows = {}, {}, {}, {}
    for name, (room, way) in ways.items():
        engine = Counted(
            network, digest="", collections=(), facts={}, context_tokens=CONTEXT_TOKENS, max_batch=room
        )  # fmt: skip
        started_s = time.process_time()
        drafts[name] = way(plan, engine)
        rates[name] = len(drafts[name]) / (time.process_time() - started_s)
        shares[name], rows[name] = engine.rows / engine.steps / room, engine.rows / engine.steps
    one, other = ([(d.take.take_id, d.score.notes.pitch.tolist()) for d in each] for each in drafts.values())
    assert one == other, "another way gave other takes"
    failed = sum(not passes(draft.findings) for draft in drafts["all through one desk"])
    bench.count("rows that step, of the room for them", shares, unit="share")
    bench.count("rows that step", rows, unit="rows")
    bench.count("takes a second of one core, by its own time", rates, unit="takes/s")
    bench.name("full_batch_share", shares["all through one desk"])
    bench.note(
        f"{takes} slots of {min(BARS)} to {max(BARS)} bars in blocks of {size}, {len(one)} takes, {failed} of them "
        f"failed their checks; room for {size} and {batch} rows"
    )


def _in_rounds(plan: Plan, engine: Engine) -> list[Draft]:
    """What a catalogue did before its engine had a desk."""
    return [draft for block in plan.blocks() for draft in _round_after_round(block, plan, engine)]


def _round_after_round(block: Block, plan: Plan, engine: Engine) -> list[Draft]:
    under_way: list[Take] = []

    def ended() -> list[tuple[Take, Draft]]:
        taken, under_way[:] = list(under_way), []
        pieces = engine.generate([take.request for take in taken])
        found = []
        for take, piece in zip(taken, pieces, strict=True):
            findings = review(piece.score, request=take.request, refused_tokens=0, checks=plan.order.checks)
            found.append((take, Draft(take, piece.score, tuple(findings))))
        return found

    return fill(block, plan=plan, begin=under_way.extend, ended=ended, passes=lambda draft: passes(draft.findings))


def _through_a_desk(plan: Plan, engine: Engine) -> list[Draft]:
    desk = Desk(engine)
    with ThreadPoolExecutor(blocks_under_way(plan)) as threads:
        blocks = threads.map(lambda block: draft_block(block, plan=plan, desk=desk), plan.blocks())
        return [draft for drafts in blocks for draft in drafts]


if __name__ == "__main__":
    run(
        "desk",
        measure,
        settings={
            "takes": (192, "slots of the order"),
            "block": (8, "takes of a block"),
            "batch": (32, "most takes that step together"),
        },
    )
