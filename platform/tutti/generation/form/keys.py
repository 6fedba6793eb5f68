"""Keys of a piece's sections, how they close, and music moved from one key to another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes
from tutti.generation import contradictions
from tutti.generation.request import Request
from tutti.units import PITCH_CLASSES, Key

Pitches = NDArray[np.int64]

_MAJOR, _MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)
CLOSE_BARS = 2


def contrast(home: Key, number: int) -> Key:
    """Key of the section that comes as the ``number``-th new one, from 0: near keys, as is usual.

    In major the dominant, the relative minor and the subdominant, in minor the relative major, the subdominant and the
    submediant; the fourth is at home again.
    """
    keys = (
        (home, home.transposed(7), Key((home.tonic + 9) % 12, minor=True), home.transposed(5))
        if not home.minor
        else (home, relative(home), home.transposed(5), Key((home.tonic + 8) % 12, minor=False))
    )
    return keys[number % len(keys)]


def relative(key: Key) -> Key:
    """The key of the same signature."""
    return Key((key.tonic + (3 if key.minor else 9)) % 12, minor=not key.minor)


def parallel(key: Key) -> Key:
    """The key of the other mode on the same tonic."""
    return Key(key.tonic, minor=not key.minor)


def closes(key: Key, *, half: bool) -> tuple[str, ...]:
    """Chords of two bars that close a section in a key, the best first: on its tonic, or open, on its dominant."""
    third = "m" if key.minor else ""

    def chord(step: int, quality: str = "") -> str:
        return PITCH_CLASSES[(key.tonic + step) % 12] + quality

    tonic, fourth, fifth = chord(0, third), chord(5, third), chord(7)
    if half:
        return (f"{fourth} | {fifth}", f"{tonic} | {fifth}", f"{tonic} | {tonic}")
    return (f"{chord(7, '7')} | {tonic}", f"{fifth} | {tonic}", f"{fourth} | {tonic}", f"{tonic} | {tonic}")


def in_key(request: Request, key: Key | None) -> Request:
    """The request in a key; where a scale was asked, that stays instead."""
    return request if key is None or request.scale is not None else request.model_copy(update={"key": str(key)})


def close_of(request: Request, key: Key | None, *, half: bool) -> str | None:
    """Chords of a close that a request's other controls allow; None: it closes without any."""
    if key is None:
        return None
    for chords in closes(key, half=half):
        closing = in_key(request, key).model_copy(update={"chords": chords, "bars": CLOSE_BARS, "length": None})
        if contradictions.found(closing) is None:
            return chords
    return None


def moved(notes: Notes, *, source: Key, target: Key, low: Pitches, high: Pitches) -> Notes:
    """N notes in another key: as near as may be, by degrees where the mode is another one too.

    Args:
        low, high: pitches between which each must lie; where they do not fit they go the other way. Shape (N,).
    """
    shift = (target.tonic - source.tonic) % 12
    pitched = notes.program != DRUM_PROGRAM
    degrees = _degrees(source, target)
    pitch = notes.pitch.astype(np.int64) + degrees[(notes.pitch - source.tonic) % 12]
    for way in sorted((shift, shift - 12), key=abs):
        there = pitch + way
        if ((there >= low) & (there <= high))[pitched].all():
            break
    else:
        way = shift if shift <= 6 else shift - 12
    inside = _folded(pitch + way, low=low, high=high)
    return replace(notes, pitch=np.where(pitched, inside, notes.pitch).astype(notes.pitch.dtype))


def _folded(pitch: Pitches, *, low: Pitches, high: Pitches) -> Pitches:
    """Pitches an octave nearer, where they are outside; what no octave brings inside stays at the nearest one."""
    below, above = np.maximum(low - pitch, 0), np.maximum(pitch - high, 0)
    return np.asarray(np.clip(pitch + 12 * -(-below // 12) - 12 * -(-above // 12), 0, 127))


def _degrees(source: Key, target: Key) -> NDArray[np.int64]:
    """Semitones by which each step above the tonic moves for another mode; shape (12,)."""
    steps = np.zeros(12, dtype=np.int64)
    if source.minor == target.minor:
        return steps
    here, there = (_MINOR, _MAJOR) if source.minor else (_MAJOR, _MINOR)
    for old, new in zip(here, there, strict=True):
        steps[old] = new - old
    if source.minor:
        # The lowered seventh rises with the others.
        steps[10] = 1
    return steps
