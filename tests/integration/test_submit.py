"""Jobs on a real cluster: the same verbs, their output, their end, and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from cluster import local
from cluster.processes import stop
from cluster.services import Ports
from cluster.stack import Stack
from tests.ports import free_port

ROOT = "s3://tutti/results"
RECIPE = """
name: few
corpus: {sources: ["music21:bach"], max_files: 10}
licences: [LicenseRef-music21-corpus]
model: {flavour: nano}
training:
  {steps: 1000000, workers: 1, strategy: plain, sequence_tokens: 128, batch_sequences: 2, micro_batch_sequences: 2}
"""
WITHIN_S = 180


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("stack")
    started = local.up(root, ports=Ports(**{name: free_port() for name in asdict(Ports())}), num_cpus=2)
    try:
        yield started
    finally:
        # Ray drains a node for 30 s; here nobody waits for what runs on it.
        for service in started.services:
            stop(service.process, grace_s=0)
        local.down(root)


def tutti(stack: Stack, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", *words],
        env={**os.environ, **stack.environment, **environment},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
    )


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "few.yaml"
    file.write_text(RECIPE)
    return file


def test_a_recipe_of_this_machine_is_followed_on_the_cluster_until_it_is_stopped(stack: Stack, recipe: Path) -> None:
    sent = tutti(stack, "submit", "--", "train", str(recipe), "--root", ROOT)
    assert sent.returncode == 0, sent.stderr
    job_id = sent.stdout.strip()
    deadline_s = time.monotonic() + WITHIN_S
    while "1000000 steps" not in (said := tutti(stack, "logs", job_id).stdout):
        assert time.monotonic() < deadline_s, said
    assert tutti(stack, "stop", job_id, "--dry-run").stdout == f"would stop {job_id}\n"
    stopped = tutti(stack, "stop", job_id)
    assert stopped.returncode == 0, stopped.stderr
    told = f"{job_id} stopped; submitted again, the same command goes on: tutti train few.yaml --root {ROOT}\n"
    assert stopped.stdout == told
    assert tutti(stack, "stop", job_id).stdout == f"{job_id} is over already (stopped)\n"

    status = json.loads(tutti(stack, "status", "--root", ROOT, "--json").stdout)
    (job,) = (job for job in status["jobs"] if job["id"] == job_id)
    assert (job["verb"], job["state"], job["exit_code"]) == ("train", "stopped", None)
    assert {each["kind"] for each in status["datasets"]} >= {"works", "tokens"}
    followed = tutti(stack, "logs", job_id, "--follow")
    assert followed.returncode == 130
    assert "1000000 steps" in followed.stdout
    assert stack.environment["AWS_SECRET_ACCESS_KEY"] not in json.dumps(status) + followed.stdout + followed.stderr


def test_a_job_that_fails_ends_the_command_that_followed_it_as_it_ended(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "wrong.yaml").write_text("model: {flavour: nano}\n")
    words = ("train", str(tmp_path / "deep" / "wrong.yaml"), "--root", ROOT)
    done = tutti(stack, "submit", "--follow", "--working-dir", str(tmp_path), "--", *words)
    assert done.returncode == 2
    assert "error: deep/wrong.yaml: name: Field required" in done.stdout
    last = done.stderr.splitlines()[-1]
    assert last == f"{done.stdout.splitlines()[-1]} failed: Job entrypoint command failed with exit code 2"


def test_mistakes_are_one_line(stack: Stack) -> None:
    address = stack.environment["RAY_API_SERVER_ADDRESS"]
    unknown = f"error: the cluster at {address} knows no job 'nope': `tutti status` lists its jobs\n"
    for verb in ("logs", "stop"):
        done = tutti(stack, verb, "nope")
        assert (done.returncode, done.stderr) == (2, unknown)
    for token in ({"RAY_AUTH_TOKEN": "wrong"}, {"RAY_AUTH_MODE": "disabled"}):
        done = tutti(stack, "logs", "nope", **{"RAY_AUTH_TOKEN_PATH": os.devnull, **token})
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: the cluster at {address} refuses the token (")
        assert done.stderr.count("\n") == 1


def test_the_address_that_is_named_is_the_one_that_is_asked(stack: Stack, free_port: int) -> None:
    address = stack.environment["RAY_API_SERVER_ADDRESS"]
    elsewhere = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{free_port}", "RAY_ADDRESS": f"127.0.0.1:{free_port}"}
    done = tutti(stack, "logs", "--address", address, "nope", **elsewhere)
    assert done.stderr.startswith(f"error: the cluster at {address} knows no job 'nope'")
