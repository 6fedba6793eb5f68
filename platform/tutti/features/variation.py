"""Other music from music: what may be changed in pieces in normal form, of many at once.

Each function gives a new grid and leaves the old one; each is the identity where it is told to do nothing.

Legend: W pieces, N notes, B bars.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.features.grid import (
    METER_TICKS,
    PAUSE_TICKS,
    Grid,
    GridNotes,
    Index,
    changes,
    nearest_tempo,
    runs,
    settled,
    starts_of,
)
from tutti.features.vocabulary import TEMPOS_QPM, VELOCITIES

PROGRAMS_OF_A_FAMILY = 8
FAMILIES = DRUM_PROGRAM // PROGRAMS_OF_A_FAMILY
ONE_VELOCITY = VELOCITIES.index(67)
"""What a score that says nothing of loudness reads as: 64 on the vocabulary's scale."""
MOST_SPLICED_BARS = 8

_TEMPOS = np.array(TEMPOS_QPM, dtype=np.float64)


def stretched(grid: Grid, *, factors: NDArray[np.float64]) -> Grid:
    """Every tempo times its piece's factor, on the vocabulary's scale, which ends at 20 and 304; factors are (W,)."""
    piece = np.repeat(np.arange(len(grid)), np.diff(grid.tempo_starts))
    tempo = np.where(factors[piece] == 1, grid.tempo, nearest_tempo(_TEMPOS[grid.tempo] * factors[piece]))
    rows = changes(grid.tempo_time_ticks, tempo, piece=piece)
    return replace(
        grid,
        tempo_time_ticks=grid.tempo_time_ticks[rows],
        tempo=tempo[rows],
        tempo_starts=np.searchsorted(piece[rows], np.arange(len(grid) + 1)),
    )


def chosen_voices(grid: Grid, *, draws: NDArray[np.float64]) -> Index:
    """A program of each piece that plays several, each as likely as another, and -1 of one that plays fewer; (W,).

    Args:
        draws: a number from 0 to 1 (exclusive) for each piece.
    """
    played = grid.programs()
    count = played.sum(axis=1)
    number = np.floor(draws * count).astype(np.int64)
    found = (np.cumsum(played, axis=1) == number[:, None] + 1) & played
    return np.where(count > 1, found.argmax(axis=1), -1)


def thinned(grid: Grid, *, programs: Index) -> Grid:
    """Without the notes of one program of each piece; -1 takes none. Programs are (W,)."""
    kept = grid.notes.program != programs[grid.piece_of_note]
    return _with_notes(grid, GridNotes(*(getattr(grid.notes, name)[kept] for name in GridNotes.__slots__)))


