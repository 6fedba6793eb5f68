"""A search finds what was asked, says why, and nothing that was denied."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from jobs.catalogue import command
from tests.shelves import SILENCE, catalogue, melody
from tutti import tables
from tutti.catalogue import search, search_index
from tutti.catalogue.search_index import COLUMNS, Index
from tutti.errors import MissingError, RecipeError
from tutti.features.mood import mood_word
from tutti.storage import Folder

PLAIN: dict[str, Any] = {
    "order": "o", "verdict": "accepted", "key": "C major", "asked_key": None, "tempo_qpm": 100.0, "length_s": 60.0,
    "notes": 100, "audio_path": None, "bars": 16, "meter": "4/4", "programs": [0], "key_confidence": 0.2,
    "scale_consistency": 0.9, "pitch_entropy": 4.0, "pitch_class_entropy": 2.5, "groove_consistency": 0.9,
    "notes_per_quarter": 3.0, "polyphony": 3.0, "pitch_low": 48, "pitch_high": 72, "valence": 0.0, "arousal": 0.0,
}  # fmt: skip


def index_of(*rows: dict[str, Any], rejected: bool = False) -> Index:
    """Takes that are plain but for what is given; the title names each."""
    schema = pa.schema([tables.TAKES.field(name) for name in COLUMNS])
    whole = []
    for number, row in enumerate(rows):
        row = {**PLAIN, "take_id": f"{number:024x}", "title": f"take {number}", "midi_path": f"{number}.mid", **row}
        row["mood"] = row.get("mood") or mood_word(row["valence"], row["arousal"])
        whole.append({name: row[name] for name in COLUMNS})
    table = pa.Table.from_pylist(whole, schema=schema)
    return Index.of([table.append_column("catalogue", pa.array(["/c"] * len(table)))], rejected=rejected)


def titles(index: Index, sentence: str, **options: Any) -> list[str]:
    """Of takes that hold all that must hold, best first."""
    found = search.search(index, sentence, **options)
    return [index.row(hit.at)["title"] for hit in found.hits if not hit.misses]


# fmt: off
SHELF = index_of(
    {"title": "a", "key": "D minor", "programs": [40, 41], "valence": 0.3, "arousal": -0.5, "length_s": 178.0},
    {"title": "b", "key": "D minor", "programs": [0], "valence": 0.3, "arousal": -0.5, "length_s": 180.0},
    {"title": "c", "key": "A minor", "programs": [48], "valence": -0.6, "arousal": -0.4, "length_s": 181.0},
    {"title": "d", "key": "D major", "programs": [40], "valence": 0.4, "arousal": -0.4, "length_s": 180.0},
    {
        "title": "e",
        "key": "F major",
        "asked_key": "D minor",
        "programs": [42, 128],
        "length_s": 90.0,
        "tempo_qpm": 140.0,
    },
    {"title": "Harbour lights", "meter": "3/4", "tempo_qpm": 60.0, "length_s": 20.0, "programs": [24]},
)
# fmt: on


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("calm, minor, strings, 3 min", ["a", "c"]),
        ("平静的小调弦乐，三分钟", ["a", "c"]),
        ("D minor", ["a", "b", "e"]),
        ("D小调，不要鼓", ["a", "b"]),
        ("strings, no drums, at least 2 minutes", ["a", "d", "c"]),
        ("至少两分钟的弦乐", ["a", "d", "c"]),
        ("strings under 2 minutes", ["e"]),
        ("2 to 3 minutes, piano", ["b"]),
        ("between 1 min and 2 min", ["e"]),
        ("120 to 150 bpm", ["e"]),
        ("over 120 bpm", ["e"]),
        ("135 bpm", ["e"]),
        ("waltz", ["Harbour lights"]),
        ("harbour", ["Harbour lights"]),
        ('"LIGHTS"', ["Harbour lights"]),
        ("in a minor key, not sad, 3 min", ["a", "b"]),
        ("violin, major", ["d"]),
    ],
)
def test_a_sentence_finds_what_it_asks(sentence: str, expected: list[str]) -> None:
    assert sorted(titles(SHELF, sentence)) == sorted(expected)


def test_what_leads_comes_first_and_every_hit_says_why() -> None:
    found = search.search(SHELF, "calm, minor, strings, 3 min")
    assert [SHELF.row(hit.at)["title"] for hit in found.hits] == ["a", "c"]
    assert found.holding == 2
    assert found.searched == 6
    first = found.hits[0]
    assert first.reasons == (
        "length 2m58s", "key D minor", "mood calm (valence +0.30, arousal -0.50)", "plays strings",
    )  # fmt: skip
    assert found.hits[1].score < first.score <= 1


def test_nearest_takes_are_shown_where_none_has_all_of_it() -> None:
    found = search.search(SHELF, "organ, D minor, 3 min")
    assert found.holding == 0
    first = found.hits[0]
    assert SHELF.row(first.at)["title"] in ("a", "b")
    assert first.misses == ("organ",)


def test_strings_alone_come_before_strings_among_others() -> None:
    index = index_of({"title": "mixed", "programs": [0, 24, 40]}, {"title": "pure", "programs": [40]})
    assert titles(index, "strings") == ["pure", "mixed"]
    assert titles(index, "strings and guitar") == ["mixed"]


@pytest.mark.parametrize(
    ("sentence", "column", "values"),
    [
        ("slow", "tempo_qpm", [50.0, 70.0, 100.0, 150.0]),
        ("fast", "tempo_qpm", [160.0, 120.0, 90.0, 50.0]),
        ("long", "length_s", [240.0, 120.0, 60.0, 20.0]),
        ("short", "length_s", [15.0, 40.0, 90.0, 200.0]),
        ("dense", "notes_per_quarter", [6.0, 3.0, 1.5, 0.5]),
        ("single line", "polyphony", [1.0, 1.5, 3.0, 5.0]),
    ],
)
def test_words_order_takes_by_how_near_they_come(sentence: str, column: str, values: Sequence[float]) -> None:
    index = index_of(*({"title": str(value), column: value} for value in sorted(values)))
    assert titles(index, sentence) == [str(value) for value in values]


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_the_tolerance_is_exact(share: float) -> None:
    lengths = [100.0 * (1 + side * share * part) for side in (-1, 1) for part in (0.5, 1.0, 1.1)]
    index = index_of(*({"title": f"{length:.1f}", "length_s": length} for length in lengths))
    within = {f"{length:.1f}" for length in lengths if abs(length - 100) <= 100 * share + 1e-6}
    assert set(titles(index, "100 seconds", tolerance=share)) == within
    assert len(within) == 4


def test_rejected_takes_are_found_where_they_are_wanted() -> None:
    rows = ({"title": "kept"}, {"title": "spoilt", "verdict": "rejected"})
    assert titles(index_of(*rows), "piano") == ["kept"]
    assert sorted(titles(index_of(*rows, rejected=True), "piano")) == ["kept", "spoilt"]


def test_a_take_without_notes_fits_nothing() -> None:
    nothing = dict.fromkeys(("key", "mood", *tables.TAKE_DESCRIPTORS))
    index = index_of({"title": "empty", **nothing, "valence": 0, "arousal": 0}, {"title": "full"})
    empty = Index(index.table.set_column(index.table.column_names.index("valence"), "valence", pa.array([None, 0.0])))
    for sentence in ("calm piano", "minor", "no drums", "waltz", "C2-C6", "16 bars"):
        found = search.search(empty, sentence)
        if found.holding:
            assert "empty" not in titles(empty, sentence), sentence
    assert len(search.similar(empty, 1)) == 1


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("", "nothing in ''"),
        ("qwrtz", "nothing in 'qwrtz'"),
        ("happy and sad", "opposite moods"),
        ("minor and major", "major and minor"),
        ("90 bpm, 120 bpm", "two things of tempo"),
        ("at least 3 minutes, at most 2 minutes", "no length is"),
        ("piano but no piano", "forbids"),
    ],
)
def test_what_cannot_be_searched_is_one_line(sentence: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        search.search(SHELF, sentence)


def test_what_was_not_understood_and_not_searched_is_told() -> None:
    query = search.search(SHELF, "piano qwrtz, D dorian").query
    assert query.not_understood == ("qwrtz",)
    assert query.not_searched == ("scale",)


def test_a_take_is_likest_itself_in_another_key_and_tells_how_others_differ() -> None:
    index = index_of(
        {"title": "one"},
        {"title": "two", "key": "E major", "tempo_qpm": 101.0},
        {"title": "three", "tempo_qpm": 190.0, "programs": [56], "arousal": 0.9, "valence": 0.2},
        *({"title": f"filler {at}", "pitch_high": 72 + at} for at in range(1, 5)),
    )
    hits = search.similar(index, index.place_of("one"))
    assert "one" not in [index.row(hit.at)["title"] for hit in hits]
    assert index.row(hits[0].at)["title"] == "two"
    assert index.row(hits[-1].at)["title"] == "three"
    assert {"faster", "more excited", "plays brass"} <= set(hits[-1].reasons)
    assert hits[0].score > 0.9 > hits[-1].score


def test_a_take_is_named_by_digits_or_title() -> None:
    assert SHELF.place_of(f"{3:024x}") == SHELF.place_of("d") == 3
    with pytest.raises(MissingError, match="6 takes are called '0000'"):
        SHELF.place_of("0000")
    with pytest.raises(MissingError, match="no take 'nope'"):
        SHELF.place_of("nope")


# From real catalogues on storage


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Two catalogues of two takes each; one take of each is without notes and so rejected."""
    place = Folder(str(tmp_path_factory.mktemp("root")))
    for name, program in (("violins", 40), ("pianos", 0)):
        catalogue(place, name, [melody(program=program), SILENCE], key="D minor")
    return place


