"""The service as it is deployed: Ray Serve on a loopback port, a registry, an engine with an untrained model."""

from __future__ import annotations

import base64
import io
import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
from click.testing import CliRunner

from serve.app import build
from serve.cli import command
from serve.problems import MEDIA_TYPE
from tests import ports
from tests.music import walk
from tests.serving import save_untrained
from tutti.corpus.midi import read_midi, write_midi
from tutti.errors import MissingError, PlaceError, RecipeError
from tutti.registry.versions import Registry
from tutti.storage import Folder

MAX_BATCH, MAX_QUEUED = 2, 1
SMALL = {"bars": 1, "tempo": 120, "meter": "4/4", "seed": 7}
LONG = {"bars": 256, "seed": 1}
PATIENCE_S = 60.0
TOO_MANY = 6
HOLD_S = 6.0
STOPS_WITHIN_S = 30.0
GENERATE = "/v1/generate"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results root whose registry holds two versions of one model, the first in production."""
    folder = tmp_path_factory.mktemp("serve")
    registry = Registry.embedded(Folder(str(folder / "results")))
    for seed in (1, 2):
        save_untrained(folder / f"bundle-{seed}", seed=seed)
        registry.register(folder / f"bundle-{seed}", name="sketch")
    registry.promote("sketch", "1")
    return folder / "results"


@dataclass(frozen=True)
class Service:
    """A running application."""

    client: httpx.Client
    registry: Registry

    def generate(self, body: dict[str, Any], *, accept: str = "application/json") -> httpx.Response:
        return self.client.post(GENERATE, json=body, headers={"Accept": accept})


@pytest.fixture(scope="module")
def service(root: Path, ray_cluster: None) -> Iterator[Service]:
    from ray import serve as ray_serve

    port = ports.free_port()
    settings = {
        "model": "sketch",
        "root": str(root),
        "max_batch": MAX_BATCH,
        "max_queued": MAX_QUEUED,
        "model_refresh_s": 0.0,
        "models_per_replica": 1,
        "drain_s": 2.0,
        "composer_cpus": 0.5,
        "max_body_bytes": 100_000,
    }
    ray_serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    try:
        ray_serve.run(build(settings), name="tutti-test")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield Service(client, Registry.embedded(Folder(str(root))))
    finally:
        ray_serve.shutdown()


def check_problem(answer: httpx.Response, kind: str) -> None:
    assert answer.headers["content-type"] == MEDIA_TYPE, answer.text
    assert answer.json()["type"] == f"urn:tutti:problem:{kind}"
    assert answer.json()["status"] == answer.status_code


def test_a_piece_in_every_form_and_again(service: Service) -> None:
    events, midi, flac, wav = (
        service.generate(SMALL, accept=accept)
        for accept in ("application/json", "audio/midi", "audio/flac", "audio/wav")
    )
    assert [answer.status_code for answer in (events, midi, flac, wav)] == [200] * 4
    pitches = sorted(note["pitch"] for note in events.json()["notes"])
    assert pitches == sorted(read_midi(midi.content).notes.pitch.tolist())
    for answer in (flac, wav):
        sound, rate_hz = soundfile.read(io.BytesIO(answer.content))
        assert len(sound) / rate_hz >= events.json()["length_s"] - 0.01
        assert 0.01 < abs(sound).max() < 1
    for answer in (events, midi, flac, wav):
        assert answer.headers["tutti-model"] == "sketch/1"
        assert answer.headers["tutti-seed"] == "7"
        assert answer.headers["tutti-take"] == events.json()["take_id"]
    assert service.generate(SMALL, accept="audio/midi").content == midi.content
    assert service.generate(SMALL, accept="audio/flac").content == flac.content


def test_a_midi_file_is_continued(service: Service) -> None:
    given = walk(3, bars=2)
    answer = service.generate(SMALL | {"continue_midi": base64.b64encode(write_midi(given)).decode()})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["notes"]) > len(given.notes)
    broken = service.generate(SMALL | {"continue_midi": base64.b64encode(write_midi(given)[:40]).decode()})
    check_problem(broken, "invalid-request")
    assert broken.json()["errors"][0]["pointer"] == "/continue_midi"


def test_every_version_answers_and_promotion_changes_who_does(service: Service) -> None:
    listed = service.client.get("/v1/models").json()["models"]
    assert [(entry["version"], entry["answers"]) for entry in listed] == [("2", False), ("1", True)]
    by_name = service.generate(SMALL | {"model": "sketch/2"})
    assert by_name.headers["tutti-model"] == "sketch/2"
    assert by_name.headers["tutti-model-digest"] == listed[0]["digest"]
    service.registry.promote("sketch", "2")
    try:
        assert service.generate(SMALL).content == by_name.content
    finally:
        service.registry.promote("sketch", "1")
    assert service.generate(SMALL).headers["tutti-model"] == "sketch/1"
    check_problem(service.generate(SMALL | {"model": "scetch"}), "unknown-model")
    check_problem(service.generate(SMALL | {"collection": "folk"}), "invalid-request")


def test_health_and_openapi(service: Service, repository: Path) -> None:
    assert service.client.get("/healthz").json() == service.client.get("/readyz").json() == {"status": "ok"}
    golden = json.loads((repository / "tests" / "golden" / "openapi.json").read_text(encoding="utf-8"))
    assert service.client.get("/openapi.json").json() == golden


def test_errors_pass_the_proxy_as_problems(service: Service) -> None:
    post = service.client.post
    as_json = {"Content-Type": "application/json"}
    check_problem(post(GENERATE, content="{", headers=as_json), "malformed-json")
    check_problem(post(GENERATE, content="{}", headers={"Content-Type": "text/plain"}), "unsupported-media-type")
    check_problem(post(GENERATE, content=b" " * 200_000, headers=as_json), "body-too-large")
    spaces = itertools.repeat(b" " * 1000, 200)
    check_problem(post(GENERATE, content=spaces, headers=as_json), "body-too-large")
    check_problem(service.generate(SMALL, accept="text/html"), "not-acceptable")
    check_problem(service.client.get("/nowhere"), "not-found")
    check_problem(service.client.put(GENERATE), "method-not-allowed")


def test_a_client_that_leaves_frees_its_place(service: Service) -> None:
    alone_s = seconds(lambda: service.generate(SMALL))
    with pytest.raises(httpx.ReadTimeout):
        service.client.post(GENERATE, json=LONG, timeout=httpx.Timeout(PATIENCE_S, read=1.0))
    # A batch steps to its end before the next begins, and this one would have gone on for a minute and more.
    assert seconds(lambda: service.generate(SMALL)) < 5 + 2 * alone_s


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Server-sent events as they come: names and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_a_piece_is_told_as_it_is_made_and_who_leaves_frees_its_place(service: Service) -> None:
    def listen(body: dict[str, Any]) -> AbstractContextManager[httpx.Response]:
        return service.client.stream("POST", GENERATE, json=body, headers={"Accept": "text/event-stream"})

    with listen(SMALL) as answer:
        events = list(events_of(answer.iter_lines()))
    assert answer.headers["tutti-model"] == "sketch/1"
    assert [events[0][0], events[-1][0]] == ["begin", "piece"]
    assert events[-1][1] == service.generate(SMALL).json()
    told = sorted((note["onset_s"], note["pitch"]) for name, note in events if name == "note")
    assert told == sorted((note["onset_s"], note["pitch"]) for note in events[-1][1]["notes"])
    alone_s = seconds(lambda: service.generate(SMALL))
    for seed in range(2 * MAX_BATCH):
        # As many as would fill the replica for a minute and more.
        with listen(LONG | {"seed": seed}) as answer:
            assert next(name for name, _ in events_of(answer.iter_lines()) if name != "begin") == "note"
    assert seconds(lambda: service.generate(SMALL)) < 5 + 2 * alone_s
    check_problem(service.generate(SMALL | {"collection": "folk"}, accept="text/event-stream"), "invalid-request")


def test_more_than_the_queue_holds_is_sent_away(service: Service) -> None:
    # A replica holds two batches, one that steps and one that gathers, and MAX_QUEUED wait for it.
    held = 2 * MAX_BATCH + MAX_QUEUED
    limit = httpx.Timeout(PATIENCE_S, read=HOLD_S)

    def ask(seed: int) -> httpx.Response | None:
        """The answer, or None where the service still worked on it when the client left."""
        try:
            return httpx.post(service.client.base_url.join(GENERATE), json=LONG | {"seed": seed}, timeout=limit)
        except httpx.ReadTimeout:
            return None

    with ThreadPoolExecutor(held + TOO_MANY) as pool:
        asked = [pool.submit(ask, seed) for seed in range(held + TOO_MANY)]
        while not any(one.done() for one in asked):
            time.sleep(0.05)
        assert service.client.get("/healthz").status_code == 200
        assert service.client.get("/readyz").status_code == 200
        away = [answer for one in asked if (answer := one.result()) is not None]
    # Of a burst, Ray counts as waiting even those that are just being handed to a replica; and on a slow machine
    # a batch may end, and make room, before the last of the burst has come.
    assert 1 <= len(away) < held + TOO_MANY
    for answer in away:
        assert answer.status_code == 503
        check_problem(answer, "overloaded")
        assert answer.headers["retry-after"] == "5"
    assert service.generate(SMALL).status_code == 200


def seconds(action: Callable[[], httpx.Response]) -> float:
    started_s = time.monotonic()
    assert action().status_code == 200
    return time.monotonic() - started_s


def test_the_verb_serves_until_it_is_told_to_stop(root: Path, free_port: int, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "jobs.cli", "serve", "--root", str(root), "--port", str(free_port)]
    errors = tmp_path / "stderr.txt"
    address = f"http://127.0.0.1:{free_port}"
    with (
        errors.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = list(itertools.takewhile(lambda line: not line.startswith("serving "), process.stdout))
            assert process.poll() is None, errors.read_text(encoding="utf-8")
            assert f"curl -s {address}/v1/generate" in "".join(said)
            assert httpx.get(f"{address}/readyz").status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOPS_WITHIN_S) == 0
            assert process.stdout.read() == ""
            assert errors.read_text(encoding="utf-8").splitlines() == ["starting sketch/1", "stopping"]
        finally:
            process.kill()


def run(*words: str) -> BaseException | None:
    return CliRunner().invoke(command, words).exception


def test_a_port_in_use_is_refused_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        error = run("--port", str(port), "--root", str(tmp_path))
    assert isinstance(error, PlaceError)
    assert str(error) == f"port {port} on 127.0.0.1 is in use: choose another with --port"
    assert not list(tmp_path.iterdir())


def test_a_mistake_costs_one_line_and_no_ray(root: Path, tmp_path: Path, free_port: int) -> None:
    port = ("--port", str(free_port))
    missing = run(*port, "--root", str(root), "--model", "scetch@production")
    assert isinstance(missing, MissingError)
    assert "did you mean 'sketch'?" in str(missing)
    empty = run(*port, "--root", str(tmp_path / "none"))
    assert isinstance(empty, MissingError)
    assert "tutti demo" in str(empty)
    unknown = run(*port, "--root", str(root), "--set", "max_bach=4")
    assert isinstance(unknown, RecipeError)
    assert "did you mean 'max_batch'?" in str(unknown)
    nowhere = run(*port, "--root", str(root), "--host", "no.such.host.invalid")
    assert isinstance(nowhere, PlaceError)
    elsewhere = run(*port, "--root", str(root), "--host", "192.0.2.1")
    assert isinstance(elsewhere, PlaceError)
    assert "192.0.2.1" in str(elsewhere)
