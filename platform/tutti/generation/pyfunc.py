"""A registered version as MLflow loads it: requests in, pieces out, both as tables.

::

    model = mlflow.pyfunc.load_model("models:/bach@production")
    model.predict(pandas.DataFrame([{"length": "20s", "key": "D minor", "seed": 7}]))

The files that lead here are written by :mod:`tutti.registry.mlmodel`. MLflow calls :func:`_load_pyfunc` and, for each
call of ``predict``, :meth:`Composer.predict`; nothing of MLflow is needed for that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from tutti.config import build
from tutti.corpus.midi import write_midi
from tutti.errors import InputError, IntegrityError
from tutti.generation import composers
from tutti.generation.engine import Piece
from tutti.generation.request import Request
from tutti.registry.mlmodel import DIGEST_KEY, MLMODEL

ANSWER = pa.schema(
    [
        pa.field("midi", pa.binary(), metadata={"says": "the piece as a Standard MIDI file"}),
        pa.field("notes", pa.int64(), metadata={"says": "how many notes it has"}),
        pa.field("length_s", pa.float64(), metadata={"says": "when its last note ends, seconds"}),
        pa.field("seed", pa.int64(), metadata={"says": "root of its random stream: the same seed, the same piece"}),
        pa.field("refused_tokens", pa.int64(), metadata={"says": "tokens that gave no note; 0 unless it is broken"}),
        pa.field("model_digest", pa.string(), metadata={"says": "hash of the model that made it"}),
    ]
)
"""One row a request, in their order."""


class Composer:
    """What MLflow holds as the model.

    Args:
        engine: makes the pieces.
    """

    def __init__(self, engine: composers.Composer) -> None:
        self._engine = engine

    def predict(self, model_input: Any) -> Any:
        """One piece a request.

        Args:
            model_input: a DataFrame whose rows are requests, a list of requests, or one, each as a mapping of the
                fields of :class:`tutti.generation.request.Request`; what is left out, None or NaN is the model's to
                choose.

        Returns:
            A DataFrame with the columns of :data:`ANSWER`.

        Raises:
            RecipeError: an unknown field, a value outside its limits; nothing was made.
            InputError: no requests at all.
        """
        pieces = self._engine.generate(requests_of(model_input))
        rows = [_row(piece, digest=self._engine.digest) for piece in pieces]
        return pa.Table.from_pylist(rows, schema=ANSWER).to_pandas()


def requests_of(model_input: Any) -> list[Request]:
    """The requests in what a caller of ``predict`` gave; arguments and errors as :meth:`Composer.predict`."""
    if hasattr(model_input, "notna"):
        # Missing cells of a DataFrame are NaN, NaT or NA by the type of their column.
        model_input = model_input.astype(object).where(model_input.notna(), None).to_dict("records")
    records = [model_input] if isinstance(model_input, Mapping) else model_input
    if not isinstance(records, list | tuple) or not all(isinstance(record, Mapping) for record in records):
        raise InputError(
            f"{type(model_input).__name__} holds no requests", remedy="give a DataFrame or a list of mappings"
        )
    return [build(Request, _given(record), origin=f"request {number}") for number, record in enumerate(records)]


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> Composer:
    """What MLflow calls to load a version.

    Args:
        data_path: folder of the version's files.
        model_config: ``device`` and ``max_batch``, as ``mlflow.pyfunc.load_model(…, model_config=…)`` gave them.

    Raises:
        MissingError: a file is not there.
        IntegrityError: the files are damaged, or not those that were registered.
    """
    folder = Path(data_path)
    settings = model_config or {}
    engine = composers.load(
        folder, device=str(settings.get("device", "cpu")), max_batch=int(settings.get("max_batch", 32))
    )
    registered = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))["metadata"][DIGEST_KEY]
    if engine.digest != registered:
        raise IntegrityError(f"model folder {folder} has digest {engine.digest}, not {registered}: fetch it again")
    return Composer(engine)


def _given(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Fields that hold something, as plain values."""
    plain = {
        str(name): value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        for name, value in record.items()
    }
    return {
        name: value
        for name, value in plain.items()
        if value is not None and not (isinstance(value, float) and math.isnan(value))
    }


def _row(piece: Piece, *, digest: str) -> dict[str, Any]:
    return {
        "midi": write_midi(piece.score),
        "notes": len(piece.score.notes),
        "length_s": piece.score.length_s,
        "seed": piece.request.seed,
        "refused_tokens": piece.refused_tokens,
        "model_digest": digest,
    }
