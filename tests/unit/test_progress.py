"""The record of a run: as it was written, whole, and right about who is alive."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti import progress
from tutti.errors import IntegrityError
from tutti.progress import PROGRESS, Progress, recorded
from tutti.storage import Folder

NOW = datetime(2026, 11, 3, 12, tzinfo=UTC)
MOMENTS = st.datetimes(timezones=st.just(UTC))
COUNTS = st.integers(min_value=0, max_value=10**9)


def run_of(**changes: object) -> Progress:
    begun = Progress("ingest", 100, 20, 15, {"empty": 5}, NOW, NOW + timedelta(seconds=10), os.getpid(), "elsewhere")
    return replace(begun, **changes)  # type: ignore[arg-type]


@given(
    made=st.builds(
        Progress,
        verb=st.text(), files=COUNTS, done=COUNTS, works=COUNTS, refusals=st.dictionaries(st.text(), COUNTS),
        started=MOMENTS, updated=MOMENTS, pid=COUNTS, host=st.text(), failure=st.text(), unit=st.text(),
        figures=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    )
)  # fmt: skip
def test_what_was_written_is_read(made: Progress) -> None:
    folder = Folder("memory://progress")
    made.write(folder)
    assert Progress.read(folder) == made


def test_a_folder_without_a_record_has_none(tmp_path: Path) -> None:
    assert Progress.read(Folder(str(tmp_path))) is None


@pytest.mark.parametrize(
    "change",
    [{"started": "yesterday"}, {"updated": "2026-11-03T12:00:00"}, {"refusals": 3}, {"pid": ...}],
)
def test_what_is_no_record_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    run_of().write(folder)
    document = {**json.loads(folder.read(PROGRESS)), **change}
    folder.write(PROGRESS, json.dumps({name: value for name, value in document.items() if value is not ...}).encode())
    with pytest.raises(IntegrityError, match="not a record of progress"):
        Progress.read(folder)


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    run_of().write(folder)
    folder.write(PROGRESS, json.dumps({**json.loads(folder.read(PROGRESS)), "mood": "calm"}).encode())
    assert Progress.read(folder) == run_of()


def test_elsewhere_silence_tells() -> None:
    spoke = run_of().updated
    assert run_of().is_alive(now=spoke + timedelta(seconds=59))
    assert not run_of().is_alive(now=spoke + timedelta(seconds=61))


def test_here_the_process_tells() -> None:
    here = run_of(host=socket.gethostname(), started=datetime.now(UTC))
    assert here.is_alive(now=here.updated + timedelta(hours=3))
    assert not replace(here, failure="no space left").is_alive(now=here.updated)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = replace(here, pid=other.pid, started=datetime.now(UTC))
        assert theirs.is_alive(now=theirs.updated)
        other.kill()
        # Its parent has not asked for it yet, so the system still lists it, as a zombie.
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert not theirs.is_alive(now=theirs.updated)
    assert not theirs.is_alive(now=theirs.updated)


def test_a_number_that_was_given_to_another_process_is_not_the_run() -> None:
    before_this_process = datetime.now(UTC) - timedelta(days=3000)
    assert not run_of(host=socket.gethostname(), started=before_this_process).is_alive(now=NOW)


def test_time_left_is_that_of_the_mean_pace() -> None:
    at = run_of().updated
    assert run_of().left_s(now=at) == 40
    assert run_of().left_s(now=at + timedelta(seconds=15)) == 25
    assert run_of().left_s(now=at + timedelta(seconds=90)) == 0
    assert run_of(done=0).left_s(now=at) is None
    # What an earlier run had made says nothing of the pace.
    assert run_of(done=20, found=10).left_s(now=at) == 80
    assert run_of(done=20, found=20).left_s(now=at) is None


def test_readers_that_do_not_reckon_find_state_and_time_left(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    run_of().write(folder)
    document = json.loads(folder.read(PROGRESS))
    assert (document["state"], document["left_s"]) == ("running", 40)
    run_of(failure="no space").write(folder)
    document = json.loads(folder.read(PROGRESS))
    assert (document["state"], document["left_s"]) == ("stopped", None)


def test_a_run_that_ends_well_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WRITE_EVERY_S", 0.0)
    folder = Folder(str(tmp_path))
    with recorded(folder, verb="ingest", files=3) as record:
        begun = Progress.read(folder)
        assert begun is not None
        assert (begun.done, begun.files, begun.is_alive(now=datetime.now(UTC))) == (0, 3, True)
        record.update(done=2, works=1, refusals={"empty": 1})
        assert Progress.read(folder) == record.progress
        assert record.progress.done == 2
    assert Progress.read(folder) is None


def test_a_run_that_fails_says_why_and_how_far_it_came(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))

    def fails() -> None:
        with recorded(folder, verb="ingest", files=3) as record:
            record.update(done=2, works=2, refusals={})
            raise RuntimeError("disk\n full")

    with pytest.raises(RuntimeError, match=r"disk\n full"):
        fails()
    left = Progress.read(folder)
    assert left is not None
    assert (left.done, left.failure, left.is_alive(now=left.updated)) == (2, "disk full", False)


@pytest.mark.parametrize("ends", [KeyboardInterrupt(), SystemExit(15)])
def test_a_run_that_is_stopped_says_so(tmp_path: Path, ends: BaseException) -> None:
    folder = Folder(str(tmp_path))

    def stopped() -> None:
        with recorded(folder, verb="train", files=240, unit="steps") as record:
            record.update(done=60, figures={"tokens_per_s": 1e4})
            raise ends

    with pytest.raises(type(ends)):
        stopped()
    left = Progress.read(folder)
    assert left is not None
    assert (left.unit, left.done, left.figures, left.failure) == ("steps", 60, {"tokens_per_s": 1e4}, "interrupted")


def test_many_updates_are_few_writes(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with recorded(folder, verb="ingest", files=1000) as record:
        before = (tmp_path / PROGRESS).stat().st_mtime_ns
        for done in range(1000):
            record.update(done=done, works=done, refusals={})
        assert (tmp_path / PROGRESS).stat().st_mtime_ns == before
