"""Named sizes: settings of :class:`TimbreConfiguration` that the notes do not decide, and what each is for."""

from __future__ import annotations

from collections.abc import Mapping

FLAVOURS: Mapping[str, tuple[Mapping[str, int], str]] = {
    "nano": ({"latent": 8, "width": 32, "halvings": 2}, "tests: learns nothing worth hearing, in seconds"),
    "tiny": ({"latent": 64, "width": 256, "halvings": 3}, "a dozen instruments in minutes on two processor cores"),
    "base": ({"latent": 128, "width": 768, "halvings": 4}, "one GPU, some hundred instruments"),
}
