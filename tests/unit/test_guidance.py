"""Guidance: soft conditions lead as strongly as is asked, and nothing else moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from tutti.errors import RecipeError
from tutti.features.vocabulary import BAR, DENSITIES, END, EVENTS
from tutti.generation.engine import Engine, Piece
from tutti.generation.reading import GuidedReading, Reading, unled
from tutti.generation.request import Request
from tutti.models.cache import KeyValueCache
from tutti.models.decoder import DECODER, Decoder
from tutti.models.precision import Precision
from tutti.models.reader import PlainSteps, Reader

SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 512}


class PulledCache(KeyValueCache):
    """A cache that also knows how strongly each row is drawn to the bar line."""

    pull_B: Tensor

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.pull_B = self.pull_B[rows]

    def join(self, fresh: KeyValueCache) -> None:
        super().join(fresh)
        assert isinstance(fresh, PulledCache)
        self.pull_B = torch.cat((self.pull_B, fresh.pull_B))


class DensityReader(Decoder):
    """A decoder of random weights that leaves a bar the sooner, the sparser its head says that music is."""

    def read(self, tokens_BT: Tensor, cache: KeyValueCache, *, counts_B: Tensor | None = None) -> Tensor:
        assert isinstance(cache, PulledCache)
        said = torch.tensor([EVENTS[f"Density_{name}"] for name in DENSITIES])
        steps = torch.tensor([0.9 * (2 - number) for number in range(len(said))])
        cache.pull_B = cache.pull_B + ((tokens_BT[:, :, None] == said).float() * steps).sum(dim=(1, 2))
        logits = super().read(tokens_BT, cache, counts_B=counts_B)
        logits[:, :, [BAR, END]] += cache.pull_B[:, None, None]
        return logits

    def steps(self, precision: Precision = "float32") -> PlainSteps:  # type: ignore[override]  # noqa: ARG002
        return PlainSteps(self)

    def new_cache(self, *, rows: int, capacity_tokens: int, seeds: object = None) -> KeyValueCache:  # noqa: ARG002
        cache = super().new_cache(rows=rows, capacity_tokens=capacity_tokens)
        cache.__class__ = PulledCache
        cache.pull_B = torch.zeros(rows)  # type: ignore[attr-defined]
        return cache


@pytest.fixture(scope="module")
def model() -> Reader:
    torch.manual_seed(0)
    return Decoder(DECODER.configure("nano", shape=SHAPE)).eval()


def _engine(model: Reader, *, max_batch: int = 32) -> Engine:
    return Engine(model, digest="", collections=("bach",), facts={}, context_tokens=512, max_batch=max_batch)


def _same(left: Sequence[Piece], right: Sequence[Piece]) -> None:
    for one, other in zip(left, right, strict=True):
        assert_array_equal(one.tokens, other.tokens)


def test_guidance_extrapolates_between_the_model_with_and_without_its_conditions(model: Reader) -> None:
    head = [EVENTS[name] for name in ("Start", "Collection_any", "Key_any", "TempoClass_any", "Density_dense")]
    strengths, bar = (0.0, 1.0, 2.0, 3.5), np.full(4, BAR)
    with torch.inference_mode():
        steps = model.steps()
        without, led = (Reading(model, steps, room_rows=1, context_tokens=64) for _ in range(2))
        guided = GuidedReading(model, steps, room_rows=7, context_tokens=64)
        said = [
            np.array([guided.join(head, head=5, guidance=guidance, seed=1) for guidance in strengths]),
            led.join(head, head=5, seed=1)[None],
            without.join(unled(head, head=5), head=5, seed=1)[None],
        ]
        assert guided.held == 7
        for _ in range(3):
            made, one, other = said
            said = [guided.following(bar), led.following(bar[:1]), without.following(bar[:1])]
            one, other, made = (torch.from_numpy(logits).log_softmax(-1).numpy() for logits in (one, other, made))
            for row, guidance in enumerate(strengths):
                wanted = torch.from_numpy(other + guidance * (one - other)).log_softmax(-1).numpy()
                assert_allclose(made[row], wanted[0], atol=1e-4)
            assert abs(one - other).max() > 0.01


def test_only_soft_conditions_are_hidden() -> None:
    names = ["Start", "Collection_3", "Key_D minor", "TempoClass_any", "Density_dense", "Mood_calm", "Bar"]
    hidden = unled([EVENTS[name] for name in names], head=6)
    assert [EVENTS.names[token] for token in hidden] == [
        "Start", "Collection_any", "Key_D minor", "TempoClass_any", "Density_any", "Mood_any", "Bar",
    ]  # fmt: skip


def test_a_request_without_soft_conditions_is_not_moved_by_guidance(model: Reader) -> None:
    plain = Request(bars=2, key="D minor", tempo=90, seed=4)
    led = Request(bars=2, key="D minor", tempo=90, seed=4, guidance=3.0)
    _same(_engine(model).generate([plain]), _engine(model).generate([led]))


def test_without_guidance_conditions_go_unheard(model: Reader) -> None:
    nothing = Request(bars=2, seed=4)
    unheard = Request(bars=2, seed=4, density="dense", mood="sad", guidance=0.0)
    heard = Request(bars=2, seed=4, density="dense", mood="sad", guidance=8.0)
    (one,), (other,), (third,) = (_engine(model).generate([request]) for request in (nothing, unheard, heard))
    head = one.tokens.tolist().index(BAR)
    assert_array_equal(one.tokens[head:], other.tokens[head:])
    assert third.tokens[head:].tolist() != one.tokens[head:].tolist()


def test_rows_that_end_or_look_back_take_their_second_reading_with_them(model: Reader) -> None:
    requests = [
        Request(bars=1 + number % 3, seed=number, density="dense" if number % 3 else None, guidance=1.0 + number % 2)
        for number in range(5)
    ]
    small = Engine(model, digest="", collections=(), facts={}, context_tokens=96)
    together = small.generate(requests)
    assert max(len(piece.tokens) for piece in together) > 96
    apart = [small.generate([request])[0] for request in requests]
    _same(together, apart)
    _same(together, small.generate(requests))


def test_the_higher_guidance_is_the_more_density_shows() -> None:
    torch.manual_seed(0)
    engine = _engine(DensityReader(DECODER.configure("nano", shape=SHAPE)).eval())

    def notes(density: str, guidance: float) -> float:
        # Where polyphony is left open, a thin density bounds it, whatever the guidance.
        asked = {"bars": 1, "tempo": 96, "meter": "4/4", "polyphony": 24, "density": density, "guidance": guidance}
        requests = [Request(seed=seed, **asked) for seed in range(8)]
        return float(np.mean([len(piece.score.notes) for piece in engine.generate(requests)]))

    ratios = [notes("very_dense", guidance) / notes("very_sparse", guidance) for guidance in (0.0, 1.0, 2.0, 3.0)]
    assert ratios[0] == 1.0
    assert ratios == sorted(ratios)
    assert ratios[3] > 1.5 * ratios[1]


def test_guidance_has_limits() -> None:
    from tutti.config import build

    with pytest.raises(RecipeError, match="guidance"):
        build(Request, {"guidance": 11.0}, origin="a test")
