"""The registry and the tracker on real MLflow: the SQLite file, and a server that keeps the files itself."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from click.testing import CliRunner
from mlflow.tracking.client import MlflowClient

from jobs.models import command as models
from tests.ports import free_port
from tutti.errors import IntegrityError, MissingError, PlaceError
from tutti.models.bundle import CARD, WEIGHTS, Bundle
from tutti.registry.backend import Backend
from tutti.registry.mlmodel import MLMODEL
from tutti.registry.run_record import RUN_KEY
from tutti.registry.runs import LOSS_PICTURE, UNTRACKED, MlflowTracking
from tutti.registry.versions import Registry
from tutti.storage import Folder


def _bundle(folder: Path, seed: int, **facts: Any) -> Path:
    weights = {"w": torch.randn(1000, generator=torch.Generator().manual_seed(seed))}
    Bundle("decoder", "tiny", {"width": 8}, weights, ("Pad", "Start"), ("bach",), {"parameters": 1000, **facts}).save(
        folder
    )
    return folder


def _tracking(registry: Registry, experiment: str, **changes: Any) -> MlflowTracking:
    return replace(MlflowTracking(registry.backend.tracking_uri, experiment, "key1"), **changes)


def test_a_run_goes_on_where_it_was_killed(place: tuple[Registry, Path], name: str) -> None:
    registry, _ = place
    tracker = _tracking(registry, name).open()
    run_id = tracker.start(parameters={"workers": 2, "text": "x" * 9000}, tags={"data": "here"})
    for step in range(130):
        tracker.log({"train/loss": 1 / (step + 1), "tokens/s (all)": step}, step=step)
    tracker.log({"diverged": float("inf"), "unknown": float("nan")}, step=0)
    tracker.finish(failed=True)

    again = _tracking(registry, name).open()
    assert again.start(parameters={"workers": 4, "new": 1}, tags={}) == run_id
    for step in range(100, 200):
        again.log({"train/loss": 1 / (step + 1)}, step=step)
    again.artifact(LOSS_PICTURE, b"png")
    again.finish()

    client: MlflowClient = registry.backend.client()
    run = client.get_run(run_id)
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
        (step, 1 / (step + 1)) for step in range(200)
    ]
    assert len(client.get_metric_history(run_id, "tokens/s _all_")) == 130
    for figure in ("diverged", "unknown"):
        (point,) = client.get_metric_history(run_id, figure)
        assert point.value != point.value
    assert run.info.status == "FINISHED"
    assert run.data.params["workers"] == "2"
    assert run.data.params["new"] == "1"
    assert run.data.params["text"].endswith("x…")
    assert {RUN_KEY: "key1", "data": "here", "now.workers": "4"}.items() <= run.data.tags.items()
    assert [entry.path for entry in client.list_artifacts(run_id, "pictures")] == [LOSS_PICTURE]


def test_who_needs_the_run_waits_for_it(embedded: Registry, name: str) -> None:
    tracker = _tracking(embedded, name, start_limit_s=0.0).open()
    tracker.start(parameters={}, tags={})
    assert embedded.backend.client().get_run(tracker.run_id(limit_s=60.0)).data.tags[RUN_KEY] == "key1"
    tracker.finish()


def test_another_key_is_another_run(embedded: Registry, name: str) -> None:
    ids = set()
    for key in ("key1", "key2"):
        tracker = _tracking(embedded, name, run_key=key).open()
        ids.add(tracker.start(parameters={}, tags={}))
        tracker.finish()
    assert len(ids - {UNTRACKED}) == 2


def test_the_same_checkpoint_is_the_same_version(place: tuple[Registry, Path], name: str, tmp_path: Path) -> None:
    registry, _ = place
    first = registry.register(_bundle(tmp_path / "a", 1, measures={"valid_nll_nats_per_token": 0.5}), name=name)
    again = registry.register(_bundle(tmp_path / "b", 1), name=name)
    other = registry.register(_bundle(tmp_path / "c", 2), name=name, run_id=first.run_id)
    assert again == first
    assert [str(version) for version in registry.versions(name)] == [str(other), str(first)]
    assert (first.version, other.version) == ("1", "2")
    assert first.figures == {"valid_nll_nats_per_token": 0.5, "parameters": 1000.0}
    assert other.run_id == first.run_id
    assert registry.card(first).startswith("# decoder: decoder tiny")


def test_registered_twice_at_once_is_registered_once(place: tuple[Registry, Path], name: str, tmp_path: Path) -> None:
    registry, _ = place
    run_id = registry.register(_bundle(tmp_path / "first", 1), name=name).run_id
    folder = _bundle(tmp_path / "both", 2)
    copies = [Registry(registry.backend.tracking_uri, cache=tmp_path / f"cache{i}") for i in range(4)]
    for copy in copies:
        copy.versions()
    with ThreadPoolExecutor(len(copies)) as pool:
        made = list(pool.map(lambda copy: copy.register(folder, name=name, run_id=run_id), copies))
    assert len({version.version for version in made}) == 1
    assert len(registry.versions(name)) == 2


def test_references_find_production_or_the_newest(embedded: Registry, name: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        embedded.register(_bundle(tmp_path / str(seed), seed), name=name)
    assert embedded.resolve(name).version == "2"
    embedded.promote(name, "1")
    for reference in (name, f"{name}@production", f"models:/{name}@production", f"{name}/1"):
        assert embedded.resolve(reference).version == "1", reference
    with pytest.raises(MissingError, match="is called '7': known are 1, 2"):
        embedded.resolve(f"{name}/7")
    with pytest.raises(MissingError, match="'prod': did you mean 'production'"):
        embedded.resolve(f"{name}@prod")
    with pytest.raises(MissingError, match=f"did you mean '{name}'"):
        embedded.resolve(f"{name}x")


def test_rollback_walks_the_promotions_back(embedded: Registry, name: str, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        embedded.register(_bundle(tmp_path / str(seed), seed), name=name)
    with pytest.raises(MissingError, match="nothing is in production"):
        embedded.rollback(name)
    for version in ("1", "2", "2", "3"):
        assert embedded.promote(name, version).aliases == ("production",)
    assert embedded.previous(name).version == "2"
    assert embedded.rollback(name).version == "2"
    assert embedded.promote(name, "1").version == "1"
    assert [embedded.rollback(name).version for _ in range(2)] == ["2", "1"]
    with pytest.raises(MissingError, match=f"no earlier promoted version to go back to .*{name}/1"):
        embedded.rollback(name)
    assert embedded.resolve(f"{name}@production").version == "1"


def test_rollback_believes_the_alias(embedded: Registry, name: str, tmp_path: Path) -> None:
    """A crash between tag and alias, a hand in MLflow's pages, or a deleted version must not lead it astray."""
    for seed in (1, 2, 3, 4):
        embedded.register(_bundle(tmp_path / str(seed), seed), name=name)
    client: MlflowClient = embedded.backend.client()
    for version in ("1", "2", "3"):
        embedded.promote(name, version)
    client.set_registered_model_alias(name, "production", "2")
    assert embedded.previous(name).version == "1"
    client.set_registered_model_alias(name, "production", "4")
    embedded.promote(name, "1")
    assert embedded.rollback(name).version == "4"
    client.delete_model_version(name, "3")
    assert embedded.rollback(name).version == "2"


