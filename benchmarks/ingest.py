"""From files to the works table, beside what peers take to parse or tokenise: ``python -m benchmarks.ingest``.

One core: the process and the one that parses for it are bound to one core; the seconds are wall time, reading the files
and writing Parquet included; then the same in two processes on two cores. Peers do less on the same files in the same
run: pretty_midi only parses, MidiTok's REMI parses (by symusic) and tokenises.

Scaling: ``tutti ingest``'s own run on Ray, with its start taken out, of a folder of 20,000 files with everything bound
to one core and then to two; the memory of its driver and of its largest worker; and how long the command takes on the
same folder a second time. The folder is made of the same files, each in several transpositions.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pretty_midi
import psutil
from miditok import REMI, TokenizerConfig
from symusic.core import ScoreTick

from benchmarks.events import midi_files
from benchmarks.harness import Bench, run
from tutti.corpus import ingest
from tutti.corpus.drafting import Analysis
from tutti.corpus.midi import read_midi, write_midi
from tutti.corpus.parcels import parcels
from tutti.corpus.parts import read_parcel
from tutti.corpus.score import Score
from tutti.corpus.sources import resolve
from tutti.errors import DataError
from tutti.features.descriptors import describe
from tutti.features.hearing import hear_untrusted
from tutti.storage import Folder

T = TypeVar("T")

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
ANALYSIS = Analysis(describe=describe, hear=hear_untrusted)
FILES = 20_000
SAMPLES_PER_S = 5


def corpus_files() -> list[bytes]:
    """All MIDI files of the corpora beside this checkout, else Bach chorales."""
    found = [path.read_bytes() for path in sorted(CORPORA.rglob("*.mid"))]
    return found or midi_files()[1]


def measure(bench: Bench) -> None:
    """One core, then Ray."""
    files = corpus_files()
    with tempfile.TemporaryDirectory(prefix="tutti-ingest-") as folder:
        place = Path(folder)
        one_core(bench, files, place=place)
        many_files(bench, files, place=place)


def one_core(bench: Bench, files: list[bytes], *, place: Path) -> None:
    """Race one process on one core."""
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="pretty_midi")
    source = place / "source"
    source.mkdir()
    for number, data in enumerate(files):
        (source / f"{number:05d}.mid").write_bytes(data)
    remi = REMI(TokenizerConfig(use_programs=True, one_token_stream_for_programs=True))
    sample = files[:: max(len(files) // 80, 1)]
    all_notes, sample_notes = notes_of(files), notes_of(sample)
    bench.note(
        f"{len(files):,} files of {all_notes:,} notes for Tutti, {len(sample)} of {sample_notes:,} for its peers"
    )
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        ours = timed(lambda: ingest_here(source, root=place / "root"), rounds=bench.rounds, amount=all_notes)
        parse = timed(
            lambda: [quietly(read_by_pretty_midi, data) for data in sample], rounds=bench.rounds, amount=sample_notes
        )
        tokens = timed(
            lambda: [quietly(lambda one: remi.encode(ScoreTick.from_midi(one)), data) for data in sample],
            rounds=bench.rounds,
            amount=sample_notes,
        )
    finally:
        os.sched_setaffinity(0, before)
    name = "Tutti: parse, describe, fingerprint, write"
    bench.rates(
        "notes a second of one core",
        {name: ours, "pretty_midi: parse": parse, "MidiTok REMI: parse, tokenise": tokens},
        unit="notes/s",
    )
    one = bench.figures["notes a second of one core"][name].median
    bench.name("ingest_notes_s_core", one)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        both = timed(
            lambda: ingest_here(source, root=place / "root", each=pool.map), rounds=bench.rounds, amount=all_notes
        )
    bench.rates("notes a second of two cores", {f"{name}, in two processes": both}, unit="notes/s")
    bench.name("ingest_scaling", float(np.median(both)) / one)


def ingest_here(source: Path, *, root: Path, each: Callable[..., Iterable[Any]] = map) -> None:
    """What ``tutti ingest`` does, without Ray.

    Args:
        source: folder of files.
        root: results root, made anew.
        each: ``map``, or that of a pool of processes.
    """
    shutil.rmtree(root, ignore_errors=True)
    settings = ingest.IngestSettings()
    items = resolve(str(source), licence="CC0-1.0")
    folder = Folder(str(root))
    parts = ingest.parts_folder(folder, settings)
    read = partial(read_parcel, parsing=settings.parsing, analysis=ANALYSIS, folder=parts)
    made = ingest.plan(each(read, parcels(items)), settings=settings)
    write = partial(ingest.write_shard, parts=parts, folder=folder / "works")
    shards = list(each(write, made.shards))
    ingest.publish(
        made,
        files=shards,
        items=items,
        settings=settings,
        folder=folder / "works",
        name="benchmark",
        sources=[str(source)],
        metadata=[],
    )


def many_files(bench: Bench, files: list[bytes], *, place: Path) -> None:
    """Twenty thousand files by the command's own run: one core, two, and two Ray nodes of one core each."""
    source = place / "many"
    notes = transposed_copies(files, into=source, count=FILES)
    bench.note(f"{FILES:,} files of {notes:,} notes on Ray, each way once")
    rates: dict[str, float] = {}
    for name, (start, cores) in CLUSTERS.items():
        root = place / name.replace(" ", "-")
        seconds, driver_bytes, worker_bytes = run_on_ray(source, root=root, start=start, cores=cores)
        rates[name] = notes / seconds
        bench.count(f"on Ray, {name}", {"the run": rates[name]}, unit="notes/s")
        held = {"driver": driver_bytes / 2**20, "largest worker with its child": worker_bytes / 2**20}
        bench.count(f"memory, {name}", held, unit="MiB")
    first, *others = rates.values()
    bench.name("ingest_scaling_ray", others[0] / first)
    bench.name("ingest_scaling_nodes", others[1] / first)
    bench.name("ingest_driver_mib", bench.figures[f"memory, {name}"]["driver"].median)
    bench.name("ingest_worker_mib", bench.figures[f"memory, {name}"]["largest worker with its child"].median)
    command = [sys.executable, "-m", "jobs.cli", "ingest", str(source), "--licence", "CC0-1.0", "--root", str(root)]
    again = timed(lambda: subprocess.run(command, check=True, capture_output=True), rounds=bench.rounds, amount=1)
    seconds_again = [1 / rate for rate in again]
    bench.rates("the same command again", {f"{FILES:,} unchanged files": seconds_again}, unit="s")
    bench.name("reingest_s", float(np.median(seconds_again)))


