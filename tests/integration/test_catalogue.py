"""A catalogue through real Ray, engine, registry and renderer: made, found again, and killed half made.

The model is untrained, so its takes are noise; half of them fail a check that is set to fail them, which exercises the
rounds.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
import torch

from jobs.catalogue import read_order, run
from jobs.cli import run as tutti
from tutti import lineage, tables
from tutti.catalogue.takes import ACCEPTED, Plan, check_complete
from tutti.features.vocabulary import EVENTS
from tutti.lineage import Dataset
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder
from tutti.progress import Progress
from tutti.registry.versions import Registry
from tutti.storage import Folder
from tutti.telemetry import Silent

ORDER = """
name: sketches
model: sketch
seed: 11
formats: [midi, flac, png]
retries: 2
takes_per_block: 2
lines:
  - count: 5
    title: Sketch {number} in {key}
    controls: {bars: 2, tempo: 120, meter: 4/4, key: C major, instruments: [piano]}
  - count: 3
    title: Étude <i>{number}</i>
    controls: {bars: 1, tempo: 100, meter: 3/4, instruments: [strings, organ], best_of: 2}
checks:
  min_notes: 50
  pitch_low: 0
  pitch_high: 127
  max_silence_s: 10
  max_silence_share: 1
  length_tolerance: 1
  max_stuck_share: 1
  max_held_bars: 100
  max_overhang_bars: 100
  max_key_gap: 2
  max_silent_instruments: 2
