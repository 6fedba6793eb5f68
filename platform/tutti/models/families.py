"""The families that Tutti knows. A new one is a folder beside this file and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from tutti.errors import RecipeError
from tutti.models.bar_vae import BAR_VAE
from tutti.models.chorale import CHORALE
from tutti.models.decoder import DECODER
from tutti.models.family import Configuration, Family
from tutti.models.recurrent import RECURRENT
from tutti.models.roll_gan import ROLL_GAN
from tutti.models.timbre_gan import TIMBRE_GAN

FAMILIES: dict[str, Family[Any]] = {
    family.name: family
    for family in (
        DECODER,
        RECURRENT,
        CHORALE,
        BAR_VAE,
        TIMBRE_GAN,
        ROLL_GAN,
    )
}  # fmt: skip


def family_of(name: str) -> Family[Any]:
    """The family of a name.

    Raises:
        RecipeError: there is none.
    """
    if name not in FAMILIES:
        raise RecipeError(f"model family {name!r} is not known", remedy=f"choose {', '.join(FAMILIES)}")
    return FAMILIES[name]


def network_of(
    family: str, configuration: Configuration | Mapping[str, Any], *, name: str = "model", dropout: float | None = None
) -> nn.Module:
    """One network of a model, with fresh weights.

    Args:
        configuration: the family's, or its plain values as a bundle holds them.
        name: which of the family's networks.
        dropout: in place of the configuration's, such as 0 for generation.

    Raises:
        RecipeError: no such family.
    """
    known = family_of(family)
    values = configuration if isinstance(configuration, Mapping) else configuration.to_dict()
    made = known.read(values, **({} if dropout is None else {"dropout": dropout}))
    network: nn.Module = known.networks(made)[name]
    return network
