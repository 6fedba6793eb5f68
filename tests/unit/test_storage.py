"""One face for files, memory and S3: whole objects or none, passing errors passed over, final ones told in one line."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutti import s3
from tutti.errors import MissingError, PlaceError
from tutti.storage import Folder

NOBODY = 65534
ODD_NAMES = (
    "a b.mid",
    "é ü 日本.mid",
    "100%.mid",
    "a+b=c&d.mid",
    "a[1].mid",
    "b*.mid",
    "c?.mid",
    "#1.mid",
    "~x",
    "a:b",
)
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "c d", "e.x"]), min_size=1, max_size=3).map("/".join)


@pytest.fixture(params=["local", "file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        on_s3: Folder = request.getfixturevalue("s3_folder")
        return on_s3
    return Folder(
        {"local": str(tmp_path), "file": f"file://{tmp_path}", "memory": f"memory://{uuid.uuid4().hex}"}[request.param]
    )


def run_child(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, timeout=60
    )


def test_what_was_written_is_read(folder: Folder) -> None:
    folder.write("a/b/c.bin", b"0123456789")
    folder.write("a/d.bin", b"")
    assert folder.read("a/b/c.bin") == b"0123456789"
    assert folder.read("a/d.bin") == b""
    assert folder.read_range("a/b/c.bin", start=2, stop=5) == b"234"
    assert (folder / "a" / "b").read("c.bin") == b"0123456789"
    with folder.open("a/b/c.bin") as file:
        file.seek(7)
        assert file.read() == b"789"
    assert folder.size_bytes("a/b/c.bin") == 10
    assert folder.exists("a/b/c.bin")
    assert folder.exists("a/b")
    assert folder.exists()


def test_a_listing_tells_sizes_and_versions_that_move_with_the_bytes(folder: Folder) -> None:
    for path, data in (("b/2", b"xx"), ("b/1", b""), ("a", b"x")):
        folder.write(path, data)
    before = folder.entries()
    assert [(entry.path, entry.size_bytes) for entry in before] == [("a", 1), ("b/1", 0), ("b/2", 2)]
    assert folder.entries() == before
    assert folder.entries("b") == before[1:]
    assert folder.entries("b/2") == before[2:], "one object tells the same as the listing that it is in"
    assert folder.entries("nowhere") == []
    time.sleep(0.02)
    folder.write("b/2", b"yy")
    after = folder.entries()
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]


def test_names_come_sorted_and_relative(folder: Folder) -> None:
    for path in ("b/2", "b/1", "a", "bc/1"):
        folder.write(path, b"x")
    assert folder.paths() == ["a", "b/1", "b/2", "bc/1"]
    assert folder.paths("b") == ["b/1", "b/2"]
    assert folder.children() == ["a", "b", "bc"]
    assert folder.children("b") == ["1", "2"]
    assert folder.children("b/") == ["1", "2"]
    assert folder.children("a") == []
    assert folder.children("nothing") == []


def test_a_later_write_replaces_the_object(folder: Folder) -> None:
    folder.write("a", b"a long first version")
    folder.write("a", b"short")
    assert folder.read("a") == b"short"
    assert folder.paths() == ["a"]


def test_deleting_takes_what_is_below_and_nothing_else(folder: Folder) -> None:
    for path in ("b/1", "b/c/2", "bc/1"):
        folder.write(path, b"x")
    folder.delete("b")
    folder.delete("b")
    assert folder.paths() == ["bc/1"]
    folder.delete()
    assert folder.paths() == []


def test_what_is_not_there_is_told(folder: Folder) -> None:
    assert folder.paths("x") == []
    assert not folder.exists("x/y")
    for ask in (folder.read, folder.size_bytes, lambda path: folder.read_range(path, start=0, stop=1)):
        with pytest.raises(MissingError, match=r"x/y is not there: check the address"):
            ask("x/y")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_names(folder: Folder, name: str) -> None:
    folder.write(f"d/{name}", name.encode())
    folder.write("d/a1.mid", b"other")
    assert folder.read(f"d/{name}") == name.encode()
    assert folder.paths("d") == sorted([f"d/{name}", "d/a1.mid"])
    folder.delete(f"d/{name}")
    assert folder.paths() == ["d/a1.mid"]


def test_a_folder_travels_to_other_processes(folder: Folder) -> None:
    folder.write("a", b"x")
    twin = pickle.loads(pickle.dumps(folder))
    assert twin == folder
    assert twin.read("a") == b"x"


def test_a_place_that_can_be_written_shows_no_trace_of_the_check(folder: Folder) -> None:
    folder.check_writable()
    assert folder.paths() == []


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x"])
def test_a_path_stays_in_its_folder(folder: Folder, path: str) -> None:
    with pytest.raises(PlaceError, match="leaves its folder: use a path below it"):
        folder.write(path, b"x")


def test_an_unknown_kind_of_storage_is_refused_by_name() -> None:
    with pytest.raises(PlaceError, match="storage 'ftp://host/x' is of an unknown kind: use a path, file://, s3://"):
        Folder("ftp://host/x").read("y")


def test_a_relative_folder_means_the_same_place_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Folder("results")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert (folder / "a").local_path == tmp_path / "results" / "a"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
def test_a_folder_that_cannot_be_made_is_named_itself() -> None:
    with pytest.raises(PlaceError, match="folder /proc/nowhere cannot be made"):
        Folder("/proc/nowhere").check_writable()


def test_only_local_folders_have_a_path(tmp_path: Path) -> None:
    assert Folder(f"file://{tmp_path}").local_path == Folder(str(tmp_path)).local_path == tmp_path
    with pytest.raises(PlaceError, match="s3://b/x is not a local folder: name a local one"):
        _ = Folder("s3://b/x").local_path


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["write", "delete"]), PATHS, st.binary(max_size=9)), max_size=12))
def test_a_folder_behaves_like_a_dictionary(steps: list[tuple[str, str, bytes]]) -> None:
    folder, model = Folder(f"memory://{uuid.uuid4().hex}"), dict[str, bytes]()
    for verb, path, data in steps:
        parents = {"/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)}
        if verb == "delete":
            folder.delete(path)
            model = {name: kept for name, kept in model.items() if name != path and not name.startswith(path + "/")}
        elif not parents & model.keys() and not any(name.startswith(path + "/") for name in model):
            folder.write(path, data)
            model[path] = data
        assert {name: folder.read(name) for name in folder.paths()} == model


def test_readers_never_meet_half_an_object(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    versions = [bytes([number]) * (1 + number * 40_000) for number in range(8)]
    folder.write("a", versions[0])
    done = threading.Event()

    def rewrite() -> None:
        for turn in range(120):
            folder.write("a", versions[turn % 8])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = set()
    while not done.is_set():
        data = folder.read("a")
        assert data in versions
        assert folder.paths() == ["a"]
        seen.add(len(data))
    writer.join()
    assert len(seen) > 1


def test_a_writer_that_is_killed_leaves_nothing_that_counts(tmp_path: Path) -> None:
    script = "import sys; from tutti.storage import Folder; Folder(sys.argv[1]).write('a', bytes(1 << 29))"
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    deadline_s = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".a.*.part")):
        assert child.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["a"], "the test killed too late"
    folder = Folder(str(tmp_path))
    assert not folder.exists("a")
    assert folder.paths() == []
    assert folder.children() == []


def test_a_file_limit_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    done = run_child(
        """
        import resource, sys
        from tutti.errors import PlaceError
        from tutti.storage import Folder
        folder = Folder(sys.argv[1])
        folder.write("small", b"x")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            folder.write("large", bytes(10_000))
        except PlaceError as error:
            print(error)
        """,
        str(tmp_path),
    )
    assert done.stdout.startswith(f"cannot write {tmp_path}/large ("), done.stderr
    assert "File too large" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare, which gives a process a small disk of its own, is not on this machine")
    script = """
        import sys
        from pathlib import Path
        from tutti.errors import PlaceError
        from tutti.storage import Folder
        folder = Folder(sys.argv[1])
        folder.write("small", b"x")
        try:
            folder.write("large", bytes(1 << 20))
        except PlaceError as error:
            print(error)
        print(sorted(path.name for path in Path(sys.argv[1]).iterdir()))
        """
    mount = f'mount -t tmpfs -o size=256k tmpfs "$1" && exec {sys.executable} -c "$2" "$1"'
    done = subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            mount,
            "sh",
            str(tmp_path),
            textwrap.dedent(script),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if not done.stdout and ("mount" in done.stderr or "unshare" in done.stderr):
        pytest.skip(f"this machine lets no process have a disk of its own ({done.stderr.strip().splitlines()[-1]})")
    said = f"no space left to write {tmp_path}/large: free some space or choose another folder"
    assert done.stdout.splitlines() == [said, "['small']"], done.stderr


def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    Folder(str(tmp_path)).write("a", b"x")
    (tmp_path / "a").chmod(0)
    tmp_path.chmod(0o555)
    # Root may write everywhere, so root becomes nobody first; all imports are done by then.
    done = run_child(
        """
        import os, sys, tempfile
        from tutti.errors import PlaceError
        from tutti.storage import Folder
        with tempfile.TemporaryDirectory() as warm:
            Folder(warm).write("a", b"x")
            Folder(warm).read("a")
        if os.getuid() == 0:
            os.setuid(int(sys.argv[2]))
        for action in (lambda f: f.write("b", b"x"), lambda f: f.read("a"), lambda f: f.check_writable()):
            try:
                action(Folder(sys.argv[1]))
            except PlaceError as error:
                print(error)
        """,
        str(tmp_path),
        str(NOBODY),
    )
    tmp_path.chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert lines[0] == f"no permission to write {tmp_path}/b: choose another folder or change its permissions"
    assert lines[1].startswith(f"no permission to read {tmp_path}/a: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_server_that_never_answers_is_one_line_at_last(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")
    monkeypatch.setattr(s3, "ATTEMPTS", 6)
    started_s = time.monotonic()
    with pytest.raises(PlaceError, match="Could not connect to the endpoint URL") as raised:
        Folder("s3://tests/x").read("a")
    assert str(raised.value).endswith("check the address, the server and the credentials")
    assert time.monotonic() - started_s > s3.FIRST_PAUSE_S * (2**5 - 1) / 2


def test_wrong_credentials_are_told_at_once(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    started_s = time.monotonic()
    with pytest.raises(PlaceError, match="no permission to write s3://tests/x/a"):
        Folder("s3://tests/x").write("a", b"x")
    assert time.monotonic() - started_s < 5


def test_absent_credentials_are_told_with_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(PlaceError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Folder("s3://tests/x").read("a")
