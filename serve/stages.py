"""The deployments as the ingress calls them: handles, the registry, and what their errors mean to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from serve.composition import Composition, Job, Told
from serve.problems import Problem
from serve.settings import ServeSettings
from tutti.corpus.score import Score
from tutti.storage import Folder

if TYPE_CHECKING:
    from tutti.registry.model_version import ModelVersion

MAX_REMEMBERED = 256


class RayStages:
    """Stages behind Ray Serve's handles.

    Args:
        settings: of the service.
        composer: handle of :class:`serve.composer.Composer`.
        renderer: handle of :class:`serve.renderer.Renderer`.
    """

    def __init__(self, settings: ServeSettings, *, composer: Any, renderer: Any) -> None:
        from tutti.registry.versions import Registry

        self._settings = settings
        self._composer = composer
        self._streaming = composer.options(stream=True)
        self._renderer = renderer
        self._registry = Registry.embedded(Folder(settings.root), tracking_uri=settings.tracking_uri)
        self._resolved: dict[str, tuple[float, ModelVersion]] = {}

    async def versions(self) -> list[ModelVersion]:
        """Every registered version, by name, the newest of a name first."""
        return await asyncio.to_thread(self._registry.versions)

    async def version(self, reference: str) -> ModelVersion:
        """The version that a reference means; an answer holds for ``model_refresh_s``.

        Raises:
            MissingError: there is none.
            InputError: the text is no reference.
        """
        known_s, version = self._resolved.get(reference, (float("-inf"), None))
        if version is not None and time.monotonic() - known_s < self._settings.model_refresh_s:
            return version
        version = await asyncio.to_thread(self._registry.resolve, reference)
        if len(self._resolved) >= MAX_REMEMBERED:
            self._resolved.clear()
        self._resolved[reference] = (time.monotonic(), version)
        return version

    async def compose(self, job: Job) -> Composition:
        """One piece.

        Raises:
            Problem: every replica is busy, or none can be reached.
            TuttiError: a request or material that the model cannot take.
        """
        composition: Composition = await self._ask(self._composer.compose.remote(job))
        return composition

    async def stream(self, job: Job) -> AsyncGenerator[list[Told]]:
        """What is told of one piece, as it is made.

        Raises:
            Problem: every replica is busy, or none can be reached.
            TuttiError: a request or material that the model cannot take.
        """
        told = self._streaming.stream.remote(job)
        try:
            with self._translated():
                async for message in told:
                    yield message
        finally:
            # Of one that is over this does nothing.
            told.cancel()

    async def render(self, score: Score, *, kind: str, title: str) -> bytes:
        """A score as a file of format ``kind``.

        Raises:
            Problem: every renderer is busy, or none can be reached.
        """
        data: bytes = await self._ask(self._renderer.render.remote(score, kind, title))
        return data

    async def check_ready(self) -> None:
        """Raise unless the registry knows the service's model and a model replica answers.

        Raises:
            Problem: none can be reached.
        """
        await self.version(self._settings.model)
        try:
            await self._ask(self._composer.ping.remote())
        except Problem as problem:
            if problem.kind != "overloaded":
                raise

    async def _ask(self, response: Any) -> Any:
        try:
            with self._translated():
                return await response
        except asyncio.CancelledError:
            # Awaiting alone leaves the call running, and with it a seat in the batch.
            response.cancel()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BackPressureError:
            retry_after_s = self._settings.retry_after_s
            raise Problem(
                "overloaded",
                f"{self._settings.max_queued} requests wait already; come back in {retry_after_s} s",
                headers={"Retry-After": str(retry_after_s)},
            ) from None
        except (RayActorError, DeploymentUnavailableError, ReplicaUnavailableError) as error:
            raise Problem(
                "unavailable",
                "a replica went away with this request; send it again",
                headers={"Retry-After": str(self._settings.retry_after_s)},
            ) from error
        except RayTaskError as error:
            raise error.cause from error
