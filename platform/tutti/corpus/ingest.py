"""From items to the ``works`` and ``refusals`` tables: what one file becomes, and what all of them become together.

Nothing here knows Ray: :func:`read_item` is what a task does, :func:`publish` what the caller does with the outcomes.
The same items give the same rows in the same order, whatever the parallelism.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from tutti import lineage
from tutti.config import Settings, digest_of
from tutti.corpus import formats, scores
from tutti.corpus.fingerprint import fingerprint
from tutti.corpus.isolation import parse_untrusted
from tutti.corpus.score import Score
from tutti.corpus.sources import MUSIC21_SCHEME, Item, music21_folder
from tutti.corpus.splits import SPLITS, split_of
from tutti.errors import DataError, InputError, UserError
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import REFUSALS, WORKS, to_parquet, to_table

KIND = "works"
STAGE = "ingest"
# Moves whenever the same bytes would give other rows: a parser, descriptor, mood, fingerprint or split that changed.
INGEST_VERSION = 1

Describe = Callable[[Score], dict[str, Any]]


class Reading(Settings):
    """How files are read, and what is taken."""

    valid_share: float = Field(default=0.1, ge=0, lt=1, description="part of the works held out to choose models by")
    test_share: float = Field(default=0.1, ge=0, lt=1, description="part of the works held out to the very end")
    tempo_without_mark_qpm: float = Field(
        default=80.0, ge=20, le=300, description="tempo of written scores that state none, quarters a minute"
    )
    max_notes: int = Field(default=200_000, ge=1, description="longest work that is taken, notes")
    max_length_s: float = Field(default=7200.0, gt=0, description="longest work that is taken, seconds")
    timeout_s: float = Field(default=30.0, gt=0, le=3600, description="longest time that one file may take, seconds")
    works_per_shard: int = Field(default=512, ge=1, description="works in one Parquet file")

    @model_validator(mode="after")
    def _something_is_left_to_train(self) -> Reading:
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share {self.valid_share:g} and test_share {self.test_share:g} leave nothing to train on"
            )
        return self


@dataclass(frozen=True)
class Outcome:
    """What one item became.

    Args:
        works: rows of the ``works`` table.
        refusals: reason and detail, with the source they belong to.
    """

    works: pa.Table = field(default_factory=WORKS.empty_table)
    refusals: tuple[dict[str, str], ...] = ()


def inputs_of(items: Sequence[Item], reading: Reading) -> dict[str, Any]:
    """What the address of the dataset hashes."""
    return {
        "version": INGEST_VERSION,
        "files": len(items),
        "sources": digest_of([item.identity() for item in items]),
        "reading": reading.model_dump(mode="json"),
    }


def read_item(item: Item, *, reading: Reading, describe: Describe) -> Outcome:
    """Read one file. Whatever is wrong with it becomes a refusal."""
    try:
        data, found = _scores(item, reading=reading)
    except DataError as error:
        return Outcome(refusals=(_refusal(item.uri, error),))
    source_sha256 = hashlib.sha256(data).hexdigest()
    rows, refusals = [], []
    for number, score in enumerate(found, start=1):
        uri = item.uri if len(found) == 1 else f"{item.uri}#{number}"
        try:
            _check_limits(score, reading)
        except DataError as error:
            refusals.append(_refusal(uri, error))
            continue
        rows.append(_row(score, item=item, uri=uri, sha256=source_sha256, reading=reading, describe=describe))
    return Outcome(works=to_table(rows, WORKS), refusals=tuple(refusals))


def publish(
    outcomes: Sequence[Outcome],
    *,
    items: Sequence[Item],
    reading: Reading,
    folder: Folder,
    name: str,
    sources: Sequence[str],
) -> Dataset:
    """Write both tables and, last, the manifest.

    Args:
        outcomes: one for each item, in the items' order; of equal works the first is taken.
        items: what was read.
        reading: the settings it was read with.
        folder: where :func:`tutti.lineage.place` put it.
        name: name of the dataset.
        sources: as the caller wrote them, for people.

    Raises:
        InputError: no work is left.
    """
    works, refusals = _without_duplicates(outcomes)
    by_reason = Counter(refusal["reason"] for refusal in refusals)
    if not works.num_rows:
        reason, count = by_reason.most_common(1)[0]
        detail = next(refusal["detail"] for refusal in refusals if refusal["reason"] == reason)
        raise InputError(
            f"none of {len(items)} files could be taken, {count} of them as {reason} (such as: {detail})",
            remedy="name other sources",
        )
    works = works.take(pc.sort_indices(works, sort_keys=[("work_id", "ascending")]))
    files = [
        lineage.write_file(folder, f"works-{number:05d}.parquet", to_parquet(shard), rows=shard.num_rows)
        for number, shard in enumerate(_shards(works, works_per_shard=reading.works_per_shard))
    ]
    table = to_table(refusals, REFUSALS)
    files.append(lineage.write_file(folder, "refusals.parquet", to_parquet(table), rows=table.num_rows))
    return lineage.publish(
        folder,
        kind=KIND,
        name=name,
        inputs=inputs_of(items, reading),
        files=files,
        facts={
            "works": works.num_rows,
            "notes": pc.sum(works["notes"]).as_py(),
            "length_s": round(pc.sum(works["length_s"]).as_py(), 1),
            "files": len(items),
            "refusals": dict(sorted(by_reason.items())),
            "licences": _counts(works["licence"]),
            "collections": _counts(works["collection"]),
            "splits": {split: _counts(works["split"]).get(split, 0) for split in SPLITS},
            "sources": list(sources),
        },
    )


def _scores(item: Item, *, reading: Reading) -> tuple[bytes, list[Score]]:
    if item.reason:
        raise DataError(item.reason, item.detail)
    try:
        data = item.read()
    except OSError as error:
        raise DataError("unreadable", f"the file cannot be read: {error.strerror}") from None
    except UserError as error:
        raise DataError("unreachable", error.what) from None
    tempo_qpm = reading.tempo_without_mark_qpm
    if item.is_trusted:
        path = music21_folder() / item.place.removeprefix(MUSIC21_SCHEME)
        return data, scores.read_scores(path, tempo_without_mark_qpm=tempo_qpm)
    if hashlib.sha256(data).hexdigest() != item.sha256:
        raise DataError("unreadable", "the file changed while it was read")
    if not formats.is_known(item.uri):
        raise DataError("unknown_format", f"the name ends in none of {', '.join(formats.SUFFIXES)}")
    return data, parse_untrusted(
        data, name=_file_name(item.uri), tempo_without_mark_qpm=tempo_qpm, timeout_s=reading.timeout_s
    )


def _file_name(uri: str) -> str:
    return uri.partition("?")[0].rpartition("/")[2]


def _check_limits(score: Score, reading: Reading) -> None:
    if len(score.notes) > reading.max_notes:
        raise DataError("too_long", f"{len(score.notes)} notes are more than the limit of {reading.max_notes}")
    if score.length_s > reading.max_length_s:
        raise DataError("too_long", f"{score.length_s:.0f} s are more than the limit of {reading.max_length_s:g} s")


def _row(score: Score, *, item: Item, uri: str, sha256: str, reading: Reading, describe: Describe) -> dict[str, Any]:
    mark = fingerprint(score)
    return {
        "work_id": score.work_id(),
        "source_uri": uri,
        "source_sha256": sha256,
        "collection": item.collection,
        "title": score.title,
        "composer": score.composer,
        "licence": item.licence,
        "licence_origin": item.licence_origin,
        "split": split_of(mark, valid_share=reading.valid_share, test_share=reading.test_share),
        **score.columns(),
        **describe(score),
        "fingerprint": mark,
    }


def _refusal(uri: str, error: DataError) -> dict[str, str]:
    return {"source_uri": uri, "stage": STAGE, "reason": error.reason, "detail": error.detail}


def _without_duplicates(outcomes: Sequence[Outcome]) -> tuple[pa.Table, list[dict[str, str]]]:
    """All works, each once, and all refusals; both in the items' order."""
    first_uri: dict[str, str] = {}
    kept, refusals = [WORKS.empty_table()], list[dict[str, str]]()
    for outcome in outcomes:
        refusals += outcome.refusals
        fresh = []
        for work_id, uri in zip(
            outcome.works["work_id"].to_pylist(), outcome.works["source_uri"].to_pylist(), strict=True
        ):
            fresh.append(work_id not in first_uri)
            if fresh[-1]:
                first_uri[work_id] = uri
            else:
                error = DataError("duplicate", f"the same notes as {first_uri[work_id]}, work {work_id}")
                refusals.append(_refusal(uri, error))
        kept.append(outcome.works.filter(pa.array(fresh, pa.bool_())))
    return pa.concat_tables(kept), refusals


def _shards(works: pa.Table, *, works_per_shard: int) -> list[pa.Table]:
    # One chunk a column: Parquet pages, and so the bytes, then depend on the rows alone.
    works = works.combine_chunks()
    return [works.slice(start, works_per_shard) for start in range(0, works.num_rows, works_per_shard)]


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(column.to_pylist()).items()))
