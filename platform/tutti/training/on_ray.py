"""The adapter to Ray Train: it starts workers, watches them, and obeys :mod:`tutti.training.recovery`.

One attempt is one ``TorchTrainer`` of a fixed number of workers. Ray's own checkpoints, restarts and elastic scaling
are not used: a run's state is what :mod:`tutti.training.uploader` published on storage, so workers that are started
again, on as many machines or fewer, and a driver that a person starts again, find the same truth.

Both sides speak through a board (:mod:`tutti.training.board.on_ray`). A rank whose heartbeat stops is killed where it
runs; a node that is to be taken away, and room for more workers than there are, make all ranks save and stop, and the
next attempt takes what there is.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tutti import lineage
from tutti.errors import IntegrityError, PlaceError, UserError
from tutti.storage import patiently
from tutti.telemetry import Reporter
from tutti.training.board.on_ray import NOTICE, BoardSignals, Heard, new_board
from tutti.training.faults import Fault
from tutti.training.ledger import Activity, Bill, Ledger, kind_of
from tutti.training.loop import Trainer
from tutti.training.plan import Attempt, Outcome, Plan, Progress
from tutti.training.ranks import Ranks
from tutti.training.recovery import Action, Decision, Failure, Limits, Past, Room, Symptom, decide, recognised
from tutti.training.tracker import NoTracker, Sampler, Tracking

T = TypeVar("T")

_POLL_S = 0.5
_SETTLE_S, _GROW_AFTER_S = 10.0, 5.0


def run(
    plan: Plan,
    *,
    tracking: Tracking,
    reporter: Reporter,
    watch: Callable[[Progress], None] = lambda _: None,
    faults: tuple[Fault, ...] = (),
    sampler: Sampler | None = None,
) -> Outcome:
    """Train on Ray until the run is published; on SIGTERM until it is saved.

    Args:
        watch: told of progress, a few times a second at most, from a thread.
        faults: what is to go wrong on purpose.
        sampler: what is made of the model on the way.

    Raises:
        UserError: what a worker raised, or what no restart mends.
    """
    with reporter.task("train", total=plan.training.steps, unit="steps") as task:

        def show(progress: Progress) -> None:
            task.update(progress.step, note=describe(progress))
            watch(progress)

        driver = _Driver(plan, tracking=tracking, reporter=reporter, show=show, faults=faults, sampler=sampler)
        with driver.stopping_on_sigterm():
            return driver.run()


def describe(progress: Progress) -> str:
    """Figures of a step in one short text."""
    valid = "" if progress.valid_score is None else f" · valid {progress.valid_score:.3f}"
    loss = "" if progress.loss != progress.loss else f"loss {progress.loss:.3f}{valid} · "
    return f"{loss}{progress.per_s:,.0f} {progress.unit}/s"


class _Driver:
    """One run from its first attempt to its last."""

    def __init__(
        self, plan: Plan, *, tracking: Tracking, reporter: Reporter, show: Callable[[Progress], None],
        faults: tuple[Fault, ...], sampler: Sampler | None,
    ) -> None:  # fmt: skip
        self._plan, self._reporter, self._show = plan, reporter, show
        self._config = {"tracking": tracking, "sampler": sampler}
        self._faults = faults
        self._board = new_board()
        self._ledger = Ledger.read(plan.run)
        self._past = Past()
        self._start_is = Activity.START
        self._stop = threading.Event()
        self._ended_s = time.monotonic()

    @contextmanager
    def stopping_on_sigterm(self) -> Iterator[None]:
        """Have ranks save and stop when this process is asked to end; only its main thread can be told."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # An event alone: a call of Ray from within a handler could wait for the very call that it interrupted.
        before = signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def run(self) -> Outcome:
        while True:
            workers = self._await_room()
            attempt = Attempt(
                name=uuid.uuid4().hex[:8], began_unix_s=time.time(), ledger=self._ledger, start_is=self._start_is,
                faults=self._faults,
            )  # fmt: skip
            error, watch = self._attempt(attempt, workers)
            self._ended_s = time.monotonic()
            self._account(attempt, watch.heard.progress, workers, failed=error is not None)
            if error is not None:
                self._mend(error, watch, workers)
            elif self._patiently(lambda: lineage.find(self._plan.run)) is not None:
                return Outcome.FINISHED
            elif self._stop.is_set():
                self._say("saved and stopped; the same command goes on")
                return Outcome.PAUSED
            else:
                self._say(f"saved and stopped ({watch.heard.pause}); going on")
                self._start_is, self._past = Activity.START, Past()

    def _attempt(self, attempt: Attempt, workers: int) -> tuple[BaseException | None, _Watch]:
        recipe = self._plan.training
        try:
            ray.get(self._board.begin.remote(attempt.name))
        except ray.exceptions.RayActorError:
            # It went with its node, and knew nothing that storage does not.
            self._board = new_board()
            ray.get(self._board.begin.remote(attempt.name))
        watch = _Watch(self._plan, self._board, workers=workers, show=self._show, say=self._say, stop=self._stop)
        with tempfile.TemporaryDirectory(prefix="tutti-ray-train-") as state, watch.watching():
            trainer = _Trainer(
                _train,
                train_loop_config={"plan": self._plan, "attempt": attempt, "board": self._board, **self._config},
                torch_config=TorchConfig(backend="nccl" if recipe.gpus_per_worker else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=workers,
                    use_gpu=recipe.gpus_per_worker > 0,
                    resources_per_worker=_resources(self._plan),
                ),
                run_config=RunConfig(
                    # A used name would resume Ray's own, other state silently.
                    name=f"{self._plan.name}-{attempt.name}",
                    storage_path=state,
                    failure_config=FailureConfig(max_failures=0),
                ),
            )
            try:
                trainer.fit()
            except (ray.train.v2.api.exceptions.TrainingFailedError, ray.exceptions.RayError) as error:
                return error, watch
            return None, watch

    def _account(self, attempt: Attempt, progress: Progress | None, workers: int, *, failed: bool) -> None:
        """Charge what the attempt cost: after a failure, all since its last checkpoint is lost."""
        recipe = self._plan.training
        kind = kind_of(gpus_per_worker=recipe.gpus_per_worker)
        spent, kept, since_s = attempt.ledger, attempt.ledger, attempt.began_unix_s
        if progress is not None:
            spent, kept, since_s = progress.spent, progress.kept, progress.unix_s
        seconds = max(time.time() - since_s, 0.0)
        spent = spent.charged(Activity.WAIT, kind=kind, workers=workers, seconds=seconds)
        self._ledger = spent.lost_since(kept).restarted() if failed else spent
        if failed:
            tokens = progress.tokens if progress else 0
            bill = Bill(self._ledger, recipe.prices, tokens)
            self._patiently(lambda: bill.write(self._plan.run))

    def _mend(self, error: BaseException, watch: _Watch, workers: int) -> None:
        """Do what the table says, or raise."""
        recipe, heard = self._plan.training, watch.heard
        if heard.progress and heard.progress.published_step >= 0:
            self._past = Past()
        # Word of a lost node comes seconds after its workers fell silent.
        self._settled_room(workers, since_s=self._ended_s)
        failure = recognised(_symptoms(error, heard), hung=bool(watch.killed), notice=heard.pause == NOTICE)
        decision = self._decision(failure, workers)
        if decision.action == Action.RAISE:
            raise _told(error, str(failure), decision)
        self._say(f"{failure}: {decision.action} {decision.reason}")
        if decision.micro_batch != recipe.micro_batch:
            smaller = recipe.model_copy(update={"micro_batch_sequences": decision.micro_batch})
            self._plan = replace(self._plan, training=smaller)
        self._past = replace(self._past, failures=self._past.failures + decision.counts)
        self._start_is = Activity.LOST

    def _decision(self, failure: Failure, workers: int) -> Decision:
        """The table's word, asked again while it says to wait for room."""
        recipe, began_s, since_s = self._plan.training, time.monotonic(), self._ended_s
        limits = Limits(recipe.max_failures, recipe.max_rollbacks, recipe.storage_patience_s)
        while True:
            # For storage the ranks themselves waited before they gave up.
            away = failure == Failure.STORAGE_AWAY
            waited_s = recipe.storage_patience_s if away else time.monotonic() - began_s
            room = Room(workers, self._settled_room(workers, since_s=since_s), recipe.micro_batch)
            decision = decide(failure, past=replace(self._past, waited_s=waited_s), limits=limits, room=room)
            if decision.action != Action.RETRY:
                return decision
            self._say(f"{failure}: {decision.reason}")
            since_s = time.monotonic()

    def _await_room(self) -> int:
        """As many workers as can be had; waits while not even the fewest can."""
        recipe = self._plan.training
        began_s, since_s, told = time.monotonic(), self._ended_s, False
        while not (workers := self._settled_room(max(recipe.possible_workers), since_s=since_s)):
            if time.monotonic() - began_s > recipe.storage_patience_s:
                raise PlaceError(
                    f"the cluster has no room for {min(recipe.possible_workers)} workers of {_resources(self._plan)}",
                    remedy="add nodes, or lower training.workers or threads_per_worker",
                )
            if not told:
                self._say(f"waiting for room for {min(recipe.possible_workers)} workers")
                told = True
            since_s = time.monotonic()
        return workers

    def _settled_room(self, wanted: int, *, since_s: float) -> int:
        """Most workers that fit now, or within moments of ``since_s``.

        What an attempt held comes back within moments of its end, and so does word of a node that is lost.
        """
        while (found := _possible(self._plan, free=0)) < wanted and time.monotonic() - since_s < _SETTLE_S:
            time.sleep(0.2)
        return found

    def _patiently(self, action: Callable[[], T]) -> T:
        return patiently(action, patience_s=self._plan.training.storage_patience_s, told=self._say)

    def _say(self, line: str) -> None:
        self._reporter.line(f"training {self._plan.name}: {line}")


