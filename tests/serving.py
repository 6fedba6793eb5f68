"""A small untrained model, for tests that need real answers and no good ones."""

from __future__ import annotations

from pathlib import Path

import torch

from tutti.features.vocabulary import EVENTS
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder


def save_untrained(folder: Path, *, seed: int = 0, max_tokens: int = 256) -> None:
    """Write the bundle of a ``nano`` decoder with fresh weights that knows one collection, ``walks``."""
    torch.manual_seed(seed)
    configuration = DECODER.configure(
        "nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": max_tokens}, settings={"dropout": 0.0}
    )
    Bundle(
        family="decoder",
        flavour="nano",
        configuration=configuration.to_dict(),
        weights=Decoder(configuration).state_dict(),
        vocabulary=EVENTS.names,
        collections=("walks",),
        facts={"measures": {"valid_nll_nats_per_token": 7.0}},
    ).save(folder)
