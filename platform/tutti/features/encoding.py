"""Works to token rows: the pure heart of ``tutti encode``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tutti.corpus.score import Score
from tutti.features.controls import controls_of
from tutti.features.events import bars_of, encode, on_grid
from tutti.features.vocabulary import EVENTS
from tutti.tables import TOKENS, to_table

ENCODE_VERSION = 1
"""Moves whenever the same works would give other tokens."""


def encode_works(works: pa.Table, *, collections: Sequence[str]) -> pa.Table:
    """The ``tokens`` rows of ``works`` rows, in their order.

    Args:
        collections: names of the source collections by slot.
    """
    return to_table((_encoded(row, collections) for row in works.to_pylist()), TOKENS)


def _encoded(row: dict[str, Any], collections: Sequence[str]) -> dict[str, Any]:
    score = on_grid(Score.from_columns(row))
    controls = controls_of(score, row, bars=len(bars_of(score).meter), collections=collections)
    return {
        "work_id": row["work_id"],
        "vocabulary": EVENTS.hash,
        "tokens": encode(score, controls),
        "notes": len(score.notes),
        "controls": json.dumps(controls.names()),
        "split": row["split"],
    }
