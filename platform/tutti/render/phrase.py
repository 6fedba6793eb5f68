"""A fixed phrase that tells what an instrument is like: a scale, long notes high and low, a chord.

It lies in the middle of the pitches that an instrument knows.
"""

from __future__ import annotations

import numpy as np

from tutti.corpus.score import Notes, Score
from tutti.models.bundle import Bundle
from tutti.render.drawn import drawn_instrument
from tutti.render.voice import Instrument

MOST_INSTRUMENTS = 4
TEMPO_QPM, TICKS_PER_QUARTER = 100.0, 480

# Semitones over the phrase's keynote, onset and length in quarters.
_NOTES = (
    (0, 0, 0.5), (2, 0.5, 0.5), (4, 1, 0.5), (5, 1.5, 0.5), (7, 2, 0.5), (9, 2.5, 0.5), (11, 3, 0.5), (12, 3.5, 1.5),
    (7, 5, 1), (-5, 6, 2),
    (0, 8, 2), (4, 8, 2), (7, 8, 2), (12, 8, 2),
)  # fmt: skip
_LENGTH_QUARTERS = 11.0
_VELOCITY = 100
_OCTAVE = 12


def phrase(programs: dict[int, tuple[int, int]]) -> Score:
    """The phrase on one program after another.

    Args:
        programs: lowest and highest pitch of each.
    """
    semitones_N, onset_N, length_N = np.array(_NOTES).T
    columns: dict[str, list[int]] = {name: [] for name in ("onset_ticks", "duration_ticks", "pitch", "program")}
    for number, (program, (lowest, highest)) in enumerate(programs.items()):
        keynote = round((lowest + highest) / 2 / _OCTAVE - 0.5) * _OCTAVE
        onset_N_here = (onset_N + number * _LENGTH_QUARTERS) * TICKS_PER_QUARTER
        columns["onset_ticks"] += np.rint(onset_N_here).astype(int).tolist()
        columns["duration_ticks"] += np.rint(length_N * TICKS_PER_QUARTER).astype(int).tolist()
        columns["pitch"] += (keynote + semitones_N).astype(int).tolist()
        columns["program"] += [program] * len(semitones_N)
    notes = Notes.of(**columns, velocity=_VELOCITY)
    return Score.of(notes, ticks_per_quarter=TICKS_PER_QUARTER, tempos=[(0, TEMPO_QPM)])


def played_by(bundle: Bundle, *, seed: int = 0) -> tuple[Score, dict[int, Instrument]]:
    """The phrase on up to :data:`MOST_INSTRUMENTS` of a model's instruments, spread over all, and who plays it.

    Raises:
        RecipeError: the model plays no notes.
    """
    names = bundle.collections
    chosen = np.unique(np.linspace(0, len(names) - 1, MOST_INSTRUMENTS).round().astype(int)).tolist()
    players: dict[int, Instrument] = {
        program: drawn_instrument(bundle, instrument=names[place], seed=seed) for program, place in enumerate(chosen)
    }
    range_ = (int(bundle.configuration["lowest_pitch"]), int(bundle.configuration["highest_pitch"]))
    return phrase(dict.fromkeys(players, range_)), players
