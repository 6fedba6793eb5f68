"""Family ``timbre_gan``: a generator that draws a note of any pitch in a timbre that noise decides, and its critic."""

from tutti.models.family import Family
from tutti.models.timbre_gan.flavours import FLAVOURS
from tutti.models.timbre_gan.network import Critic, Generator, TimbreConfiguration
from tutti.models.timbre_gan.objective import (
    Condition,
    TimbreLearning,
    Weights,
    critic_loss,
    fakes,
    generator_loss,
    latent_noise,
)

__all__ = [
    "TIMBRE_GAN",
    "Condition",
    "Critic",
    "Generator",
    "TimbreConfiguration",
    "TimbreLearning",
    "Weights",
    "critic_loss",
    "fakes",
    "generator_loss",
    "latent_noise",
]

TIMBRE_GAN = Family(
    name="timbre_gan",
    reads="spectra",
    configuration=TimbreConfiguration,
    flavours=FLAVOURS,
    networks=lambda configuration: {"generator": Generator(configuration), "critic": Critic(configuration)},
    learning="adversarial",
    objective=TimbreLearning.of,
    maker="generator",
)
