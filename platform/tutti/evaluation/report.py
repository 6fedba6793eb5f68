"""An evaluation as files for programs: JSON with everything, CSV with the table; and as figures for a tracker.

No time and no path of the machine is in them: the same evaluation gives the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tutti.evaluation.comparison import HELD_OUT, SETS, TAKES, Row
from tutti.evaluation.evaluation import Evaluation
from tutti.evaluation.judgement import BIT_FIGURE, NAT_FIGURE
from tutti.evaluation.measures import FRAMES_PER_S, REPEATS_FROM
from tutti.lineage import Dataset

DOCUMENT, TABLE, PAGE = "evaluation.json", "evaluation.csv", "evaluation.html"
"""Names of an evaluation's files."""
FORMAT = 1
FORETELLING, FEATURES = "Foretelling", "Features"
CSV_HEAD = ("section", "measure", "unit", "of", "value", "spread", "pieces", "why")
_UNITS = {NAT_FIGURE: "nats per token", BIT_FIGURE: "bits per note"}


def plain(evaluation: Evaluation, *, model: str, digest: str) -> dict[str, Any]:
    """Everything as plain values; what is no number is None.

    Args:
        model: the version, such as ``bach/3``.
        digest: of its bundle.
    """
    bundle, asked, material = evaluation.bundle, evaluation.asked, evaluation.material
    train = material.train
    document = {
        "format": FORMAT,
        "model": {
            "version": model, "digest": digest, "family": bundle.family, "flavour": bundle.flavour,
            "parameters": bundle.facts.get("parameters"),
        },
        "asked": {
            "split": asked.split, "seed": asked.seed, "takes": material.num_takes,
            "temperature": asked.temperature, "top_p": asked.top_p,
        },
        "data": {
            "works": _address(material.works),
            "tokens": None if material.tokens is None else _address(material.tokens),
            "held_out": {
                "works": material.held_out_of, "compared": len(material.held_out),
                "left_out": material.held_out.left_out, "unwritten": material.unwritten,
            },
            "train": {
                "works": None if train is None else len(train),
                "compared": len(evaluation.named.get("train", ())),
                "left_out": None if train is None else train.left_out,
            },
        },
        "settings": {"repeats_from": REPEATS_FROM, "structureness_frames_per_s": FRAMES_PER_S},
        "foretelling": {
            "model": dict(evaluation.judged.model), "counts": dict(evaluation.judged.counts),
            "why": evaluation.judged.why,
        },
        "table": [_row(row) for row in evaluation.rows],
        "features": [asdict(feature) for feature in evaluation.features],
        "takes": list(_takes(evaluation)),
        "held_out": list(_held_out(evaluation)),
        "refused_tokens": evaluation.refused_tokens,
    }  # fmt: skip
    known: dict[str, Any] = _known(document)
    return known


def to_json(document: Mapping[str, Any]) -> bytes:
    """The document of :func:`plain`, UTF-8."""
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_csv(document: Mapping[str, Any]) -> bytes:
    """Its table, one figure a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    writer.writerows(_csv_rows(document))
    return text.getvalue().encode()


def figures(document: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker keeps: figures by name, of the takes and of the works held out."""
    found = dict(document["foretelling"]["model"])
    for row in document["table"]:
        for of in (TAKES, HELD_OUT):
            found[f"{row['name']}.{of}"] = row["cells"][of]["value"]
    for feature in document["features"]:
        name = feature["name"].replace(" ", "_")
        found |= {f"{name}.{figure}": feature["takes"][figure] for figure in ("overlap", "divergence")}
    return {name: value for name, value in found.items() if value is not None}


def written(value: float, *, unit: str, spread: float | None = None) -> str:
    """A figure as people read it: as many decimals as its spread has two digits, or three digits where it has none.

    Shares are written in per cent.
    """
    if unit == "share":
        return f"{100 * value:.1f} %"
    size = abs(value) / 10 if spread is None else spread
    decimals = min(max(1 - math.floor(math.log10(size)), 0), 4) if size else 2
    return f"{value:,.{decimals}f}" if value or spread else "0"


def _csv_rows(document: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    told = document["foretelling"]
    of_models = {"model": told["model"], **told["counts"]}
    for of, measures in of_models.items():
        for name, value in measures.items():
            unit = next((unit for figure, unit in _UNITS.items() if name.endswith(figure)), "")
            yield FORETELLING, name, unit, of, value, "", "", ""
    for row in document["table"]:
        for of in SETS:
            cell = row["cells"][of]
            yield (row["section"], row["name"], row["unit"], of, *(
                "" if cell[name] is None else cell[name] for name in ("value", "spread", "pieces", "why")
            ))  # fmt: skip
    for feature in document["features"]:
        for of in (TAKES, "train"):
            for name, value in (feature[of] or {}).items():
                shown = "" if value is None else value
                yield FEATURES, f"{feature['name']}: {name}", "", of, shown, "", "", ""


def _row(row: Row) -> dict[str, Any]:
    return {
        "section": row.section, "name": row.name, "title": row.title, "unit": row.unit,
        "cells": {name: asdict(row.cells[name]) for name in SETS}, "apart": row.apart,
    }  # fmt: skip


def _takes(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    batch, borrowed = evaluation.scores[TAKES], evaluation.borrowings.get(TAKES)
    found = list(borrowed.plain()) if borrowed else [None] * len(batch)
    for number, request in enumerate(evaluation.requests):
        yield {
            "number": number, "bars": request.bars, "seed": request.seed,
            "notes": int(batch.note_starts[number + 1] - batch.note_starts[number]),
            "length_s": float(batch.length_s[number]), "originality": found[number],
        }  # fmt: skip


def _held_out(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    borrowed = evaluation.borrowings.get(HELD_OUT)
    named = evaluation.named[HELD_OUT]
    found = list(borrowed.plain()) if borrowed else [None] * len(named)
    for work, originality in zip(named, found, strict=True):
        yield {**asdict(work), "originality": originality}


def _address(dataset: Dataset) -> str:
    return f"{dataset.kind}/{dataset.name}/{dataset.address}"


def _known(value: Any) -> Any:
    """Plain values, with None for what is no number."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
