"""The local stack: a Ray head, an MLflow server and an S3 server on one machine; ``tutti up`` and ``tutti down``.

Everything lies below the results root: ``stack/stack.json`` says what runs, ``stack/logs`` what it said, ``stack/s3``
holds the buckets; MLflow serves the records that embedded runs under the same root write too. Stopping the stack
keeps all of that but the record of what runs.
"""

from __future__ import annotations

import fcntl
import os
import secrets as entropy
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.embedded import start_embedded_ray
from cluster.processes import free_port, is_running, ports_in_use, start, stop, wait_for_answer
from cluster.services import (
    BUCKET,
    FOREIGN_RAY_VARIABLES,
    PORTS_OF,
    Ports,
    Server,
    client_environment,
    mlflow_server,
    ray_head,
    s3_server,
)
from cluster.stack import RECORD, Service, Stack, read_stack, write_private
from tutti.errors import PlaceError, RecipeError
from tutti.storage import Folder

__all__ = ["Ports", "Service", "Stack", "down", "running_stack", "start_embedded_ray", "up"]

TAIL_BYTES = 4096


def up(root: Path, *, ports: Ports | None = None, num_cpus: int | None = None, timeout_s: float = 120.0) -> Stack:
    """Start what does not run yet of the local stack below ``root`` and wait until it can be used.

    Calling it again changes nothing and gives the same stack; a server that died is started again where it was. If one
    does not come up, those that this call started are stopped.

    Args:
        root: the results root, a folder of this machine.
        ports: where to listen; a stack that runs keeps the ports it has.
        num_cpus: cores of the Ray head, all of the machine by default.
        timeout_s: how long each server may take.

    Raises:
        RecipeError: a number of cores below 1.
        PlaceError: a port is in use, the folder cannot be written, or a server does not come up.
    """
    if num_cpus is not None and num_cpus < 1:
        raise RecipeError(f"{num_cpus} cores for Ray are too few", remedy="give at least 1, or none for all cores")
    home = _home(root)
    with _locked(home):
        stack = read_stack(home)
        alive = [service for service in stack.services if is_running(service.process)] if stack else []
        if stack is None or not alive:
            _forget(stack)
            stack = _planned(home, ports or Ports())
        missing = PORTS_OF.keys() - {service.name for service in alive}
        _check_ports(stack.ports, of=missing)
        servers = [server for server in _servers(root, stack, num_cpus=num_cpus) if server.name in missing]
        return _start(servers, stack=stack, alive=alive, timeout_s=timeout_s)


def down(root: Path) -> tuple[str, ...]:
    """Stop what :func:`up` started below ``root``, and nothing else; the names of the servers that were stopped.

    Raises:
        PlaceError: the record cannot be read or removed.
    """
    home = _home_below(root)
    if not (home / RECORD).exists():
        return ()
    with _locked(home):
        stack = read_stack(home)
        if stack is None:
            return ()
        stopped = [service.name for service in reversed(stack.services) if _stop(service)]
        _forget(stack)
    return tuple(stopped)


def running_stack(root: Path) -> Stack | None:
    """The stack below ``root`` if all of it runs.

    Raises:
        PlaceError: the record cannot be read.
    """
    stack = read_stack(_home_below(root))
    return stack if stack is not None and stack.is_running else None


def _start(servers: list[Server], *, stack: Stack, alive: list[Service], timeout_s: float) -> Stack:
    started: list[Service] = []
    try:
        for server in servers:
            started.append(_launch(server, home=stack.home))
            # Recorded before it is ready: whatever happens next, `down` knows of it.
            stack = stack.with_services([*alive, *started])
            stack.write()
        for server, service in zip(servers, started, strict=True):
            _wait_until_ready(server, service, timeout_s=timeout_s)
    except BaseException:
        for service in reversed(started):
            _stop(service)
        if alive:
            stack.with_services(alive).write()
        else:
            _forget(stack)
        raise
    return stack


def _launch(server: Server, *, home: Path) -> Service:
    log = home / "logs" / f"{server.name}.log"
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN_RAY_VARIABLES}
    process = start(server.command, log=log, environment={**inherited, **server.environment})
    return Service(name=server.name, address=server.address, process=process, log=log, grace_s=server.grace_s)


def _wait_until_ready(server: Server, service: Service, *, timeout_s: float) -> None:
    if wait_for_answer(server.ready_url, process=service.process, timeout_s=timeout_s):
        return
    fate = f"did not answer within {timeout_s:g} s" if is_running(service.process) else "ended as it started"
    raise PlaceError(f"the {server.name} server {fate} ({_last_line(service.log)})", remedy=f"read {service.log}")


def _stop(service: Service) -> bool:
    return stop(service.process, grace_s=service.grace_s)


def _forget(stack: Stack | None) -> None:
    if stack is not None:
        shutil.rmtree(stack.ray_temp_dir, ignore_errors=True)
        (stack.home / RECORD).unlink(missing_ok=True)


def _servers(root: Path, stack: Stack, *, num_cpus: int | None) -> list[Server]:
    from tutti.registry.backend import Backend  # imports MLflow, which takes seconds

    records = Backend.at(Folder(str(root)))
    records.prepare()
    return [
        s3_server(stack.home, port=stack.ports.s3, environment=stack.environment),
        mlflow_server(port=stack.ports.mlflow, database=records.database, artifacts=str(records.artifacts)),
        ray_head(
            stack.ports,
            temp_dir=stack.ray_temp_dir,
            agent_port=free_port(),
            num_cpus=num_cpus,
            environment=stack.environment,
        ),
    ]


def _planned(home: Path, ports: Ports) -> Stack:
    """A stack of which nothing runs yet, with new keys."""
    (home / "logs").mkdir(exist_ok=True)
    (home / "s3" / BUCKET).mkdir(parents=True, exist_ok=True)
    token_file = home / "ray-token"
    write_private(token_file, entropy.token_hex(32))
    return Stack(
        home=home,
        ports=ports,
        services=(),
        environment=client_environment(
            ports,
            ray_token_file=token_file,
            s3_key_id=f"tutti-{entropy.token_hex(4)}",
            s3_key=entropy.token_urlsafe(24),
        ),
        # Not below the results: the paths of Ray's sockets may not be longer than 107 bytes.
        ray_temp_dir=Path("/tmp") / f"tutti-ray-{entropy.token_hex(6)}",
    )


def _check_ports(ports: Ports, *, of: Collection[str]) -> None:
    wanted = {getattr(ports, name): name for server in of for name in PORTS_OF[server]}
    taken = sorted(ports_in_use(wanted))
    if taken:
        shown = ", ".join(f"{port} ({wanted[port]})" for port in taken)
        raise PlaceError(
            f"{'ports' if len(taken) > 1 else 'port'} {shown} in use on this machine",
            remedy="stop the program that listens there, or choose another port",
        )


def _home_below(root: Path) -> Path:
    return root.expanduser().absolute() / "stack"


def _home(root: Path) -> Path:
    home = _home_below(root)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PlaceError(
            f"cannot make the folder {home} ({error.strerror})", remedy="choose another results root"
        ) from error
    return home


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Let one command at a time change the stack of ``home``."""
    try:
        lock = (home / "lock").open("w")
    except OSError as error:
        raise PlaceError(f"cannot write in {home} ({error.strerror})", remedy="choose another results root") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "it said nothing")
