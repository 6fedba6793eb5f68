"""What mood, density and difficulty ask of harder controls that a request leaves open.

A control token leads a model as far as it has learnt what works of that kind have in common, which after a short
training is little. What is best known of moods, though, can be held by construction: major or minor says most about
valence, speed most about arousal (Gabrielsson and Lindström 2010; Eerola, Friberg and Bresin 2013, as
:mod:`tutti.features.mood` cites them). So a mood whose request names neither key, scale nor chords draws a key of its
mode, and one that names no tempo a tempo of its speed, by the request's seed: many takes of one request differ in both.
A thin density bounds the notes that sound at once, the densest says where in a quarter notes begin. Difficulty has no
token: it is what :data:`DIFFICULTIES` says.

Whoever names these controls or starts from a file gets nothing of this; guidance 0 leaves out mood and density.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tutti import seeding
from tutti.generation import contradictions
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


POLYPHONY: Mapping[str, int] = {"very_sparse": 1, "sparse": 2, "medium": 3}
"""Most notes at once of a density; a denser one has no bound."""
PULSES_TICKS = (0, 12, 18)
"""Where in each quarter a note begins of a piece that is to be very dense: an eighth and two sixteenths."""
DIFFICULTIES: Mapping[str, Mapping[str, Any]] = {
    "easy": {"tempo": 80.0, "density": "sparse", "polyphony": 2, "pitch_range": "C3-C6"},
    "medium": {"tempo": 100.0, "density": "medium", "polyphony": 4, "pitch_range": "F2-F6"},
    "hard": {"tempo": 132.0, "density": "dense"},
}
"""What a difficulty sets: speed, notes, notes at once, and how far hands reach."""
SLOWEST_QPM, FASTEST_QPM = 54.0, 152.0
"""Tempos of arousal -1 and 1."""


def led(request: Request) -> Request:
    """The request with what its mood, density and difficulty ask of controls that it leaves open."""
    if request.start is not None:
        return request
    added = {
        name: value
        for name, value in DIFFICULTIES.get(request.difficulty or "", {}).items()
        if getattr(request, name) is None and _fits(request, name)
    }
    asked = request.model_copy(update=added)
    if request.guidance:
        asked = asked.model_copy(update=_of_mood(asked))
        most = POLYPHONY.get(asked.density or "")
        if most and asked.polyphony is None and _fits(asked, "polyphony"):
            asked = asked.model_copy(update={"polyphony": most})
    return asked


def pulsed(request: Request) -> bool:
    """Whether notes begin at :data:`PULSES_TICKS`: where the densest class is asked and nothing else says how many."""
    free = request.polyphony is None and request.chords is None and request.start is None
    return request.density == "very_dense" and request.guidance > 0 and free


def _of_mood(request: Request) -> dict[str, Any]:
    """The key and the tempo that a request's mood draws."""
    mood = request.mood or ""
    added: dict[str, Any] = {}
    mode = MODES.get(mood) if mood else _mode(request.valence or 0.0)
    if mode and request.key is None and request.scale is None and _fits(request, "key"):
        added |= _key(request, mode)
    if request.tempo is None and request.chords is None:
        if request.arousal is not None:
            middle, ratio = math.sqrt(SLOWEST_QPM * FASTEST_QPM), FASTEST_QPM / SLOWEST_QPM
            added["tempo"] = float(round(middle * ratio ** (request.arousal / 2)))
        elif mood in TEMPOS_QPM:
            added["tempo"] = _drawn(request, "tempo", TEMPOS_QPM[mood])
    return added


def _key(request: Request, mode: str) -> dict[str, str]:
    """A key of a mode that fits the asked range."""
    keys = [{"key": key} for key in KEYS[mode]]
    if mode == "minor":
        # Without the raised seventh alone, a piece in A minor is often heard in C major.
        keys = [{**each, "scale": f"{each['key'].split()[0]} harmonic minor"} for each in keys]
    fitting = [each for each in keys if contradictions.found(request.model_copy(update=each)) is None]
    drawn: dict[str, str] = _drawn(request, "key", tuple(fitting)) if fitting else {}
    return drawn


def _mode(valence: float) -> str | None:
    return "major" if valence > 0 else "minor" if valence < 0 else None


def _fits(request: Request, control: str) -> bool:
    """Whether a control may be added: chords have notes of their own, and drums alone no pitches."""
    if request.chords is not None:
        return control in ("density", "tempo") and not (control == "tempo" and request.length is not None)
    return control not in ("key", "pitch_range") or request.instruments != ("drums",)


def _drawn(request: Request, control: str, values: tuple[Any, ...]) -> Any:
    return values[seeding.derive(request.seed, "leading", control) % len(values)]
