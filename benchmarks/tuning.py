"""What listeners like, learnt from pairs of takes: ``python -m benchmarks.tuning``.

The demo's model is trained; a panel of three synthetic listeners of one known taste rates takes of it, each with noise
of its own; the ratings become pairs, and the recipe ``tune-demo`` tunes the model by them. Both models then get new
orders: other keys, lengths and seeds than any take that was rated. What is told is the mean taste of these takes before
and after, with a 95 % interval of the mean difference between takes of the same request, and the NLL of works held out.

Tastes: ``stepwise`` (share of steps of one or two semitones where the highest voice moves) and ``high`` (mean pitch of
the highest voice).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Bench, run
from jobs import recipe as recipes
from jobs import train
from tutti.catalogue import feedback
from tutti.catalogue.feedback import Heard
from tutti.catalogue.takes import take_id_of
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.generation import composers
from tutti.generation.engine import Piece
from tutti.generation.request import Request
from tutti.registry.versions import ModelVersion, Registry
from tutti.seeding import derive
from tutti.storage import Folder
from tutti.telemetry import Silent

LISTENERS, NOISE = 3, 0.1
RATED_KEYS, NEW_KEYS = ("C", "D", "F", "G"), ("A", "B", "E")
RATED_BARS, NEW_BARS = (6, 8), (7, 10)
_RESAMPLES = 10_000
_NOT_RATED = 0.0
Floats = NDArray[np.float64]


def highest_voice(score: Score) -> Floats:
    """Highest pitch that sounds when any note begins, drums left out; shape (onsets,)."""
    notes = score.notes
    tuned = notes.program != DRUM_PROGRAM
    onsets, pitches = notes.onset_ticks[tuned].astype(np.int64), notes.pitch[tuned].astype(np.float64)
    times = np.unique(onsets)[:, None]
    sounds = (onsets <= times) & (times < onsets + notes.duration_ticks[tuned])
    voice: Floats = np.where(sounds, pitches, -1.0).max(axis=1, initial=-1.0)
    return voice


def stepwise(score: Score) -> float:
    """Share of steps where the highest voice moves; 0 where it never does."""
    intervals = np.abs(np.diff(highest_voice(score)))
    moves = intervals[intervals > 0]
    return float(np.mean(moves <= 2)) if len(moves) else _NOT_RATED


def high(score: Score) -> float:
    """Mean pitch of the highest voice, octaves above middle C."""
    voice = highest_voice(score)
    return float((voice.mean() - 60) / 12) if len(voice) else _NOT_RATED


TASTES: dict[str, Callable[[Score], float]] = {"stepwise": stepwise, "high": high}


@dataclass(frozen=True)
class Outcome:
    """What a tuning came to.

    Args:
        before, after: taste of the new takes of both models, in the order of their requests.
        notes_a_bar: mean of both models' takes.
        measures: of the tuned version.
        seconds: of preparing and tuning.
    """

    before: Floats
    after: Floats
    notes_a_bar: tuple[float, float]
    measures: Mapping[str, float]
    seconds: float


def requests_of(keys: Sequence[str], bars: Sequence[int], *, takes: int, seed: str) -> list[Request]:
    """Requests in turns of keys, major and minor, and lengths, each with a seed of its own."""
    asked = [(f"{key} {mode}", length) for key in keys for mode in ("major", "minor") for length in bars]
    return [
        Request(key=key, bars=length, seed=derive(0, "tuning", seed, number))
        for number, (key, length) in enumerate(islice(cycle(asked), takes))
    ]


def rated(
    pieces: Sequence[Piece], taste: Callable[[Score], float], *, digest: str
) -> tuple[list[Heard], list[dict[str, Any]]]:
    """Takes, and what the panel did with them: ratings by rank of the taste, each listener with noise of its own."""
    takes = [Heard(take_id_of(piece.request, model_digest=digest), piece.request, piece.score) for piece in pieces]
    values = np.array([taste(piece.score) for piece in pieces])
    ranks = 2 * np.argsort(np.argsort(values, kind="stable")) / max(len(values) - 1, 1) - 1
    random = np.random.default_rng(7)
    events = [
        {
            "listener": f"listener-{listener}", "take_id": take.take_id, "event": "rated", "other_take_id": None,
            "value": float(np.clip(rank + NOISE * random.standard_normal(), -1, 1)), "unix_s": 0.0,
        }
        for listener in range(LISTENERS)
        for take, rank in zip(takes, ranks, strict=True)
    ]  # fmt: skip
    return takes, events


def interval(differences: Floats) -> tuple[float, float]:
    """95 % interval of the mean by resampling."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(differences), (_RESAMPLES, len(differences)))
    low, above = np.percentile(differences[drawn].mean(1), (2.5, 97.5))
    return float(low), float(above)


def compose(registry: Registry, version: ModelVersion, requests: Sequence[Request]) -> list[Piece]:
    """Takes of a version, without sound."""
    return composers.load(registry.fetch(version)).generate(requests)


