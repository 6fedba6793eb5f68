"""Every error of the service, as ``application/problem+json`` (RFC 9457).

A problem's ``type`` is ``urn:tutti:problem:NAME`` with a name of :data:`KINDS`, its ``detail`` one line for people, and
a refused body names each fault by a JSON pointer (RFC 6901). An answer to our own bug carries nothing but the id under
which the log has the traceback.
"""

from __future__ import annotations

import difflib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError

from tutti.errors import DataError, InputError, IntegrityError, MissingError, PlaceError, RecipeError, TuttiError
from tutti.units import format_bytes

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:tutti:problem:"
KINDS: dict[str, tuple[int, str]] = {
    "malformed-json": (400, "The body is not JSON"),
    "not-found": (404, "Nothing is at this path"),
    "unknown-model": (404, "No such model is registered"),
    "method-not-allowed": (405, "The path does not know this method"),
    "not-acceptable": (406, "None of the accepted media types can be given"),
    "body-too-large": (413, "The body is larger than the limit"),
    "unsupported-media-type": (415, "The body must be application/json"),
    "invalid-request": (422, "The request breaks a rule"),
    "internal-error": (500, "The service has a fault"),
    "overloaded": (503, "Every model replica is busy and its queue is full"),
    "unavailable": (503, "A part of the service cannot be reached"),
    "timeout": (504, "The piece was not ready in time"),
}
"""Name to status and title; a name never changes its meaning."""

# ASGI's own types.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_FRAMEWORKS_OWN = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)

# Replicas of Ray Serve write this logger, and only this one, to the files of their session.
_log = logging.getLogger("ray.serve")


