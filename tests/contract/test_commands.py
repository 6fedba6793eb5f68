"""What is typed: the verbs, their help, and what a mistake says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from jobs.cli import VERBS, tutti

HELP_WITHIN_S = 0.5
HEAVY = ("ray", "torch", "mlflow", "deepspeed", "music21", "pyarrow", "numpy")


def run_tutti(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "jobs.cli", *arguments], capture_output=True, text=True, timeout=120)


def commands(verb: str) -> dict[str, click.Command]:
    """The command of a verb and, where it is a group, those below it, by the words that call them."""
    command = tutti.get_command(click.Context(tutti), verb)  # type: ignore[attr-defined]
    below = command.commands if isinstance(command, click.Group) else {}
    return {verb: command, **{f"{verb} {name}": child for name, child in below.items()}}


def test_the_verbs_are_the_agreed_ones(golden: Callable[[str, str], None]) -> None:
    listed = []
    for verb in VERBS:
        for words, command in commands(verb).items():
            options = sorted(name for parameter in command.params for name in parameter.opts)
            listed.append(f"{words}: {' '.join(options)}")
    golden("commands.txt", "\n".join(listed) + "\n")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str) -> None:
    for words, command in commands(verb).items():
        help_text = command.get_help(click.Context(command, info_name=f"tutti {words}"))
        assert "Example" in help_text, words
        assert f"tutti {verb}" in help_text.partition("Example")[2], words


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"corpus", "logs", "models", "serve", "status"}))
def test_a_verb_that_writes_can_say_what_it_would_do(verb: str) -> None:
    assert any("--dry-run" in parameter.opts for parameter in commands(verb)[verb].params)


def test_options_may_follow_the_order_of_a_catalogue() -> None:
    command = commands("catalogue")["catalogue"]
    asked = command.make_context("catalogue", ["order.yaml", "--root", "elsewhere", "--dry-run"]).params
    assert (asked["root"], asked["dry_run"]) == ("elsewhere", True)


def test_help_answers_at_once_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, time, jobs.cli\n"
        "code = jobs.cli.run(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], time.process_time(), file=sys.stderr)\n"
    )
    # Seconds of the processor, which other processes do not move; what waits for a disk is not among them.
    spent_s = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        heavy, _, seconds = done.stderr.strip().rpartition(" ")
        assert heavy == "[]"
        spent_s.append(float(seconds))
    assert min(spent_s) < HELP_WITHIN_S
    for verb in VERBS.values():
        assert verb.name in done.stdout
        assert " ".join(verb.sentence.split()[:4]) in done.stdout


def test_version_is_the_projects(repository: Path) -> None:
    version = run_tutti("--version")
    assert version.stdout == "tutti 0.1.0\n"
    assert 'version = "0.1.0"' in (repository / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["catalog"], "error: no verb 'catalog': did you mean 'catalogue'?"),
        (["xyzzy"], f"error: no verb 'xyzzy': verbs are {', '.join(VERBS)}"),
        (["--colour"], "error: No such option '--colour'; see `tutti --help`"),
        (["up", "--port", "mlflow"], "error: --port 'mlflow' is not NAME=NUMBER: names are "),
        (
            ["up", "--port", "s3=80", "--dry-run"],
            "error: port 80 for s3 is outside 1024 to 65535: choose one within it",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], said: str) -> None:
    done = run_tutti(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_no_words_at_all_show_the_help() -> None:
    done = run_tutti()
    assert done.returncode == 2
    assert "Usage: tutti" in done.stderr


def test_the_environment_of_the_user_wins() -> None:
    script = (
        "import atexit, os, jobs.cli\n"
        "atexit.register(lambda: print(os.environ['RAY_USAGE_STATS_ENABLED']))\n"
        "jobs.cli.main(['--version'])"
    )
    for given, kept in ((None, "0"), ("1", "1")):
        environment = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
        if given is not None:
            environment["RAY_USAGE_STATS_ENABLED"] = given
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.stdout.splitlines()[-1] == kept


def test_a_verb_that_is_stopped_leaves_in_order() -> None:
    script = (
        "import os, signal, time, click\n"
        "from jobs import cli\n"
        "@click.command()\n"
        "def slow():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('closed', flush=True)\n"
        "cli.VERBS['slow'] = cli.Verb('slow', '__main__:slow', '')\n"
        "cli.main(['slow'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "closed\n", "")
