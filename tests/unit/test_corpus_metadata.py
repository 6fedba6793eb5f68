"""What a table beside the music says of it, and what is said where it says it wrongly."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.metadata import MOOD_WORDS, Labels, labels_of
from tutti.corpus.sidecars import FILE_COLUMNS, Sidecar, read_sidecars
from tutti.corpus.sources import survey
from tutti.errors import RecipeError

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)
COLUMNS = st.lists(
    st.sampled_from(["title", "composer", "year", "bpm", "Key", "style of it", "path"]), min_size=1, unique=True
)


def table(text: str | bytes, *, path: str = "metadata.csv") -> Sidecar:
    return Sidecar(path, name=path, data=text.encode() if isinstance(text, str) else text)


def labels(text: str | bytes, *, files: list[str], path: str = "metadata.csv") -> dict[str, Labels]:
    told, _ = read_sidecars([table(text, path=path)], paths=files)
    return {files[index]: said.labels for index, said in told.items()}


@given(
    columns=COLUMNS,
    rows=st.lists(st.lists(CELLS, min_size=7, max_size=7), max_size=6),
    delimiter=st.sampled_from(",;\t"),
)
def test_nothing_that_a_row_tells_is_lost(columns: list[str], rows: list[list[str]], delimiter: str) -> None:
    files = [f"{number}.mid" for number in range(len(rows))]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["file", *columns])
    writer.writerows([file, *row[: len(columns)]] for file, row in zip(files, rows, strict=True))
    told = labels(text.getvalue(), files=files)
    assert list(told) == files
    for file, row in zip(files, rows, strict=True):
        expected = {column: cell.strip() for column, cell in zip(columns, row, strict=False) if cell.strip()}
        said = told[file]
        fields = {"title": said.title, "composer": said.composer}
        assert said.other | {name: text for name, text in fields.items() if text} == expected


@given(row=st.dictionaries(CELLS, st.none() | st.booleans() | st.integers() | CELLS | st.lists(CELLS), max_size=5))
def test_lines_of_json_are_rows_too(row: dict[str, object]) -> None:
    row = {name: value for name, value in row.items() if name.strip().lower() not in FILE_COLUMNS}
    told = labels(json.dumps({"file": "a.mid", **row}), files=["a.mid"], path="labels.jsonl")["a.mid"]
    assert labels_of({}, where="") == Labels()
    for name, value in row.items():
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        assert not text.strip() or told.other.get(name) == text.strip() or name.strip().lower() == "title"


@pytest.mark.parametrize("column", FILE_COLUMNS)
def test_a_file_may_be_named_in_any_of_these_columns(column: str) -> None:
    assert labels(f"{column.upper()},title\nb/x.mid,T\n", files=["b/x.mid"]) == {"b/x.mid": Labels(title="T")}


def test_a_name_is_a_path_below_the_table_then_below_the_source_then_the_only_such_name() -> None:
    files = ["a/x.mid", "a/b/a/x.mid", "a/b/only.mid", "c/only.mid", "c/twice.mid", "c/d/twice.mid"]
    files += ["a/b/c/two.mid", "a/b/d/two.mid"]
    for name, meant in {
        "a/x.mid": "a/b/a/x.mid",
        "./a\\x.mid": "a/b/a/x.mid",
        "/c/twice.mid": "c/twice.mid",
        "../x.mid": "a/x.mid",
        "somewhere/else/only.mid": "a/b/only.mid",
        "twice.mid": None,
        "two.mid": None,
        "nothing.mid": None,
    }.items():
        told = labels(f"file,title\n{name},T\n", files=files, path="a/b/metadata.csv")
        assert list(told) == ([meant] if meant else []), name
    assert list(labels("file\ncafe\u0301.mid\n", files=["caf\u00e9.mid"])) == ["caf\u00e9.mid"]


def test_the_deepest_table_speaks_first_and_of_one_table_the_first_row() -> None:
    tables = [
        table("file,title\na/x.mid,outer\ny.mid,first\ny.mid,second\ngone.mid,lost\n", path="A.csv"),
        table("file,title\nx.mid,inner\n", path="a/labels.csv"),
    ]
    told, usages = read_sidecars(tables, paths=["a/x.mid", "y.mid"])
    assert {index: (said.labels.title, said.origin) for index, said in told.items()} == {
        0: ("inner", "a/labels.csv"),
        1: ("first", "A.csv"),
    }
    assert [str(usage) for usage in usages] == [
        "a/labels.csv: 1 rows tell of 1 files",
        "A.csv: 4 rows tell of 1 files · 1 rows name no file here (lines 5)"
        " · 2 rows name files that were told of before",
    ]


def test_text_is_utf_8_with_or_without_a_mark_or_else_latin_1() -> None:
    text = "file;title\nx.mid;Élégie\n"
    for data in (text.encode(), text.encode("utf-8-sig"), text.encode("latin-1")):
        assert labels(data, files=["x.mid"])["x.mid"].title == "Élégie"


def test_moods_are_two_numbers_or_a_quadrant() -> None:
    def mood(head: str, row: str) -> tuple[float | None, float | None, dict[str, str]]:
        said = labels(f"file,{head}\nx.mid,{row}\n", files=["x.mid"])["x.mid"]
        return said.valence, said.arousal, said.other

    assert mood("valence,arousal", "-1,0.25") == (-1.0, 0.25, {})
    assert mood("Valence,Arousal,mood", "0,0,sad") == (0.0, 0.0, {"mood": "sad"})
    assert mood("4Q", "Q2") == (-0.5, 0.5, {})
    assert mood("emotion", "Calm") == (0.5, -0.5, {})
    assert mood("mood", "dreamy") == (None, None, {"mood": "dreamy"})
    assert mood("valence", "0.5") == (None, None, {"valence": "0.5"})
    assert MOOD_WORDS["q1"] == MOOD_WORDS["happy"]
    assert MOOD_WORDS["q3"] == MOOD_WORDS["sad"]


def test_tags_are_parted_by_commas_semicolons_or_json() -> None:
    for cell in ('"slow, film;slow"', "slow;film", '"[""slow"", ""film""]"'):
        assert labels(f"file,tags\nx.mid,{cell}\n", files=["x.mid"])["x.mid"].tags == ("slow", "film")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,license\nx.mid,CC0-1.0\ny.mid,CC BY 4.0\n", "t.csv, line 3: licence 'CC BY 4.0' is not known: did you"),
        ("file,valence,arousal\nx.mid,0,1.5\n", "t.csv, line 2: arousal '1.5' is no number from -1 to 1"),
        ("file,valence\nx.mid,high\n", "t.csv, line 2: valence 'high' is no number from -1 to 1"),
        ("file,valence\nx.mid,nan\n", "t.csv, line 2: valence 'nan' is no number"),
        ("file,title\n\nx.mid,one,two\ny.mid,ok\n", "t.csv, line 3 cannot be read: 3 cells under 2 columns"),
        ('file,title\nx.mid,"one\ny.mid,ok\n', "t.csv, line 2 cannot be read: unexpected end of data"),
    ],
)
def test_a_row_that_is_wrong_is_told_with_its_line(text: str, line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        labels(text, files=["x.mid", "y.mid"], path="t.csv")
    assert str(caught.value).startswith(line)


def test_a_broken_line_of_json_is_told_where_others_name_files() -> None:
    good = '{"file": "x.mid"}\n'
    for broken in ("{", "[1]"):
        with pytest.raises(RecipeError, match=r"t\.jsonl, line 2 cannot be read: it is no"):
            labels(good + broken, files=["x.mid"], path="t.jsonl")
        assert labels(broken, files=["x.mid"], path="t.jsonl") == {}


def test_a_table_of_other_things_is_left_alone() -> None:
    assert read_sidecars([table("loss,step\n1\n2,3,4\n")], paths=["x.mid"]) == ({}, [])
    told, usages = read_sidecars([table("name,license\ngcc,GNU\nld,GNU,9\n")], paths=["x.mid"])
    assert told == {}
    assert [str(usage) for usage in usages] == [
        "metadata.csv: 1 rows tell of 0 files · 1 rows name no file here (lines 2)"
    ]


def test_a_table_gives_labels_and_licence_to_the_items_of_a_folder(tmp_path: Path) -> None:
    for name in ("a.mid", "sub/b.mid", "c.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    bare = survey(str(tmp_path), licence="CC-BY-4.0").items
    (tmp_path / "info.csv").write_text("midi_filename,title,license\na.mid,A,CC0-1.0\nb.mid,B,\n")
    items = survey(str(tmp_path), licence="CC-BY-4.0").items
    assert [(item.licence, item.licence_origin) for item in items] == [
        ("CC0-1.0", "info.csv"),
        ("CC-BY-4.0", "the caller of ingest"),
        ("CC-BY-4.0", "the caller of ingest"),
    ]
    assert [item.labels and item.labels.title for item in items] == ["A", None, "B"]
    same = [one.identity() == other.identity() for one, other in zip(bare, items, strict=True)]
    assert same == [False, True, False], "what was told of a file is part of what it is known by"


@pytest.mark.parametrize(
    ("corpus", "files", "title", "licence"),
    [
        ("lieder", 1460, True, "unknown"),
        ("mutopia", 971, True, "LicenseRef-Public-Domain"),
        ("groove", 1150, False, "unknown"),
    ],
)
def test_tables_of_real_corpora_tell_of_every_file(
    shared_folder: Path, corpus: str, files: int, title: bool, licence: str
) -> None:
    found = survey(str(shared_folder / "corpora" / corpus))
    (usage,) = found.usages
    assert (len(found.items), usage.rows, usage.files, usage.unmatched) == (files, files, files, ())
    assert all(item.labels is not None and bool(item.labels.title) == title for item in found.items)
    assert {item.licence for item in found.items} == {licence}
    assert all(item.labels and item.labels.other for item in found.items)
