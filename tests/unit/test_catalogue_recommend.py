"""Recommendations follow what was liked, reach what nobody has heard, and say why."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from jobs.catalogue import command
from tests.shelves import catalogue, melody
from tutti.catalogue import listening
from tutti.catalogue.recommend import COMPARED, PLAYED, Recommender, opinions
from tutti.catalogue.recommend_blend import USUAL, Blend, Ratings, ndcg
from tutti.catalogue.search_index import Index
from tutti.errors import InputError, MissingError, UserError
from tutti.storage import Folder
from tutti.tables import FEEDBACK, to_table

LISTENERS, ITEMS, NEW = 40, 60, 12


def event(listener: str, take: str, kind: str = "rated", value: float | None = None, **columns: Any) -> dict[str, Any]:
    told = {"other_take_id": None, "unix_s": 0.0, **columns}
    return {"listener": listener, "take_id": take, "event": kind, "value": value, **told}


def world(*, told_by_features: bool) -> tuple[Ratings, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Two groups of listeners and two kinds of items; each group likes one kind. The last items are heard by nobody.

    Args:
        told_by_features: whether the first feature tells an item's kind.

    Returns:
        Ratings, features, and the kind of each item.
    """
    draw = np.random.default_rng(3)
    kind = draw.integers(0, 2, ITEMS)
    features = draw.normal(size=(ITEMS, 4))
    if told_by_features:
        features[:, 0] = np.where(kind, 1.5, -1.5) + 0.3 * draw.normal(size=ITEMS)
    rows = [
        (
            listener,
            int(item),
            float(np.clip((0.8 if kind[item] == listener % 2 else -0.8) + 0.1 * draw.normal(), -1, 1)),
        )
        for listener in range(LISTENERS)
        for item in draw.choice(ITEMS - NEW, 16, replace=False)
    ]
    who, what, how = zip(*rows, strict=True)
    return Ratings(np.array(who), np.array(what), np.array(how), LISTENERS), features, kind


def hits(blend: Blend, ratings: Ratings, kind: np.ndarray[Any, Any], *, new: bool) -> float:
    """Share of the first four of each listener that are of the kind that the listener likes."""
    found = []
    for listener in range(LISTENERS):
        able = np.arange(ITEMS) >= ITEMS - NEW if new else np.arange(ITEMS) < ITEMS - NEW
        able[ratings.items[ratings.listeners == listener]] = False
        first = blend.ranked(listener, able, limit=4, new_share=0.0)
        found.append(np.mean(kind[first] == listener % 2))
    return float(np.mean(found))


def test_what_others_of_like_taste_liked_is_found_where_features_tell_nothing() -> None:
    ratings, features, kind = world(told_by_features=False)
    assert hits(Blend.fit(ratings, features), ratings, kind, new=False) > 0.95


def test_what_nobody_has_heard_is_found_by_what_it_is() -> None:
    ratings, features, kind = world(told_by_features=True)
    blend = Blend.fit(ratings, features)
    assert hits(blend, ratings, kind, new=True) > 0.95
    assert hits(blend, ratings, kind, new=False) > 0.95
    assert (blend.views.heard[-NEW:] == 0).all()


def test_features_that_tell_nothing_find_nothing_new() -> None:
    ratings, features, kind = world(told_by_features=False)
    assert hits(Blend.fit(ratings, features), ratings, kind, new=True) < 0.75


def test_the_same_feedback_gives_the_same_answer() -> None:
    ratings, features, _ = world(told_by_features=True)
    first, again = (Blend.fit(ratings, features, seed=5) for _ in range(2))
    assert (first.weights, first.new_weights) == (again.weights, again.new_weights)
    assert np.array_equal(first.scores(3), again.scores(3))


def test_places_are_kept_for_what_nobody_has_heard() -> None:
    ratings, features, _ = world(told_by_features=True)
    blend = Blend.fit(ratings, features)
    able = np.ones(ITEMS, dtype=bool)
    ranked = blend.ranked(0, able, limit=10, new_share=0.2)
    assert [at for at, item in enumerate(ranked) if item >= ITEMS - NEW] == [4, 9]
    every = blend.ranked(0, able, limit=1000, new_share=0.2)
    assert sorted(every.tolist()) == list(range(ITEMS))


