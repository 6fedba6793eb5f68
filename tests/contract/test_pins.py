"""constraints.txt pins everything that the commands install, in the versions that are installed."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

COMMANDS_INSTALL = ("", "dev")
# Exact requirements of torch's CUDA build, which differ with the machine.
TORCHS_OWN = ("cuda-", "nvidia-", "triton")
ENVIRONMENTS = {
    "here": {},
    "Python 3.12": {"python_version": "3.12", "python_full_version": "3.12.1"},
    "Python 3.13": {"python_version": "3.13", "python_full_version": "3.13.1"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}


def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "constraints.txt").read_text().splitlines()
    found = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!]+)", line)
        assert match, f"{line!r} is not NAME==VERSION"
        found[canonicalize_name(match[1])] = match[2]
    return found


def needed(*extras: str, environment: dict[str, str]) -> set[str]:
    """Distributions that an installation of Tutti with ``extras`` needs, through everything that it needs itself."""
    full = {**default_environment(), **environment}
    waiting, seen = [("tutti", extra) for extra in extras], set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen or name.startswith(TORCHS_OWN):
            continue
        seen.add((name, extra))
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform: it needs a pin, but its own needs cannot be read here
        for requirement in map(Requirement, texts):
            if requirement.marker is None or requirement.marker.evaluate({**full, "extra": extra}):
                waiting.extend((canonicalize_name(requirement.name), part) for part in ("", *requirement.extras))
    return {name for name, _ in seen} - {"tutti"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_needed_distribution_has_a_pin(repository: Path, environment: str) -> None:
    names = needed("", "dev", "bench", environment=ENVIRONMENTS[environment])
    assert len(names) > 100
    assert not names - pins(repository).keys(), "run `make pins`"


def test_the_pins_are_what_is_installed(repository: Path) -> None:
    pinned = pins(repository)
    installed = {name: importlib.metadata.version(name) for name in needed(*COMMANDS_INSTALL, environment={})}
    # A local version such as +cpu names a build, not a version.
    differing = {
        name: (version, pinned.get(name))
        for name, version in installed.items()
        if Version(version).public != pinned.get(name)
    }
    assert not differing, "installed and pinned versions differ; run `make pins`"


def test_torch_is_one_exact_version(repository: Path) -> None:
    assert pins(repository)["torch"] == "2.13.0"
