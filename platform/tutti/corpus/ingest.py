"""From the parts of all parcels to the ``works`` and ``refusals`` tables: what all files become together.

Nothing here knows Ray: :func:`tutti.corpus.parts.read_parcel` and :func:`write_shard` are what tasks do, :func:`plan`
and :func:`publish` what the caller does between and after them. The caller holds an index without notes. The same items
give the same bytes, whatever the parallelism and however often the run was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tutti import lineage
from tutti.config import digest_of
from tutti.corpus import duplicates
from tutti.corpus.drafting import Parsing, refusal, settled
from tutti.corpus.item import Item
from tutti.corpus.parts import CLIP_INDEX, PARTS_VERSION, WORK_INDEX, Outcome, read_part
from tutti.corpus.screening import SCREENED
from tutti.corpus.splits import SPLITS, split_of, told_split
from tutti.errors import InputError, PlaceError
from tutti.lineage import Dataset, FileEntry
from tutti.storage import Folder
from tutti.tables import REFUSALS, VERSIONS, to_parquet, to_table

KIND = "works"
PARTS = "parts"
# Moves whenever the same parts would give other rows: groups or splits that changed.
INGEST_VERSION = 2
# Of memory, in which near duplicates are looked for: a million works fit (decision 0006).
GROUPING_BYTES = 2**28
# Refusals that say nothing against the files.
HARMLESS = frozenset((*SCREENED, "duplicate"))


class IngestSettings(Parsing):
    """How files are read, what is taken, and how it is laid down."""

    valid_share: float = Field(default=0.1, ge=0, lt=1, description="part of the works held out to choose models by")
    test_share: float = Field(default=0.1, ge=0, lt=1, description="part of the works held out to the very end")
    splits: Literal["hashed", "folders"] = Field(
        default="hashed",
        description="hashed: a function of each work's notes; folders: as the folders train, valid and test of a "
        "published corpus tell, hashed where they tell nothing",
    )
    max_refused_share: float = Field(
        default=0.5, ge=0, le=1, description="share of files that may be refused as bad before the run stops"
    )
    works_per_shard: int = Field(default=512, ge=1, description="works in one Parquet file, at least")
    clips_per_shard: int = Field(default=128, ge=1, description="clips in one Parquet file, at least")

    @model_validator(mode="after")
    def _something_is_left_to_train(self) -> IngestSettings:
        if self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share {self.valid_share:g} and test_share {self.test_share:g} leave nothing to train on"
            )
        return self

    @property
    def parsing(self) -> Parsing:
        """The settings that parts depend on."""
        return Parsing(**{name: getattr(self, name) for name in Parsing.model_fields})


@dataclass(frozen=True)
class ShardPlan:
    """What one Parquet file is made of.

    Args:
        table: ``works`` or ``clips``.
        number: of the shard among those of its table.
        parts: name of each part, and which of its rows are kept.
        decided: columns that the parts lack, of each kept row over all parts.
    """

    table: str
    number: int
    parts: tuple[tuple[str, NDArray[np.bool_]], ...]
    decided: dict[str, list[str]]

    @property
    def path(self) -> str:
        """Path of the file below the dataset's folder."""
        return f"{self.table}-{self.number:05d}.parquet"


@dataclass(frozen=True)
class Plan:
    """What all parcels become together.

    Args:
        shards: of works, then of clips, each in order.
        works: index rows of the works that are taken, with their ``group_id`` and ``split``.
        clips: index rows of the clips that are taken, with their ``split``.
        refusals: rows of the ``refusals`` table, those of the parcels first, then the duplicates.
    """

    shards: tuple[ShardPlan, ...]
    works: pa.Table
    clips: pa.Table
    refusals: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class _Decided:
    """Rows of all parcels and what was decided of them.

    Args:
        index: the rows.
        taken: which of them are kept; shape (rows,).
        columns: what is decided of each kept row.
        duplicates: refusals of the others.
    """

    index: pa.Table
    taken: NDArray[np.bool_]
    columns: dict[str, list[str]]
    duplicates: list[dict[str, str]]

    def kept(self) -> pa.Table:
        """The kept rows with their decided columns."""
        rows = self.index.filter(pa.array(self.taken))
        for name, values in self.columns.items():
            rows = rows.append_column(name, pa.array(values, pa.string()))
        return rows


