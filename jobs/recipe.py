"""The recipe of a model: everything from sources to the last training step, in one strict YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from jobs.ingest import IngestRecipe
from jobs.notes import DECIDED, NotesRecipe
from tutti.config import Settings, parse
from tutti.errors import MissingError
from tutti.models.families import family_of
from tutti.registry.gate import Gate
from tutti.training.recipe import ModelRecipe, TrainingRecipe


class Tuning(Settings):
    """Which model is tuned by which pairs of takes."""

    model: str = Field(description="the model to tune: NAME/VERSION, NAME@ALIAS or NAME")
    pairs: str = Field(description="pairs of takes that `tutti feedback` made: their name, or their folder")


class Recipe(Settings):
    """What to read, what may be learnt from, which network, how it learns."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$", description="name of the model in the registry")
    corpus: IngestRecipe | None = Field(
        default=None, description="what is read into works and clips; only a family of notes may do without"
    )
    notes: NotesRecipe | None = Field(
        default=None, description="which single notes are learnt from, for a family that learns instruments"
    )
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

    @model_validator(mode="after")
    def _shards_one_network(self) -> Recipe:
        training, family = self.training, family_of(self.model.family)
        if family.learning == "adversarial" and training.strategy == "deepspeed" and training.zero_stage == 3:
            raise ValueError(
                f"a {family.name} is two networks, whose losses run through both: no engine of DeepSpeed shards the "
                "weights of either. Set training.zero_stage to 0, 1 or 2"
            )
        return self

    @model_validator(mode="after")
    def _reads_something(self) -> Recipe:
        family = self.model.family
        if family_of(family).reads != "spectra":
            if self.notes is not None:
                raise ValueError(f"a {family} learns from works, not from notes; leave the section notes out")
            if self.corpus is None:
                raise ValueError("corpus says what is read, and is missing")
            return self
        if self.notes is None:
            raise ValueError(f"notes says what a {family} learns from, and is missing")
        if not self.notes.programs and self.corpus is None:
            raise ValueError("notes are played by notes.programs or cut from corpus, and there is neither")
        decided = sorted(DECIDED & self.model.settings.keys())
        if decided:
            raise ValueError(f"model.settings.{decided[0]} is what the notes decide; set it in the section notes")
        return self

    def model_of(self, decided: Mapping[str, Any]) -> ModelRecipe:
        """The model with what its examples decide among its settings."""
        return self.model.model_copy(update={"settings": {**self.model.settings, **decided}})

    @property
    def expected_model(self) -> ModelRecipe:
        """The same before there are examples: of instruments in clips, one is expected for each source."""
        if self.notes is None:
            return self.model
        sources = 0 if self.corpus is None else len(self.corpus.sources)
        return self.model_of(self.notes.decides(instruments=len(set(self.notes.programs)) + sources))


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
