"""What lies below a root is told as it is: finished, running, stopped, without a word, damaged."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tutti import lineage
from tutti.dataset.inventory import Found, State, found_below, newest
from tutti.errors import MissingError
from tutti.lineage import MANIFEST, Dataset
from tutti.progress import PROGRESS, Progress
from tutti.storage import Folder


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        folder: Folder = request.getfixturevalue("s3_folder")
        return folder
    return Folder(str(tmp_path)) if request.param == "local" else Folder(f"memory://{tmp_path.name}-{id(tmp_path)}")


def publish(root: Folder, *, kind: str = "works", name: str = "bach", version: int = 0) -> Dataset:
    inputs = {"version": version}
    folder = lineage.place(root, kind=kind, name=name, inputs=inputs)
    files = [lineage.write_file(folder, "deep/part.bin", b"12345")]
    return lineage.publish(folder, kind=kind, name=name, inputs=inputs, files=files, facts={"works": version})


def created(dataset: Dataset, moment: datetime) -> None:
    """Write another time of birth into a manifest."""
    document = json.loads(dataset.folder.read(MANIFEST))
    dataset.folder.write(MANIFEST, json.dumps({**document, "created": moment.isoformat()}).encode())


def look(root: Folder) -> dict[str, Found]:
    return {found.address: found for found in found_below(root, now=datetime.now(UTC))}


def test_nothing_is_no_error(root: Folder) -> None:
    assert found_below(root, now=datetime.now(UTC)) == []


def test_what_is_finished_is_told_with_its_facts_and_size(root: Folder) -> None:
    made = publish(root, version=3)
    (found,) = found_below(root, now=datetime.now(UTC))
    assert (found.kind, found.name, found.address, found.folder) == ("works", "bach", made.address, made.folder)
    assert (found.state, found.facts, found.fault) == (State.FINISHED, {"works": 3}, "")
    assert found.size_bytes == 5 + made.folder.size_bytes(MANIFEST)
    assert found.created is not None
    assert abs(datetime.now(UTC) - found.created) < timedelta(minutes=5)


def test_kinds_go_with_the_music_and_other_folders_are_passed_over(root: Folder) -> None:
    for kind in ("runs", "tokens", "works"):
        publish(root, kind=kind)
    root.write("parts/a/b/manifest.json", b"{}")
    root.write("works/stray.txt", b"")
    assert [found.kind for found in found_below(root, now=datetime.now(UTC))] == ["works", "tokens", "runs"]


def test_runs_in_progress_are_alive_or_were_stopped(root: Folder) -> None:
    now = datetime.now(UTC)
    here = Progress.begun("ingest", files=9)
    far = replace(here, host="elsewhere", updated=now - timedelta(minutes=5))
    near = replace(here, host="elsewhere", updated=now - timedelta(seconds=5))
    told = {"a": here, "b": far, "c": near, "d": replace(here, failure="no space left")}
    for address, progress in told.items():
        progress.write(root / "works" / "bach" / address)
    root.write("works/bach/e/works-00000.parquet", b"")
    states = {address: found.state for address, found in look(root).items()}
    assert states == {
        "a": State.RUNNING, "b": State.STOPPED, "c": State.RUNNING, "d": State.STOPPED, "e": State.UNFINISHED,
    }  # fmt: skip
    assert look(root)["b"].progress == far


def test_a_manifest_counts_more_than_a_record_left_behind(root: Folder) -> None:
    made = publish(root)
    Progress.begun("ingest", files=9).write(made.folder)
    (found,) = found_below(root, now=datetime.now(UTC))
    assert (found.state, found.progress) == (State.FINISHED, None)


@pytest.mark.parametrize("name", [MANIFEST, PROGRESS])
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"created": 3, "facts": {}}'])
def test_damage_costs_its_address_alone(tmp_path: Path, name: str, data: bytes) -> None:
    root = Folder(str(tmp_path))
    publish(root)
    (root / "works" / "bach" / "bad").write(name, data)
    found = look(root)
    assert sorted(each.state for each in found.values()) == [State.DAMAGED, State.FINISHED]
    assert name in found["bad"].fault


def test_the_newest_of_a_name_is_the_last_that_was_finished(root: Folder) -> None:
    now = datetime.now(UTC)
    old, new = (publish(root, version=version) for version in (1, 2))
    publish(root, name="other", version=3)
    created(old, now - timedelta(days=1))
    created(new, now - timedelta(hours=2))
    Progress.begun("ingest", files=1).write(root / "works" / "bach" / "unfinished")
    assert newest(root, kind="works", name="bach") == new.folder
    created(old, now - timedelta(hours=1))
    assert newest(root, kind="works", name="bach") == old.folder
    other = lineage.place(root, kind="works", name="other", inputs={"version": 3})
    in_order = [found.folder for found in found_below(root, now=now)]
    assert in_order == [root / "works" / "bach" / "unfinished", old.folder, new.folder, other]
    with pytest.raises(MissingError, match=r"no finished works 'bahc' below .*: did you mean 'bach'"):
        newest(root, kind="works", name="bahc")
    with pytest.raises(MissingError, match="there are bach, other"):
        newest(root, kind="works", name="xyzzy")
    with pytest.raises(MissingError, match="name another --root"):
        newest(root, kind="tokens", name="bach")


def test_a_run_that_was_killed_was_stopped(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    script = (
        "import sys\n"
        "from tutti.progress import recorded\n"
        "from tutti.storage import Folder\n"
        "with recorded(Folder(sys.argv[1]), verb='ingest', files=7):\n"
        "    print('begun', flush=True)\n"
        "    input()\n"
    )
    arguments = [sys.executable, "-c", script, str(tmp_path / "works" / "bach" / "a")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        found = look(root)["a"]
        assert (found.state, found.progress and found.progress.host) == (State.RUNNING, socket.gethostname())
        run.kill()
        run.wait()
        assert look(root)["a"].state == State.STOPPED
