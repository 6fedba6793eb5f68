"""The API in this process: the real routes, engine and renderer, without Ray between them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from serve.composition import Accepted, Composition, Job, Told
from serve.ingress import api
from serve.problems import KINDS, MEDIA_TYPE, Problem
from serve.settings import ServeSettings
from tests.music import walk
from tests.serving import save_untrained
from tutti import lineage
from tutti.corpus.midi import read_midi, write_midi
from tutti.corpus.score import Score
from tutti.errors import IntegrityError, MissingError, PlaceError
from tutti.generation.engine import Engine
from tutti.generation.piece import PieceMade
from tutti.progress import recorded
from tutti.registry.model_version import ModelVersion, missing, parse_reference
from tutti.render import export
from tutti.render.formats import SUFFIXES
from tutti.storage import Folder

SMALL = {"bars": 1, "tempo": 120, "meter": "4/4", "seed": 7}
LONG = {"length": "5m", "seed": 1}
GENERATE = "/v1/generate"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("bundle")
    save_untrained(folder)
    return Engine.load(folder)


class InProcess:
    """The stages behind the API, called directly."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.given_up = threading.Event()
        self.composed: list[Job] = []
        self.known = ModelVersion(
            name="sketch", version="3", digest=engine.digest, aliases=("production",), run_id=None,
            created=datetime(2026, 1, 1, tzinfo=UTC), facts=engine.facts, source="file:///nowhere", checksums={},
        )  # fmt: skip

    async def versions(self) -> list[ModelVersion]:
        return [self.known]

    async def version(self, reference: str) -> ModelVersion:
        if parse_reference(reference).name != self.known.name:
            raise missing("model", reference, known=[self.known.name])
        return self.known

    async def compose(self, job: Job) -> Composition:
        self.composed.append(job)
        self._engine.check(job.request)
        try:
            return await asyncio.to_thread(self._compose, job)
        except asyncio.CancelledError:
            self.given_up.set()
            raise

    async def stream(self, job: Job) -> AsyncGenerator[list[Told]]:
        self._engine.check(job.request)
        session = self._engine.open()
        session.submit(job.request, material=job.material, told=True)
        try:
            yield [Accepted(whole=False)]
            while not session.idle:
                events = await asyncio.to_thread(session.step)
                message = [Composition.of(each) if isinstance(each, PieceMade) else each for each in events]
                if message:
                    yield message
        except BaseException:
            self.given_up.set()
            raise

    def _compose(self, job: Job) -> Composition:
        (piece,) = self._engine.generate(
            [job.request], materials=[job.material], cancelled=lambda _: self.given_up.is_set()
        )
        return Composition(
            piece.score, piece.refused_tokens, batch=1, waited_s=0.0, stepped_s=0.1, candidates=piece.candidates
        )

    async def render(self, score: Score, *, kind: str, title: str) -> bytes:
        return export.finish(score, formats=(kind,), title=title).files[SUFFIXES[kind]]

    async def check_ready(self) -> None:
        await self.version("sketch")


class Failing(InProcess):
    """A service whose model replicas all fail in one way."""

    def __init__(self, engine: Engine, error: Exception) -> None:
        super().__init__(engine)
        self._error = error

    async def compose(self, job: Job) -> Composition:  # noqa: ARG002
        raise self._error

    async def stream(self, job: Job) -> AsyncGenerator[list[Told]]:
        async for message in super().stream(job):
            yield message
            raise self._error

    async def check_ready(self) -> None:
        raise self._error


def settings(**fields: Any) -> ServeSettings:
    return ServeSettings(model="sketch@production", **fields)


def client_of(stages: InProcess, **fields: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=api(stages, settings(**fields)))
    return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.fixture
def stages(engine: Engine) -> InProcess:
    return InProcess(engine)


Call = Callable[..., httpx.Response]


@pytest.fixture
def call(stages: InProcess) -> Call:
    """One request against the API."""
    return lambda method, path, **options: send(stages, method, path, **options)


def send(stages: InProcess, method: str, path: str, *, limits: dict[str, Any] | None = None, **options: Any) -> Any:
    async def once() -> httpx.Response:
        async with client_of(stages, **(limits or {})) as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def check_problem(answer: httpx.Response, kind: str) -> dict[str, Any]:
    status, title = KINDS[kind]
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:tutti:problem:{kind}"
    assert (document["status"], document["title"]) == (status, title)
    assert "\n" not in document["detail"]
    return document


