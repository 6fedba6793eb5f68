"""The training loop by torch alone: exact resume, accumulation, refusals."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.music import tokens_dataset
from tutti import lineage
from tutti.config import build
from tutti.errors import RecipeError, UserError
from tutti.models import bundle as bundles
from tutti.storage import Folder
from tutti.training import checkpoint
from tutti.training.loop import Trainer
from tutti.training.plan import Plan, Progress
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.schedule import learning_rate
from tutti.training.tracker import NoTracker


class StoppedError(Exception):
    """Stands for a kill: raised between two steps."""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    torch.set_num_threads(1)
    folder = Folder(str(tmp_path_factory.mktemp("tokens")))
    tokens_dataset(folder)
    return folder


def _recipe(**changes: object) -> TrainingRecipe:
    settings = {
        "steps": 8, "sequence_tokens": 128, "batch_sequences": 4, "micro_batch_sequences": 2, "workers": 1,
        "strategy": "plain", "checkpoint_every_steps": 3, "validate_every_steps": 4, "warmup_steps": 2, "seed": 1,
    }  # fmt: skip
    return TrainingRecipe(**{**settings, **changes})  # type: ignore[arg-type]


def _plan(tokens: Folder, run: Path, **changes: object) -> Plan:
    return Plan(
        name="walks",
        model=ModelRecipe(flavour="nano", dropout=0.1),
        training=_recipe(**changes),
        tokens=tokens,
        run=Folder(str(run)),
        inputs={"tokens": tokens.uri},
        collections=("walks",),
        baselines={"unigram": 4.0},
    )


def _train(plan: Plan, *, stop_at: int | None = None) -> list[Progress]:
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        seen.append(progress)
        if progress.step == stop_at:
            raise StoppedError

    Trainer(plan, rank=0, num_ranks=1, device=torch.device("cpu"), tracker=NoTracker(), watch=watch).run()
    return seen


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(bundles.load(run / "bundle").weights)


def test_a_run_learns_and_publishes_its_bundle(tokens: Folder, tmp_path: Path) -> None:
    _train(_plan(tokens, tmp_path, steps=60, learning_rate=1e-2, control_dropout=0.0, most_semitones=0))
    dataset = lineage.load(Folder(str(tmp_path)))
    measures = dataset.facts["measures"]
    assert measures["valid_nll_nats_per_token"] < measures["before_valid_nll_nats_per_token"] / 3
    bundle = bundles.load(tmp_path / "bundle")
    assert bundle.digest() == dataset.facts["digest"]
    assert bundle.collections == ("walks",)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("stop_at", "resumes_at"), [(2, 1), (4, 4), (7, 7)])
def test_killed_and_resumed_equals_never_stopped_to_the_bit(
    tokens: Folder, tmp_path: Path, stop_at: int, resumes_at: int
) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    losses = [progress.loss for progress in _train(_plan(tokens, straight))]
    with pytest.raises(StoppedError):
        _train(_plan(tokens, broken), stop_at=stop_at)
    resumed = _train(_plan(tokens, broken))
    assert resumed[0].step == resumes_at
    assert [progress.loss for progress in resumed] == losses[resumed[0].step - 1 :]
    for name, weight in _weights(straight).items():
        assert torch.equal(weight, _weights(broken)[name]), name


def test_a_checkpoint_without_manifest_is_none(tokens: Folder, tmp_path: Path) -> None:
    plan = _plan(tokens, tmp_path)
    with pytest.raises(StoppedError):
        _train(plan, stop_at=7)
    assert checkpoint.latest(plan.run).step == 6  # type: ignore[union-attr]
    (tmp_path / "checkpoints" / "step-00000006" / "manifest.json").unlink()
    assert checkpoint.latest(plan.run).step == 3  # type: ignore[union-attr]
    assert _train(plan)[0].step == 4


def test_only_the_newest_checkpoints_stay(tokens: Folder, tmp_path: Path) -> None:
    plan = _plan(tokens, tmp_path, checkpoint_every_steps=1, keep_checkpoints=2)
    with pytest.raises(StoppedError):
        _train(plan, stop_at=7)
    assert sorted(checkpoint.steps(plan.run)) == [5, 6]


def test_micro_batches_change_nothing_but_rounding(tokens: Folder, tmp_path: Path) -> None:
    for size in (1, 4):
        plan = _plan(tokens, tmp_path / str(size), steps=4, micro_batch_sequences=size)
        # Dropout draws by the shape of a forward pass, so only models without it can be compared.
        _train(replace(plan, model=ModelRecipe(flavour="nano", dropout=0.0)))
    whole = _weights(tmp_path / "4")
    for name, weight in _weights(tmp_path / "1").items():
        torch.testing.assert_close(weight, whole[name], rtol=1e-3, atol=1e-5)


def test_a_loss_that_explodes_stops_with_one_line(tokens: Folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+: lower training.learning_rate"):
        _train(_plan(tokens, tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=0.0, steps=20))


class Ending(NoTracker):
    """Remembers how its run ended."""

    def __init__(self) -> None:
        self.failed: bool | None = None

    def finish(self, *, failed: bool = False) -> None:
        self.failed = failed


@pytest.mark.parametrize(("learning_rate", "failed"), [(1e30, True), (1e-3, False)])
def test_the_record_of_a_run_is_closed_however_it_ends(
    tokens: Folder, tmp_path: Path, learning_rate: float, failed: bool
) -> None:
    plan = _plan(tokens, tmp_path, learning_rate=learning_rate, warmup_steps=0, clip_norm=0.0)
    tracker = Ending()
    trainer = Trainer(plan, rank=0, num_ranks=1, device=torch.device("cpu"), tracker=tracker, watch=lambda _: None)
    with pytest.raises(UserError) if failed else contextlib.nullcontext():
        trainer.run()
    assert tracker.failed is failed


def test_learning_rate_rises_and_falls() -> None:
    recipe = _recipe(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_share=0.1)
    rates = [learning_rate(step, recipe) for step in range(100)]
    assert rates[9] == rates[10] == max(rates) == 1.0
    assert np.all(np.diff(rates[:10]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"batch_sequences": 5, "workers": 2}, "batch_sequences 5 cannot be divided among 2 workers"),
        ({"batch_sequences": 12, "workers": 1, "micro_batch_sequences": 5}, "does not divide the 12 sequences"),
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'"),
        ({"steps": 0}, "steps = 0: Input should be greater than or equal to 1"),
    ],
)
def test_recipes_that_cannot_be_are_refused_in_one_line(settings: dict[str, object], line: str) -> None:
    with pytest.raises(RecipeError, match=line) as caught:
        build(TrainingRecipe, settings, origin="recipe")
    assert "\n" not in str(caught.value)


def test_damaged_shards_are_noticed(tokens: Folder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tokens.local_path, copy)
    shard = next(copy.glob("tokens-*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(Exception, match="differs from its manifest"):
        _train(_plan(Folder(str(copy)), tmp_path / "run"))
