"""What evaluations found of a version, kept where people look for it: its run's figures and files, a tag, its card.

A version's files never change, its card among them; the tags ``tutti.evaluation.<split>`` (JSON, figure by name) hold
the latest evaluation of each split, and whoever asks for the card gets them below it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from mlflow.utils.validation import MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH

from tutti.errors import InputError, MissingError
from tutti.registry.backend import Backend, calling
from tutti.registry.markdown import table
from tutti.registry.model_version import EVALUATION, ModelVersion
from tutti.registry.run_record import Figures, RunRecord

FOLDER = "evaluation"
"""Below a version's run: its files lie in ``evaluation/<split>/``."""


def keep(
    backend: Backend, version: ModelVersion, *, split: str, figures: Mapping[str, float], files: Mapping[str, bytes]
) -> None:
    """Keep what was found of a version on works of a split, in place of what was found before.

    Args:
        figures: by name; the names begin with what they are of.
        files: by name.

    Raises:
        MissingError: the version has no run.
        InputError: there are more figures than a tag holds.
        PlaceError: MLflow cannot be used.
    """
    if version.run_id is None:
        raise MissingError(f"{version} has no run that could keep figures", remedy="register it again")
    tag = json.dumps(dict(figures), sort_keys=True)
    if len(tag) > MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH:
        raise InputError(
            f"the figures take {len(tag):,} characters, the limit is {MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH:,}",
            remedy="keep fewer",
        )
    client = backend.client()
    record = RunRecord(backend, client=client, run_id=version.run_id, last_step={})
    named = {f"{FOLDER}.{split}.{name}": value for name, value in figures.items()}
    record.log([Figures(named, step=0, time_ms=time.time_ns() // 1_000_000)])
    for name, data in files.items():
        record.artifact(f"{FOLDER}/{split}/{name}", data)
    with calling(backend, f"note the evaluation of {version}"):
        client.set_model_version_tag(version.name, version.version, f"{EVALUATION}{split}", tag)


def section(evaluations: Mapping[str, Mapping[str, float]]) -> str:
    """What was found, as the end of a card; empty where nothing was."""
    parts = [
        f"## Evaluation on {split}\n\n" + table(rows, head=("measure", "value"))
        for split, figures in sorted(evaluations.items())
        if (rows := [(name, f"{value:,.4g}") for name, value in sorted(figures.items())])
    ]
    return "".join(f"\n{part}\n" for part in parts)
