"""Listing: what counts as a file, what it is known by, and how little of it is read a second time."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus import listing
from tutti.corpus.file_index import RACY_NS, HashIndex, Mark
from tutti.corpus.item import Item
from tutti.corpus.sources import parcels, read_items, resolve
from tutti.errors import DataError, MissingError
from tutti.storage import Folder

NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=8)
SURROGATES = st.binary(min_size=1, max_size=6).map(os.fsdecode).filter(lambda name: "/" not in name)
MARKS = st.builds(
    Mark,
    size_bytes=st.integers(0, 2**63),
    mtime_ns=st.integers(-(2**62), 2**62),
    inode=st.integers(0, 2**64 - 1),
)
LONG_AGO_NS = time.time_ns() - 10**12


def index_in(folder: Path) -> HashIndex:
    return HashIndex.read(Folder(str(folder)), path="files.index")


def old(path: Path, data: bytes, *, mtime_ns: int = LONG_AGO_NS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


@given(
    files=st.dictionaries(
        st.tuples(NAMES | SURROGATES, NAMES | SURROGATES), st.tuples(MARKS, st.binary(min_size=32, max_size=32))
    )
)
def test_an_index_says_after_reading_what_it_was_told(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], tuple[Mark, bytes]]
) -> None:
    place = tmp_path_factory.mktemp("index")
    index = index_in(place)
    for (folder, name), (mark, sha256) in files.items():
        index.learn(folder, name, mark=mark, sha256=sha256.hex(), seen_ns=2**63)
    index.write()
    again = index_in(place)
    for (folder, name), (mark, sha256) in files.items():
        assert again.known(folder, name, mark=mark) == sha256.hex()
        for other in (mark._replace(size_bytes=mark.size_bytes + 1), mark._replace(mtime_ns=0 if mark.mtime_ns else 1)):
            assert again.known(folder, name, mark=other) == ""


def test_a_second_listing_reads_no_file_that_has_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = tmp_path / "songs"
    for name in ("a/1.mid", "a/2.mid", "b.mid"):
        old(songs / name, name.encode())
    index = index_in(tmp_path)
    first = resolve(str(songs), index=index)
    index.write()
    assert [item.version for item in first] == [hashlib.sha256(item.uri[6:].encode()).hexdigest() for item in first]
    # The same size, time and inode: only who reads the file can tell.
    old(songs / "b.mid", b"B.mid")
    old(songs / "a/2.mid", b"two")
    old(songs / "a/3.mid", b"three")
    again = {item.uri: item.version for item in resolve(str(songs), index=index_in(tmp_path))}
    assert again["songs/b.mid"] == first[2].version
    assert again["songs/a/2.mid"] == hashlib.sha256(b"two").hexdigest()
    assert again["songs/a/3.mid"] == hashlib.sha256(b"three").hexdigest()
    assert {item.uri: item.version for item in resolve(str(songs))}["songs/b.mid"] != first[2].version


def test_a_file_that_was_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    now_ns = time.time_ns()
    for age_ns, is_known in ((0, False), (RACY_NS // 2, False), (2 * RACY_NS, True), (-RACY_NS, False)):
        index = HashIndex(Folder(str(tmp_path)), path="x")
        mark = Mark(1, now_ns - age_ns, 7)
        index.learn("folder", "a.mid", mark=mark, sha256="00" * 32, seen_ns=now_ns)
        index.write()
        assert bool(index.known("folder", "a.mid", mark=mark)) == is_known, age_ns


def test_files_that_are_gone_are_forgotten_and_others_kept(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "one more"
    old(one / "a.mid", b"a")
    old(one / "deep/b.mid", b"b")
    old(other / "c.mid", b"c")
    index = index_in(tmp_path)
    resolve(str(one), index=index)
    resolve(str(other), index=index)
    index.write()
    (one / "deep/b.mid").unlink()
    index = index_in(tmp_path)
    resolve(str(one), index=index)
    index.write()
    text = (tmp_path / "files.index").read_text()
    assert [name in text for name in ("a.mid", "b.mid", "c.mid")] == [True, False, True]


def test_an_unchanged_index_is_not_written_again(tmp_path: Path) -> None:
    old(tmp_path / "songs/a.mid", b"a")
    for was_written in (True, False, False):
        (tmp_path / "files.index").touch()
        before = (tmp_path / "files.index").stat().st_ino
        index = index_in(tmp_path)
        resolve(str(tmp_path / "songs"), index=index)
        index.write()
        assert ((tmp_path / "files.index").stat().st_ino != before) == was_written


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"tutti file index 1 00\n", None])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: bytes | None) -> None:
    old(tmp_path / "songs/a.mid", b"a")
    index = index_in(tmp_path)
    resolve(str(tmp_path / "songs"), index=index)
    index.write()
    kept = (tmp_path / "files.index").read_bytes()
    (tmp_path / "files.index").write_bytes(kept[:-3] if damage is None else damage)
    index = index_in(tmp_path)
    (item,) = resolve(str(tmp_path / "songs"), index=index)
    index.write()
    assert item.version == hashlib.sha256(b"a").hexdigest()
    assert (tmp_path / "files.index").read_bytes() == kept


def test_an_index_may_lie_on_storage(s3_folder: Folder, tmp_path: Path) -> None:
    old(tmp_path / "songs/a.mid", b"a")
    index = HashIndex.read(s3_folder, path="parts/files.index")
    (item,) = resolve(str(tmp_path / "songs"), index=index)
    index.write()
    old(tmp_path / "songs/a.mid", b"b")
    assert resolve(str(tmp_path / "songs"), index=HashIndex.read(s3_folder, path="parts/files.index")) == [item]


def test_only_files_are_read_and_only_folders_entered(tmp_path: Path) -> None:
    old(tmp_path / "a.mid", b"a")
    (tmp_path / "b.mid").mkdir()
    old(tmp_path / "b.mid" / "inner.mid", b"inner")
    os.mkfifo(tmp_path / "c.mid")
    (tmp_path / "d.mid").symlink_to(tmp_path / "a.mid")
    (tmp_path / "e").symlink_to(tmp_path / "b.mid")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "f.mid"))
        items = resolve(str(tmp_path))
    name = tmp_path.name
    assert [(item.uri, item.reason) for item in items] == [
        (f"{name}/a.mid", ""),
        (f"{name}/b.mid/inner.mid", ""),
        (f"{name}/c.mid", "unreadable"),
        (f"{name}/d.mid", ""),
        (f"{name}/f.mid", "unreadable"),
    ]
    assert [data if isinstance(data, bytes) else data.detail for data in read_items(items)] == [
        b"a", b"inner", "it is no file but a folder, pipe, socket or device", b"a",
        "it is no file but a folder, pipe, socket or device",
    ]  # fmt: skip


def test_a_name_that_is_no_text_is_read_and_told_as_text(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.mid", "é ü 日本 #?%.mid".encode(), b"a\nb.mid"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    items = resolve(str(tmp_path))
    assert [item.uri.partition("/")[2] for item in items] == ["a\nb.mid", "é ü 日本 #?%.mid", r"\xff\xfe.mid"]
    assert list(read_items(items)) == [b"a\nb.mid", "é ü 日本 #?%.mid".encode(), b"\xff\xfe.mid"]
    for item in items:
        item.uri.encode()


def test_a_file_that_changes_between_listing_and_reading_is_told(tmp_path: Path) -> None:
    for name in ("same.mid", "shorter.mid", "longer.mid", "other.mid", "gone.mid"):
        (tmp_path / name).write_bytes(b"12345")
    items = {item.uri.rpartition("/")[2]: item for item in resolve(str(tmp_path))}
    (tmp_path / "shorter.mid").write_bytes(b"1234")
    (tmp_path / "longer.mid").write_bytes(b"123456")
    (tmp_path / "other.mid").write_bytes(b"54321")
    (tmp_path / "gone.mid").unlink()
    read = {name: next(read_items([item])) for name, item in items.items()}
    assert read.pop("same.mid") == b"12345"
    told = {name: (error.reason, error.detail) for name, error in read.items() if isinstance(error, DataError)}
    assert told.pop("gone.mid") == ("unreadable", "the file cannot be read: No such file or directory")
    assert told == dict.fromkeys(
        ("shorter.mid", "longer.mid", "other.mid"), ("unreadable", "the file changed while it was read")
    )


def test_a_bucket_is_listed_without_reading_it_and_in_the_order_of_a_disk(
    s3_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["b/2.mid", "b-/1.mid", "a[1].mid", "é ü 日本.mid", "a.txt", "deep/er/x.abc"]
    for name in names:
        s3_folder.write(name, name.encode())
        old(tmp_path / "songs" / name, name.encode())
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", lambda *_: pytest.fail("it was read"))
        items = resolve(s3_folder.uri, licence="CC0-1.0")
    on_disk = resolve(str(tmp_path / "songs"), licence="CC0-1.0")
    assert [item.uri.removeprefix(s3_folder.uri) for item in items] == [
        item.uri.removeprefix("songs") for item in on_disk
    ]
    assert [item.size_bytes for item in items] == [item.size_bytes for item in on_disk]
    assert all(item.version.startswith("etag:") for item in items)
    assert [list(read_items(items)), [len(part) for part in parcels(items)]] == [list(read_items(on_disk)), [5]]
    (one,) = resolve(f"{s3_folder.uri}/b/2.mid", licence="CC0-1.0")
    assert (one.uri, one.version, next(read_items([one]))) == (items[1].uri, items[1].version, b"b/2.mid")
    assert one.collection == "b"


def test_an_object_that_changes_has_another_version_and_one_that_is_gone_is_told(s3_folder: Folder) -> None:
    s3_folder.write("a.mid", b"old")
    s3_folder.write("b.mid", b"b")
    before = resolve(s3_folder.uri)
    s3_folder.write("a.mid", b"newer")
    s3_folder.delete("b.mid")
    (after,) = resolve(s3_folder.uri)
    assert after.identity() != before[0].identity()
    changed, gone = read_items(before)
    assert isinstance(changed, DataError)
    assert (changed.reason, changed.detail) == ("unreadable", "the file changed while it was read")
    assert isinstance(gone, DataError)
    assert gone.reason == "unreachable"
    s3_folder.delete("a.mid")
    with pytest.raises(MissingError, match="holds no music"):
        resolve(s3_folder.uri)


def test_many_objects_come_in_order(s3_folder: Folder) -> None:
    for number in range(40):
        s3_folder.write(f"{number:02}.mid", b"%d" % number)
    items = resolve(s3_folder.uri)
    assert list(read_items(items)) == [b"%d" % number for number in range(40)]
    started = read_items(items)
    assert next(started) == b"0"
    started.close()  # type: ignore[attr-defined]


def test_an_item_stays_small() -> None:
    # A million of them are in one process.
    item = Item("uri", "collection", "unknown", "nobody")
    assert not hasattr(item, "__dict__")
    assert item.__sizeof__() <= 128
    assert listing.FILES_AT_ONCE <= 4096
