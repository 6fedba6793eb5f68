"""Blocks through Ray Data: engine actors generate and check, CPU tasks render and write, side by side.

The stages and the columns that they need and give:

======== ============================================== ==========================================================
stage    needs                                          gives
======== ============================================== ==========================================================
generate ``block``                                      ``block``, ``drafts``, ``engine``, ``fault``
write    ``block``, ``drafts``, ``engine``, ``fault``   ``block``, ``made``, ``engine``, ``fault``
======== ============================================== ==========================================================

``engine`` tells which one it was, when it was ready, and how much processor time it has used; ``made`` what came of the
block. Both are JSON.

One row is one block from end to end. An engine has several blocks under way, each on a thread that reviews its takes,
and one desk (:mod:`tutti.generation.desk`) where all of them step together: takes of the next block join as those of
this one end. The desk steps on one thread, so that a sum is taken in one order whatever the machine's number of cores.

An engine that dies with its worker or node is not restarted: Ray restarts an actor with the arguments that made it,
which Ray Data keeps in the object store, and says for each such actor that they may be gone
(https://github.com/ray-project/ray/issues/57733). The blocks that are not done are asked of new engines instead.

A user's mistake that only a worker meets (a full disk, a collection that the model does not know) travels as a value in
``fault`` and is raised whole in the caller's process; anything else is our bug and arrives as Ray's error with the
worker's traceback.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import pickle
import queue
import tempfile
import threading
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from tutti.catalogue import provenance
from tutti.catalogue.copies import compared
from tutti.catalogue.known import References
from tutti.catalogue.pace import Pace
from tutti.catalogue.review import Draft, failed_checks, passes, review
from tutti.catalogue.takes import Block, Plan, Take, fill
from tutti.errors import IntegrityError, PlaceError, UserError
from tutti.generation.piece import Event, Piece, PieceMade
from tutti.storage import Folder
from tutti.telemetry import Reporter

if TYPE_CHECKING:  # an engine brings torch and a writer matplotlib: each worker imports what its own stage needs
    from tutti.generation.composers import Composer
    from tutti.generation.desk import Desk
    from tutti.models.precision import Precision
    from tutti.render.voice import Instrument

# Half a core each: the smallest cluster, one core, still has room for both stages, so neither can wait for the other.
CPUS_PER_STAGE = 0.5
# Engines that may be lost one after the other without a block between them.
MOST_LOST = 3
# What is raised where an engine, a node or what one of them had made is gone.
_LOSSES = (RayActorError, NodeDiedError, ObjectLostError, WorkerCrashedError)
# Takes of the blocks under way, of the room in the batch.
BUSY = 4
NOTHING_KNOWN = References()


def make_blocks(
    blocks: Sequence[Block],
    *,
    plan: Plan,
    folder: Folder,
    bundle: Path,
    timbres: Sequence[Path] = (),
    references: References = NOTHING_KNOWN,
    reporter: Reporter,
    told: Callable[[Tally], None] = lambda _: None,
) -> Pace:
    """Generate, check, render and write ``blocks`` on the Ray cluster that this process is connected to.

    Args:
        blocks: those that are not done yet.
        plan: what they belong to.
        folder: the catalogue's folder; every node must reach it.
        bundle: the model's folder on this machine; its files travel to the engines.
        timbres: folders of the models of the plan's timbres, in their order; their files travel to the writers.
        references: what takes are held against; the engines of a node share it in its object store.
        reporter: told of takes as their blocks end.
        told: called with what was made until then, as each block ends.

    Returns:
        What it took.

    Raises:
        UserError: what a worker met that the user can mend.
        IntegrityError: a block was lost or doubled on its way.
    """
    missing = {block.index: block for block in blocks}
    total = sum(len(block.slots) for block in blocks)
    known = ray.put(references)
    tally = Tally(began_s=time.time())
    lost = 0
    with reporter.task("catalogue", total=total, unit="takes") as task, _quiet():
        while missing:
            pipeline = _pipeline(
                list(missing.values()), plan=plan, folder=folder, bundle=bundle, timbres=timbres, known=known
            )
            try:
                for row in pipeline.iter_rows():
                    if row["fault"] is not None:
                        raise pickle.loads(row["fault"])
                    block = missing.pop(row["block"], None)
                    if block is None:
                        raise IntegrityError(f"block {row['block']} came twice")
                    tally.add(json.loads(row["made"]), engine=json.loads(row["engine"]), slots=len(block.slots))
                    lost = 0
                    task.update(tally.slots, note=f"{tally.rejected} rejected" if tally.rejected else "")
                    told(tally)
            except _LOSSES:
                lost += 1
                if lost > MOST_LOST:
                    raise
                reporter.line(f"catalogue {plan.order.name}: an engine was lost; {len(missing)} blocks go to new ones")
                continue
            if missing:
                raise IntegrityError(f"block {min(missing)} was lost on its way")
    return tally.pace(cores=_cores(), gpus=_gpus() if plan.order.device == "cuda" else 0)


@dataclass
class Tally:
    """What was made until now.

    Args:
        began_s: when, seconds of the clock.
        slots: places of the order that are done with, filled or not.
        accepted, rejected: takes.
        failed_checks: of the rejected ones, by name.
    """

    began_s: float
    slots: int = 0
    accepted: int = 0
    rejected: int = 0
    failed_checks: Counter[str] = field(default_factory=Counter)
    _music_s: float = 0.0
    _rejected_s: float = 0.0
    _writer_cpu_s: float = 0.0
    _engines: dict[str, float] = field(default_factory=dict)
    _ready_s: float = math.inf

    def add(self, made: Mapping[str, Any], *, engine: Mapping[str, Any], slots: int) -> None:
        """One block more."""
        self.slots += slots
        self.accepted += made["accepted"]
        self.rejected += made["rejected"]
        self.failed_checks.update(made["failed_checks"])
        self._music_s += made["music_s"]
        self._rejected_s += made["rejected_s"]
        self._writer_cpu_s += made["cpu_s"]
        self._engines[engine["id"]] = max(self._engines.get(engine["id"], 0.0), engine["cpu_s"])
        self._ready_s = min(self._ready_s, engine["ready_s"])

    def pace(self, *, cores: int, gpus: int) -> Pace:
        """What all of it took."""
        return Pace(
            takes=self.accepted + self.rejected,
            music_s=self._music_s,
            rejected_s=self._rejected_s,
            wall_s=time.time() - self.began_s,
            start_s=max(0.0, self._ready_s - self.began_s) if self._engines else 0.0,
            cores=cores,
            gpus=gpus,
            engine_cpu_s=sum(self._engines.values()),
            writer_cpu_s=self._writer_cpu_s,
        )


def _pipeline(
    blocks: Sequence[Block], *, plan: Plan, folder: Folder, bundle: Path, timbres: Sequence[Path], known: Any
) -> ray.data.Dataset:
    engines, needs = _engines(plan, num_blocks=len(blocks))
    under_way = min(blocks_under_way(plan), len(blocks))
    files = ray.put(_files(bundle))
    drawn = ray.put([_files(timbre) for timbre in timbres])
    indices = ray.data.from_items([{"block": block.index} for block in blocks], override_num_blocks=len(blocks))
    with warnings.catch_warnings():
        # Ray Data 2.60 has no other way to say that an actor is not to be restarted, and would do without this one.
        warnings.filterwarnings("ignore", category=RayDeprecationWarning)
        generated = indices.map_batches(
            _Generate,
            fn_constructor_kwargs={"plan": plan, "files": files, "known": known},
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=engines,
                max_tasks_in_flight_per_actor=under_way + 1,
                max_concurrent_calls_per_actor=under_way,
                enable_true_multi_threading=True,
            ),
            max_restarts=0,
            **needs,
        )
    return generated.map_batches(
        _write,
        fn_kwargs={"plan": plan, "folder": folder, "timbres": drawn},
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(size=min(len(blocks), _cores())),
        num_cpus=CPUS_PER_STAGE,
    )


def _files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(bundle.iterdir()) if path.is_file()}


def _engines(plan: Plan, *, num_blocks: int) -> tuple[int, dict[str, float]]:
    """How many engines, and what each needs. Sound costs several times what its notes cost: one engine to two cores."""
    if plan.order.device == "cpu":
        return max(1, min(num_blocks, _cores() // 2)), {"num_cpus": CPUS_PER_STAGE}
    return min(num_blocks, _gpus()), {"num_gpus": 1, "num_cpus": CPUS_PER_STAGE}


def check_device(plan: Plan) -> None:
    """Refuse an order whose device the cluster lacks, before anything of it is written.

    Raises:
        PlaceError: it does.
    """
    if plan.order.device != "cpu" and _gpus() < 1:
        raise PlaceError(
            f"the order's device is {plan.order.device!r} and the cluster has none",
            remedy="set device to cpu, or submit to a cluster with GPUs",
        )


def blocks_under_way(plan: Plan) -> int:
    """Blocks that one engine drafts at a time, so that its batch stays full.

    A block is under way until its longest take and the last of its next seeds are over: of mixed lengths about a
    quarter of its takes step, on average (``benchmarks/desk.py``).
    """
    return 1 + -(-BUSY * plan.order.max_batch // plan.order.takes_per_block)


def _cores() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))


class _Generate:
    """An actor that holds one engine and turns block numbers into reviewed drafts, several blocks at a time."""

    def __init__(self, *, plan: Plan, files: Any, known: Any) -> None:
        from tutti.generation.desk import Desk

        self._plan = plan
        self._references: References = ray.get(known)
        self._fault: bytes | None = None
        # Of the one block that may be under way where rounding depends on the company.
        self._alone = threading.Lock()
        self._facts: dict[str, Any] = {}
        try:
            engine = _load(ray.get(files), plan=plan)
            self._desk = Desk(engine)
            self._facts = engine_facts(engine, device=plan.order.device, precision=plan.order.precision)
        except UserError as error:
            self._fault = pickle.dumps(error)
        self._id, self._ready_s = uuid.uuid4().hex, time.time()

    def __call__(self, batch: pa.Table) -> pa.Table:
        (index,) = batch["block"].to_pylist()
        drafts: bytes | None = None
        fault = self._fault
        if fault is None:
            try:
                with contextlib.nullcontext() if self._desk.exact else self._alone:
                    block = self._plan.block(index)
                    made = draft_block(block, plan=self._plan, desk=self._desk, references=self._references)
                drafts = pickle.dumps(made)
            except UserError as error:
                fault = pickle.dumps(error)
        told = {"id": self._id, "ready_s": self._ready_s, "cpu_s": time.process_time(), "facts": self._facts}
        columns = {"block": [index], "drafts": [drafts], "engine": [json.dumps(told)], "fault": [fault]}
        return pa.table(columns, schema=_GENERATED)


def draft_block(block: Block, *, plan: Plan, desk: Desk, references: References = NOTHING_KNOWN) -> list[Draft]:
    """Every take of a block with its findings, by slot and attempt.

    Args:
        desk: where its takes step, beside those of other blocks; alone, and in rounds, where rounding depends on the
            company.
        references: what takes are held against.
    """
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    under_way: dict[int, Take] = {}

    def begin(takes: Sequence[Take]) -> None:
        numbers = desk.submit(
            [take.request for take in takes],
            materials=[plan.material(take.request) for take in takes],
            deliver=told.put,
        )
        under_way.update(zip(numbers, takes, strict=True))

    def ended() -> list[tuple[Take, Draft]]:
        found = [_piece(told.get())]
        while not told.empty() or (under_way and not desk.exact and len(found) < len(under_way)):
            found.append(_piece(told.get()))
        return [
            (take, _reviewed(take, made.piece, plan=plan, references=references))
            for made in found
            for take in [under_way.pop(made.number)]
        ]

    try:
        return fill(block, plan=plan, begin=begin, ended=ended, passes=lambda drafted: passes(drafted.findings))
    finally:
        for number in under_way:
            desk.cancel(number)


def composed(take: Take, *, plan: Plan, desk: Desk) -> Piece:
    """One take's piece, alone."""
    told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()
    desk.submit([take.request], materials=[plan.material(take.request)], deliver=told.put)
    return _piece(told.get()).piece


