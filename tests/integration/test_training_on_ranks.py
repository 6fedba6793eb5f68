"""DeepSpeed for real: the weights of torch alone, and checkpoints that any number of ranks goes on from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import jobs.cli
from tests import families
from tests.music import rolls_dataset, sequences_dataset
from tests.notes import notes_dataset, plan_of_notes
from tests.ranks import train_on
from tests.trainings import Dump, assert_close, assert_same_bits, plan_of, train, weights_of
from tutti.models import bundle as bundles
from tutti.storage import Folder
from tutti.training import checkpoint
from tutti.training.plan import Plan

CHANGES = {"steps": 6, "batch_sequences": 8, "micro_batch_sequences": 2, "record_order": True}


# Checkpoints that stay, of steps whose weights are sampled too.
KEPT = {"checkpoint_every_steps": 2, "keep_checkpoints_every_steps": 2, "sample_every_steps": 2}


def assert_exported(run: Folder, out: Path, *, step: int, equals: Path) -> None:
    """Whether the model of a checkpoint, made by one process, is the one that all ranks had together."""
    asked = ["models", "export", "--checkpoint", run.uri, "--step", str(step), "--out", str(out)]
    assert jobs.cli.run(asked) == 0
    exported, known = bundles.load(out), bundles.load(equals)
    assert_same_bits(dict(exported.weights), dict(known.weights))
    assert exported.digest() == known.digest()
    assert exported.facts["training"]["steps"] == step


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder


@pytest.fixture(scope="module")
def alone(sequences: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run by torch alone, in this process, with dropout."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("alone")
    train(plan_of(sequences, run, **CHANGES))
    return run


@pytest.mark.parametrize("changes", [
    {"strategy": "plain"},
    {"zero_stage": 0},
    {"zero_stage": 1, "offload": "cpu"},
    {"zero_stage": 3, "activation_checkpointing": True},
], ids=["plain", "zero0", "zero1-offload", "zero3-recomputing"])  # fmt: skip
def test_two_ranks_reach_the_weights_of_one(
    sequences: Folder, alone: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    plan = plan_of(sequences, tmp_path, workers=2, **{"strategy": "deepspeed", **CHANGES, **KEPT, **changes})
    train_on(2, plan, sampler=Dump(tmp_path / "dump"))
    assert_exported(plan.run, tmp_path / "out", step=2, equals=tmp_path / "dump" / "2")
    assert_close(weights_of(tmp_path), weights_of(alone))
    assert (tmp_path / "order.csv").read_bytes() == (alone / "order.csv").read_bytes()


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_two_engines_move_a_generator_and_its_critic_as_torch_alone_does(
    sequences: Folder, tmp_path: Path, stage: int
) -> None:
    families.add()
    common = {
        **CHANGES,
        "control_dropout": 0.0,
        "all_controls_dropout": 0.0,
        "most_semitones": 0,
        "clip_norm": 0.0,
        "weight_decay": 0.0,
    }
    # Torch alone is held against a loop written by hand in tests/unit/test_families.py.
    train(plan_of(sequences, tmp_path / "alone", family="histograms", **common))
    engines = {**common, "strategy": "deepspeed", "zero_stage": stage, "workers": {"min": 1, "max": 2}}
    plan = plan_of(sequences, tmp_path / "engines", family="histograms", **engines)
    train_on(2, plan, pause_at=3)
    assert {path.split("/")[0] for path in checkpoint.latest(plan.run).dataset.paths(".pt")} == {"generator", "critic"}
    train_on(1, plan)
    assert_close(weights_of(tmp_path / "engines"), weights_of(tmp_path / "alone"))


def gan_of(family: str, data: Folder) -> Callable[..., Plan]:
    """Plans of a family that Tutti carries, by the folder of their run and their settings."""
    if family == "timbre_gan":
        return partial(plan_of_notes, notes_dataset(data))
    return partial(plan_of, rolls_dataset(data).folder, family=family, clip_norm=0.0)


@pytest.mark.parametrize("family", ["roll_gan", "timbre_gan"])
def test_the_gans_are_those_that_torch_alone_trains_also_when_they_go_on(family: str, tmp_path: Path) -> None:
    planned = gan_of(family, Folder(str(tmp_path / "data")))
    # Rolls: three steps are one of the generator and two of its critic.
    common = {"steps": 6, "batch_sequences": 4, "micro_batch_sequences": 2}
    train(planned(tmp_path / "alone", **common))
    plan = planned(tmp_path / "engines", **common, strategy="deepspeed", zero_stage=1, workers={"min": 1, "max": 2})
    train_on(2, plan, pause_at=4)
    assert {path.split("/")[0] for path in checkpoint.latest(plan.run).dataset.paths(".pt")} == {"generator", "critic"}
    train_on(1, plan)
    assert_close(weights_of(tmp_path / "engines"), weights_of(tmp_path / "alone"))


@pytest.mark.parametrize(("stage", "group"), [(1, (2, 1)), (2, (1, 2)), (3, (2, 1, 4))])
def test_a_checkpoint_of_some_ranks_goes_on_with_fewer_and_with_more(
    sequences: Folder, alone: Path, tmp_path: Path, stage: int, group: tuple[int, ...]
) -> None:
    changes = {**CHANGES, **KEPT, "strategy": "deepspeed", "zero_stage": stage, "workers": {"min": 1, "max": 4}}
    plan = plan_of(sequences, tmp_path, **changes)
    for num_ranks, pause_at in zip(group, (3, 4, None) if len(group) == 3 else (3, None), strict=True):
        train_on(num_ranks, plan, pause_at=pause_at, sampler=Dump(tmp_path / "dump"))
        if pause_at:
            saved = checkpoint.latest(plan.run)
            assert saved is not None
            assert (saved.step, saved.dataset.facts["num_ranks"]) == (pause_at, num_ranks)
    for step in (2, 4):
        assert_exported(plan.run, tmp_path / f"out-{step}", step=step, equals=tmp_path / "dump" / str(step))
    assert_close(weights_of(tmp_path), weights_of(alone))
    assert (tmp_path / "order.csv").read_bytes() == (alone / "order.csv").read_bytes()
