"""Archives: everything that can be taken out of them, in place, and one refusal for each thing that cannot."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutti.corpus import archives, sources
from tutti.corpus.archives import KINDS, STREAMED_KINDS, Opened, kind_of, members
from tutti.corpus.item import Item
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.sources import parcels, read_items, resolve, survey
from tutti.errors import DataError
from tutti.storage import Folder

FILES = {"a.mid": b"MThd" * 50, "deep/er/b.abc": bytes(range(256)) * 40, "deep/c.wav": b"", "words.txt": b"no music"}
MUSIC = {name: data for name, data in FILES.items() if not name.endswith(".txt")}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\\/:"), min_size=1, max_size=10).map(
    lambda name: f"x{name}.mid"
)
TAR_MODES = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def packed(files: dict[str, bytes], *, kind: str) -> bytes:
    if kind == "zip":
        return zipped(files)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=TAR_MODES[kind]) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def taken(data: bytes, *, kind: str) -> dict[str, bytes | str]:
    """Bytes or the reason's line by name, as listing and then reading give them."""
    opened = Opened(io.BytesIO(data), kind=kind)
    found: dict[str, bytes | str] = {}
    for member in list(members(io.BytesIO(data), kind=kind, size_bytes=len(data))):
        try:
            found[member.name] = member.detail or opened.read(
                offset_bytes=member.offset_bytes, size_bytes=member.size_bytes, crc32=member.crc32
            )
        except DataError as error:
            found[member.name] = error.detail
    return found


def results(items: list[Item]) -> list[bytes | str]:
    read = [result for parcel in parcels(items) for result in read_items(parcel)]
    return [result if isinstance(result, bytes) else f"{result.reason}: {result.detail}" for result in read]


@given(files=st.dictionaries(NAMES, st.binary(max_size=3000), max_size=8), kind=st.sampled_from(sorted(KINDS)))
@settings(max_examples=100)
def test_what_was_packed_comes_out(files: dict[str, bytes], kind: str) -> None:
    assert taken(packed(files, kind=kind), kind=kind) == files


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_zip_may_pack_its_members_in_these_ways(method: int) -> None:
    files = {"big.mid": random.Random(0).randbytes(300_000), "plain.mid": b"ab" * 400_000, "none.mid": b""}
    assert taken(zipped(files, method=method), kind="zip") == files
    # Zips made on the fly tell sizes behind the bytes only; others carry a program before the archive.
    stream = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(stream), "w", method) as archive:  # type: ignore[arg-type]
        for name, data in files.items():
            archive.writestr(name, data)
    assert taken(stream.getvalue(), kind="zip") == files
    assert taken(b"#!/bin/sh\n" + zipped(files, method=method), kind="zip") == files


class _Unseekable:
    def __init__(self, file: io.BytesIO) -> None:
        self.write, self.flush = file.write, file.flush


