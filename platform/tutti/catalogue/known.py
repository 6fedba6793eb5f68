"""The music that takes are held against: the works that their model learnt from, and the takes of earlier catalogues.

An index (:class:`tutti.metrics.originality.WorkIndex`) is made once and kept as a dataset of its own, under a hash of
what it was made of; who asks for it again reads it, also where the corpus itself has gone.

``indices/<name>/<hash>/`` holds ``index.npz`` (its arrays, as numpy writes them) and ``works.json`` (what its works are
called and under which terms they stand).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tutti import lineage, tables
from tutti.catalogue.order import Checks
from tutti.config import digest_of
from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import learnt
from tutti.dataset.learnt import Named
from tutti.errors import IntegrityError, MissingError, PlaceError, RecipeError, UserError
from tutti.lineage import Dataset
from tutti.metrics.originality import Closeness, Limits, WorkIndex, closest
from tutti.storage import Folder

KIND, CATALOGUES = "indices", "catalogues"
VERSION = 1
MOST_NOTES = 20_000_000
"""Of an index: 1.3 GB of memory."""
_ARRAYS, _WORKS = "index.npz", "works.json"


@dataclass(frozen=True)
class Known:
    """Works that can be asked what a piece has of them; plain arrays, so that processes can share it.

    Args:
        index: of their music.
        named: what they are, by their identifiers.
    """

    index: WorkIndex
    named: Mapping[str, Named]

    def closest(self, score: Score, *, limits: Limits) -> tuple[Closeness, Named] | None:
        """What comes nearest to a copy, and of which work; None where no work holds anything that counts."""
        (found,) = self.index.originality(ScoreBatch.of([score]))
        near = closest(found, limits=limits)
        return None if near is None else (near, self.named[near.work_id])


@dataclass(frozen=True, slots=True)
class Source:
    """What an index is made of, whether it is there or not.

    Args:
        name: of the dataset of works, or of the order whose takes they are.
        inputs: what its address is made of.
        reason: why it can be neither found nor made; empty where it can.
    """

    name: str
    inputs: Mapping[str, Any]
    reason: str = ""

    def place(self, root: Folder) -> Folder:
        """Where the index lives, made or not."""
        return lineage.place(root, kind=KIND, name=self.name, inputs=self.inputs)


@dataclass(frozen=True)
class References:
    """Everything that the takes of a catalogue are held against.

    Args:
        works: the works that the model learnt from; None where they are not looked at.
        takes: those of earlier catalogues; None where none was named.
        reason: why ``works`` is None.
    """

    works: Known | None = None
    takes: Known | None = None
    reason: str = "not asked for"


@dataclass(frozen=True)
class Sources:
    """What the takes of an order are to be held against.

    Args:
        works: those that its model learnt from; None where the order does not want them.
        catalogues: earlier ones.
    """

    works: Source | None
    catalogues: tuple[Dataset, ...]

    @property
    def addresses(self) -> dict[str, Any]:
        """What enters the catalogue's own address: what a take is held against decides whether it is accepted."""
        found: dict[str, Any] = {}
        if self.works is not None and not self.works.reason:
            found["works"] = f"{self.works.name}/{digest_of(dict(self.works.inputs))}"
        if self.catalogues:
            found["catalogues"] = [address_of(each) for each in self.catalogues]
        return found

    def lines(self) -> list[str]:
        """What a plan says of it."""
        works = "the works that the model learnt from"
        if self.works is None:
            works = "no works"
        elif self.works.reason:
            works = f"no works: {self.works.reason}"
        return [works, *(f"takes of {address_of(each)}" for each in self.catalogues)]


def sources_of(checks: Checks, *, facts: Mapping[str, Any], own_name: str, root: Folder) -> Sources:
    """What an order's takes are to be held against; nothing is read but manifests.

    Args:
        checks: of the order.
        facts: of its model's bundle.
        own_name: the order's.
        root: results root.

    Raises:
        MissingError: the order requires works that cannot be had, or names a catalogue that is not there.
        PlaceError: the storage cannot be read.
    """
    works = None if checks.originality == "off" else learnt_by(facts, root=root)
    if works is not None and works.reason and checks.originality == "required":
        raise MissingError(
            f"checks.originality is required, but {works.reason}",
            remedy="bring the corpus back, or order with checks.originality when_known, which says not_checked",
        )
    found: dict[str, Dataset] = {}
    for name in checks.against:
        for catalogue in _catalogues(name, own_name=own_name, root=root):
            found[address_of(catalogue)] = catalogue
    return Sources(works, tuple(found[address] for address in sorted(found)))


def references_of(sources: Sources, facts: Mapping[str, Any], *, root: Folder) -> References:
    """The music itself.

    Raises:
        UserError: as :func:`works_of` and :func:`takes_of`.
        IntegrityError: likewise.
    """
    takes = takes_of(sources.catalogues, root=root) if sources.catalogues else None
    if sources.works is None:
        return References(None, takes)
    if sources.works.reason:
        return References(None, takes, sources.works.reason)
    return References(works_of(sources.works, facts, root=root), takes, "")


def _catalogues(name: str, *, own_name: str, root: Folder) -> list[Dataset]:
    """Finished catalogues by what an order calls them.

    The order's own former catalogues are named by address alone: once it is finished, its name means itself.
    """
    place = root / CATALOGUES
    if name == "*":
        names = [each for each in place.children() if each != own_name]
        return [found for each in names for found in _finished(place / each)]
    if "/" in name:
        found = lineage.find(place / name)
        if found is None:
            raise MissingError(
                f"checks.against names {name!r}, which is no finished catalogue", remedy=f"look below {place.uri}"
            )
        return [found]
    if name == own_name:
        raise RecipeError(
            f"checks.against names {name!r}, the order itself", remedy="name one of its catalogues: name/address"
        )
    finished = _finished(place / name)
    if not finished:
        raise MissingError(
            f"checks.against names {name!r}, of which no catalogue is finished", remedy=f"look below {place.uri}"
        )
    return finished