def _piece(told: Event | Exception) -> PieceMade:
    if isinstance(told, Exception):
        raise told
    assert isinstance(told, PieceMade)
    return told


def _reviewed(take: Take, piece: Piece, *, plan: Plan, references: References) -> Draft:
    checks, request = plan.order.checks, take.request
    findings = review(piece.score, request=request, refused_tokens=piece.refused_tokens, checks=checks)
    copying, nearest = compared(piece.score, request=request, checks=checks, references=references)
    return Draft(take, piece.score, (*findings, *copying), piece.candidates, nearest)


def engine_facts(engine: Composer, *, device: str, precision: Precision) -> dict[str, Any]:
    """What composes, for the provenance of its takes; what was left to the machine is told as it was there."""
    import torch

    from tutti.models.precision import dtype_of

    name = torch.cuda.get_device_name() if device == "cuda" else None
    held = str(dtype_of(precision, device=torch.device(device))).removeprefix("torch.")
    return provenance.engine_facts(device=device, facts=engine.facts, precision=held, processor=name)


def _load(files: dict[str, bytes], *, plan: Plan) -> Composer:
    import torch

    from tutti.generation import composers

    torch.set_num_threads(1)
    with _unpacked(files) as folder:
        order = plan.order
        engine = composers.load(
            folder,
            device=order.device,
            max_batch=order.max_batch,
            cache_bytes=order.cache_bytes,
            precision=order.precision,
        )
    if engine.digest != plan.model_digest:
        raise IntegrityError(f"the model's files have digest {engine.digest}, and the plan wants {plan.model_digest}")
    return engine


