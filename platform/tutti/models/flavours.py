"""Named sizes. A new size is a line here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tutti.errors import RecipeError
from tutti.models.decoder import Decoder, DecoderConfiguration

FAMILIES = ("decoder",)


@dataclass(frozen=True)
class Flavour:
    """Depth and width of a decoder; what it is for."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    purpose: str


DECODERS: dict[str, Flavour] = {
    "nano": Flavour(2, 64, 2, 192, "tests: learns nothing worth hearing, in seconds"),
    "tiny": Flavour(4, 128, 4, 352, "the demo: minutes on two processor cores"),
    "small": Flavour(6, 256, 8, 704, "an evening on a processor, minutes on a GPU"),
    "base": Flavour(12, 512, 8, 1376, "one GPU, a corpus of some million notes"),
    "large": Flavour(24, 1024, 16, 2752, "a node of GPUs, a corpus of some hundred million notes"),
}


def configuration_of(
    family: str, flavour: str, *, vocabulary_size: int, max_tokens: int, dropout: float
) -> DecoderConfiguration:
    """Configuration of a named size.

    Raises:
        RecipeError: no such family or flavour.
    """
    if family not in FAMILIES:
        raise RecipeError(f"model family {family!r} is not known", remedy=f"choose {', '.join(FAMILIES)}")
    if flavour not in DECODERS:
        raise RecipeError(f"flavour {flavour!r} of {family} is not known", remedy=f"choose {', '.join(DECODERS)}")
    size = DECODERS[flavour]
    return DecoderConfiguration(
        vocabulary_size=vocabulary_size,
        layers=size.layers,
        width=size.width,
        heads=size.heads,
        feed_forward=size.feed_forward,
        max_tokens=max_tokens,
        dropout=dropout,
    )


def build(
    family: str, configuration: DecoderConfiguration | dict[str, Any], *, dropout: float | None = None
) -> Decoder:
    """A model with fresh weights.

    Args:
        configuration: the family's configuration, or its plain values as a bundle holds them.
        dropout: overrides the configuration's, such as 0 for generation.

    Raises:
        RecipeError: no such family.
    """
    if family not in FAMILIES:
        raise RecipeError(f"model family {family!r} is not known", remedy=f"choose {', '.join(FAMILIES)}")
    made = configuration if isinstance(configuration, DecoderConfiguration) else DecoderConfiguration(**configuration)
    return Decoder(made if dropout is None else replace(made, dropout=dropout))
