"""Four-part writing as a grid: which pitch each voice sounds at each sixteenth note.

Convention: ``grid_TV`` of identifiers, voices from the highest to the lowest; :data:`NOTHING` is padding,
:data:`SILENCE` a rest, a pitch is ``pitch - LOWEST_PITCH + FIRST_PITCH``. A pitch that sounds on is written again at
every step, so a note that is struck twice and one that is held look alike: as in the grids of Boulanger-Lewandowski et
al. 2012 (arXiv 1206.6392) and of the chorales that Huang et al. 2017 ("Counterpoint by Convolution") published.

Legend: T steps, V voices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.corpus import grids
from tutti.corpus.score import Notes, Score
from tutti.errors import DataError

VOICES = 4
STEPS_PER_QUARTER = grids.STEPS_PER_QUARTER
NOTHING, SILENCE, FIRST_PITCH = 0, 1, 2
LOWEST_PITCH, HIGHEST_PITCH = 24, 96
VOCABULARY_SIZE = FIRST_PITCH + HIGHEST_PITCH - LOWEST_PITCH + 1
NAMES = ("Nothing", "Silence", *(f"Pitch_{pitch}" for pitch in range(LOWEST_PITCH, HIGHEST_PITCH + 1)))
"""Of the identifiers, in their order."""

Voices = NDArray[np.uint16]


def voices_of(score: Score) -> Voices:
    """The grid of a score with four tracks of one voice each; shape (T, V).

    A note is there at the steps that lie within it by at least half of their length.

    Raises:
        DataError: it has not four such tracks, or a pitch outside the compass.
    """
    tracks = np.unique(score.notes.track)
    if len(tracks) != VOICES:
        raise DataError("unreadable", f"{len(tracks)} tracks with notes are not the {VOICES} voices of a chorale")
    if score.notes.pitch.min() < LOWEST_PITCH or score.notes.pitch.max() > HIGHEST_PITCH:
        lowest, highest = int(score.notes.pitch.min()), int(score.notes.pitch.max())
        raise DataError(
            "unreadable", f"pitches {lowest} to {highest} are not all from {LOWEST_PITCH} to {HIGHEST_PITCH}"
        )
    step_ticks = score.ticks_per_quarter / STEPS_PER_QUARTER
    begin, end = (
        np.floor(ticks / step_ticks + 0.5).astype(np.int64)
        for ticks in (score.notes.onset_ticks, score.notes.onset_ticks + score.notes.duration_ticks)
    )
    columns = [_column(score.notes.take(mask), begin[mask], end[mask], steps=int(end.max())) for mask in (
        score.notes.track == track for track in tracks
    )]  # fmt: skip
    heights = [column[column >= FIRST_PITCH].mean() for column in columns]
    return np.stack([columns[voice] for voice in np.argsort(heights, kind="stable")[::-1]], axis=1)


def _column(notes: Notes, begin: NDArray[np.int64], end: NDArray[np.int64], *, steps: int) -> Voices:
    order = np.lexsort((end, begin))
    begin, end, pitch = begin[order], end[order], notes.pitch[order]
    if (begin[1:] < end[:-1]).any():
        step = int(begin[1:][begin[1:] < end[:-1]][0])
        raise DataError("unreadable", f"a voice sounds two notes at sixteenth {step}")
    column = np.full(steps, SILENCE, dtype=np.uint16)
    for first, stop, sounding in zip(begin.tolist(), end.tolist(), pitch.tolist(), strict=True):
        column[first:stop] = sounding - LOWEST_PITCH + FIRST_PITCH
    return column


def score_of(grid_TV: Voices, *, tempo_qpm: float, title: str | None = None) -> Score:
    """The score of a grid: a track for each voice, a note for each run of one pitch.

    Raises:
        DataError: an identifier that means no pitch and no silence.
    """
    if grid_TV.size and (grid_TV.max() >= VOCABULARY_SIZE or grid_TV.min() == NOTHING):
        raise DataError("unreadable", f"a grid holds identifiers from {SILENCE} to {VOCABULARY_SIZE - 1}")
    pitch_TV = grid_TV.astype(np.int64) - FIRST_PITCH + LOWEST_PITCH
    return grids.score_of(np.where(grid_TV >= FIRST_PITCH, pitch_TV, grids.REST), tempo_qpm=tempo_qpm, title=title)
