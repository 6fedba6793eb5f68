from dataclasses import replace
from typing import Any

import pytest
import torch

from tutti.features.vocabulary import EVENTS
from tutti.models.bundle import Bundle
from tutti.registry.card import SKIPPED_BATCHES_SHOWN, card
from tutti.registry.gate import Bound, Gate
from tutti.training.examples import KINDS

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


def test_each_kind_of_model_is_told_in_its_own_words() -> None:
    voices = replace(
        BUNDLE,
        family="chorale",
        vocabulary=KINDS["voices"].vocabulary,
        collections=(),
        facts={**FACTS, "training": {**FACTS["training"], "unit": "notes"}},
    )
    text = card(voices)
    for said in ("sixteenths of four voices", "| vocabulary | 75 names |", "| notes seen | 6,553,600 |", "None."):
        assert said in text, said
    assert "event token" not in text
    assert "tokens seen" not in text
    assert "one event token after another" in card(BUNDLE)


def test_a_model_that_learnt_against_a_critic_has_no_likelihood() -> None:
    rolls = replace(
        BUNDLE,
        family="roll_gan",
        vocabulary=KINDS["rolls"].vocabulary,
        collections=(),
        facts={**FACTS, "measures": {"valid_variety": 0.5, "test_variety": 0.25}},
    )
    text = card(rolls)
    for said in ("It has no likelihood", "| valid_variety | 0.5 |", "| Mood | happy, tense, sad, calm, neutral |"):
        assert said in text, said
    for wrong in ("nats per token", "nothing is known of its quality", "The test split was not measured"):
        assert wrong not in text, wrong


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


def test_every_measure_is_told_the_known_ones_first() -> None:
    text = _with("measures", before_valid_nll_nats_per_token=6.8541, rare=0.00012, notes_per_s=123456.7, odd=None)
    for said in (
        "| before_valid_nll_nats_per_token | 6.854 |", "| rare | 0.00012 |", "| notes_per_s | 123,457 |",
        "| odd | not measured |",
    ):  # fmt: skip
        assert said in text, said
    assert text.index("| bigram counts") < text.index("| before_valid")
    assert "other measures" not in card(BUNDLE)


def test_the_gate_is_told_in_words() -> None:
    gate = Gate(measures={"valid_nll_nats_per_token": Bound(at_most=1.6)}, beats=("bigram",), licences=("CC0-1.0",))
    text = card(BUNDLE, gate=gate)
    for rule in (
        "- valid_nll_nats_per_token at most 1.6\n", "- valid_nll_nats_per_token below that of bigram\n",
        "- no licence but CC0-1.0\n",
    ):  # fmt: skip
        assert rule in text, rule
    assert "asks nothing of it" in card(BUNDLE)


def test_failures_and_cost_are_told_where_they_were_recorded() -> None:
    recovery = {"restarts": 2, "rollbacks": 1, "skipped_batches": [7, 190], "seconds_lost": 95.0}
    cost = {
        "currency": "EUR",
        "worker_hours": {"gpu": 12.5, "cpu": 0.25},
        "price": 31.4,
        "tokens_per_unit": 2_500_000.0,
    }
    text = card(replace(BUNDLE, facts={**FACTS, "recovery": recovery, "cost": cost}))
    for said in (
        "| restarts | 2 |", "| rollbacks | 1 |", "| skipped batches | 7, 190 |", "| time lost | 1m35s |",
        "| cpu worker-hours | 0.25 |", "| gpu worker-hours | 12.5 |", "| price | 31.4 EUR |",
        "| tokens per EUR | 2,500,000 |",
    ):  # fmt: skip
        assert said in text, said
    many = {**recovery, "skipped_batches": list(range(SKIPPED_BATCHES_SHOWN + 5)), "seconds_lost": 0}
    assert "18, 19, … (25 in all) |" in card(replace(BUNDLE, facts={**FACTS, "recovery": many}))
    assert "| skipped batches | none |" in card(replace(BUNDLE, facts={"recovery": {"skipped_batches": []}}))
    for said in ("restarts", "rollbacks", "skipped batches", "time lost", "worker-hours", "price"):
        assert f"| {said} | not recorded |" in card(BUNDLE), said


def test_the_fingerprint_of_the_recipe_is_part_of_its_identity() -> None:
    assert "| fingerprint of the recipe | `89ab` |" in card(BUNDLE)


def test_a_large_corpus_is_not_called_small() -> None:
    assert "little else" not in _with("data", works=200_000, splits={"train": 160_000})
