"""A decoder in the layout of Hugging Face's Llama, so that other engines can serve it: the same logits, other names.

A decoder is a Llama with tied embeddings, as long as it uses none of what Llama does not know. The layout is that of
transformers' ``LlamaForCausalLM`` (Touvron et al. 2023, arXiv 2302.13971)::

    config.json         sizes
    model.safetensors   weights by Llama's names
    vocabulary.json     token names in id order: there is no tokenizer, a token is an event
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from tutti.errors import RecipeError
from tutti.models.bundle import VOCABULARY, WEIGHTS, Bundle
from tutti.models.decoder.network import DecoderConfiguration

CONFIGURATION = "config.json"


def llama_files(bundle: Bundle, *, start: str, end: str, pad: str) -> dict[str, bytes]:
    """Files of a bundle by their names in that layout.

    Args:
        start, end, pad: names of the tokens that begin and end a piece and that fill up.

    Raises:
        RecipeError: another family, or a decoder that Llama cannot be.
    """
    if bundle.family != "decoder":
        raise RecipeError(f"a {bundle.family} is no Llama", remedy="export a model of family decoder")
    configuration = DecoderConfiguration(**bundle.configuration)
    _refuse(configuration)
    tokens = {name: bundle.vocabulary.index(token) for name, token in (("bos", start), ("eos", end), ("pad", pad))}
    settings = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": configuration.vocabulary_size,
        "hidden_size": configuration.width,
        "intermediate_size": configuration.feed_forward,
        "num_hidden_layers": configuration.layers,
        "num_attention_heads": configuration.heads,
        "num_key_value_heads": configuration.groups,
        "head_dim": configuration.width // configuration.heads,
        "max_position_embeddings": configuration.max_tokens,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": str(next(iter(bundle.weights.values())).dtype).removeprefix("torch."),
        **{f"{name}_token_id": token for name, token in tokens.items()},
    }
    weights = {name: weight.contiguous() for name, weight in _renamed(bundle.weights, configuration).items()}
    return {
        CONFIGURATION: json.dumps(settings, indent=2, sort_keys=True).encode(),
        WEIGHTS: safetensors.torch.save(weights, metadata={"format": "pt"}),
        VOCABULARY: bundle.files()[VOCABULARY],
    }


def _refuse(configuration: DecoderConfiguration) -> None:
    for setting, plain in (("window_tokens", 0), ("relative", "none")):
        value = getattr(configuration, setting)
        if value != plain:
            raise RecipeError(
                f"Llama knows no {setting} {value!r}",
                remedy=f"export a decoder that was trained with {setting} {plain!r}",
            )


def _renamed(weights: Mapping[str, Tensor], configuration: DecoderConfiguration) -> dict[str, Tensor]:
    """Weights by Llama's names; what is one product here is two or three there."""
    head_width = configuration.width // configuration.heads
    sizes = [configuration.width, *[configuration.groups * head_width] * 2]
    named = {"model.embed_tokens.weight": weights["embedding.weight"], "model.norm.weight": weights["norm.weight"]}
    for layer in range(configuration.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        projections = torch.split(weights[f"{ours}attention.query_key_value.weight"], sizes)
        gate_and_up = weights[f"{ours}gate_and_up.weight"].chunk(2)
        named |= {
            **{f"{theirs}self_attn.{name}_proj.weight": part for name, part in zip("qkv", projections, strict=True)},
            f"{theirs}self_attn.o_proj.weight": weights[f"{ours}attention.output.weight"],
            f"{theirs}mlp.gate_proj.weight": gate_and_up[0],
            f"{theirs}mlp.up_proj.weight": gate_and_up[1],
            f"{theirs}mlp.down_proj.weight": weights[f"{ours}down.weight"],
            f"{theirs}input_layernorm.weight": weights[f"{ours}attention_norm.weight"],
            f"{theirs}post_attention_layernorm.weight": weights[f"{ours}feed_forward_norm.weight"],
        }
    return named
