"""The API: routes, headers, limits. Knows the other deployments only as :class:`Stages`."""

from __future__ import annotations

import asyncio
import email.message
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import FastAPI, Header, Request, Response
from fastapi.routing import APIRoute

from serve.composition import Composition, Job
from serve.negotiation import FORMS, Form, choose
from serve.problems import MEDIA_TYPE, Problem, fault, install
from serve.schemas import GenerateBody, GeneratedPiece, Health, ProblemBody, RegisteredModels, note_events
from serve.settings import ServeSettings
from tutti.catalogue.takes import take_id_of
from tutti.corpus.score import Score
from tutti.corpus.score_batch import work_id
from tutti.corpus.untrusted import read_untrusted
from tutti.errors import DataError, InputError
from tutti.units import format_seconds

if TYPE_CHECKING:
    from tutti.registry.model_version import ModelVersion

API_VERSION = "1"
MATERIAL_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 2.0

# Files are read one after the other anyway; a slow one must not take the threads that look models up.
_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="material")


class Stages(Protocol):
    """What the ingress needs of the rest of the service."""

    async def versions(self) -> list[ModelVersion]:
        """Every registered version, by name, the newest of a name first."""

    async def version(self, reference: str) -> ModelVersion:
        """The version that a reference means."""

    async def compose(self, job: Job) -> Composition:
        """One piece; raises :class:`~serve.problems.Problem` where every replica is busy."""

    async def render(self, score: Score, *, kind: str, title: str) -> bytes:
        """A score as a file of format ``kind``."""

    async def check_ready(self) -> None:
        """Raise unless a piece could be composed."""


@dataclass(frozen=True, slots=True)
class _Take:
    """One answered request."""

    body: GenerateBody
    take_id: str
    version: ModelVersion
    composition: Composition

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
    _add_models(app, stages, settings)
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
        """Answers in the form that ``Accept`` asks for; note events as JSON where it asks for nothing."""
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
                return await _answer(take, form=form, stages=stages)
        except TimeoutError:
            raise Problem(
                "timeout",
                f"the piece was not ready within {format_seconds(settings.timeout_s)}; ask for a shorter one or later",
                headers={"Retry-After": str(settings.retry_after_s)},
            ) from None


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
    composition = await stages.compose(Job(request, material, str(version)))
    identity = version.digest if material is None else f"{version.digest} {work_id(material)}"
    return _Take(body, take_id_of(request, model_digest=identity), version, composition)


async def _material(body: GenerateBody, settings: ServeSettings) -> Score | None:
    data = body.material()
    if data is None:
        return None
    try:
        read = partial(read_untrusted, data, timeout_s=MATERIAL_TIMEOUT_S)
        score: Score = await asyncio.get_running_loop().run_in_executor(_READER, read)
    except (DataError, InputError) as error:
        raise fault(f"no readable MIDI file ({error})", pointer="/continue_midi") from None
    most = settings.max_material_notes
    if len(score.notes) > most:
        raise fault(
            f"the MIDI file has {len(score.notes):,} notes, the limit is {most:,}; send its end only",
            pointer="/continue_midi",
        )
    return score


async def _answer(take: _Take, *, form: Form, stages: Stages) -> Response:
    started_s = time.monotonic()
    title = f"{take.version} seed {take.body.seed}"
    content = (
        _as_json(take)
        if form.name == "json"
        else await stages.render(take.composition.score, kind=form.name, title=title)
    )
    timings_s = {**take.composition.timings_s(), "render": time.monotonic() - started_s}
    headers = {
        "Tutti-Take": take.take_id,
        "Tutti-Seed": str(take.body.seed),
        "Tutti-Model": str(take.version),
        "Tutti-Model-Digest": take.version.digest,
        "Server-Timing": ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings_s.items()),
        "Vary": "Accept",
    }
    if form.name != "json":
        ending = "mid" if form.name == "midi" else form.name
        headers["Content-Disposition"] = f'inline; filename="{take.stem}.{ending}"'
    return Response(content, media_type=form.media_type, headers=headers)


def _as_json(take: _Take) -> bytes:
    document = {
        "take_id": take.take_id,
        "model": {"name": take.version.name, "version": take.version.version, "digest": take.version.digest},
        "seed": take.body.seed,
        "key": take.body.key,
        "refused_tokens": take.composition.refused_tokens,
        **note_events(take.composition.score),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _check_limits(body: GenerateBody, settings: ServeSettings) -> None:
    if body.bars is not None and body.bars > settings.max_bars:
        raise fault(f"{body.bars} bars are over this service's limit of {settings.max_bars}", pointer="/bars")
    if body.bars is None and body.length_s > settings.max_length_s:
        raise fault(
            f"{body.length_s:g} s is over this service's limit of {settings.max_length_s:g} s", pointer="/length"
        )


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


_PIECE: dict[str, Any] = {
    "description": "The piece",
    "model": GeneratedPiece,
    "content": {form.media_type: {"schema": {"type": "string", "format": "binary"}} for form in FORMS[1:]},
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
