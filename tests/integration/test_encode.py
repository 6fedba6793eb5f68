"""``tutti encode`` on a real Ray: what it tells of licences, what it takes up after a kill, what it encodes again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import encode
from jobs.cli import run
from tests.music import works_table
from tutti import lineage
from tutti.errors import UserError
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import TOKENS, from_parquet, to_parquet
from tutti.telemetry import Silent

SHARDS, WORKS_IN_A_SHARD = 40, 5


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """200 walks in 40 shards; those of every fourth shard are nobody's to use."""
    folder = Folder(str(tmp_path_factory.mktemp("works") / "walks"))
    files = []
    for number in range(SHARDS):
        table = works_table(WORKS_IN_A_SHARD, bars=2 + number % 7, licence="CC0-1.0" if number % 4 else "unknown")
        path = f"works-{number:05d}.parquet"
        files.append(lineage.write_file(folder, path, to_parquet(table), rows=table.num_rows))
    facts = {"works": 200, "licences": {"CC0-1.0": 150, "unknown": 50}, "collections": {"walks": 200}}
    return lineage.publish(folder, kind="works", name="walks", inputs={}, files=files, facts=facts)


def _bytes(dataset: Dataset) -> dict[str, bytes]:
    return {path: dataset.read(path) for path in dataset.paths()}


@pytest.fixture(scope="module")
def straight(works: Dataset, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Dataset:
    """The tokens of a run that nothing befell."""
    root = Folder(str(tmp_path_factory.mktemp("straight")))
    return encode.run(works, licences=("CC0-1.0",), root=root, reporter=Silent())


def test_tokens_are_of_the_named_licences_alone(works: Dataset, straight: Dataset) -> None:
    assert len(straight.files) == SHARDS
    tables = [from_parquet(straight.read(path), TOKENS) for path in straight.paths()]
    assert [table.num_rows for table in tables] == [0 if not number % 4 else 5 for number in range(SHARDS)]
    facts = straight.facts
    assert facts["works"] == sum(table.num_rows for table in tables) == 150
    assert facts["licences"] == {"CC0-1.0": 150}
    assert facts["notes"] == sum(sum(table["notes"].to_pylist()) for table in tables)
    assert facts["tokens"] == sum(len(tokens) for table in tables for tokens in table["tokens"])
    assert facts["programs"] == [0]
    assert facts["splits"] == {"train": 150}
    assert not straight.folder.paths(encode.RECEIPTS)


def test_killed_with_kill_9_it_goes_on_to_the_same_bytes(works: Dataset, straight: Dataset, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.cli", "encode", works.folder.uri, "--licence", "CC0-1.0"]
    process = subprocess.Popen(
        [*command, "--root", str(tmp_path)],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline_s = time.monotonic() + 120
    pattern = f"tokens/*/*/{encode.RECEIPTS}/*.json"
    while time.monotonic() < deadline_s and not (receipts := list(tmp_path.glob(pattern))):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("tokens/*/*/manifest.json")), "it was over before it was killed"
    kept = receipts[0].parents[1] / receipts[0].name.removesuffix(".json")
    before = kept.stat().st_mtime_ns
    resumed = encode.run(works, licences=("CC0-1.0",), root=Folder(str(tmp_path)), reporter=Silent())
    assert _bytes(resumed) == _bytes(straight)
    assert resumed.facts == straight.facts
    assert kept.stat().st_mtime_ns == before, "a shard that was whole was encoded again"


@pytest.mark.usefixtures("ray_cluster")
def test_a_receipt_of_other_works_or_of_lost_tokens_is_not_believed(
    works: Dataset, straight: Dataset, tmp_path: Path
) -> None:
    folder, path = Folder(str(tmp_path)), "works-00001.parquet"
    settings = {"licences": ("CC0-1.0",), "collections": ("walks",), "folder": folder}
    made = encode._encode_shard(works, path, **settings)  # type: ignore[arg-type]
    tokens, receipt = tmp_path / "tokens-00001.parquet", tmp_path / encode.RECEIPTS / "tokens-00001.parquet.json"
    whole = tokens.read_bytes()
    for spoil in (
        lambda: tokens.unlink(),
        lambda: tokens.write_bytes(whole[:-1]),
        lambda: receipt.write_text(json.dumps({**made, "source_sha256": "0" * 64, "notes": -1})),
    ):
        spoil()
        assert encode._encode_shard(works, path, **settings) == made  # type: ignore[arg-type]
        assert tokens.read_bytes() == whole == straight.read("tokens-00001.parquet")


def test_licences_are_told_before_anything_is_written(
    works: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["encode", works.folder.uri, "--root", str(tmp_path), "--dry-run"]
    assert run([*asked, "--licence", "CC0-1.0", "--licence", "MIT"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "150 of 200 works may train: 150 CC0-1.0",
        "left out, as their licence was not named: 50 unknown",
        "no work is under MIT",
        f"they would be encoded below {tmp_path}/tokens/walks/",
    ]
    assert run([*asked, "--licence", "MIT"]) == 2
    assert (
        capsys.readouterr().err.strip().endswith("no work of walks has a licence of MIT: name one of CC0-1.0, unknown")
    )
    assert not list(tmp_path.iterdir())


def test_a_dataset_without_a_named_licence_starts_nothing(works: Dataset, tmp_path: Path) -> None:
    empty = replace(works, facts={**works.facts, "licences": {"MIT": 0, "unknown": 200}})
    with pytest.raises(UserError, match="no work of walks has a licence of MIT: name one of MIT, unknown"):
        encode.run(empty, licences=("MIT",), root=Folder(str(tmp_path)), reporter=Silent())
