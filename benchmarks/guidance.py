"""What is asked and what comes, by how strongly conditions lead: ``python -m benchmarks.guidance``.

The demo's model, trained into ``results`` where it is not there yet, is asked for pieces of 8 bars under every class of
density and mood that at least a fiftieth of the training works state, at guidance 0, 1, 2 and 3, ``--takes`` times each
with the same seeds. What comes is measured as works are: notes a quarter, valence and arousal, and the class of each.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import Bench, run
from jobs import recipe as recipes
from jobs import train
from tutti import telemetry
from tutti.corpus.score_batch import ScoreBatch
from tutti.features.controls import density_class
from tutti.features.descriptors import describe
from tutti.features.mood import mood_word
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.registry.versions import Registry
from tutti.storage import Folder

ROOT = Folder("results")
STRENGTHS = (0.0, 1.0, 2.0, 3.0)
BARS = 8
FEWEST_SHARE = 1 / 50
SEED = 20261127


def measure(bench: Bench) -> None:
    """Ask, measure, tell."""
    takes = int(bench.settings["takes"])
    telemetry.quiet_libraries()
    registry = Registry.embedded(ROOT)
    trained = train.run(recipes.read("demo"), root=ROOT, registry=registry, reporter=telemetry.reporter())
    assert trained.tokens is not None
    stated = _stated(trained.tokens)
    with tempfile.TemporaryDirectory() as folder:
        for path in trained.run.paths():
            if path.startswith("bundle/"):
                (Path(folder) / Path(path).name).write_bytes(trained.run.read(path))
        engine = Engine.load(Path(folder))
    for kind in ("density", "mood"):
        total = sum(stated[kind].values())
        bench.count(
            f"{kind}: works of the training", {name: n / total for name, n in stated[kind].items()}, unit="share"
        )
        asked = [name for name, count in sorted(stated[kind].items()) if count >= FEWEST_SHARE * total]
        _ask(bench, engine, kind, asked, takes=takes)
    bench.note(f"{takes} takes of {BARS} bars for each class and strength, the same seeds for all; top_p 0.95")


def _ask(bench: Bench, engine: Engine, kind: str, classes: Sequence[str], *, takes: int) -> None:
    """Pieces of every class at every strength, and what came of each."""
    for strength in STRENGTHS:
        hits, figures = {}, {}
        for name in classes:
            requests = [
                Request(bars=BARS, seed=SEED + number, guidance=strength, density=name if kind == "density" else None,
                        mood=name if kind == "mood" else None)
                for number in range(takes)
            ]  # fmt: skip
            pieces = engine.generate(requests)
            described = describe(ScoreBatch.of([piece.score for piece in pieces]))
            notes, valence, arousal = (
                described[column].to_numpy() for column in ("notes_per_quarter", "valence", "arousal")
            )
            if kind == "density":
                came = [density_class(each) for each in notes]
                figures[name] = notes
            else:
                came = [mood_word(float(v), float(a)) for v, a in zip(valence, arousal, strict=True)]
                figures[f"{name}, valence"], figures[f"{name}, arousal"] = valence, arousal
            hits[name] = float(np.mean([each == name for each in came]))
        bench.count(f"{kind} at guidance {strength:g}: the asked class came", hits, unit="share of takes")
        unit = "notes a quarter" if kind == "density" else "of -1 to 1"
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        bench.count(f"{kind} at guidance {strength:g}: mean", means, unit=unit)
        bench.name(f"{kind}_hits_at_{strength:g}", float(np.mean(list(hits.values()))))


def _stated(tokens: Dataset) -> dict[str, Counter[str]]:
    """How many works of the training state each class, by kind of control."""
    counted: dict[str, Counter[str]] = {"density": Counter(), "mood": Counter()}
    for path in tokens.paths(".parquet"):
        table = pq.read_table(pa.BufferReader(tokens.read(path)), columns=["controls", "split"])
        for controls in table.filter(pc.field("split") == "train")["controls"].to_pylist():
            for name in json.loads(controls):
                kind, _, value = name.partition("_")
                if kind.lower() in counted:
                    counted[kind.lower()][value] += 1
    return counted


if __name__ == "__main__":
    run("guidance", measure, settings={"takes": (40, "pieces of each class and strength")})