def run(*words: str) -> str:
    done = CliRunner().invoke(command, list(words), prog_name="tutti catalogue")
    assert done.exit_code == 0, done.exception
    return done.output


def test_catalogues_are_searched_together_or_by_name(root: Folder) -> None:
    assert len(Index.read(root)) == 2
    assert len(Index.read(root, rejected=True)) == 4
    only = Index.read(root, names=["violins"])
    assert [row["title"] for row in only.table.to_pylist()] == ["violins 1"]
    folder = only.row(0)["catalogue"]
    assert Index.read(root, names=[folder, folder]).table.equals(only.table)
    with pytest.raises(MissingError, match="there are pianos, violins"):
        Index.read(root, names=["brass"])
    with pytest.raises(MissingError, match="no finished catalogue"):
        Index.read(root / "elsewhere")


def test_a_catalogue_of_before_is_described_from_its_notes(root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = (Folder(row) for row in {Index.read(root, names=["violins"]).row(0)["catalogue"]})
    now = search_index.read_takes(folder)
    whole = tables.from_parquet(folder.read("takes.parquet"), tables.TAKES)
    before = folder / "before"
    before.write("takes.parquet", tables.to_parquet(whole.drop_columns(["asked_key", *tables.TAKE_DESCRIPTORS])))
    then = search_index.read_takes(before)
    assert then.drop_columns(["catalogue"]).to_pylist() == now.drop_columns(["catalogue"]).to_pylist()
    assert now["programs"].to_pylist() == [[40], None]


def test_the_verb_shows_takes_with_their_reasons_and_files(root: Folder) -> None:
    said = run("search", "violin, D minor, 90 bpm", "--root", root.uri)
    assert "violins 1 · D minor · 90 bpm" in said
    assert "1 of 2 takes have all that must hold" in said
    assert "violins-1-" in said
    assert "pianos 1" not in said
    told = json.loads(run("search", "piano", "--root", root.uri, "--json"))
    assert [take["title"] for take in told["takes"]] == ["pianos 1"]
    assert "none of 2 takes has all of it" in run("search", "organ", "--root", root.uri)
    take = told["takes"][0]["take_id"]
    assert "violins 1" in run("similar", take[:8], "--root", root.uri)
    like = json.loads(run("similar", take, "--root", root.uri, "--json"))
    assert [each["title"] for each in like["takes"]] == ["violins 1"]


def test_an_order_is_still_what_the_verb_takes(root: Folder) -> None:
    done = CliRunner().invoke(command, ["no-such-order.yaml", "--dry-run", "--root", root.uri])
    assert "cannot read the order no-such-order.yaml" in str(done.exception)
    assert "search" in run("--help")
