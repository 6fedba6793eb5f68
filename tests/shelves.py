"""Small finished catalogues of given pieces, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tutti.catalogue import publish
from tutti.catalogue.blocks import write_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, review
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.corpus.score import Notes, Score
from tutti.lineage import Dataset
from tutti.storage import Folder

SILENCE = Score.of(Notes.none(), ticks_per_quarter=24)


def melody(*, program: int = 0, tempo: float = 90.0, seed: int | None = None) -> Score:
    """Eight bars of 4/4 in D minor, a quarter a note; each seed another one."""
    pitches = np.array((62, 65, 69, 70, 69, 65, 64, 62) * 4)
    if seed is not None:
        scale = np.array((62, 64, 65, 67, 69, 70, 72, 74))
        pitches = np.append(scale[np.random.default_rng(seed).integers(0, 8, 30)], (69, 62))
    notes = Notes.of(
        onset_ticks=24 * np.arange(32), duration_ticks=[24] * 32, pitch=pitches, program=np.full(32, program)
    )
    return Score.of(notes, ticks_per_quarter=24, tempos=[(0, tempo)])


def catalogue(root: Folder, name: str, scores: Sequence[Score], **controls: Any) -> Dataset:
    """A catalogue whose takes are these pieces, as MIDI; those without notes are rejected."""
    tree = {
        "name": name, "model": "m", "formats": ["midi"], "retries": 0, "takes_per_block": 256,
        "lines": [{"count": len(scores), "title": name + " {number}", "controls": {"bars": 8, **controls}}],
    }  # fmt: skip
    plan = Plan(build(Order, tree), model="m", model_version="1", model_digest=name)
    takes = [plan.take(slot, 0) for slot in plan.block(0).slots]
    drafts = [
        Draft(take, score, tuple(review(score, request=take.request, refused_tokens=0, checks=plan.order.checks)))
        for take, score in zip(takes, scores, strict=True)
    ]
    folder = publish.place_of(plan, root=root)
    write_block(folder, plan.block(0), drafts, plan=plan)
    return publish.publish(folder, plan=plan, model_facts={})
