from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.config import build
from tutti.errors import RecipeError
from tutti.registry.gate import Gate, findings, judged, rules

NLL = "valid_nll_nats_per_token"
FACTS: dict[str, Any] = {
    "measures": {
        NLL: 1.5, "unigram_nll_nats_per_token": 3.8, "bigram_nll_nats_per_token": 1.4, "key_share": 0.8,
        "broken": float("nan"), "text": "1.0", "yes": True,
    },
    "data": {"licences": {"CC0-1.0": 3, "CC-BY-4.0": 1}},
    "recovery": {"skipped_batches": [7, 19]},
}  # fmt: skip
BETTER: dict[str, Any] = {"measures": {NLL: 1.45}}
UNMEASURED: dict[str, Any] = {"measures": {}}


@pytest.mark.parametrize(
    ("asked", "production", "faults"),
    [
        ({}, None, []),
        ({"measures": {NLL: {"at_most": 1.5}}}, None, []),
        ({"measures": {NLL: {"at_most": 1.4999}}}, None, [f"{NLL} at most 1.4999: 1.5"]),
        ({"measures": {"key_share": {"at_least": 0.8}}}, None, []),
        (
            {"measures": {"key_share": {"at_least": 0.81, "at_most": 0.9}}},
            None,
            ["key_share at least 0.81: 0.8"],
        ),
        ({"measures": {"rhythm": {"at_least": 0.1}}}, None, ["rhythm at least 0.1: not measured"]),
        ({"measures": {"broken": {"at_most": 9}}}, None, ["broken at most 9: not measured"]),
        ({"measures": {"text": {"at_most": 9}}}, None, ["text at most 9: not measured"]),
        ({"measures": {"yes": {"at_most": 9}}}, None, ["yes at most 9: not measured"]),
        ({"beats": ["unigram"]}, None, []),
        ({"beats": ["unigram", "bigram"]}, None, [f"{NLL} below that of bigram: 1.5 against 1.4"]),
        ({"beats": ["trigram"]}, None, [f"{NLL} below that of trigram: 1.5 against not measured"]),
        ({"no_worse_than_production": {NLL: 0.0}}, None, []),
        ({"no_worse_than_production": {NLL: 0.05}}, BETTER, []),
        (
            {"no_worse_than_production": {NLL: 0.04}},
            BETTER,
            [f"{NLL} at most 0.04 above production's: 1.5, production's 1.45"],
        ),
        ({"no_worse_than_production": {NLL: 0.0}}, UNMEASURED, []),
        (
            {"no_worse_than_production": {NLL: -0.1}},
            {"measures": {NLL: 1.55}},
            [f"{NLL} 0.1 below production's: 1.5, production's 1.55"],
        ),
        (
            {"no_worse_than_production": {"rhythm": 0.0}},
            None,
            ["rhythm at most 0 above production's: not measured, nothing is in production"],
        ),
        ({"licences": ["CC0-1.0", "CC-BY-4.0", "PDM-1.0"]}, None, []),
        ({"licences": ["CC0-1.0"]}, None, ["no licence but CC0-1.0: also CC-BY-4.0"]),
        ({"licences": []}, None, ["no licensed data: also CC-BY-4.0, CC0-1.0"]),
        ({"most_skipped_batches": 2}, None, []),
        ({"most_skipped_batches": 1}, None, ["at most 1 skipped batches: 2 skipped"]),
        (
            {"measures": {NLL: {"at_most": 1}}, "beats": ["bigram"], "most_skipped_batches": 0},
            None,
            [
                f"{NLL} at most 1: 1.5",
                f"{NLL} below that of bigram: 1.5 against 1.4",
                "at most 0 skipped batches: 2 skipped",
            ],
        ),
    ],
)
def test_the_table(asked: dict[str, Any], production: dict[str, Any] | None, faults: list[str]) -> None:
    gate = build(Gate, asked)
    assert [str(fault) for fault in judged(gate, FACTS, production=production)] == faults


ASKS_EVERYTHING = build(
    Gate,
    {
        "measures": {NLL: {"at_most": 100.0, "at_least": -100.0}},
        "beats": ["unigram"],
        "no_worse_than_production": {NLL: 100.0},
        "licences": ["CC0-1.0"],
        "most_skipped_batches": 10,
    },
)


@pytest.mark.parametrize("facts", [{}, {"measures": None, "data": [], "recovery": 3}])
def test_the_unknown_does_not_pass(facts: dict[str, Any]) -> None:
    found = findings(ASKS_EVERYTHING, facts, production=BETTER)
    assert len(found) == 6
    assert not any(finding.holds for finding in found)


def test_an_empty_gate_asks_nothing_of_anything() -> None:
    assert judged(Gate(), {}) == findings(Gate(), FACTS) == ()
    assert rules(Gate()) == ()


def test_the_rules_are_told_in_words_without_a_version() -> None:
    assert rules(ASKS_EVERYTHING) == tuple(finding.rule for finding in findings(ASKS_EVERYTHING, FACTS))


@given(limit=st.floats(-10, 10), value=st.floats(-10, 10))
def test_a_bound_holds_on_its_own_side_and_on_itself(limit: float, value: float) -> None:
    facts = {"measures": {"m": value}}
    faults = {side: judged(build(Gate, {"measures": {"m": {side: limit}}}), facts) for side in ("at_most", "at_least")}
    assert (not faults["at_most"]) is (value <= limit)
    assert (not faults["at_least"]) is (value >= limit)


def test_a_gate_travels_as_json() -> None:
    assert build(Gate, ASKS_EVERYTHING.model_dump(mode="json")) == ASKS_EVERYTHING


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"measure": {}}, "unknown key 'measure'; did you mean 'measures'"),
        ({"measures": {NLL: {}}}, "a bound names at_most, at_least or both"),
        ({"measures": {NLL: {"most": 1}}}, "unknown key 'measures.valid_nll_nats_per_token.most'"),
        ({"measures": {NLL: {"at_most": 1, "at_least": 2}}}, "nothing is at least 2 and at most 1"),
        ({"most_skipped_batches": -1}, "greater than or equal to 0"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        build(Gate, asked)
