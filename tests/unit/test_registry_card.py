from dataclasses import replace
from typing import Any

import pytest
import torch

from tutti.features.vocabulary import EVENTS
from tutti.models.bundle import Bundle
from tutti.registry.card import card

FACTS: dict[str, Any] = {
    "parameters": 1_800_000,
    "measures": {
        "valid_nll_nats_per_token": 0.5123, "test_nll_nats_per_token": 0.5311, "valid_bits_per_note": 3.25,
        "unigram_nll_nats_per_token": 3.1, "bigram_nll_nats_per_token": 1.9,
    },
    "data": {
        "tokens_address": "results/tokens/bach/0123", "works_address": "results/works/bach/4567", "works": 371,
        "notes": 100_000, "licences": {"CC0-1.0": 300, "CC-BY-4.0": 71}, "splits": {"train": 300, "valid": 71},
    },
    "training": {
        "recipe_digest": "89ab", "steps": 400, "tokens": 6_553_600, "seconds": 312.0, "workers": 2,
        "strategy": "deepspeed",
    },
}  # fmt: skip
BUNDLE = Bundle(
    family="decoder", flavour="tiny", configuration={}, weights={"w": torch.zeros(7)},
    vocabulary=EVENTS.names, collections=("bach", "a|b"), facts=FACTS,
)  # fmt: skip


def _with(section: str, **changes: object) -> str:
    return card(replace(BUNDLE, facts={**FACTS, section: {**FACTS[section], **changes}}))


def test_it_says_what_the_facts_say() -> None:
    text = card(BUNDLE)
    for said in (
        "1,800,000 parameters", "trained on 300 works", "| this model, validation split | 0.5123 | 3.250 |",
        "| this model, test split | 0.5311 | not measured |", "| unigram counts, validation split | 3.1000 |",
        "| bigram counts, validation split | 1.9000 |", "`results/tokens/bach/0123`", "| CC0-1.0 | 300 |",
        "| CC-BY-4.0 | 71 |", "| works in train | 300 |", "`89ab`", "6,553,600", "deepspeed", BUNDLE.digest(),
        "Trained on 300 works: expect their style and little else.", "Not checked for memorised passages",
    ):  # fmt: skip
        assert said in text, said


def test_the_controls_are_those_of_its_own_vocabulary() -> None:
    text = card(BUNDLE)
    assert "| Mood | happy, tense, sad, calm, neutral |" in text
    assert "| Collection | bach, a\\|b |" in text
    assert "None." in card(replace(BUNDLE, vocabulary=("Pad",), collections=()))


def test_what_is_missing_is_said() -> None:
    text = card(replace(BUNDLE, facts={}))
    assert "7 parameters" in text
    assert text.count("| not measured") == 6
    for said in (
        "nothing is known of its quality",
        "Do not publish",
        "| steps | not recorded |",
        "its training data not recorded",
    ):
        assert said in text, said


@pytest.mark.parametrize(("nll", "warned"), [(1.899, False), (1.9, True), (2.4, True)])
def test_a_model_that_loses_to_counting_pairs_is_called_that(nll: float, warned: bool) -> None:
    text = _with("measures", valid_nll_nats_per_token=nll)
    assert ("does not beat a table of token pairs" in text) is warned


def test_a_large_corpus_is_not_called_small() -> None:
    assert "little else" not in _with("data", works=200_000, splits={"train": 160_000})
