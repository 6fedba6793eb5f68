"""The works that a model learnt from and those that were held out, as its facts name them.

What is compared is what the model could read: a work whose licence the training did not name has no tokens, and is
counted as left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tutti import lineage, seeding
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset.columns import read_columns
from tutti.errors import MissingError, UserError
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import TOKENS, WORKS

HELD_OUT = ("valid", "test")
_NAMED = ("work_id", "title", "composer", "licence", "collection")
_MUSIC = (
    "ticks_per_quarter", "onset_ticks", "duration_ticks", "pitch", "velocity", "program", "track", "tempo_ticks",
    "tempo_qpm", "meter_ticks", "meter_numerator", "meter_denominator",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """Which work a piece is.

    Args:
        work_id: hash of its music.
        title, composer: where the source tells them.
        licence: SPDX identifier or ``LicenseRef-…``.
        collection: where it comes from.
    """

    work_id: str
    title: str | None
    composer: str | None
    licence: str
    collection: str

    @property
    def words(self) -> str:
        """The work as people call it: composer and title, or the start of its hash."""
        told = [word for word in (self.composer, self.title) if word]
        return ": ".join(told) if told else f"work {self.work_id[:12]}"


@dataclass(frozen=True)
class Works:
    """Some works of one split.

    Args:
        batch: their music, as the corpus holds it.
        named: which they are, in the same order.
        left_out: how many works of the split training did not read, for it did not name their licences.
    """

    batch: ScoreBatch
    named: tuple[Named, ...]
    left_out: int

    def __len__(self) -> int:
        return len(self.named)

    def take(self, index: NDArray[np.int64]) -> Works:
        """The works at ``index``, in that order."""
        return Works(self.batch.take(index), tuple(self.named[place] for place in index.tolist()), self.left_out)


def dataset_of(facts: Mapping[str, Any], *, kind: str, root: Folder) -> Dataset:
    """The dataset that a model's facts name: where they say, or below ``root`` where results were moved.

    Args:
        facts: of a bundle.
        kind: ``works`` or ``tokens``.
        root: results root.

    Raises:
        MissingError: the facts name none, or it is in neither place.
        IntegrityError: it is damaged.
    """
    address = facts.get("data", {}).get(f"{kind}_address")
    if not address:
        raise MissingError(f"the model does not say of which {kind} it was made", remedy="use one of `tutti train`")
    found = lineage.find(Folder(address))
    if found is None:
        found = lineage.find(root / "/".join(["", *str(address).rstrip("/").split("/")[-3:]]).lstrip("/"))
    if found is None:
        raise MissingError(
            f"the {kind} that the model was made of are gone from {address}",
            remedy="name the --root that holds them, or train again from the same recipe, which makes them anew",
        )
    return found


def read(works: Dataset, tokens: Dataset | None, *, split: str, licences: Collection[str]) -> Works:
    """All works of a split that the model could read, by their identifiers.

    Args:
        works: the corpus.
        tokens: what was made of it, where the model reads tokens.
        split: which works.
        licences: of the works that trained, where it does not.

    Raises:
        UserError: there is none.
        IntegrityError: a table is damaged.
        PlaceError: one cannot be read.
    """
    column, allowed = ("licence", pa.array(sorted(licences), pa.string()))
    if tokens is not None:
        column, allowed = "work_id", _readable(tokens, split=split)
    tables, left_out = [], 0
    for table in read_columns(works, prefix="works-", schema=WORKS, columns=(*_NAMED, "split", *_MUSIC)):
        held = table.filter(pc.equal(table["split"], split))
        tables.append(held.filter(pc.is_in(held[column], value_set=allowed)))
        left_out += held.num_rows - tables[-1].num_rows
    table = pa.concat_tables(tables)
    if not table.num_rows:
        raise UserError(
            f"the {split} split of {works.folder.uri} holds no work that the model could read",
            remedy="name another split, or train on more works",
        )
    table = table.take(pc.sort_indices(table["work_id"]))
    batch = ScoreBatch.from_table(table)
    named = tuple(Named(**row) for row in table.select(_NAMED).to_pylist())
    return Works(batch, named, left_out)


def drawn(works: Works, *, most: int, seed: int) -> Works:
    """As many works or fewer, drawn by their identifiers and none twice, in their order."""
    if len(works) <= most:
        return works
    keys = np.array([int(named.work_id[:15], 16) for named in works.named], dtype=np.uint64)
    stream = np.full(len(keys), seeding.derive(seed, "works"), dtype=np.uint64)
    draws = seeding.uniform_at(stream, keys)
    return works.take(np.sort(np.argsort(draws, kind="stable")[:most]))


def _readable(tokens: Dataset, *, split: str) -> pa.Array:
    columns = ("work_id", "split")
    tables = list(read_columns(tokens, prefix="", schema=TOKENS, columns=columns))
    ids: Sequence[pa.ChunkedArray] = [table["work_id"].filter(pc.equal(table["split"], split)) for table in tables]
    return pa.concat_arrays([chunk for column in ids for chunk in column.chunks] or [pa.array([], pa.string())])
