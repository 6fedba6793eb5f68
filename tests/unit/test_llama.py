"""A decoder as Hugging Face's Llama."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutti.errors import RecipeError
from tutti.features.vocabulary import EVENTS
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder
from tutti.models.decoder.llama import llama_files
from tutti.training.examples import KINDS
from tutti.training.recipe import TrainingRecipe

TOKENS = {"start": "Start", "end": "End", "pad": "Pad"}


def bundle(**settings: Any) -> Bundle:
    torch.manual_seed(3)
    shape = KINDS["sequences"].shape(TrainingRecipe())
    model = Decoder(DECODER.configure("nano", shape=shape, settings=settings))
    for name, weight in model.named_parameters():
        if "norm" in name:
            # As if it had learnt.
            torch.nn.init.normal_(weight, mean=1.0, std=0.2)
    return Bundle(
        family="decoder", flavour="nano", configuration=model.configuration.to_dict(), weights=model.state_dict(),
        vocabulary=EVENTS.names, collections=(), facts={},
    )  # fmt: skip


@pytest.mark.parametrize("groups", [0, 1])
def test_transformers_gives_the_same_logits(groups: int, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra bench)")
    held = bundle(key_value_heads=groups)
    for name, data in llama_files(held, **TOKENS).items():
        (tmp_path / name).write_bytes(data)
    llama, loading = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = Decoder(DECODER.read(held.configuration))
    ours.load_state_dict(dict(held.weights))
    tokens = torch.randint(len(EVENTS), (2, 70), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(llama.eval()(tokens).logits, ours.eval()(tokens), rtol=1e-4, atol=1e-5)
    assert EVENTS.names[llama.config.eos_token_id] == "End"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"window_tokens": 32}, "Llama knows no window_tokens 32: export a decoder that was trained with"),
        ({"relative": "pitch_and_time"}, "Llama knows no relative 'pitch_and_time'"),
    ],
)
def test_what_llama_cannot_say_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        llama_files(bundle(**settings), **TOKENS)


def test_another_family_is_refused() -> None:
    with pytest.raises(RecipeError, match="a recurrent is no Llama"):
        llama_files(replace(bundle(), family="recurrent"), **TOKENS)
