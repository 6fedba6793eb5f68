"""A piece as it is made: what is told of it, as server-sent events or as lines of JSON.

In server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) the name is the event's, in lines
of JSON it is the member ``event``. While nothing comes, a comment or an empty line says that the connection lives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from tutti.corpus.score import Notes, Score
from tutti.features.events import on_grid
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.generation.piece import NoteMade, TempoMade

EVENTS = {
    "begin": "take_id, model, seed and key as in the piece; whole: whether notes come only when all are there",
    "note": "a NoteEvent; it stands as it is told, but that a later note of its pitch and program ends it",
    "bar": "bar: which one, from 0, is complete",
    "piece": "the GeneratedPiece; the last where nothing goes wrong",
    "error": "a ProblemBody; the last: what went wrong after the beginning",
}
"""Name of each event, and what its data is, in the order in which they come."""
KEEP_ALIVE_S = 15.0
"""Silence after which the connection is kept alive."""


def written(name: str, data: Mapping[str, Any], *, form: str) -> bytes:
    """One event.

    Args:
        form: a name of :data:`serve.negotiation.STREAMS`.
    """
    if form == "events":
        return f"event: {name}\ndata: {_json(data)}\n\n".encode()
    return f"{_json({'event': name, **data})}\n".encode()


def silence(*, form: str) -> bytes:
    """What keeps a connection alive and says nothing."""
    return b": waiting\n\n" if form == "events" else b"\n"


class Clock:
    """Seconds of notes under way.

    Args:
        material: music that the piece begins with, whose tempos hold where none is told.
    """

    def __init__(self, material: Score | None) -> None:
        self._tempos: list[tuple[int, float]] = []
        if material is not None:
            given = on_grid(material)
            self._tempos = list(zip(given.tempo_ticks.tolist(), given.tempo_qpm.tolist(), strict=True))

    def hear(self, tempo: TempoMade) -> None:
        """Take in a tempo; who tells that of the beginning tells all that there are."""
        if not tempo.onset_ticks:
            self._tempos = []
        self._tempos.append((tempo.onset_ticks, tempo.tempo_qpm))

    def seconds(self, note: NoteMade) -> tuple[float, float]:
        """When a note begins, and how long it lasts, to the microsecond."""
        time = Score.of(Notes.none(), ticks_per_quarter=TICKS_PER_QUARTER, tempos=self._tempos or None)
        begins_s, ends_s = time.seconds_at(
            np.array([note.onset_ticks, note.onset_ticks + note.duration_ticks])
        ).tolist()
        return round(begins_s, 6), round(ends_s - begins_s, 6)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, separators=(",", ":"))