def test_fetched_files_are_verified_and_kept(place: tuple[Registry, Path], name: str, tmp_path: Path) -> None:
    registry, stored = place
    version = registry.register(_bundle(tmp_path / "a", 1), name=name)
    (weights,) = stored.rglob(f"{Path(version.source).name}/{WEIGHTS}")
    folder = registry.fetch(version)
    assert {path.name for path in folder.iterdir()} == version.checksums.keys() > {CARD, WEIGHTS, MLMODEL}
    weights.unlink()
    assert registry.fetch(version) == folder, "from the cache"
    (folder / WEIGHTS).write_bytes(b"damage")
    with pytest.raises(IntegrityError, match=f"lacks {WEIGHTS}"):
        registry.fetch(version)


@pytest.mark.parametrize("damaged", [WEIGHTS, CARD])
def test_a_damaged_version_is_not_promoted_and_can_be_mended(
    place: tuple[Registry, Path], name: str, tmp_path: Path, damaged: str
) -> None:
    registry, stored = place
    good = registry.register(_bundle(tmp_path / "good", 1), name=name)
    bad = registry.register(_bundle(tmp_path / "bad", 2), name=name)
    registry.promote(name, good.version)
    (path,) = stored.rglob(f"{Path(bad.source).name}/{damaged}")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"{damaged} is not the file that was registered: register .* again"):
        registry.promote(name, bad.version)
    assert registry.resolve(name).version == good.version
    assert registry.register(tmp_path / "bad", name=name) == bad
    assert registry.promote(name, bad.version).aliases == ("production",)


def test_a_run_that_is_not_there_is_told(place: tuple[Registry, Path], name: str, tmp_path: Path) -> None:
    registry, _ = place
    with pytest.raises(MissingError, match=f"no run '{'0' * 32}'"):
        registry.register(_bundle(tmp_path / "a", 1), name=name, run_id="0" * 32)
    with pytest.raises(MissingError):
        registry.versions(name)


