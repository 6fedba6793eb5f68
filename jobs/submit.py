"""``tutti submit``, ``logs`` and ``stop``: the same verbs on a cluster, through its job server."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from cluster.job_server import ADDRESS, EXAMPLE_ADDRESS, STOPS_WITHIN_S, Job, JobServer, JobState
from tutti.errors import MissingError, PlaceError, RecipeError

TAKES_PLACE_HERE = {
    "up": "it starts servers on this machine",
    "down": "it stops servers on this machine",
    "submit": "a job cannot submit itself",
    "logs": "it reads from the cluster already",
    "stop": "it speaks to the cluster already",
    "serve": "a job has no address; use k8s/base/ray-service.yaml, or run it on the head",
}
"""Verbs that make no sense as a job, and why."""
CARRIED = (
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
"""Variables that go with every job: addresses, no secrets."""
UPLOADED = ("recipe", "order")
"""Arguments of verbs that may name a file of this machine."""
_SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|(^|_)KEY($|_)|_KEY_", re.IGNORECASE)
_LOOPBACK = re.compile(r"localhost|127(\.\d+){3}|::1")
POLL_S = 0.5
STOPPED = 130

_address = click.option(
    "--address", envvar=ADDRESS, metavar="URL", help=f"The cluster's dashboard; by default ${ADDRESS}."
)
_job_id = click.argument("job_id", metavar="ID")


@dataclass(frozen=True)
class Order:
    """What is to run on the cluster, and what goes with it.

    Args:
        words: the verb and its arguments, files named as they will be there.
        files: files of this machine by their path there.
        folder: becomes the job's working folder.
    """

    words: tuple[str, ...]
    files: Mapping[str, Path]
    folder: Path | None


@click.command(name="submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_address
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Sent with the job and its working folder there; recipe and order must lie in it.",
)
@click.option(
    "--env", "names", multiple=True, metavar="NAME", help="A variable of this shell that goes with it; repeatable."
)
@click.option("--follow", is_flag=True, help="Show what it writes, and end as it ends.")
@click.option("--dry-run", is_flag=True, help="Check the words, say what would be sent, and send nothing.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- VERB …")
def submit(
    *,
    address: str | None,
    working_dir: Path | None,
    names: tuple[str, ...],
    follow: bool,
    dry_run: bool,
    words: tuple[str, ...],
) -> int:
    """Run a verb on a cluster; the last line is the job's id.

    The cluster runs its own Tutti. A recipe or order that is a file here goes along, and so do the addresses of storage
    and MLflow, by their variables. Keys do not: everybody who may list a cluster's jobs may read a job's variables, so
    keys belong to the cluster's nodes. With --follow the exit code is the job's.

    \b
    Example:
        eval "$(tutti up --env)"
        tutti submit --follow -- train recipe.yaml --root s3://tutti/results --set training.steps=500
    """
    place = _known(address)
    order = checked(words, folder=working_dir)
    environment = carried(os.environ, named=names, address=place)
    if dry_run:
        files = f", with {', '.join(map(str, order.files.values()))}" if order.files else ""
        variables = ", ".join(sorted(environment)) or "none"
        click.echo(f"would run `tutti {' '.join(order.words)}` at {place}{files}; variables: {variables}")
        return 0
    for name in sorted(name for name in environment if is_secret(name, environment[name])):
        click.echo(f"warning: everybody who may list the cluster's jobs can read ${name}", err=True)
    server = JobServer(place)
    with _package(order) as folder:
        job_id = server.submit(order.words, folder=folder, environment=environment)
    if not follow:
        click.echo(f"running at {server.address}; see `tutti logs {job_id} --follow`, `tutti stop {job_id}`", err=True)
        click.echo(job_id)
        return 0
    code = _follow(server, job_id)
    click.echo(job_id)
    return code


@click.command(name="logs")
@_address
@click.option("--follow", is_flag=True, help="Go on until the job is over, and end as it ends.")
@_job_id
def logs(*, address: str | None, follow: bool, job_id: str) -> int:
    """Show what a job wrote.

    \b
    Example:
        tutti logs raysubmit_TP7UrXtP8jnkGHLA --follow
    """
    server = JobServer(_known(address))
    if follow:
        return _follow(server, job_id)
    click.echo(server.output(job_id), nl=False)
    return 0


@click.command(name="stop")
@_address
@click.option("--dry-run", is_flag=True, help="Say what would be stopped, and stop nothing.")
@_job_id
def stop(*, address: str | None, dry_run: bool, job_id: str) -> None:
    """End a job in order; the same command goes on where it was.

    \b
    Example:
        tutti stop raysubmit_TP7UrXtP8jnkGHLA
    """
    server = JobServer(_known(address))
    job = server.job(job_id)
    if dry_run:
        click.echo(f"would stop {job_id}" if not job.state.is_over else f"{job_id} is over already ({job.state})")
        return
    if not server.stop(job_id):
        click.echo(f"{job_id} is over already ({job.state})")
        return
    ended = _ended(server, job_id, within_s=STOPS_WITHIN_S + 30)
    click.echo(f"{job_id} {ended.state}; submitted again, the same command goes on: tutti {' '.join(ended.words)}")


def checked(words: Sequence[str], *, folder: Path | None) -> Order:
    """What is to run, its words read as they would be here.

    Raises:
        RecipeError: a verb that cannot be a job, results that would go away with it, a recipe outside ``folder``.
        click.UsageError: words that the verb does not take.
    """
    verb, *rest = words
    if verb in TAKES_PLACE_HERE:
        raise RecipeError(f"{verb!r} cannot be a job", remedy=TAKES_PLACE_HERE[verb])
    if {"-h", "--help"} & set(rest):
        return Order(tuple(words), {}, folder)
    context = _parsed(verb, rest)
    root = context.params.get("root")
    if root is not None and not ("://" in str(root) or Path(str(root)).is_absolute()):
        raise RecipeError(
            f"--root {root!s} would lie in the job's own folder, which goes away with it",
            remedy="name storage such as --root s3://bucket/results, or an absolute path that the cluster has",
        )
    files: dict[str, Path] = {}
    renamed = list(words)
    for name in UPLOADED:
        value = context.params.get(name)
        if isinstance(value, str) and Path(value).is_file():
            there = _inside(folder, Path(value)) if folder else Path(value).name
            renamed[renamed.index(value)] = there
            files |= {} if folder else {there: Path(value)}
    return Order(tuple(renamed), files, folder)


def carried(environ: Mapping[str, str], *, named: Sequence[str], address: str) -> dict[str, str]:
    """Variables that go with a job: addresses where they mean the same there, and those that were named.

    Raises:
        MissingError: a named variable is not set.
    """
    absent = [name for name in named if name not in environ]
    if absent:
        raise MissingError(f"--env {absent[0]}: the variable is not set here", remedy="export it, or leave it out")
    near = bool(_LOOPBACK.fullmatch(urlsplit(address).hostname or ""))
    found = {name: environ[name] for name in CARRIED if environ.get(name)}
    kept = {
        name: value for name, value in found.items() if not is_secret(name, value) and _means_the_same(value, near=near)
    }
    return {**kept, **{name: environ[name] for name in named}}


def is_secret(name: str, value: str) -> bool:
    """Whether a variable's name sounds like a secret, or its value is an address with a password."""
    return bool(_SECRET.search(name)) or ("://" in value and "@" in urlsplit(value).netloc)


