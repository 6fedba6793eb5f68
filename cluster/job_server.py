"""A cluster's job server (Ray Jobs): command lines that run on its head, their output, their end.

Whoever may reach the server may read every job's command line and variables, so secrets do not belong into either.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tutti.errors import MissingError, PlaceError, RecipeError

ADDRESS = "RAY_API_SERVER_ADDRESS"
EXAMPLE_ADDRESS = "http://127.0.0.1:8265"
CONNECT_TIMEOUT_S = 5.0
STOPS_WITHIN_S = 60
"""How long a job that was asked to stop may take to leave in order; what is left then is killed."""
PROGRAM = "tutti"
_PORTS = {"http": 80, "https": 443}
_TOKEN_REMEDY = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the cluster's token"
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_OUTPUT_AGAIN = ", last available logs"
T = TypeVar("T")


class JobState(StrEnum):
    """Where a job stands; Ray's own words in lower case."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_over(self) -> bool:
        """Whether it never changes again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


@dataclass(frozen=True, slots=True)
class Job:
    """One job.

    Args:
        id: by which it is called.
        words: its command line after the program's name; as a whole where it is another program's.
        since: when it began to be in this state, as far as the server tells: its end, or its start.
        exit_code: of its command; None until it is over, and where it was stopped or never started.
        message: what the server says of it.
    """

    id: str
    words: tuple[str, ...]
    state: JobState
    since: datetime | None
    exit_code: int | None
    message: str

    @property
    def verb(self) -> str:
        """Which of Tutti's verbs it is, or another program's command line."""
        return self.words[0] if self.words else PROGRAM


class JobServer:
    """The job server of one cluster; the token to it, if it wants one, comes from Ray's own variables.

    Args:
        address: where the cluster's dashboard listens, such as ``http://127.0.0.1:8265``.

    Raises:
        RecipeError: an address that cannot be one.
        PlaceError: nothing answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._greet()
        with _only(self.address):
            from ray.job_submission import JobSubmissionClient

            for name in _TALKATIVE:
                logging.getLogger(name).setLevel(logging.WARNING)
            self._client = self._asked(lambda: JobSubmissionClient(self.address))

    def submit(self, words: Sequence[str], *, folder: Path | None, environment: Mapping[str, str]) -> str:
        """Have the cluster run ``tutti`` with these words; the job's id.

        Args:
            folder: becomes the job's working folder, sent with it; the head's own where None.
            environment: variables of the job and of all its workers; not for secrets.

        Raises:
            PlaceError: the server does not take it.
        """
        runtime_env: dict[str, Any] = {
            # Ray kills a job three seconds after it was asked to stop: too short to leave in order.
            "env_vars": {**environment, "RAY_JOB_STOP_WAIT_TIME_S": str(STOPS_WITHIN_S)}
        }
        if folder is not None:
            runtime_env["working_dir"] = str(folder)
        entrypoint = shlex.join([PROGRAM, *words])
        return str(self._asked(lambda: self._client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)))

    def jobs(self) -> list[Job]:
        """All jobs that were submitted, the newest first.

        Raises:
            PlaceError: the server cannot be asked.
        """
        told = [each for each in self._asked(self._client.list_jobs) if each.submission_id]
        told.sort(key=lambda each: each.start_time or 0, reverse=True)
        return [_job(each) for each in told]

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            MissingError: the server knows none of that id.
            PlaceError: the server cannot be asked.
        """
        return _job(self._asked(lambda: self._client.get_job_info(job_id), job_id=job_id))

    def output(self, job_id: str) -> str:
        """What a job has written so far.

        Raises:
            MissingError: the server knows none of that id.
            PlaceError: the server cannot be asked.
        """
        return str(self._asked(lambda: self._client.get_job_logs(job_id), job_id=job_id))

    def follow(self, job_id: str) -> Iterator[str]:
        """What a job writes, from its start until it is over, in pieces as they come.

        Raises:
            MissingError: the server knows none of that id.
            PlaceError: the connection was lost; the job goes on without it.
        """
        self.job(job_id)
        pieces = self._client.tail_job_logs(job_id)

        async def next_piece() -> str | None:
            piece: str | None = await anext(pieces, None)
            return piece

        with asyncio.Runner() as loop:
            try:
                while (piece := self._asked(lambda: loop.run(next_piece()), job_id=job_id)) is not None:
                    yield piece
            finally:
                loop.run(pieces.aclose())

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False where it was over already.

        Its command gets SIGTERM, and is killed after :data:`STOPS_WITHIN_S`.

        Raises:
            MissingError: the server knows none of that id.
            PlaceError: the server cannot be asked.
        """
        if self.job(job_id).state.is_over:
            return False
        return bool(self._asked(lambda: self._client.stop_job(job_id), job_id=job_id))

    def _greet(self) -> None:
        """Knock at the address: Ray's client waits without an end where packets are dropped."""
        parts = urlsplit(self.address)
        try:
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            port = None
        if parts.scheme not in _PORTS or not parts.hostname or port is None:
            raise RecipeError(
                f"address {self.address!r} is not a job server's", remedy=f"write it like {EXAMPLE_ADDRESS}"
            )
        try:
            socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
        except OSError as error:
            raise PlaceError(
                f"no job server answers at {self.address} within {CONNECT_TIMEOUT_S:g} s ({error.strerror or error})",
                remedy="start it (`tutti up` for this machine), or check the address",
            ) from error

    def _asked(self, ask: Callable[[], T], *, job_id: str = "") -> T:
        """The one place where the client's errors become Tutti's."""
        from ray.exceptions import AuthenticationError

        try:
            return ask()
        except AuthenticationError as error:
            raise PlaceError(
                f"the cluster at {self.address} refuses the token ({_first_line(error)})", remedy=_TOKEN_REMEDY
            ) from error
        except Exception as error:
            # The connection that carries a job's output raises errors of a library that Ray brings along.
            if not isinstance(error, RuntimeError | OSError | ValueError) and not _is_of(error, "aiohttp"):
                raise
            if job_id and "status code 404" in str(error):
                raise MissingError(
                    f"the cluster at {self.address} knows no job {job_id!r}", remedy="`tutti status` lists its jobs"
                ) from error
            raise PlaceError(
                f"the job server at {self.address} cannot be used ({_first_line(error)})",
                remedy="check that the cluster runs and that the address is its dashboard's",
            ) from error


@contextmanager
def _only(address: str) -> Iterator[None]:
    """Ray lets its own variable outrank the address that it is given; a user's word must not go to another cluster."""
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[ADDRESS]
        else:
            os.environ[ADDRESS] = before


def _job(told: Any) -> Job:
    moment_ms = told.end_time or told.start_time
    words = shlex.split(told.entrypoint)
    is_ours = words[:1] == [PROGRAM]
    return Job(
        id=told.submission_id,
        words=tuple(words[1:]) if is_ours else (told.entrypoint,),
        state=JobState(str(getattr(told.status, "value", told.status)).lower()),
        since=datetime.fromtimestamp(moment_ms / 1000, tz=UTC) if moment_ms else None,
        exit_code=told.driver_exit_code,
        message=" ".join((told.message or "").partition(_OUTPUT_AGAIN)[0].split()),
    )


def _is_of(error: BaseException, library: str) -> bool:
    return type(error).__module__.partition(".")[0] == library


def _first_line(error: BaseException) -> str:
    """What an error says, without what Ray wraps around its server's answer in JSON."""
    text = str(error).strip()
    with suppress(ValueError, AttributeError):
        text = json.loads(text[text.index("{") :].rstrip(".")).get("msg", text)
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__
