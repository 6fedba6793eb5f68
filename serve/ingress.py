"""The API: routes, headers, limits. Knows the other deployments only as :class:`Stages`."""

from __future__ import annotations

import asyncio
import email.message
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute

from serve import stream
from serve.catalogues import Catalogues, catalogues_below
from serve.composition import Accepted, Composition, Job, Told
from serve.negotiation import FORMS, STREAMS, Form, choose
from serve.problems import MEDIA_TYPE, Problem, fault, install, of_any
from serve.schemas import (
    GenerateBody,
    GeneratedPiece,
    Health,
    ProblemBody,
    RegisteredModels,
    SentenceBody,
    SentenceRead,
    StreamBar,
    StreamBegin,
    note_events,
)
from serve.settings import ServeSettings
from tutti.catalogue.takes import take_id_of
from tutti.corpus.score import Score
from tutti.corpus.untrusted import read_untrusted
from tutti.errors import DataError, InputError, RecipeError
from tutti.generation.piece import BarMade, NoteMade, TempoMade
from tutti.generation.restoring import Ends, works_of
from tutti.generation.sentences.scenes import understood
from tutti.storage import Folder
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.registry.model_version import ModelVersion

API_VERSION = "1"
MATERIAL_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 2.0

# Files are read one after the other anyway; a slow one must not take the threads that look models up.
_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="material")


_CLOSING: set[asyncio.Task[None]] = set()


class Stages(Protocol):
    """What the ingress needs of the rest of the service."""

    async def versions(self) -> list[ModelVersion]:
        """Every registered version, by name, the newest of a name first."""

    async def version(self, reference: str) -> ModelVersion:
        """The version that a reference means."""

    async def compose(self, job: Job) -> Composition:
        """One piece; raises :class:`~serve.problems.Problem` where every replica is busy."""

    def stream(self, job: Job) -> AsyncGenerator[list[Told]]:
        """What is told of one piece as it is made, the composition last; raises as :meth:`compose` at its first."""

    async def render(self, score: Score, *, kind: str, title: str) -> bytes:
        """A score as a file of format ``kind``."""

    async def check_ready(self) -> None:
        """Raise unless a piece could be composed."""


@dataclass(frozen=True, slots=True)
class _Take:
    """One request that can be answered."""

    body: GenerateBody
    take_id: str
    version: ModelVersion
    job: Job

    @property
    def identity(self) -> dict[str, Any]:
        """What is known of its piece before it is there."""
        return {
            "take_id": self.take_id,
            "model": {"name": self.version.name, "version": self.version.version, "digest": self.version.digest},
            "seed": self.body.seed,
            "key": self.body.key,
        }

    @property
    def headers(self) -> dict[str, str]:
        """Of any answer."""
        return {
            "Tutti-Take": self.take_id,
            "Tutti-Seed": str(self.body.seed),
            "Tutti-Model": str(self.version),
            "Tutti-Model-Digest": self.version.digest,
            "Vary": "Accept",
        }

    @property
    def stem(self) -> str:
        """File name without its ending."""
        return f"{self.version.name}-{self.version.version}-{self.body.seed}"


