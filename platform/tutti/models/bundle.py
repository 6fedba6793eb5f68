"""A model as files: what training writes, the registry keeps and an engine loads.

::

    model.safetensors   weights
    model.json          family, flavour, configuration, vocabulary hash, facts of its making
    vocabulary.json     token names in id order, names of the source collections
    card.md             what a person should know before using it (written by the registry)

The **digest** is a hash of weights, configuration and vocabulary: the same checkpoint has the same digest anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from tutti.errors import IntegrityError, MissingError

WEIGHTS, MODEL, VOCABULARY, CARD = "model.safetensors", "model.json", "vocabulary.json", "card.md"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """One model, loaded.

    Args:
        family: such as ``decoder``.
        flavour: named size within the family.
        configuration: the family's own settings, as plain values.
        weights: tensors by parameter name.
        vocabulary: names of what it gives or is asked for, in id order; tokens where it says one after another.
        collections: names of the source collections, in the order of their ``Collection_i`` tokens.
        facts: what is known of its making: measures, data address, licences with counts, recipe.
    """

    family: str
    flavour: str
    configuration: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    vocabulary: tuple[str, ...]
    collections: tuple[str, ...]
    facts: Mapping[str, Any]

    def files(self) -> dict[str, bytes]:
        """File name to bytes; equal bundles give equal bytes."""
        model = {
            "format": FORMAT,
            "family": self.family,
            "flavour": self.flavour,
            "configuration": dict(self.configuration),
            "facts": dict(self.facts),
        }
        vocabulary = {"names": list(self.vocabulary), "collections": list(self.collections)}
        return {
            WEIGHTS: safetensors.torch.save({name: self.weights[name].contiguous() for name in sorted(self.weights)}),
            MODEL: json.dumps(model, indent=2, sort_keys=True, ensure_ascii=False).encode(),
            VOCABULARY: json.dumps(vocabulary, ensure_ascii=False).encode(),
        }

    def digest(self) -> str:
        """Hash of weights, configuration and vocabulary; facts do not enter: 32 hexadecimal digits."""
        files = self.files()
        state = hashlib.sha256(files[WEIGHTS])
        state.update(json.dumps([self.family, dict(self.configuration)], sort_keys=True).encode())
        state.update(files[VOCABULARY])
        return state.hexdigest()[:32]

    def save(self, folder: Path) -> None:
        """Write the files below ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files().items():
            (folder / name).write_bytes(data)


def load(folder: Path) -> Bundle:
    """Read a bundle; weights are safetensors, so foreign files cannot run code.

    Raises:
        MissingError: a file is not there.
        IntegrityError: a file is not of its format.
    """
    for name in (WEIGHTS, MODEL, VOCABULARY):
        if not (folder / name).is_file():
            raise MissingError(f"model folder {folder} holds no {name}", remedy="name a folder of a registered version")
    try:
        model = json.loads((folder / MODEL).read_bytes())
        vocabulary = json.loads((folder / VOCABULARY).read_bytes())
        weights = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        return Bundle(
            family=model["family"],
            flavour=model["flavour"],
            configuration=model["configuration"],
            weights=weights,
            vocabulary=tuple(vocabulary["names"]),
            collections=tuple(vocabulary["collections"]),
            facts=model["facts"],
        )
    except (ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise IntegrityError(f"model folder {folder} is damaged ({error})") from error