@pytest.mark.parametrize("suffix", [suffix for suffixes in KINDS.values() for suffix in suffixes])
@pytest.mark.parametrize("place", ["disk", "folder", "s3", "s3 folder"])
def test_members_are_items_wherever_the_archive_lies(
    place: str, suffix: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = f"Old Songs{suffix.upper()}"
    assert kind_of(name)
    root = Folder(str(tmp_path / "music"))
    if place.startswith("s3"):
        root = request.getfixturevalue("s3_folder") / "music"
    root.write(f"sub/{name}", packed(FILES, kind=kind_of(name)))
    items = resolve(root.uri if "folder" in place else f"{root.uri}/sub/{name}", licence="CC0-1.0")
    before = {"disk": "", "folder": "music/sub/", "s3": f"{root.uri}/sub/", "s3 folder": f"{root.uri}/sub/"}[place]
    assert [item.uri for item in items] == [f"{before}{name}!{member}" for member in MUSIC]
    assert {item.collection for item in items} == {"music" if "folder" in place else "Old Songs"}
    assert results(items) == list(MUSIC.values())
    assert results(items[::-1]) == list(MUSIC.values())[::-1], "any order is read, if slowly"
    assert len({str(item.identity()) for item in items}) == len(items)


def test_what_a_member_is_known_by_moves_with_its_archive(tmp_path: Path) -> None:
    versions = []
    for data in (b"one", b"two"):
        for kind in KINDS:
            (tmp_path / f"x.{kind}").write_bytes(packed({"a.mid": data}, kind=kind))
        versions.append([item.version for item in resolve(str(tmp_path))])
    assert not set(versions[0]) & set(versions[1])


def test_an_archive_that_changed_after_it_was_listed_is_told(tmp_path: Path, s3_folder: Folder) -> None:
    for kind in KINDS:
        (tmp_path / f"x.{kind}").write_bytes(packed(MUSIC, kind=kind))
        s3_folder.write(f"x.{kind}", packed(MUSIC, kind=kind))
    items = [*resolve(str(tmp_path)), *resolve(s3_folder.uri)]
    time.sleep(0.02)
    for kind in KINDS:
        data = packed({**MUSIC, "a.mid": b"MThD" * 50}, kind=kind)
        (tmp_path / f"x.{kind}").write_bytes(data)
        s3_folder.write(f"x.{kind}", data)
    assert set(results(items)) == {"unreadable: the archive changed while it was read"}
    (tmp_path / "x.zip").unlink()
    s3_folder.delete("x.zip")
    gone = [item for item in items if item.archive is not None and item.archive.kind == "zip"]
    assert set(results(gone)) == {
        "unreadable: the archive cannot be read: No such file or directory",
        f"unreachable: {s3_folder.uri}/x.zip is not there",
    }


def test_names_are_only_names(tmp_path: Path) -> None:
    names = ["/etc/cron.d/x.mid", "../../../up.mid", "a/../b.mid", "C:\\x.mid", "a!b.zip!c.mid"]
    outside = sorted(tmp_path.parent.iterdir())
    for kind in ("zip", "tar", "tar.gz"):
        (tmp_path / f"x.{kind}").write_bytes(packed({name: name.encode() for name in names}, kind=kind))
    read = results(resolve(str(tmp_path)))
    assert Counter(read) == Counter({name.encode(): 3 for name in names})
    assert sorted(tmp_path.parent.iterdir()) == outside
    assert len(list(tmp_path.rglob("*"))) == 3


def test_links_and_devices_in_a_tar_are_refused() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in {"s.mid": tarfile.SYMTYPE, "h.mid": tarfile.LNKTYPE, "d.mid": tarfile.CHRTYPE}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    found = taken(file.getvalue(), kind="tar")
    assert found == {
        "s.mid": "it is a link, which is not followed",
        "h.mid": "it is a link, which is not followed",
        "d.mid": "it is a device, a pipe or a file with holes",
    }


def test_a_link_in_a_zip_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        entry = zipfile.ZipInfo("s.mid")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    assert taken(file.getvalue(), kind="zip") == {"s.mid": "it is a link, which is not followed"}


def test_hidden_files_and_what_is_no_music_are_passed_over_and_archives_inside_refused() -> None:
    files = {"__MACOSX/._a.mid": b"x", "a.txt": b"x", "in.zip": zipped({"b.mid": b"b"}), "c.mid": b"c"}
    for kind in KINDS:
        assert taken(packed(files, kind=kind), kind=kind) == {
            "in.zip": "it is an archive inside an archive; unpack the outer one",
            "c.mid": b"c",
        }


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_of_two_members_of_one_name_the_first_is_taken(kind: str) -> None:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.mid", b"first")
            archive.writestr("a.mid", b"second")
    else:
        with tarfile.open(fileobj=file, mode=TAR_MODES[kind]) as tar:  # type: ignore[call-overload]
            for data in (b"first", b"second"):
                entry = tarfile.TarInfo("a.mid")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    data = file.getvalue()
    listed = list(members(io.BytesIO(data), kind=kind, size_bytes=len(data)))
    assert [member.detail for member in listed] == ["", "another member of that name comes before it in its archive"]
    first = listed[0]
    read = Opened(io.BytesIO(data), kind=kind).read(offset_bytes=first.offset_bytes, size_bytes=first.size_bytes)
    assert read == b"first"


def test_an_encrypted_member_is_refused_alone() -> None:
    data = bytearray(zipped({"a.mid": b"a" * 99, "b.mid": b"b" * 99}))
    for signature, flags_at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags_at] |= 1
    assert taken(bytes(data), kind="zip") == {"a.mid": "it is encrypted", "b.mid": b"b" * 99}


def test_a_method_that_is_not_read_is_named() -> None:
    data = zipped({"a.mid": b"a" * 99}, method=zipfile.ZIP_LZMA)
    assert taken(data, kind="zip") == {"a.mid": "packed by method 14; read are stored, deflate, bzip2"}


