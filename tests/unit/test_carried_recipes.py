"""Every recipe that Tutti carries can be followed: it parses, and its model can be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import recipe as recipes
from tutti.training.examples import configuration_of

CARRIED = Path(recipes.__file__).parent / "recipes"
NAMES = sorted(path.stem for path in CARRIED.glob("*.yaml") if not path.stem.startswith("order-"))


@pytest.mark.parametrize("name", NAMES)
def test_a_carried_recipe_names_a_model_that_can_be_made(name: str) -> None:
    recipe = recipes.read(name)
    assert configuration_of(recipe.expected_model, recipe.training).parameters > 1000
    assert recipe.training.steps >= 1


def test_a_recipe_for_one_large_gpu_says_so() -> None:
    assert [name for name in NAMES if name.endswith("-gpu")]
    for name in NAMES:
        assert recipes.read(name).training.gpus_per_worker == float(name.endswith("-gpu")), name
