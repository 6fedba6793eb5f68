"""Family ``timbre_gan``: a generator that draws a note of any pitch in a timbre that noise decides, and its critic."""

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