def inputs_of(items: Sequence[Item], settings: IngestSettings) -> dict[str, Any]:
    """What the address of the dataset hashes."""
    return {
        "version": [INGEST_VERSION, PARTS_VERSION, VERSIONS["works"], VERSIONS["clips"]],
        "files": len(items),
        "sources": digest_of([item.identity() for item in items]),
        "settings": {name: value for name, value in settings.model_dump(mode="json").items() if name != "splits"},
        **({"splits": settings.splits} if settings.splits != "hashed" else {}),
    }


def parts_folder(root: Folder, settings: IngestSettings) -> Folder:
    """Where the parts lie that were made under these settings."""
    return (
        root
        / PARTS
        / digest_of(
            {
                "version": [PARTS_VERSION, VERSIONS["works"], VERSIONS["clips"]],
                "parsing": settings.parsing.model_dump(mode="json"),
            }
        )
    )


def check_refused(bad: Counter[str], *, files: int, max_share: float, example: str) -> None:
    """Stop a run whose files are bad beyond a share.

    Args:
        bad: files of which nothing was taken, by reason.
        files: of the whole run.
        max_share: of the recipe.
        example: file and detail of one refusal, for people.

    Raises:
        InputError: with the table of reasons.
    """
    counted = {reason: count for reason, count in bad.most_common() if reason not in HARMLESS}
    total = sum(counted.values())
    if total > max_share * files:
        table = ", ".join(f"{count} {reason}" for reason, count in counted.items())
        raise InputError(
            f"{total} of {files} files cannot be taken, more than the share of {max_share:g}: {table}"
            f" (such as: {example})",
            remedy="mend the sources, or allow more with --set max_refused_share=1",
        )


def plan(outcomes: Iterable[Outcome], *, settings: IngestSettings) -> Plan:
    """Decide on duplicates, groups, splits and shards.

    Args:
        outcomes: of all parcels, in the parcels' order; of equal works, and of equal sounds, the first is taken.
        settings: shares and sizes.

    Raises:
        PlaceError: files that were listed could not be read now.
    """
    held = list(outcomes)
    unread = [row for outcome in held for row in outcome.unread]
    if unread:
        first = unread[0]
        raise PlaceError(
            f"{len(unread)} files that were listed cannot be read now"
            f" (such as {first['source_uri']}: {first['detail']})",
            remedy="run the same command again: what is done is kept, and only those are read",
        )
    works, clips = _works(held, settings=settings), _clips(held, settings=settings)
    shards = [
        *_shards("works", works, rows_per_shard=settings.works_per_shard),
        *_shards("clips", clips, rows_per_shard=settings.clips_per_shard),
    ]
    refusals = [row for outcome in held for row in outcome.refusals]
    return Plan(
        shards=tuple(shards),
        works=works.kept(),
        clips=clips.kept(),
        refusals=(*refusals, *works.duplicates, *clips.duplicates),
    )


def write_shard(shard: ShardPlan, *, parts: Folder, folder: Folder) -> FileEntry:
    """Write one Parquet file from its parts."""
    rows = pa.concat_tables([read_part(parts, name).filter(pa.array(kept)) for name, kept in shard.parts])
    # One chunk a column: Parquet pages, and so the bytes, then depend on the rows alone.
    table = settled(rows, table=shard.table, decided=shard.decided).combine_chunks()
    return lineage.write_file(folder, shard.path, to_parquet(table), rows=table.num_rows)


