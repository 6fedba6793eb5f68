"""The training loop by torch alone: exact resume, accumulation, refusals."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.music import sequences_dataset
from tests.trainings import Dump, StoppedError, Watch, assert_same_bits, plan_of, recipe_of, train, weights_of
from tutti import lineage
from tutti.config import build
from tutti.errors import IntegrityError, RecipeError, UserError
from tutti.models import bundle as bundles
from tutti.storage import Folder
from tutti.training import checkpoint
from tutti.training.faults import parse
from tutti.training.ledger import Bill
from tutti.training.plan import Outcome
from tutti.training.recipe import TrainingRecipe
from tutti.training.schedule import learning_rate
from tutti.training.tracker import NoTracker


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    torch.set_num_threads(1)
    return sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder


def test_a_run_learns_and_publishes_its_bundle(sequences: Folder, tmp_path: Path) -> None:
    train(
        plan_of(
            sequences,
            tmp_path,
            steps=60,
            learning_rate=1e-2,
            control_dropout=0.0,
            all_controls_dropout=0.0,
            most_semitones=0,
        )
    )
    dataset = lineage.load(Folder(str(tmp_path)))
    measures = dataset.facts["measures"]
    assert measures["valid_nll_nats_per_token"] < measures["before_valid_nll_nats_per_token"] / 3
    bundle = bundles.load(tmp_path / "bundle")
    assert bundle.digest() == dataset.facts["digest"]
    assert bundle.collections == ("walks",)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(("stop_at", "resumes_at"), [(2, 1), (5, 4), (8, 7)])
def test_killed_and_resumed_equals_never_stopped_to_the_bit(
    sequences: Folder, tmp_path: Path, stop_at: int, resumes_at: int
) -> None:
    straight, broken = (plan_of(sequences, tmp_path / name) for name in ("straight", "broken"))
    _, undisturbed = train(straight)
    with pytest.raises(StoppedError):
        train(broken, watch=Watch(stop_at=stop_at))
    _, resumed = train(broken)
    assert min(resumed.losses) == resumes_at
    assert resumed.losses == {step: loss for step, loss in undisturbed.losses.items() if step >= resumes_at}
    assert_same_bits(weights_of(straight.run), weights_of(broken.run))


def test_asked_to_pause_it_saves_at_once_and_goes_on_there(sequences: Folder, tmp_path: Path) -> None:
    straight, paused = (plan_of(sequences, tmp_path / name) for name in ("straight", "paused"))
    train(straight)
    outcome, _ = train(paused, watch=Watch(pause_at=5))
    assert outcome == Outcome.PAUSED
    assert checkpoint.steps(paused.run) == [3, 5]
    outcome, watch = train(paused)
    assert outcome == Outcome.FINISHED
    assert min(watch.losses) == 6
    assert_same_bits(weights_of(straight.run), weights_of(paused.run))


def test_a_checkpoint_without_manifest_is_none_and_its_files_are_collected(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(sequences, tmp_path)
    with pytest.raises(StoppedError):
        train(plan, watch=Watch(stop_at=8))
    assert checkpoint.latest(plan.run).step == 6  # type: ignore[union-attr]
    damaged = next((tmp_path / "checkpoints").glob("step-00000006-*"))
    (damaged / "manifest.json").unlink()
    assert checkpoint.latest(plan.run).step == 3  # type: ignore[union-attr]
    with pytest.raises(StoppedError):
        train(plan, watch=Watch(stop_at=4))
    assert not damaged.exists()


def test_a_checkpoint_that_lost_a_file_is_passed_over(sequences: Folder, tmp_path: Path) -> None:
    straight, damaged = (plan_of(sequences, tmp_path / name) for name in ("straight", "damaged"))
    train(straight)
    with pytest.raises(StoppedError):
        train(damaged, watch=Watch(stop_at=8))
    folder = next((tmp_path / "damaged" / "checkpoints").glob("step-00000006-*"))
    (folder / "state-plain.pt").unlink()
    _, watch = train(damaged)
    assert min(watch.losses) == 4
    assert_same_bits(weights_of(straight.run), weights_of(damaged.run))


def test_the_policy_decides_which_checkpoints_stay(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(
        sequences, tmp_path, steps=13, checkpoint_every_steps=2, keep_checkpoints=1, keep_checkpoints_every_steps=4
    )
    with pytest.raises(StoppedError):
        train(plan, watch=Watch(stop_at=12, unhurried=True))
    assert checkpoint.steps(plan.run) == [4, 8, 10]
    train(plan, watch=Watch(unhurried=True))
    assert checkpoint.steps(plan.run) == [4, 8, 12]


def test_the_best_checkpoint_becomes_the_model_where_the_recipe_says_so(sequences: Folder, tmp_path: Path) -> None:
    # A rate that grows out of hand after the sixth step: what was learnt before is better than the end.
    changes = {
        "steps": 14, "checkpoint_every_steps": 2, "validate_every_steps": 2, "keep_best_checkpoints": 1,
        "learning_rate": 30.0, "warmup_steps": 100, "clip_norm": 0.0,
    }  # fmt: skip
    runs = {kind: plan_of(sequences, tmp_path / kind, publish=kind, **changes) for kind in ("last", "best")}
    for plan in runs.values():
        train(plan, watch=Watch(unhurried=True))
    facts = {kind: lineage.load(plan.run).facts for kind, plan in runs.items()}
    step = facts["best"]["training"]["published_step"]
    assert step < 14
    assert facts["last"]["training"]["published_step"] == 14
    nll = {kind: each["measures"]["valid_nll_nats_per_token"] for kind, each in facts.items()}
    assert nll["best"] < nll["last"]
    curve = dict(json.loads((tmp_path / "best" / "history.json").read_bytes())["valid"])
    assert nll["best"] == pytest.approx(curve[step], abs=1e-9)
    assert curve[step] == min(curve[kept] for kept in range(2, 14, 2))


def test_the_mean_of_checkpoints_becomes_the_model_where_it_is_better_than_each(
    sequences: Folder, tmp_path: Path
) -> None:
    # A rate that throws the weights about: their mean is calmer.
    changes = {
        "steps": 100, "checkpoint_every_steps": 2, "validate_every_steps": 2, "keep_best_checkpoints": 5,
        "learning_rate": 3e-2, "final_learning_rate_share": 1.0, "warmup_steps": 1, "sample_every_steps": 2,
    }  # fmt: skip
    plan = plan_of(sequences, tmp_path / "average", publish="average", **changes)
    train(plan, sampler=Dump(tmp_path / "dump"), watch=Watch(unhurried=True))
    facts = lineage.load(plan.run).facts
    steps = facts["training"]["averaged_steps"]
    curve = dict(json.loads((tmp_path / "average" / "history.json").read_bytes())["valid"])
    assert facts["measures"]["valid_nll_nats_per_token"] < min(curve.values())
    each = [bundles.load(tmp_path / "dump" / str(step)).weights for step in steps]
    published = weights_of(plan.run)
    assert len(steps) >= 5
    for name, value in published.items():
        torch.testing.assert_close(value, torch.stack([weights[name] for weights in each]).mean(0))


def test_where_no_mean_is_better_the_best_checkpoint_is_published(sequences: Folder, tmp_path: Path) -> None:
    changes = {
        "steps": 14, "checkpoint_every_steps": 2, "validate_every_steps": 2, "keep_best_checkpoints": 9,
        "learning_rate": 30.0, "warmup_steps": 100, "clip_norm": 0.0, "publish": "average",
    }  # fmt: skip
    plan = plan_of(sequences, tmp_path, **changes)
    train(plan, watch=Watch(unhurried=True))
    facts = lineage.load(plan.run).facts
    curve = dict(json.loads((tmp_path / "history.json").read_bytes())["valid"])
    assert "averaged_steps" not in facts["training"]
    lowest = min(nll for step, nll in curve.items() if step)
    assert facts["measures"]["valid_nll_nats_per_token"] == pytest.approx(lowest, abs=1e-9)


def test_a_batch_without_a_finite_loss_is_skipped_and_nothing_else_moves(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(sequences, tmp_path / "poisoned", record_order=True)
    _, watch = train(plan, faults=[parse("nan_loss@step=5")])
    assert any("batch 5; rolling back and skipping the batch" in line for line in watch.lines)
    facts = lineage.load(plan.run).facts
    assert facts["recovery"]["skipped_batches"] == [5]
    rows = np.loadtxt(tmp_path / "poisoned" / "order.csv", delimiter=",", skiprows=1, dtype=int)
    assert dict(rows[:, :2].tolist()) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 7, 7: 8}
    # Started anew, it knows of the batch from the run's folder and never meets it.
    (tmp_path / "poisoned" / "manifest.json").unlink()
    _, again = train(plan, faults=[parse("nan_loss@step=5")])
    assert not any("rolling back" in line for line in again.lines)


def test_the_order_is_written_the_same_whatever_happened(sequences: Folder, tmp_path: Path) -> None:
    straight, broken = (plan_of(sequences, tmp_path / name, record_order=True) for name in ("straight", "broken"))
    train(straight)
    for step in (2, 5, 7):
        with pytest.raises(StoppedError):
            train(broken, watch=Watch(stop_at=step))
    train(broken)
    assert (tmp_path / "straight" / "order.csv").read_bytes() == (tmp_path / "broken" / "order.csv").read_bytes()


def test_storage_that_is_away_while_it_trains_costs_a_delay(sequences: Folder, tmp_path: Path) -> None:
    straight, away = (plan_of(sequences, tmp_path / name) for name in ("straight", "away"))
    train(straight)
    _, watch = train(away, faults=[parse("storage_down@step=2,seconds=3")])
    assert any("trying again" in line for line in watch.lines)
    assert_same_bits(weights_of(straight.run), weights_of(away.run))


def test_the_bill_tells_every_second_once(sequences: Folder, tmp_path: Path) -> None:
    plan = plan_of(sequences, tmp_path, prices={"currency": "CHF", "worker_hour": {"cpu": 36.0}})
    began_s = time.time()
    train(plan)
    seconds = time.time() - began_s
    bill = Bill.read(plan.run)
    assert bill is not None
    assert bill.ledger.worker_seconds() == pytest.approx(seconds, abs=1.0)
    assert bill.price == pytest.approx(bill.ledger.worker_seconds() * 0.01)
    facts = lineage.load(plan.run).facts
    assert facts["cost"]["currency"] == "CHF"
    assert facts["cost"]["tokens_per_unit"] == pytest.approx(facts["training"]["tokens"] / bill.price, rel=1e-2)


@pytest.mark.parametrize("change", [{"activation_checkpointing": True}, {"precision": "bf16"}])
def test_how_it_is_computed_changes_only_rounding(sequences: Folder, tmp_path: Path, change: dict[str, object]) -> None:
    losses = []
    for name, changes in (("as_is", {}), ("changed", change)):
        _, watch = train(plan_of(sequences, tmp_path / name, steps=4, **changes))  # type: ignore[arg-type]
        losses.append([watch.losses[step] for step in range(1, 5)])
    rounding = 2e-2 if change.get("precision") == "bf16" else 1e-6
    assert losses[1] == pytest.approx(losses[0], rel=rounding)
    assert (losses[1] != losses[0]) == (change.get("precision") == "bf16")


def test_micro_batches_change_nothing_but_rounding(sequences: Folder, tmp_path: Path) -> None:
    for size in (1, 4):
        plan = plan_of(sequences, tmp_path / str(size), steps=4, micro_batch_sequences=size, dropout=0.0)
        # Dropout draws by the shape of a forward pass, so only models without it can be compared.
        train(plan)
    whole = weights_of(tmp_path / "4")
    for name, weight in weights_of(tmp_path / "1").items():
        torch.testing.assert_close(weight, whole[name], rtol=1e-3, atol=1e-5)


def test_a_loss_that_explodes_stops_with_one_line(sequences: Folder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf) at step \d+ and 3 batches were skipped already: lower"):
        train(plan_of(sequences, tmp_path, learning_rate=1e30, warmup_steps=0, clip_norm=0.0, steps=20))


class Ending(NoTracker):
    """Remembers how its run ended."""

    def __init__(self) -> None:
        self.failed: bool | None = None

    def finish(self, *, failed: bool = False) -> None:
        self.failed = failed


@pytest.mark.parametrize(("learning_rate", "failed"), [(1e30, True), (1e-3, False)])
def test_the_record_of_a_run_is_closed_however_it_ends(
    sequences: Folder, tmp_path: Path, learning_rate: float, failed: bool
) -> None:
    plan = plan_of(sequences, tmp_path, learning_rate=learning_rate, warmup_steps=0, clip_norm=0.0)
    tracker = Ending()
    with pytest.raises(UserError) if failed else contextlib.nullcontext():
        train(plan, tracker=tracker)
    assert tracker.failed is failed


def test_learning_rate_rises_and_falls() -> None:
    recipe = recipe_of(steps=100, warmup_steps=10, learning_rate=1.0, final_learning_rate_share=0.1)
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


def test_damaged_shards_are_noticed(sequences: Folder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(sequences.local_path, copy)
    shard = next(path for path in copy.rglob("*.parquet") if "train" in str(path))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="differs from its manifest"):
        train(plan_of(Folder(str(copy)), tmp_path / "run"))
