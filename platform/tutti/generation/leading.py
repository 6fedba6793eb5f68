"""What a mood asks of harder controls that its request leaves open.

A control token leads a model as far as it has learnt what works of that kind have in common, which after a short
training is little. What is best known of moods, though, can be held by construction: major or minor says most about
valence, speed most about arousal (Gabrielsson and Lindström 2010; Eerola, Friberg and Bresin 2013, as
:mod:`tutti.features.mood` cites them). So a mood whose request names neither key, scale nor chords draws a key of its
mode, and one that names no tempo draws a tempo of its speed, by the request's seed: many takes of one request differ in
both. Whoever names these controls, starts from a file, or asks for guidance 0, gets nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutti import seeding
from tutti.generation.request import Request

KEYS: Mapping[str, tuple[str, ...]] = {
    "major": ("C major", "G major", "D major", "A major", "F major", "Bb major", "Eb major"),
    "minor": ("A minor", "E minor", "B minor", "D minor", "G minor", "C minor", "F minor"),
}
"""Keys of at most three, in minor four, accidentals."""
MODES: Mapping[str, str] = {"happy": "major", "calm": "major", "sad": "minor", "tense": "minor"}
TEMPOS_QPM: Mapping[str, tuple[float, ...]] = {
    "happy": (120.0, 132.0, 144.0), "tense": (126.0, 138.0, 152.0), "sad": (54.0, 60.0, 66.0),
    "calm": (60.0, 66.0, 72.0),
}  # fmt: skip
"""Quarter notes a minute of a mood; a neutral one has none of its own."""


def led(request: Request) -> Request:
    """The request with what its mood asks of controls that it leaves open."""
    if request.guidance == 0:
        return request
    added: dict[str, Any] = {}
    if request.mood is not None and request.mood in MODES:
        if request.key is None:
            added["key"] = _drawn(request, "key", KEYS[MODES[request.mood]])
        if request.tempo is None:
            added["tempo"] = _drawn(request, "tempo", TEMPOS_QPM[request.mood])
    return request.model_copy(update=added) if added else request


def _drawn(request: Request, control: str, values: tuple[Any, ...]) -> Any:
    return values[seeding.derive(request.seed, "leading", control) % len(values)]