class _JsonRoute(APIRoute):
    """A route whose body must say that it is JSON: FastAPI would try to validate other bytes as a text."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            if request.method == "POST":
                _check_is_json(request.headers.get("content-type"))
            return await handle(request)

        return checked


def api(stages: Stages, settings: ServeSettings) -> FastAPI:
    """The HTTP application.

    ``/docs`` is off: FastAPI's page loads its scripts from another host, which a closed network does not reach.
    """
    app = FastAPI(
        title="Tutti",
        version=API_VERSION,
        description="Composes pieces of music on request. Errors are application/problem+json (RFC 9457).",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.route_class = _JsonRoute
    install(app, max_body_bytes=settings.max_body_bytes, fields=GenerateBody.model_fields)
    _add_generate(app, stages, settings)
    _add_sentence(app)
    _add_models(app, stages, settings)
    _add_catalogues(app, settings)
    _add_health(app, stages)
    return app


def _add_generate(app: FastAPI, stages: Stages, settings: ServeSettings) -> None:
    @app.post(
        "/v1/generate",
        summary="Compose one piece",
        response_class=Response,
        responses={200: _PIECE, **_problems(400, 404, 406, 413, 415, 422, 500, 503, 504)},
    )
    async def generate(
        body: GenerateBody, accept: Annotated[list[str] | None, Header(include_in_schema=False)] = None
    ) -> Response:
        """Answers in the form that ``Accept`` asks for; note events as JSON where it asks for nothing.

        `text/event-stream` and `application/x-ndjson` tell of notes as they are made: `begin`, then `note` and `bar`,
        and `piece` at the end. What goes wrong after the beginning is an event `error` with a problem for its data. Who
        closes the connection gives the piece up.
        """
        accepted = ", ".join(accept or ())
        form = choose(accepted)
        if form is None:
            offered = [offer.media_type for offer in FORMS]
            detail = f"Accept {accepted!r} takes none of {', '.join(offered)}"
            raise Problem("not-acceptable", detail, offered=offered)
        _check_limits(body, settings)
        try:
            async with asyncio.timeout(settings.timeout_s):
                take = await _take(body, stages=stages, settings=settings)
                if form.name in STREAMS:
                    return await _streamed(take, form=form, stages=stages, settings=settings)
                return await _answer(take, form=form, stages=stages)
        except TimeoutError:
            raise _too_late(settings) from None


def _add_sentence(app: FastAPI) -> None:
    @app.post("/v1/sentence", summary="Show what a sentence becomes", responses=_problems(400, 413, 415, 422))
    async def sentence(body: SentenceBody) -> SentenceRead:
        """The controls that a sentence sets, with the words that each comes from; makes nothing."""
        try:
            return SentenceRead.of(await asyncio.to_thread(understood, body.sentence))
        except RecipeError as error:
            raise fault(str(error), pointer="/sentence") from None


def _add_models(app: FastAPI, stages: Stages, settings: ServeSettings) -> None:
    @app.get("/v1/models", summary="List registered models", responses=_problems(500, 503))
    async def models() -> RegisteredModels:
        """Every version in the registry, by name, the newest of a name first."""
        own = await stages.version(settings.model)
        entries = [
            {
                "name": version.name,
                "version": version.version,
                "digest": version.digest,
                "aliases": list(version.aliases),
                "created": version.created,
                "answers": (version.name, version.version) == (own.name, own.version),
                "figures": version.figures,
            }
            for version in await stages.versions()
        ]
        return RegisteredModels.model_validate({"models": entries})


def _add_catalogues(app: FastAPI, settings: ServeSettings) -> None:
    @app.get("/v1/catalogues", summary="List catalogues and how far they are", responses=_problems(500, 503))
    async def catalogues() -> Catalogues:
        """Those below the service's root that are finished, under way or stopped."""
        return await asyncio.to_thread(catalogues_below, Folder(settings.root))


