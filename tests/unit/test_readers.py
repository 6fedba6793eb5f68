"""Networks that read from left to right: causality, pieces kept apart, and a memory that changes nothing."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tutti.errors import RecipeError
from tutti.models.decoder import DECODER, Decoder, DecoderConfiguration
from tutti.models.families import FAMILIES, family_of, network_of
from tutti.models.recurrent import Recurrent, RecurrentConfiguration

READERS = ("decoder", "recurrent")
SHAPE = {"vocabulary_size": 929, "max_tokens": 512}


Model = Decoder | Recurrent


@pytest.fixture(params=["decoder", "grouped heads", "one group", "window", "recurrent"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    match request.param:
        case "recurrent":
            return Recurrent(RecurrentConfiguration(vocabulary_size=50, layers=2, width=32, hidden=24)).eval()
        case "grouped heads":
            return decoder(key_value_heads=2)
        case "one group":
            return decoder(key_value_heads=1)
        case "window":
            return decoder(window_tokens=4, key_value_heads=2)
    return decoder()


def decoder(**settings: int) -> Decoder:
    configuration = DecoderConfiguration(
        vocabulary_size=50, layers=3, width=32, heads=4, feed_forward=48, max_tokens=64, **settings
    )
    return Decoder(configuration).eval()


def test_a_window_looks_back_as_far_as_its_layers_reach() -> None:
    model = decoder(window_tokens=4)
    tokens = _tokens(1, 20)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 50
    before, after = model(tokens), model(changed)
    # Three layers of three tokens each.
    torch.testing.assert_close(before[:, 13:], after[:, 13:], rtol=0, atol=0)
    assert not torch.equal(before[:, 12], after[:, 12])


def test_fewer_heads_of_keys_make_a_smaller_cache() -> None:
    sizes = [decoder(key_value_heads=n).new_cache(rows=1, capacity_tokens=8).size_bytes for n in (4, 2, 1)]
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] // 4]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"heads": 3}, "width 64 is no multiple of twice the 3 heads"),
        ({"heads": 4, "key_value_heads": 3}, "key_value_heads 3 does not divide the 4 heads"),
        ({"window_tokens": -1}, "window_tokens -1 is below 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, int], told: str) -> None:
    with pytest.raises(RecipeError, match=f"settings of decoder nano cannot be: {told}"):
        DECODER.configure("nano", shape=SHAPE, settings=settings)


def _tokens(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def test_a_token_never_sees_the_future(model: Model) -> None:
    tokens = _tokens(2, 20)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 50
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_packed_pieces_do_not_see_each_other(model: Model) -> None:
    first, second = _tokens(1, 9, seed=2), _tokens(1, 11, seed=3)
    packed = model(torch.cat((first, second), dim=1), torch.tensor([[0] * 9 + [1] * 11]))
    torch.testing.assert_close(packed[:, :9], model(first), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 9:], model(second), rtol=1e-4, atol=1e-5)


def test_reading_through_the_cache_gives_the_same_logits(model: Model) -> None:
    tokens = _tokens(3, 24)
    cache = model.new_cache(rows=3, capacity_tokens=32)
    parts = [model.read(tokens[:, :10], cache), *(model.read(tokens[:, t : t + 1], cache) for t in range(10, 24))]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens), rtol=1e-4, atol=1e-5)
    assert cache.lengths_B.tolist() == [24, 24, 24]


def test_rows_of_unequal_prompts_and_dropped_rows(model: Model) -> None:
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


@pytest.mark.parametrize(("family", "flavour"), [(f, size) for f in READERS for size in ("nano", "tiny", "small")])
def test_counted_parameters_are_the_parameters(family: str, flavour: str) -> None:
    grouped = {"key_value_heads": 1} if family == "decoder" else {}
    configuration = family_of(family).configure(flavour, shape=SHAPE, settings=grouped)
    weights = network_of(family, configuration).parameters()
    assert sum(weight.numel() for weight in weights) == configuration.parameters


@pytest.mark.parametrize("groups", [4, 2])
def test_counted_flops_are_those_of_torch(groups: int) -> None:
    model = decoder(key_value_heads=groups)
    with FlopCounterMode(display=False) as counter:
        model(_tokens(2, 32)).sum().backward()
    attention = 6 * model.configuration.layers * 32 * model.configuration.width
    matrices = model.configuration.training_flops_per_place(32) - attention
    assert matrices * 2 * 32 == counter.get_total_flops(), "torch counts no attention on a processor"


def test_a_recurrent_network_keeps_its_state_where_rows_end_and_others_go_on() -> None:
    torch.manual_seed(0)
    model = Recurrent(RecurrentConfiguration(vocabulary_size=50, layers=2, width=32, hidden=24)).eval()
    segments = torch.tensor([[0, 0, 0, 1, 1, -1, -1, -1], [0] * 8, [0, 1, 1, 1, 1, 1, 2, -1]])
    tokens = _tokens(3, 8)
    packed = model(tokens, segments)
    for row, start, stop in ((0, 0, 3), (0, 3, 5), (1, 0, 8), (2, 0, 1), (2, 1, 6), (2, 6, 7)):
        torch.testing.assert_close(packed[row, start:stop], model(tokens[row : row + 1, start:stop])[0])
    assert not packed[0, 5:].any(), "padding says nothing"


@pytest.mark.parametrize(("family", "flavour"), [("choir", "tiny"), ("decoder", "huge")])
def test_unknown_sizes_are_refused_by_name(family: str, flavour: str) -> None:
    with pytest.raises(RecipeError, match=r"choir|huge"):
        family_of(family).configure(flavour, shape=SHAPE)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"breadth": 3}, "decoder has no setting 'breadth': choose among dropout"),
        ({"vocabulary_size": 3}, "decoder has no setting 'vocabulary_size'"),
    ],
)
def test_unknown_settings_are_refused_by_name(settings: dict[str, int], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        DECODER.configure("nano", shape=SHAPE, settings=settings)


def test_flavours_grow() -> None:
    for family in FAMILIES.values():
        sizes = [family.configure(name, shape=SHAPE).parameters for name in family.flavours]
        assert sizes == sorted(sizes)
