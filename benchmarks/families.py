"""Every family from its recipe to a measured piece: trained, registered, promoted, generated from, rendered, evaluated.

Each step is the command that a user gives, in a process of its own. `python -m benchmarks.families chorale --root here`
takes some of the families and leaves everything there: takes as MIDI, sound and picture, and the evaluation's page.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Bench, run
from jobs import recipe as recipes
from jobs.recipe import Recipe
from tutti.features.loudness import integrated_lufs
from tutti.models.families import family_of
from tutti.render.export import decode_audio

RECIPES = ("demo", "recurrent", "chorale", "bar-vae", "roll-gan", "timbre")
TAKE = ("--length", "20s", "--seed", "1")
INSTRUMENT = "program-073"
SILENT = 10 ** (-60 / 20)


@dataclass(frozen=True)
class Command:
    """The ``tutti`` of this environment, with a results root."""

    root: Path

    def __call__(self, *arguments: str) -> tuple[str, float]:
        """What it printed, and the seconds that it took.

        Raises:
            SystemExit: it failed; with all that it said.
        """
        command = [str(Path(sys.executable).parent / "tutti"), *arguments, "--root", str(self.root)]
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        started_s = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout, time.perf_counter() - started_s


def measure(bench: Bench) -> None:
    """Take each family all the way."""
    with _root(bench.arguments.root) as root:
        tutti, composer = Command(root), None
        for name in bench.arguments.recipes or RECIPES:
            recipe = recipes.read(name)
            if family_of(recipe.model.family).reads == "spectra":
                _family(bench, name, recipe, tutti, played_by=composer)
            else:
                composer = _family(bench, name, recipe, tutti)


def _family(bench: Bench, recipe_name: str, recipe: Recipe, tutti: Command, *, played_by: str | None = None) -> str:
    """Take one family all the way; the version.

    Args:
        played_by: the version whose piece an instrument plays; a model of pieces plays its own.
    """
    subject, key = f"{recipe.model.family} · {recipe_name}", recipe.model.family
    found_before = _newest(recipe.name, tutti)
    _, train_s = tutti("train", recipe_name)
    version = _newest(recipe.name, tutti)
    assert version is not None
    if found_before is None:
        bench.record(subject, "train and register", train_s, unit="s")
        bench.name(f"{key}_train_s", train_s)
    else:
        bench.note(f"{subject}: found trained")
    named = f"{version['name']}/{version['version']}"
    tutti("models", "promote", named)
    figures = version["figures"]
    bench.record(subject, "parameters", figures["parameters"], unit="")
    for name in sorted(figures):
        if name.startswith("valid_"):
            bench.record(subject, name.removeprefix("valid_").replace("_", " "), figures[name], unit="valid")
            bench.name(f"{key}_{name}", figures[name])
    folder = tutti.root / "families" / recipe_name
    folder.mkdir(parents=True, exist_ok=True)
    if family_of(key).reads != "spectra":
        _take(bench, subject, key, "--model", named, folder=folder, tutti=tutti)
    elif played_by is not None:
        timbre = f"{named}:{INSTRUMENT}"
        _take(bench, subject, key, "--model", played_by, "--timbre", timbre, folder=folder, tutti=tutti)
    else:
        bench.note(f"{subject}: no take, as no family that composes came before it")
    takes = int(bench.settings["takes"])
    evaluated, evaluate_s = tutti("evaluate", named, "--takes", str(takes), "--samples", "2", "--out", str(folder))
    (folder / "evaluation.txt").write_text(evaluated, encoding="utf-8")
    bench.record(subject, f"evaluate, {takes} takes", evaluate_s, unit="s")
    return named


def _take(bench: Bench, subject: str, key: str, *asked: str, folder: Path, tutti: Command) -> None:
    outs = [part for suffix in ("mid", "flac", "png") for part in ("--out", str(folder / f"take.{suffix}"))]
    _, generate_s = tutti("generate", *asked, *TAKE, *outs)
    bench.record(subject, "generate, render, draw", generate_s, unit="s")
    audio_SC, sample_rate_hz = decode_audio((folder / "take.flac").read_bytes())
    loudness = integrated_lufs(audio_SC, sample_rate_hz=sample_rate_hz)
    peak = float(np.abs(audio_SC).max())
    bench.record(subject, "the take's length", len(audio_SC) / sample_rate_hz, unit="s")
    bench.record(subject, "its loudness", loudness, unit="LUFS")
    bench.record(subject, "its peak", 20 * math.log10(max(peak, SILENT)), unit="dBFS")
    bench.name(f"{key}_take_lufs", loudness)


def _newest(name: str, tutti: Command) -> dict[str, Any] | None:
    # Of all models, as asking for one by a name that is not there yet is refused.
    listed, _ = tutti("models", "list", "--json")
    return next((version for version in json.loads(listed) if version["name"] == name), None)


@contextmanager
def _root(told: str | None) -> Iterator[Path]:
    if told is not None:
        yield Path(told).absolute()
        return
    with tempfile.TemporaryDirectory(prefix="tutti-families-") as folder:
        yield Path(folder)


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"some of {', '.join(RECIPES)}; all by default")
    parser.add_argument(
        "--root", metavar="FOLDER", help="results, kept; a training that is found there is not repeated"
    )


if __name__ == "__main__":
    run("families", measure, settings={"takes": (16, "pieces that the evaluation makes")}, extend=_extend)