_GROW, _STOP = "there is room for more workers", "it was asked to end"


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray's, without what costs each attempt seconds and gives it nothing.

    Where Ray has no dashboard, a cleaner waits 10 s for it at the end: it asks the dashboard whether the controller
    lives, for a driver that dies and leaves a cluster behind. A Ray without a dashboard is the driver's own and dies
    with it. A manager of datasets, of which there are none, is a process that first imports torch.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        idle = {"DatasetsCallback"}
        if not ray._private.worker.get_dashboard_url():
            idle.add("PlacementGroupCleanerCallback")
        return [each for each in callbacks if type(each).__name__ not in idle]


class _Watch:
    """The eyes on one attempt: shows progress, kills what hangs, asks for a pause where that is due."""

    def __init__(
        self, plan: Plan, board: Any, *, workers: int, show: Callable[[Progress], None], say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:  # fmt: skip
        self._plan, self._board, self._workers = plan, board, workers
        self._show_progress, self._say, self._stop = show, say, stop
        self._stopped = threading.Event()
        self._stepped_s = time.monotonic()
        self._grows_since_s: float | None = None
        self.heard = Heard()
        self.killed: set[int] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True, name="training-watch")
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _watch(self) -> None:
        last = False
        while not last:
            last = self._stopped.wait(_POLL_S)
            try:
                heard: Heard = ray.get(self._board.hear.remote())
            except ray.exceptions.RayActorError:
                # A connection that broke is made again; a board that is gone comes back with the next attempt.
                continue
            self._show(heard)
            self.heard = heard
            if not last:
                self._kill_hung(heard)
                self._pause_where_due(heard)

    def _show(self, heard: Heard) -> None:
        for line in heard.lines:
            self._say(line)
        before, now = self.heard.progress, heard.progress
        if now is not None and (before is None or now.step != before.step):
            self._stepped_s = time.monotonic()
            self._show_progress(now)

    def _kill_hung(self, heard: Heard) -> None:
        recipe = self._plan.training
        stalled = time.monotonic() - self._stepped_s > recipe.stall_timeout_s
        for rank, silent_s in heard.silent_s.items():
            if rank in self.killed or not (silent_s > recipe.hang_timeout_s or stalled):
                continue
            node, pid = heard.places[rank]
            self._say(f"worker {rank} {'does not step' if stalled else f'is silent for {silent_s:.0f} s'}: killing it")
            where = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(_kill).options(num_cpus=0, max_retries=0, scheduling_strategy=where).remote(pid)
            self.killed.add(rank)

    def _pause_where_due(self, heard: Heard) -> None:
        if heard.pause or heard.progress is None:
            return
        if self._stop.is_set():
            self._board.ask_pause.remote(_STOP)
            return
        if _draining() & {node for node, _ in heard.places.values()}:
            self._board.ask_pause.remote(NOTICE)
        grows = self._workers < max(self._plan.training.possible_workers) and (
            _possible(self._plan, free=self._workers) > self._workers
        )
        now_s = time.monotonic()
        self._grows_since_s = (self._grows_since_s or now_s) if grows else None
        if self._grows_since_s and now_s - self._grows_since_s >= _GROW_AFTER_S:
            self._board.ask_pause.remote(_GROW)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _train(config: dict[str, Any]) -> None:
    context = ray.train.get_context()
    plan: Plan = config["plan"]
    attempt: Attempt = config["attempt"]
    torch.set_num_threads(plan.training.threads_per_worker)
    if not plan.training.gpus_per_worker:
        # Before DeepSpeed is imported. Not by a runtime_env: with one, Ray starts processes afresh for every attempt.
        os.environ["DS_ACCELERATOR"] = "cpu"
    rank = context.get_world_rank()
    signals = BoardSignals(config["board"], attempt=attempt.name, rank=rank)
    try:
        Trainer(
            plan,
            attempt,
            ranks=Ranks(rank, context.get_world_size(), context.get_local_rank(), ray.train.torch.get_device()),
            tracker=config["tracking"].open() if rank == 0 else NoTracker(),
            signals=signals,
            sampler=config["sampler"],
        ).run()
    finally:
        signals.close()


