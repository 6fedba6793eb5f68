"""Where MLflow keeps its records: a SQLite file below the results, or a tracking server by its URL.

The SQLite file appears whole: its tables are made in a file beside it, which then takes its name, so a killed or a
simultaneous first use leaves no half-made tables. A server is greeted first with a short limit, because MLflow's own
client tries for minutes. MLflow takes its limits from environment variables alone; :func:`calling` sets them for the
length of a call and puts them back.

Source of the error codes: ``mlflow/exceptions.py`` and ``mlflow/store/db/utils.py`` of MLflow 3.17.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient

from tutti.errors import PlaceError, UserError
from tutti.storage import Folder

GREETING_TIMEOUT_S = 5.0
"""How long a server may take to say that it is there."""

_CALL_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Every failure these loggers shout about also reaches us as an exception, which says it in one line.
_SHOUTING = ("mlflow", "mlflow.store.db.utils", "alembic", "urllib3.connectionpool")
_ACCESS_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_OUR_FAULT_CODES = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST")
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Backend:
    """A place of MLflow records; plain values, so it travels to other processes.

    Args:
        tracking_uri: ``sqlite:////path/mlflow.db`` or ``http(s)://host:port``.
    """

    tracking_uri: str

    def __post_init__(self) -> None:
        kind, separator, rest = self.tracking_uri.partition("://")
        if not separator or kind not in ("sqlite", "http", "https") or not rest:
            raise PlaceError(
                f"tracking address {self.tracking_uri!r} is of an unknown kind",
                remedy="use http://HOST:PORT of an MLflow server, or sqlite:///FILE",
            )
        if kind == "sqlite":
            path = rest.removeprefix("/")
            if not rest.startswith("/") or path in ("", ":memory:") or set(path) & set("?#%"):
                raise PlaceError(f"tracking address {self.tracking_uri!r} names no file", remedy="use sqlite:///FILE")
            object.__setattr__(self, "tracking_uri", f"sqlite:///{Path(path).expanduser().absolute()}")

    @classmethod
    def at(cls, root: Folder, *, tracking_uri: str | None = None) -> Backend:
        """The server at ``tracking_uri``, or else the file ``mlflow/mlflow.db`` below a local results root.

        Raises:
            PlaceError: the root is an object store, which cannot hold a SQLite file, and no server was named.
        """
        if tracking_uri:
            return cls(tracking_uri)
        if not root.is_local:
            raise PlaceError(
                f"results root {root.uri} cannot hold MLflow's SQLite file",
                remedy="name a tracking server with --tracking-uri or MLFLOW_TRACKING_URI",
            )
        return cls(f"sqlite:///{root.local_path / 'mlflow' / 'mlflow.db'}")

    @property
    def is_embedded(self) -> bool:
        """Whether the records are a file of this machine."""
        return self.tracking_uri.startswith("sqlite:")

    @property
    def database(self) -> Path:
        """The SQLite file of an embedded backend."""
        return Path(self.tracking_uri.removeprefix("sqlite:///"))

    @property
    def artifacts(self) -> str | None:
        """Where runs made here keep their files, as a URI; None lets the server decide."""
        return (self.database.parent / "artifacts").as_uri() if self.is_embedded else None

    @property
    def shown(self) -> str:
        """The address for people: without user name, password and query."""
        if self.is_embedded:
            return self.tracking_uri
        kind, _, rest = self.tracking_uri.partition("://")
        host, slash, path = rest.partition("?")[0].partition("/")
        return f"{kind}://{host.rpartition('@')[2]}{slash}{path}"

    def prepare(self) -> None:
        """Fail early where a run would fail late: greet the server, or make the SQLite file's tables.

        Raises:
            PlaceError: no answer, no permission, no space, or a file that is no SQLite database.
        """
        if self.is_embedded:
            self._prepare_database()
        else:
            self._greet()

    def client(self) -> MlflowClient:
        """A client of this backend, after :meth:`prepare`.

        Raises:
            PlaceError: as :meth:`prepare`.
        """
        self.prepare()
        with calling(self, "open the records"):
            return _quietly_made_client(self.tracking_uri)

    def _greet(self) -> None:
        try:
            answer = httpx.get(f"{self.tracking_uri.rstrip('/')}/health", timeout=GREETING_TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise PlaceError(
                f"no MLflow server answers at {self.shown} within {GREETING_TIMEOUT_S:g} s ({_reason(error)})",
                remedy="start it, or check --tracking-uri and MLFLOW_TRACKING_URI",
            ) from error
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise PlaceError(
                f"what answers at {self.shown} is not an MLflow server (it knows no /health)",
                remedy="check --tracking-uri and MLFLOW_TRACKING_URI",
            )

    def _prepare_database(self) -> None:
        database = self.database
        try:
            if not database.exists():
                database.parent.mkdir(parents=True, exist_ok=True)
                self._make_database()
            with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
                connection.execute("PRAGMA schema_version")
        except (OSError, sqlite3.Error) as error:
            raise PlaceError(
                f"cannot use MLflow's SQLite file {database} ({_reason(error)})",
                remedy="choose another --root, or mend its permissions, space or contents",
            ) from error

    def _make_database(self) -> None:
        staged = self.database.with_name(f".{self.database.name}.{uuid.uuid4().hex}.part")
        try:
            staged.touch()
            with calling(self, "make the tables"), _without_noload_warning():
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                store = SqlAlchemyStore(f"sqlite:///{staged}", str(self.artifacts))
                store.engine.dispose()
            # A link fails where another process was first, and its file may already hold records.
            self.database.hardlink_to(staged)
        except FileExistsError:
            return
        finally:
            staged.unlink(missing_ok=True)


@contextmanager
def calling(backend: Backend, doing: str) -> Iterator[None]:
    """A call of MLflow: short limits, no shouting, its exceptions told as ours.

    Args:
        backend: whom the call goes to.
        doing: what the call is for, to end "MLflow at … cannot".

    Raises:
        PlaceError: the backend refuses, is away, or is of another version.
        MlflowException: an unknown or doubled name, or an argument against MLflow's rules: the caller knows which.
    """
    try:
        with _CALLS.entered():
            yield
    except MlflowException as error:
        if error.error_code in _OUR_FAULT_CODES:
            raise
        raise _translated(error, backend=backend, doing=doing) from error
    except ImportError as error:
        raise PlaceError(
            f"MLflow at {backend.shown} keeps files where this machine lacks a client ({_reason(error)})",
            remedy="let the server pass files on with --artifacts-destination, or install that client",
        ) from error
    except OSError as error:
        raise _translated(error, backend=backend, doing=doing) from error


def is_missing(error: MlflowException) -> bool:
    """Whether MLflow says that a thing is not there."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def _translated(error: Exception, *, backend: Backend, doing: str) -> UserError:
    reason = _reason(error)
    if "out-of-date database schema" in reason:
        return PlaceError(
            f"{backend.shown} was made by another version of MLflow",
            remedy=f"keep a copy and run `mlflow db upgrade {backend.shown}`",
        )
    if getattr(error, "error_code", "") in _ACCESS_CODES:
        return PlaceError(
            f"MLflow at {backend.shown} refuses to {doing} ({reason})",
            remedy="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    return PlaceError(
        f"MLflow at {backend.shown} cannot {doing} ({reason})", remedy="check the address, the server and its disk"
    )


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).partition(" Response body:")[0].split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"


def _quietly_made_client(tracking_uri: str) -> MlflowClient:
    with _without_noload_warning():
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextmanager
def _without_noload_warning() -> Iterator[None]:
    """MLflow 3.17 configures its tables in a way that SQLAlchemy 2.1 deprecates; it is theirs to change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader strategy", category=DeprecationWarning)
        yield


class _Calls:
    """The settings that hold while any thread of this process is inside a call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold the settings for the length of the block."""
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._undo.close()

    def _apply(self) -> None:
        for name, value in _CALL_SETTINGS.items():
            if name not in os.environ:
                os.environ[name] = value
                self._undo.callback(os.environ.pop, name, None)
        for name in _SHOUTING:
            logger = logging.getLogger(name)
            self._undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)


_CALLS = _Calls()
