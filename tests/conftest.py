"""What tests share: one Ray, one S3 server, and the settings that no test may take from the machine it runs on."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from cluster import processes, services
from cluster.embedded import start_embedded_ray
from jobs.cli import ENVIRONMENT
from tests import ports
from tutti.storage import Folder

REPOSITORY = Path(__file__).resolve().parents[1]
FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI")
RAY_CORES = 2
RAY_ENDS_WITHIN_S = 20.0
S3_STARTS_WITHIN_S = 30.0
BUCKET = "tests"
PORTS = services.Ports(s3=ports.free_port())

# Timings of a shared machine are no property of the code. The same cases every time, so that who changed nothing sees
# nothing fail; new ones are looked for with `pytest --hypothesis-profile explore`.
settings.register_profile("tutti", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("tutti")


def pytest_configure() -> None:
    """Set what libraries and Ray's workers read from the environment, and forget the user's own servers and keys.

    A process that shares the machine with others computes on one thread: threads that wait for one another cannot.
    """
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
    storage = services.client_environment(
        PORTS, ray_token_file=Path(os.devnull), s3_key_id="tutti-tests", s3_key=uuid.uuid4().hex
    )
    os.environ.update({name: value for name, value in storage.items() if name.startswith("AWS_")})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write what tests/golden holds anew, to be committed")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Hold a text against the file of that name below tests/golden."""

    def check(name: str, text: str) -> None:
        path = REPOSITORY / "tests" / "golden" / name
        if request.config.getoption("--write-golden"):
            path.write_text(text, encoding="utf-8")
        kept = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text == kept, (
            f"{name} is what others rely on, and it changed. If that is meant, say so in CHANGELOG.md and run "
            f"`pytest {request.node.nodeid.partition('[')[0]} --write-golden`."
        )

    return check


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray with two cores for the whole session; none of its processes may be left at the end."""
    import ray

    me = psutil.Process()
    before = set(me.children())
    start_embedded_ray(address="local", num_cpus=RAY_CORES)
    servers = set(me.children()) - before
    try:
        yield
    finally:
        # Tests start children of their own; Ray's are its servers and what those started.
        rays_own = {server for server in servers if server.is_running()}
        rays_own |= {process for server in rays_own for process in server.children(recursive=True)}
        ray.shutdown()
        _, left = psutil.wait_procs(list(rays_own), timeout=RAY_ENDS_WITHIN_S)
        for process in left:
            process.kill()
        assert not left, f"Ray left {left} running"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real, signed S3 server on this machine with one bucket."""
    home = tmp_path_factory.mktemp("s3")
    (home / "s3" / BUCKET).mkdir(parents=True)
    server = services.s3_server(home, port=PORTS.s3, environment=os.environ)
    log = home / "rclone.log"
    process = processes.start(server.command, log=log, environment={**os.environ, **server.environment})
    try:
        assert processes.wait_for_answer(server.ready_url, process=process, timeout_s=S3_STARTS_WITHIN_S), (
            log.read_text()
        )
        yield server.ready_url.rstrip("/")
    finally:
        processes.stop(process, grace_s=server.grace_s)


@pytest.fixture
def s3_folder(s3_server: str) -> Folder:
    """An empty folder on the S3 server; the credentials are in the environment."""
    return Folder(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    return ports.free_port()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Corpora and schemas that lie beside a checkout in some places and are no part of it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared is not beside this checkout")
    return folder