@contextmanager
def _unpacked(files: dict[str, bytes]) -> Iterator[Path]:
    """Files of a model as a folder."""
    with tempfile.TemporaryDirectory(prefix="tutti-model-") as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        yield Path(folder)


def players_of(plan: Plan, files: Sequence[dict[str, bytes]]) -> dict[int, Instrument]:
    """Who plays each program of a plan with timbres, on one thread: a sum is taken in one order everywhere."""
    import torch

    from tutti.models import bundle as bundles
    from tutti.render.timbres import players

    torch.set_num_threads(1)
    loaded = []
    for timbre, held in zip(plan.timbres, files, strict=True):
        with _unpacked(held) as folder:
            bundle = bundles.load(folder)
        if bundle.digest() != timbre.digest:
            raise IntegrityError(f"the files of {timbre.version} have digest {bundle.digest()}, not {timbre.digest}")
        loaded.append((timbre, bundle))
    return players(loaded)


def _write(batch: pa.Table, *, plan: Plan, folder: Folder, timbres: Any) -> pa.Table:
    ((index, drafts, engine, fault),) = zip(*(batch[name].to_pylist() for name in _GENERATED.names), strict=True)
    began_s = time.process_time()
    from tutti.catalogue.blocks import write_block

    made: dict[str, Any] = {}
    if fault is None:
        try:
            instruments = players_of(plan, ray.get(timbres)) if plan.timbres else None
            held = pickle.loads(drafts)
            facts = json.loads(engine)["facts"]
            write_block(folder, plan.block(index), held, plan=plan, instruments=instruments, engine=facts)
            made = {**counted(held), "cpu_s": time.process_time() - began_s}
        except UserError as error:
            fault = pickle.dumps(error)
    columns = {"block": [index], "made": [json.dumps(made)], "engine": [engine], "fault": [fault]}
    return pa.table(columns, schema=_WRITTEN)


def counted(drafts: Sequence[Draft]) -> dict[str, Any]:
    """Accepted and rejected takes, the seconds of music of either, and which checks failed how often."""
    accepted = [draft for draft in drafts if passes(draft.findings)]
    rejected = [draft for draft in drafts if not passes(draft.findings)]
    return {
        "accepted": len(accepted),
        "rejected": len(rejected),
        "music_s": sum(draft.score.length_s for draft in accepted),
        "rejected_s": sum(draft.score.length_s for draft in rejected),
        "failed_checks": failed_checks(finding for draft in rejected for finding in draft.findings),
    }


_GENERATED = pa.schema(
    [("block", pa.int32()), ("drafts", pa.large_binary()), ("engine", pa.string()), ("fault", pa.binary())]
)
_WRITTEN = pa.schema([("block", pa.int32()), ("made", pa.string()), ("engine", pa.string()), ("fault", pa.binary())])


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without its own bars and lines: the reporter tells how far the run is."""
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    # What is wrong arrives as an error, with the worker's traceback where it is a bug.
    logger.setLevel(logging.CRITICAL)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)
