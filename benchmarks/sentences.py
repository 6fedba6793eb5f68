"""How well sentences are read: ``python -m benchmarks.sentences``.

``labelled/sentences.txt`` says what each of its sentences should become; half of each language, by the hash of the
sentence, is held out: its failures are never printed, so that nobody bends a rule to them. Each control has its
precision (of those that were set, how many rightly) and recall (of those that should be set, how many rightly), by
rules alone and with embeddings.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Bench, run
from tutti.features.vocabulary import INSTRUMENTS
from tutti.generation.sentences import scenes
from tutti.generation.sentences.reading import Hear, Reading, read
from tutti.generation.sentences.text import is_chinese

LABELLED = Path(__file__).parent / "labelled" / "sentences.txt"
FOUND = "found"
PARTS = (("learnt from", False, False), ("held out", True, False), ("found", True, True))
TEMPOS = {"slow": (0.0, 80.0), "moderate": (80.0, 120.0), "fast": (120.0, 999.0)}
DENSITIES = {"thin": ("very_sparse", "sparse"), "medium": ("medium",), "thick": ("dense", "very_dense")}
LENGTHS_S = {"short": (0.0, 30.0), "long": (120.0, 600.0)}


@dataclass(frozen=True, slots=True)
class Label:
    """One control of a sentence: its value as text, and whether it may also be left open."""

    value: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence, its labels by control, and what kind of request it is."""

    sentence: str
    labels: Mapping[str, Label]
    kind: str
    held_out: bool

    @property
    def chinese(self) -> bool:
        """Whether it is written in Chinese."""
        return any(map(is_chinese, self.sentence))


def labelled(path: Path = LABELLED) -> list[Labelled]:
    """All sentences; of each language those with the lower half of the hashes are held out, and all that were found."""
    kind, cases = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        sentence, bar, labels = line.partition(" | ")
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif bar and not line.startswith("#"):
            cases.append(Labelled(sentence, _labels(labels), kind, held_out=kind == FOUND))
    held_out: set[str] = set()
    for chinese in (False, True):
        ours = [case.sentence for case in cases if case.chinese == chinese and case.kind != FOUND]
        held_out |= set(sorted(ours, key=_hash)[: len(ours) // 2])
    return [replace(case, held_out=case.held_out or case.sentence in held_out) for case in cases]


def _hash(sentence: str) -> str:
    return hashlib.sha256(sentence.encode()).hexdigest()


def _labels(text: str) -> dict[str, Label]:
    found = {}
    for part in text.split(";"):
        control, _, value = part.strip().partition("=")
        found[control] = Label(value.removesuffix("?"), value.endswith("?"))
    return found


def right(control: str, value: Any, label: str) -> bool:
    """Whether a value is what the label means."""
    if control == "instruments":
        names = {name.removeprefix("!") for name in label.split(",")}
        return set(value) == (set(INSTRUMENTS) - names if label.startswith("!") else names)
    ranges = {"tempo": TEMPOS, "length": LENGTHS_S}.get(control, {})
    if label in ranges:
        low, high = ranges[label]
        return low <= float(value) <= high
    if control == "density":
        return str(value) in DENSITIES[label]
    return float(value) == float(label) if control in ("tempo", "length", "bars", "polyphony") else str(value) == label


def score(cases: Sequence[Labelled], readings: Sequence[Reading]) -> dict[str, Counter[str]]:
    """By control: ``right``, ``wrong`` (set otherwise, or where it should be left open) and ``missed``."""
    counted: dict[str, Counter[str]] = {}
    for case, reading in zip(cases, readings, strict=True):
        for control in {*case.labels, *reading.controls}:
            outcome = _outcome(case.labels.get(control), control, reading.controls.get(control))
            if outcome:
                counted.setdefault(control, Counter())[outcome] += 1
    return counted


def _outcome(label: Label | None, control: str, value: Any) -> str | None:
    if label is None:
        return "wrong"
    if value is None:
        return None if label.optional else "missed"
    if right(control, value, label.value):
        return "right"
    return "wrong" if label.optional else "wrong and missed"


def precision_and_recall(counted: Counter[str]) -> tuple[float, float]:
    """Shares; 1 where nothing was set, or nothing should be."""
    hits = counted["right"]
    put = hits + counted["wrong"] + counted["wrong and missed"]
    due = hits + counted["missed"] + counted["wrong and missed"]
    return hits / put if put else 1.0, hits / due if due else 1.0


def measure(bench: Bench) -> None:
    """Read everything both ways and count."""
    cases = labelled()
    hearing = scenes.load()
    ways: dict[str, Hear | None] = {"rules": None}
    if hearing is None:
        bench.note(f"embeddings were not measured: {scenes.REMEDY}")
    else:
        ways["embeddings"] = hearing.hear
    for way, hear in ways.items():
        for half, held_out, found in PARTS:
            chosen = [case for case in cases if case.held_out == held_out and (case.kind == FOUND) == found]
            started_s = time.perf_counter()
            readings = [read(case.sentence, hear=hear) for case in chosen]
            took_s = time.perf_counter() - started_s
            if bench.arguments.failures and half == "learnt from":
                _print_failures(chosen, readings, way)
            _tell(bench, way, half, chosen, readings)
            bench.record("milliseconds a sentence", f"{way}, {half}", 1000 * took_s / len(chosen), unit="ms")
    bench.note(f"{len(cases)} sentences, {sum(case.chinese for case in cases)} of them Chinese; half held out")


def _tell(bench: Bench, way: str, half: str, cases: Sequence[Labelled], readings: Sequence[Reading]) -> None:
    counted = score(cases, readings)
    for control, found in sorted(counted.items(), key=lambda item: -sum(item[1].values())):
        precision, recall = precision_and_recall(found)
        figures = {"precision": precision, "recall": recall, "labels": float(sum(found.values()))}
        for name, value in figures.items():
            bench.record(f"{half}: {control}", f"{way}, {name}", value, unit="labels" if name == "labels" else "share")
    for language, chosen in (("all", None), ("English", False), ("Chinese", True)):
        kept = [at for at, case in enumerate(cases) if chosen is None or case.chinese == chosen]
        parts = score([cases[at] for at in kept], [readings[at] for at in kept])
        precision, recall = precision_and_recall(sum(parts.values(), Counter()))
        bench.record(f"{half}: every control, {language}", f"{way}, precision", precision, unit="share")
        bench.record(f"{half}: every control, {language}", f"{way}, recall", recall, unit="share")
        if chosen is None and half != "learnt from":
            name = f"sentences_{way}_{half.replace(' ', '_')}"
            bench.name(f"{name}_precision", precision)
            bench.name(f"{name}_recall", recall)


def _print_failures(cases: Sequence[Labelled], readings: Sequence[Reading], way: str) -> None:
    for case, reading in zip(cases, readings, strict=True):
        for control in sorted({*case.labels, *reading.controls}):
            value, label = reading.controls.get(control), case.labels.get(control)
            outcome = _outcome(label, control, value)
            if outcome not in (None, "right"):
                print(f"{way}: {case.sentence}\n    {control}: {value}, should be {label.value if label else 'open'}")
        if reading.not_understood or reading.contradictions:
            print(f"{way}: {case.sentence}\n    ? {reading.not_understood} {dict(reading.contradictions)}")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--failures", action="store_true", help="print what went wrong in the half that may be learnt from"
    )


if __name__ == "__main__":
    run("sentences", measure, extend=_extend)
