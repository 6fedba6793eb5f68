"""Waiting for a place that is away: a real S3 server is stopped and started under the reader."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import processes, services
from tests.faulty_s3 import FaultyS3
from tutti import s3, storage
from tutti.errors import MissingError, PlaceError
from tutti.storage import Folder, patiently

STARTS_WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 0.02)
    monkeypatch.setattr(storage, "LONGEST_PATIENT_PAUSE_S", 0.1)
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(s3, "ATTEMPTS", 2)


@pytest.fixture
def start_s3(tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Callable[[], None]]:
    """Starts an S3 server of one's own; what it gives stops it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    (tmp_path / "s3" / "bucket").mkdir(parents=True)

    def start() -> Callable[[], None]:
        server = services.s3_server(tmp_path, port=free_port, environment=os.environ)
        log = tmp_path / "rclone.log"
        process = processes.start(server.command, log=log, environment={**os.environ, **server.environment})
        assert processes.wait_for_answer(server.ready_url, process=process, timeout_s=STARTS_WITHIN_S), log.read_text()
        return lambda: processes.stop(process, grace_s=server.grace_s)

    return start


def test_a_server_that_is_stopped_and_started_is_waited_for(start_s3: Callable[[], Callable[[], None]]) -> None:
    folder, told = Folder("s3://bucket/x"), list[str]()
    stop = start_s3()
    folder.write("a", b"held")
    stop()
    with pytest.raises(PlaceError, match="cannot read") as raised:
        folder.read("a")
    assert raised.value.passes

    away, back = threading.Event(), list[Callable[[], None]]()

    def start_again() -> None:
        away.wait()
        back.append(start_s3())

    def tell(line: str) -> None:
        told.append(line)
        away.set()

    starting = threading.Thread(target=start_again)
    starting.start()
    try:
        assert patiently(lambda: folder.read("a"), patience_s=60.0, told=tell) == b"held"
    finally:
        away.set()
        starting.join()
        for stop in back:
            stop()
    assert told[0].startswith("cannot read s3://bucket/x/a (")
    assert "trying again in" in told[0]


def test_patience_runs_out(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    attempts = list[int]()

    def read() -> bytes:
        attempts.append(1)
        return Folder("s3://bucket").read("a")

    with pytest.raises(PlaceError, match="cannot read s3://bucket/a"):
        patiently(read, patience_s=0.3)
    assert len(attempts) > 2
    attempts.clear()
    with pytest.raises(PlaceError, match="cannot read s3://bucket/a"):
        patiently(read, patience_s=0.0)
    assert len(attempts) == 1


def test_who_no_longer_waits_is_let_go(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setattr(storage, "FIRST_PATIENT_PAUSE_S", 3600.0)
    monkeypatch.setattr(storage, "LONGEST_PATIENT_PAUSE_S", 3600.0)
    stopped = threading.Event()
    with pytest.raises(PlaceError, match="cannot read s3://bucket/a"):
        patiently(
            lambda: Folder("s3://bucket").read("a"),
            patience_s=7200.0,
            told=lambda _: stopped.set(),
            stopped=stopped,
        )


@pytest.mark.parametrize("fault", ["access_denied", "no_such_bucket"])
def test_what_is_final_is_not_waited_for(s3_server: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        proxy.plan(fault)
        with pytest.raises(PlaceError):
            patiently(lambda: Folder("s3://tests/x").read("a"), patience_s=3600.0)
        assert proxy.counts == {fault: 1}
    finally:
        proxy.close()


def test_what_is_not_there_is_not_waited_for(s3_folder: Folder, tmp_path: Path) -> None:
    for folder in (s3_folder, Folder(str(tmp_path)), Folder(f"memory://{uuid.uuid4().hex}")):
        with pytest.raises(MissingError, match="is not there"):
            patiently(lambda folder=folder: folder.read("a"), patience_s=3600.0)
