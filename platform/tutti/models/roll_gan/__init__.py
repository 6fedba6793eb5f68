"""Family ``roll_gan``: a generator of piano-rolls for several tracks, of a mood and a tempo class, and its critic."""

from tutti.models.family import Family
from tutti.models.roll_gan.flavours import FLAVOURS
from tutti.models.roll_gan.network import Critic, Generator, RollConfiguration
from tutti.models.roll_gan.objective import RollLearning, Weights, latent_noise, slopes

__all__ = ["ROLL_GAN", "Critic", "Generator", "RollConfiguration", "RollLearning", "Weights", "latent_noise", "slopes"]

ROLL_GAN = Family(
    name="roll_gan",
    reads="rolls",
    configuration=RollConfiguration,
    flavours=FLAVOURS,
    networks=lambda configuration: {"generator": Generator(configuration), "critic": Critic(configuration)},
    learning="adversarial",
    objective=RollLearning,
    maker="generator",
)