def tuned(
    taste: str,
    *,
    parent: ModelVersion,
    root: Folder,
    registry: Registry,
    heard: Sequence[Piece],
    new: Sequence[Request],
    before: Sequence[Piece],
    overrides: tuple[str, ...] = (),
) -> Outcome:
    """Tune ``parent`` by what listeners of a taste said of ``heard``, and hold both models against ``new`` requests."""
    judge = TASTES[taste]
    takes, events = rated(heard, judge, digest=parent.digest)
    facts = composers.load(registry.fetch(parent))
    feedback.publish(
        feedback.preferences(events, takes), takes, root=root, name=taste, collections=facts.collections,
        inputs={"taste": taste, "takes": [take.take_id for take in takes]},
    )  # fmt: skip
    recipe = recipes.read("tune-demo", overrides=(f"tuning.model={parent}", f"tuning.pairs={taste}", *overrides))
    started_s = time.monotonic()
    trained = train.run(recipe, root=root, registry=registry, reporter=Silent())
    seconds = time.monotonic() - started_s
    after = compose(registry, trained.version, new)
    return Outcome(
        before=np.array([judge(piece.score) for piece in before]),
        after=np.array([judge(piece.score) for piece in after]),
        notes_a_bar=(_notes_a_bar(before), _notes_a_bar(after)),
        measures=trained.run.facts["measures"],
        seconds=seconds,
    )


def _notes_a_bar(pieces: Sequence[Piece]) -> float:
    return float(np.mean([len(piece.score.notes) / (piece.request.bars or 1) for piece in pieces]))


def record(bench: Bench, taste: str, outcome: Outcome) -> None:
    """The figures of one taste."""
    low, above = interval(outcome.after - outcome.before)
    gain = float(np.mean(outcome.after - outcome.before))
    measures = outcome.measures
    bench.count(
        f"taste {taste}", {"before": outcome.before.mean(), "after": outcome.after.mean()}, unit="mean of takes"
    )
    bench.count(
        f"{taste}: gain on new orders", {"mean": gain, "95 % from": low, "95 % to": above}, unit="same request, paired"
    )
    spread = float(outcome.before.std())
    bench.count(f"{taste}: gain", {"mean": gain / spread}, unit="deviations of takes before")
    for split in ("valid", "test"):
        after = measures[f"{split}_nll_nats_per_token"]
        before = after / (1 + measures[f"{split}_nll_rise_share"])
        bench.count(f"{taste}: NLL of works held out, {split}", {"before": before, "after": after}, unit="nats a token")
    pairs = {split: measures[f"{split}_preference_accuracy"] for split in ("valid", "test")}
    bench.count(f"{taste}: pairs held out, told right", pairs, unit="share")
    bench.count(f"{taste}: notes a bar", dict(zip(("before", "after"), outcome.notes_a_bar, strict=True)), unit="notes")
    bench.count(f"{taste}: rows, tuning, registering", {"once": outcome.seconds}, unit="s")
    bench.name(f"tuning_{taste}_gain", gain)
    bench.name(f"tuning_{taste}_gain_low", low)
    bench.name(f"tuning_{taste}_gain_deviations", gain / spread)
    bench.name(f"tuning_{taste}_valid_nll_rise_share", measures["valid_nll_rise_share"])
    bench.name(f"tuning_{taste}_test_nll_rise_share", measures["test_nll_rise_share"])


def measure(bench: Bench) -> None:
    """Train, listen, tune, listen again."""
    with tempfile.TemporaryDirectory(prefix="tutti-bench-tuning-") as place:
        measure_at(bench, Path(place))


def measure_at(bench: Bench, place: Path) -> None:
    """The same below a folder, where a model that is trained already is found."""
    root = Folder(str(place))
    registry = Registry.embedded(root)
    steps = int(bench.settings["steps"])
    demo = recipes.read("demo", overrides=(f"training.steps={steps}",))
    parent = train.run(demo, root=root, registry=registry, reporter=Silent()).version
    takes, listened = int(bench.settings["takes"]), int(bench.settings["new"])
    new = requests_of(NEW_KEYS, NEW_BARS, takes=listened, seed="new")
    heard = compose(registry, parent, requests_of(RATED_KEYS, RATED_BARS, takes=takes, seed="rated"))
    before = compose(registry, parent, new)
    for taste in TASTES:
        outcome = tuned(taste, parent=parent, root=root, registry=registry, heard=heard, new=new, before=before)
        record(bench, taste, outcome)
    bench.note(
        f"{takes} takes rated by {LISTENERS} listeners, noise {NOISE}; {listened} new requests; {steps} steps before"
    )
    bench.note(f"rated: {', '.join(RATED_KEYS)}, {RATED_BARS} bars; new: {', '.join(NEW_KEYS)}, {NEW_BARS} bars")


if __name__ == "__main__":
    run(
        "tuning by pairs of takes",
        measure,
        settings={
            "takes": (512, "takes that listeners rate"),
            "new": (192, "new requests"),
            "steps": (240, "steps of the model that is tuned"),
        },
    )
