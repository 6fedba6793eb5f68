"""Size of a bar VAE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tutti.models.decoder.network import DecoderConfiguration
from tutti.models.family import Footprint

BAR_TOKENS = 40
"""Tokens of a bar, for reckoning: what is done once a bar is shared among so many."""


@dataclass(frozen=True)
class BarVaeConfiguration:
    """Size of a bar VAE, and how its latents are held to their prior.

    Args:
        vocabulary_size: V.
        bar_token: the token that begins a bar.
        encoder_layers, layers: blocks over the tokens of a bar, of the encoder and of the decoder.
        width, heads, feed_forward: of both, as the decoder family's.
        conductor: hidden units of what goes from bar to bar.
        latent: Z, dimensions of a bar's latent.
        max_tokens: longest sequence that may be learnt from.
        dropout: on each residual branch, while training.
        word_dropout: share of tokens that the decoder is not told, while training (Bowman et al. 2015, arXiv
            1511.06349): what it is not told it must find in the latent.
        kl_weight: of the divergence from the prior once annealing is over; 1: the bound itself.
        annealing_steps: over which that weight rises from 0 (as there).
        free_nats: divergence that costs nothing, of each dimension of each bar (Kingma et al. 2016, 1606.04934; there
            of a batch's mean, here of each bar, so that a step is the same however it is cut into micro-batches).
    """

    vocabulary_size: int
    bar_token: int
    encoder_layers: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    conductor: int
    latent: int
    max_tokens: int = 4096
    dropout: float = 0.0
    word_dropout: float = 0.0
    kl_weight: float = 1.0
    annealing_steps: int = 200
    free_nats: float = 0.02

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the {self.heads} heads")
        if not 0 <= self.bar_token < self.vocabulary_size:
            raise ValueError(f"bar_token {self.bar_token} is none of the {self.vocabulary_size} tokens")
        if not 0 <= self.word_dropout < 1:
            raise ValueError(f"word_dropout {self.word_dropout} is not from 0 to below 1")
        for name in ("kl_weight", "annealing_steps", "free_nats"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} is below 0")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def blocks(self) -> DecoderConfiguration:
        """Size of the blocks of encoder and decoder."""
        return DecoderConfiguration(
            vocabulary_size=self.vocabulary_size,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            feed_forward=self.feed_forward,
            max_tokens=self.max_tokens,
            dropout=self.dropout,
        )

    @property
    def parameters(self) -> int:
        """Number of weights; the tied embedding counts once."""
        stacks = (self.encoder_layers + self.layers) * (self._block_weights + 2 * self.width) + 2 * self.width
        biases = 4 * self.latent + 6 * self.conductor
        return self.vocabulary_size * self.width + stacks + self._bar_weights + biases

    def training_flops_per_place(self, places: int) -> float:
        """Floating-point operations of forward and backward for one token; attention stays within a bar."""
        stacks = (self.encoder_layers + self.layers) * self._block_weights + self.vocabulary_size * self.width
        looked_at = min(places, BAR_TOKENS)
        attention = 12.0 * self.width * (self.encoder_layers * looked_at + self.layers * looked_at / 2)
        return 6.0 * (stacks + self._bar_weights / looked_at) + attention

    @property
    def footprint(self) -> Footprint:
        """As the decoder's: most of it is blocks over tokens, and a mask over a row's pairs."""
        return Footprint(
            blocks=self.encoder_layers + self.layers,
            block_numbers=24 * self.width + 6 * self.feed_forward,
            boundary_numbers=self.width,
            pair_bytes=2 * 5,
            output_numbers=5 * self.vocabulary_size,
        )

    @property
    def _block_weights(self) -> int:
        return 4 * self.width**2 + 3 * self.width * self.feed_forward

    @property
    def _bar_weights(self) -> int:
        """In matrix products that are made once a bar."""
        width, conductor, latent = self.width, self.conductor, self.latent
        of_latents = 2 * latent * width + 2 * latent * conductor + latent * (width + conductor)
        return of_latents + 2 * width * conductor + 6 * conductor**2
