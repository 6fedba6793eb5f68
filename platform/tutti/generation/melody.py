"""Which notes of a piece are kept when the rest is composed anew: its melody, or those that carry its structure.

**Melody**, where none is named: of the tracks that sing one note at a time (at least nine of ten onsets alone, at least
half as much sounding time as the fullest such track), the one whose notes lie highest, weighted by their length; where
there is no such track, the highest note at each onset unless a higher one still sounds (the skyline of Uitdenbogerd and
Zobel 1998, "Manipulation of music for melody matching"). Drums sing nothing.

**Structure**: notes on strong beats, long notes and the outer voices outlast the others in a variation.

Legend: N notes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti import seeding
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.features.events import bars_of, on_grid
from tutti.features.vocabulary import METERS, TICKS_PER_QUARTER

Mask = NDArray[np.bool_]

ALONE_SHARE = 0.9
SOUNDING_SHARE = 0.5


def melody_of(score: Score, named: str | None = None) -> Mask:
    """Which notes are the melody; shape (N,).

    Args:
        named: ``highest``, ``all``, ``track:N`` or ``program:N``; None: by the rule above.

    Raises:
        InputError: the piece has no pitched notes, or none of that name.
    """
    notes = score.notes
    pitched: Mask = notes.program != DRUM_PROGRAM
    if not pitched.any():
        raise InputError("the file has no pitched notes, so it has no melody", remedy="give a file with a melody")
    if named is None:
        track = _singing_track(notes, pitched)
        return skyline(notes, pitched) if track is None else pitched & (notes.track == track)
    if named == "highest":
        return skyline(notes, pitched)
    if named == "all":
        return pitched
    column, _, number = named.partition(":")
    found: Mask = pitched & (getattr(notes, column) == int(number))
    if not found.any():
        there = ", ".join(map(str, np.unique(getattr(notes, column)[pitched]).tolist()))
        raise InputError(f"the file has no pitched notes of {column} {number}", remedy=f"it has {column} {there}")
    return found


def skyline(notes: Notes, among: Mask) -> Mask:
    """The highest note at each onset, unless a higher one that began earlier still sounds; shape (N,)."""
    onset = notes.onset_ticks.astype(np.int64)
    end = onset + notes.duration_ticks
    order = np.lexsort((-notes.pitch.astype(np.int64), onset))
    found = np.zeros(len(notes), dtype=bool)
    sounding: list[tuple[int, int]] = []  # pitch and end of what may still lie above
    last_onset = -1
    for place in order[among[order]].tolist():
        pitch, at = int(notes.pitch[place]), int(onset[place])
        if at != last_onset:
            last_onset = at
            sounding = [(above, until) for above, until in sounding if until > at]
            found[place] = not any(above > pitch for above, _ in sounding)
        sounding.append((pitch, int(end[place])))
    return found


def structural(score: Score, *, share: float, seed: int) -> Mask:
    """The share of the notes that carry the structure most; shape (N,).

    A bar line counts 2, a beat 1; a quarter of length 1, up to 2; the outer voices 1; equals are drawn by the seed.
    Drums are weighed like the others.

    Args:
        share: of the notes, 0 to 1; rounded down.
    """
    notes = score.notes
    quarters = notes.duration_ticks / score.ticks_per_quarter
    onset = (2 * TICKS_PER_QUARTER * notes.onset_ticks.astype(np.int64) + score.ticks_per_quarter) // (
        2 * score.ticks_per_quarter
    )
    lines = bars_of(on_grid(score))
    bar = np.clip(np.searchsorted(lines.start_ticks, onset, side="right") - 1, 0, None)
    offset = onset - lines.start_ticks[bar]
    beat = np.array([4 * TICKS_PER_QUARTER // below for _, below in METERS])[lines.meter[bar]]
    pitched = notes.program != DRUM_PROGRAM
    low = Notes.of(
        onset_ticks=notes.onset_ticks, duration_ticks=notes.duration_ticks, pitch=127 - np.minimum(notes.pitch, 127)
    )
    outer = skyline(notes, pitched) | skyline(low, pitched)
    weight = 2.0 * (offset == 0) + (offset % beat == 0) + np.minimum(quarters, 2.0) + outer
    drawn = seeding.uniform_at(
        np.full(len(notes), seeding.derive(seed, "structure"), dtype=np.uint64),
        np.arange(len(notes), dtype=np.uint64),
    )
    kept = np.zeros(len(notes), dtype=bool)
    kept[np.lexsort((drawn, -weight))[: int(share * len(notes))]] = True
    return kept


def _singing_track(notes: Notes, pitched: Mask) -> int | None:
    """The highest-lying of the tracks that sing one note at a time."""
    found: list[tuple[int, float, float]] = []
    for track in np.unique(notes.track[pitched]).tolist():
        own = notes.take(pitched & (notes.track == track))
        _, together = np.unique(own.onset_ticks, return_counts=True)
        if (together == 1).sum() < ALONE_SHARE * len(own):
            continue
        held = float(own.duration_ticks.sum())
        found.append((track, float((own.pitch * own.duration_ticks.astype(float)).sum()) / max(held, 1.0), held))
    fullest = max((held for _, _, held in found), default=0.0)
    singing = [(height, track) for track, height, held in found if held >= SOUNDING_SHARE * fullest]
    return max(singing)[1] if singing else None
