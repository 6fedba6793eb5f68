"""Any family: it learns, it goes on to the bit where it was killed, and what it leaves makes music."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.examples import PREPARERS
from tests import families
from tests.music import sequences_dataset
from tests.trainings import StoppedError, Watch, assert_close, assert_same_bits, plan_of, train, weights_of
from tutti import lineage, seeding
from tutti.dataset.loader import Loader
from tutti.evaluation.writing import writing_of
from tutti.generation.composers import COMPOSERS
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.models.families import FAMILIES
from tutti.storage import Folder
from tutti.training.examples import KINDS
from tutti.training.schedule import learning_rate

SILENT = {"spectra"}
"""Kinds of examples whose families make no pieces."""
READERS = ("decoder", "recurrent", "bar_vae", "pairs")
GAN = {"control_dropout": 0.0, "all_controls_dropout": 0.0, "most_semitones": 0, "clip_norm": 0.0, "weight_decay": 0.0}


def test_each_family_that_is_carried_can_be_prepared_for_and_composes_unless_it_makes_no_pieces() -> None:
    for name, family in FAMILIES.items():
        assert family.reads in KINDS, name
        if name in ("pairs", "histograms"):
            continue
        assert KINDS[family.reads].makes, name
        assert family.reads in PREPARERS, name
        assert (family.reads in COMPOSERS) != (family.reads in SILENT), name
        assert family.reads in SILENT or writing_of(family.reads), name
        assert family.learning == "likelihood" or KINDS[family.reads].judge is not None, name


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    torch.set_num_threads(1)
    return sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two families of the tests, for one test."""
    for name in ("pairs", "histograms"):
        monkeypatch.setitem(FAMILIES, name, None)
    monkeypatch.setitem(KINDS, "histograms", None)
    families.add()


@pytest.mark.parametrize("family", READERS)
def test_it_learns_and_what_it_leaves_makes_music(family: str, sequences: Folder, tmp_path: Path) -> None:
    changes = {
        "steps": 40,
        "learning_rate": 1e-2,
        "control_dropout": 0.0,
        "all_controls_dropout": 0.0,
        "most_semitones": 0,
    }
    train(plan_of(sequences, tmp_path, family=family, dropout=0.0, **changes))
    facts = lineage.load(Folder(str(tmp_path))).facts
    assert facts["score"] == "nll_nats_per_token"
    assert facts["measures"]["valid_nll_nats_per_token"] < facts["measures"]["before_valid_nll_nats_per_token"] - 1
    engine = Engine.load(tmp_path / "bundle")
    requests = [Request(length="8s", seed=seed) for seed in (1, 2)]
    together, alone = engine.generate(requests), engine.generate(requests[1:])
    assert together[1].tokens.tolist() == alone[0].tokens.tolist()
    assert all(piece.refused_tokens == 0 and len(piece.score.notes) for piece in together)


@pytest.mark.parametrize("family", [*READERS, "histograms"])
def test_killed_and_resumed_equals_never_stopped_to_the_bit(family: str, sequences: Folder, tmp_path: Path) -> None:
    changes = GAN if family == "histograms" else {}
    straight, broken = (
        plan_of(sequences, tmp_path / name, family=family, **changes) for name in ("straight", "broken")
    )
    train(straight)
    with pytest.raises(StoppedError):
        train(broken, watch=Watch(stop_at=5))
    train(broken)
    assert_same_bits(weights_of(straight.run), weights_of(broken.run))


def test_a_generator_and_its_critic_move_as_torch_alone_moves_them(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(sequences, tmp_path, family="histograms", **GAN)
    _, watch = train(plan)
    recipe, layout = plan.training, families.HistogramLayout(sequence_tokens=plan.training.sequence_tokens)
    with closing(
        Loader(
            lineage.load(sequences), split="train", layout=layout, batch_sequences=recipe.batch_sequences,
            seed=seeding.derive(recipe.seed, "data"),
        )
    ) as loader:  # fmt: skip
        batches = [loader.batch(number) for number in range(recipe.steps)]
    generator = families.by_hand(
        batches, seed=recipe.seed, micro_batch=recipe.micro_batch, steps=recipe.steps,
        rate=lambda step: learning_rate(step, recipe),
    )  # fmt: skip
    assert_close(weights_of(tmp_path), dict(generator.state_dict()))
    facts = lineage.load(Folder(str(tmp_path))).facts
    assert facts["score"] == "mean_deviation"
    assert {"valid_mean_deviation", "before_valid_mean_deviation", "test_mean_deviation"} <= set(facts["measures"])
    assert facts["training"]["histograms_per_s"] > 0
    assert watch.seen[-1].unit == "histograms"
    assert np.isfinite(list(watch.losses.values())).all()
