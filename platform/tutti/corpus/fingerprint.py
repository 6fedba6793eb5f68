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
from tutti.corpus.score_batch import ScoreBatch, reduced

STEPS_PER_QUARTER = 24
DIGITS = 16

_PITCH_BITS, _STEP_BITS = 7, 36


def fingerprint(score: Score) -> str:
    """16 hexadecimal digits; equal for pieces whose melodies are equal up to transposition and tempo."""
    return fingerprints(ScoreBatch.of([score]))[0]


def fingerprints(batch: ScoreBatch) -> list[str]:
    """The fingerprint of each piece."""
    notes, piece = batch.notes, batch.piece_of_note
    melodic = notes.program != DRUM_PROGRAM
    has_melody = reduced(np.logical_or, melodic, batch.note_starts, empty=False)
    told = melodic | ~has_melody[piece]
    rate = STEPS_PER_QUARTER / batch.ticks_per_quarter
    steps = np.rint(notes.onset_ticks * rate[piece]).astype(np.int64)
    moment = (piece << _STEP_BITS) + steps
    key = np.sort(((moment << _PITCH_BITS) + notes.pitch)[told])
    moment, pitch = key >> _PITCH_BITS, (key & (2**_PITCH_BITS - 1)).astype("<i4")
    highest = np.append(moment[1:] != moment[:-1], True)[: len(moment)] | ~has_melody[moment >> _STEP_BITS]
    moment, pitch = moment[highest], pitch[highest]
    gaps = np.diff(moment, prepend=0).astype("<i4")
    intervals = np.diff(pitch, prepend=np.int32(0))
    ends = np.searchsorted(moment, np.arange(1, len(batch) + 1) << _STEP_BITS).tolist()
    found = []
    for begin, end, tune in zip([0, *ends], ends, has_melody.tolist(), strict=False):
        state = hashlib.sha256(b"melody" if tune else b"drums")
        state.update(gaps[begin + 1 : end].tobytes())
        state.update(intervals[begin + 1 : end].tobytes() if tune else pitch[begin:end].tobytes())
        found.append(state.hexdigest()[:DIGITS])
    return found
