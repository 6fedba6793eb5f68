"""Feedback is kept whole, once, under pseudonyms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobs.feedback import command
from tests.shelves import catalogue, melody
from tutti.catalogue import listening
from tutti.errors import InputError
from tutti.storage import Folder

HEAD = "listener,take_id,event,other_take_id,value,unix_s"
LINES = (
    "anne,a,rated,,0.5,1",
    "anne,b,played,,0.9,2",
    "bert,a,liked,,,3",
    "bert,b,skipped,,,4",
    "bert,a,preferred,b,,5",
)


def kept(root: Folder, tmp_path: Path, *lines: str, name: str = "songs", catalogue: str = "1") -> Any:
    path = tmp_path / "events.csv"
    path.write_text("\n".join((HEAD, *lines)) + "\n")
    table, data = listening.read_file(path)
    return listening.keep(table, data, name=name, catalogue=catalogue, root=root)


def test_what_was_given_is_read_back_once(tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    first = kept(root, tmp_path, *LINES)
    assert first.facts == {"events": 5, "listeners": 2}
    assert kept(root, tmp_path, *LINES).address == first.address
    # A later export of the same browser holds the earlier one.
    kept(root, tmp_path, *LINES, "anne,c,rated,,-1,0")
    kept(root, tmp_path, "cleo,z,kept,,,9", name="others", catalogue="2")
    events = listening.events_below(root).to_pylist()
    assert [(event["listener"], event["take_id"]) for event in events] == [
        ("anne", "c"), ("anne", "a"), ("anne", "b"), ("bert", "a"), ("bert", "b"), ("bert", "a"), ("cleo", "z"),
    ]  # fmt: skip
    assert listening.events_below(Folder(str(tmp_path / "nothing"))).num_rows == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("anne@example.org,a,liked,,,1", "is no pseudonym"),
        (f"{'a' * 65},a,liked,,,1", "is no pseudonym"),
        ('"",a,liked,,,1', "is no"),
        ("anne,a,loved,,,1", "'loved' is none of"),
        ("anne,a,rated,,7,1", "a rating lies between -1 and 1"),
        ("anne,a,played,,-0.1,1", "between 0 and 1"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_kept(tmp_path: Path, line: str, said: str) -> None:
    root = Folder(str(tmp_path / "root"))
    with pytest.raises(InputError, match=said):
        kept(root, tmp_path, LINES[0], line)
    assert root.paths() == []


@pytest.mark.parametrize(
    ("kind", "value", "counts"),
    [
        ("rated", -0.5, -0.5), ("liked", None, 1.0), ("kept", None, 1.0), ("rejected", None, -1.0),
        ("skipped", None, -0.5), ("played", 0.4, None),
    ],
)  # fmt: skip
def test_an_event_counts_as_the_table_says(kind: str, value: float | None, counts: float | None) -> None:
    assert listening.value_of({"event": kind, "value": value, "take_id": "a", "other_take_id": None}) == counts


def test_the_verb_keeps_events_and_makes_no_pairs_unless_asked(tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    made = catalogue(root, "songs", [melody(), melody(seed=2)])
    (tmp_path / "events.csv").write_text("\n".join((HEAD, *LINES)) + "\n")
    words = ["songs", str(tmp_path / "events.csv"), "--root", root.uri]
    tried = CliRunner().invoke(command, [*words, "--dry-run"])
    assert tried.output.startswith(
        "feedback: 5 events of 2 listeners (1 liked, 1 played, 1 preferred, 1 rated, 1 skipped)"
    )
    assert root.paths("feedback") == []
    for _ in range(2):
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 0, done.exception
        assert f"{root.uri}/feedback/songs/" in done.output
    assert listening.events_below(root).num_rows == 5
    assert root.children() == ["catalogues", "feedback"]
    assert made.name == "songs"
