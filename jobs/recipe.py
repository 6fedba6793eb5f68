"""The recipe of a model: everything from sources to the last training step, in one strict YAML file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pydantic import Field, model_validator

from jobs.ingest import IngestRecipe
from tutti.config import Settings, parse
from tutti.errors import MissingError
from tutti.registry.gate import Gate
from tutti.training.recipe import ModelRecipe, TrainingRecipe


class Tuning(Settings):
    """Which model is tuned by which pairs of takes."""

    model: str = Field(description="the model to tune: NAME/VERSION, NAME@ALIAS or NAME")
    pairs: str = Field(description="pairs of takes that `tutti feedback` made: their name, or their folder")


class Recipe(Settings):
    """What to read, what may be learnt from, which network, how it learns."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$", description="name of the model in the registry")
    corpus: IngestRecipe = Field(description="what is read into works")
    licences: tuple[str, ...] = Field(
        min_length=1, description="licences whose works may train, SPDX or LicenseRef-…; `unknown` only if named"
    )
    model: ModelRecipe = Field(default=ModelRecipe(), description="which network")
    tuning: Tuning | None = Field(
        default=None, description="a registered model to tune by listeners' preferences; nothing: a model is trained"
    )
    training: TrainingRecipe = Field(default=TrainingRecipe(), description="how it learns")
    gate: Gate = Field(default=Gate(), description="what a version must show to be promoted; asks nothing by itself")

    @model_validator(mode="after")
    def _tunes_or_trains(self) -> Recipe:
        if self.tuning is not None and "model" in self.model_fields_set:
            raise ValueError(f"a tuning keeps the network of {self.tuning.model}: leave out model")
        if self.tuning is None and self.training.preference is not None:
            raise ValueError("training.preference weighs pairs: name the model and the pairs in tuning")
        return self


def read(name_or_path: str, *, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe of a file, or one that Tutti carries, by its name.

    Raises:
        MissingError: neither is there.
        RecipeError: it breaks a rule.
    """
    path = Path(name_or_path)
    if path.is_file():
        return parse(Recipe, path.read_text(encoding="utf-8"), overrides=overrides, origin=str(path))
    carried = resources.files("jobs") / "recipes"
    held = carried / f"{name_or_path}.yaml"
    if "/" in name_or_path or not held.is_file():
        known = sorted(item.name.removesuffix(".yaml") for item in carried.iterdir() if item.name.endswith(".yaml"))
        names = [name for name in known if not name.startswith("order-")]
        raise MissingError(f"recipe {name_or_path!r} is not there", remedy=f"name a file, or one of {', '.join(names)}")
    return parse(Recipe, held.read_text(encoding="utf-8"), overrides=overrides, origin=f"recipe {name_or_path}")
