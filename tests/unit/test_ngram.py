"""Count models: probabilities that sum to one, and figures that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tutti.metrics.ngram import CountModel

ALL = np.ones(4, dtype=bool)


def test_figures_worked_out_by_hand() -> None:
    # Pairs: 0-1, 1-1. Unigram of second tokens: 1 twice, one kind; Witten-Bell: (2 + 1/4) / 3 for 1, (1/4) / 3 for 2.
    model = CountModel(4).fit([np.array([0, 1, 1])], judged=ALL)
    nll = model.nll([np.array([0, 2])], judged=ALL)
    assert nll["unigram"] == pytest.approx(-np.log(0.25 / 3))
    # After 0, seen once with one kind: half of the mass backs off.
    assert nll["bigram"] == pytest.approx(-np.log(0.5 * 0.25 / 3))


def test_bigram_probabilities_sum_to_one_after_every_token() -> None:
    random = np.random.default_rng(1)
    model = CountModel(4).fit([random.integers(0, 4, 50), random.integers(0, 3, 9)], judged=ALL)
    for before in range(4):
        chances = [np.exp(-model.nll([np.array([before, after])], judged=ALL)["bigram"]) for after in range(4)]
        assert sum(chances) == pytest.approx(1.0)


def test_only_judged_tokens_count() -> None:
    judged = np.array([False, True, True, True])
    model = CountModel(4).fit([np.array([1, 0, 2, 0, 3])], judged=judged)
    assert model.nll([np.array([1, 0, 2])], judged=judged) == model.nll([np.array([0, 2])], judged=judged)


def test_context_helps_where_there_is_context() -> None:
    sequence = np.tile([0, 1, 2, 3], 50)
    nll = CountModel(4).fit([sequence], judged=ALL).nll([sequence], judged=ALL)
    assert nll["bigram"] < 0.1 < nll["unigram"]


def test_nothing_to_judge_is_not_a_number() -> None:
    assert np.isnan(CountModel(4).nll([], judged=ALL)["unigram"])
