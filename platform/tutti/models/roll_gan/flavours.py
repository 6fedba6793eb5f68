"""Named sizes: settings of :class:`RollConfiguration` that the rolls do not decide, and what each is for."""

from __future__ import annotations

from tutti.models.family import Flavour

FLAVOURS = {
    "nano": Flavour(
        {"latent": 4, "width": 16, "track_width": 8, "voices": 1, "critic_steps": 2},
        "tests: learns nothing worth hearing, in seconds",
    ),
    "tiny": Flavour(
        {"latent": 16, "width": 96, "track_width": 32, "voices": 1, "critic_steps": 2},
        "some hundred chorales in minutes on two processor cores",
    ),
    "base": Flavour(
        {"latent": 48, "width": 512, "track_width": 128, "voices": 6, "critic_steps": 5},
        "one GPU, a corpus of some thousand pieces with drums",
    ),
}
