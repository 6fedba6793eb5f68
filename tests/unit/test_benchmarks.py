"""The harness of the benchmarks: turns, medians, a table for people and JSON for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import Bench

SCRIPT = """
from benchmarks.harness import run
def measure(bench):
    contenders = {"ours": lambda: sum(range(1000)), "theirs": lambda: sum(range(9000))}
    bench.race("sum", contenders, amount=1000, unit="numbers")
    bench.count("size", {"ours": 12345.0}, unit="bytes")
    bench.note("a condition")
    bench.name("sums_s", bench.figures["sum"]["ours"].median)
    bench.name("minutes", bench.settings["minutes"])
run("sums", measure, settings={"minutes": (10, "how long")})
"""


def test_contenders_take_turns_after_one_run_that_warms_up() -> None:
    order: list[str] = []
    bench = Bench(rounds=3)
    bench.race("x", {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, amount=2, unit="steps")
    assert order == ["a", "b"] * 4
    figure = bench.figures["x"]["a"]
    assert 0 < figure.low <= figure.median <= figure.high
    assert (figure.unit, figure.rounds) == ("steps/s", 3)


def test_a_benchmark_prints_a_table_and_one_object(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--json", "--rounds", "2", "--minutes", "0.5"],
        capture_output=True, text=True, timeout=60, check=True, cwd=repository,
    )  # fmt: skip
    *shown, last = done.stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == "sums"
    assert found["figures"].keys() == {"sum.ours", "sum.theirs", "size.ours"}
    assert found["figures"]["sum.ours"]["rounds"] == 2
    assert found["figures"]["sum.ours"]["median"] > found["figures"]["sum.theirs"]["median"]
    assert found["sums_s"] == found["figures"]["sum.ours"]["median"]
    assert found["minutes"] == 0.5
    assert any("12,345" in line for line in shown)
    assert "- a condition" in shown


@pytest.mark.parametrize("rounds", ["0", "-1", "x"])
def test_no_rounds_are_refused(repository: Path, rounds: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "--rounds", rounds], capture_output=True, text=True, timeout=60, cwd=repository
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