def _finished(place: Folder) -> list[Dataset]:
    return [found for address in sorted(place.children()) if (found := lineage.find(place / address)) is not None]


def learnt_by(facts: Mapping[str, Any], *, root: Folder) -> Source:
    """The works that a model learnt from, by what is known of its making.

    Args:
        facts: of its bundle.
        root: results root, where an index may be that was made when the corpus was there.

    Returns:
        A source, with a reason where the index neither is there nor can be made.
    """
    data = facts.get("data", {})
    works = str(data.get("works_address") or "").rstrip("/")
    if not works:
        return Source("none", {}, "the model does not say of which works it was made")
    tokens = str(data.get("tokens_address") or "").rstrip("/").rpartition("/")[2]
    licences = sorted(data.get("licences", ())) if not tokens else []
    inputs = {"works": works.rpartition("/")[2], "tokens": tokens, "licences": licences, "version": VERSION}
    source = Source(works.split("/")[-2], inputs)
    if lineage.find(source.place(root)) is not None:
        return source
    try:
        notes = int(learnt.dataset_of(facts, kind="works", root=root).facts.get("notes", 0))
        if tokens:
            learnt.dataset_of(facts, kind="tokens", root=root)
    except MissingError as error:
        return Source(source.name, inputs, error.what)
    except PlaceError as error:
        # What will be there again is waited for: which takes are accepted must not hang on an outage.
        if error.passes:
            raise
        return Source(source.name, inputs, error.what)
    if notes > MOST_NOTES:
        return Source(source.name, inputs, f"its works have {notes:,} notes, and an index holds {MOST_NOTES:,}")
    return source


def works_of(source: Source, facts: Mapping[str, Any], *, root: Folder) -> Known:
    """The works that a model learnt from, out of their index or to be put into one.

    Args:
        source: :func:`learnt_by` the facts, without a reason against it.
        facts: of the model's bundle.
        root: results root, where the index is kept.

    Raises:
        MissingError: the corpus has gone.
        UserError: nothing of it trained.
        IntegrityError: a table or the index is damaged.
        PlaceError: something cannot be read or written.
    """
    folder = source.place(root)
    found = lineage.find(folder)
    if found is not None:
        return _loaded(found)
    held = learnt.dataset_of(facts, kind="works", root=root)
    tokens = learnt.dataset_of(facts, kind="tokens", root=root) if source.inputs["tokens"] else None
    works = learnt.read(held, tokens, split="train", licences=source.inputs["licences"])
    return _kept(works.batch, works.named, source=source, folder=folder)


def takes_of(catalogues: Sequence[Dataset], *, root: Folder) -> Known:
    """The accepted takes of finished catalogues, out of their index or to be put into one.

    Raises:
        UserError: they hold no take.
        IntegrityError: a table or the index is damaged.
        PlaceError: something cannot be read or written.
    """
    source = Source("takes", {"catalogues": [address_of(each) for each in catalogues], "version": VERSION})
    folder = source.place(root)
    found = lineage.find(folder)
    if found is not None:
        return _loaded(found)
    from tutti.catalogue.blocks import score_of
    from tutti.catalogue.takes import ACCEPTED

    scores: list[Score] = []
    named: dict[str, Named] = {}
    for catalogue in catalogues:
        licence = _licence(catalogue.facts.get("licences", {}))
        for row in tables.from_parquet(catalogue.read("takes.parquet"), tables.TAKES).to_pylist():
            if row["verdict"] == ACCEPTED and row["take_id"] not in named:
                named[row["take_id"]] = Named(row["take_id"], row["title"], None, licence, address_of(catalogue))
                scores.append(score_of(row))
    if not scores:
        raise UserError("the catalogues of checks.against hold no accepted take", remedy="leave them out")
    return _kept(ScoreBatch.of(scores), list(named.values()), source=source, folder=folder)


def address_of(catalogue: Dataset) -> str:
    """A finished catalogue as an order names it: ``name/address``."""
    return f"{catalogue.name}/{catalogue.address}"


def _licence(licences: Mapping[str, int]) -> str:
    """Of takes: what their model's works stand under, for nobody else states any."""
    return " AND ".join(sorted(licences)) or "unknown"


def _kept(batch: ScoreBatch, named: Sequence[Named], *, source: Source, folder: Folder) -> Known:
    index = WorkIndex.of(batch, work_ids=[each.work_id for each in named])
    sink = io.BytesIO()
    np.savez(sink, **index.arrays())  # type: ignore[arg-type]
    works = json.dumps([asdict(each) for each in named], ensure_ascii=False).encode()
    folder.check_writable()
    files = [
        lineage.write_file(folder, _ARRAYS, sink.getvalue()),
        lineage.write_file(folder, _WORKS, works, rows=len(named)),
    ]
    facts = {"works": len(named), "notes": len(batch.notes)}
    lineage.publish(folder, kind=KIND, name=source.name, inputs=source.inputs, files=files, facts=facts)
    return Known(index, {each.work_id: each for each in named})


def _loaded(dataset: Dataset) -> Known:
    try:
        named = [Named(**each) for each in json.loads(dataset.read(_WORKS))]
        with np.load(io.BytesIO(dataset.read(_ARRAYS)), allow_pickle=False) as held:
            index = WorkIndex.from_arrays(dict(held), work_ids=[each.work_id for each in named])
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise IntegrityError(f"{dataset.folder.uri} is no index ({error}); delete the folder") from error
    return Known(index, {each.work_id: each for each in named})
