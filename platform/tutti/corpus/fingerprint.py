"""A hash of the melody: the same in every key, tempo, instrumentation and resolution.

The melody is the skyline: of the notes that begin together, the highest (Uitdenbogerd and Zobel 1998, "Manipulation of
music for melody matching"). What is hashed is the sequence of its intervals in semitones and of the times between its
onsets, in 24ths of a quarter; durations, loudness and inner voices are not. A piece of drums alone has no melody: all
of its keys and times are hashed.
"""

from __future__ import annotations

import hashlib

import numpy as np

from tutti.corpus.score import DRUM_PROGRAM, Score

STEPS_PER_QUARTER = 24
DIGITS = 16


def fingerprint(score: Score) -> str:
    """16 hexadecimal digits; equal for pieces whose melodies are equal up to transposition and tempo."""
    notes = score.notes
    melodic = notes.program != DRUM_PROGRAM
    kind = "melody" if melodic.any() else "drums"
    if melodic.any():
        notes = notes.take(melodic)
    steps = np.rint(notes.onset_ticks * (STEPS_PER_QUARTER / score.ticks_per_quarter)).astype(np.int64)
    pitch = notes.pitch.astype(np.int64)
    order = np.lexsort((pitch, steps))
    steps, pitch = steps[order], pitch[order]
    if kind == "melody":
        highest = np.append(np.diff(steps) > 0, True) if len(steps) else np.zeros(0, dtype=bool)
        steps, pitch = steps[highest], np.diff(pitch[highest])
    state = hashlib.sha256(kind.encode())
    state.update(np.diff(steps).astype("<i4").tobytes())
    state.update(pitch.astype("<i4").tobytes())
    return state.hexdigest()[:DIGITS]
