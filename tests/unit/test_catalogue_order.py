"""An order is read strictly, and every fault is one line that names the value and the remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobs.catalogue import read_order
from tutti.catalogue.order import Checks, Line, Order
from tutti.catalogue.publish import place_of
from tutti.catalogue.takes import Plan, take_id_of
from tutti.config import build, parse
from tutti.errors import InputError, RecipeError
from tutti.generation.request import Request
from tutti.storage import Folder

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
SMALL: dict[str, Any] = {"name": "small", "model": "bach", "lines": [{"count": 3}]}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("order-*.yaml")), ids=lambda path: path.name)
def test_every_example_order_can_be_read_and_written_back(path: Path) -> None:
    order = read_order(path)
    assert order.takes == sum(line.count for line in order.lines)
    assert build(Order, order.document()) == order


def test_there_is_an_example_order() -> None:
    assert list(RECIPES.glob("order-*.yaml"))


@pytest.mark.parametrize("kind", [Order, Line, Checks])
def test_every_field_has_a_sentence(kind: type[BaseModel]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, "unknown key 'titel'"),
        (
            {"lines": [{"count": 1, "controls": {"tempoo": 90}}]},
            r"unknown key 'lines.0.controls.tempoo'; did you mean 'tempo'",
        ),
        ({"lines": [{"count": 1, "controls": {"length": "10h"}}]}, "length 10h is outside"),
        ({"lines": [{"count": 1, "controls": {"length": 36_000}}]}, "length 36000.* is outside 1 s to 600 s"),
        ({"lines": [{"count": 1, "controls": {"tempo": 0}}]}, "tempo 0 is outside 20 to 300"),
        ({"lines": [{"count": 1, "controls": {"seed": 3}}]}, "the order's seed rules every take"),
        ({"lines": [{"count": 1, "controls": {"best_of": 65}}]}, "lines.0.controls.best_of = 65"),
        ({"lines": [{"count": 0}]}, "lines.0.count = 0"),
        ({"lines": []}, "lines"),
        ({"lines": [{"count": 60_000}, {"count": 60_000}]}, "120000 takes are more than the 100000"),
        ({"name": "../elsewhere"}, "name = '../elsewhere'"),
        ({"name": "Café"}, "a name has 1 to 63 of a-z"),
        ({"formats": ["midi", "aiff"]}, "formats.1 = 'aiff'"),
        ({"sound": {"room": "cave"}}, "sound.room = 'cave'"),
        ({"sound": {"sample_rate_hz": 22_050}}, "sound.sample_rate_hz = 22050"),
        ({"sound": {"loudness_lufs": -3}}, "sound.loudness_lufs = -3"),
        ({"formats": ["midi", "midi"]}, "a format is named twice"),
        ({"checks": {"pitch_low": 90, "pitch_high": 40}}, "pitch_low 90 is not below pitch_high 40"),
        ({"lines": [{"count": 1, "title": "{tempo}"}]}, r"the title uses \{tempo\}, which the controls leave open"),
        ({"lines": [{"count": 1, "title": "{composer}"}]}, r"not \{composer\}"),
        ({"lines": [{"count": 1, "title": "{number.__class__}"}]}, "braces in a title stand around a field"),
        ({"lines": [{"count": 1, "title": "two\nlines"}]}, "one line of printable characters"),
        ({"lines": [{"count": 1, "title": "  "}]}, "at least one letter"),
    ],
)
def test_a_fault_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build(Order, {**SMALL, **change})
    assert "\n" not in str(caught.value)


def test_an_order_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"cannot read the order nowhere\.yaml"):
        read_order(Path("nowhere.yaml"))


def test_a_title_counts_from_one_and_sorts() -> None:
    line = build(Line, {"count": 120, "title": "{order}, {line}: {key} {number}", "controls": {"key": "d minor"}})
    assert line.title_of(6, order="calm", line=1) == "calm, 2: D minor 007"


def test_a_title_may_hold_markup_as_text() -> None:
    line = build(Line, {"count": 1, "title": "<b>{number}</b> & co"})
    assert line.title_of(0, order="x", line=0) == "<b>1</b> & co"


def test_overrides_lie_over_the_file() -> None:
    order = parse(Order, "name: a\nmodel: m\nlines: [{count: 1}]\n", overrides=["seed=9", "checks.min_notes=20"])
    assert (order.seed, order.checks.min_notes) == (9, 20)


def test_how_an_order_is_made_is_no_part_of_its_address() -> None:
    def address(**fields: Any) -> str:
        order = build(Order, {**SMALL, **fields})
        assert build(Order, order.document()) == order
        return place_of(Plan(order, "bach", "1", "d" * 32), root=Folder("results")).uri

    assert address() == address(max_batch=4) == address(cache_bytes=1 << 20)
    assert address() != address(takes_per_block=4)


def test_a_precision_that_is_asked_is_part_of_what_a_take_is() -> None:
    """Other bits give other notes, so a take of named ones is another; what is left to the machine keeps its name."""
    request = Request(bars=2, seed=1)
    usual = take_id_of(request, model_digest="m")
    assert take_id_of(request, model_digest="m", precision="auto") == usual
    assert len({take_id_of(request, model_digest="m", precision=bits) for bits in ("auto", "float32", "bfloat16")}) == 3
    tree = {"name": "a", "model": "m", "lines": [{"count": 1}]}
    assert "precision" not in Order(**tree).document()
    asked = Order(**tree, precision="float32")
    assert asked.document()["precision"] == "float32"
    assert Order(**asked.document()) == asked