def test_one_opinion_is_enough_to_answer() -> None:
    blend = Blend.fit(Ratings(np.array([0]), np.array([2]), np.array([1.0]), 1), np.eye(5))
    assert blend.weights == blend.new_weights == USUAL
    assert np.isfinite(blend.scores(0)).all()
    assert np.isfinite(blend.scores(None)).all()


def test_ndcg_by_hand() -> None:
    ranked = np.array([7, 3, 5, 1])
    assert ndcg(ranked, np.array([7, 3]), top=4) == 1
    assert ndcg(ranked, np.array([3]), top=4) == pytest.approx(1 / np.log2(3))
    assert ndcg(ranked, np.array([1]), top=2) == 0
    assert ndcg(ranked, np.array([], dtype=int)) == 0


# Events


def test_a_last_rating_counts_before_comparisons_and_those_before_what_was_heard() -> None:
    places = {"a": 0, "b": 1, "c": 2}
    events = [
        event("anne", "a", value=-1.0), event("anne", "a", value=0.5), event("anne", "a", "played", 1.0),
        event("anne", "b", "preferred", other_take_id="c"), event("anne", "c", "played", 1.0),
        event("bert", "a", "played", 0.1), event("bert", "a", "played", 1.0), event("bert", "b", "skipped"),
        event("bert", "gone", "liked"),
    ]  # fmt: skip
    assert opinions(events, places) == {
        ("anne", 0): 0.5, ("anne", 1): COMPARED, ("anne", 2): -COMPARED, ("bert", 0): PLAYED, ("bert", 1): -0.5,
    }  # fmt: skip
    with pytest.raises(InputError, match="'loved' is none of"):
        opinions([event("anne", "a", "loved")], places)


# From catalogues


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Twelve slow takes of a piano and twelve fast ones of brass; the last of each was heard by nobody."""
    place = Folder(str(tmp_path_factory.mktemp("root")))
    for name, program, tempo in (("slow", 0, 60.0), ("fast", 56, 160.0)):
        catalogue(place, name, [melody(program=program, tempo=tempo, seed=at) for at in range(12)])
    index = Index.read(place)
    takes = {row["title"]: row["take_id"] for row in index.table.to_pylist()}
    events = [
        event(f"{side}-{number}", takes[f"{name} {at:02d}"], value=0.9 if side == name else -0.9)
        for side in ("slow", "fast")
        for number in range(6)
        for name in ("slow", "fast")
        for at in range(1, 12)
        if (at + number) % 3
    ]
    table = to_table(events, FEEDBACK)
    listening.keep(table, b"events", name="slow", catalogue="1", root=place)
    return place


def run(*words: str) -> str:
    done = CliRunner().invoke(command, list(words), prog_name="tutti catalogue")
    assert done.exit_code == 0, done.exception
    return done.output


def test_a_listener_gets_their_kind_with_reasons_and_nothing_heard(root: Folder) -> None:
    index = Index.read(root)
    recommender = Recommender.fit(index, listening.events_below(root).to_pylist())
    found = recommender.recommend("slow-0", limit=3)
    titles = [index.row(each.at)["title"] for each in found]
    assert all(title.startswith("slow") for title in titles)
    heard = set(
        recommender.ratings.items[recommender.ratings.listeners == recommender.listeners.index("slow-0")].tolist()
    )
    assert not heard & {each.at for each in found}
    assert any("which was liked" in reason or "like taste" in reason for each in found for reason in each.reasons)
    (new,) = recommender.recommend("fast-2", limit=1, new=True)
    assert index.row(new.at)["title"] == "fast 12"
    assert new.heard_by == 0
    assert new.reasons[-1] == "nobody has heard it yet"


def test_the_verb_shows_takes_and_tells_who_is_unknown(root: Folder) -> None:
    said = run("recommend", "fast-0", "--root", root.uri, "--limit", "2")
    assert "fast" in said.splitlines()[0]
    assert "by 176 opinions of 12 listeners" in said
    told = json.loads(run("recommend", "nobody", "--root", root.uri, "--json", "--limit", "4"))
    assert (told["known"], len(told["takes"])) == (False, 4)
    assert "nobody is not among the 12 listeners" in run("recommend", "nobody", "--root", root.uri)


def test_without_feedback_or_library_it_says_what_to_do(root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.read(root)
    with pytest.raises(UserError, match=r"no feedback on any of these takes"):
        Recommender.fit(index, [event("anne", "gone", "liked")])
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(MissingError, match=r"pip install 'tutti\[recommend\]'"):
        Recommender.fit(index, listening.events_below(root).to_pylist())
