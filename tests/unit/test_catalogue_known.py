"""What takes are held against is found by what the model's facts and the order say; what cannot be had is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.music import chorale, tokens_dataset, walk, works_dataset
from tutti import lineage
from tutti.catalogue import known
from tutti.catalogue.copies import compared
from tutti.catalogue.known import References, Source, learnt_by, references_of, sources_of, works_of
from tutti.catalogue.order import Checks, Order
from tutti.catalogue.publish import place_of
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import IntegrityError, MissingError, RecipeError
from tutti.generation.request import Request
from tutti.metrics.originality import LIMITS, WorkIndex
from tutti.storage import Folder

BARS = 16
TRAIN, HELD_OUT = 0, 7


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.fixture
def facts(root: Folder) -> dict[str, Any]:
    works = works_dataset(root / "works" / "walks" / "abc", num_works=10, bars=BARS)
    tokens = tokens_dataset(root / "tokens" / "walks" / "def", num_works=10, bars=BARS)
    return {"data": {"works_address": works.folder.uri, "tokens_address": tokens.folder.uri}}


def transposed(score: Score) -> Score:
    notes = score.notes
    return Score.of(
        Notes.of(
            onset_ticks=2 * notes.onset_ticks,
            duration_ticks=2 * notes.duration_ticks,
            pitch=notes.pitch + np.uint8(2),
            program=24,
        ),
        ticks_per_quarter=score.ticks_per_quarter,
    )


def held_against(references: References, score: Score, **asked: Any) -> tuple[dict[str, Any], Any]:
    findings, nearest = compared(score, request=build(Request, asked), checks=Checks(), references=references)
    return {finding.check: finding for finding in findings}, nearest


def test_a_copy_of_a_work_that_trained_fails_and_names_it_with_its_licence(root: Folder, facts: dict[str, Any]) -> None:
    references = references_of(sources_of(Checks(), facts=facts, own_name="o", root=root), facts, root=root)
    found, nearest = held_against(references, transposed(walk(TRAIN, bars=BARS)))
    finding = found["originality"]
    assert finding.verdict == "failed"
    assert finding.figure >= finding.limit
    assert (nearest.title, nearest.licence) == ("Walk 0", "CC0-1.0")
    assert "Walk 0 (CC0-1.0)" in finding.detail
    assert "earlier_takes" not in found


def test_a_work_held_out_is_not_known(root: Folder, facts: dict[str, Any]) -> None:
    source = learnt_by(facts, root=root)
    works = works_of(source, facts, root=root)
    assert len(works.named) == 7
    assert {named.title for named in works.named.values()} == {f"Walk {seed}" for seed in range(7)}


def test_an_index_is_made_once_and_found_where_the_corpus_has_gone(root: Folder, facts: dict[str, Any]) -> None:
    source = learnt_by(facts, root=root)
    first = works_of(source, facts, root=root)
    before = lineage.load(source.place(root))
    for kind in ("works", "tokens"):
        (root / kind).delete()
    again = learnt_by(facts, root=root)
    assert again == source
    second = works_of(again, facts, root=root)
    assert lineage.load(source.place(root)) == before
    assert second.named == first.named
    pieces = ScoreBatch.of([walk(TRAIN, bars=BARS), walk(HELD_OUT, bars=BARS), chorale(3, bars=4)])
    assert second.index.originality(pieces) == first.index.originality(pieces)


def test_a_corpus_that_has_gone_is_told_and_never_a_pass(root: Folder, facts: dict[str, Any]) -> None:
    (root / "works").delete()
    sources = sources_of(Checks(), facts=facts, own_name="o", root=root)
    assert sources.addresses == {}
    found, nearest = held_against(references_of(sources, facts, root=root), walk(TRAIN, bars=BARS))
    finding = found["originality"]
    assert (finding.verdict, finding.figure, finding.limit, nearest) == ("not_checked", None, None, None)
    assert "are gone from" in finding.detail
    with pytest.raises(MissingError, match=r"checks\.originality is required, but the works .* are gone"):
        sources_of(Checks(originality="required"), facts=facts, own_name="o", root=root)


def test_a_model_that_says_nothing_of_its_works_is_told(root: Folder) -> None:
    assert learnt_by({}, root=root).reason == "the model does not say of which works it was made"
    with pytest.raises(MissingError, match="required"):
        sources_of(Checks(originality="required"), facts={}, own_name="o", root=root)


def test_off_it_is_not_looked_for(root: Folder, facts: dict[str, Any]) -> None:
    sources = sources_of(Checks(originality="off"), facts=facts, own_name="o", root=root)
    found, _ = held_against(references_of(sources, facts, root=root), walk(TRAIN, bars=BARS))
    assert (found["originality"].verdict, root.exists("indices")) == ("not_checked", False)


def test_too_many_notes_are_no_index(root: Folder, facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known, "MOST_NOTES", 100)
    assert "an index holds 100" in learnt_by(facts, root=root).reason


def test_a_damaged_index_is_refused(root: Folder, facts: dict[str, Any]) -> None:
    source = learnt_by(facts, root=root)
    works_of(source, facts, root=root)
    place = source.place(root)
    data = bytearray(place.read("index.npz"))
    data[200] ^= 255
    place.write("index.npz", bytes(data))
    with pytest.raises(IntegrityError, match=r"index\.npz differs from its manifest"):
        works_of(source, facts, root=root)


def test_a_take_that_starts_from_a_file_is_named_after_it_and_held_to_no_limit(
    root: Folder, facts: dict[str, Any]
) -> None:
    references = References(works_of(learnt_by(facts, root=root), facts, root=root))
    found, nearest = held_against(references, walk(TRAIN, bars=BARS), start={"kind": "continue", "works": ["x"]})
    assert (found["originality"].verdict, nearest.title) == ("not_checked", "Walk 0")
    assert found["originality"].figure >= found["originality"].limit


def test_an_index_of_nothing_passes_and_says_so() -> None:
    nothing = known.Known(WorkIndex.of(ScoreBatch.of([]), work_ids=[]), {})
    found, nearest = held_against(References(nothing, nothing), walk(0))
    assert {name: finding.verdict for name, finding in found.items()} == {
        "originality": "passed",
        "earlier_takes": "passed",
    }
    assert nearest is None


def test_limits_are_the_orders() -> None:
    assert Checks().limits == LIMITS
    assert Checks(copy_melody_bits=7).limits.melody_bits == 7


# --- Earlier catalogues -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("against", "found"),
    [
        (["calm"], ["calm/1", "calm/2"]),
        (["calm/2"], ["calm/2"]),
        (["*"], ["brisk/1", "calm/1", "calm/2"]),
        (["own/1", "brisk"], ["brisk/1", "own/1"]),
        ([], []),
    ],
)
def test_earlier_catalogues_are_named_by_name_or_address(root: Folder, against: list[str], found: list[str]) -> None:
    for name in ("calm/1", "calm/2", "brisk/1", "own/1"):
        place = root / "catalogues" / name
        lineage.publish(place, kind="catalogues", name=name.split("/")[0], inputs={}, files=[], facts={})
    (root / "catalogues").write("calm/3/half-made", b"x")
    sources = sources_of(Checks(against=tuple(against)), facts={}, own_name="own", root=root)
    assert sources.addresses.get("catalogues", []) == found


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("nobody", MissingError, "names 'nobody', of which no catalogue is finished"),
        ("nobody/1", MissingError, "names 'nobody/1', which is no finished catalogue"),
        ("own", RecipeError, "names 'own', the order itself"),
    ],
)
def test_a_catalogue_that_is_not_there_is_refused(root: Folder, name: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        sources_of(Checks(against=(name,)), facts={}, own_name="own", root=root)


def test_what_is_compared_enters_the_address_and_nothing_else_does() -> None:
    tree = {"name": "o", "model": "m", "lines": [{"count": 1}]}
    root = Folder("results")

    def address(order: dict[str, Any], **compared: Any) -> str:
        return place_of(Plan(build(Order, order), "m", "1", "d", compared=compared), root=root).uri

    usual = Checks().model_dump(mode="json")
    assert not {"originality", "against", "duplicates"} & set(build(Order, tree).document()["checks"])
    assert address(tree) == address({**tree, "checks": {"duplicates": usual["duplicates"]}})
    found = {
        address(tree),
        address(tree, works="walks/1"),
        address(tree, works="walks/2"),
        address({**tree, "checks": {"copy_share": 0.5}}),
    }
    assert len(found) == 4


def test_a_source_has_one_place() -> None:
    assert Source("walks", {"works": "a"}).place(Folder("r")) != Source("walks", {"works": "b"}).place(Folder("r"))
