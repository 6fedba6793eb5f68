"""A checkpoint as a model: taken out of a run that is not finished, or that kept some, by one process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tutti.errors import MissingError
from tutti.models.bundle import Bundle
from tutti.models.families import family_of
from tutti.storage import Folder
from tutti.training import checkpoint, networks
from tutti.training.checkpoint import Saved


def found(run: Folder, *, step: int | None = None) -> Saved:
    """The complete checkpoint of a step, or the newest.

    Args:
        run: folder of the run.

    Raises:
        MissingError: there is none, or it says nothing of its model.
    """
    saved = checkpoint.latest(run) if step is None else checkpoint.at(run, step=step)
    if saved is None:
        steps = checkpoint.steps(run)
        if not steps:
            raise MissingError(
                f"no complete checkpoint at {run.uri}", remedy="name a run that goes on, or keeps some when it ends"
            )
        raise MissingError(
            f"no complete checkpoint of step {step} at {run.uri}",
            remedy=f"there are those of {', '.join(map(str, steps))}",
        )
    if "model" not in saved.dataset.facts:
        raise MissingError(
            f"the checkpoint of step {saved.step} at {run.uri} says nothing of its model",
            remedy="start its training again: the next one does",
        )
    return saved


def bundle_of(saved: Saved) -> Bundle:
    """The model of a checkpoint, verified.

    Raises:
        IntegrityError: a file is not what was written.
    """
    with tempfile.TemporaryDirectory(prefix="tutti-export-") as folder:
        checkpoint.fetch(saved, Path(folder), wanted=lambda path: path != checkpoint.HISTORY)
        model = saved.dataset.facts["model"]
        weights = networks.weights_of(Path(folder), network=family_of(model["family"]).maker)
    return Bundle(
        family=model["family"],
        flavour=model["flavour"],
        configuration=model["configuration"],
        weights=weights,
        vocabulary=tuple(model["vocabulary"]),
        collections=tuple(model["collections"]),
        facts=_facts(saved, model["facts"]),
    )


def _facts(saved: Saved, known: dict[str, Any]) -> dict[str, Any]:
    measures = dict(known["measures"])
    if saved.valid_score is not None:
        measures[f"valid_{known['score']}"] = saved.valid_score
    tokens = saved.dataset.facts["learnt_tokens"]
    return {**known, "measures": measures, "training": {**known["training"], "steps": saved.step, "tokens": tokens}}
