"""Near duplicates among real works and other versions of them: ``python -m benchmarks.duplicates``.

Recall of a kind: the share of changed copies that fall into the group of the work that they were made of, all works and
all copies of that kind being grouped together. Copies come from :mod:`benchmarks.versions.perturbations`. What is taken
for a version of something although it is not is counted among works that nobody wrote
(:mod:`benchmarks.versions.imitations`) and, by hand, among the real ones: `platform/decisions/0006-near-duplicates.md`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.events import CHORALE_TEMPO_QPM, CORPORA
from benchmarks.harness import Bench, run
from benchmarks.versions.grouping import BUDGET_BYTES
from benchmarks.versions.imitations import Habits, imitations
from benchmarks.versions.perturbations import DRUM_KINDS, KINDS
from tutti.corpus.duplicates import groups
from tutti.corpus.fingerprint import fingerprints
from tutti.corpus.midi import read_midi
from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.scores import from_music21
from tutti.corpus.sketch import sketches
from tutti.errors import DataError

COLLECTIONS = ("lieder", "mutopia", "freedoom", "groove")
CHORALES = 100
MIN_NOTES, MIN_DRUM_NOTES = 50, 200
WORKS_OF_A_BATCH = 64
WORKS_OF_THE_LARGE_RUN = 100_000
IMITATIONS_AT_ONCE = 1000
REPOSITORY = Path(__file__).resolve().parents[1]
SEED = 20261121

Rows = NDArray[np.int64]
Sketches = tuple[NDArray[np.uint64], Rows]


def works(collections: tuple[str, ...] = COLLECTIONS) -> tuple[str, ScoreBatch]:
    """What is measured, in words and notes: real files where they lie beside this checkout, else Bach chorales."""
    scores = []
    for collection in collections:
        for path in sorted((CORPORA / collection).rglob("*.mid")):
            try:
                scores.append(read_midi(path.read_bytes()))
            except DataError:
                continue
    if scores:
        return f"MIDI files of {', '.join(collections)}", ScoreBatch.of(scores)
    from music21 import corpus

    names = corpus.getComposer("bach")[:CHORALES]
    return "Bach chorales of music21", ScoreBatch.of(
        [from_music21(corpus.parse(name), tempo_without_mark_qpm=CHORALE_TEMPO_QPM) for name in names]
    )


def copies(batch: ScoreBatch, works: Rows, *, kind: str, draw: np.random.Generator) -> tuple[ScoreBatch, Rows]:
    """Changed copies of the works that can be changed so, and which work each was made of."""
    made = [(work, KINDS[kind](batch[work], draw)) for work in works.tolist()]
    kept = [(work, score) for work, score in made if score is not None]
    return ScoreBatch.of([score for _, score in kept]), np.array([work for work, _ in kept], dtype=np.int64)


def joined(parts: list[Sketches]) -> Sketches:
    """Sketches of several batches as those of one."""
    counts = np.concatenate([np.diff(starts) for _, starts in parts])
    return np.concatenate([values for values, _ in parts]), np.concatenate(([0], np.cumsum(counts)))


def measure(bench: Bench) -> None:
    """Speed, recall of every kind, and a run of a hundred thousand works."""
    what, batch = works()
    drums = np.array([bool((score.notes.program == DRUM_PROGRAM).all()) for score in batch])
    sizes = np.diff(batch.note_starts)
    bench.note(f"{len(batch):,} works, {len(batch.notes):,} notes: {what}")
    parts = [batch.take(np.arange(first, min(first + WORKS_OF_A_BATCH, len(batch)))) for first in
             range(0, len(batch), WORKS_OF_A_BATCH)]  # fmt: skip
    bench.race(
        "hash",
        {
            "sketches": lambda: [sketches(part) for part in parts],
            "fingerprints": lambda: [fingerprints(part) for part in parts],
        },
        amount=len(batch.notes),
        unit="notes",
        clock=time.process_time,
    )
    bench.note(f"hashes of batches of {WORKS_OF_A_BATCH} works, one thread; seconds are those that it had a core for")
    own = sketches(batch)
    alone = groups(*own, budget_bytes=BUDGET_BYTES)
    together = np.bincount(alone, minlength=len(alone))[alone] > 1
    grouped_works = {"of": len(batch), "melodic": together[~drums].sum(), "drums": together[drums].sum()}
    bench.count(
        "works grouped, none changed", {name: float(count) for name, count in grouped_works.items()}, unit="works"
    )
    tuneful = np.flatnonzero(~drums & (sizes >= MIN_NOTES))
    beaten = np.flatnonzero(drums & (sizes >= MIN_DRUM_NOTES))
    made = recall(bench, batch, own, alone, works=tuneful, kinds=tuple(KINDS), subject="melodic")
    if len(beaten):
        made += recall(bench, batch, own, alone, works=beaten, kinds=DRUM_KINDS, subject="drums")
    large_run(bench, batch.take(np.flatnonzero(~drums)), own, alone, made)


def recall(
    bench: Bench, batch: ScoreBatch, own: Sketches, alone: Rows,
    *, works: Rows, kinds: tuple[str, ...], subject: str,
) -> list[tuple[Sketches, Rows]]:  # fmt: skip
    """Recall of each kind, and how many groups of unchanged works its copies join; the sketches of the copies."""
    draw = np.random.default_rng(SEED)
    found: dict[str, float] = {}
    merged, made = {"of": float(len(np.unique(alone)))}, []
    for kind in kinds:
        changed, origin = copies(batch, works, kind=kind, draw=draw)
        theirs = sketches(changed)
        made.append((theirs, origin))
        label = groups(*joined([own, theirs]), budget_bytes=BUDGET_BYTES)
        name = f"{kind} ({len(origin):,})"
        found[name] = float((label[len(batch) :] == label[origin]).mean())
        merged[kind] = float(len(np.unique(alone)) - len(np.unique(label[: len(batch)])))
    bench.count(f"recall, {subject}", found, unit="of copies")
    bench.count(f"groups lost to copies, {subject}", merged, unit="groups")
    return made


def large_run(bench: Bench, melodic: ScoreBatch, own: Sketches, alone: Rows, made: list[tuple[Sketches, Rows]]) -> None:
    """Group the works, all their copies and as many imitations as make a hundred thousand, in a process of its own."""
    parts = [own, *(theirs for theirs, _ in made)]
    origin = np.concatenate([np.arange(len(alone)), *(origin for _, origin in made)])
    real = len(origin)
    draw, habits = np.random.default_rng(SEED), Habits.of(melodic)
    for first in range(real, WORKS_OF_THE_LARGE_RUN, IMITATIONS_AT_ONCE):
        count = min(IMITATIONS_AT_ONCE, WORKS_OF_THE_LARGE_RUN - first)
        length = 2 * int(draw.integers(50, 400))
        parts.append(sketches(imitations(habits, count=count, notes_of_each=length, draw=draw)))
    values, starts = joined(parts)
    label, facts = grouped(values, starts)
    bench.note(
        f"large run: {len(alone):,} works, {real - len(alone):,} copies of them and {len(label) - real:,} imitations, "
        f"{len(values):,} elements"
    )
    held = np.bincount(label, minlength=len(label))[label] > 1
    copied = np.arange(len(alone), real)
    memory = {"peak": "peak_bytes", "Python and sketches": "read_bytes", "Python alone": "python_bytes"}
    bench.count("large run, time", {"process": facts["seconds"]}, unit="s")
    bench.count("large run, memory", {name: facts[key] / 2**20 for name, key in memory.items()}, unit="MiB")
    bench.count(
        "large run, recall",
        {"all kinds": float((label[copied] == label[origin[copied]]).mean())},
        unit="of copies",
    )
    false = {
        "of": float(len(label)),
        "imitations in any group": float(held[real:].sum()),
        "works joined to other groups": float(joined_anew(alone, label)),
    }
    bench.count("large run, false", false, unit="works")


def joined_anew(alone: Rows, label: Rows) -> int:
    """How many works lie in one group with works that were in another before the copies and imitations came."""
    pairs = np.unique(np.stack((label[: len(alone)], alone), axis=1), axis=0)[:, 0]
    mixed = np.flatnonzero(np.bincount(pairs) > 1)
    return int(np.isin(label[: len(alone)], mixed).sum())


def grouped(values: NDArray[np.uint64], starts: Rows) -> tuple[Rows, dict[str, float]]:
    """Groups of the sketches, and what :mod:`benchmarks.versions.grouping` says of its seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        sketches_file, labels_file = Path(folder) / "sketches.npz", Path(folder) / "labels.npy"
        np.savez(sketches_file, values=values, starts=starts)
        command = [sys.executable, "-m", "benchmarks.versions.grouping", str(sketches_file), str(labels_file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
        return np.load(labels_file), json.loads(done.stdout)


if __name__ == "__main__":
    run("duplicates", measure)