def transposed_copies(files: list[bytes], *, into: Path, count: int) -> int:
    """Write ``count`` MIDI files, each music in as many keys as it takes; return their notes."""
    into.mkdir()
    scores = [score for data in files if (score := quietly(read_midi, data)) is not None]
    written = notes = 0
    for semitones in range(12 * (1 + count // len(scores))):
        for score in scores:
            if written == count:
                return notes
            moved = transposed(score, semitones=(semitones + 1) // 2 * (-1) ** semitones)
            (into / f"{written:06d}.mid").write_bytes(write_midi(moved))
            written, notes = written + 1, notes + len(moved.notes)
    return notes


def transposed(score: Score, *, semitones: int) -> Score:
    """The score in another key; drums, and notes that would leave MIDI's pitches, stay."""
    pitch = score.notes.pitch.astype(np.int64) + np.where(score.notes.program == 128, 0, semitones)
    pitch = np.where((pitch < 0) | (pitch > 127), score.notes.pitch, pitch)
    # Drums alone do not change with the key: another velocity makes them another work.
    velocity = np.clip(score.notes.velocity.astype(np.int64) - abs(semitones), 1, 127).astype(np.uint8)
    return replace(score, notes=replace(score.notes, pitch=pitch.astype(np.uint8), velocity=velocity))


# Ray as it is started for each figure; `cores` are those that the run is bound to.
EMBEDDED = "start_embedded_ray(address='local', num_cpus=len(cores))"
TWO_NODES = """
import os
from ray.cluster_utils import Cluster
os.sched_setaffinity(0, {cores[0]})
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
os.sched_setaffinity(0, {cores[1]})
cluster.add_node(num_cpus=1)
os.sched_setaffinity(0, {cores[0]})
start_embedded_ray(address=cluster.address)

def stop():
    import ray

    ray.shutdown()
    cluster.shutdown()
"""
CLUSTERS = {"one core": (EMBEDDED, 1), "two cores": (EMBEDDED, 2), "two nodes of one core": (TWO_NODES, 2)}
RUN = """
import json, time
from cluster.embedded import start_embedded_ray
from jobs.ingest import IngestRecipe, run
from tutti.storage import Folder
from tutti.telemetry import Silent, quiet_libraries
quiet_libraries()
cores = {cores!r}
stop = None
{start}
recipe = IngestRecipe(sources=({source!r},), licence="CC0-1.0")
started_s = time.perf_counter()
run(recipe, root=Folder({root!r}), reporter=Silent())
print(json.dumps(time.perf_counter() - started_s), flush=True)
if stop is not None:
    stop()
"""


def run_on_ray(source: Path, *, root: Path, start: str, cores: int) -> tuple[float, int, int]:
    """Seconds of the run after Ray's start; most bytes of its driver, and of a worker with the child that parses."""
    bound = sorted(os.sched_getaffinity(0))[:cores]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(cores=bound, start=start, source=str(source), root=str(root))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, set(bound)),
    )
    driver_bytes = worker_bytes = 0
    driver = psutil.Process(process.pid)
    while process.poll() is None:
        driver_bytes = max(driver_bytes, resident([driver]))
        worker_bytes = max([worker_bytes, *(resident(worker) for worker in workers_below(driver))])
        time.sleep(1 / SAMPLES_PER_S)
    said, complaint = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the run on {cores} cores ended with exit code {process.returncode}: {complaint[-2000:]}")
    return float(json.loads(said.strip().splitlines()[-1])), driver_bytes, worker_bytes


def workers_below(driver: psutil.Process) -> list[list[psutil.Process]]:
    """Each of Ray's worker processes below the driver, with the children that parse for it."""
    with contextlib.suppress(psutil.Error):
        below = driver.children(recursive=True)
        return [[one, *one.children()] for one in below if one.name().startswith("ray::")]
    return []


def resident(processes: list[psutil.Process]) -> int:
    """Bytes that the processes hold and share with no other; those that have ended hold none."""
    held = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            held += int(process.memory_full_info().uss)
    return held


def timed(action: Callable[[], object], *, rounds: int, amount: float) -> list[float]:
    """Amount a second of each round, after one that warms up."""
    action()
    rates = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        action()
        rates.append(amount / (time.perf_counter() - started_s))
    return rates


def notes_of(files: list[bytes]) -> int:
    """Notes of the files that Tutti reads."""
    return sum(len(score.notes) for data in files if (score := quietly(read_midi, data)) is not None)


def read_by_pretty_midi(data: bytes) -> object:
    """The file as pretty_midi holds it."""
    return pretty_midi.PrettyMIDI(io.BytesIO(data))


def quietly(read: Callable[[bytes], T], data: bytes) -> T | None:
    """What a reader makes of a file, nothing where it refuses it."""
    try:
        return read(data)
    except (DataError, ValueError, OSError, KeyError, IndexError, RuntimeError):
        return None


if __name__ == "__main__":
    run("ingest", measure)
