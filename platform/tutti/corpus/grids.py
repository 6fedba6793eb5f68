"""Music as a grid of numbers: one list a step, one MIDI pitch a voice, -1 where it rests; a step is a sixteenth.

So the chorales of Boulanger-Lewandowski et al. 2012 (arXiv 1206.6392) are passed on voice by voice, as JSON of lists by
split::

    {"train": [[[74, 70, 65, 58], [74, 70, 65, 58], …], …], "valid": […], "test": […]}

Such a file is a book: each piece of it is an item of its own, ``FILE!train/0017.voices``, so one that is broken
costs itself, and its name tells its split. A pitch that goes on is one note, for a grid does not tell when one is
struck again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Notes, Score
from tutti.errors import DataError, InputError
from tutti.units import format_bytes

SUFFIXES = (".voices",)
BOOK_SUFFIX = ".json"
MAX_BOOK_BYTES = 64 * 2**20
MAX_VOICES = 64
REST = -1
STEPS_PER_QUARTER = 4
_TICKS_PER_STEP = 120
_HIGHEST_PITCH = 127
_JSON_ERRORS = (ValueError, RecursionError, MemoryError)


def is_book(name: str) -> bool:
    """Whether a file that is named as a source may be a book of grids."""
    return name.lower().endswith(BOOK_SUFFIX)


def pieces(book: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each piece of a book, in the order in which they stand.

    Raises:
        InputError: it is no such book.
    """
    if len(book) > MAX_BOOK_BYTES:
        raise InputError(f"{format_bytes(len(book))} of JSON are more than the limit of {format_bytes(MAX_BOOK_BYTES)}")
    try:
        held = json.loads(book)
    except _JSON_ERRORS as error:
        raise InputError(f"no JSON: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(held, dict) or not all(isinstance(some, list) for some in held.values()):
        raise InputError("no lists of pieces by split", remedy='expected is {"train": [[[74, 70, 65, 58], …], …], …}')
    for split, some in held.items():
        for number, piece in enumerate(some):
            yield f"{str(split).replace('/', '_')}/{number:04d}{SUFFIXES[0]}", json.dumps(piece).encode()


def read(data: bytes, *, tempo_qpm: float) -> Score:
    """The score of one piece: a track for each voice, a note for each run of one pitch.

    Raises:
        DataError: unreadable, or no_notes.
    """
    try:
        grid_TV = _grid(json.loads(data))
    except _JSON_ERRORS as error:
        raise DataError("unreadable", f"no grid: {' '.join(str(error).split())[:200]}") from None
    if not (grid_TV != REST).any():
        raise DataError("no_notes", "all voices rest")
    return score_of(grid_TV, tempo_qpm=tempo_qpm)


def score_of(grid_TV: NDArray[np.int64], *, tempo_qpm: float, title: str | None = None) -> Score:
    """The score of a grid: a track for each voice, a note for each run of one pitch.

    Args:
        grid_TV: MIDI pitches, :data:`REST` where a voice rests; shape (T steps, V voices).
    """
    onset, duration, pitch, track = list[Any](), list[Any](), list[Any](), list[Any]()
    for voice, column in enumerate(grid_TV.T):
        begins = np.flatnonzero(np.diff(column, prepend=REST - 1))
        lengths = np.diff(np.append(begins, len(column)))
        sounds = column[begins] != REST
        onset.append(begins[sounds])
        duration.append(lengths[sounds])
        pitch.append(column[begins[sounds]])
        track.append(np.full(int(sounds.sum()), voice))
    notes = Notes.of(
        onset_ticks=np.concatenate(onset) * _TICKS_PER_STEP,
        duration_ticks=np.concatenate(duration) * _TICKS_PER_STEP,
        pitch=np.concatenate(pitch),
        track=np.concatenate(track),
    )
    return Score.of(
        notes.in_order(), ticks_per_quarter=_TICKS_PER_STEP * STEPS_PER_QUARTER, tempos=[(0, tempo_qpm)], title=title
    )


def _grid(steps: Any) -> NDArray[np.int64]:
    """Pitches; shape (T, V).

    Raises:
        ValueError: it is no grid of pitches.
    """
    if not isinstance(steps, list) or not steps:
        raise ValueError("a piece is a list of steps")
    widths = {len(step) if isinstance(step, list) else 0 for step in steps}
    if len(widths) != 1 or not 1 <= max(widths) <= MAX_VOICES:
        raise ValueError(f"each step is a list of as many voices, 1 to {MAX_VOICES}")
    if not all(type(pitch) in (int, float) for step in steps for pitch in step):
        raise ValueError("pitches are numbers")
    grid_TV = np.array(steps, dtype=np.float64)
    if not ((grid_TV == np.floor(grid_TV)) & (grid_TV >= REST) & (grid_TV <= _HIGHEST_PITCH)).all():
        raise ValueError(f"pitches are whole numbers from 0 to {_HIGHEST_PITCH}, or {REST} for a rest")
    return grid_TV.astype(np.int64)
