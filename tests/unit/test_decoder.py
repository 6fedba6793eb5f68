"""The decoder: causality, pieces kept apart, and a cache that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tutti.errors import RecipeError
from tutti.models.decoder import Decoder, DecoderConfiguration
from tutti.models.flavours import DECODERS, build, configuration_of


@pytest.fixture
def model() -> Decoder:
    torch.manual_seed(0)
    configuration = DecoderConfiguration(
        vocabulary_size=50, layers=3, width=32, heads=4, feed_forward=48, max_tokens=64
    )
    return Decoder(configuration).eval()


def _tokens(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_a_token_never_sees_the_future(model: Decoder) -> None:
    tokens = _tokens(2, 20)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 50
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_packed_pieces_do_not_see_each_other(model: Decoder) -> None:
    first, second = _tokens(1, 9, seed=2), _tokens(1, 11, seed=3)
    packed = model(torch.cat((first, second), dim=1), torch.tensor([[0] * 9 + [1] * 11]))
    torch.testing.assert_close(packed[:, :9], model(first), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 9:], model(second), rtol=1e-4, atol=1e-5)


def test_reading_through_the_cache_gives_the_same_logits(model: Decoder) -> None:
    tokens = _tokens(3, 24)
    cache = model.new_cache(rows=3, capacity_tokens=32)
    parts = [model.read(tokens[:, :10], cache), *(model.read(tokens[:, t : t + 1], cache) for t in range(10, 24))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-4, atol=1e-5)
    assert cache.lengths_B.tolist() == [24, 24, 24]


def test_rows_of_unequal_prompts_and_dropped_rows(model: Decoder) -> None:
    prompts = [_tokens(1, length, seed=length) for length in (3, 8, 5)]
    padded = torch.zeros(3, 8, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        padded[row, : prompt.shape[1]] = prompt[0]
    cache = model.new_cache(rows=3, capacity_tokens=32)
    model.read(padded, cache, counts_B=torch.tensor([3, 8, 5]))
    cache.keep(torch.tensor([2, 0]))
    following = _tokens(2, 1, seed=9)
    logits = model.read(following, cache)
    for row, prompt in enumerate((prompts[2], prompts[0])):
        alone = model(torch.cat((prompt, following[row : row + 1]), dim=1))
        torch.testing.assert_close(logits[row, 0], alone[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flavour", ["nano", "tiny", "small"])
def test_counted_parameters_are_the_parameters(flavour: str) -> None:
    configuration = configuration_of("decoder", flavour, vocabulary_size=929, max_tokens=512, dropout=0.0)
    assert sum(weight.numel() for weight in build("decoder", configuration).parameters()) == configuration.parameters


def test_counted_flops_are_those_of_torch(model: Decoder) -> None:
    with FlopCounterMode(display=False) as counter:
        model(_tokens(2, 32)).sum().backward()
    attention = 6 * model.configuration.layers * 32 * model.configuration.width
    matrices = model.configuration.training_flops_per_token(32) - attention
    assert matrices * 2 * 32 == counter.get_total_flops(), "torch counts no attention on a processor"


@pytest.mark.parametrize(("family", "flavour"), [("choir", "tiny"), ("decoder", "huge")])
def test_unknown_sizes_are_refused_by_name(family: str, flavour: str) -> None:
    with pytest.raises(RecipeError, match=r"choir|huge"):
        configuration_of(family, flavour, vocabulary_size=10, max_tokens=8, dropout=0.0)


def test_flavours_grow() -> None:
    sizes = [
        configuration_of("decoder", name, vocabulary_size=929, max_tokens=8, dropout=0.0).parameters
        for name in DECODERS
    ]
    assert sizes == sorted(sizes)