def test_a_member_that_unpacks_to_more_than_is_told_or_allowed_is_refused(tmp_path: Path) -> None:
    files = {"bomb.mid": bytes(MAX_FILE_BYTES - 1), "large.mid": bytes(MAX_FILE_BYTES + 1), "a.mid": b"a"}
    data = bytearray(zipped(files))
    entry = data.index(b"PK\1\2")
    assert struct.unpack_from("<I", data, entry + 24) == (MAX_FILE_BYTES - 1,)
    struct.pack_into("<I", data, entry + 24, 1000)
    assert taken(bytes(data), kind="zip") == {
        "bomb.mid": "the archive is damaged here: it unpacks to more than the 1000 bytes that the archive tells",
        "large.mid": "32.0 MiB are more than the limit of 32.0 MiB",
        "a.mid": b"a",
    }
    (tmp_path / "x.zip").write_bytes(data)
    assert [item.reason for item in resolve(str(tmp_path))] == ["", "too_long", ""]


@pytest.mark.parametrize("kind", STREAMED_KINDS)
def test_a_tar_that_unpacks_to_far_too_much_is_not_unpacked_to_its_end(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MIN_UNPACKED_LIMIT_BYTES", 2**20)
    data = packed({"a.mid": b"a", "zeros.bin": bytes(2**26), "b.mid": b"b"}, kind=kind)
    found = taken(data, kind=kind)
    assert found["a.mid"] == b"a"
    assert str(found[""]).startswith("it unpacks to more than ")
    assert "b.mid" not in found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_of_an_archive_that_was_cut_short_all_that_is_whole_is_kept(kind: str, share: float, tmp_path: Path) -> None:
    rng = random.Random(0)
    files = {f"{number:02}.mid": rng.randbytes(9_000) for number in range(40)}
    data = packed(files, kind=kind)
    (tmp_path / f"x.{kind}").write_bytes(data[: int(len(data) * share)])
    (tmp_path / "y.mid").write_bytes(b"y")
    items = resolve(str(tmp_path))
    *read, last = results(items)
    assert last == b"y"
    whole = [result for result in read if isinstance(result, bytes)]
    told = [result for result in read if isinstance(result, str)]
    assert whole == list(files.values())[: len(whole)]
    assert all(result.startswith("unsafe_archive: ") for result in told)
    if share < 0.95:
        assert 1 <= len(told) <= 3, "what cannot be listed is one refusal"
    if kind != "zip":
        # A compressed tar's last block may be lost as a whole: bzip2's are of 900 KiB.
        lost = 2 if kind in ("tar", "tar.gz") else 40
        assert len(whole) >= int(share * 40) - lost


@given(
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**32),
    places=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6),
)
@settings(max_examples=300)
def test_a_damaged_archive_gives_members_or_reasons_and_nothing_else(kind: str, seed: int, places: list[float]) -> None:
    data, rng = bytearray(packed(FILES, kind=kind)), random.Random(seed)
    for place in places:
        at = int(place * len(data))
        change = rng.randrange(4)
        if change == 0:
            del data[at : at + rng.randrange(600)]
        elif change == 1:
            data[at:at] = rng.randbytes(rng.randrange(1, 600))
        else:
            data[at : at + 1] = rng.randbytes(1)
    for result in taken(bytes(data), kind=kind).values():
        assert isinstance(result, bytes) or result


def test_a_tar_that_leads_back_to_where_it_was_ends() -> None:
    data = bytearray(packed({"a.mid": b"a", "b.mid": b"b"}, kind="tar"))
    # A size of -1536 in base 256, which tarfile adds to its place: CVE-2025-8194.
    data[1024 + 124 : 1024 + 136] = (256**12 - 1536).to_bytes(12, "big")
    data[1024 + 148 : 1024 + 156] = b"        "
    checksum = sum(data[1024:1536])
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % checksum
    found = taken(bytes(data), kind="tar")
    assert found["a.mid"] == b"a"
    assert "damaged after 1 files" in str(found[""])


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_header_that_is_none_is_damage_and_not_the_end(kind: str) -> None:
    data = bytearray(packed({"a.mid": b"a", "b.mid": b"b"}, kind="tar"))
    data[1024:1536] = random.Random(0).randbytes(512)
    found = taken(bytes(data) if kind == "tar" else gzip.compress(data), kind=kind)
    assert found["a.mid"] == b"a"
    assert "damaged after 1 files" in str(found[""])


def test_a_checksum_that_differs_is_told() -> None:
    data = bytearray(zipped({"a.mid": b"a" * 500, "b.mid": b"b"}, method=zipfile.ZIP_STORED))
    data[100] ^= 1
    found = taken(bytes(data), kind="zip")
    assert found == {"a.mid": "its bytes differ from the checksum that the archive tells", "b.mid": b"b"}


