"""How MLflow loads a version: the files that make a bundle an MLflow model.

::

    MLmodel               who loads it, what it takes and gives
    input_example.json    requests that every model takes
    requirements.txt      what it ran with, beside Tutti itself

``mlflow.pyfunc.load_model("models:/bach@production")`` reads them and imports :data:`LOADER`, by its name: generation
stands above this room. Weights stay safetensors; nothing is pickled.

The signature is marked as one that comes from a type, the way MLflow marks models that check their own input
(``mlflow/pyfunc/__init__.py``, 3.17): otherwise MLflow drops columns it does not know and refuses 90 where 90.0 is
meant, before the loader sees either.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from tutti.models.bundle import Bundle

MLMODEL, INPUT_EXAMPLE, REQUIREMENTS = "MLmodel", "input_example.json", "requirements.txt"
DIGEST_KEY = "tutti.digest"
"""Where the metadata of ``MLmodel`` hold the digest that the loaded model must have."""
LOADER = "tutti.generation.pyfunc"
"""Module that MLflow imports; it holds ``_load_pyfunc``."""

INPUTS: dict[str, dict[str, Any]] = {
    "length": {"type": "any"},
    "bars": {"type": "long"},
    "tempo": {"type": "double"},
    "key": {"type": "string"},
    "scale": {"type": "string"},
    "chords": {"type": "string"},
    "form": {"type": "string"},
    "pitch_range": {"type": "any"},
    "polyphony": {"type": "long"},
    "meter": {"type": "string"},
    "instruments": {"type": "array", "items": {"type": "string"}},
    "density": {"type": "string"},
    "mood": {"type": "string"},
    "valence": {"type": "double"},
    "arousal": {"type": "double"},
    "difficulty": {"type": "string"},
    "collection": {"type": "string"},
    "guidance": {"type": "double"},
    "temperature": {"type": "double"},
    "top_p": {"type": "double"},
    "best_of": {"type": "long"},
    "seed": {"type": "long"},
}
"""MLflow's type of each control, by its name in :class:`tutti.generation.request.Request`; all may be left out."""
OUTPUTS: dict[str, dict[str, Any]] = {
    "midi": {"type": "binary"},
    "notes": {"type": "long"},
    "length_s": {"type": "double"},
    "seed": {"type": "long"},
    "refused_tokens": {"type": "long"},
    "model_digest": {"type": "string"},
}
"""MLflow's type of each column that comes back."""
EXAMPLE: list[dict[str, Any]] = [
    {"length": "10s", "key": "D minor", "tempo": 90.0, "seed": 7},
    {"bars": 4, "meter": "3/4", "seed": 8},
]
_CONFIGURATION = {"device": "cpu", "max_batch": 32}
_NOTED = ("mlflow", "numpy", "pyarrow", "safetensors", "torch")


def files(bundle: Bundle, *, digest: str) -> dict[str, bytes]:
    """Bytes by name of the files that MLflow needs beside those of the bundle."""
    return {
        MLMODEL: yaml.safe_dump(_mlmodel(bundle, digest=digest), sort_keys=True).encode(),
        INPUT_EXAMPLE: json.dumps(EXAMPLE, indent=2).encode(),
        REQUIREMENTS: _requirements().encode(),
    }


def _mlmodel(bundle: Bundle, *, digest: str) -> dict[str, Any]:
    return {
        "flavors": {
            "python_function": {
                "loader_module": LOADER,
                "python_version": platform.python_version(),
                "config": dict(_CONFIGURATION),
            },
            "tutti": {"family": bundle.family, "flavour": bundle.flavour},
        },
        "metadata": {DIGEST_KEY: digest},
        "saved_input_example_info": {"artifact_path": INPUT_EXAMPLE, "type": "json_object"},
        "signature": {
            "inputs": json.dumps([{**kind, "name": name, "required": False} for name, kind in INPUTS.items()]),
            "outputs": json.dumps([{**kind, "name": name, "required": True} for name, kind in OUTPUTS.items()]),
            "params": None,
        },
        "is_signature_from_type_hint": True,
    }


def _requirements() -> str:
    noted = (f"{name}=={importlib.metadata.version(name)}" for name in _NOTED)
    tutti = f"# Tutti {importlib.metadata.version('tutti')} itself is not on an index: install it from its own source."
    return "\n".join((tutti, *noted)) + "\n"