def test_note_events(call: Call, engine: Engine) -> None:
    answer = call("POST", GENERATE, json=SMALL | {"key": "D minor"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    piece = answer.json()
    assert piece["model"] == {"name": "sketch", "version": "3", "digest": engine.digest}
    assert (piece["seed"], piece["key"], piece["refused_tokens"]) == (7, "D minor", 0)
    assert piece["tempos"] == [{"at_s": 0.0, "tempo_qpm": 120.0}]
    assert piece["meters"] == [{"at_s": 0.0, "meter": "4/4"}]
    notes = piece["notes"]
    assert notes == sorted(notes, key=lambda note: note["onset_s"])
    assert piece["length_s"] == pytest.approx(max(note["onset_s"] + note["duration_s"] for note in notes))
    assert 0 < piece["length_s"] <= 2.0
    assert set(notes[0]) == {"onset_s", "duration_s", "pitch", "velocity", "program"}


def test_the_forms_are_of_one_piece(call: Call) -> None:
    as_json = call("POST", GENERATE, json=SMALL)
    as_midi = call("POST", GENERATE, json=SMALL, headers={"Accept": "audio/midi"})
    assert as_midi.headers["content-disposition"] == 'inline; filename="sketch-3-7.mid"'
    score = read_midi(as_midi.content)
    assert sorted(score.notes.pitch.tolist()) == sorted(note["pitch"] for note in as_json.json()["notes"])
    for kind in ("flac", "wav"):
        answer = call("POST", GENERATE, json=SMALL, headers={"Accept": f"audio/{kind}"})
        assert answer.headers["content-type"] == f"audio/{kind}"
        sound, rate_hz = soundfile.read(io.BytesIO(answer.content))
        assert len(sound) / rate_hz >= score.length_s - 0.01
        assert abs(sound).max() > 0.01
        assert answer.headers["tutti-take"] == as_json.json()["take_id"] == as_midi.headers["tutti-take"]


def test_the_best_of_several_says_what_it_was_chosen_from(call: Call) -> None:
    piece = call("POST", GENERATE, json=SMALL | {"best_of": 3}).json()
    assert piece["candidates"][0]["seed"] == SMALL["seed"]
    (chosen,) = [each for each in piece["candidates"] if each["chosen"]]
    assert chosen["score"] == min(each["score"] for each in piece["candidates"])
    alone = call("POST", GENERATE, json=SMALL | {"seed": chosen["seed"]}).json()
    assert alone["notes"] == piece["notes"]
    assert alone["candidates"] is None
    assert alone["take_id"] != piece["take_id"]


def test_the_same_seed_makes_the_same_bytes(call: Call) -> None:
    first, again = (call("POST", GENERATE, json=SMALL, headers={"Accept": "audio/midi"}) for _ in range(2))
    other = call("POST", GENERATE, json=SMALL | {"seed": 8}, headers={"Accept": "audio/midi"})
    assert first.content == again.content != other.content
    assert first.headers["tutti-take"] == again.headers["tutti-take"] != other.headers["tutti-take"]


def events_of(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events: names and data."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_piece_is_told_as_it_is_made(call: Call) -> None:
    whole = call("POST", GENERATE, json=SMALL | {"bars": 2})
    answer = call("POST", GENERATE, json=SMALL | {"bars": 2}, headers={"Accept": "text/event-stream"})
    events = events_of(answer)
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("begin", "piece")
    assert [data["bar"] for name, data in events if name == "bar"] == [0, 1]
    assert "note" in names[: names.index("bar")]
    piece = events[-1][1]
    assert piece == whole.json()
    assert {name: events[0][1][name] for name in ("take_id", "model", "seed", "key")}.items() <= piece.items()
    named = ("onset_s", "pitch", "velocity", "program")
    told = [[note[each] for each in named] for name, note in events if name == "note"]
    assert sorted(told) == sorted([note[each] for each in named] for note in piece["notes"])
    assert answer.headers["tutti-take"] == piece["take_id"]
    lines = call("POST", GENERATE, json=SMALL | {"bars": 2}, headers={"Accept": "application/x-ndjson"})
    assert [json.loads(line) for line in lines.text.splitlines()] == [{"event": name, **data} for name, data in events]


def test_times_of_a_continued_piece_are_those_of_the_piece(call: Call) -> None:
    body = SMALL | {"continue_midi": base64.b64encode(write_midi(walk(3, bars=2))).decode(), "tempo": None}
    events = events_of(call("POST", GENERATE, json=body, headers={"Accept": "text/event-stream"}))
    kept = {(note["onset_s"], note["pitch"], note["program"]) for note in events[-1][1]["notes"]}
    told = {(note["onset_s"], note["pitch"], note["program"]) for name, note in events if name == "note"}
    assert told
    assert told < kept


def test_a_piece_starts_from_a_file_that_is_sent(call: Call) -> None:
    data = base64.b64encode(write_midi(walk(3, bars=2))).decode()
    body = {
        "seed": 3,
        "file": {"name": "tune.mid", "data": data},
        "start": {"kind": "infill", "bars": "2", "drafts": 2},
    }
    answer = call("POST", GENERATE, json=body).json()
    told = {(note["onset_s"], note["pitch"]) for note in answer["notes"]}
    bar_s = 4 * 60 / 96
    given = walk(3, bars=2)
    kept = zip(given.seconds_at(given.notes.onset_ticks).tolist(), given.notes.pitch.tolist(), strict=True)
    assert {(round(onset, 6), pitch) for onset, pitch in kept if onset < bar_s} <= told
    again = call("POST", GENERATE, json=body | {"start": {"kind": "vary"}}).json()
    assert again["take_id"] != answer["take_id"]
    events = events_of(call("POST", GENERATE, json=body, headers={"Accept": "text/event-stream"}))
    assert {(note["onset_s"], note["pitch"]) for name, note in events if name == "note"} == told


def test_what_goes_wrong_on_the_way_is_an_event(engine: Engine) -> None:
    accept = {"Accept": "text/event-stream"}
    events = events_of(send(Failing(engine, KeyError("/secret/place")), "POST", GENERATE, json=SMALL, headers=accept))
    assert [name for name, _ in events] == ["begin", "error"]
    assert events[1][1]["type"] == "urn:tutti:problem:internal-error"
    assert "secret" not in json.dumps(events)
    slow = send(InProcess(engine), "POST", GENERATE, json=LONG, headers=accept, limits={"timeout_s": 0.5})
    names = [name for name, _ in events_of(slow)]
    assert (names[0], names[-1]) == ("begin", "error")
    assert events_of(slow)[-1][1]["type"] == "urn:tutti:problem:timeout"
    # What is wrong before it begins is an answer as ever.
    refused = send(InProcess(engine), "POST", GENERATE, json=SMALL | {"collection": "folk"}, headers=accept)
    check_problem(refused, "invalid-request")


def test_who_leaves_gives_the_piece_up(stages: InProcess) -> None:
    async def leave() -> None:
        received = asyncio.Event()
        body = json.dumps(LONG).encode()

        async def receive() -> dict[str, Any]:
            if not received.is_set():
                received.set()
                return {"type": "http.request", "body": body}
            await heard.wait()
            return {"type": "http.disconnect"}

        heard = asyncio.Event()

        async def hear(message: Any) -> None:
            if b"event: note" in message.get("body", b""):
                heard.set()

        headers = [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
        scope = {"type": "http", "asgi": {"version": "3.0"}, "method": "POST", "path": GENERATE, "headers": headers,
                 "query_string": b"", "scheme": "http", "server": ("service", 80)}  # fmt: skip
        await asyncio.wait_for(api(stages, settings())(scope, receive, hear), timeout=30)  # type: ignore[arg-type]
        while not stages.given_up.is_set():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), timeout=60))


def test_a_chosen_seed_is_told_and_makes_the_piece_again(call: Call) -> None:
    body = {name: value for name, value in SMALL.items() if name != "seed"}
    first, second = (call("POST", GENERATE, json=body) for _ in range(2))
    assert first.json()["seed"] != second.json()["seed"]
    seed = int(first.headers["tutti-seed"])
    assert seed == first.json()["seed"] < 2**53
    assert call("POST", GENERATE, json=body | {"seed": seed}).content == first.content


def test_a_midi_file_is_continued(call: Call, stages: InProcess) -> None:
    given = walk(3, bars=2)
    body = SMALL | {"continue_midi": base64.b64encode(write_midi(given)).decode()}
    answer = call("POST", GENERATE, json=body)
    assert answer.status_code == 200, answer.text
    material = stages.composed[-1].material
    assert material is not None
    assert len(material.notes) == len(given.notes)
    assert len(answer.json()["notes"]) > len(given.notes)
    assert answer.headers["tutti-take"] != call("POST", GENERATE, json=SMALL).headers["tutti-take"]


def test_a_midi_file_is_filled_in_and_accompanied(call: Call, stages: InProcess) -> None:
    given = walk(3, bars=3)
    midi = {"continue_midi": base64.b64encode(write_midi(given)).decode()}
    filled = call("POST", GENERATE, json={"seed": 3, "start": {"kind": "infill", "bars": "2", "drafts": 1}, **midi})
    assert filled.status_code == 200, filled.text
    start = stages.composed[-1].request.start
    assert start is not None
    assert len(start.works) == 1
    accept = {"Accept": "text/event-stream"}
    body = {"seed": 3, "start": {"kind": "accompany", "melody": "all", "drafts": 2}, **midi}
    events = events_of(call("POST", GENERATE, json=body, headers=accept))
    told = [(note["onset_s"], note["pitch"]) for name, note in events if name == "note"]
    assert sorted(told) == sorted((note["onset_s"], note["pitch"]) for note in events[-1][1]["notes"])
    melody = {(note["onset_s"], note["pitch"]) for note in events[-1][1]["notes"]}
    onset_s = given.seconds_at(given.notes.onset_ticks).round(6).tolist()
    assert set(zip(onset_s, given.notes.pitch.tolist(), strict=True)) <= melody
    contradicts = call("POST", GENERATE, json={**body, "bars": 2})
    assert "accompany keeps the file's bars" in check_problem(contradicts, "invalid-request")["detail"]


def test_catalogues_are_told_with_how_far_they_are(stages: InProcess, tmp_path: Path) -> None:
    limits = {"root": str(tmp_path)}
    assert send(stages, "GET", "/v1/catalogues", limits=limits).json() == {"catalogues": []}
    under_way = Folder(str(tmp_path)) / "catalogues" / "calm" / "0123"
    done = Folder(str(tmp_path)) / "catalogues" / "brisk" / "4567"
    facts = {"ordered": 3, "accepted": 2, "rejected": 5, "music_s": 60.5}
    lineage.publish(done, kind="catalogues", name="brisk", inputs={}, files=[], facts=facts)
    with recorded(under_way, verb="catalogue", files=9, unit="takes", found=3) as record:
        record.progress = replace(
            record.progress, done=6, works=2, refusals={"key": 4}, updated=record.progress.started + timedelta(days=1)
        )
        record.progress.write(under_way)
        finished, running = send(stages, "GET", "/v1/catalogues", limits=limits).json()["catalogues"]
    assert {name: finished[name] for name in facts} == facts
    assert (finished["name"], finished["state"], finished["progress"]) == ("brisk", "finished", None)
    assert (running["name"], running["state"], running["ordered"]) == ("calm", "running", 9)
    told = running["progress"]
    assert (told["done"], told["found"], told["accepted"], told["rejected"]) == (6, 3, 2, {"key": 4})
    assert told["left_s"] > 80_000
    record.fail("no space")
    _, stopped = send(stages, "GET", "/v1/catalogues", limits=limits).json()["catalogues"]
    assert (stopped["state"], stopped["progress"]["failure"], stopped["progress"]["left_s"]) == (
        "stopped",
        "no space",
        None,
    )


def test_models_and_health(call: Call, engine: Engine) -> None:
    (entry,) = call("GET", "/v1/models").json()["models"]
    assert (entry["name"], entry["version"], entry["digest"]) == ("sketch", "3", engine.digest)
    assert (entry["aliases"], entry["answers"]) == (["production"], True)
    assert entry["figures"] == {"valid_nll_nats_per_token": 7.0}
    assert call("GET", "/healthz").json() == call("GET", "/readyz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "pointers", "detail"),
    [
        ({"tempo": 0}, ["/tempo"], "tempo 0 is outside 20 to 300"),
        ({"length": "10h"}, ["/length"], "length 10h is outside"),
        ({"length": "9m"}, ["/length"], "540 s is over this service's limit of 300 s"),
        ({"best_of": 17}, ["/best_of"], "the best of 17 is over this service's limit of 16"),
        ({"bars": 500}, ["/bars"], "500 bars are over this service's limit of 256"),
        ({"tempoo": 90}, ["/tempoo"], "did you mean 'tempo'?"),
        ({"zzz": 1}, ["/zzz"], "known are arousal, bars, "),
        ({"a/b~": 1}, ["/a~1b~0"], "unknown"),
        ({"instruments": ["piano", "kazoo"]}, ["/instruments/1"], "an instrument is one of piano"),
        ({"instruments": ["piano", "piano"]}, [""], "an instrument is named twice"),
        ({"key": "H dur", "tempo": 1000}, ["/tempo", "/key"], "and 1 more"),
        ({"seed": -1}, ["/seed"], "greater than or equal to 0"),
        ({"temperature": "hot"}, ["/temperature"], "valid number"),
        ({"continue_midi": "not base64!"}, ["/continue_midi"], "not base64"),
        ({"file": {"name": "tune.txt", "data": "AAAA"}}, ["/file"], "no readable file"),
        ({"start": {"kind": "vary"}}, [""], "start wants to vary a file; send it as file"),
        ({"start": {"kind": "infill"}}, ["/start"], "infill needs bars"),
        ({"continue_midi": base64.b64encode(b"RIFF, not MIDI").decode()}, ["/continue_midi"], "no readable MIDI file"),
        ({"continue_midi": ""}, ["/continue_midi"], "no readable MIDI file"),
        (["a list"], [""], "not a JSON object"),
    ],
)
def test_each_fault_is_named(call: Call, body: Any, pointers: list[str], detail: str) -> None:
    problem = check_problem(call("POST", GENERATE, json=body), "invalid-request")
    assert sorted(fault["pointer"] for fault in problem["errors"]) == sorted(pointers)
    assert detail in problem["detail"]


def test_a_sentence_is_shown_and_obeyed_and_fields_beside_it_win(call: Call, stages: InProcess) -> None:
    shown = call("POST", "/v1/sentence", json={"sentence": "slow grobulous piano, 1 bar"}).json()
    assert [(each["control"], each["value"]) for each in shown["controls"]] == [
        ("tempo", 66.0), ("instruments", ["piano"]), ("bars", 1),
    ]  # fmt: skip
    assert shown["controls"][0]["reason"] == "66 quarter notes a minute, from 'slow'"
    assert (shown["not_understood"], shown["contradictions"]) == (["grobulous"], [])
    answer = call("POST", GENERATE, json={"sentence": "慢的钢琴，一小节", "tempo": 80, "seed": 7})
    assert {note["program"] // 8 for note in answer.json()["notes"]} == {0}
    asked = stages.composed[-1].request
    assert (asked.tempo, asked.bars, asked.instruments) == (80.0, 1, ("piano",))
    for path in ("/v1/sentence", GENERATE):
        problem = check_problem(call("POST", path, json={"sentence": "  "}), "invalid-request")
        assert "the sentence is empty" in problem["detail"]
    problem = check_problem(call("POST", GENERATE, json={"sentence": "slow and fast"}), "invalid-request")
    assert "tempo 66 by 'slow' and 144 by 'fast'" in problem["detail"]


def test_a_material_of_too_many_notes(stages: InProcess) -> None:
    body = {"continue_midi": base64.b64encode(write_midi(walk(1, bars=2))).decode()}
    answer = send(stages, "POST", GENERATE, json=body, limits={"max_material_notes": 5})
    assert "10 notes, the limit is 5" in check_problem(answer, "invalid-request")["detail"]


def test_a_collection_that_the_model_does_not_know(call: Call) -> None:
    problem = check_problem(call("POST", GENERATE, json=SMALL | {"collection": "folk"}), "invalid-request")
    assert problem["detail"] == "collection 'folk' is not known to this model: it knows walks"


@pytest.mark.parametrize("content", [b"{", b"", b'{"tempo": 90,}', b"\xff\xfe", b"[" * 100_000])
def test_not_json(call: Call, content: bytes) -> None:
    answer = call("POST", GENERATE, content=content, headers={"Content-Type": "application/json"})
    check_problem(answer, "malformed-json" if content else "invalid-request")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "json"])