def test_nothing_global_is_set(
    place: tuple[Registry, Path], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry, _ = place
    before = dict(os.environ), mlflow.get_tracking_uri(), logging.getLogger("mlflow").level
    tracker = _tracking(registry, name).open()
    run_id = tracker.start(parameters={}, tags={})
    tracker.finish()
    registry.promote(name, registry.register(_bundle(tmp_path / "a", 1), name=name, run_id=run_id).version)
    assert (dict(os.environ), mlflow.get_tracking_uri(), logging.getLogger("mlflow").level) == before
    assert mlflow.active_run() is None
    assert capfd.readouterr() == ("", "")


def test_a_server_over_embedded_records_gives_their_models(server: tuple[str, Path], tmp_path: Path) -> None:
    """``tutti up`` serves what embedded runs wrote: the files stay where they are."""
    url, home = server
    embedded = Registry(f"sqlite:///{home}/mlflow.db", cache=tmp_path / "cache1")
    version = embedded.register(_bundle(tmp_path / "a", 1), name="of-embedded-runs")
    assert version.source.startswith(f"file://{home}/artifacts/")
    served = Registry(url, cache=tmp_path / "cache2")
    assert served.resolve(version.name) == version
    assert served.promote(version.name, "1").aliases == ("production",)
    assert served.fetch(version).is_relative_to(tmp_path / "cache2")
    assert served.register(_bundle(tmp_path / "b", 2), name=version.name, run_id=version.run_id).version == "2"


def test_a_server_that_goes_away_is_told_in_one_line(server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    port = free_port()
    registry = Registry(f"http://127.0.0.1:{port}", cache=tmp_path)
    with _forwarding(port, to=int(url.rpartition(":")[2])):
        registry.versions()
    started_s = time.monotonic()
    with pytest.raises(PlaceError, match=rf"MLflow at http://127.0.0.1:{port} cannot list models") as caught:
        registry.versions()
    assert time.monotonic() - started_s < 10
    assert "\n" not in str(caught.value)


def test_a_late_server_gets_everything(server: tuple[str, Path], tmp_path: Path) -> None:
    url, _ = server
    port = free_port()
    tracking = MlflowTracking(f"http://127.0.0.1:{port}", "late", "key1", start_limit_s=0.1)
    tracker = tracking.open()
    assert tracker.start(parameters={"steps": 3}, tags={}) == UNTRACKED
    for step in range(3):
        tracker.log({"loss": float(step)}, step=step)
    with _forwarding(port, to=int(url.rpartition(":")[2])):
        tracker.finish()
    client: MlflowClient = Backend(url).client()
    (run,) = client.search_runs([client.get_experiment_by_name("late").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2]
    assert run.info.status == "FINISHED"


def test_processes_that_come_first_together_make_one_file(tmp_path: Path) -> None:
    uri = Backend.at(Folder(str(tmp_path / "results"))).tracking_uri
    code = (
        "import sys; from tutti.registry.backend import *; Backend(sys.argv[1]).client().create_experiment(sys.argv[2])"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, uri, f"experiment {i}"]) for i in range(2)]
    for worker in workers:
        assert worker.wait(120) == 0
    found = {experiment.name for experiment in Backend(uri).client().search_experiments()}
    assert {"experiment 0", "experiment 1"} <= found
    assert [path.name for path in (tmp_path / "results" / "mlflow").iterdir()] == ["mlflow.db"]


def test_the_verb(embedded: Registry, tmp_path: Path) -> None:
    registry, root = embedded, tmp_path / "results"
    for seed in (1, 2):
        registry.register(
            _bundle(tmp_path / str(seed), seed, measures={"valid_nll_nats_per_token": 0.25 * seed}), name="bach"
        )

    def run(*arguments: str) -> list[str]:
        result = CliRunner().invoke(models, [*arguments, "--root", str(root)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout.splitlines()

    at = registry.backend.tracking_uri
    assert run("promote", "bach/1", "--dry-run") == [f"would make bach/1 production at {at}"]
    assert registry.resolve("bach").version == "2"
    assert run("promote", "bach/1") == [f"bach/1 is bach@production at {at}"]
    assert run("promote", "bach/2") == [f"bach/2 is bach@production at {at}"]
    head, newest, oldest, last = run("list")
    assert head.split()[:3] == ["NAME", "VERSION", "ALIAS"]
    assert newest.split()[:3] == ["bach", "2", "production"]
    assert newest.split()[-3:] == ["1,000", "0.5000", registry.resolve("bach").digest[:12]]
    assert oldest.split()[2] == "–"
    assert last == f"2 versions at {at}"
    listed = json.loads("\n".join(run("list", "bach", "--json")))
    assert [(item["version"], item["aliases"]) for item in listed] == [("2", ["production"]), ("1", [])]
    card = run("show", "bach@production")
    assert card[0] == "# decoder: decoder tiny"
    assert card[-1].startswith("bach/2 (production) at file://")
    assert run("rollback", "bach", "--dry-run") == [f"would make bach/1 production at {at}"]
    assert run("rollback", "bach") == [f"bach/1 is bach@production again at {at}"]
    with pytest.raises(MissingError, match="no earlier promoted version"):
        run("rollback", "bach")


@contextmanager
def _forwarding(port: int, *, to: int) -> Iterator[None]:
    """Until the block ends, what connects to ``port`` talks to port ``to``."""
    listener = socket.create_server(("127.0.0.1", port))
    threads: list[threading.Thread] = []
    open_sockets: list[socket.socket] = [listener]

    def start(target: Callable[..., None], *arguments: socket.socket) -> None:
        threads.append(threading.Thread(target=target, args=arguments))
        threads[-1].start()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                inner = listener.accept()[0]
                outer = socket.create_connection(("127.0.0.1", to))
                open_sockets.extend((inner, outer))
                start(pump, inner, outer)
                start(pump, outer, inner)

    start(accept)
    try:
        yield
    finally:
        for each in open_sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in threads:
            thread.join()
