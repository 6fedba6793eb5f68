"""Feedback to pairs, pairs to rows, rows to a tuned model: a decoder on walks that is to like them a fourth higher."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.recipe import Recipe
from tests.music import sequences_dataset, walk
from tests.trainings import StoppedError, Watch, assert_same_bits, plan_of, train, weights_of
from tutti import config, lineage
from tutti.catalogue import feedback
from tutti.catalogue.feedback import Heard, Preference, preferences
from tutti.catalogue.listening import read_file
from tutti.corpus.score import Score
from tutti.dataset.blocks import Blocks
from tutti.dataset.pairs import PairLayout, rows_of_pairs, rows_of_works, with_reference
from tutti.errors import InputError, RecipeError, UserError
from tutti.features.vocabulary import EVENTS
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.models.families import network_of
from tutti.storage import Folder
from tutti.tables import FEEDBACK, from_parquet, to_parquet, to_table
from tutti.tables import PAIRS as PAIRS_TABLE
from tutti.training import tuning
from tutti.training.learner import tensors_of
from tutti.training.plan import Plan
from tutti.training.preference import nats_of_sides, preference_loss
from tutti.training.recipe import PreferenceRecipe

ASKED = Request(bars=4)


def heard(take_id: str, score: Score, request: Request = ASKED) -> Heard:
    return Heard(take_id, request, score)


def event(take_id: str, kind: str, **columns: Any) -> dict[str, Any]:
    told = {"listener": "anne", "other_take_id": None, "value": None, "unix_s": 0.0}
    return {**told, "take_id": take_id, "event": kind, **columns}


def higher(score: Score) -> Score:
    return replace(score, notes=replace(score.notes, pitch=(score.notes.pitch + 5).astype(score.notes.pitch.dtype)))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    torch.set_num_threads(1)
    return sequences_dataset(Folder(str(tmp_path_factory.mktemp("data"))))


@pytest.fixture(scope="module")
def parent(sequences: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A decoder that knows walks in all keys alike."""
    run = tmp_path_factory.mktemp("parent")
    train(plan_of(sequences.folder, run, steps=24, learning_rate=1e-2, most_semitones=6, validate_every_steps=24))
    return bundles.load(run / "bundle")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Thirty pairs, by a listener who rates walks a fourth higher."""
    low = [heard(f"low-{seed:02d}", walk(seed)) for seed in range(30)]
    high = [heard(f"high-{seed:02d}", higher(walk(100 + seed))) for seed in range(30)]
    events = [event(take.take_id, "rated", value=0.5 if take in high else -0.5) for take in (*low, *high)]
    return published(events, [*low, *high], tmp_path_factory.mktemp("pairs"))


def published(events: list[dict[str, Any]], takes: list[Heard], place: Path) -> Dataset:
    found = preferences(events, takes)
    return feedback.publish(found, takes, root=Folder(str(place)), name="ears", collections=["walks"], inputs={})


def prepared(parent: Bundle, pairs: Dataset, sequences: Dataset, place: Path) -> Dataset:
    return tuning.prepare(parent, pairs=pairs, sequences=sequences, root=Folder(str(place)), name="walks")


@pytest.fixture(scope="module")
def rows(parent: Bundle, pairs: Dataset, sequences: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepared(parent, pairs, sequences, tmp_path_factory.mktemp("rows"))


def tuned_plan(rows: Dataset, run: Path, **changes: Any) -> Plan:
    settings = {
        "steps": 12, "learning_rate": 1e-3, "weight_decay": 0.0, "preference": PreferenceRecipe(),
        "mixture": {"pairs": 1.0, "works": 1.0}, "checkpoint_every_steps": 5, "validate_every_steps": 12,
    }  # fmt: skip
    plan = plan_of(rows.folder, run, dropout=0.0, **{**settings, **changes})
    return dataclasses.replace(plan, starts_from=tuning.WEIGHTS)


def test_the_best_rated_take_is_set_beside_the_worst_of_the_same_request() -> None:
    other = Request(bars=8)
    takes = [heard(name, walk(0)) for name in "abcde"] + [heard("x", walk(1), other)]
    values = {"a": 0.1, "b": 0.9, "c": -0.4, "d": 0.2, "x": -1.0}
    events = [event(take, "rated", value=value) for take, value in values.items()]
    # The last word of a listener counts, and a second one is asked too.
    events += [event("a", "rejected"), event("a", "kept", listener="bert"), event("gone", "kept")]
    events += [event("a", "played", value=0.9)]
    found = preferences(events, takes)
    assert [(pair.preferred, pair.rejected, pair.listeners) for pair in found.pairs] == [("b", "c", 1), ("d", "a", 2)]
    assert [pair.margin for pair in found.pairs] == pytest.approx([1.3, 0.2])
    assert found.left_out == {"heard_and_not_rated": 1, "of_unknown_takes": 1}


def test_of_compared_takes_the_one_that_more_preferred_wins_and_a_tie_says_nothing() -> None:
    takes = [heard(name, walk(0)) for name in "abcd"] + [heard("x", walk(1), Request(bars=8))]
    votes = [("anne", "a", "b"), ("bert", "b", "a"), ("cleo", "a", "b"), ("anne", "c", "d"), ("bert", "d", "c")]
    events = [event(better, "preferred", listener=who, other_take_id=other) for who, better, other in votes]
    found = preferences([*events, event("a", "preferred", other_take_id="x")], takes)
    assert found.pairs == (Preference("a", "b", 3, pytest.approx(1 / 3)),)
    assert found.left_out == {"of_two_requests": 1, "undecided": 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (event("a", "loved"), "'loved' is none of rated, kept, rejected, preferred, liked, played, skipped"),
        (event("a", "rated", value=5.0), "rated 5.0: a rating lies between -1 and 1"),
        (event("a", "rated"), "rated None"),
        (event("a", "preferred"), "preferred to none"),
        (event("a", "played", value=1.5), "played 1.5: a share"),
    ],
)
def test_an_event_that_is_none_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        preferences([wrong], [heard("a", walk(0))])


def test_pairs_hold_no_pseudonym_and_each_take_once(pairs: Dataset) -> None:
    table = from_parquet(pairs.read(feedback.TABLE), PAIRS_TABLE)
    found = table.to_pylist()
    assert "anne" not in str(found)
    assert pairs.facts["splits"] == {"train": 24, "valid": 3, "test": 3}
    assert len({row[side] for row in found for side in ("preferred_take", "rejected_take")}) == 60
    assert all(row["preferred_take"].startswith("high") for row in found)


def test_feedback_is_read_from_csv_and_parquet_alike_and_another_file_is_refused(tmp_path: Path) -> None:
    events = [event("a", "rated", value=0.5), event("a", "preferred", other_take_id="b")]
    (tmp_path / "x.parquet").write_bytes(to_parquet(to_table(events, FEEDBACK)))
    lines = ["listener,take_id,event,other_take_id,value,unix_s", "anne,a,rated,,0.5,0", "anne,a,preferred,b,,0"]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    assert read_file(tmp_path / "x.csv")[0].to_pylist() == read_file(tmp_path / "x.parquet")[0].to_pylist() == events
    (tmp_path / "y.csv").write_text("who,what\nanne,a\n")
    with pytest.raises(InputError, match=r"y\.csv is no table of feedback"):
        read_file(tmp_path / "y.csv")


def test_rows_come_back_as_they_were_with_what_the_reference_said(sequences: Dataset) -> None:
    works = Blocks(sequences, split="train", with_pieces=True, patience_s=1.0).read(0, 0).rows(0, 2)
    preferred, rejected = works.tokens[: works.lengths[0]], works.tokens[: works.lengths[0] - 9]
    of_pair, of_works = rows_of_pairs([(preferred, rejected)]), rows_of_works(works)
    nats = np.array([[123.25, 7.5]])
    layout = PairLayout(sequence_tokens=128)
    batch = layout.laid(with_reference(of_pair, nats), num_rows=2)
    assert batch.is_pair_B.tolist() == [True, False]
    assert batch.reference_BS.tolist() == [[123.25, 7.5], [0, 0]]
    assert batch.inputs_BST[0, 0].tolist() == preferred[:-1].tolist()
    assert batch.inputs_BST[0, 1, : len(rejected) - 1].tolist() == rejected[:-1].tolist()
    assert (batch.segments_BST[0, 1, len(rejected) - 1 :] == -1).all()
    assert not batch.targets_BST[1].any()
    held = layout.laid(with_reference(of_works, np.array([[1.5, 0], [2.5, 0]])), num_rows=2)
    assert held.reference_BS.tolist() == [[1.5, 0], [2.5, 0]]
    assert held.num_pairs == 0
    assert held.num_work_targets == held.num_targets > 0


def test_the_loss_is_the_papers() -> None:
    # Log-likelihoods of both sides under the model, -10 and -12, and under the reference, -11 and -11.5.
    loss = preference_loss(torch.tensor([[10.0, 12.0]]), torch.tensor([[11.0, 11.5]]), beta=0.5)
    by_hand = -math.log(1 / (1 + math.exp(-0.5 * ((-10 - -11) - (-12 - -11.5)))))
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)
    assert float(preference_loss(torch.zeros(1, 2), torch.zeros(1, 2), beta=0.5)) == pytest.approx(math.log(2))


def test_nats_of_a_side_are_those_of_the_piece_alone(parent: Bundle, rows: Dataset) -> None:
    network = network_of(parent.family, parent.configuration, dropout=0.0)
    network.load_state_dict(dict(parent.weights))
    network.eval()
    held = Blocks(rows, split="valid", with_pieces=True, patience_s=1.0).read(0, 0)
    batch = PairLayout(sequence_tokens=128).laid(held, num_rows=len(held))
    with torch.no_grad():
        nats_BS = nats_of_sides(network, tensors_of(batch, torch.device("cpu")))
        for row, side in np.ndindex(*nats_BS.shape):
            real = int((batch.segments_BST[row, side] >= 0).sum())
            inputs, targets = (
                torch.from_numpy(column[row, side, :real].astype(np.int64))
                for column in (batch.inputs_BST, batch.targets_BST)
            )
            likely = torch.log_softmax(network(inputs[None])[0], -1)[torch.arange(real), targets]
            assert float(nats_BS[row, side]) == pytest.approx(-float(likely[targets > 0].sum()), rel=1e-4)
    np.testing.assert_allclose(batch.reference_BS, nats_BS, rtol=1e-4)


def test_tuning_prefers_what_was_preferred_keeps_what_was_learnt_and_goes_on_where_it_was_killed(
    parent: Bundle, rows: Dataset, tmp_path: Path
) -> None:
    before = {name: weight.clone() for name, weight in parent.weights.items()}
    train(tuned_plan(rows, tmp_path / "straight"))
    measures = lineage.load(Folder(str(tmp_path / "straight"))).facts["measures"]
    assert measures["before_valid_preference_loss"] == pytest.approx(math.log(2), rel=1e-3)
    assert measures["valid_preference_loss"] < 0.5
    assert measures["valid_preference_accuracy"] == measures["test_preference_accuracy"] == 1
    assert measures["valid_pairs"] == 3
    assert measures["valid_nll_rise_share"] < 0.05
    with pytest.raises(StoppedError):
        train(tuned_plan(rows, tmp_path / "broken"), watch=Watch(stop_at=7))
    _, watch = train(tuned_plan(rows, tmp_path / "broken"))
    assert min(watch.losses) == 6
    assert_same_bits(weights_of(tmp_path / "straight"), weights_of(tmp_path / "broken"))
    assert bundles.load(tmp_path / "straight" / "bundle").vocabulary == EVENTS.names
    stored = bundles.load(rows.folder.local_path / "parent")
    assert stored.digest() == parent.digest()
    assert_same_bits(before, dict(stored.weights))


def test_identical_takes_are_left_out_and_alone_they_are_refused(
    parent: Bundle, sequences: Dataset, tmp_path: Path
) -> None:
    takes = [heard(f"{side}{seed}", walk(seed)) for seed in range(4) for side in "ab"]
    events = [event(f"a{seed}", "preferred", other_take_id=f"b{seed}") for seed in range(4)]
    same = published(events, takes, tmp_path)
    with pytest.raises(UserError, match=r"no train pair of ears can be learnt from \(4 identical\)"):
        prepared(parent, same, sequences, tmp_path)
    with pytest.raises(UserError, match="holds no pair of takes"):
        published([], takes, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": "0123"}, "pairs ears speak vocabulary 0123, not"),
        ({"collections": ["jazz"]}, "collections jazz, and this one knows walks"),
    ],
)
def test_pairs_of_another_model_are_refused(
    parent: Bundle, pairs: Dataset, sequences: Dataset, tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    foreign = dataclasses.replace(pairs, facts={**pairs.facts, **changes})
    with pytest.raises(RecipeError, match=message):
        prepared(parent, foreign, sequences, tmp_path)


def test_parents_that_pairs_cannot_tune_are_refused(parent: Bundle) -> None:
    tuning.check_parent(parent, name="walks/1")
    with pytest.raises(RecipeError, match=r"walks/1 is a chorale, which pairs cannot tune"):
        tuning.check_parent(dataclasses.replace(parent, family="chorale"), name="walks/1")
    with pytest.raises(RecipeError, match=r"walks/1 speaks another vocabulary"):
        tuning.check_parent(dataclasses.replace(parent, vocabulary=EVENTS.names[:-1]), name="walks/1")


def test_a_recipe_tunes_or_trains() -> None:
    tree = {"name": "x", "corpus": {"sources": ["a"]}, "licences": ["CC0-1.0"]}
    tuned = {**tree, "tuning": {"model": "x/1", "pairs": "ears"}}
    assert config.build(Recipe, tuned).tuning is not None
    with pytest.raises(RecipeError, match="a tuning keeps the network of x/1: leave out model"):
        config.build(Recipe, {**tuned, "model": {"family": "recurrent"}})
    with pytest.raises(RecipeError, match="name the model and the pairs in tuning"):
        config.build(Recipe, {**tree, "training": {"preference": {}}})
