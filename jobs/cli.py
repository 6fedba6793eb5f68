"""``tutti VERB``: finds the verb, runs it, and says what went wrong in one line.

A verb's module is imported only when it is called, so ``tutti --help`` answers at once. Exit codes: 0 done; 1 Tutti's
own bug, with a traceback; 2 something the user can mend, in one line; 130 interrupted.
"""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import click

from jobs.faults import line_for_user
from tutti.telemetry import quiet_libraries

OUR_BUG, USERS_MISTAKE, INTERRUPTED = 1, 2, 130

# Read by libraries when they are imported, so they must be set before any verb is. What the user has set stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # sends nothing home, and asks nothing on a terminal
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # workers without GPUs keep CUDA_VISIBLE_DEVICES: Ray's coming default
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git, which a user need not have
}


@dataclass(frozen=True, slots=True)
class Verb:
    """A command by name, so that listing it imports nothing.

    Args:
        name: what is typed.
        target: ``module:attribute`` of its click command.
        sentence: what ``tutti --help`` says of it.
    """

    name: str
    target: str
    sentence: str


SECTIONS: tuple[tuple[str, tuple[Verb, ...]], ...] = (
    (
        "The whole river",
        (Verb("demo", "jobs.demo:command", "From scores to a served model on the embedded corpus, in minutes."),),
    ),
    (
        "From scores to a model",
        (
            Verb("ingest", "jobs.ingest:command", "Read scores from folders, URLs or music21 into the works table."),
            Verb("corpus", "jobs.corpus:command", "Show what was ingested: a summary, and a page of pictures."),
            Verb("encode", "jobs.encode:command", "Turn works into tokens."),
            Verb("train", "jobs.train:command", "Train a model from a recipe; started again, it goes on."),
            Verb("evaluate", "jobs.evaluate:command", "Hold what a model makes against works that it never saw."),
            Verb("models", "jobs.models:command", "List registered versions, promote one, roll back, export one."),
        ),
    ),
    (
        "From a model to music",
        (
            Verb("generate", "jobs.generate:command", "Make one piece and write its files."),
            Verb(
                "catalogue",
                "jobs.catalogue:command",
                "Make all pieces of an order, with checks and a page to play them.",
            ),
            Verb("reproduce", "jobs.reproduce:command", "Make a take again from its provenance, the same to the byte."),
            Verb(
                "feedback", "jobs.feedback:command", "Keep what listeners did with takes; make pairs that tune a model."
            ),
            Verb("serve", "serve.cli:command", "Serve a model over HTTP."),
        ),
    ),
    (
        "Machines",
        (
            Verb("up", "jobs.stack:up", "Start a local Ray cluster that outlives one command."),
            Verb("down", "jobs.stack:down", "Stop it."),
            Verb("submit", "jobs.submit:submit", "Run a verb on a cluster, such as train."),
            Verb("logs", "jobs.submit:logs", "Show what a submitted job wrote."),
            Verb("stop", "jobs.submit:stop", "End a submitted job in order."),
            Verb("status", "jobs.status:command", "Say what is there and what is running."),
        ),
    ),
)
VERBS = {verb.name: verb for _, verbs in SECTIONS for verb in verbs}


class River(click.Group):
    """The group of all verbs, in the river's order."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of all verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one verb."""
        verb = VERBS.get(cmd_name)
        if verb is None:
            near = difflib.get_close_matches(cmd_name, VERBS, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"verbs are {', '.join(VERBS)}"
            raise click.UsageError(f"no verb {cmd_name!r}: {remedy}")
        quiet_libraries()
        module, _, attribute = verb.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs by section."""
        width = max(map(len, VERBS))
        for title, verbs in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(verb.name.ljust(width), verb.sentence) for verb in verbs])


@click.command(cls=River, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tutti", message="tutti %(version)s")
def tutti() -> None:
    """Train music models on a cluster and turn them into finished, checked, licensed music.

    Every verb has --help with an example. Results lie below --root (default: results).
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: words after ``tutti``; by default those of this process.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _interrupted)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _interrupted(*_: object) -> NoReturn:
    """Leave on SIGTERM, which ends a job, as on Ctrl-C: what is open is closed, and records say so."""
    raise KeyboardInterrupt


def run(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code.

    Raises:
        BaseException: what no user can mend, unchanged.
    """
    try:
        code = tutti.main(args=list(arguments), prog_name="tutti", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        _say(_usage_line(error))
        return USERS_MISTAKE
    except click.Abort as error:
        return INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else OUR_BUG
    except Exception as error:
        line = line_for_user(error)
        if line is None:
            raise
        _say(line)
        return USERS_MISTAKE


def _usage_line(error: click.ClickException) -> str:
    text = " ".join(error.format_message().split())
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text = f"{text.rstrip('.')}; see `{error.ctx.command_path} --help`"
    return text


def _say(line: str) -> None:
    click.echo(f"error: {line}", err=True)


if __name__ == "__main__":
    main()
