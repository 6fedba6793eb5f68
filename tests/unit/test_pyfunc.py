"""A version as MLflow loads it: what it takes and gives. MLflow itself loads it in the integration tests."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.serving import save_untrained
from tutti.corpus.midi import read_midi
from tutti.errors import InputError, IntegrityError, RecipeError
from tutti.generation import pyfunc
from tutti.generation.pyfunc import ANSWER, Composer, requests_of
from tutti.generation.request import Request
from tutti.registry import files, mlmodel
from tutti.registry.mlmodel import MLMODEL

SMALL: dict[str, Any] = {"bars": 1, "tempo": 120, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's files."""
    home = tmp_path_factory.mktemp("model")
    save_untrained(home / "bundle")
    files.stage(home / "bundle").write(home / "version")
    return home / "version"


@pytest.fixture(scope="module")
def composer(folder: Path) -> Composer:
    """The model as MLflow holds it."""
    return pyfunc._load_pyfunc(str(folder), {"device": "cpu", "max_batch": 2})


def test_the_registry_knows_what_generation_takes_and_gives() -> None:
    """The registry stands below generation, so it says these things by name."""
    # A table of requests carries no files to start from.
    assert mlmodel.INPUTS.keys() == Request.model_fields.keys() - {"start"}
    assert list(mlmodel.OUTPUTS) == ANSWER.names
    assert callable(importlib.import_module(mlmodel.LOADER)._load_pyfunc)
    assert len(requests_of(mlmodel.EXAMPLE)) == 2


def test_every_column_that_comes_back_is_told() -> None:
    assert all(field.metadata[b"says"] for field in ANSWER)


def test_requests_in_pieces_out_in_their_order(composer: Composer) -> None:
    answer = composer.predict([{**SMALL, "seed": seed} for seed in (3, 1, 2)])
    assert list(answer.columns) == ANSWER.names
    assert answer["seed"].tolist() == [3, 1, 2]
    assert answer["refused_tokens"].tolist() == [0, 0, 0]
    for row in answer.to_dict("records"):
        score = read_midi(row["midi"])
        assert len(score.notes) == row["notes"]
        assert score.length_s == pytest.approx(row["length_s"], abs=0.01)
    assert answer["midi"].tolist() == composer.predict(pd.DataFrame({**SMALL, "seed": [3, 1, 2]}))["midi"].tolist()


def test_no_requests_give_no_pieces(composer: Composer) -> None:
    for nothing in ([], pd.DataFrame({"seed": []})):
        assert composer.predict(nothing).shape == (0, len(ANSWER))


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 7, "tempo": 90.0},
        [{"seed": 7, "tempo": 90, "bars": None, "key": float("nan")}],
        [{"seed": np.int64(7), "tempo": np.float32(90), "instruments": np.array([], dtype=object)}],
        pd.DataFrame({"seed": [7], "tempo": [90]}),
        pd.DataFrame({"seed": [7.0], "tempo": [90], "bars": [np.nan], "key": [None], "instruments": [[]]}),
        pd.DataFrame({"seed": pd.array([7], dtype="Int64"), "tempo": [90], "bars": pd.array([pd.NA], dtype="Int64")}),
        pd.DataFrame({"seed": [7], "tempo": [90], "mood": pd.Series([pd.NA], dtype="string")}),
        pd.DataFrame({"seed": [7], "tempo": [90], "mood": pd.to_datetime([None])}),
    ],
)
def test_what_is_left_out_may_be_left_out_in_any_manner(given: Any) -> None:
    assert requests_of(given) == [Request(seed=7, tempo=90)]


def test_one_column_may_hold_seconds_and_texts() -> None:
    first, second = requests_of(pd.DataFrame({"length": [10, "1m30s"]}))
    assert (first.length_s, second.length_s) == (10.0, 90.0)


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tempoo": 90}, "request 1: unknown key 'tempoo'; did you mean 'tempo'?"),
        ({"tempo": 9000}, "request 1: tempo = 9000"),
        ({"seed": 1.5}, "request 1: seed = 1.5"),
        ({"collection": "nobody"}, "nobody"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line(composer: Composer, wrong: Any, says: str, as_frame: bool) -> None:
    rows = [{"bars": 1}, {"bars": 1, **wrong}]
    with pytest.raises(RecipeError) as caught:
        composer.predict(pd.DataFrame(rows) if as_frame else rows)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["music", 3, None, [["length"]], np.zeros(2)])
def test_what_holds_no_requests_is_told(wrong: Any) -> None:
    with pytest.raises(InputError, match="holds no requests: give a DataFrame"):
        requests_of(wrong)


def test_another_models_weights_are_not_played_as_this_one(folder: Path, tmp_path: Path) -> None:
    save_untrained(tmp_path, seed=1)
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(IntegrityError, match="has digest"):
        pyfunc._load_pyfunc(str(tmp_path))


def test_the_files_are_texts_that_run_no_code(folder: Path) -> None:
    said = yaml.safe_load((folder / MLMODEL).read_text())
    assert said["flavors"]["python_function"]["loader_module"] == "tutti.generation.pyfunc"
    assert json.loads((folder / "input_example.json").read_text()) == mlmodel.EXAMPLE
    assert not [path.name for path in folder.iterdir() if path.suffix in (".pkl", ".pt", ".pt2", ".pth")]
