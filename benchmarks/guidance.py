"""What is asked and what comes, by how strongly conditions lead: ``python -m benchmarks.guidance``.

The demo's model, trained into ``results`` where it is not there yet, is asked for short pieces under every class of
density and mood that at least a twentieth of the training works state, at guidance 0, 1, 2 and 3, ``--takes`` times
each with the same seeds. What comes is measured as works are: notes a quarter, valence and arousal, and the class of
each.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.harness import Bench, run
from jobs import recipe as recipes
from jobs import train
from tutti import telemetry
from tutti.config import build
from tutti.corpus.score_batch import ScoreBatch
from tutti.features.controls import density_class
from tutti.features.descriptors import describe
from tutti.features.mood import mood_word
from tutti.features.vocabulary import ANY
from tutti.generation.engine import Engine, Piece
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.registry.versions import Registry
from tutti.storage import Folder

ROOT = Folder("results")
STRENGTHS = (0.0, 1.0, 2.0, 3.0)
BARS = 4
ROWS = 160
FEWEST_SHARE = 1 / 20
SEED = 20261127


def measure(bench: Bench) -> None:
    """Ask, measure, tell."""
    takes = int(bench.settings["takes"])
    engine, tokens = demo()
    ask(bench, engine, _stated(tokens), takes=takes)


def demo() -> tuple[Engine, Dataset]:
    """The demo's model, trained where it is not there yet, and the sequences that it learnt from."""
    telemetry.quiet_libraries()
    registry = Registry.embedded(ROOT)
    trained = train.run(recipes.read("demo"), root=ROOT, registry=registry, reporter=telemetry.reporter())
    assert trained.tokens is not None
    with tempfile.TemporaryDirectory() as folder:
        for path in trained.run.paths():
            if path.startswith("bundle/"):
                (Path(folder) / Path(path).name).write_bytes(trained.run.read(path))
        return Engine.load(Path(folder), max_batch=ROWS), trained.tokens


def measured(pieces: Sequence[Piece]) -> dict[str, NDArray[np.float64]]:
    """What works are described by, of pieces; each of shape (number of pieces,)."""
    described = describe(ScoreBatch.of([piece.score for piece in pieces]))
    return {name: described[name].to_numpy() for name in ("notes_per_quarter", "valence", "arousal")}


def ask(bench: Bench, engine: Engine, stated: Mapping[str, Counter[str]], *, takes: int) -> None:
    """Pieces of every class at every strength, and what came of each.

    Args:
        stated: how many works of the training state each class, by kind of control.
    """
    asked: list[tuple[str, str]] = []
    for kind, counts in stated.items():
        total = sum(counts.values())
        shares = {name: count / total for name, count in sorted(counts.items())}
        bench.count(f"{kind}: works of the training", shares, unit="share")
        asked += [(kind, name) for name, share in shares.items() if share >= FEWEST_SHARE and name != ANY]
    for strength in STRENGTHS:
        requests = [
            build(Request, {kind: name, "bars": BARS, "seed": SEED + take, "guidance": strength}, origin="guidance")
            for kind, name in asked
            for take in range(takes)
        ]
        figures = measured(engine.generate(requests))
        for kind in stated:
            _tell(bench, kind, [name for other, name in asked if other == kind], asked, figures, strength=strength)
    bench.note(f"{takes} takes of {BARS} bars for each class and strength, the same seeds for all; top_p 0.95")


def _tell(
    bench: Bench,
    kind: str,
    classes: Sequence[str],
    asked: Sequence[tuple[str, str]],
    figures: Mapping[str, NDArray[np.float64]],
    *,
    strength: float,
) -> None:
    """Of one kind and strength: how often the asked class came, and the means of what makes it."""
    takes = len(figures["valence"]) // len(asked)
    hits: dict[str, float] = {}
    means: dict[str, float] = {}
    for name in classes:
        at = slice(takes * asked.index((kind, name)), takes * (asked.index((kind, name)) + 1))
        notes, valence, arousal = (
            figures[figure][at].tolist() for figure in ("notes_per_quarter", "valence", "arousal")
        )
        if kind == "density":
            came = [density_class(each) for each in notes]
            means[name] = float(np.mean(notes))
        else:
            came = [mood_word(*each) for each in zip(valence, arousal, strict=True)]
            means |= {f"{name}, valence": float(np.mean(valence)), f"{name}, arousal": float(np.mean(arousal))}
        hits[name] = came.count(name) / takes
    bench.count(f"{kind} at guidance {strength:g}: the asked class came", hits, unit="share of takes")
    unit = "notes a quarter" if kind == "density" else "of -1 to 1"
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
