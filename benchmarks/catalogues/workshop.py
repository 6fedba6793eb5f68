"""A registered model and orders for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tutti.features.vocabulary import EVENTS
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder
from tutti.registry.versions import Registry
from tutti.storage import Folder

MODEL = "bench"
LENIENT: Mapping[str, float] = {
    "min_notes": 1, "pitch_low": 0, "pitch_high": 127, "max_silence_s": 1000, "max_silence_share": 1,
    "length_tolerance": 1, "max_stuck_share": 1, "max_note_s": 1000, "min_in_key": 0,
}  # fmt: skip
"""Limits that fresh weights keep; one of them is set tighter where takes are to fail."""


def register(home: Path, *, bundle: Path | None = None, flavour: str = "nano", max_tokens: int = 1024) -> Registry:
    """A registry below ``home`` with :data:`MODEL`: the bundle's, or fresh weights of a decoder."""
    if bundle is None:
        bundle = home / "bundle"
        _fresh(flavour, max_tokens=max_tokens).save(bundle)
    registry = Registry.embedded(Folder(str(home / "registry")))
    registry.register(bundle, name=MODEL)
    return registry


def _fresh(flavour: str, *, max_tokens: int) -> Bundle:
    torch.manual_seed(20261128)
    shape = {"vocabulary_size": len(EVENTS), "max_tokens": max_tokens}
    configuration = DECODER.configure(flavour, shape=shape, settings={"dropout": 0.0})
    return Bundle(
        family="decoder",
        flavour=flavour,
        configuration=configuration.to_dict(),
        weights=Decoder(configuration).state_dict(),
        vocabulary=EVENTS.names,
        collections=(),
        facts={"training": {"sequence_tokens": max_tokens}},
    )


def write_order(path: Path, **order: Any) -> Path:
    """An order as a file; JSON is YAML."""
    path.write_text(json.dumps({"model": MODEL, **order}), encoding="utf-8")
    return path
