"""Model replica: the models that it has loaded, each with its requests under way.

A request joins those that step already and leaves when its own piece is over. One that was given up leaves at the next
step, and one that was given up before it began never steps.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from serve.composition import Accepted, Composition, Job, Told
from serve.settings import ServeSettings
from tutti.generation.piece import Event, PieceMade, TempoMade
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.generation.composers import Composer as Model
    from tutti.generation.desk import Desk

STUCK_MARGIN_S = 30.0
# Between two messages of a stream: one for each note takes so much of two cores that the piece comes 0.3 s later.
PAUSE_S = 0.02


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
        self._desks: dict[str, Desk] = {}
        # Two locks: who has their model must not wait for somebody else's to load.
        self._loading, self._counting = threading.Lock(), threading.Lock()
        self.desk(model)

    async def compose(self, job: Job) -> Composition:
        """One piece.

        Raises:
            TuttiError: a request or material that this model cannot take.
        """
        async with aclosing(self._told(job, told=False)) as messages:
            async for message in messages:
                if isinstance(message[-1], Composition):
                    return message[-1]
        raise AssertionError("a job ends with its composition")

    async def stream(self, job: Job) -> AsyncGenerator[list[Told]]:
        """What is told of one piece, as it is made: that it is under way, tempos, notes and bars, the piece last.

        What came since the last look comes in one list. The engine waits for nobody: what a slow reader has not taken
        waits here, at most one piece. Who leaves gives the piece up.

        Raises:
            TuttiError: a request or material that this model cannot take; nothing was told.
        """
        async with aclosing(self._told(job, told=True)) as messages:
            async for message in messages:
                yield message

    async def _told(self, job: Job, *, told: bool) -> AsyncGenerator[list[Told]]:
        desk = await asyncio.to_thread(self.desk, job.model)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | Exception] = asyncio.Queue()

        def deliver(event: Event | Exception) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        (number,) = desk.submit([job.request], materials=[job.material], deliver=deliver, told=told)
        try:
            over = False
            yield [Accepted(desk.whole or job.request.chooses)]
            message: list[Told] = []
            while not over:
                came = [await events.get()]
                while not events.empty():
                    came.append(events.get_nowait())
                for event in came:
                    if isinstance(event, Exception):
                        raise event
                    over = isinstance(event, PieceMade)
                    message.append(Composition.of(event) if isinstance(event, PieceMade) else event)
                if isinstance(message[-1], TempoMade):
                    # Nobody hears a tempo without a note.
                    continue
                yield message
                message = []
                if told and not over:
                    await asyncio.sleep(PAUSE_S)
        finally:
            desk.cancel(number)

    async def ping(self) -> None:
        """Answer, which is all."""

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica if this raises.

        Raises:
            RuntimeError: a step runs on although every request in it must have been given up.
        """
        limit_s = self._settings.timeout_s + STUCK_MARGIN_S
        with self._counting:
            desks = list(self._desks.values())
        if any(desk.stepping_s > limit_s for desk in desks):
            raise RuntimeError(f"a step has run for more than {limit_s:g} s")

    @property
    def loaded(self) -> tuple[str, ...]:
        """Versions that are loaded, the least recently used first."""
        return tuple(self._desks)

    def desk(self, model: str) -> Desk:
        """Where requests of a version go; the least recently used model gives way where too many are loaded."""
        desk = self._kept(model)
        if desk is not None:
            return desk
        with self._loading:
            desk = self._kept(model)
            if desk is None:
                from tutti.generation.desk import Desk

                desk = Desk(self._load(model))
                self._keep(model, desk)
            return desk

    def _load(self, model: str) -> Model:
        from tutti.generation import composers

        folder = self._registry.fetch(self._registry.resolve(model))
        device = "cuda" if self._settings.composer_gpus else "cpu"
        settings = self._settings
        return composers.load(
            folder,
            device=device,
            max_batch=settings.max_batch,
            cache_bytes=settings.cache_bytes,
            precision=settings.precision,
        )

    def _kept(self, model: str) -> Desk | None:
        with self._counting:
            desk = self._desks.pop(model, None)
            if desk is not None:
                self._desks[model] = desk
            return desk

    def _keep(self, model: str, desk: Desk) -> None:
        with self._counting:
            self._desks[model] = desk
            while len(self._desks) > self._settings.models_per_replica:
                del self._desks[next(iter(self._desks))]