def exit_code(job: Job) -> int:
    """A job's outcome as an exit code: that of its command, 130 where it was stopped, 1 where it never ran."""
    if job.state == JobState.SUCCEEDED:
        return 0
    if job.state == JobState.STOPPED:
        return STOPPED
    return job.exit_code if job.exit_code and job.exit_code > 0 else 1


def _parsed(verb: str, rest: Sequence[str]) -> click.Context:
    """The verb's own reading of its words; nothing of it runs."""
    from jobs.cli import River, tutti

    assert isinstance(tutti, River)
    context = click.Context(tutti, info_name="tutti")
    command, name, words = tutti.get_command(context, verb), verb, list(rest)
    while command is not None:
        context = command.make_context(name, words, parent=context)
        if not isinstance(command, click.Group):
            break
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        name = "" if command is None else command.name or ""
    return context


def _inside(folder: Path, file: Path) -> str:
    try:
        return file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        raise RecipeError(f"{file} does not lie in the working folder {folder}", remedy="put it there") from None


def _means_the_same(value: str, *, near: bool) -> bool:
    """Whether an address of this machine is one there too; what is no address is.

    A tunnel's end at 127.0.0.1, or a database file, is of this machine alone.
    """
    if "://" not in value:
        return True
    parts = urlsplit(value)
    return parts.scheme in ("http", "https") and (near or not _LOOPBACK.fullmatch(parts.hostname or ""))


@contextmanager
def _package(order: Order) -> Iterator[Path | None]:
    """The folder that is sent: the user's own, or one with the files that are needed; None where there are none."""
    if order.folder or not order.files:
        yield order.folder
        return
    with tempfile.TemporaryDirectory(prefix="tutti-submit-") as staging:
        for there, file in order.files.items():
            shutil.copyfile(file, Path(staging) / there)
        yield Path(staging)


def _known(address: str | None) -> str:
    if not address:
        raise RecipeError(
            "no cluster is named", remedy=f'give --address {EXAMPLE_ADDRESS}, or eval "$(tutti up --env)"'
        )
    return address


def _follow(server: JobServer, job_id: str) -> int:
    """Show what a job writes until it is over; its exit code."""
    try:
        for piece in server.follow(job_id):
            sys.stdout.write(piece)
            sys.stdout.flush()
        job = _ended(server, job_id, within_s=STOPS_WITHIN_S)
    except KeyboardInterrupt:
        click.echo(f"the job goes on: `tutti logs {job_id} --follow`, `tutti stop {job_id}`", err=True)
        raise
    if job.state != JobState.SUCCEEDED:
        click.echo(f"{job_id} {job.state}: {job.message}", err=True)
    return exit_code(job)


def _ended(server: JobServer, job_id: str, *, within_s: float) -> Job:
    deadline_s = time.monotonic() + within_s
    while not (job := server.job(job_id)).state.is_over:
        if time.monotonic() > deadline_s:
            raise PlaceError(f"job {job_id} is {job.state} after {within_s:g} s", remedy="ask again: `tutti status`")
        time.sleep(POLL_S)
    return job