def publish(
    made: Plan,
    *,
    files: Sequence[FileEntry],
    items: Sequence[Item],
    settings: IngestSettings,
    folder: Folder,
    name: str,
    sources: Sequence[str],
    metadata: Sequence[str],
) -> Dataset:
    """Write the refusals and, last, the manifest.

    Args:
        made: what all parcels became.
        files: the shards, as they were written.
        items: what was read.
        settings: the settings it was read with.
        folder: where :func:`tutti.lineage.place` put it.
        name: name of the dataset.
        sources: as the caller wrote them, for people.
        metadata: what came of the tables beside the files, for people.

    Raises:
        InputError: no work and no clip is left.
    """
    by_reason = Counter(row["reason"] for row in made.refusals)
    if not made.works.num_rows and not made.clips.num_rows:
        reason, count = by_reason.most_common(1)[0]
        detail = next(row["detail"] for row in made.refusals if row["reason"] == reason)
        raise InputError(
            f"none of {len(items)} files could be taken, {count} of them as {reason} (such as: {detail})",
            remedy="name other sources",
        )
    table = to_table(made.refusals, REFUSALS)
    refusals = lineage.write_file(folder, "refusals.parquet", to_parquet(table), rows=table.num_rows)
    return lineage.publish(
        folder,
        kind=KIND,
        name=name,
        inputs=inputs_of(items, settings),
        files=[*files, refusals],
        facts={
            "files": len(items),
            **_facts(made),
            "refusals": dict(sorted(by_reason.items())),
            "metadata": list(metadata),
            "sources": list(sources),
        },
    )


def _facts(made: Plan) -> dict[str, Any]:
    sizes = Counter(made.works["group_id"].to_pylist())
    splits = _counts(made.works["split"])
    facts: dict[str, Any] = {
        "works": made.works.num_rows,
        "notes": pc.sum(made.works["notes"]).as_py() or 0,
        "length_s": round(pc.sum(made.works["length_s"]).as_py() or 0.0, 1),
        "near_duplicates": {
            "groups": sum(size > 1 for size in sizes.values()),
            "works": sum(size for size in sizes.values() if size > 1),
        },
        "licences": _counts(made.works["licence"]),
        "collections": _counts(made.works["collection"]),
        "splits": {split: splits.get(split, 0) for split in SPLITS},
    }
    if made.clips.num_rows:
        splits = _counts(made.clips["split"])
        facts["clips"] = {
            "clips": made.clips.num_rows,
            "length_s": round(pc.sum(made.clips["length_s"]).as_py(), 1),
            "licences": _counts(made.clips["licence"]),
            "collections": _counts(made.clips["collection"]),
            "splits": {split: splits.get(split, 0) for split in SPLITS},
        }
    return facts


def _works(outcomes: Sequence[Outcome], *, settings: IngestSettings) -> _Decided:
    index = pa.concat_tables([WORK_INDEX.empty_table(), *(outcome.works for outcome in outcomes)]).combine_chunks()
    first = _first_of_equals(index["work_id"].to_numpy(zero_copy_only=False))
    rows = np.arange(index.num_rows)
    taken = first == rows
    group_ids, splits = _groups_and_splits(index.filter(pa.array(taken)), settings=settings)
    return _Decided(
        index=index,
        taken=taken,
        columns={"group_id": group_ids, "split": splits},
        duplicates=_duplicates(index["source_uri"], rows[~taken], first[~taken], what="notes"),
    )


def _clips(outcomes: Sequence[Outcome], *, settings: IngestSettings) -> _Decided:
    """Files with the same sound are told by the ids of all their clips.

    All clips of a file lie in one split, and so do files whose names differ in their ends alone: one recording is often
    there in several formats, whose samples differ.
    """
    index = pa.concat_tables([CLIP_INDEX.empty_table(), *(outcome.clips for outcome in outcomes)]).combine_chunks()
    ids = index["clip_id"].to_pylist()
    uris = index["source_uri"].to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(np.append(True, uris[1:] != uris[:-1])[: len(uris)])
    lengths = np.diff(np.append(begins, len(ids)))
    sounds = [digest_of(ids[begin : begin + length]) for begin, length in zip(begins, lengths, strict=True)]
    first = begins[_first_of_equals(np.array(sounds))]
    taken_sounds = first == begins
    splits = [
        split_of(_stem(uri), valid_share=settings.valid_share, test_share=settings.test_share)
        for uri in uris[begins].tolist()
    ]
    kept = [(split, length) for split, length, taken in zip(splits, lengths, taken_sounds, strict=True) if taken]
    return _Decided(
        index=index,
        taken=np.repeat(taken_sounds, lengths),
        columns={"split": [split for split, length in kept for _ in range(length)]},
        duplicates=_duplicates(index["source_uri"], begins[~taken_sounds], first[~taken_sounds], what="sound"),
    )


