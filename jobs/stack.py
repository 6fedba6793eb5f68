"""``tutti up`` and ``tutti down``: the local stack of Ray, MLflow and S3 servers that outlives one command."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import click

from cluster import local
from tutti.errors import RecipeError
from tutti.telemetry import reporter

_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Results root, a folder of this machine; the stack keeps its files below it, in stack/.",
)


@click.command()
@_ROOT
@click.option("--cpus", "num_cpus", type=int, help="Cores that Ray may use; all of the machine by default.")
@click.option(
    "--port", "ports", multiple=True, metavar="NAME=NUMBER", help="Port of ray, ray_client, dashboard, mlflow or s3."
)
@click.option("--env", is_flag=True, help="Print the variables that make a shell use the stack, for eval.")
@click.option("--dry-run", is_flag=True, help="Say what would run where, and start nothing.")
def up(*, root: Path, num_cpus: int | None, ports: tuple[str, ...], env: bool, dry_run: bool) -> None:
    """Start a Ray head, an MLflow server and an S3 server on this machine; started again, it changes nothing.

    \b
    Example:
        tutti up
        eval "$(tutti up --env)"        # this shell's verbs now run on the stack
        tutti up --port mlflow=5001 --cpus 4
    """
    wanted = _ports(ports)
    if dry_run:
        listed = ", ".join(f"{name} {port}" for name, port in asdict(wanted).items())
        click.echo(f"would start a stack below {root / 'stack'} on ports {listed}")
        return
    reporter().line("Starting Ray, MLflow and S3; this takes some seconds …")
    stack = local.up(root, ports=wanted, num_cpus=num_cpus)
    if env:
        for name, value in stack.environment.items():
            click.echo(f"export {name}={shlex.quote(value)}")
        return
    for service in stack.services:
        click.echo(f"{service.name:7} {service.address}")
    click.echo(f'the stack runs; use it with: eval "$(tutti up --root {shlex.quote(str(root))} --env)"')


@click.command()
@_ROOT
@click.option("--dry-run", is_flag=True, help="Say what would be stopped, and stop nothing.")
def down(*, root: Path, dry_run: bool) -> None:
    """Stop what `tutti up` started below the same root, and nothing else; all results stay.

    \b
    Example:
        tutti down
    """
    if dry_run:
        stack = local.running_stack(root)
        names = ", ".join(service.name for service in stack.services) if stack else "nothing"
        click.echo(f"would stop {names}")
        return
    stopped = local.down(root)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing ran below {root / 'stack'}")


def _ports(texts: tuple[str, ...]) -> local.Ports:
    names = tuple(asdict(local.Ports()))
    given: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in names or not number.isdigit():
            raise RecipeError(f"--port {text!r} is not NAME=NUMBER", remedy=f"names are {', '.join(names)}")
        given[name] = int(number)
    return local.Ports(**given)
