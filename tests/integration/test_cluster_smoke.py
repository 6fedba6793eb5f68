"""The smoke check, on the Ray that tests share: it finds what is well, what is broken and what was not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.smoke import findings

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_what_is_well_passes_and_what_was_not_asked_is_not_called_well(tmp_path: Path) -> None:
    found = {finding.check: finding for finding in findings(storage=str(tmp_path), tracking_uri=None)}
    assert {check: finding.passed for check, finding in found.items()} == {
        "nodes": True,
        "objects": True,
        "storage": True,
        "mlflow": None,
    }
    assert found["nodes"].detail.startswith("1 node, 2 cores, 0 GPUs, tutti ")
    assert list(tmp_path.iterdir()) == [], "the check cleans up"


def test_what_is_broken_says_why_in_one_line(free_port: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    address = f"http://127.0.0.1:{free_port}"
    found = {
        finding.check: finding for finding in findings(storage=str(tmp_path / "file" / "folder"), tracking_uri=address)
    }
    assert found["storage"].passed is False
    assert "file/folder" in found["storage"].detail
    assert found["mlflow"].passed is False
    assert found["mlflow"].detail.startswith(f"no MLflow server answers at {address} ")
    assert all("\n" not in str(finding) and "\x1b" not in str(finding) for finding in found.values())