"""
STARTS_WITHIN_S = 240.0
ENDS_WITHIN_S = 30.0


@dataclass(frozen=True)
class Workshop:
    """A results root with one registered model, and an order."""

    root: Path
    order: Path
    registry: Registry


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("catalogue")
    torch.manual_seed(5)
    configuration = DECODER.configure(
        "nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 256}, settings={"dropout": 0.0}
    )
    model = Decoder(configuration)
    bundle = Bundle(
        family="decoder",
        flavour="nano",
        configuration=configuration.to_dict(),
        weights=model.state_dict(),
        vocabulary=EVENTS.names,
        collections=("none",),
        facts={"licences": {"CC0-1.0": 3}},
    )
    bundle.save(folder / "bundle")
    registry = Registry.embedded(Folder(str(folder / "results")))
    registry.register(folder / "bundle", name="sketch")
    (folder / "order.yaml").write_text(ORDER, encoding="utf-8")
    return Workshop(folder / "results", folder / "order.yaml", registry)


@pytest.fixture(scope="module")
def made(workshop: Workshop, ray_cluster: None) -> Dataset:
    return make(workshop, root=workshop.root)


def make(workshop: Workshop, *, root: Path) -> Dataset:
    return run(read_order(workshop.order), root=Folder(str(root)), registry=workshop.registry, reporter=Silent())


def words_for(workshop: Workshop, *, root: Path) -> list[str]:
    """The command line; the registry is that of the workshop, whatever the root."""
    uri = workshop.registry.backend.tracking_uri
    return ["catalogue", str(workshop.order), "--root", str(root), "--tracking-uri", uri]


def test_every_take_is_there_once_with_its_files(workshop: Workshop, made: Dataset) -> None:
    table = tables.from_parquet(made.read("takes.parquet"), tables.TAKES)
    rows = table.to_pylist()
    version = workshop.registry.resolve("sketch")
    plan = Plan(read_order(workshop.order), version.name, version.version, version.digest)
    check_complete(rows, plan=plan)
    accepted = [row for row in rows if row["verdict"] == ACCEPTED]
    assert made.facts["ordered"] == 8
    assert made.facts["accepted"] == len(accepted) > 0
    assert made.facts["rejected"] == len(rows) - len(accepted) > 0, "no retry was exercised"
    assert made.facts["licences"] == {"CC0-1.0": 3}
    assert made.facts["pace"]["takes"] == len(rows)
    assert 0 < made.facts["pace"]["start_s"] < made.facts["pace"]["wall_s"]
    for row in rows:
        candidates = json.loads(row["candidates"] or "[]")
        assert len(candidates) == (2 if row["line"] == 1 else 0)
        if candidates:
            assert candidates[0]["seed"] == row["seed"]
            assert min(candidates, key=lambda each: each["score"])["chosen"]
    for row in accepted:
        assert made.read(row["midi_path"])[:4] == b"MThd"
        assert made.read(row["audio_path"])[:4] == b"fLaC"
        assert made.read(row["picture_path"])[:4] == b"\x89PNG"
        assert row["loudness_lufs"] == pytest.approx(-16, abs=0.6)
        assert row["true_peak_dbtp"] <= -1
    on_disk = {path for path in made.folder.paths() if path != lineage.MANIFEST}
    assert on_disk == {entry.path for entry in made.files}


def test_a_second_run_finds_it_and_makes_nothing(
    workshop: Workshop, made: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: (made.folder.local_path / path).stat().st_mtime_ns for path in made.folder.paths()}
    assert tutti(words_for(workshop, root=workshop.root)) == 0
    said = capsys.readouterr()
    assert "found finished" in said.err
    assert said.out.splitlines()[-1] == f"catalogue: {made.folder.local_path / 'index.html'}"
    assert {path: (made.folder.local_path / path).stat().st_mtime_ns for path in made.folder.paths()} == before


def test_a_dry_run_says_what_and_where_and_makes_nothing(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tutti([*words_for(workshop, root=tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "takes       8 in 2 lines, up to 3 attempts each" in said
    assert "blocks      4 of 2 takes" in said
    assert re.search(r"time        about .* on \d+ cores \(by a try of 4 short takes", said)
    assert re.search(r"price       unknown: the order names no prices.core_hour \(\S+ core-hours\)", said)
    assert f"address     {tmp_path}/catalogues/sketches/" in said
    assert not (tmp_path / "catalogues").exists()


def test_a_plan_is_reckoned_from_what_earlier_runs_took(
    workshop: Workshop, made: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = "prices={currency: CHF, core_hour: 36000000, gib_month: 0}"
    assert tutti([*words_for(workshop, root=workshop.root), "--set", "seed=12", "--set", prices, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "(measured: 1 run of this model on this kind of machine, " in said
    price, core_hours = re.search(r"price +([\d,.]+) CHF \((\S+) core-hours\)", said).groups()  # type: ignore[union-attr]
    assert float(price.replace(",", "")) == pytest.approx(36e6 * float(core_hours), rel=0.01)
    assert "keeping it  0.00 CHF a month" in said


def test_a_take_is_made_again_from_its_provenance_to_the_byte(
    workshop: Workshop, made: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = workshop.registry.backend.tracking_uri
    rows = tables.from_parquet(made.read("takes.parquet"), tables.TAKES).to_pylist()
    chosen = next(row for row in rows if row["line"] == 1 and row["verdict"] == ACCEPTED)
    words = ["reproduce", chosen["take_id"], "--root", str(workshop.root), "--tracking-uri", uri]
    assert tutti([*words, "--out", str(tmp_path)]) == 0
    assert "all 3 files are the same to the byte" in capsys.readouterr().out
    stem = chosen["midi_path"].rpartition("/")[2].removesuffix(".mid")
    for path in (chosen["midi_path"], chosen["audio_path"], chosen["picture_path"], f"provenance/{stem}.json"):
        assert (tmp_path / path).read_bytes() == made.read(path), path

    told = json.loads(made.read(f"provenance/{stem}.json"))
    told["files"][chosen["midi_path"]]["sha256"] = "0" * 64
    told["made_by"]["packages"]["numpy"] = "1.0"
    (tmp_path / "other.json").write_text(json.dumps(told))
    assert tutti(["reproduce", str(tmp_path / "other.json"), *words[2:]]) == 2
    said = capsys.readouterr()
    assert f"DIFFERS  {chosen['midi_path']}" in said.out
    assert re.search(r"error: 1 of 3 files differ .*made_by\.packages\.numpy: 1\.0, now \d", said.err)


def test_it_is_put_into_one_file(
    workshop: Workshop, made: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["catalogue", "zip", "sketches", "--root", str(workshop.root), "--out", str(tmp_path / "a.zip")]
    assert tutti([*words, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert tutti(words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            assert archive.read(entry) == made.read(entry.filename.removeprefix("sketches/"))
    assert tutti([*words[:-1], str(tmp_path / "nowhere" / "a.zip")]) == 2
    assert "is not there: make it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=nobody@production", "error: .*'nobody'"),
        ("titel=x", "error: .*unknown key 'titel'"),
        ("lines=[{count: 1, controls: {length: 10h}}]", "error: .*length 10h is outside"),
        ("lines=[{count: 1, controls: {tempo: 0}}]", "error: .*tempo 0 is outside 20 to 300"),
        ("lines=[{count: 1, controls: {collection: jazz}}]", "error: collection 'jazz' is not known to this model"),
        ("lines=[{count: 100000, controls: {length: 600}}]", "error: the catalogue needs about .* are free at"),
        ("device=cuda", "error: the order's device is 'cuda' and the cluster has none"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_cluster: None, override: str, line: str
) -> None:
    assert tutti([*words_for(workshop, root=tmp_path), "--set", override]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(line + ".*\n", said), said
    assert not list(tmp_path.glob("catalogues/**/*.*"))


def test_what_only_a_worker_meets_is_one_line_too(
    workshop: Workshop, made: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "catalogues" / "sketches" / made.address
    folder.mkdir(parents=True)
    (folder / "files").write_bytes(b"a file where a folder must be")
    assert tutti(words_for(workshop, root=tmp_path)) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert f"{folder}/files/sketch" in line
    assert not (folder / lineage.MANIFEST).exists()


def test_killed_half_made_and_started_again_it_is_the_same_to_the_byte(
    workshop: Workshop, made: Dataset, tmp_path: Path
) -> None:
    process = start(workshop, root=tmp_path, log=tmp_path / "stderr.log")
    try:
        wait_for_a_block(tmp_path, process)
    finally:
        kill_all(process)
    half = Folder(str(tmp_path / "catalogues" / "sketches" / made.address))
    assert not half.exists(lineage.MANIFEST)
    progress = Progress.read(half)
    assert progress is not None
    assert (progress.verb, progress.files, progress.unit) == ("catalogue", 8, "takes")
    assert not progress.is_alive(now=datetime.now(UTC))
    assert 0 < len(half.paths("blocks")) < 4, "the kill did not land half way"
    half.write("files/left-behind.flac", b"from another life")

    again = make(workshop, root=tmp_path)

    assert again.folder.paths() == made.folder.paths()
    assert again.address == made.address
    for path in made.folder.paths():
        if path != lineage.MANIFEST:
            assert again.folder.read(path) == made.folder.read(path), path
    assert again.files == made.files
    timeless = [{name: value for name, value in each.facts.items() if name != "pace"} for each in (again, made)]
    assert timeless[0] == timeless[1]
    assert again.facts["pace"]["takes"] < made.facts["pace"]["takes"], "what was there was made again"


def start(workshop: Workshop, *, root: Path, log: Path) -> subprocess.Popen[bytes]:
    """``tutti catalogue`` in a process of its own, which starts its own Ray."""
    words = words_for(workshop, root=root)
    with log.open("wb") as errors:
        return subprocess.Popen([sys.executable, "-m", "jobs.cli", *words], stderr=errors)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """``kill -9`` of the driver, then of what it leaves: two of Ray's agents notice only after a minute."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    _, left = psutil.wait_procs(family, timeout=ENDS_WITHIN_S)
    assert not left


def wait_for_a_block(root: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + STARTS_WITHIN_S
    while not list(root.glob("catalogues/*/*/blocks/*.parquet")):
        assert process.poll() is None, (root / "stderr.log").read_text()
        assert time.monotonic() < until, "no block within the limit"
        time.sleep(0.005)
