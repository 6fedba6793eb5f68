import http.server
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
)

from tutti.errors import PlaceError
from tutti.registry.backend import GREETING_TIMEOUT_S, Backend, calling
from tutti.storage import Folder


@contextmanager
def _server_that_answers(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_records_lie_below_a_local_root(tmp_path: Path) -> None:
    root = tmp_path / "mine ü"
    backend = Backend.at(Folder(str(root)))
    assert backend.is_embedded
    assert backend.database == root / "mlflow" / "mlflow.db"
    assert backend.artifacts == (root / "mlflow" / "artifacts").as_uri()
    assert not root.exists()


def test_a_named_server_is_taken_whatever_the_root() -> None:
    backend = Backend.at(Folder("s3://bucket/results"), tracking_uri="http://mlflow:5000")
    assert not backend.is_embedded
    assert backend.artifacts is None


def test_an_object_store_cannot_hold_the_sqlite_file() -> None:
    with pytest.raises(PlaceError, match=r"s3://bucket/results cannot hold .* --tracking-uri or MLFLOW_TRACKING_URI"):
        Backend.at(Folder("s3://bucket/results"))


def test_a_relative_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Backend("sqlite:///here.db").database == tmp_path / "here.db"


@pytest.mark.parametrize(
    "uri", ["", "mlruns", "ftp://host", "file:///mlruns", "http://", "sqlite:///", "sqlite:///:memory:"]
)
def test_other_addresses_are_refused(uri: str) -> None:
    with pytest.raises(PlaceError, match=r"tracking address .* use (http|sqlite)"):
        Backend(uri)


def test_a_password_is_not_shown(free_port: int) -> None:
    backend = Backend(f"http://ann:secret@127.0.0.1:{free_port}/mlflow?token=secret")
    assert backend.shown == f"http://127.0.0.1:{free_port}/mlflow"
    with pytest.raises(PlaceError) as caught:
        backend.prepare()
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away_is_told_in_one_line_and_soon(free_port: int) -> None:
    started_s = time.monotonic()
    with pytest.raises(
        PlaceError, match=rf"no MLflow server answers at http://127.0.0.1:{free_port} .*refused"
    ) as caught:
        Backend(f"http://127.0.0.1:{free_port}").client()
    assert time.monotonic() - started_s < GREETING_TIMEOUT_S + 5
    assert "\n" not in str(caught.value)


def test_another_server_is_not_taken_for_mlflow() -> None:
    with _server_that_answers(404) as url, pytest.raises(PlaceError, match="is not an MLflow server"):
        Backend(url).prepare()
    with _server_that_answers(200) as url:
        Backend(url).prepare()


def test_a_file_that_is_no_database_is_refused_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"a diary, not a database. " * 40)
    with pytest.raises(PlaceError, match=r"mlflow.db \(file is not a database\): choose another --root"):
        Backend(f"sqlite:///{path}").prepare()
    assert path.read_bytes().startswith(b"a diary")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "mlflow").write_text("a file where the folder should be")
    with pytest.raises(PlaceError, match="cannot use MLflow's SQLite file"):
        Backend.at(Folder(str(tmp_path))).prepare()


def test_records_of_another_version_of_mlflow_name_the_remedy(tmp_path: Path) -> None:
    backend = Backend(f"sqlite:///{tmp_path}/mlflow.db")
    backend.prepare()
    with closing(sqlite3.connect(backend.database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of_another_version'")
        connection.commit()
    # A copy, because MLflow keeps one store for an address and has looked at this one's version already.
    other = Backend(f"sqlite:///{backend.database.rename(tmp_path / 'old.db')}")
    with pytest.raises(PlaceError, match=r"another version of MLflow: .*mlflow db upgrade sqlite:///.*old.db"):
        other.client()


def test_settings_hold_inside_calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    before, level = dict(os.environ), logging.getLogger("mlflow").level
    backend = Backend("http://mlflow:5000")
    with calling(backend, "test"):
        with calling(backend, "test inside"):
            pass
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4", "what the user set stays"
        assert logging.getLogger("mlflow").level == logging.CRITICAL
    assert dict(os.environ) == before
    assert logging.getLogger("mlflow").level == level


def test_settings_outlast_a_call_while_another_thread_is_inside_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    backend = Backend("http://mlflow:5000")
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with calling(backend, "stay"):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(10)
    with calling(backend, "pass through"):
        pass
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in os.environ
    leave.set()
    thread.join()
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            MlflowException("no\nentry", PERMISSION_DENIED),
            r"refuses to test \(.*no entry\): set MLFLOW_TRACKING_USERNAME",
        ),
        (MlflowException("locked", TEMPORARILY_UNAVAILABLE), r"cannot test \(.*locked\)"),
        (MlflowException("failed. Response body: '<html>'"), r"cannot test \(failed\.\)"),
        (ModuleNotFoundError("No module named 'boto3'"), r"lacks a client .*boto3.*--artifacts-destination"),
        (ConnectionResetError("cut"), r"cannot test \(cut\)"),
    ],
)
def test_exceptions_are_told_as_ours(error: Exception, told: str) -> None:
    with pytest.raises(PlaceError, match=told), calling(Backend("http://mlflow:5000"), "test"):
        raise error


def test_our_own_fault_stays_what_it_is() -> None:
    with pytest.raises(MlflowException), calling(Backend("http://mlflow:5000"), "test"):
        raise MlflowException("bad argument", INVALID_PARAMETER_VALUE)
