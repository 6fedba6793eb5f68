"""Whose fault it was, and that it is told in one line however deeply Ray has wrapped it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from jobs.faults import line_for_user
from tutti.errors import IntegrityError, PlaceError, RecipeError

SAID = "tempo 0 is outside 20 to 300: ask for a tempo within it"


def mistake() -> RecipeError:
    return RecipeError("tempo 0 is outside 20 to 300", remedy="ask for a tempo within it")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (mistake(), SAID),
        (PlaceError("two\nlines"), "two lines"),
        (IntegrityError("a differs from its manifest"), "a differs from its manifest"),
        (caused(RuntimeError("outer"), mistake()), SAID),
        (ExceptionGroup("several", [ValueError("x"), mistake()]), SAID),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            "no space left on device (/data/x): free some space or choose another folder",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/x"),
            "permission denied (/data/x): choose another folder or change its permissions",
        ),
        (
            OSError(errno.EADDRINUSE, "Address already in use"),
            "address already in use: choose another port, or stop the program that listens there",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line(error: Exception, line: str) -> None:
    assert line_for_user(error) == line


def test_what_only_we_can_mend_is_no_line() -> None:
    assert line_for_user(ValueError("x")) is None
    assert line_for_user(OSError(errno.EBADF, "Bad file descriptor")) is None
    handled = KeyError("x")
    handled.__context__ = mistake()  # a bug of ours while a user's mistake was being handled
    assert line_for_user(handled) is None


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert line_for_user(one) is None


def test_ray_trains_errors_are_opened() -> None:
    from ray.train import ControllerError, WorkerGroupError

    assert line_for_user(WorkerGroupError("rank 1 failed", {1: mistake()})) == SAID
    assert line_for_user(WorkerGroupError("rank 1 failed", {1: ValueError("x")})) is None
    assert line_for_user(ControllerError(mistake())) == SAID


def raise_mistake(*_: Any) -> None:
    raise mistake()


def raise_from_mistake(*_: Any) -> None:
    try:
        raise mistake()
    except RecipeError as error:
        raise RuntimeError("outer") from error


def raise_bug_while_handling_a_mistake(*_: Any) -> None:
    try:
        raise mistake()
    except RecipeError:
        raise KeyError("our bug")  # noqa: B904


class BrokenStage:
    def __init__(self) -> None:
        raise mistake()

    def __call__(self, batch: Any) -> Any:
        return batch


@pytest.mark.parametrize(
    ("task", "line"),
    [(raise_mistake, SAID), (raise_from_mistake, SAID), (raise_bug_while_handling_a_mistake, None)],
)
def test_a_mistake_comes_back_from_a_ray_task(ray_cluster: None, task: Any, line: str | None) -> None:
    import ray

    with pytest.raises(ray.exceptions.RayTaskError) as raised:
        ray.get(ray.remote(task).remote())
    assert line_for_user(raised.value) == line


@pytest.mark.parametrize(
    ("stage", "options", "line"),
    [
        (raise_mistake, {}, SAID),
        (raise_bug_while_handling_a_mistake, {}, None),
        (BrokenStage, {"concurrency": 1}, SAID),
    ],
)
def test_a_mistake_comes_back_from_ray_data(
    ray_cluster: None, stage: Any, options: dict[str, Any], line: str | None
) -> None:
    import ray.data

    with pytest.raises(ray.exceptions.RayError) as raised:
        ray.data.range(4).map_batches(stage, **options).materialize()
    assert line_for_user(raised.value) == line


@pytest.mark.parametrize(
    ("raises", "code", "said"),
    [
        ("tutti.errors.PlaceError('the disk is full', remedy='free some space')", 2, "error: the disk is full: free"),
        ("OSError(28, 'x', '/data')", 2, "error: no space left on device (/data): free some space"),
        ("ValueError('our bug')", 1, "Traceback"),
        ("KeyboardInterrupt()", 130, ""),
        ("SystemExit(7)", 7, ""),
        ("click.UsageError('two of a kind')", 2, "error: two of a kind"),
    ],
)
def test_the_exit_code_says_whose_fault_it_was(tmp_path: Path, raises: str, code: int, said: str) -> None:
    (tmp_path / "broken_verb.py").write_text(
        f"import click, tutti.errors\n@click.command()\ndef command():\n    raise {raises}\n"
    )
    script = """
        import jobs.cli
        jobs.cli.VERBS["broken"] = jobs.cli.Verb("broken", "broken_verb:command", "It breaks.")
        jobs.cli.main(["broken"])
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == code
    assert done.stderr.strip().startswith(said)
    assert done.stdout == ""
    if code == 2:
        assert done.stderr.count("\n") == 1
    if said == "":
        assert done.stderr.strip() == ""