def _possible(plan: Plan, *, free: int) -> int:
    """Most workers that the recipe can use and that fit, beside ``free`` that run now; 0: not even the fewest."""
    wanted = _resources(plan)
    draining = _draining()
    room = free
    for node, available in ray._private.state.available_resources_per_node().items():
        if node not in draining:
            room += int(min(available.get(name, 0.0) / amount for name, amount in wanted.items()))
    return max((number for number in plan.training.possible_workers if number <= room), default=0)


def _draining() -> set[str]:
    """Nodes that will be taken away, by a notice of the cloud or of Kubernetes."""
    return set(ray._private.state.state.get_draining_nodes())


def _symptoms(error: BaseException, heard: Heard) -> tuple[Symptom, ...]:
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    failures = getattr(error, "worker_failures", None) or {-1: getattr(error, "controller_failure", error)}
    return tuple(
        _symptom(_innermost(failure), node_is_there=rank not in heard.places or heard.places[rank][0] in alive)
        for rank, failure in failures.items()
    )


def _symptom(error: BaseException, *, node_is_there: bool) -> Symptom:
    return Symptom(
        kind=type(error).__name__,
        text=str(error),
        died=isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError),
        node_is_there=node_is_there,
        passes=getattr(error, "passes", False),
        users=isinstance(error, UserError | IntegrityError),
    )


def _innermost(error: BaseException) -> BaseException:
    """What happened, without what Ray Train wraps it in."""
    for name in ("health_check_failure", "_base_exc", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error


def _told(error: BaseException, failure: str, decision: Decision) -> BaseException:
    """What is raised: a mistake or a bug as it was raised there, else a line of what was tried."""
    if failure in ("mistake", "bug", "storage_away"):
        return error
    return UserError(
        f"the training ended by {failure.replace('_', ' ')}: {decision.reason}",
        remedy="mend the cause; the same command goes on from the newest checkpoint",
    )


def _resources(plan: Plan) -> dict[str, float]:
    threads, gpus = plan.training.threads_per_worker, plan.training.gpus_per_worker
    return {"CPU": threads, **({"GPU": gpus} if gpus else {})}
