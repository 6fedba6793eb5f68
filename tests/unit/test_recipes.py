"""The recipes that Tutti carries: each can be followed, and fits the machine that its first line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import recipe as recipes
from jobs.dry_run import asked_of
from tutti.errors import RecipeError
from tutti.training.sizing import GIB, Machine, fits

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if not path.stem.startswith("order-"))
TWO_CORES = Machine(cores=2, memory_bytes=12 * GIB)
ONE_GPU = Machine(cores=8, memory_bytes=64 * GIB, gpus=1, gpu_memory_bytes=80 * GIB)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_fits_the_machine_that_it_is_for(name: str) -> None:
    asked = asked_of(recipes.read(name))
    wants_gpu = asked.gpus_per_worker > 0
    assert wants_gpu == name.endswith("-gpu")
    assert fits(asked, ONE_GPU if wants_gpu else TWO_CORES) == ()
    if wants_gpu:
        assert fits(asked, TWO_CORES)[0].startswith("1 worker want 1 GPUs, this machine has 0")


@pytest.mark.parametrize("name", ["roll-gan", "timbre"])
def test_two_networks_are_not_sharded_as_one_may_be(name: str) -> None:
    stage, last = "training.zero_stage=3", "training.publish=last"
    with pytest.raises(RecipeError, match=r"is two networks.* Set training.zero_stage to 0, 1 or 2"):
        recipes.read(name, overrides=("training.strategy=deepspeed", stage, last))
    # Without DeepSpeed the stage says nothing.
    recipes.read(name, overrides=("training.strategy=plain", stage))
