"""Rows of the ``works`` table from a batch of pieces and what is known of where they come from.

A draft is a row before all others are known: it lacks the group of near duplicates and, with it, the split.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tutti.corpus.fingerprint import fingerprints
from tutti.corpus.metadata import Labels
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.sketch import sketches
from tutti.tables import WORKS, checked

Describe = Callable[[ScoreBatch], dict[str, pa.Array]]

DECIDED_LATER = ("group_id", "split")
DRAFTS = pa.schema([field for field in WORKS if field.name not in DECIDED_LATER], metadata=WORKS.metadata)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a piece comes from and under which terms.

    Args:
        source_uri, source_sha256: the file and the hash of its bytes.
        collection: name of the source collection.
        licence, licence_origin: its terms, and who stated them.
        labels: what a file of metadata says of it.
    """

    source_uri: str
    source_sha256: str
    collection: str
    licence: str
    licence_origin: str
    labels: Labels | None = None

    @property
    def told(self) -> Labels:
        """The labels, empty ones where nothing was told."""
        return self.labels or Labels()


def drafts(batch: ScoreBatch, *, origins: Sequence[Origin], describe: Describe) -> pa.Table:
    """The rows of W pieces, without what is decided later.

    Args:
        batch: the pieces.
        origins: of each.
        describe: the descriptor columns of a batch.
    """
    told = [origin.told for origin in origins]
    values, starts = sketches(batch)
    described = describe(batch)
    columns = {
        "work_id": pa.array(batch.work_ids()),
        **{name: _texts([getattr(origin, name) for origin in origins]) for name in _ORIGIN_COLUMNS},
        **batch.arrow_columns(),
        "title": _texts([labels.title or title for labels, title in zip(told, batch.titles, strict=True)]),
        "composer": _texts([labels.composer or name for labels, name in zip(told, batch.composers, strict=True)]),
        "tags": pa.array([list(labels.tags) for labels in told], pa.list_(pa.string())),
        "metadata": _texts([json.dumps(labels.other, ensure_ascii=False, sort_keys=True) for labels in told]),
        **described,
        **_moods(described, told),
        "fingerprint": _texts(fingerprints(batch)),
        "sketch": pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(values)),
    }
    return checked(pa.table({name: columns[name] for name in DRAFTS.names}, schema=DRAFTS))


_ORIGIN_COLUMNS = ("source_uri", "source_sha256", "collection", "licence", "licence_origin")


def _moods(described: dict[str, Any], told: Sequence[Labels]) -> dict[str, pa.Array]:
    """Mood by its label where there is one."""
    rows = [row for row, labels in enumerate(told) if labels.valence is not None and labels.arousal is not None]
    if not rows:
        return {}
    valence, arousal = (described[name].to_numpy().copy() for name in ("valence", "arousal"))
    source = described["mood_source"].to_pylist()
    for row in rows:
        valence[row], arousal[row], source[row] = told[row].valence, told[row].arousal, "label"
    return {"valence": pa.array(valence), "arousal": pa.array(arousal), "mood_source": pa.array(source)}


def _texts(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string())
