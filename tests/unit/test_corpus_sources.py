"""What a source names, and what is said where it names nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from subprocess import run

import pytest

from tutti.corpus import rights
from tutti.corpus.sources import read_items, resolve
from tutti.errors import MissingError, RecipeError


def test_a_folder_is_walked_in_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "songs"
    for name in ("b/two.MID", "a/one.midi", "c.abc", "notes.txt", ".hidden.mid", "b/.cache.mid"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    items = resolve(str(folder), licence="CC0-1.0")
    assert [item.uri for item in items] == ["songs/a/one.midi", "songs/b/two.MID", "songs/c.abc"]
    assert {(item.collection, item.licence, item.licence_origin) for item in items} == {
        ("songs", "CC0-1.0", "the caller of ingest")
    }
    assert list(read_items(items)) == [b"a/one.midi", b"b/two.MID", b"c.abc"]


def test_identity_follows_the_bytes_and_not_the_place(tmp_path: Path) -> None:
    for place, content in (("here", b"x"), ("there", b"x"), ("other", b"y")):
        (tmp_path / place / "songs").mkdir(parents=True)
        (tmp_path / place / "songs" / "a.mid").write_bytes(content)
    here, there, other = (
        [item.identity() for item in resolve(str(tmp_path / place / "songs"))] for place in ("here", "there", "other")
    )
    assert here == there
    assert here != other


def test_what_cannot_be_read_is_an_item_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "gone.mid").symlink_to(tmp_path / "nowhere")
    (tmp_path / "large.mid").write_bytes(b"")
    os.truncate(tmp_path / "large.mid", 33 << 20)
    gone, large = resolve(str(tmp_path))
    assert (gone.reason, gone.detail) == ("unreadable", "the file cannot be read: No such file or directory")
    assert (large.reason, large.detail) == ("too_long", "33.0 MiB are more than the limit of 32.0 MiB")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_item_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "shut.mid").write_bytes(b"x")
    (tmp_path / "shut.mid").chmod(0)
    (item,) = resolve(str(tmp_path))
    assert (item.reason, item.detail) == ("unreadable", "the file cannot be read: Permission denied")


def test_nothing_there_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("no music")
    with pytest.raises(MissingError, match=r"folder '.*' holds no music: name one with files that end in \.mid, "):
        resolve(str(tmp_path))
    with pytest.raises(MissingError, match=r"source '/no/such/folder' is not there: name a folder, a file, a URL"):
        resolve("/no/such/folder")


def test_music21_is_named_by_collection_score_or_file() -> None:
    chorales = resolve("music21:bach")
    assert len(chorales) > 400
    assert [item.uri for item in chorales] == sorted(item.uri for item in chorales)
    assert {item.licence for item in chorales} == {rights.MUSIC21}
    assert {item.licence_origin for item in chorales} == {"music21 corpus/license.txt"}
    for name in ("music21:bach/bwv66.6", "music21:bach/bwv66.6.mxl"):
        (one,) = resolve(name)
        assert one.uri == "music21:bach/bwv66.6.mxl"
        assert next(read_items([one]))[:2] == b"PK"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("music21:bahc", "music21 carries no collection 'bahc': did you mean music21:bach?"),
        ("music21:bach/bwv66.66", "music21 carries no score 'bach/bwv66.66': near are bwv66.6"),
        ("music21:../../../etc", "music21 carries no collection '..'"),
        ("music21:", "music21 carries no collection ''"),
    ],
)
def test_a_name_that_music21_does_not_know_is_told_with_the_nearest(source: str, line: str) -> None:
    with pytest.raises(MissingError) as caught:
        resolve(source)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("source", ["music21:palestrina", "music21:essenFolksong/altdeu10"])
def test_collections_with_their_own_terms_want_them_named(source: str) -> None:
    with pytest.raises(RecipeError, match="needs its licence to be named"):
        resolve(source)
    items = resolve(source, licence="LicenseRef-permission")
    assert {(item.licence, item.licence_origin) for item in items} == {
        ("LicenseRef-permission", "the caller of ingest")
    }


def test_listing_music21_imports_nothing_of_it() -> None:
    code = (
        "import sys; from tutti.corpus.sources import resolve; assert len(resolve('music21:bach')) > 400;"
        "assert not {'music21', 'symusic', 'ray'} & set(sys.modules), 'imported'"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("licence", ["CC0-1.0", "CC-BY-SA-4.0", "LicenseRef-music21-corpus", "unknown"])
def test_licences_are_spdx_or_references(licence: str) -> None:
    assert rights.check(licence) == licence


@pytest.mark.parametrize(
    ("licence", "hint"),
    [("cc0-1.0", "did you mean CC0-1.0"), ("CC BY 4.0", "CC-BY-4.0"), ("", "SPDX"), ("LicenseRef-", "LicenseRef-")],
)
def test_other_words_are_no_licence(licence: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=hint):
        rights.check(licence)


def test_nothing_is_allowed_that_was_not_named() -> None:
    assert rights.allowed("CC0-1.0", named=["CC0-1.0"])
    assert not rights.allowed("unknown", named=["CC0-1.0"])
    rights.check_allowed(["CC0-1.0", "unknown"], named=["unknown", "CC0-1.0"])
    with pytest.raises(RecipeError, match=r"works under CC-BY-4\.0, unknown are not among .* \(CC0-1\.0\)"):
        rights.check_allowed(["unknown", "CC0-1.0", "CC-BY-4.0"], named=["CC0-1.0"])
