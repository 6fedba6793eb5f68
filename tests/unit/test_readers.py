"""Networks that read from left to right: causality, pieces kept apart, and a memory that changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.notes import NotesRecipe
from tutti.errors import RecipeError
from tutti.models.bar_vae import BarVae, BarVaeConfiguration
from tutti.models.bar_vae.units import Units
from tutti.models.decoder import DECODER, Decoder, DecoderConfiguration, EventTokens
from tutti.models.families import FAMILIES, family_of, network_of
from tutti.models.recurrent import Recurrent, RecurrentConfiguration
from tutti.models.recurrent.network import STRETCH_TOKENS
from tutti.training.examples import KINDS
from tutti.training.recipe import TrainingRecipe

READERS = ("decoder", "recurrent", "bar_vae")
BAR = 7
EVENT_TOKENS = EventTokens(
    bar=BAR, meter=8, bar_ticks=(48, 72, 96), position=12, positions=20, pitch=34, pitches=14, quarter_ticks=24
)
SHAPE = {"vocabulary_size": 929, "max_tokens": 512, "bar_token": BAR, "events": EVENT_TOKENS}

Model = Decoder | Recurrent | BarVae


@pytest.fixture(
    params=["decoder", "grouped heads", "one group", "window", "relative", "relative window", "recurrent", "bar_vae"]
)
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    match request.param:
        case "recurrent":
            return Recurrent(RecurrentConfiguration(vocabulary_size=50, layers=2, width=32, hidden=24)).eval()
        case "bar_vae":
            return bar_vae()
        case "grouped heads":
            return decoder(key_value_heads=2)
        case "one group":
            return decoder(key_value_heads=1)
        case "window":
            return decoder(window_tokens=4, key_value_heads=2)
        case "relative":
            return decoder(relative="pitch_and_time")
        case "relative window":
            return decoder(relative="pitch_and_time", window_tokens=6, key_value_heads=2)
    return decoder()


def decoder(**settings: Any) -> Decoder:
    configuration = DecoderConfiguration(
        vocabulary_size=50,
        layers=3,
        width=32,
        heads=4,
        feed_forward=48,
        max_tokens=256,
        events=EVENT_TOKENS,
        **settings,
    )
    model = Decoder(configuration).eval()
    if model.listener is not None:
        # As if it had learnt: likings weigh as much as contents.
        for weight in model.relative.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    return model


def bar_vae(**settings: float) -> BarVae:
    configuration = BarVaeConfiguration(
        vocabulary_size=50, bar_token=BAR, encoder_layers=1, layers=2, width=32, heads=4, feed_forward=48,
        conductor=24, latent=8, max_tokens=256, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    model = BarVae(configuration).eval()
    with torch.no_grad():
        # As if it had learnt: latents and what goes from bar to bar weigh as much as tokens.
        for weights in (model.prior, model.latent_to_bar, model.conductor_to_bar, model.latent_to_conductor):
            torch.nn.init.normal_(weights.weight, std=0.2)
    return model


def whole(model: Model, tokens: torch.Tensor, segments: torch.Tensor | None = None) -> torch.Tensor:
    """Logits by the way that learns."""
    said = model(tokens, segments)
    return said[0] if isinstance(said, tuple) else said


def at_once(model: Model, tokens: torch.Tensor) -> torch.Tensor:
    """Logits of rows that are read by the way that generates, in one call."""
    if isinstance(model, BarVae):
        return model.read(tokens, model.new_cache(rows=len(tokens), capacity_tokens=64))
    return model(tokens)  # type: ignore[no-any-return]


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
        ({"relative": "pitch"}, "relative 'pitch' is not known; choose none, pitch_and_time"),
    ],
)
def test_sizes_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=f"settings of decoder nano cannot be: {told}"):
        DECODER.configure("nano", shape=SHAPE, settings=settings)


def _tokens(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    drawn = torch.randint(0, 50, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    # Bars, some rows beginning with one, and one of them empty.
    drawn[:, 4::5] = BAR
    drawn[1:, 0] = drawn[-1:, 15:16] = BAR
    return drawn


def test_a_token_never_sees_the_future(model: Model) -> None:
    tokens = _tokens(2, 20)
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 50
    before, after = at_once(model, tokens), at_once(model, changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_packed_pieces_do_not_see_each_other(model: Model) -> None:
    first, second = _tokens(1, 9, seed=2), _tokens(1, 11, seed=3)
    packed = whole(model, torch.cat((first, second), dim=1), torch.tensor([[0] * 9 + [1] * 11]))
    torch.testing.assert_close(packed[:, :9], whole(model, first), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 9:], whole(model, second), rtol=1e-4, atol=1e-5)


def test_reading_through_the_cache_gives_the_same_logits(model: Model) -> None:
    tokens = _tokens(3, 24)
    cache = model.new_cache(rows=3, capacity_tokens=32)
    parts = [model.read(tokens[:, :10], cache), *(model.read(tokens[:, t : t + 1], cache) for t in range(10, 24))]
    torch.testing.assert_close(torch.cat(parts, dim=1), at_once(model, tokens), rtol=1e-4, atol=1e-5)
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
        alone = at_once(model, torch.cat((prompt, following[row : row + 1]), dim=1))
        torch.testing.assert_close(logits[row, 0], alone[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "flavour"), [(f, size) for f in READERS for size in ("nano", "tiny", "small")])
def test_counted_parameters_are_the_parameters(family: str, flavour: str) -> None:
    grouped = {"key_value_heads": 1, "relative": "pitch_and_time"} if family == "decoder" else {}
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


def test_a_recurrent_network_remembers_across_the_stretches_of_long_pieces() -> None:
    torch.manual_seed(0)
    model = Recurrent(RecurrentConfiguration(vocabulary_size=50, layers=2, width=32, hidden=24)).eval()
    lengths = ((300,), (STRETCH_TOKENS + 1, 171), (44, STRETCH_TOKENS, STRETCH_TOKENS))
    segments = torch.stack([torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces)) for pieces in lengths])
    tokens = _tokens(3, 300)
    packed = model(tokens, segments)
    for row, piece in ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)):
        own = segments[row] == piece
        alone = model.read(tokens[row, own][None], model.new_cache(rows=1, capacity_tokens=300))
        torch.testing.assert_close(packed[row, own], alone[0], rtol=1e-4, atol=1e-5)


def test_latents_that_are_given_are_read_as_they_are_learnt() -> None:
    torch.manual_seed(0)
    model, tokens = bar_vae(), _tokens(3, 24)
    units = Units.of(tokens, None, bar_token=BAR)
    first, _, _ = model.heard(tokens, units)
    latents = torch.randn(len(first), 8)
    with torch.no_grad():
        learnt = model.told(tokens, units, model.conducted(units, first, latents), latents)
    cache = model.new_cache(rows=3, capacity_tokens=64)
    cache.plan([latents[(units.piece_U == row) & units.is_bar_U] for row in range(3)])
    parts = [model.read(part, cache) for part in tokens.split([3, 7, 1, 13], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), learnt, rtol=1e-4, atol=1e-5)


def test_a_row_draws_its_bars_by_its_own_seed() -> None:
    model, tokens = bar_vae(), _tokens(1, 24).expand(3, -1)
    logits = model.read(tokens, model.new_cache(rows=3, capacity_tokens=64, seeds=np.array([5, 6, 5], np.uint64)))
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[0, :4], logits[1, :4]), "the head knows no latent"
    assert not torch.isclose(logits[0, 4:], logits[1, 4:]).all(dim=1).any()


def test_a_bar_goes_on_in_place_of_another_row() -> None:
    model, tokens = bar_vae(), _tokens(2, 12)
    long = torch.randint(8, 50, (1, 90))
    seeds = np.array([3, 4], dtype=np.uint64)
    cache = model.new_cache(rows=2, capacity_tokens=64, seeds=seeds)
    model.read(tokens, cache)
    fresh = model.new_cache(rows=1, capacity_tokens=64, seeds=np.array([9], np.uint64))
    model.read(long, fresh)
    cache.put_row(0, fresh)
    following = torch.tensor([[BAR, 20, BAR, 21], [9, BAR, 9, 8]])
    said = model.read(following, cache)
    alone = model.new_cache(rows=1, capacity_tokens=64, seeds=np.array([9], np.uint64))
    model.read(long, alone)
    torch.testing.assert_close(said[:1], model.read(following[:1], alone), rtol=1e-4, atol=1e-5)
    other = model.new_cache(rows=1, capacity_tokens=64, seeds=seeds[1:])
    model.read(tokens[1:], other)
    torch.testing.assert_close(said[1:], model.read(following[1:], other), rtol=1e-4, atol=1e-5)


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
        shape = {**KINDS[family.reads].shape(TrainingRecipe()), **SHAPE}
        notes = NotesRecipe().decides(instruments=2) if family.reads == "spectra" else {}
        sizes = [family.configure(name, shape=shape, settings=notes).parameters for name in family.flavours]
        assert sizes == sorted(sizes)
