"""What a recipe allows, what decides the weights, and in which order data comes, on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.music import sequences_dataset
from tests.trainings import recipe_of
from tutti.config import build
from tutti.dataset.loader import Loader
from tutti.dataset.sequences import SequenceLayout
from tutti.errors import RecipeError
from tutti.storage import Folder
from tutti.training import publishing, skipping
from tutti.training.recipe import LOGISTICS, TrainingRecipe
from tutti.training.skipping import number_of

# Workers


@pytest.mark.parametrize(
    ("given_workers", "workers", "shown"),
    [
        (4, (4, 4), "4"),
        ({"min": 1, "max": 4}, (1, 4), "1 to 4"),
        ({"min": 2}, (2, 2), "2"),
        ({"max": 4}, (2, 4), "2 to 4"),
    ],
)
def test_workers_are_a_number_or_a_range(given_workers: Any, workers: tuple[int, int], shown: str) -> None:
    recipe = build(TrainingRecipe, {"workers": given_workers}, origin="recipe")
    assert (recipe.workers.min, recipe.workers.max) == workers
    assert str(recipe.workers) == shown


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"workers": 0}, "Input should be greater than or equal to 1"),
        ({"workers": True}, "workers"),
        ({"workers": "two"}, "workers"),
        ({"workers": {"min": 4, "max": 2}}, "min 4 is more than max 2"),
        ({"workers": {"least": 1}}, "unknown key"),
        ({"workers": {"min": 0, "max": 2}}, "greater than or equal to 1"),
        ({"workers": 3}, "batch_sequences 16 cannot be divided among 3 workers"),
        ({"workers": {"min": 3, "max": 3}}, "batch_sequences 16 cannot be divided among 3 workers"),
        (
            {"workers": {"min": 3, "max": 3}, "batch_sequences": 12, "micro_batch_sequences": 3},
            "the 4 micro-batches of a step cannot be divided among 3 workers; let micro_batch_sequences divide 4",
        ),
        ({"offload": "cpu", "zero_stage": 0}, "offload cpu needs strategy deepspeed and a zero_stage of 1, 2 or 3"),
        ({"offload": "cpu", "strategy": "plain"}, "offload cpu needs strategy deepspeed"),
        ({"home_key": True}, "home_key undoes what most_semitones transposes"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build(TrainingRecipe, changes, origin="recipe")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    batch=st.integers(1, 64), micro=st.integers(1, 16), least=st.integers(1, 8), more=st.integers(0, 8),
)  # fmt: skip
def test_every_possible_number_of_workers_divides_the_grains(batch: int, micro: int, least: int, more: int) -> None:
    changes = {"batch_sequences": batch, "micro_batch_sequences": micro, "workers": {"min": least, "max": least + more}}
    try:
        recipe = build(TrainingRecipe, changes, origin="recipe")
    except RecipeError:
        return
    assert recipe.num_grains * recipe.micro_batch == batch
    assert recipe.micro_batch <= micro
    assert recipe.possible_workers
    assert list(recipe.possible_workers) == sorted(set(recipe.possible_workers))
    for workers in range(1, least + more + 1):
        can = least <= workers and recipe.num_grains % workers == 0
        assert (workers in recipe.possible_workers) == can


# Identity

OTHERS: dict[str, Any] = {
    "steps": 9, "sequence_tokens": 64, "batch_sequences": 8, "micro_batch_sequences": 1, "learning_rate": 1e-3,
    "final_learning_rate_share": 0.5, "warmup_steps": 3, "weight_decay": 0.2, "beta2": 0.9, "clip_norm": 0.5,
    "most_semitones": 2, "stretch_rate": 0.1, "most_stretch": 0.2, "thin_rate": 0.1, "instruments_rate": 0.1,
    "splice_rate": 0.1, "velocity_drop_rate": 0.1, "control_dropout": 0.3, "all_controls_dropout": 0.3,
    "seed": 2, "mixture": {"walks": 1.0}, "home_key": True,
    "workers": {"min": 1, "max": 2}, "threads_per_worker": 2, "gpus_per_worker": 1, "strategy": "deepspeed",
    "zero_stage": 3, "offload": "cpu", "precision": "bf16", "compile": True, "activation_checkpointing": True,
    "checkpoint_every_steps": 7, "keep_checkpoints": 5, "keep_best_checkpoints": 1, "keep_checkpoints_every_steps": 4,
    "publish": "best", "validate_every_steps": 3, "sample_every_steps": 2, "max_failures": 9, "max_rollbacks": 9,
    "hang_timeout_s": 5.0, "stall_timeout_s": 60.0, "storage_patience_s": 5.0, "record_order": True,
    "prices": {"worker_hour": {"cpu": 1.0}}, "preference": {"beta": 0.2},
}  # fmt: skip
"""Another value of every setting; a setting that is new must be put here, and so into one of the two kinds."""
DECIDE = {
    "steps", "sequence_tokens", "batch_sequences", "micro_batch_sequences", "learning_rate",
    "final_learning_rate_share", "warmup_steps", "weight_decay", "beta2", "clip_norm", "most_semitones",
    "stretch_rate", "most_stretch", "thin_rate", "instruments_rate", "splice_rate", "velocity_drop_rate",
    "control_dropout", "all_controls_dropout", "seed", "mixture", "strategy", "zero_stage", "offload",
    "precision", "compile", "activation_checkpointing", "publish", "validate_every_steps", "preference", "home_key",
}  # fmt: skip


def test_every_setting_decides_the_weights_or_is_logistics() -> None:
    assert set(OTHERS) == set(TrainingRecipe.model_fields) == DECIDE | LOGISTICS
    assert not DECIDE & LOGISTICS


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_only_what_decides_the_weights_moves_a_run(name: str) -> None:
    # Offload wants DeepSpeed around it, and a home key nothing that leads away from it.
    around: dict[str, Any] = {"strategy": "deepspeed"} if name in ("offload", "zero_stage") else {}
    around |= {"most_semitones": 0} if name == "home_key" else {}
    left, right = recipe_of(**around), recipe_of(**around, **{name: OTHERS[name]})
    assert left != right
    assert (left.identity() != right.identity()) == (name in DECIDE)


@given(
    batch=st.sampled_from([8, 12, 16]), micro=st.integers(1, 16), one=st.integers(1, 8), other=st.integers(1, 8)
)  # fmt: skip
def test_workers_move_a_run_only_where_they_move_its_grains(batch: int, micro: int, one: int, other: int) -> None:
    changes = {"batch_sequences": batch, "micro_batch_sequences": micro}
    try:
        left, right = (build(TrainingRecipe, {**changes, "workers": n}, origin="recipe") for n in (one, other))
    except RecipeError:
        return
    # Dropout is drawn by the grain, so where workers make it smaller the weights are others.
    assert (left.identity() == right.identity()) == (left.micro_batch == right.micro_batch)


# Batches that are skipped


@given(st.sets(st.integers(0, 60), max_size=12), st.integers(1, 40))
def test_the_order_closes_up_over_skipped_batches(left_out: set[int], steps: int) -> None:
    skipped = tuple(sorted(left_out))
    numbers = [number_of(step, skipped) for step in range(steps)]
    # Strictly rising, never one that is skipped, and none left out besides.
    assert numbers == [number for number in range(steps + len(skipped)) if number not in left_out][:steps]


@given(st.integers(0, 10**9))
def test_without_skips_a_step_is_its_batch(step: int) -> None:
    assert number_of(step, ()) == step


@given(st.sets(st.integers(0, 60), max_size=8), st.integers(0, 60), st.integers(0, 40))
def test_a_new_skip_moves_only_what_comes_after(left_out: set[int], another: int, step: int) -> None:
    before, after = (number_of(step, tuple(sorted(each))) for each in (left_out, left_out | {another}))
    assert after == before if before < another else after >= before


def test_skips_are_known_to_the_next_attempt(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    assert skipping.read(run) == ()
    skipping.write(run, (7, 3))
    assert skipping.read(run) == (3, 7)


# The order's file


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Loader:
    sequences = sequences_dataset(Folder(str(tmp_path_factory.mktemp("data"))))
    return Loader(sequences, split="train", layout=SequenceLayout(sequence_tokens=128), batch_sequences=8, seed=3)


STEPS = 12


def _rows(loader: Loader, *, steps: range, num_ranks: int, skipped: tuple[int, ...]) -> list[list[int]]:
    """What all ranks of an attempt note, rank by rank, as the loop gathers it."""
    share = loader.batch_sequences // num_ranks
    return [
        row
        for rank in range(num_ranks)
        for step in steps
        for row in publishing.order_rows(
            loader, step=step, number=number_of(step, skipped), rows=range(rank * share, (rank + 1) * share)
        )
    ]


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_the_order_is_the_same_file_on_any_number_of_ranks(loader: Loader, num_ranks: int) -> None:
    alone, together = (
        publishing.order_file(_rows(loader, steps=range(STEPS), num_ranks=each, skipped=())) for each in (1, num_ranks)
    )
    assert together == alone
    assert alone.startswith(b"step,batch,row,source,epoch,sequence\n0,0,0,")
    assert alone.count(b"\n") == 1 + STEPS * loader.batch_sequences


@settings(max_examples=40)
@given(
    attempts=st.lists(
        st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(0, STEPS), st.integers(0, STEPS)), max_size=5
    ),
    skipped=st.sets(st.integers(0, STEPS + 2), max_size=3),
)
def test_the_order_is_the_same_file_whatever_happened(
    loader: Loader, attempts: list[tuple[int, int, int]], skipped: set[int]
) -> None:
    left_out = tuple(sorted(skipped))
    straight = publishing.order_file(_rows(loader, steps=range(STEPS), num_ranks=1, skipped=left_out))
    saved, kept = 0, list[list[int]]()
    # Each attempt goes on from the last checkpoint, saves some steps later and dies after some more.
    for num_ranks, until_save, _ in attempts:
        stop = min(saved + until_save, STEPS)
        kept += _rows(loader, steps=range(saved, stop), num_ranks=num_ranks, skipped=left_out)
        saved = stop
    kept += _rows(loader, steps=range(saved, STEPS), num_ranks=2, skipped=left_out)
    assert publishing.order_file(kept) == straight


@given(num_ranks=st.sampled_from([1, 2, 4, 8]), number=st.integers(0, 30), data=st.data())
@settings(max_examples=20)
def test_what_is_noted_is_what_was_read(loader: Loader, num_ranks: int, number: int, data: st.DataObject) -> None:
    share = loader.batch_sequences // num_ranks
    rank = data.draw(st.integers(0, num_ranks - 1))
    rows = range(rank * share, (rank + 1) * share)
    noted = publishing.order_rows(loader, step=0, number=number, rows=rows)
    batch = loader.batch(number, first=rows.start, stop=rows.stop)
    every = list(loader.in_order(rank=0, num_ranks=1, rows=1))
    for place, (*_, source, _epoch, sequence) in enumerate(noted):
        assert source == 0
        assert (batch.inputs_BT[place] == every[sequence].inputs_BT[0]).all()
