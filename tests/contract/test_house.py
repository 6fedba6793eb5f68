"""The house stands as the map draws it: folders, names, sizes."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

CODE = ("platform/tutti", "jobs", "serve", "cluster", "benchmarks")
MOST_LINES_OF_A_FILE = 500
MOST_LINES_OF_A_FUNCTION = 70
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc"}


def sources(repository: Path, *folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (repository / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", [*CODE, "tests", "k8s", "platform/decisions"])
def test_the_folders_of_the_map_are_there(repository: Path, folder: str) -> None:
    assert any((repository / folder).iterdir())


def test_the_platform_folder_is_no_package(repository: Path) -> None:
    assert not (repository / "platform" / "__init__.py").exists(), "it would hide Python's own module `platform`"


def test_no_module_at_the_top_of_a_package_hides_one_of_pythons(repository: Path) -> None:
    # `python jobs/x.py` puts jobs/ first on the path, where a jobs/tokenize.py would break `inspect`.
    ours = {path.stem for folder in ("jobs", "serve", "cluster") for path in (repository / folder).glob("*.py")}
    assert ours & sys.stdlib_module_names <= {"__init__"}


def test_names_say_something(repository: Path) -> None:
    named = {path.stem for path in sources(repository, *CODE, "tests")}
    folders = {path.parent.name for path in sources(repository, *CODE, "tests")}
    assert not (named | folders) & NAMES_THAT_SAY_NOTHING


@pytest.mark.parametrize("folder", CODE)
def test_files_and_functions_stay_small(repository: Path, folder: str) -> None:
    large = []
    for path in sources(repository, folder):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > MOST_LINES_OF_A_FILE:
            large.append(f"{path.relative_to(repository)}: {text.count(chr(10))} lines")
        large.extend(
            f"{path.relative_to(repository)}:{node.lineno} {node.name}: {_lines(node)} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > MOST_LINES_OF_A_FUNCTION
        )
    assert not large


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