def test_a_compressed_tar_is_unpacked_once_for_all_of_its_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number:04}.mid": random.Random(number).randbytes(2000) for number in range(600)}
    (tmp_path / "x.tgz").write_bytes(packed({"inside.zip": b"", **files, "inside.tar": b""}, kind="tar.gz"))
    items = resolve(str(tmp_path))
    assert len(parcels(items)) == 1, "what is refused stands with the others, so that it parts them not"
    opened: list[int] = []
    seen: list[int] = []

    class Counted(gzip.GzipFile):
        def __init__(self, **named: object) -> None:
            opened.append(1)
            super().__init__(**named)  # type: ignore[arg-type]

        def rewind(self) -> None:
            seen.append(1)
            super().rewind()

    monkeypatch.setattr(archives.gzip, "GzipFile", Counted)
    assert results(items)[1:-1] == list(files.values())
    assert (opened, seen) == ([1], [])


def test_a_table_in_an_archive_tells_of_its_members_and_one_beside_it_too(tmp_path: Path) -> None:
    for kind in KINDS:
        files = {"set/meta.csv": b"file,title,license\nb.mid,B,CC0-1.0\n", "set/b.mid": b"b", "a.mid": b"a"}
        (tmp_path / f"x.{kind}").write_bytes(packed(files, kind=kind))
    (tmp_path / "names.jsonl").write_text(
        '{"path": "x.zip/a.mid", "title": "A"}\n{"path": "x.tar/a.mid", "title": "A"}'
    )
    found = survey(str(tmp_path))
    titles = {item.uri.partition("/")[2]: item.labels.title for item in found.items if item.labels}
    assert titles == {f"x.{kind}!set/b.mid": "B" for kind in KINDS} | {"x.zip!a.mid": "A", "x.tar!a.mid": "A"}
    named = {item.licence_origin for item in found.items if item.licence == "CC0-1.0"}
    assert named == {f"x.{kind}!set/meta.csv" for kind in KINDS}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a real web server and the folder that it serves."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder
        finally:
            server.shutdown()
            thread.join()


def test_a_file_or_archive_on_the_net_is_fetched_once(web: tuple[str, Path]) -> None:
    address, folder = web
    (folder / "a b.mid").write_bytes(b"a")
    (one,) = resolve(f"{address}/a%20b.mid?x=1", licence="CC0-1.0")
    assert (one.collection, one.size_bytes, results([one])) == ("127.0.0.1", 1, [b"a"])
    for kind in KINDS:
        table = {"info.csv": b"file,title\na.mid,A\n"}
        (folder / f"x.{kind}").write_bytes(packed(MUSIC | table, kind=kind))
        items = resolve(f"{address}/x.{kind}")
        (folder / f"x.{kind}").unlink()
        assert [item.uri for item in items] == [f"{address}/x.{kind}!{name}" for name in MUSIC]
        assert results(items) == list(MUSIC.values())
        assert [item.labels and item.labels.title for item in items] == ["A", None, None]


def test_what_the_net_does_not_give_is_a_refusal(web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = web
    (folder / "large.mid").write_bytes(bytes(MAX_FILE_BYTES + 1))
    (folder / "bad.zip").write_bytes(b"no zip")
    (folder / "x.zip").write_bytes(zipped({"a.mid": b"a" * 700, "b.mid": b"b" * 700, "c.mid": b"c" * 300}))
    monkeypatch.setattr(sources, "MAX_FETCHED_ARCHIVE_BYTES", 1000)
    told = [
        result for name in ("gone.mid", "page.html", "large.mid", "bad.zip", "x.zip")
        for result in results(resolve(f"{address}/{name}"))
    ]  # fmt: skip
    assert told[0] == "unreachable: the server answers 404"
    assert str(told[1]).startswith("unknown_format: the address ends in none of .mid, ")
    assert str(told[2]).endswith("are more than the limit of 32.0 MiB")
    assert told[3] == "unsafe_archive: the archive is damaged after 0 files of music: File is not a zip file"
    assert told[4] == b"a" * 700
    assert str(told[5]).startswith("too_long: ")
    assert told[6] == b"c" * 300


def test_real_music_comes_out_of_archives_as_it_went_in(shared_folder: Path, tmp_path: Path) -> None:
    folder = shared_folder / "corpora" / "freedoom" / "midi"
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.mid"))}
    assert len(files) == 66
    for kind in KINDS:
        (tmp_path / f"freedoom.{kind}").write_bytes(packed(files, kind=kind))
        assert results(resolve(str(tmp_path / f"freedoom.{kind}"))) == list(files.values())


def test_a_tar_packed_in_several_streams_is_one() -> None:
    # Parallel packers write so.
    data = packed(MUSIC, kind="tar")
    for pack, kind in ((gzip.compress, "tar.gz"), (bz2.compress, "tar.bz2"), (lzma.compress, "tar.xz")):
        assert taken(pack(data[:700]) + pack(data[700:]), kind=kind) == MUSIC
