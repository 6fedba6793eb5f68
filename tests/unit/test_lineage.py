"""Addresses and manifests: what is finished is found, what is not does not exist, what was changed is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.errors import IntegrityError, MissingError, RecipeError
from tutti.lineage import MANIFEST, Dataset, find, load, place, publish, write_file
from tutti.storage import Folder

INPUTS = {"settings": {"steps": 3, "rate": 0.5}, "source": "abc", "version": "0.1.0"}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def published(root: Folder) -> Dataset:
    folder = place(root, kind="works", name="bach", inputs=INPUTS)
    files = [write_file(folder, "b/part.bin", b"second", rows=2), write_file(folder, "a.bin", b"first")]
    return publish(folder, kind="works", name="bach", inputs=INPUTS, files=files, facts={"notes": 7})


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "s3":
        folder: Folder = request.getfixturevalue("s3_folder")
        return folder
    return Folder(str(tmp_path)) if request.param == "local" else Folder(f"memory://{tmp_path.name}-{id(tmp_path)}")


def test_what_was_published_is_found_as_it_was(root: Folder) -> None:
    made = published(root)
    folder = place(root, kind="works", name="bach", inputs=INPUTS)
    found = load(folder)
    assert found == made
    assert found.folder.uri.endswith(f"works/bach/{found.address}")
    assert found.paths() == ["a.bin", "b/part.bin"]
    assert found.paths(".bin") == found.paths()
    assert found.read("b/part.bin") == b"second"
    assert found.facts == {"notes": 7}
    assert [entry.rows for entry in found.files] == [None, 2]


def test_without_a_manifest_nothing_is_there(root: Folder) -> None:
    folder = place(root, kind="works", name="bach", inputs=INPUTS)
    write_file(folder, "a.bin", b"first")
    assert find(folder) is None
    with pytest.raises(MissingError, match=f"no finished dataset at {folder.uri}: run the stage that makes it"):
        load(folder)


def test_a_listed_object_must_be_there_with_its_size(root: Folder) -> None:
    made = published(root)
    made.folder.write("a.bin", b"shorter")
    with pytest.raises(IntegrityError, match=r"a\.bin differs from its manifest; delete the folder"):
        find(made.folder)
    made.folder.delete("a.bin")
    with pytest.raises(IntegrityError, match=r"a\.bin differs"):
        find(made.folder)


def test_publishing_refuses_what_is_not_there(root: Folder) -> None:
    folder = place(root, kind="works", name="bach", inputs=INPUTS)
    entry = write_file(folder, "a.bin", b"first")
    folder.delete("a.bin")
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        publish(folder, kind="works", name="bach", inputs=INPUTS, files=[entry], facts={})
    assert find(folder) is None


def test_reading_notices_other_bytes_of_the_same_size(tmp_path: Path) -> None:
    made = published(Folder(str(tmp_path)))
    made.folder.write("a.bin", b"fjrst")
    assert find(made.folder) is not None
    with pytest.raises(IntegrityError, match=r"a\.bin differs from its manifest"):
        made.read("a.bin")
    with pytest.raises(MissingError, match=r"lists no 'c\.bin'"):
        made.read("c.bin")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 2, "kind": "works"}',
        '{"format": 1, "files": [{"x": 1}]}',
        "\xff",
    ],
)
def test_a_damaged_manifest_is_told(tmp_path: Path, text: str) -> None:
    folder = Folder(str(tmp_path))
    folder.write(MANIFEST, text.encode("latin-1"))
    with pytest.raises(IntegrityError, match=r"manifest\.json is not a manifest"):
        find(folder)


def test_a_manifest_of_another_format_is_not_read(tmp_path: Path) -> None:
    made = published(Folder(str(tmp_path)))
    document = json.loads(made.folder.read(MANIFEST))
    made.folder.write(MANIFEST, json.dumps({**document, "format": 2}).encode())
    with pytest.raises(IntegrityError, match="format 2, not 1"):
        find(made.folder)


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=3), st.dictionaries(st.text(), JSON_VALUES, max_size=3))
def test_an_address_is_a_function_of_the_inputs(left: dict[str, object], right: dict[str, object]) -> None:
    root = Folder("memory://addresses")
    reordered = dict(reversed(left.items()))
    assert place(root, kind="k", name="n", inputs=left) == place(root, kind="k", name="n", inputs=reordered)
    same = json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
    assert (place(root, kind="k", name="n", inputs=left) == place(root, kind="k", name="n", inputs=right)) is same


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../../etc", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="cannot be a folder's: use letters"):
        place(Folder("results"), kind="works", name=name, inputs={})