def reinstrumented(grid: Grid, *, shifts: NDArray[np.int64]) -> Grid:
    """Every program moves on by ``shifts`` within its General MIDI family of eight, around its end; drums stay.

    Two programs of a piece never become one, and no note is lost.

    Args:
        shifts: of each piece and family, 0 to 7; shape (W, 16).
    """
    program = grid.notes.program.astype(np.int64)
    family = np.minimum(program // PROGRAMS_OF_A_FAMILY, FAMILIES - 1)
    place = (program + shifts[grid.piece_of_note, family]) % PROGRAMS_OF_A_FAMILY
    moved = np.where(program == DRUM_PROGRAM, program, family * PROGRAMS_OF_A_FAMILY + place)
    return _resettled(grid, program=moved)


def levelled(grid: Grid, *, pieces: NDArray[np.bool_]) -> Grid:
    """One velocity, :data:`ONE_VELOCITY`, for every note of the ``pieces``; shape (W,)."""
    return _resettled(grid, velocity=np.where(pieces[grid.piece_of_note], ONE_VELOCITY, grid.notes.velocity))


def rearranged(grid: Grid, *, bars: Index, starts: Index) -> Grid:
    """Pieces of other bars: notes, meter and the tempo in force come along with each bar.

    A note that rang on into bars that left rings on; where it meets its own repetition, it ends there.

    Args:
        bars: bars of the grid, those of each piece end to end, as they shall follow one another.
        starts: where each piece begins among them; shape (W + 1,).
    """
    length = METER_TICKS[grid.bar_meter[bars]]
    before = np.concatenate(([0], np.cumsum(length)))
    begin = before[starts[:-1]] + PAUSE_TICKS * np.arange(len(grid))
    bar_time = before[:-1] + PAUSE_TICKS * np.repeat(np.arange(len(grid)), np.diff(starts))
    notes, moved = _of_bars(grid, grid.notes.time_ticks, bars=bars, bar_time=bar_time)
    tempos, tempo_moved = _of_bars(grid, grid.tempo_time_ticks, bars=bars, bar_time=bar_time)
    inside = grid.tempo_time_ticks[tempos] + tempo_moved
    # Where bars meet that were no neighbours, the tempo that was in force at the later one is said.
    seams = np.flatnonzero(np.diff(bars, prepend=-1) != 1)
    in_force = np.searchsorted(grid.tempo_time_ticks, grid.bar_time_ticks[bars[seams]], side="right") - 1
    known = in_force >= grid.tempo_starts[np.searchsorted(grid.bar_starts, bars[seams], side="right") - 1]
    seams, in_force = seams[known], in_force[known]
    time = np.concatenate((bar_time[seams], inside))
    order = np.argsort(time, kind="stable")
    time, tempo = time[order], np.concatenate((grid.tempo[in_force], grid.tempo[tempos]))[order]
    piece = np.searchsorted(begin, time, side="right") - 1
    rows = changes(time, tempo, piece=piece)
    settled_notes = settled(
        grid.notes.time_ticks[notes] + moved,
        **{name: getattr(grid.notes, name)[notes] for name in ("program", "pitch", "duration", "velocity")},
    )
    return Grid(
        begin_ticks=begin,
        notes=settled_notes,
        note_starts=starts_of(begin, settled_notes.time_ticks),
        tempo_time_ticks=time[rows],
        tempo=tempo[rows],
        tempo_starts=np.searchsorted(piece[rows], np.arange(len(grid) + 1)),
        bar_time_ticks=bar_time,
        bar_meter=grid.bar_meter[bars],
        bar_starts=starts,
    )


def spliced_bars(grid: Grid, *, pieces: NDArray[np.bool_], draws: NDArray[np.float64]) -> tuple[Index, Index]:
    """What :func:`rearranged` wants so that a stretch of bars is cut out, or heard again in place of as many after it.

    At most half of a piece's bars and :data:`MOST_SPLICED_BARS`; pieces of one bar stay, and so do those of which no
    token says the tempo that a stretch would have to begin with once more.

    Args:
        pieces: which are to be spliced; shape (W,).
        draws: numbers from 0 to 1 (exclusive) for whether it is cut, how many bars and from where; shape (W, 3).
    """
    held = np.diff(grid.bar_starts)
    most = np.minimum(held // 2, MOST_SPLICED_BARS)
    cut = draws[:, 0] < 0.5
    count = np.minimum(1 + np.floor(draws[:, 1] * most).astype(np.int64), most)
    first = np.floor(draws[:, 2] * (held - np.where(cut, count, 2 * count) + 1)).astype(np.int64)
    spliced = pieces & (most > 0) & (cut | ~_begins_unsaid(grid, first=first, count=count))
    count = np.where(spliced, count, 0)
    bars = held - np.where(cut, count, 0)
    starts = np.concatenate(([0], np.cumsum(bars)))
    piece = np.repeat(np.arange(len(grid)), bars)
    number = np.arange(starts[-1]) - starts[piece]
    cut, count, first = cut[piece], count[piece], first[piece]
    again = ~cut & (number >= first + count) & (number < first + 2 * count)
    moved = np.where(cut & (number >= first), count, np.where(again, -count, 0))
    return grid.bar_starts[piece] + number + moved, starts


def _begins_unsaid(grid: Grid, *, first: Index, count: Index) -> NDArray[np.bool_]:
    """Whether the first tempo of a piece lies within its stretch, past where the stretch begins; shape (W,)."""
    time = np.append(grid.tempo_time_ticks, np.iinfo(np.int64).max)
    first_tempo = np.where(np.diff(grid.tempo_starts) > 0, time[grid.tempo_starts[:-1]], time[-1])
    begins = grid.bar_time_ticks[np.minimum(grid.bar_starts[:-1] + first, grid.bar_starts[1:] - 1)]
    last = np.clip(grid.bar_starts[:-1] + first + count - 1, grid.bar_starts[:-1], grid.bar_starts[1:] - 1)
    ends = grid.bar_time_ticks[last] + METER_TICKS[grid.bar_meter[last]]
    return np.asarray((first_tempo > begins) & (first_tempo < ends))


def _of_bars(grid: Grid, time_ticks: Index, *, bars: Index, bar_time: Index) -> tuple[Index, Index]:
    """Rows of what lies in ``bars``, and by how much each moves when the bars begin at ``bar_time``."""
    edges = np.searchsorted(time_ticks, grid.bar_time_ticks)
    counts = np.append(edges[1:], len(time_ticks))[bars] - edges[bars]
    return runs(edges[bars], counts), np.repeat(bar_time - grid.bar_time_ticks[bars], counts)


def _resettled(grid: Grid, **columns: NDArray[np.int64]) -> Grid:
    held = {name: getattr(grid.notes, name) for name in ("program", "pitch", "duration", "velocity")}
    return _with_notes(grid, settled(grid.notes.time_ticks, **{**held, **columns}))


def _with_notes(grid: Grid, notes: GridNotes) -> Grid:
    return replace(grid, notes=notes, note_starts=starts_of(grid.begin_ticks, notes.time_ticks))
