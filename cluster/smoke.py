"""A smoke check of a cluster: ``python -m cluster.smoke --address ray://head:10001 --storage s3://bucket/prefix``.

One line a check, on stdout; exit code 0 when all passed, 1 when one failed, 2 when the cluster cannot be asked. What
was not asked for is said to be skipped, never to have passed. Every check runs on the nodes themselves, because a
driver that reaches the storage says nothing about a worker that does not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import tutti
from cluster.embedded import start_embedded_ray
from tutti.errors import UserError
from tutti.storage import Folder

OBJECT_BYTES = 8 << 20
NODE_TIMEOUT_S = 120.0
HTTP_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found; ``passed`` is None where it was not asked for."""

    check: str
    passed: bool | None
    detail: str

    def __str__(self) -> str:
        verdict = {True: "ok", False: "FAILED", None: "skipped"}[self.passed]
        return f"{verdict:<8}{self.check:<10}{self.detail}"


def findings(*, storage: str | None, tracking_uri: str | None) -> Iterator[Finding]:
    """Check the cluster that this process has joined, cheapest check first.

    Args:
        storage: address below which objects are written, read back and deleted, on every node.
        tracking_uri: address of an MLflow server, asked from every node.
    """
    nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
    yield _checked("nodes", lambda: _versions(nodes))
    yield _checked("objects", lambda: _object_round_trip(nodes))
    if storage is None:
        yield Finding(check="storage", passed=None, detail="no --storage was given")
    else:
        yield _checked("storage", lambda: _storage_round_trip(nodes, storage))
    if tracking_uri is None:
        yield Finding(check="mlflow", passed=None, detail="no --tracking-uri was given")
    else:
        yield _checked("mlflow", lambda: _mlflow_answers(nodes, tracking_uri))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks that ``arguments`` ask for, print their lines, give the exit code."""
    options = _parser().parse_args(arguments)
    try:
        start_embedded_ray(address=options.address)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    failures = 0
    for finding in findings(storage=options.storage, tracking_uri=options.tracking_uri):
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
        failures += finding.passed is False
    sys.stdout.write(f"{failures} check{'' if failures == 1 else 's'} failed\n")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.smoke", description="Smoke check of a Ray cluster.")
    parser.add_argument("--address", help="ray://host:10001, host:6379, auto or local (default: RAY_ADDRESS, or local)")
    parser.add_argument("--storage", help="folder or s3:// address that every node should reach")
    parser.add_argument(
        "--tracking-uri",
        default=os.environ.get("MLFLOW_TRACKING_URI"),
        help="http:// address of an MLflow server (default: MLFLOW_TRACKING_URI)",
    )
    return parser


def _checked(check: str, action: Callable[[], str]) -> Finding:
    started_s = time.monotonic()
    try:
        detail = action()
    except ray.exceptions.RayTaskError as error:
        return Finding(check=check, passed=False, detail=_one_line(error.cause))
    except (UserError, CheckError, ray.exceptions.RayError) as error:
        return Finding(check=check, passed=False, detail=_one_line(error))
    return Finding(check=check, passed=True, detail=f"{detail}, {time.monotonic() - started_s:.1f} s")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class CheckError(Exception):
    """A node answered, and wrongly."""


def _versions(nodes: list[str]) -> str:
    here = _version()
    for node, there in zip(nodes, _on_each(nodes, _version), strict=True):
        if there != here:
            raise CheckError(f"node {node[:8]} has {there}, the caller {here}")
    cores = int(ray.cluster_resources().get("CPU", 0))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return f"{len(nodes)} node{'' if len(nodes) == 1 else 's'}, {cores} cores, {gpus} GPUs, {here}"


def _object_round_trip(nodes: list[str]) -> str:
    data = bytes(OBJECT_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    reference = ray.put(data)
    if any(found != digest for found in _on_each(nodes, _digest, reference)):
        raise CheckError("an object arrived changed")
    return f"{OBJECT_BYTES >> 20} MiB to each node"


def _storage_round_trip(nodes: list[str], storage: str) -> str:
    # Each node reads what its neighbour wrote: a folder that is local to each node would not pass.
    folder = Folder(storage) / f"smoke-{uuid.uuid4().hex}"
    try:
        _on_each(nodes, _write_mark, folder)
        for node, found in zip(nodes, _on_each(nodes, _read_marks, folder), strict=True):
            if found != nodes:
                raise CheckError(f"node {node[:8]} sees {len(found)} of {len(nodes)} objects below {storage}")
    finally:
        folder.delete()
    return f"{storage} written and read by each node"


def _mlflow_answers(nodes: list[str], tracking_uri: str) -> str:
    versions = set(_on_each(nodes, _mlflow_version, tracking_uri))
    return f"{tracking_uri} answers each node, version {', '.join(sorted(versions))}"


def _on_each(nodes: list[str], task: Callable[..., Any], *arguments: Any) -> list[Any]:
    remote = ray.remote(num_cpus=0, max_retries=0)(task)
    pending = [
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments)
        for node in nodes
    ]
    return list(ray.get(pending, timeout=NODE_TIMEOUT_S))


def _version() -> str:
    return f"tutti {tutti.__version__}, ray {ray.__version__}, python {platform.python_version()}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_mark(folder: Folder) -> None:
    folder.write(ray.get_runtime_context().get_node_id(), b"tutti")


def _read_marks(folder: Folder) -> list[str]:
    return [name for name in folder.paths() if folder.read(name)]


def _mlflow_version(tracking_uri: str) -> str:
    try:
        with urllib.request.urlopen(f"{tracking_uri.rstrip('/')}/version", timeout=HTTP_TIMEOUT_S) as answer:
            return str(answer.read(64).decode())
    except (OSError, ValueError) as error:
        raise CheckError(f"no MLflow server answers at {tracking_uri} ({error})") from error


if __name__ == "__main__":
    sys.exit(main())