def test_not_declared_as_json(call: Call, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = call("POST", GENERATE, content=b"{}", headers=headers)
    check_problem(answer, "unsupported-media-type")
    assert answer.headers["accept-post"] == "application/json"


def test_json_by_its_longer_names(call: Call) -> None:
    for kind in ("application/json; charset=utf-8", "application/vnd.tutti+json"):
        answer = call("POST", GENERATE, content=json.dumps(SMALL), headers={"Content-Type": kind})
        assert answer.status_code == 200


def test_nothing_acceptable(call: Call) -> None:
    answer = call("POST", GENERATE, json=SMALL, headers={"Accept": "text/html"})
    problem = check_problem(answer, "not-acceptable")
    offered = [
        "application/json",
        "audio/midi",
        "audio/flac",
        "audio/wav",
        "audio/mpeg",
        "audio/ogg",
        "application/vnd.recordare.musicxml+xml",
        "image/png",
        "text/event-stream",
        "application/x-ndjson",
    ]
    assert problem["offered"] == offered


def test_unknown_paths_methods_and_models(call: Call) -> None:
    for path in ("/", "/v2/generate", "/docs", "/redoc", "/v1/generate/"):
        check_problem(call("GET", path), "not-found")
    answer = call("DELETE", GENERATE)
    check_problem(answer, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    problem = check_problem(call("POST", GENERATE, json=SMALL | {"model": "skecth"}), "unknown-model")
    assert "did you mean 'sketch'?" in problem["detail"]
    check_problem(call("POST", GENERATE, json=SMALL | {"model": "a/b/c"}), "invalid-request")


async def trickle(total_bytes: int) -> AsyncIterator[bytes]:
    """A body without a Content-Length, in small pieces."""
    for _ in range(total_bytes // 512):
        yield b" " * 512


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_beyond_the_limit(stages: InProcess, announced: bool) -> None:
    answer = send(
        stages,
        "POST",
        GENERATE,
        content=b" " * 4096 if announced else trickle(4096),
        headers={"Content-Type": "application/json"},
        limits={"max_body_bytes": 2048},
    )
    assert "2.0 KiB" in check_problem(answer, "body-too-large")["detail"]


def test_a_piece_that_takes_too_long_is_given_up(stages: InProcess) -> None:
    answer = send(stages, "POST", GENERATE, json={"length": "5m", "seed": 1}, limits={"timeout_s": 0.3})
    check_problem(answer, "timeout")
    assert int(answer.headers["retry-after"]) >= 1
    assert stages.given_up.is_set()


def test_a_bug_tells_nothing_but_its_number(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    answer = send(Failing(engine, KeyError("/secret/place")), "POST", GENERATE, json=SMALL)
    problem = check_problem(answer, "internal-error")
    assert "secret" not in answer.text
    assert problem["incident"] in problem["detail"]
    assert any(problem["incident"] in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Problem("overloaded", "32 requests wait already", headers={"Retry-After": "5"}), "overloaded"),
        (PlaceError("no MLflow server answers at 10.0.0.7"), "unavailable"),
        (IntegrityError("model folder /models/3 is damaged"), "unavailable"),
        (MissingError("no model is called 'x'"), "unknown-model"),
    ],
)
def test_what_the_stages_say(engine: Engine, error: Exception, kind: str) -> None:
    for method, path, body in (("POST", GENERATE, SMALL), ("GET", "/readyz", None)):
        answer = send(Failing(engine, error), method, path, json=body)
        check_problem(answer, kind)
        assert "10.0.0.7" not in answer.text
        assert "/models" not in answer.text


def test_openapi_is_what_clients_were_promised(call: Call, golden: Callable[[str, str], None]) -> None:
    document = call("GET", "/openapi.json").json()
    golden("openapi.json", json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
