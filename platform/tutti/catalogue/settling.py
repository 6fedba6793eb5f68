"""From blocks that are done to the takes that stay: duplicates fall away, their slots are tried again.

A block knows nothing of the others, and they end in any order; so what copies a take of an earlier slot is found when
all are done (:mod:`tutti.catalogue.twins`). A slot whose take falls away gets a block of its own with its next
attempts, and so on until nothing falls away any more or the attempts are used up. Which attempts that leaves is a
function of the plan alone: a run that was killed anywhere comes to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tutti import lineage, tables
from tutti.catalogue import provenance
from tutti.catalogue.blocks import REJECTS, FinishedBlock, is_done, read_block, score_of
from tutti.catalogue.copies import finding_of
from tutti.catalogue.review import FAILED, PASSED, Finding, from_json, to_json
from tutti.catalogue.takes import ACCEPTED, REJECTED, Block, Plan
from tutti.catalogue.twins import Attempts, Likeness, Settled
from tutti.catalogue.twins import settle as keep
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import IntegrityError
from tutti.lineage import FileEntry
from tutti.storage import Folder

DUPLICATE = "duplicate"
Place = tuple[int, int]


@dataclass(frozen=True)
class Settlement:
    """What stays of the takes that are there.

    Args:
        again: blocks beyond the plan's own that hold attempts.
        kept: of slots of which a take was given up, the attempt that stays; None where none does.
        findings: on duplicates, by take; of a take that falls away it has failed.
        wanting: blocks that are to be made before it is over.
    """

    again: tuple[Block, ...] = ()
    kept: Mapping[Place, int | None] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)
    wanting: tuple[Block, ...] = ()


@dataclass(frozen=True, slots=True)
class _Row:
    """What is needed of an accepted take."""

    take_id: str
    title: str
    place: Place
    attempt: int


def settle(folder: Folder, *, plan: Plan, sizes: Mapping[str, int] | None = None) -> Settlement:
    """Look for duplicates among the takes of blocks that are all done.

    Args:
        sizes: as in :func:`tutti.catalogue.blocks.read_block`.

    Raises:
        MissingError: a block of the plan is not done.
        IntegrityError: a block is damaged.
    """
    if plan.order.checks.duplicates == "allowed":
        return Settlement()
    slot_of = {
        (slot.line, slot.number): place
        for place, slot in enumerate(slot for block in plan.blocks() for slot in block.slots)
    }
    free = [line.controls.start is None for line in plan.order.lines]
    limits = plan.order.checks.limits
    rows: list[_Row] = []
    last: dict[Place, int] = {}
    parts: list[ScoreBatch] = []
    again: list[Block] = []
    new: Sequence[Block] = plan.blocks()
    while True:
        parts += [
            ScoreBatch.of(list(_take_in(read_block(folder, each, sizes=sizes).rows, rows=rows, last=last)))
            for each in new
        ]
        order = sorted(range(len(rows)), key=lambda row: (slot_of[rows[row].place], rows[row].attempt))
        inorder = [rows[row] for row in order]
        music = ScoreBatch.joined(parts)
        attempts = Attempts(
            music.take(np.array(order, dtype=np.int64)),
            np.array([slot_of[row.place] for row in inorder], dtype=np.int64),
            np.array([free[row.place[0]] for row in inorder], dtype=bool),
        )
        settled = keep(attempts, limits=limits)
        places = list(slot_of)
        wanted = [plan.again(slot, last[places[slot]] + 1) for slot in settled.wanting
                  if last[places[slot]] + 1 < plan.attempts]  # fmt: skip
        new = [block for block in wanted if is_done(folder, block, sizes=sizes)]
        if not new:
            kept = _kept(settled, inorder)
            findings = _findings(settled, inorder, attempts=attempts, limit=limits.melody_bits)
            return Settlement(tuple(again), kept, findings, tuple(wanted))
        again += new


def settled_blocks(
    folder: Folder, *, plan: Plan, settlement: Settlement, sizes: Mapping[str, int] | None = None
) -> Iterator[FinishedBlock]:
    """The plan's blocks as they are published: with the attempts that were needed, each with its verdict.

    What fell away keeps its MIDI among the rejected. One block is in memory at a time, and those made again.

    Args:
        sizes: as in :func:`tutti.catalogue.blocks.read_block`.

    Raises:
        IntegrityError: not all that is wanting was made, or a block is damaged.
        PlaceError: the folder cannot be written.
    """
    if settlement.wanting:
        raise IntegrityError(f"{len(settlement.wanting)} duplicates in {folder.uri} were not tried again")
    size = plan.order.takes_per_block
    more: dict[int, list[FinishedBlock]] = {}
    for block in settlement.again:
        position = (block.index - plan.num_blocks) // plan.attempts
        more.setdefault(position // size, []).append(read_block(folder, block, sizes=sizes))
    for block in plan.blocks():
        found = read_block(folder, block, sizes=sizes)
        if settlement.findings:
            found = _amended(folder, [found, *more.get(block.index, [])], settlement=settlement)
        yield found


def _take_in(table: pa.Table, *, rows: list[_Row], last: dict[Place, int]) -> Iterable[Any]:
    for row in table.to_pylist():
        place = row["line"], row["number"]
        last[place] = max(last.get(place, 0), row["attempt"])
        if row["verdict"] == ACCEPTED:
            rows.append(_Row(row["take_id"], row["title"], place, row["attempt"]))
            yield score_of(row)


def _kept(settled: Settled, rows: Sequence[_Row]) -> dict[Place, int | None]:
    """Of slots with a copy, the attempt that stays."""
    kept: dict[Place, int | None] = {rows[row].place: None for row in settled.copies}
    for row in settled.kept:
        if rows[row].place in kept:
            kept[rows[row].place] = rows[row].attempt
    return kept


def _findings(settled: Settled, rows: Sequence[_Row], *, attempts: Attempts, limit: float) -> dict[str, Finding]:
    found = {}
    for row, likeness in {**settled.kept, **settled.copies}.items():
        found[rows[row].take_id] = (
            Finding(DUPLICATE, 0, limit, "bits", PASSED, "nothing that tells anything is in a take before it")
            if likeness is None
            else _finding(likeness, row, rows=rows, attempts=attempts)
        )
    return found


def _finding(likeness: Likeness, row: int, *, rows: Sequence[_Row], attempts: Attempts) -> Finding:
    other = rows[likeness.row]
    finding = finding_of(
        DUPLICATE, likeness.near, of=f"{other.title} (take {other.take_id})", score=attempts.music[row]
    )
    if finding.verdict != FAILED:
        return finding
    told = f"duplicate of {other.take_id}: {finding.detail}"
    return Finding(DUPLICATE, finding.figure, finding.limit, finding.unit, FAILED, told)


def _amended(folder: Folder, parts: Sequence[FinishedBlock], *, settlement: Settlement) -> FinishedBlock:
    rows: list[dict[str, Any]] = []
    entries = [entry for part in parts for entry in part.files]
    given = [row for part in parts for row in part.rows.to_pylist()]
    for row in sorted(given, key=lambda row: (row["line"], row["number"], row["attempt"])):
        kept = settlement.kept.get((row["line"], row["number"]))
        stem = _name(row["midi_path"])[: -len(".mid")]
        # A file is called after its take, or lies in a folder that is.
        own = [entry for entry in entries if any(name.startswith(stem) for name in entry.path.split("/"))]
        finding = settlement.findings.get(row["take_id"])
        if kept is not None and row["attempt"] > kept:
            entries = [entry for entry in entries if entry not in own]
            continue
        if finding is not None:
            row["checks"] = to_json([*from_json(row["checks"]), finding])
            if finding.verdict == FAILED:
                entries = [entry for entry in entries if entry not in own]
                entries += _put_aside(folder, row)
        rows.append(row)
    return FinishedBlock(tables.to_table(rows, tables.TAKES), tuple(entries))


def _put_aside(folder: Folder, row: dict[str, Any]) -> list[FileEntry]:
    """Make a row one of a rejected take; its MIDI, copied to where those lie, and its provenance."""
    music = folder.read(row["midi_path"])
    row |= {
        "verdict": REJECTED,
        "midi_path": f"{REJECTS}/{_name(row['midi_path'])}",
        "audio_path": None,
        "picture_path": None,
        "loudness_lufs": None,
        "true_peak_dbtp": None,
    }
    place = provenance.path_of(_name(row["midi_path"])[: -len(".mid")])
    told = provenance.put_aside(folder.read(place), row, music, origin=f"{folder.uri}/{place}")
    return [lineage.write_file(folder, row["midi_path"], music), lineage.write_file(folder, place, told)]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
