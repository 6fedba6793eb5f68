"""Copies planted among takes, caught by a catalogue's own check: ``python -m benchmarks.planted``.

Works lie in a ``works`` table with splits and licences, as ``tutti ingest`` leaves them; a fifth of the groups of near
duplicates is held out. What a model's facts say leads to the index (:func:`tutti.catalogue.known.works_of`), which is
written to storage and read back, and each take is looked at alone by what an engine calls before anything is rendered
(:func:`tutti.catalogue.copies.compared`), under an order's usual limits. Counted are copies of works that trained that
pass, whole or 8 bars, in another key, tempo, note values, on other instruments; how often the work that is named is the
one that was copied, or of its group; and works held out that are rejected.

The speed is that of one core, one take held out after the other. Beside it stand two that need no index, by
``bytes.find`` in all works end to end: what anybody would write first, the intervals between the highest notes, which
sees no copy whose tune another voice has and cannot tell a scale from a tune; and the longest stretch of the readings
that the check itself compares (:mod:`tutti.metrics.readings`).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.duplicates import works
from benchmarks.harness import Bench, run
from benchmarks.originality import COLLECTIONS, COPIES, DRAWS, MIN_NOTES, SEED, Change, draws, eight_bars
from benchmarks.versions.grouping import BUDGET_BYTES
from tutti import lineage
from tutti.catalogue.copies import compared
from tutti.catalogue.known import Known, References, learnt_by, references_of, sources_of
from tutti.catalogue.order import Checks
from tutti.catalogue.review import FAILED
from tutti.corpus.drafting import settled
from tutti.corpus.duplicates import groups
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.sketch import sketches
from tutti.corpus.works import Origin, drafts
from tutti.dataset.learnt import Named
from tutti.features.descriptors import describe
from tutti.generation.request import Request
from tutti.metrics import readings
from tutti.metrics.originality import WorkIndex
from tutti.storage import Folder
from tutti.tables import to_parquet

CUTS: dict[str, tuple[Change, ...]] = {"whole": (), "8 bars": (eight_bars,)}
TIMED, TIMED_BY_BYTES = 60, 1


def references(batch: ScoreBatch, held: NDArray[np.bool_], *, root: Folder, bench: Bench) -> References:
    """What takes are held against, by way of a corpus on storage and what a model says of it."""
    origins = [Origin(f"work:{n}", "0" * 64, "works", "CC0-1.0", "benchmark") for n in range(len(batch))]
    split = np.where(held, "valid", "train").tolist()
    decided = {"group_id": batch.work_ids(), "split": split}
    table = settled(drafts(batch, origins=origins, describe=describe), table="works", decided=decided)
    place = root / "works" / "works" / "1"
    file = lineage.write_file(place, "works-00000.parquet", to_parquet(table), rows=len(batch))
    told = {"works": len(batch), "notes": len(batch.notes)}
    lineage.publish(place, kind="works", name="works", inputs={}, files=[file], facts=told)
    facts = {"data": {"works_address": place.uri, "licences": {"CC0-1.0": len(batch)}}}
    seconds = {}
    for name in ("made", "read back"):
        begin = time.perf_counter()
        found = references_of(sources_of(Checks(), facts=facts, own_name="planted", root=root), facts, root=root)
        seconds[name] = time.perf_counter() - begin
    size = sum(file.size_bytes for file in lineage.load(learnt_by(facts, root=root).place(root)).files)
    bench.count("index", seconds | {"MB": size / 1e6}, unit="s")
    return found


def asked(score: Score, found: References) -> tuple[bool, Named | None]:
    """Whether a take would be rejected for copying, and the work that is named."""
    findings, nearest = compared(score, request=Request(), checks=Checks(), references=found)
    return any(finding.verdict == FAILED for finding in findings), nearest


def planted(
    batch: ScoreBatch, rows: Sequence[int], changes: Sequence[Change], draw: np.random.Generator
) -> Iterator[tuple[int, Score]]:
    """Copies of the works at ``rows`` that keep enough notes, and of which work each is."""
    for row in rows:
        found: Score | None = batch[row]
        for change in changes:
            found = None if found is None else change(found, draw)
        if found is not None:
            yield row, found


def codes(score: ScoreBatch) -> tuple[bytes, ...]:
    """Both readings as bytes, four a code."""
    return tuple(read(score).codes.astype(np.int32).tobytes() for read in (readings.melody, readings.texture))


def intervals(score: Score) -> bytes:
    """From each highest note to the next, in semitones."""
    notes = score.notes
    melodic = notes.program != DRUM_PROGRAM
    onset, pitch = notes.onset_ticks[melodic], notes.pitch[melodic].astype(np.int64)
    order = np.lexsort((pitch, onset))
    last = np.append(np.diff(onset[order]) != 0, True)
    return bytes((np.diff(pitch[order][last]) % 128).astype(np.uint8))


def longest_by_bytes(take: bytes, text: bytes, *, width: int = 1) -> int:
    """Length of the longest stretch of a take that stands in the text, bytes; a code has ``width``."""
    longest = 0
    for begin in range(0, len(take), width):
        while begin + longest < len(take) and text.find(take[begin : begin + longest + width]) >= 0:
            longest += width
    return longest


def measure(bench: Bench) -> None:
    """Copies that pass, works held out that do not, takes a second."""
    what, batch = works(COLLECTIONS)
    enough = [score for score in batch if np.count_nonzero(score.notes.program != DRUM_PROGRAM) >= MIN_NOTES]
    batch = ScoreBatch.of(enough)
    # The same notes twice are one work of a corpus.
    batch = batch.take(np.unique(np.array(batch.work_ids()), return_index=True)[1])
    held = draws(batch)[0]
    bench.note(f"{len(batch):,} works, {len(batch.notes):,} notes: {what}; {int(held.sum())} held out")
    group = groups(*sketches(batch), budget_bytes=BUDGET_BYTES)
    group_of = dict(zip(batch.work_ids(), group.tolist(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        found = references(batch, held, root=Folder(folder), bench=bench)
    draw = np.random.default_rng(SEED)
    trained = np.flatnonzero(~held)
    missed = of = 0
    for name, changes in COPIES.items():
        rows = draw.choice(trained, min(int(bench.settings["copies"]), len(trained)), replace=False)
        answers = [(row, *asked(score, found)) for row, score in planted(batch, rows.tolist(), changes, draw)]
        lost = sum(not caught for _, caught, _ in answers)
        right = sum(named is not None and group_of[named.work_id] == group[row] for row, _, named in answers)
        counts = {"of": len(answers), "missed": lost, "the right work named": right}
        bench.count(f"planted: {name}", {key: float(value) for key, value in counts.items()}, unit="takes")
        missed, of = missed + lost, of + len(answers)
    bench.name("planted_missed", float(missed))
    bench.name("planted", float(of))
    rejected = {"whole": [0, 0], "8 bars": [0, 0]}
    for number, held in enumerate(draws(batch)):
        if number:
            known = batch.take(~held)
            found = References(_known(known))
        for name, changes in CUTS.items():
            for row, score in planted(batch, np.flatnonzero(held).tolist(), changes, draw):
                caught, named = asked(score, found)
                rejected[name][0] += caught
                rejected[name][1] += 1
                if caught and named is not None and name == "whole":
                    bench.note(f"held out and rejected: {batch.titles[row]}, for {named.title}")
    for name, (some, every) in rejected.items():
        counts = {"of": float(every), "rejected": float(some), "share": some / every}
        bench.count(f"held out, {DRAWS} draws, {name}", counts, unit="takes")
        bench.name(f"held_out_rejected_{name.replace(' ', '_')}", some / every)
    times(bench, batch, np.flatnonzero(~held), np.flatnonzero(held), found)


def _known(works: ScoreBatch) -> Known:
    named = [
        Named(work_id, title, None, "CC0-1.0", "works")
        for work_id, title in zip(works.work_ids(), works.titles, strict=True)
    ]
    index = WorkIndex.of(works, work_ids=[each.work_id for each in named])
    return Known(index, {each.work_id: each for each in named})


def times(
    bench: Bench, batch: ScoreBatch, trained: NDArray[np.int64], out: NDArray[np.int64], found: References
) -> None:
    """Takes of about 300 notes a second of one core's own time, one after the other."""
    nearest = np.argsort(np.abs(np.diff(batch.note_starts)[out] - 300), kind="stable")
    takes = [batch[row] for row in out[nearest[:TIMED]].tolist()]
    tops = b"\x80".join(intervals(batch[row]) for row in trained.tolist())
    texts = codes(batch.take(trained))
    read = [codes(ScoreBatch.of([score])) for score in takes[:TIMED_BY_BYTES]]
    ways: dict[str, tuple[int, Callable[[int], object]]] = {
        "the catalogue's check": (TIMED, lambda take: asked(takes[take], found)),
        "highest notes alone, bytes.find": (TIMED, lambda take: longest_by_bytes(intervals(takes[take]), tops)),
        "the same readings, bytes.find": (
            TIMED_BY_BYTES,
            lambda take: [longest_by_bytes(one, text, width=4) for one, text in zip(read[take], texts, strict=True)],
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(bench.rounds):
        for name, (number, way) in ways.items():
            begin = time.process_time()
            for take in range(number):
                way(take)
            rates[name].append(number / (time.process_time() - begin))
    bench.rates("takes a second of one core, alone", rates, unit="takes/s")


if __name__ == "__main__":
    run("planted", measure, settings={"copies": (300, "copies of each kind")})
