"""Ingest from S3 into S3 while 30 % of all requests fail, and while it is killed: the same bytes as in calm weather."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from jobs.ingest import IngestRecipe, run
from tests.faulty_s3 import PASSING, STALL, FaultyS3
from tutti import lineage, seeding
from tutti.corpus.midi import write_midi
from tutti.corpus.score import Notes, Score
from tutti.storage import Folder
from tutti.telemetry import Silent

SOURCE = Folder("s3://tests/songs")
LICENCE, WORKS_PER_SHARD = "CC0-1.0", 16
LOOSE, ZIPPED, PACKED = 66, 12, 8
FAILING_SHARE = 0.3
KILLS, KILLS_SEED = 3, 1
REQUESTS_OF_A_RUN = 190
ENDS_WITHIN_S = 120.0


def song(number: int) -> bytes:
    generator = np.random.default_rng(number)
    count = 40
    notes = Notes.of(
        onset_ticks=np.cumsum(generator.integers(1, 4, count)) * 120,
        duration_ticks=generator.integers(1, 4, count) * 120,
        pitch=48 + generator.integers(0, 30, count),
        track=np.arange(count) % 2,
    )
    return write_midi(Score.of(notes, ticks_per_quarter=480, tempos=[(0, 60.0 + number)], title=f"Air {number}"))


@pytest.fixture(scope="module")
def songs(s3_server: str) -> None:
    """Files, a zip and a tar of files; a copy, a damaged file, an empty one and one that holds no music."""
    for number in range(LOOSE):
        SOURCE.write(f"{'abc'[number % 3]}/{number:02d}.mid", song(number))
    SOURCE.write("again.mid", song(3))
    SOURCE.write("cut.mid", song(5)[:50])
    SOURCE.write("empty.mid", b"")
    SOURCE.write("words.mid", b"these are words")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(ZIPPED):
            archive.writestr(zipfile.ZipInfo(f"{number}.mid"), song(100 + number))
    SOURCE.write("more.zip", packed.getvalue())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as bundle:
        for number in range(PACKED):
            entry = tarfile.TarInfo(f"{number}.mid")
            entry.size = len(song(200 + number))
            bundle.addfile(entry, io.BytesIO(song(200 + number)))
    SOURCE.write("rest.tar.gz", gzip.compress(packed.getvalue(), mtime=0))


@pytest.fixture(scope="module")
def calm(songs: None, ray_cluster: None) -> dict[str, bytes]:
    """What becomes of the songs where nothing fails."""
    made = run(recipe(), name="songs", root=Folder("s3://tests/calm"), reporter=Silent())
    assert made.facts["works"] == LOOSE + ZIPPED + PACKED
    assert made.facts["refusals"] == {"duplicate": 1, "empty": 1, "unreadable": 2}
    return stored(Folder("s3://tests/calm"))


@pytest.fixture
def faulty(s3_server: str) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3_server)
    yield proxy
    proxy.close()


def recipe() -> IngestRecipe:
    return IngestRecipe(sources=(SOURCE.uri,), licence=LICENCE, works_per_shard=WORKS_PER_SHARD)


def stored(root: Folder) -> dict[str, bytes]:
    """Every object of the one dataset below ``root``; of its manifest all but the time."""
    (manifest,) = (path for path in root.paths("works") if path.endswith(lineage.MANIFEST))
    files = {path: root.read(path) for path in root.paths("works")}
    document = json.loads(files[manifest])
    del document["created"]
    return {**files, manifest: json.dumps(document).encode()}


def started(proxy: FaultyS3, *, root: Folder, log: Path) -> subprocess.Popen[bytes]:
    """``tutti ingest`` with a Ray of its own, every process of which asks the proxy."""
    command = [sys.executable, "-m", "jobs.cli", "ingest", SOURCE.uri, "--name", "songs", "--licence", LICENCE]
    command += ["--root", root.uri, "--set", f"works_per_shard={WORKS_PER_SHARD}"]
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.url}
    with log.open("ab") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def killed(process: subprocess.Popen[bytes]) -> None:
    """``kill -9`` of the driver and of all that it started, its Ray included."""
    driver = psutil.Process(process.pid)
    family = [driver, *driver.children(recursive=True)]
    for member in family:
        member.kill()
    process.wait()
    assert not psutil.wait_procs(family, timeout=ENDS_WITHIN_S)[1]


def test_failing_requests_change_no_byte(calm: dict[str, bytes], faulty: FaultyS3, tmp_path: Path) -> None:
    faulty.storm(FAILING_SHARE, seed=11)
    root, log = Folder("s3://tests/stormy"), tmp_path / "log"
    assert started(faulty, root=root, log=log).wait(ENDS_WITHIN_S) == 0, log.read_text()
    asked = faulty.counts.total()
    assert asked > LOOSE
    assert 0.2 < faulty.failed / asked < 0.4
    assert len(faulty.counts) > len(PASSING) / 2
    assert stored(root) == calm
    assert root.paths() == Folder("s3://tests/calm").paths()


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    calm: dict[str, bytes], faulty: FaultyS3, tmp_path: Path
) -> None:
    root, log = Folder("s3://tests/killed"), tmp_path / "log"
    (manifest,) = (path for path in calm if path.endswith(lineage.MANIFEST))
    moments = seeding.generator(KILLS_SEED, "kills").integers(1, REQUESTS_OF_A_RUN, KILLS)
    for kill, moment in enumerate(sorted(moments.tolist())):
        faulty.storm(FAILING_SHARE, seed=kill)
        # One that goes on from what is there asks less, and must not be over before its moment.
        faulty.plan(STALL, match=f"PUT {root.uri.removeprefix('s3:/')}/{manifest}")
        process = started(faulty, root=root, log=log)
        deadline_s = time.monotonic() + ENDS_WITHIN_S
        while faulty.counts.total() < moment and not faulty.counts[STALL]:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s
            time.sleep(0.001)
        killed(process)
        assert not root.exists(manifest)
    assert any(path.endswith(".index") for path in root.paths("parts")), "every kill came before there was anything"
    run(recipe(), name="songs", root=root, reporter=Silent())
    assert stored(root) == calm