def _add_health(app: FastAPI, stages: Stages) -> None:
    @app.get("/healthz", summary="Whether this process lives")
    async def healthz() -> Health:
        """Answers without asking any other part of the service."""
        return Health(status="ok")

    @app.get("/readyz", summary="Whether a piece could be composed", responses=_problems(503))
    async def readyz() -> Health:
        """Asks the registry and a model replica; a full queue counts as ready."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await stages.check_ready()
        except TimeoutError:
            raise Problem("unavailable", f"no model replica answers within {READY_TIMEOUT_S:g} s") from None
        return Health(status="ok")


async def _take(body: GenerateBody, *, stages: Stages, settings: ServeSettings) -> _Take:
    request = body.request()
    version = await stages.version(body.model or settings.model)
    material = await _material(body, settings)
    works = () if material is None else works_of(material)
    identity = " ".join((version.digest, *works))
    if request.start is not None and material is not None:
        start = request.start.model_copy(update={"works": works})
        request = request.model_copy(update={"start": start})
    take_id = take_id_of(request, model_digest=identity, precision=settings.precision)
    return _Take(body, take_id, version, Job(request, material, str(version)))


async def _material(body: GenerateBody, settings: ServeSettings) -> Score | None:
    scores = [await _read(*file, settings=settings) for file in body.files()]
    return Ends.between(*scores) if len(scores) > 1 else next(iter(scores), None)


async def _read(name: str, data: bytes, pointer: str, *, settings: ServeSettings) -> Score:
    try:
        read = partial(read_untrusted, data, name=name, timeout_s=MATERIAL_TIMEOUT_S)
        score: Score = await asyncio.get_running_loop().run_in_executor(_READER, read)
    except (DataError, InputError) as error:
        kind = "MIDI file" if name == "upload.mid" else "file"
        raise fault(f"no readable {kind} ({error})", pointer=pointer) from None
    most = settings.max_material_notes
    if len(score.notes) > most:
        raise fault(
            f"the file has {len(score.notes):,} notes, the limit is {most:,}; send a part of it", pointer=pointer
        )
    return score


async def _answer(take: _Take, *, form: Form, stages: Stages) -> Response:
    composition = await stages.compose(take.job)
    started_s = time.monotonic()
    title = f"{take.version} seed {take.body.seed}"
    content = (
        json.dumps(_document(take, composition), separators=(",", ":")).encode()
        if form.name == "json"
        else await stages.render(composition.score, kind=form.name, title=title)
    )
    timings_s = {**composition.timings_s(), "render": time.monotonic() - started_s}
    timing = ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings_s.items())
    headers = take.headers | {"Server-Timing": timing}
    if form.name != "json":
        ending = "mid" if form.name == "midi" else form.name
        headers["Content-Disposition"] = f'inline; filename="{take.stem}.{ending}"'
    return Response(content, media_type=form.media_type, headers=headers)


async def _streamed(take: _Take, *, form: Form, stages: Stages, settings: ServeSettings) -> Response:
    """The answer that tells of a piece as it is made; what goes wrong before it begins is a problem as ever."""
    told = stages.stream(take.job)
    deadline_s = asyncio.get_running_loop().time() + settings.timeout_s
    (accepted,) = await anext(told)
    assert isinstance(accepted, Accepted)
    events = _events(take, told, whole=accepted.whole, form=form.name, settings=settings, deadline_s=deadline_s)
    headers = take.headers | {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type=form.media_type, headers=headers)


async def _events(
    take: _Take,
    told: AsyncGenerator[list[Told]],
    *,
    whole: bool,
    form: str,
    settings: ServeSettings,
    deadline_s: float,
) -> AsyncIterator[bytes]:
    """The events of :mod:`serve.stream`, as bytes."""
    clock = stream.Clock(take.job.material)
    loop = asyncio.get_running_loop()
    coming: asyncio.Task[list[Told]] | None = None
    try:
        begin = StreamBegin.model_validate({**take.identity, "whole": whole})
        yield stream.written("begin", begin.model_dump(), form=form)
        while True:
            coming = coming or asyncio.ensure_future(anext(told))
            left_s = deadline_s - loop.time()
            if left_s <= 0:
                raise _too_late(settings)
            done, _ = await asyncio.wait({coming}, timeout=min(left_s, stream.KEEP_ALIVE_S))
            if not done:
                if loop.time() < deadline_s:
                    yield stream.silence(form=form)
                continue
            message, coming = coming.result(), None
            yield b"".join(_written(each, take, clock, form=form) for each in message)
            if isinstance(message[-1], Composition):
                return
    except Exception as error:
        problem = of_any(error, at="POST /v1/generate, a stream")
        yield stream.written("error", problem.document(), form=form)
    finally:
        # Who leaves gives the piece up; a task that is cancelled may not wait for it.
        closing = asyncio.create_task(_given_up(told, coming))
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)


async def _given_up(told: AsyncGenerator[list[Told]], coming: asyncio.Task[list[Told]] | None) -> None:
    if coming is not None:
        coming.cancel()
        await asyncio.wait({coming})
    await told.aclose()


def _written(told: Told, take: _Take, clock: stream.Clock, *, form: str) -> bytes:
    match told:
        case TempoMade():
            clock.hear(told)
            return b""
        case NoteMade():
            onset_s, duration_s = clock.seconds(told)
            sounds = {"pitch": told.pitch, "velocity": told.velocity, "program": told.program}
            return stream.written("note", {"onset_s": onset_s, "duration_s": duration_s, **sounds}, form=form)
        case BarMade():
            return stream.written("bar", StreamBar(bar=told.bar).model_dump(), form=form)
        case Composition():
            return stream.written("piece", _document(take, told), form=form)
        case Accepted():
            raise AssertionError("a job is accepted once")


def _too_late(settings: ServeSettings) -> Problem:
    return Problem(
        "timeout",
        f"the piece was not ready within {format_seconds(settings.timeout_s)}; ask for a shorter one or later",
        headers={"Retry-After": str(settings.retry_after_s)},
    )


def _document(take: _Take, composition: Composition) -> dict[str, Any]:
    return {
        **take.identity,
        "refused_tokens": composition.refused_tokens,
        "candidates": [each.to_dict() for each in composition.candidates] or None,
        **note_events(composition.score),
    }


def _check_limits(body: GenerateBody, settings: ServeSettings) -> None:
    bars, _ = body.extent
    if bars is not None and bars > settings.max_bars:
        pointer = "/chords" if body.bars is None else "/bars"
        raise fault(f"{bars} bars are over this service's limit of {settings.max_bars}", pointer=pointer)
    if bars is None and body.length_s > settings.max_length_s:
        raise fault(
            f"{body.length_s:g} s is over this service's limit of {settings.max_length_s:g} s", pointer="/length"
        )
    if body.best_of > settings.max_best_of:
        most = settings.max_best_of
        raise fault(f"the best of {body.best_of} is over this service's limit of {most}", pointer="/best_of")


def _check_is_json(content_type: str | None) -> None:
    message = email.message.Message()
    message["content-type"] = content_type or ""
    kind = message.get_content_type() if content_type else "no type"
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(
            "unsupported-media-type",
            f"the body is declared as {content_type or 'nothing'}; send Content-Type: application/json",
            headers={"Accept-Post": "application/json"},
        )


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content: Mapping[str, Any] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    sentences = {
        400: "The body is not JSON",
        404: "No such model is registered",
        406: "None of the accepted media types can be given",
        413: "The body is larger than the limit",
        415: "The body is not declared as application/json",
        422: "The request breaks a rule; `errors` has a JSON pointer to each fault",
        500: "A bug of the service; `incident` is its id in the log",
        503: "Every model replica is busy; come back after `Retry-After` seconds",
        504: "The piece was not ready in time",
    }
    return {status: {"model": ProblemBody, "description": sentences[status], "content": content} for status in statuses}


def _schema_of(form: Form) -> dict[str, str]:
    if form.name in STREAMS:
        return {"type": "string", "description": "; ".join(f"{name}: {data}" for name, data in stream.EVENTS.items())}
    return {"type": "string", "format": "binary"}


_PIECE: dict[str, Any] = {
    "description": "The piece",
    "model": GeneratedPiece,
    "content": {form.media_type: {"schema": _schema_of(form)} for form in FORMS[1:]},
    "headers": {
        name: {"description": sentence, "schema": {"type": "string"}}
        for name, sentence in {
            "Tutti-Take": "Hash of request, seed, material and model",
            "Tutti-Seed": "Seed; send it again for the same piece",
            "Tutti-Model": "NAME/VERSION of the model",
            "Tutti-Model-Digest": "Hash of the model's weights, configuration and vocabulary",
            "Server-Timing": "Milliseconds of waiting, composing and rendering",
        }.items()
    },
}