class Problem(Exception):  # noqa: N818 - RFC 9457's own word
    """An answer that is an error.

    Args:
        kind: a name of :data:`KINDS`.
        detail: one line for people: the value, the limit, the remedy.
        headers: further headers of the answer.
        members: further members of the document, such as ``errors``.
    """

    def __init__(self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    @property
    def status(self) -> int:
        """HTTP status."""
        return KINDS[self.kind][0]

    def document(self) -> dict[str, Any]:
        """The problem's members."""
        status, title = KINDS[self.kind]
        return {
            "type": TYPE_PREFIX + self.kind,
            "title": title,
            "status": status,
            "detail": self.detail,
            **self.members,
        }

    def response(self) -> Response:
        """The answer."""
        body = json.dumps(self.document(), ensure_ascii=False).encode()
        return Response(body, status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE)


def fault(detail: str, *, pointer: str) -> Problem:
    """The problem of a body with one fault, at the JSON pointer ``pointer``."""
    return Problem("invalid-request", detail, errors=[{"pointer": pointer, "detail": detail}])


def of_error(error: TuttiError) -> Problem:
    """The problem that one of Tutti's own errors is to a client."""
    match error:
        case MissingError():
            return Problem("unknown-model", str(error))
        case RecipeError() | InputError() | DataError():
            return Problem("invalid-request", str(error))
        case PlaceError():
            return Problem("unavailable", "a part of the service cannot be reached; try again later")
        case IntegrityError():
            return Problem("unavailable", "the model's files are damaged; name another version")
    raise error


def of_any(error: Exception, *, at: str) -> Problem:
    """The problem that any error is to a client; a bug of ours is told to the log, under a number.

    Args:
        at: method and path, for the log.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, TuttiError):
        return of_error(error)
    incident = uuid.uuid4().hex
    _log.error("incident %s at %s", incident, at, exc_info=error)
    return Problem("internal-error", f"this is our bug, not yours; the log has it under {incident}", incident=incident)


def install(app: FastAPI, *, max_body_bytes: int, fields: Collection[str]) -> None:
    """Make every error of ``app`` a problem, also those of the framework, and bound the body.

    Args:
        max_body_bytes: largest request body.
        fields: names that a request body may have, for the remedy where it has another.
    """

    async def of_problem(_: Request, error: Problem) -> Response:
        return error.response()

    async def of_tutti(request: Request, error: TuttiError) -> Response:
        problem = of_error(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("%s %s: %s", request.method, request.url.path, error)
        return problem.response()

    async def of_http(request: Request, error: HTTPException) -> Response:
        return _of_http(request, error, max_body_bytes=max_body_bytes).response()

    async def of_validation(_: Request, error: RequestValidationError) -> Response:
        return _of_validation(error, fields=fields).response()

    app.add_exception_handler(Problem, of_problem)  # type: ignore[arg-type]
    app.add_exception_handler(TuttiError, of_tutti)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, of_validation)  # type: ignore[arg-type]
    for status in (*_FRAMEWORKS_OWN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        app.add_exception_handler(status, of_http)  # type: ignore[arg-type]
    app.add_middleware(Border, max_body_bytes=max_body_bytes)


class Border:
    """The outermost layer: no body beyond its limit comes in, no exception goes out."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        taken_bytes = 0

        async def bounded() -> Message:
            nonlocal taken_bytes
            message = await receive()
            taken_bytes += len(message.get("body", b""))
            if taken_bytes > self._max_body_bytes:
                # An HTTPException is the one thing that FastAPI lets through while it reads a body.
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        if _announced_bytes(scope) > self._max_body_bytes:
            await _too_large(self._max_body_bytes).response()(scope, receive, send)
            return
        try:
            await self._app(scope, bounded, watched)
        except Exception as error:
            problem = of_any(error, at=f"{scope['method']} {scope['path']}")
            if started:
                raise
            await problem.response()(scope, receive, send)


def _announced_bytes(scope: Scope) -> int:
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    return int(announced) if announced.isdigit() else 0


def _too_large(max_body_bytes: int) -> Problem:
    return Problem("body-too-large", f"the body may have {format_bytes(max_body_bytes)}; send a shorter one")


def _of_http(request: Request, error: HTTPException, *, max_body_bytes: int) -> Problem:
    path = request.url.path
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            return Problem("not-found", f"nothing is at {path}; /openapi.json lists what is there")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} is not for {path}; use {allowed}"
            return Problem("method-not-allowed", detail, headers=error.headers)
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _too_large(max_body_bytes)
        case HTTPStatus.BAD_REQUEST:
            return Problem("malformed-json", "the body cannot be read as JSON; send UTF-8 JSON")
    raise error


def _of_validation(error: RequestValidationError, *, fields: Collection[str]) -> Problem:
    found = error.errors()
    broken = next((item for item in found if item["type"] == "json_invalid"), None)
    if broken is not None:
        return Problem("malformed-json", f"{broken['ctx']['error']} at character {broken['loc'][-1]}")
    errors = list(_faults(found, fields=fields))
    first = errors[0]
    more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem("invalid-request", f"{first['pointer'] or 'body'}: {first['detail']}{more}", errors=errors)


def _faults(found: Sequence[Any], *, fields: Collection[str]) -> Iterator[dict[str, str]]:
    """One fault for each pointer: the arms of a union each complain, and the first says enough."""
    seen: set[str] = set()
    for item in found:
        # Below a field the location goes on with names of types, which are no part of the document.
        keys = [key for depth, key in enumerate(item["loc"][1:]) if depth == 0 or isinstance(key, int)]
        pointer = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
        if pointer not in seen:
            seen.add(pointer)
            yield {"pointer": pointer, "detail": _sentence(item, fields=fields)}


def _sentence(item: Mapping[str, Any], *, fields: Collection[str]) -> str:
    match item["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), fields, n=1)
            return f"unknown; did you mean {near[0]!r}?" if near else f"unknown; known are {', '.join(sorted(fields))}"
        case "missing":
            return "is missing"
        case "model_attributes_type":
            return "not a JSON object"
    return str(item["msg"]).removeprefix("Value error, ")
