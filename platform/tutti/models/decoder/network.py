"""Decoder-only transformer: rotary positions, RMSNorm before each block, SwiGLU, tied embeddings, no biases.

Sources: Vaswani et al. 2017 (arXiv 1706.03762); Zhang and Sennrich 2019 (RMSNorm, 1910.07467); Shazeer 2020 (SwiGLU,
2002.05202); Su et al. 2021 (rotary positions, 2104.09864); Press and Wolf 2017 (tied embeddings, 1608.05859). Relative
time and pitch: :mod:`tutti.models.decoder.relative`.

Legend: B rows, T tokens, V vocabulary, W width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.attention import Attention, Context, begins_of, pieces_of, within_segments, within_window
from tutti.models.cache import KeyValueCache
from tutti.models.decoder import relative
from tutti.models.decoder.memory import RelativeCache
from tutti.models.decoder.processor import ProcessorSteps
from tutti.models.decoder.relative import EventTokens, Heard, Listener, RelativeBias
from tutti.models.decoder.steps import DecoderSteps
from tutti.models.family import Footprint
from tutti.models.positions import angles
from tutti.models.precision import Precision, dtype_of

Relative = Literal["none", "pitch_and_time"]


@dataclass(frozen=True)
class DecoderConfiguration:
    """Size of a decoder.

    Args:
        vocabulary_size: V.
        layers, width, heads: depth, W, attention heads; W is a multiple of 2 * heads.
        feed_forward: hidden channels of SwiGLU.
        key_value_heads: heads of keys and values, which divide the heads; 0: as many. Fewer make the cache smaller.
        window_tokens: how far a layer looks back; 0: as far as the piece goes.
        relative: ``pitch_and_time``: attention also sees how far two events are apart in time and in pitch.
        events: which tokens tell time and pitch.
        max_tokens: longest sequence that may be read.
        dropout: on each residual branch, while training.
    """

    vocabulary_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    max_tokens: int = 4096
    dropout: float = 0.0
    key_value_heads: int = 0
    window_tokens: int = 0
    relative: Relative = "none"
    events: EventTokens | None = None

    def __post_init__(self) -> None:
        if isinstance(self.events, Mapping):
            object.__setattr__(self, "events", EventTokens.read(self.events))
        if self.relative not in get_args(Relative):
            raise ValueError(f"relative {self.relative!r} is not known; choose {', '.join(get_args(Relative))}")
        if self.relative != "none" and self.events is None:
            raise ValueError(f"relative {self.relative} must know which tokens tell time and pitch")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the {self.heads} heads")
        if self.heads % self.groups:
            raise ValueError(f"key_value_heads {self.groups} does not divide the {self.heads} heads")
        if self.window_tokens < 0:
            raise ValueError(f"window_tokens {self.window_tokens} is below 0")

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.key_value_heads or self.heads

    def to_dict(self) -> dict[str, Any]:
        """As plain values; what is not switched on is left out, so those models keep their digests."""
        values = asdict(self)
        if self.relative == "none":
            del values["relative"], values["events"]
        return values

    @property
    def parameters(self) -> int:
        """Number of weights; the tied embedding counts once."""
        layer = self._matrix_weights + 2 * self.width
        biases = relative.parameters(self.heads) if self.relative != "none" else 0
        return self.vocabulary_size * self.width + self.layers * layer + self.width + biases

    def training_flops_per_place(self, places: int) -> float:
        """Floating-point operations of forward and backward for one token.

        Six for each weight in a matrix product, and causal attention's ``6 * layers * T * W`` (Kaplan et al. 2020,
        arXiv 2001.08361, Table 1, halved for the causal mask).
        """
        matrix_weights = self.layers * self._matrix_weights + self.vocabulary_size * self.width
        # A causal mask lets a token look at half of the sequence on average, a window at no more than it holds.
        looked_at = min(places / 2, self.window_tokens or math.inf)
        return 6.0 * matrix_weights + 12.0 * self.layers * looked_at * self.width

    @property
    def _matrix_weights(self) -> int:
        """Of one layer."""
        attention = 2 * self.width**2 + 2 * self.width * self.groups * (self.width // self.heads)
        return attention + 3 * self.width * self.feed_forward

    @property
    def footprint(self) -> Footprint:
        """Measured on real workers (torch 2.13, processor); the mask is there as truth values and as numbers.

        Of relative attention: which number each pair has, the biases and their gradient, and each layer's weights.
        """
        pair_bytes = 5 if self.relative == "none" else 8 + 4 * self.heads * (self.layers + 4)
        return Footprint(
            blocks=self.layers,
            block_numbers=24 * self.width + 6 * self.feed_forward,
            boundary_numbers=self.width,
            pair_bytes=pair_bytes,
            output_numbers=5 * self.vocabulary_size,
        )


class Block(nn.Module):
    """Attention and feed-forward, each on a normalised residual branch."""

    def __init__(self, configuration: DecoderConfiguration) -> None:
        super().__init__()
        width = configuration.width
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width=width, heads=configuration.heads, key_value_heads=configuration.groups)
        self.feed_forward_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate_and_up = nn.Linear(width, 2 * configuration.feed_forward, bias=False)
        self.down = nn.Linear(configuration.feed_forward, width, bias=False)
        self.dropout = nn.Dropout(configuration.dropout)

    def forward(self, x_BTW: Tensor, context: Context, *, layer: int) -> Tensor:
        """Shape (B, T, W)."""
        x_BTW = x_BTW + self.dropout(self.attention(self.attention_norm(x_BTW), context, layer=layer))
        gate, up = self.gate_and_up(self.feed_forward_norm(x_BTW)).chunk(2, dim=-1)
        out_BTW: Tensor = x_BTW + self.dropout(self.down(functional.silu(gate) * up))
        return out_BTW


class Decoder(nn.Module):
    """Next-token model of event sequences."""

    cosines: Tensor
    sines: Tensor
    relative: RelativeBias

    def __init__(self, configuration: DecoderConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        self.embedding = nn.Embedding(configuration.vocabulary_size, configuration.width)
        self.dropout = nn.Dropout(configuration.dropout)
        self.blocks = nn.ModuleList(Block(configuration) for _ in range(configuration.layers))
        self.norm = nn.RMSNorm(configuration.width, eps=1e-6)
        cosines, sines = angles(configuration.max_tokens, configuration.width // configuration.heads)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.listener: Listener | None = None
        if configuration.relative != "none" and configuration.events is not None:
            events = configuration.events
            self.listener = Listener(events, vocabulary_size=configuration.vocabulary_size)
            self.relative = RelativeBias(heads=configuration.heads, quarter_ticks=events.quarter_ticks)
        self._initialise()

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Logits of the token after each; shape (B, T, V).

        Args:
            tokens_BT: token ids.
            segments_BT: number of the piece that each token belongs to; attention stays within one.
        """
        context = self._sight(tokens_BT, segments_BT)
        return self._through(tokens_BT, context)

    def read(self, tokens_BT: Tensor, cache: KeyValueCache, *, counts_B: Tensor | None = None) -> Tensor:
        """Read on from what ``cache`` holds, each row from its own length; logits of shape (B, T, V).

        Args:
            tokens_BT: the next tokens of each row, padded on the right.
            cache: changed in place; its lengths grow by ``counts_B``.
            counts_B: how many of the T tokens are real in each row; None: all.
        """
        tokens = tokens_BT.shape[1]
        positions_BT = cache.lengths_B[:, None] + torch.arange(tokens, device=tokens_BT.device)
        positions_BT = positions_BT.clamp_max(cache.capacity_tokens - 1)
        used = int(positions_BT.max()) + 1
        places = torch.arange(used, device=tokens_BT.device)
        window_tokens = self.configuration.window_tokens or used
        mask = within_window(positions_BT, places, window_tokens=window_tokens)
        if isinstance(cache, RelativeCache):
            mask = self.relative([(*cache.hear(tokens_BT, positions_BT, counts_B=counts_B, used=used), mask)])[0]
        else:
            mask = mask[:, None]
        context = Context(
            cosines=self.cosines[positions_BT][:, None],
            sines=self.sines[positions_BT][:, None],
            mask=mask,
            cache=cache,
            positions_BT=positions_BT,
            used=used,
        )
        logits = self._through(tokens_BT, context)
        cache.lengths_B = cache.lengths_B + (tokens if counts_B is None else counts_B)
        return logits

    def steps(self, precision: Precision = "float32") -> DecoderSteps | ProcessorSteps:
        """The network as it is now, made ready to step."""
        if not ProcessorSteps.takes(self):
            return DecoderSteps(self)
        return ProcessorSteps(self, dtype=dtype_of(precision, device=self.embedding.weight.device))

    def new_cache(
        self,
        *,
        rows: int,
        capacity_tokens: int,
        seeds: object = None,  # noqa: ARG002
    ) -> KeyValueCache:
        """An empty cache for this model, on its device, in its precision."""
        configuration = self.configuration
        weight = self.embedding.weight
        sizes: dict[str, Any] = {
            "layers": configuration.layers,
            "rows": rows,
            "heads": configuration.groups,
            "capacity_tokens": min(capacity_tokens, configuration.max_tokens),
            "head_width": configuration.width // configuration.heads,
            "device": weight.device,
            "dtype": weight.dtype,
        }
        return KeyValueCache(**sizes) if self.listener is None else RelativeCache(self.listener, **sizes)

    def _sight(self, tokens_BT: Tensor, segments_BT: Tensor | None) -> Context:
        """What each token may look at, and how it likes to: as little work as the device can make of it."""
        tokens = tokens_BT.shape[1]
        sight = partial(Context, cosines=self.cosines[:tokens], sines=self.sines[:tokens])
        # One kernel over a mask where launches are dear or shapes must not change; else only what is looked at.
        whole = tokens_BT.is_cuda or torch.compiler.is_compiling()
        if self.listener is None:
            if self.configuration.window_tokens or (whole and segments_BT is not None):
                return sight(mask=self._mask(tokens, segments_BT))
            return sight(mask=None, pieces=None if segments_BT is None else pieces_of(segments_BT))
        heard, _ = self.listener(tokens_BT, begins_BT=None if segments_BT is None else begins_of(segments_BT))
        if whole:
            mask = self._mask(tokens, segments_BT)
            return sight(mask=self.relative([(heard, heard, mask if mask.dim() == 2 else mask[:, 0])])[0])
        pieces = (tokens,) * len(tokens_BT) if segments_BT is None else pieces_of(segments_BT)
        flat = Heard(*(column_BT.reshape(1, -1) for column_BT in heard))
        stops = list(accumulate(pieces))
        parts = [flat.part(stop - length, stop) for stop, length in zip(stops, pieces, strict=True)]
        looks = [(part, part, self._mask(length, None)) for part, length in zip(parts, pieces, strict=True)]
        return sight(mask=None, pieces=pieces, biases=tuple(bias[0] for bias in self.relative(looks)))

    def _mask(self, tokens: int, segments_BT: Tensor | None) -> Tensor:
        """True where a token may look; shape (T, T), or (B, 1, T, T) of pieces."""
        window_tokens = self.configuration.window_tokens
        if not window_tokens and segments_BT is not None:
            return within_segments(segments_BT)
        places = torch.arange(tokens, device=self.cosines.device)
        window = within_window(places, places, window_tokens=window_tokens or tokens)
        return window if segments_BT is None else window & within_segments(segments_BT)

    def _through(self, tokens_BT: Tensor, context: Context) -> Tensor:
        x_BTW = self.dropout(self.embedding(tokens_BT))
        for layer, block in enumerate(self.blocks):
            x_BTW = block(x_BTW, context, layer=layer)
        return functional.linear(self.norm(x_BTW), self.embedding.weight)

    def _initialise(self) -> None:
        branch_scale = (2 * self.configuration.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and not name.startswith("relative."):
                scale = branch_scale if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * scale)
