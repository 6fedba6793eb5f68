"""Works to token rows, Arrow to Arrow: the pure heart of ``tutti encode``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from tutti.corpus.score_batch import ScoreBatch
from tutti.features.controls import DESCRIBED, Controls, controls_of
from tutti.features.events import Tokens, encode_grid
from tutti.features.grid import MAX_TIME_TICKS, Grid, span_ticks
from tutti.features.vocabulary import EVENTS, TEMPOS_QPM
from tutti.tables import TOKENS

ENCODE_VERSION = 1
"""Moves whenever the same works would give other tokens."""

NOTES_AT_ONCE = 2**15
"""So many that a call of numpy costs nothing a note, and so few that their columns stay in a processor's cache."""


def encode_works(works: pa.Table, *, collections: Sequence[str]) -> pa.Table:
    """The ``tokens`` rows of ``works`` rows, in their order.

    Args:
        collections: names of the source collections by slot.
    """
    parts = [TOKENS.empty_table()]
    parts += [_encoded(works.slice(start, stop - start), collections) for start, stop in _parts(works)]
    # One chunk a column: Parquet's pages, and so the bytes, then depend on the rows alone.
    return pa.concat_tables(parts).combine_chunks()


def _parts(works: pa.Table) -> Iterator[tuple[int, int]]:
    """First row and end of neighbours that are encoded at once."""
    batch = ScoreBatch.from_table(works)
    start = notes = ticks = 0
    for row, (more_notes, more_ticks) in enumerate(
        zip(np.diff(batch.note_starts).tolist(), span_ticks(batch).tolist(), strict=True)
    ):
        if row > start and (notes + more_notes > NOTES_AT_ONCE or ticks + more_ticks > MAX_TIME_TICKS):
            yield start, row
            start, notes, ticks = row, 0, 0
        notes, ticks = notes + more_notes, ticks + more_ticks
    if start < len(batch):
        yield start, len(batch)


def _encoded(works: pa.Table, collections: Sequence[str]) -> pa.Table:
    grid = Grid.of(ScoreBatch.from_table(works))
    controls = controls_of(
        {name: works.column(name).to_pylist() for name in DESCRIBED},
        tempo_qpm=np.array(TEMPOS_QPM)[grid.tempo[grid.tempo_starts[:-1]]].tolist(),
        bars=np.diff(grid.bar_starts).tolist(),
        programs=grid.programs(),
        collections=collections,
    )
    heads = [_head(each) for each in controls]
    tokens, starts = encode_grid(grid, heads=[head for head, _ in heads])
    return pa.table(
        {
            "work_id": works.column("work_id"),
            "vocabulary": pa.array([EVENTS.hash] * len(grid)),
            "tokens": pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(tokens)),
            "notes": pa.array(np.diff(grid.note_starts).astype(np.int32)),
            "controls": pa.array([names for _, names in heads], pa.string()),
            "split": works.column("split"),
        },
        schema=TOKENS,
    )


@lru_cache(maxsize=2**12)
def _head(controls: Controls) -> tuple[Tokens, str]:
    return controls.tokens(), json.dumps(controls.names())
