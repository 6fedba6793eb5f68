"""One MLflow run: found again by its key, one value a step.

A training that was killed and goes on repeats the steps since its last checkpoint. Their figures are the same (order,
seeds and code enter the run's key), so a step that a name already has is not written twice and curves stay curves.

MLflow's limits (``mlflow/utils/validation.py``, 3.17): parameters never change, so a parameter that differs after a
restart (fewer workers) becomes a tag ``now.NAME``; names are cleaned, values are cut.
"""

from __future__ import annotations

import math
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking.client import MlflowClient
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from tutti.errors import InputError
from tutti.registry.backend import Backend, calling

T = TypeVar("T")

RUN_KEY = "tutti.run_key"
"""Tag that names what is trained: the hash of its inputs, settings and code version."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one call of ``log`` gave.

    Args:
        values: figure by name.
        step: optimiser step.
        time_ms: when, milliseconds since 1970.
    """

    values: Mapping[str, float]
    step: int
    time_ms: int


class RunRecord:
    """An open run. Every method calls MLflow and raises what :func:`tutti.registry.backend.calling` raises."""

    def __init__(self, backend: Backend, *, client: MlflowClient, run_id: str, last_step: dict[str, int]) -> None:
        self.backend = backend
        self.run_id = run_id
        self._client = client
        self._last_step = last_step

    @classmethod
    def open(
        cls,
        backend: Backend,
        *,
        experiment: str,
        run_key: str,
        parameters: Mapping[str, str | int | float],
        tags: Mapping[str, str],
        artifacts: str | None = None,
    ) -> RunRecord:
        """The run of ``run_key``: the newest that has it, running again, or a new one.

        Args:
            backend: where records are.
            experiment: MLflow's name for a group of runs; made, or brought back from deletion.
            run_key: hash of what is trained.
            parameters: settings of the run.
            tags: more about it.
            artifacts: URI where the files of a new experiment go; None takes the backend's place.

        Raises:
            PlaceError: the backend is away or refuses.
        """
        client = backend.client()
        with calling(backend, "open a run"):
            experiment_id = _experiment_id(client, experiment, artifacts=artifacts or backend.artifacts)
            run = find_run(client, experiment_id=experiment_id, run_key=run_key)
            last_step: dict[str, int] = {}
            if run is None:
                labels = {RUN_KEY: run_key} | {clean_name(k): cut(v, MAX_TAG_VAL_LENGTH) for k, v in tags.items()}
                run = client.create_run(experiment_id, tags=labels, run_name=labels.get("mlflow.runName", run_key))
                tags = {}
            else:
                client.update_run(run.info.run_id, status="RUNNING")
                for name in run.data.metrics:
                    history = client.get_metric_history(run.info.run_id, name)
                    last_step[name] = max(metric.step for metric in history)
            record = cls(backend, client=client, run_id=run.info.run_id, last_step=last_step)
            record._describe(run, parameters=parameters, tags=tags)
            return record

    def log(self, many: Sequence[Figures]) -> None:
        """Record figures, at most one value of a name for a step; infinities are kept as NaN."""
        metrics: list[Metric] = []
        newest: dict[str, int] = {}
        for figures in many:
            for raw_name, raw_value in figures.values.items():
                name, value = clean_name(raw_name), float(raw_value)
                if figures.step <= max(self._last_step.get(name, -1), newest.get(name, -1)):
                    continue
                newest[name] = figures.step
                # MLflow would draw an infinity as the largest float and flatten the rest of the curve.
                metrics.append(Metric(name, value if math.isfinite(value) else math.nan, figures.time_ms, figures.step))
        with calling(self.backend, "record figures"):
            for batch in _batches(metrics, MAX_METRICS_PER_BATCH):
                self._client.log_batch(self.run_id, metrics=batch)
                self._last_step |= {metric.key: metric.step for metric in batch}

    def artifact(self, path: str, data: bytes) -> None:
        """Keep one file under the run.

        Raises:
            InputError: the path leaves the run.
        """
        check_artifact_path(path)
        target = PurePosixPath(path)
        folder = None if target.parent == PurePosixPath(".") else str(target.parent)
        with tempfile.TemporaryDirectory() as staging:
            staged = Path(staging) / target.name
            staged.write_bytes(data)
            with calling(self.backend, f"keep {path}"):
                self._client.log_artifact(self.run_id, str(staged), folder)

    def tag(self, name: str, value: str) -> None:
        """Set one tag."""
        with calling(self.backend, "tag a run"):
            self._client.set_tag(self.run_id, clean_name(name), cut(value, MAX_TAG_VAL_LENGTH))

    def close(self, *, failed: bool) -> None:
        """End the run as finished or failed."""
        with calling(self.backend, "close a run"):
            self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")

    def _describe(self, run: Run, *, parameters: Mapping[str, str | int | float], tags: Mapping[str, str]) -> None:
        known: Mapping[str, str] = run.data.params
        wanted = {clean_name(name): cut(str(value), MAX_PARAM_VAL_LENGTH) for name, value in parameters.items()}
        new = [Param(name, value) for name, value in wanted.items() if name not in known]
        labels = {clean_name(name): value for name, value in tags.items()} | {
            f"now.{name}": value for name, value in wanted.items() if known.get(name, value) != value
        }
        for some in _batches(new, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(self.run_id, params=some)
        for few in _batches(
            [RunTag(k, cut(v, MAX_TAG_VAL_LENGTH)) for k, v in labels.items()], MAX_PARAMS_TAGS_PER_BATCH
        ):
            self._client.log_batch(self.run_id, tags=few)


def find_run(client: MlflowClient, *, experiment_id: str, run_key: str) -> Run | None:
    """The newest run with this key, or None. Call it inside :func:`tutti.registry.backend.calling`."""
    found = client.search_runs(
        [experiment_id], f"tags.`{RUN_KEY}` = '{run_key}'", order_by=["attributes.start_time DESC"], max_results=1
    )
    return found[0] if found else None


def clean_name(name: str) -> str:
    """A name MLflow takes: other characters than letters, digits and ``_-./: `` become ``_``; at most 250 long."""
    return posixpath.normpath(re.sub(r"[^/\w.\- :]", "_", name)).replace("..", "_").strip("/")[:MAX_ENTITY_KEY_LENGTH]


def cut(text: str, most: int) -> str:
    """``text`` in at most ``most`` characters; what is cut off shows as ``…``."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def check_artifact_path(path: str) -> None:
    """Refuse a path that is not plainly below the run.

    Raises:
        InputError: absolute, empty, with ``..`` or with a scheme.
    """
    leaves = path.startswith("/") or ".." in path or posixpath.normpath(path) != path or path == "."
    if not path or leaves or set(path) & set("\\:"):
        raise InputError(f"artifact path {path!r} is not below its run", remedy="use one like pictures/loss.png")


def _experiment_id(client: MlflowClient, name: str, *, artifacts: str | None) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch
