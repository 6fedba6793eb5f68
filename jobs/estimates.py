"""What a catalogue will take: from the catalogues that are there, or from a short try of its first takes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutti.catalogue import publish
from tutti.catalogue.pace import USUAL_START_S, Estimate, Pace
from tutti.catalogue.provenance import processor_name
from tutti.catalogue.takes import Plan, Take
from tutti.dataset.inventory import State, found_below
from tutti.generation.request import Request
from tutti.storage import Folder
from tutti.units import format_seconds

RUNS_READ = 5
PROBED_TAKES, PROBED_BARS, PROBED_LENGTH_S = 4, 8, 15.0


def estimate(plan: Plan, *, root: Folder, bundle: Path) -> Estimate:
    """Time and price of a plan on the cores that this process sees.

    Args:
        bundle: the model's folder, for the short try where nothing was measured.
    """
    measured = list(_measured(plan, root=root))
    pace = Pace.together(measured)
    if pace is not None:
        told = f"{len(measured)} run{'' if len(measured) == 1 else 's'} of this model on this kind of machine"
        how = f"measured: {told}, {format_seconds(pace.music_s)} of music"
    else:
        pace, tried = probe(plan, bundle=bundle)
        how = f"by a try of {tried} short takes on one core; no run of this model with these formats was found"
    return Estimate.of(
        pace,
        music_s=plan.estimated_music_s,
        cores=cores_here(),
        gpus=int(plan.order.device == "cuda"),
        size_bytes=plan.estimated_bytes,
        prices=plan.order.prices,
        how=how,
    )


def conditions(plan: Plan, pace: Pace) -> dict[str, Any]:
    """A run's figures with what they hold for, as a manifest keeps them."""
    order = plan.order
    return {
        **pace.to_dict(), "model_digest": plan.model_digest, "device": order.device, "processor": processor_name(),
        "formats": sorted(order.formats),
    }  # fmt: skip


def _measured(plan: Plan, *, root: Folder) -> Iterator[Pace]:
    """Of the last runs under the same conditions."""
    wanted = conditions(plan, _NONE)
    same = [name for name in wanted if name not in _NONE.to_dict()]
    finished = [
        found.facts["pace"]
        for found in found_below(root, kinds=(publish.KIND,), now=datetime.now(UTC))
        if found.state == State.FINISHED and "pace" in found.facts
    ]
    alike = [told for told in finished if all(told.get(name) == wanted[name] for name in same)]
    yield from filter(Pace.kept, map(Pace.from_dict, alike[:RUNS_READ]))


_NONE = Pace(0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)


def cores_here() -> int:
    """Cores that a Ray started by this process would have."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def probe(plan: Plan, *, bundle: Path) -> tuple[Pace, int]:
    """A few takes of the order, short ones, through engine, checks and renderer in this process.

    Returns:
        What they took on one core, and how many they were.
    """
    import torch

    from tutti.catalogue.blocks import make_take
    from tutti.catalogue.review import Draft, review
    from tutti.generation import composers

    began_s, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        order = plan.order
        composer = composers.load(
            bundle,
            device=order.device,
            max_batch=order.max_batch,
            cache_bytes=order.cache_bytes,
            precision=order.precision,
        )
        loaded_s, cpu_s = time.perf_counter() - began_s, time.process_time()
        takes = _first_takes(plan)
        materials = [plan.material(take.request) for take in takes]
        pieces = composer.generate([take.request for take in takes], materials=materials)
        engine_s = time.process_time() - cpu_s
        played = [(take, piece) for take, piece in zip(takes, pieces, strict=True) if len(piece.score.notes)]
        for take, piece in played:
            findings = review(
                piece.score, request=take.request, refused_tokens=0, checks=order.checks.model_copy(update=_LENIENT)
            )
            passed = tuple(finding for finding in findings if finding.verdict != "failed")
            make_take(Draft(take, piece.score, passed), plan=plan)
        writer_s = time.process_time() - cpu_s - engine_s
    finally:
        torch.set_num_threads(threads)
    music_s = sum(piece.score.length_s for _, piece in played)
    pace = Pace(
        len(played), music_s, 0.0, USUAL_START_S + loaded_s + engine_s + writer_s, USUAL_START_S + loaded_s, 1,
        engine_s, writer_s,
    )  # fmt: skip
    return pace, len(played)


_LENIENT: dict[str, Any] = {"min_notes": 1}


def _first_takes(plan: Plan) -> Sequence[Take]:
    slots = [slot for block in plan.blocks() for slot in block.slots][:PROBED_TAKES]
    takes = [plan.take(slot, 0) for slot in slots]
    return [Take(take.take_id, take.slot, take.attempt, _shortened(take.request)) for take in takes]


def _shortened(request: Request) -> Request:
    """A request for a shorter piece, where its length is its own to choose."""
    if request.start is not None or request.chords is not None:
        return request
    # Sections cost what a stretch of their length costs, and a short piece has no room for them.
    if request.bars is not None:
        return request.model_copy(update={"bars": min(request.bars, PROBED_BARS), "form": None})
    return request.model_copy(update={"length": min(request.length_s, PROBED_LENGTH_S), "form": None})
