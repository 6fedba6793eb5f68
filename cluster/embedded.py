"""A Ray for one command: started inside the calling process, gone with it, sized for a laptop.

``ray.init`` without an address joins whatever cluster the machine last saw, sizes its store for a server and talks;
:func:`start_embedded_ray` does none of these.
"""

from __future__ import annotations

import logging
import os
import secrets as entropy
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from tutti.errors import PlaceError, RecipeError

MIB = 1 << 20
SMALLEST_STORE_BYTES, LARGEST_STORE_BYTES = 128 * MIB, 1024 * MIB
STORE_SHARE_OF_MEMORY = 1 / 8
STORE_SHARE_OF_SHARED_MEMORY = 0.9
SHARED_MEMORY = Path("/dev/shm")
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
CONNECT_TIMEOUT_S = 5.0
DEFAULT_RAY_PORT, DEFAULT_CLIENT_PORT = 6379, 10001


def start_embedded_ray(*, address: str | None = None, num_cpus: int | None = None, worker_output: bool = False) -> None:
    """Make Ray ready for the calling process: start one here, or join the cluster at ``address``.

    Does nothing where Ray is ready already, so every verb and every stage of a verb may call it.

    Args:
        address: ``host:port``, ``ray://host:port``, ``auto``, or ``local`` for one that starts here. None takes
            ``RAY_ADDRESS`` from the environment, which Ray sets inside its jobs, and without it starts one here.
        num_cpus: cores of the Ray that starts here, all of the machine by default; a cluster keeps its own.
        worker_output: repeat on this process's stderr what workers print.

    Raises:
        RecipeError: an address or number of cores that cannot be.
        PlaceError: nothing answers at ``address``, or Ray cannot start here.
    """
    if num_cpus is not None and num_cpus < 1:
        raise RecipeError(f"{num_cpus} cores for Ray are too few", remedy="give at least 1, or none for all cores")
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    place = None if target in ("local", "auto") else _host_and_port(target)
    import ray  # reads RAY_* variables as it is imported, so not before a verb has set them

    if ray.is_initialized():
        return
    if target == "local":
        _start_here(num_cpus=num_cpus, worker_output=worker_output)
        return
    if place is not None:
        _greet(*place, address=target)
    _join(target, worker_output=worker_output)


def object_store_bytes() -> int:
    """Size for a store of objects that leaves an 8 GiB machine its memory: an eighth, at least 128 MiB, at most 1 GiB.

    Ray keeps the store in ``/dev/shm`` where it fits there, and on disk, much slower, where it does not.
    """
    from ray._common.utils import get_system_memory  # knows the limits of containers

    shared_bytes = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None
    return sized_store_bytes(memory_bytes=get_system_memory(), shared_memory_bytes=shared_bytes)


def sized_store_bytes(*, memory_bytes: int, shared_memory_bytes: int | None) -> int:
    """The rule of :func:`object_store_bytes` for a machine with these sizes."""
    size = min(max(int(memory_bytes * STORE_SHARE_OF_MEMORY), SMALLEST_STORE_BYTES), LARGEST_STORE_BYTES)
    fitting = int((shared_memory_bytes or 0) * STORE_SHARE_OF_SHARED_MEMORY)
    return min(size, fitting) if fitting >= SMALLEST_STORE_BYTES else size


def accelerator_environment() -> dict[str, str]:
    """Variables for Ray's processes on this machine: without a GPU, DeepSpeed must be told before it is imported."""
    return {} if any(device.exists() for device in GPU_DEVICES) else {"DS_ACCELERATOR": "cpu"}


def _start_here(*, num_cpus: int | None, worker_output: bool) -> None:
    import ray

    # Through the environment, which Ray's processes inherit: a runtime_env keeps Ray from using the workers that it
    # starts ahead of time, and cost 1.2 s at the first task (1.7 s against 0.5 s on two cores).
    for name, value in {**accelerator_environment(), "RAY_USAGE_STATS_ENABLED": "0"}.items():
        os.environ.setdefault(name, value)
    try:
        with _token_without_a_home():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                object_store_memory=object_store_bytes(),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=worker_output,
            )
    # A node that is slow to start is an Exception and nothing narrower.
    except Exception as error:
        raise PlaceError(
            f"Ray does not start on this machine ({_first_line(error)})",
            remedy="free some memory and disk, or join a cluster by its address",
        ) from error


@cache
def _token() -> str:
    # One for the life of the process: Ray keeps the first that it reads.
    return entropy.token_hex(32)


@contextmanager
def _token_without_a_home() -> Iterator[None]:
    """Where Ray could not keep its token, for want of a home folder that can be written, hand it one to start with.

    Its processes inherit the variable; it is taken back because it would outrank the token of any other cluster.
    """
    home = Path(os.environ.get("HOME") or os.devnull)
    kept = home / ".ray" if (home / ".ray").exists() else home
    mine = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}.isdisjoint(os.environ)
    if not mine or (kept.is_dir() and os.access(kept, os.W_OK)):
        yield
        return
    os.environ["RAY_AUTH_TOKEN"] = _token()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN"]


def _join(address: str, *, worker_output: bool) -> None:
    import ray

    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=worker_output)
    except (OSError, ValueError, RuntimeError) as error:
        # Ray wraps the refusal of a token twice and keeps its name in the text alone.
        refused = any("AuthenticationError" in f"{type(cause).__name__}: {cause}" for cause in _causes(error))
        raise PlaceError(
            f"cannot join the Ray cluster at {address} ({'it refuses the token' if refused else _first_line(error)})",
            remedy="set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's own"
            if refused
            else "check the address and that both sides have the same Ray and Python",
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _greet(host: str, port: int, *, address: str) -> None:
    """Knock at ``address``: where nothing listens, Ray itself tries for two minutes and then ends the process."""
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise PlaceError(
            f"no Ray cluster answers at {address} within {CONNECT_TIMEOUT_S:g} s ({_first_line(error)})",
            remedy="start it, or give no address to run on this machine",
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address if "://" in address else f"//{address}")
    default = DEFAULT_CLIENT_PORT if parts.scheme == "ray" else None
    try:
        port = parts.port or default
    except ValueError:
        port = None
    if parts.scheme not in ("", "ray") or not parts.hostname or port is None:
        raise RecipeError(
            f"Ray address {address!r} cannot be read",
            remedy=f"write host:{DEFAULT_RAY_PORT}, ray://host:{DEFAULT_CLIENT_PORT}, auto or local",
        )
    return parts.hostname, port


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__
