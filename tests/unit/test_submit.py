"""What goes to a cluster, and what is refused before anything does."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from cluster.job_server import Job, JobServer, JobState
from jobs.cli import VERBS, run
from jobs.submit import TAKES_PLACE_HERE, carried, checked, exit_code, is_secret
from tutti.errors import MissingError, PlaceError, RecipeError

FAR, NEAR = "http://ray.example.org:8265", "http://127.0.0.1:8265"


@pytest.mark.parametrize("verb", sorted(TAKES_PLACE_HERE))
def test_a_verb_of_this_machine_cannot_be_a_job(verb: str) -> None:
    assert verb in VERBS
    with pytest.raises(RecipeError, match=f"'{verb}' cannot be a job: "):
        checked([verb], folder=None)


@pytest.mark.parametrize("root", [[], ["--root", "results"], ["--root", "./deep"]])
def test_results_may_not_go_away_with_the_job(root: list[str]) -> None:
    with pytest.raises(RecipeError, match="would lie in the job's own folder, which goes away with it: name storage"):
        checked(["train", "demo", *root], folder=None)


def test_words_are_read_as_the_verb_reads_them() -> None:
    for words in (["train", "--steps=3"], ["corpus", "lst"], ["corpus", "list", "--rooot", "x"], ["models"]):
        with pytest.raises(click.UsageError):
            checked([*words, "--root", "s3://bucket"] if words != ["models"] else words, folder=None)
    with pytest.raises(click.UsageError, match="no verb 'trian': did you mean 'train'"):
        checked(["trian"], folder=None)
    for words in (
        ["corpus", "list", "--root", "s3://bucket/r"],
        ["ingest", "--help"],
        ["train", "demo", "--root", "/r"],
    ):
        assert checked(words, folder=None).words == tuple(words)


def test_a_recipe_of_this_machine_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "deep" / "my recipe.yaml"
    recipe.parent.mkdir()
    recipe.write_text("name: x\n")
    words = ["train", str(recipe), "--root", "s3://b/r", "--set", "training.steps=3"]
    order = checked(words, folder=None)
    assert order.words == ("train", "my recipe.yaml", *words[2:])
    assert order.files == {"my recipe.yaml": recipe}
    within = checked(words, folder=tmp_path)
    assert (within.words[1], within.files, within.folder) == ("deep/my recipe.yaml", {}, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(RecipeError, match="does not lie in the working folder"):
        checked(words, folder=other)


def test_addresses_go_along_and_keys_do_not() -> None:
    environ = {
        "MLFLOW_TRACKING_URI": "http://mlflow.example.org",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "HOME": "/root",
    }
    far = {"MLFLOW_TRACKING_URI": "http://mlflow.example.org", "AWS_DEFAULT_REGION": "us-east-1"}
    assert carried(environ, named=(), address=FAR) == far
    assert carried(environ, named=(), address=NEAR) == {**far, "AWS_ENDPOINT_URL": "http://127.0.0.1:9000"}
    assert carried(environ, named=("AWS_SECRET_ACCESS_KEY",), address=FAR) == {**far, "AWS_SECRET_ACCESS_KEY": "hush"}
    with pytest.raises(MissingError, match="--env NOWHERE: the variable is not set here"):
        carried(environ, named=("NOWHERE",), address=FAR)
    for private in ("sqlite:////home/me/mlflow.db", "http://me:hush@mlflow.example.org"):
        assert "MLFLOW_TRACKING_URI" not in carried({"MLFLOW_TRACKING_URI": private}, named=(), address=FAR)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True), ("AWS_ACCESS_KEY_ID", True), ("MLFLOW_TRACKING_PASSWORD", True),
        ("HF_TOKEN", True), ("AWS_DEFAULT_REGION", False), ("KEYBOARD", False),
    ],
)  # fmt: skip
def test_what_sounds_like_a_secret_counts_as_one(name: str, secret: bool) -> None:
    assert is_secret(name, "x") == secret


@pytest.mark.parametrize(
    ("state", "of_command", "code"),
    [
        ("succeeded", 0, 0), ("failed", 2, 2), ("failed", 1, 1), ("failed", None, 1), ("failed", -9, 1),
        ("stopped", None, 130),
    ],
)  # fmt: skip
def test_a_followed_job_ends_as_its_command_did(state: str, of_command: int | None, code: int) -> None:
    job = Job("x", ("train",), JobState(state), datetime.now(UTC), of_command, "")
    assert exit_code(job) == code


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "http://:8265", "http://x:port"])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(RecipeError, match=r"is not a job server's: write it like http://127\.0\.0\.1:8265"):
        JobServer(address)


def test_no_server_is_one_line(free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"http://127.0.0.1:{free_port}"
    with pytest.raises(PlaceError, match=f"no job server answers at {address} within 5 s .Connection refused."):
        JobServer(address)
    for words in (["logs", "x"], ["stop", "x"], ["submit", "--", "train", "demo", "--root", "s3://b/r"]):
        assert run([words[0], "--address", address, *words[1:]]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert run(words) == 2
        assert capsys.readouterr().err.startswith("error: no cluster is named: give --address http://127.0.0.1:8265")


def test_what_would_be_sent_is_told_without_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSH_TOKEN", "hush")
    words = [
        "submit",
        "--address",
        FAR,
        "--env",
        "HUSH_TOKEN",
        "--dry-run",
        "--",
        "train",
        "demo",
        "--root",
        "s3://b/r",
    ]
    assert run(words) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"would run `tutti train demo --root s3://b/r` at {FAR}; variables: AWS_")
    assert "HUSH_TOKEN" in told.out
    assert "hush" not in told.out + told.err
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in told.out + told.err
