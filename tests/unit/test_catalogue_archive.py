"""The ZIP of a catalogue: what is shipped, whole, and the same bytes every time."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tutti import lineage
from tutti.catalogue.archive import shipped, write_zip
from tutti.errors import IntegrityError
from tutti.lineage import FileEntry
from tutti.storage import Folder

PATHS = (
    "files/b-1.mid",
    "files/a-2.mid",
    "rejected/c-3.mid",
    "provenance/a-2.json",
    "provenance/c-3.json",
    "index.html",
)


def made(folder: Folder) -> list[FileEntry]:
    return [lineage.write_file(folder, path, path.encode()) for path in PATHS]


def test_it_holds_what_is_shipped_and_nothing_else(tmp_path: Path) -> None:
    folder = Folder("memory://archive")
    files = made(folder)
    write_zip(folder, files, name="calm", target=tmp_path / "one.zip")
    data = (tmp_path / "one.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        held = {name: archive.read(name).decode() for name in archive.namelist()}
    expected = ["files/a-2.mid", "files/b-1.mid", "index.html", "provenance/a-2.json"]
    assert held == {f"calm/{path}": path for path in expected}
    assert [entry.path for entry in shipped(files)] == expected
    write_zip(folder, reversed(files), name="calm", target=tmp_path / "two.zip")
    assert (tmp_path / "two.zip").read_bytes() == data


def test_a_file_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "catalogue"))
    files = made(folder)
    folder.write(PATHS[0], b"x" * len(PATHS[0]))
    with pytest.raises(IntegrityError, match=PATHS[0]):
        write_zip(folder, files, name="calm", target=tmp_path / "one.zip")


@pytest.mark.parametrize("size", [0, 5, 2**16])
@pytest.mark.parametrize("place", ["memory://from", "here"])
def test_a_file_is_put_as_it_is(tmp_path: Path, place: str, size: int) -> None:
    folder = Folder(place if "://" in place else str(tmp_path / place))
    (tmp_path / "source").write_bytes(bytes(range(256)) * (size // 256) + b"12345"[: size % 256])
    entry = lineage.write_from(folder, "object", tmp_path / "source")
    assert folder.read("object") == (tmp_path / "source").read_bytes()
    assert lineage.missing(folder, [entry]) == []
    lineage.check_bytes(folder.read("object"), entry, where="here")
