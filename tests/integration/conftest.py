"""A real MLflow: the SQLite file, and a server that keeps the files itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mlflow_server import serving
from tests.ports import free_port
from tutti.registry.backend import Backend
from tutti.registry.versions import Registry
from tutti.storage import Folder

HERE = Path(__file__).parent
# Files that take longest, the longest first: the process that is done sooner is then soon followed by the other. The
# rest comes after them by name.
LONGEST = (
    "test_training_on_ray", "test_registry", "test_demo", "test_training_on_ranks", "test_river", "test_ingest_faults",
    "test_catalogue", "test_serve", "test_submit",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests of this folder for processes that each take one file after the other."""
    order = {name: number for number, name in enumerate(LONGEST)}
    ours = [item for item in items if item.path.parent == HERE]
    others = [item for item in items if item.path.parent != HERE]
    items[:] = others + sorted(ours, key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh SQLite file of MLflow, to be copied: making one takes seconds."""
    backend = Backend(f"sqlite:///{tmp_path_factory.mktemp('tables')}/mlflow.db")
    backend.prepare()
    return backend.database


@pytest.fixture(scope="session")
def server(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """URL of a tracking server, and the folder that holds ``mlflow.db`` and the files that clients send, ``sent``."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(tables, home / "mlflow.db")
    with serving(home, port=free_port()) as address:
        yield address, home


@pytest.fixture
def embedded(tables: Path, tmp_path: Path) -> Registry:
    """The registry of an empty results root."""
    registry = Registry.embedded(Folder(str(tmp_path / "results")))
    registry.backend.database.parent.mkdir(parents=True)
    shutil.copy(tables, registry.backend.database)
    return registry


@pytest.fixture(params=["embedded", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Registry, Path]:
    """A registry, and the folder where its files lie."""
    if request.param == "server":
        url, home = request.getfixturevalue("server")
        return Registry.embedded(Folder(str(tmp_path / "results")), tracking_uri=url), home / "sent"
    registry: Registry = request.getfixturevalue("embedded")
    return registry, registry.backend.database.parent / "artifacts"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A model name that no other test on the same server uses."""
    return "".join(sign if sign.isalnum() else "-" for sign in request.node.name)
