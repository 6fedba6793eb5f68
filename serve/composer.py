"""Model replica: the engines that it has loaded, and requests that step together.

Requests that arrive within a moment of each other become one batch of the engine. Batches follow each other: a request
that comes while a batch runs waits for its end, and a batch's answers leave together. A request that was given up
leaves its batch at the next step, and one that was given up before it began never enters a batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ray import serve as ray_serve

from serve.composition import Composition, Job
from serve.settings import ServeSettings
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.generation.composers import Composer as Model

STUCK_MARGIN_S = 30.0


@dataclass(frozen=True, slots=True)
class _Ticket:
    """A job in the queue of its model."""

    job: Job
    engine: Model
    given_up: threading.Event = field(default_factory=threading.Event)
    arrived_s: float = field(default_factory=time.monotonic)


def compose_together(
    engine: Model, jobs: Sequence[Job], *, waited_s: Sequence[float], cancelled: Callable[[int], bool]
) -> list[Composition | Exception]:
    """Jobs of one model as one batch; the error of a job that cannot be composed stands in its place.

    Args:
        engine: of the model.
        jobs: what to compose.
        waited_s: seconds that each job has waited until now.
        cancelled: asked between steps with a job's number; True gives that job up.
    """
    started_s = time.monotonic()
    try:
        pieces = engine.generate(
            [job.request for job in jobs], materials=[job.material for job in jobs], cancelled=cancelled
        )
    except Exception as error:
        if len(jobs) == 1:
            return [error]
        # One job must not cost the others theirs, so each is tried alone.
        return [
            made
            for number, job in enumerate(jobs)
            for made in compose_together(
                engine, [job], waited_s=waited_s[number : number + 1], cancelled=_of(number, cancelled)
            )
        ]
    stepped_s = time.monotonic() - started_s
    return [
        Composition(piece.score, piece.refused_tokens, batch=len(jobs), waited_s=waited, stepped_s=stepped_s)
        for piece, waited in zip(pieces, waited_s, strict=True)
    ]


def _of(number: int, cancelled: Callable[[int], bool]) -> Callable[[int], bool]:
    return lambda _: cancelled(number)


class Composer:
    """One model replica.

    Args:
        settings: of the service.
        model: the version to have ready before the first request, ``NAME/3``.
    """

    def __init__(self, settings: ServeSettings, model: str) -> None:
        from tutti.registry.versions import Registry

        self._settings = settings
        self._registry = Registry.embedded(Folder(settings.root), tracking_uri=settings.tracking_uri)
        self._engines: dict[str, Model] = {}
        # Two locks: who has their model must not wait for somebody else's to load.
        self._loading, self._counting = threading.Lock(), threading.Lock()
        self._running_since_s: dict[int, float] = {}
        self._together.set_max_batch_size(settings.max_batch)
        self._together.set_batch_wait_timeout_s(settings.batch_wait_s)
        self.engine(model)

    async def compose(self, job: Job) -> Composition:
        """One piece.

        Raises:
            TuttiError: a request or material that this model cannot take.
        """
        engine = await asyncio.to_thread(self.engine, job.model)
        engine.check(job.request)
        ticket = _Ticket(job, engine)
        try:
            made: Composition | Exception = await self._together(ticket)
        except asyncio.CancelledError:
            ticket.given_up.set()
            raise
        if isinstance(made, Exception):
            raise made
        return made

    async def ping(self) -> None:
        """Answer, which is all."""

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises.

        Raises:
            RuntimeError: a batch runs on although all its requests must have been given up.
        """
        limit_s = self._settings.timeout_s + STUCK_MARGIN_S
        started_s = min(self._running_since_s.values(), default=None)
        if started_s is not None and time.monotonic() - started_s > limit_s:
            raise RuntimeError(f"a batch has run for more than {limit_s:g} s")

    @property
    def loaded(self) -> tuple[str, ...]:
        """Versions whose engines are loaded, the least recently used first."""
        return tuple(self._engines)

    @ray_serve.batch  # type: ignore[untyped-decorator]
    async def _together(self, tickets: list[_Ticket]) -> list[Composition | Exception]:
        by_engine: dict[int, list[int]] = {}
        for number, ticket in enumerate(tickets):
            by_engine.setdefault(id(ticket.engine), []).append(number)
        made: dict[int, Composition | Exception] = {}
        for numbers in by_engine.values():
            mine = [tickets[number] for number in numbers]
            made |= zip(numbers, await asyncio.to_thread(self._run, mine), strict=True)
        return [made[number] for number in range(len(tickets))]

    def _run(self, tickets: list[_Ticket]) -> list[Composition | Exception]:
        started_s = time.monotonic()
        self._running_since_s[id(tickets)] = started_s
        try:
            return compose_together(
                tickets[0].engine,
                [ticket.job for ticket in tickets],
                waited_s=[started_s - ticket.arrived_s for ticket in tickets],
                cancelled=lambda number: tickets[number].given_up.is_set(),
            )
        finally:
            del self._running_since_s[id(tickets)]

    def engine(self, model: str) -> Model:
        """The engine of a version; the least recently used one gives way where too many are loaded."""
        from tutti.generation import composers

        engine = self._kept(model)
        if engine is not None:
            return engine
        with self._loading:
            engine = self._kept(model)
            if engine is None:
                folder = self._registry.fetch(self._registry.resolve(model))
                device = "cuda" if self._settings.composer_gpus else "cpu"
                engine = composers.load(folder, device=device, max_batch=self._settings.max_batch)
                self._keep(model, engine)
            return engine

    def _kept(self, model: str) -> Model | None:
        with self._counting:
            engine = self._engines.pop(model, None)
            if engine is not None:
                self._engines[model] = engine
            return engine

    def _keep(self, model: str, engine: Model) -> None:
        with self._counting:
            self._engines[model] = engine
            while len(self._engines) > self._settings.models_per_replica:
                del self._engines[next(iter(self._engines))]
