"""MLflow loads a registered version by itself, from its SQLite file and over HTTP, and it makes music."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.models import Model
from mlflow.pyfunc.scoring_server import invocations
from mlflow.tracking.client import MlflowClient

from tests.serving import save_untrained
from tutti.corpus.midi import write_midi
from tutti.errors import IntegrityError, RecipeError
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.models.bundle import CARD, MODEL, VOCABULARY, WEIGHTS
from tutti.registry.mlmodel import EXAMPLE, MLMODEL
from tutti.registry.model_version import FILES
from tutti.registry.versions import Registry

ASKED: dict[str, Any] = {"bars": 1, "tempo": 120, "meter": "4/4", "seed": 7}


@pytest.fixture
def registered(
    place: tuple[Registry, Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Registry, str, Path]]:
    """A registry with two versions of a model, the first in production; its name, and where its files lie.

    MLflow knows of it as users tell it, by the environment.
    """
    registry, stored = place
    for seed in (1, 2):
        save_untrained(tmp_path / f"bundle-{seed}", seed=seed)
        registry.register(tmp_path / f"bundle-{seed}", name=name)
    registry.promote(name, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.backend.tracking_uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    yield registry, name, stored
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def test_mlflow_loads_it_by_alias_and_by_number_and_it_makes_music(
    registered: tuple[Registry, str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    registry, name, _ = registered
    logging.getLogger("mlflow").addHandler(caplog.handler)
    try:
        production = mlflow.pyfunc.load_model(f"models:/{name}@production")
        second = mlflow.pyfunc.load_model(f"models:/{name}/2", model_config={"max_batch": 1})
        answer = production.predict(pd.DataFrame([ASKED, {**ASKED, "seed": 8}]))
    finally:
        logging.getLogger("mlflow").removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    engine = Engine.load(registry.fetch(registry.resolve(f"{name}@production")))
    pieces = engine.generate([Request(**ASKED), Request(**{**ASKED, "seed": 8})])
    assert answer["midi"].tolist() == [write_midi(piece.score) for piece in pieces]
    assert answer["model_digest"].unique().tolist() == [engine.digest]
    listed = second.predict([ASKED])
    assert listed["model_digest"].tolist() == [registry.resolve(f"{name}/2").digest]
    assert listed["midi"].tolist() != answer["midi"].tolist()[:1]
    assert registry.fetch(registry.resolve(name)), "what MLflow writes beside the files harms none"


def test_the_model_says_what_it_takes_and_gives(registered: tuple[Registry, str, Path]) -> None:
    _, name, _ = registered
    model = mlflow.pyfunc.load_model(f"models:/{name}@production")
    meta: Model = model.metadata
    assert "tempo" in meta.get_input_schema().input_names()
    assert meta.get_input_schema().required_input_names() == []
    assert "midi" in meta.get_output_schema().input_names()
    assert model.input_example == EXAMPLE
    with pytest.raises(RecipeError, match="request 0: unknown key 'tempoo'; did you mean 'tempo'") as caught:
        model.predict(pd.DataFrame([{"bars": 1, "tempoo": 90}]))
    assert "\n" not in str(caught.value)


def test_mlflows_own_server_answers_with_it(registered: tuple[Registry, str, Path]) -> None:
    """``mlflow models serve --env-manager local`` hands bodies to this function."""
    _, name, _ = registered
    model = mlflow.pyfunc.load_model(f"models:/{name}@production")
    body = json.dumps({"inputs": [ASKED]})
    answer = invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer.status == 200
    (row,) = json.loads(answer.response)["predictions"]
    assert row["seed"] == 7
    assert row["midi"].startswith("TVRoZA")  # MThd in base64


@pytest.mark.parametrize("damaged", [MLMODEL, WEIGHTS])
def test_production_never_points_at_what_cannot_be_loaded(registered: tuple[Registry, str, Path], damaged: str) -> None:
    registry, name, stored = registered
    (path,) = stored.rglob(f"{Path(registry.resolve(f'{name}/2').source).name}/{damaged}")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=f"{damaged} is not the file that was registered"):
        registry.promote(name, "2")
    assert registry.resolve(f"{name}@production").version == "1"
    assert mlflow.pyfunc.load_model(f"models:/{name}@production").predict([ASKED])["notes"][0] > 0


def test_a_version_of_before_still_makes_music(registered: tuple[Registry, str, Path]) -> None:
    """Versions that were registered without MLflow's own files are those of Tutti 0.1."""
    registry, name, stored = registered
    version = registry.resolve(f"{name}/2")
    older = {file: version.checksums[file] for file in (WEIGHTS, MODEL, VOCABULARY, CARD)}
    client: MlflowClient = registry.backend.client()
    client.set_model_version_tag(name, "2", FILES, json.dumps(older))
    for gone in version.checksums.keys() - older.keys():
        next(stored.rglob(f"{Path(version.source).name}/{gone}")).unlink()
    folder = registry.fetch(registry.resolve(f"{name}/2"))
    assert Engine.load(folder).generate([Request(**ASKED)])[0].refused_tokens == 0
    assert registry.promote(name, "2").aliases == ("production",)
