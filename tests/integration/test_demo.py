"""``tutti demo`` with the smallest model: every stage for real, and a second run that makes nothing again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

SMALL = (
    "corpus.max_files=40",
    "model.flavour=nano",
    "training.steps=40",
    "training.workers=1",
    "training.strategy=plain",
    "training.batch_sequences=8",
    # So few steps need not beat a table of pairs.
    "gate.beats=[]",
)


def _demo(root: Path) -> subprocess.CompletedProcess[str]:
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    command = [sys.executable, "-m", "jobs.cli", "demo", "--root", str(root), *overrides]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=dict(os.environ))


@pytest.mark.timeout(600)
def test_the_river_runs_once_from_scores_to_service(tmp_path: Path) -> None:
    first = _demo(tmp_path)
    assert first.returncode == 0, first.stderr
    told = first.stdout
    for name in ("works", "notes", "tokens", "NLL before", "NLL after", "unigram / bigram", "model", "takes"):
        assert f"\n{name} " in f"\n{told}", told
    before, after = (float(told.split(name)[1].split()[0]) for name in ("NLL before", "NLL after"))
    assert after < before - 1
    (page,) = tmp_path.glob("catalogues/demo/*/index.html")
    assert str(page) in told
    (answer,) = tmp_path.glob("served/bach/*/answer.flac")
    audio, rate_hz = soundfile.read(answer)
    assert 10 < len(audio) / rate_hz < 30
    assert 0.01 < np.abs(audio).max() < 1.0

    kept = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and "mlflow" not in path.parts
    }
    again = _demo(tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("found") == 7
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