def _stem(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _duplicates(
    uris: pa.ChunkedArray, rows: NDArray[np.int64], first: NDArray[np.int64], *, what: str
) -> list[dict[str, str]]:
    """Refusals of rows whose equal stands earlier."""
    return [
        refusal(uris[row].as_py(), "duplicate", f"the same {what} as {uris[equal].as_py()}")
        for row, equal in zip(rows.tolist(), first.tolist(), strict=True)
    ]


def _first_of_equals(marks: NDArray[Any]) -> NDArray[np.int64]:
    """For each row the first row of the same mark, which is ASCII text."""
    if not len(marks):
        return np.empty(0, np.int64)
    # As bytes they are sorted without a Python object for each.
    _, first, inverse = np.unique(marks.astype("S"), return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def _groups_and_splits(works: pa.Table, *, settings: IngestSettings) -> tuple[list[str], list[str]]:
    """Group and split of each work.

    A group is what sketches find to be versions of one another, and what has one melody: of pieces too short for a
    sketch to agree with anything, the melody tells. Its split is that of its smallest fingerprint, so that a lone work
    stays where it is when others come.
    """
    if not works.num_rows:
        return [], []
    column = works["sketch"].combine_chunks()
    starts = column.offsets.to_numpy().astype(np.int64)
    versions = duplicates.groups(column.flatten().to_numpy(), starts - starts[0], budget_bytes=GROUPING_BYTES)
    marks = works["fingerprint"].to_numpy(zero_copy_only=False).astype("S")
    _, first, same_mark = np.unique(marks, return_index=True, return_inverse=True)
    rows = np.arange(works.num_rows)
    ends = np.tile(rows, 2), np.concatenate((versions, first[same_mark]))
    links = coo_array((np.ones(2 * len(rows), np.int8), ends), shape=(len(rows), len(rows)))
    _, group = connected_components(links, directed=False)
    smallest_mark = _smallest(marks, group)
    split_of_mark = {
        mark: split_of(mark.decode(), valid_share=settings.valid_share, test_share=settings.test_share)
        for mark in np.unique(smallest_mark).tolist()
    }
    ids = works["work_id"].to_numpy(zero_copy_only=False).astype("S")
    splits = [split_of_mark[mark] for mark in smallest_mark.tolist()]
    if settings.splits == "folders":
        uris = works["source_uri"].to_pylist()
        splits = [told_split(uri) or split for uri, split in zip(uris, splits, strict=True)]
    return [work_id.decode() for work_id in _smallest(ids, group).tolist()], splits


def _smallest(values: NDArray[np.bytes_], owner: NDArray[np.integer[Any]]) -> NDArray[np.bytes_]:
    """For each row the smallest value among the rows of its owner."""
    order = np.lexsort((values, owner))
    begins = np.diff(owner[order], prepend=-1) != 0
    made = np.empty_like(values)
    made[order] = values[order][begins][np.cumsum(begins) - 1]
    return made


def _shards(table: str, decided: _Decided, *, rows_per_shard: int) -> Iterator[ShardPlan]:
    """Whole parts, one after the other, until a shard has its rows."""
    names = decided.index["part"].to_numpy(zero_copy_only=False)
    begins = np.flatnonzero(np.append(True, names[1:] != names[:-1])[: len(names)]).tolist()
    parts: list[tuple[str, NDArray[np.bool_]]] = []
    number = start = stop = 0
    for begin, end in zip(begins, [*begins[1:], len(names)][: len(begins)], strict=True):
        taken = decided.taken[begin:end]
        if taken.any():
            parts.append((str(names[begin]), taken))
            stop += int(taken.sum())
        if stop - start >= rows_per_shard or (end == len(names) and stop > start):
            held = {name: values[start:stop] for name, values in decided.columns.items()}
            yield ShardPlan(table, number, tuple(parts), held)
            number, parts, start = number + 1, [], stop


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter(column.to_pylist()).items()))
