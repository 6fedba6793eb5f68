"""Settings are strict, frozen and told about in one line."""

from __future__ import annotations

import contextlib

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator

from tutti.config import Settings, build, digest_of, parse
from tutti.errors import RecipeError


class Optimizer(Settings):
    rate: float = Field(default=1e-3, gt=0, description="learning rate")
    warmup_steps: int = Field(default=10, ge=0, description="steps of warm-up")


class Stage(Settings):
    name: str = Field(default="a", description="name")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="the optimizer")


class Recipe(Settings):
    steps: int = Field(default=100, ge=1, description="steps")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="the optimizer")
    other: Optimizer | None = Field(default=None, description="a second one")
    stages: tuple[Stage, ...] = Field(default=(), description="stages")
    title: str = Field(default="x", description="title")

    @field_validator("title")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 20:
            raise ValueError("a title has at most 20 letters")
        return value

    @model_validator(mode="after")
    def _enough(self) -> Recipe:
        if self.optimizer.warmup_steps > self.steps:
            raise ValueError("warm-up is longer than the training")
        return self


def test_overrides_lie_over_the_file_in_order() -> None:
    recipe = parse(
        Recipe,
        "steps: 5\noptimizer: {rate: 0.5}",
        overrides=["optimizer.warmup_steps=3", "steps=7", "steps=8", "other.rate=2", "title=a=b"],
    )
    assert recipe.steps == 8
    assert recipe.optimizer == Optimizer(rate=0.5, warmup_steps=3)
    assert recipe.other == Optimizer(rate=2)
    assert recipe.title == "a=b"


@pytest.mark.parametrize("text", ["", "# nothing", "optimizer:", "{}"])
def test_what_is_left_out_has_its_default_and_can_be_laid_over(text: str) -> None:
    if text == "optimizer:":
        assert parse(Recipe, text, overrides=["optimizer.rate=2"]).optimizer.rate == 2
    else:
        assert parse(Recipe, text) == Recipe()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("stepz: 3", [], "r.yaml: unknown key 'stepz'; did you mean 'steps'?"),
        ("optimizer: {rat: 3}", [], "r.yaml: unknown key 'optimizer.rat'; did you mean 'rate'?"),
        ("other: {warmup: 3}", [], "r.yaml: unknown key 'other.warmup'; did you mean 'warmup_steps'?"),
        ("stages: [{}, {optimizer: {xyz: 3}}]", [], "known keys here are rate, warmup_steps"),
        ("", ["zzz=1"], "unknown key 'zzz'; known keys here are optimizer, other, stages, steps, title"),
        ("steps: 0", [], "r.yaml: steps = 0: Input should be greater than or equal to 1"),
        ("optimizer: {rate: .inf}", [], "r.yaml: optimizer.rate = inf: Input should be a finite number"),
        ("steps: many", [], "r.yaml: steps = 'many': Input should be a valid integer"),
        ("title: 'a title that is far too long'", [], "a title has at most 20 letters"),
        ("steps: 1", [], "r.yaml: warm-up is longer than the training"),
        ("[1, 2]", [], "r.yaml holds list, not keys: write `key: value` lines"),
        ("a: [", [], "r.yaml is not YAML"),
        ("steps: 2026-13-01", [], "r.yaml is not YAML"),
        ("1: 2", [], "Keys should be strings"),
        ("", ["steps"], "--set 'steps' has no value: write it like training.steps=100"),
        ("", ["=3"], "--set '=3' has no value"),
        ("steps: 3", ["steps.x=3"], "--set 'steps.x=3': 'steps' holds a value, not keys: name a key that is there"),
        ("", ["steps=["], "--set 'steps=[' is not YAML"),
    ],
)
def test_a_fault_is_one_line_that_names_it(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse(Recipe, text, overrides=overrides, origin="r.yaml")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(RecipeError) as raised:
        build(Recipe, {"steps": ["x" * 10_000] * 1000})
    assert len(str(raised.value)) < 300


@given(st.text(max_size=60))
def test_whatever_the_file_holds_only_a_recipe_error_comes_out(text: str) -> None:
    with contextlib.suppress(RecipeError):
        assert isinstance(parse(Recipe, text), Recipe)


def test_settings_never_change() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Recipe().steps = 3  # type: ignore[misc]


def test_the_digest_knows_every_value_and_no_order() -> None:
    assert parse(Recipe, "steps: 50\ntitle: y").digest() == parse(Recipe, "title: y\nsteps: 50").digest()
    assert Recipe().digest() == Recipe(steps=100).digest()
    assert Recipe().digest() != Recipe(optimizer=Optimizer(rate=2)).digest()
    assert digest_of({"a": [1, 2.5, "é", None]}) == digest_of({"a": [1, 2.5, "é", None]})
    assert digest_of({"a": 1}) == "015abd7f5cc57a2d"
