"""Relative pitch and time: what is heard is what the score says, and every way to attention gives the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.music import walk
from tutti.errors import RecipeError
from tutti.features.controls import Controls
from tutti.features.events import decode, encode, on_grid
from tutti.features.vocabulary import BAR, EVENTS
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.models import families
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder
from tutti.models.decoder.relative import DISTANCES, INTERVALS, NONE, Heard, Listener, RelativeBias
from tutti.training.examples import EVENT_TOKENS, configuration_of
from tutti.training.recipe import ModelRecipe, TrainingRecipe

SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 512, "events": EVENT_TOKENS}
RELATIVE = {"relative": "pitch_and_time"}
LISTENER = Listener(EVENT_TOKENS, vocabulary_size=len(EVENTS))


def _decoder(**settings: object) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(DECODER.configure("nano", shape=SHAPE, settings={**RELATIVE, **settings})).eval()
    for weight in model.relative.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


def _ids(*names: str) -> torch.Tensor:
    return torch.tensor([[EVENTS[name] for name in names]])


def test_what_is_heard_is_when_and_at_which_pitch_the_score_says() -> None:
    score = on_grid(walk(3))
    tokens = encode(score, Controls()).astype(np.int64)
    heard, _ = LISTENER(torch.from_numpy(tokens)[None])
    notes = decode(tokens).score.notes
    kinds = EVENTS.kind_of[tokens]
    sounds = np.isin(kinds, [EVENTS.kinds.index(kind) for kind in ("Pitch", "Drum")])
    head = tokens.tolist().index(BAR)
    since_first_bar = (heard.time_BT - heard.time_BT[0, head])[0, sounds]
    assert sorted(since_first_bar.tolist()) == sorted(notes.onset_ticks.tolist())
    pitched = kinds == EVENTS.kinds.index("Pitch")
    assert heard.pitch_BT[0, pitched].tolist() == (tokens[pitched] - EVENTS.first("Pitch")).tolist()
    assert set(heard.pitch_BT[0, ~pitched].tolist()) == {NONE}
    assert set(heard.time_BT[0, :head].tolist()) == {NONE}


def test_bars_are_as_long_as_their_meters() -> None:
    tokens = _ids("Start", "Bar", "Meter_3/4", "Position_24", "Pitch_60", "Bar", "Bar", "Meter_6/8", "Bar", "Pitch_64")
    heard, _ = LISTENER(tokens)
    assert heard.time_BT.tolist() == [[NONE, 0 + 96, 96, 120, 120, 168, 240, 240, 312, 312]]
    assert heard.last_pitch_BT.tolist() == [[NONE] * 4 + [60] * 5 + [64]]


@given(
    tokens=st.lists(st.integers(0, len(EVENTS) - 1), min_size=2, max_size=40),
    cut=st.integers(1, 39),
)
def test_it_listens_on_where_it_stopped_and_anew_where_a_piece_begins(tokens: list[int], cut: int) -> None:
    cut = min(cut, len(tokens) - 1)
    whole, _ = LISTENER(torch.tensor([tokens]))
    first, known = LISTENER(torch.tensor([tokens[:cut]]))
    rest, _ = LISTENER(torch.tensor([tokens[cut:]]), known_B5=known[:, -1])
    for one, parts in zip(whole, zip(first, rest, strict=True), strict=True):
        assert torch.equal(one, torch.cat(parts, dim=1))
    begins = torch.zeros(1, len(tokens), dtype=torch.bool)
    begins[0, cut] = True
    packed, _ = LISTENER(torch.tensor([tokens]), begins_BT=begins)
    alone, _ = LISTENER(torch.tensor([tokens[cut:]]))
    assert torch.equal(packed.last_pitch_BT[:, cut:], alone.last_pitch_BT)
    timed = alone.time_BT[alone.time_BT != NONE]
    assert torch.equal(packed.time_BT[:, cut:] == NONE, alone.time_BT == NONE)
    later = packed.time_BT[:, cut:][alone.time_BT != NONE]
    assert torch.equal(later - later[:1], timed - timed[:1])


def test_a_bias_tells_distances_and_intervals_apart() -> None:
    bias = RelativeBias(heads=1, quarter_ticks=24)
    with torch.no_grad():
        bias.time_HD.copy_(torch.arange(DISTANCES)[None] / 8)
        bias.pitch_HP.copy_(1000 * torch.arange(INTERVALS)[None] / 8)
    looking = Heard(torch.tensor([[960]]), torch.tensor([[NONE]]), torch.tensor([[60]]))
    times, pitches = [960, 954, 864, 768, -1, 0, 960, 960], [60, 67, 48, NONE, 60, 60, 0, 127]
    seen = Heard(torch.tensor([times]), torch.tensor([pitches]), torch.tensor([pitches]))
    (made,) = bias([(looking, seen, torch.ones(1, 8, dtype=torch.bool))])
    distances = made[0, 0, 0].round().long() % 1000
    assert distances.tolist() == [0, 1, 16, 32, DISTANCES - 1, 129, 0, 0]
    intervals = made[0, 0, 0].round().long() // 1000
    assert intervals.tolist() == [36, 43, 24, INTERVALS - 1, 36, 36, 0, 72]


def test_attention_by_pieces_and_attention_over_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _decoder(key_value_heads=1, window_tokens=9)
    tokens = torch.randint(0, len(EVENTS), (2, 40), generator=torch.Generator().manual_seed(1))
    segments = torch.tensor([[0] * 13 + [1] * 20 + [-1] * 7, [0] * 40])
    results = []
    for whole in (False, True):
        # What a compiler or a GPU takes; the arithmetic is the same on a processor.
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda whole=whole: whole)
        model.zero_grad()
        logits = model(tokens, segments)
        logits[segments >= 0].square().sum().backward()
        results.append((logits[segments >= 0], *(weight.grad for weight in model.relative.parameters())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in results[0][1:])


def test_music_a_third_higher_is_attended_alike() -> None:
    model = _decoder()
    names = ["Start", "Bar", "Meter_4/4", "Position_0", "Pitch_60", "Position_24", "Pitch_64", "Bar", "Position_0"]
    low = _ids(*names)
    high = torch.where(low >= EVENTS.first("Pitch"), low + 4, low)
    biases = [
        model.relative([(heard, heard, torch.ones(9, 9, dtype=torch.bool))])[0]
        for heard in (LISTENER(low)[0], LISTENER(high)[0])
    ]
    torch.testing.assert_close(biases[0], biases[1], rtol=0, atol=0)


def test_half_precision_stays_near() -> None:
    model = _decoder()
    tokens = torch.randint(0, len(EVENTS), (1, 30), generator=torch.Generator().manual_seed(1))
    whole = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(tokens)
    assert (whole - half.float()).abs().max() < 0.05 * whole.abs().max()


def test_a_row_that_looks_back_goes_on_as_one_that_never_read_more() -> None:
    engine = Engine(_decoder(), digest="", collections=(), facts={}, context_tokens=64)
    requests = [Request(bars=1 + number, seed=number, guidance=2.0, density="dense") for number in range(2)]
    together = engine.generate(requests)
    assert max(len(piece.tokens) for piece in together) > 64
    for piece, request in zip(together, requests, strict=True):
        assert piece.refused_tokens == 0
        assert piece.tokens.tolist() == engine.generate([request])[0].tokens.tolist()


def test_a_bundle_keeps_the_option_and_plain_decoders_keep_their_digests(tmp_path: Path) -> None:
    recipe = ModelRecipe(flavour="nano", settings=RELATIVE)
    configuration = configuration_of(recipe, TrainingRecipe())
    model = Decoder(configuration)  # type: ignore[arg-type]
    bundle = Bundle(
        family="decoder", flavour="nano", configuration=configuration.to_dict(), weights=model.state_dict(),
        vocabulary=EVENTS.names, collections=(), facts={},
    )  # fmt: skip
    bundle.save(tmp_path)
    engine = Engine.load(tmp_path)
    assert isinstance(engine.model, Decoder)
    assert engine.model.configuration.events == EVENT_TOKENS
    assert engine.digest == bundle.digest()
    plain = configuration_of(ModelRecipe(flavour="nano"), TrainingRecipe()).to_dict()
    assert not {"relative", "events"} & set(plain)
    assert json.loads(json.dumps(plain)) == plain
    assert families.network_of("decoder", plain).listener is None


def test_tokens_that_tell_nothing_are_refused() -> None:
    with pytest.raises(RecipeError, match="must know which tokens tell time and pitch"):
        DECODER.configure("nano", shape={"vocabulary_size": 9, "max_tokens": 64}, settings=RELATIVE)
