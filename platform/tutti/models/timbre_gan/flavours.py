"""Named sizes: settings of :class:`TimbreConfiguration` that the notes do not decide, and what each is for."""

from __future__ import annotations

from tutti.models.family import Flavour

FLAVOURS = {
    "nano": Flavour(
        {"latent": 8, "width": 32, "critic_width": 16, "halvings": 2, "likeness": 100.0},
        "tests: learns nothing worth hearing, in seconds",
    ),
    "tiny": Flavour(
        {"latent": 64, "width": 256, "critic_width": 128, "halvings": 3, "likeness": 100.0},
        "a dozen instruments in minutes on two processor cores",
    ),
    "base": Flavour(
        {"latent": 128, "width": 768, "critic_width": 512, "halvings": 4, "likeness": 100.0},
        "one GPU, some hundred instruments",
    ),
}
