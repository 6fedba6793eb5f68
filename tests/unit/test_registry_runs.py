import logging
import pickle
import socket
import threading
import time

import pytest

from tutti.errors import InputError, PlaceError, RecipeError
from tutti.registry import runs
from tutti.registry.run_record import check_artifact_path, clean_name, cut
from tutti.registry.runs import UNTRACKED, MlflowTracking
from tutti.training.tracker import Tracker, Tracking


def _away(port: int) -> MlflowTracking:
    return MlflowTracking(f"http://127.0.0.1:{port}", "songs", "key", start_limit_s=0.2, finish_limit_s=0.2)


def test_it_travels_and_is_what_the_loop_expects(free_port: int) -> None:
    tracking: Tracking = pickle.loads(pickle.dumps(_away(free_port)))
    tracker: Tracker = tracking.open()
    assert tracking == _away(free_port)
    tracker.finish()


def test_a_server_that_is_away_never_stops_a_training(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    tracker = _away(free_port).open()
    started_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert tracker.start(parameters={"steps": 3}, tags={}) == UNTRACKED
        for step in range(3):
            tracker.log({"loss": 1.0}, step=step)
        tracker.artifact("pictures/loss.png", b"png")
        tracker.finish(failed=True)
    assert time.monotonic() - started_s < 10
    assert "3 calls of log and 1 files are lost" in caplog.text
    assert caplog.text.count("MLflow must wait for") == 1, "a server that stays away is told once"
    tracker.log({"loss": 1.0}, step=4)


def test_a_server_that_is_away_delays_no_start(free_port: int) -> None:
    """The limit is for a server that answers slowly: this returns by the refusal of its first call."""
    tracker = MlflowTracking(
        f"http://127.0.0.1:{free_port}", "songs", "key", start_limit_s=1e6, finish_limit_s=0.2
    ).open()
    assert tracker.start(parameters={}, tags={}) == UNTRACKED
    with pytest.raises(PlaceError, match=r"did not open the run of songs within 0\.1 s: start it and try again"):
        tracker.run_id(limit_s=0.1)
    tracker.finish()


def test_a_server_that_hangs_holds_nobody_up(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        tracker = _away(free_port).open()
        assert tracker.start(parameters={}, tags={}) == UNTRACKED
        tracker.log({"loss": 1.0}, step=1)
        tracker.finish()


def test_a_full_queue_drops_and_counts(free_port: int) -> None:
    tracker = _away(free_port).open()
    for step in range(runs.QUEUE_CALLS + 5):
        tracker.log({"loss": 1.0}, step=step)
    assert tracker.dropped_calls == 5


def test_logging_costs_the_loop_microseconds(free_port: int) -> None:
    tracker = _away(free_port).open()
    figures = {f"figure_{i}": float(i) for i in range(8)}
    started_s = time.perf_counter()
    for step in range(1000):
        tracker.log(figures, step=step)
    assert (time.perf_counter() - started_s) / 1000 < 1e-3


def test_what_is_no_number_is_dropped_and_told(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    tracker = _away(free_port).open()
    tracker.log({"loss": "low"}, step=1)  # type: ignore[dict-item]
    assert tracker.dropped_calls == 1
    assert "not all numbers" in caplog.text


def test_large_files_do_not_pile_up(free_port: int, caplog: pytest.LogCaptureFixture) -> None:
    tracker = _away(free_port).open()
    tracker.artifact("one.bin", bytes(runs.QUEUE_ARTIFACT_BYTES))
    tracker.artifact("two.bin", b"one byte too many")
    assert "two.bin (17 bytes) is not kept" in caplog.text


def test_no_thread_before_start(free_port: int) -> None:
    before = threading.active_count()
    _away(free_port).open()
    assert threading.active_count() == before


@pytest.mark.parametrize("key", ["", "it's", "a b", "x" * 251])
def test_a_key_is_a_name(key: str) -> None:
    with pytest.raises(RecipeError, match="run key"):
        MlflowTracking("http://mlflow:5000", "songs", key)


def test_an_experiment_has_a_name_and_a_place_is_known() -> None:
    with pytest.raises(RecipeError, match="experiment"):
        MlflowTracking("http://mlflow:5000", " ", "key")
    with pytest.raises(PlaceError, match="unknown kind"):
        MlflowTracking("mlruns", "songs", "key").open()


@pytest.mark.parametrize("path", ["", "/loss.png", "../loss.png", "a/../b", "a//b", "a\\b", "s3://b/c", "a/", "."])
def test_artifact_paths_stay_below_the_run(path: str, free_port: int) -> None:
    with pytest.raises(InputError, match="not below its run"):
        _away(free_port).open().artifact(path, b"")


def test_good_artifact_paths_pass() -> None:
    for path in (runs.LOSS_PICTURE, runs.SAMPLE_MIDI, runs.SAMPLE_FLAC, runs.SAMPLE_PICTURE, "card.md"):
        check_artifact_path(path)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("train/loss", "train/loss"),
        ("tokens/s (all)", "tokens/s _all_"),
        ("/a//b/", "a/b"),
        ("../up", "_/up"),
        ("é", "é"),
    ],
)
def test_names_become_what_mlflow_takes(name: str, cleaned: str) -> None:
    assert clean_name(name) == cleaned


def test_cutting_shows() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcd", 3) == "ab…"
