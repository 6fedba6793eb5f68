"""A played score as a written one: a grid for every beat, bars, voices, note values, ties.

Time is in 24ths of a quarter from the beginning of the piece. For each beat of a part the plainest of four grids that
fits its onsets and ends is taken: sixteenths, triplets of eighths, thirty-seconds, triplets of sixteenths. What
overlaps is in voices of its own; notes of one voice that begin and end together are a chord; what crosses a bar line,
or has no value of its own, is tied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Notes, Score
from tutti.errors import InputError

DIVISIONS = 24
MOST_BARS = 20_000

_GRIDS = (6, 8, 3, 4)
# Off by no more than this, in 24ths a note, and this share of what the best is off: a plainer grid is meant.
_FORGIVEN, _FORGIVEN_SHARE = 0.25, 0.5
_WHOLE_BEATS = (96, 72, 48, 36, 24)
_BINARY = (18, 12, 9, 6, 3)
_TRIPLET = (16, 8, 4)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: where it begins and ends, and its meter where that is new."""

    start: int
    end: int
    meter: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Chord:
    """Notes that begin and end together; position in the score's columns beside each pitch."""

    start: int
    end: int
    pitches: tuple[int, ...]
    velocity: int


@dataclass(frozen=True, slots=True)
class Written:
    """A note value: a chord's or a rest's (no pitches) piece within a bar, which may be tied on either side.

    Args:
        start, length: in 24ths of a quarter.
        kind: ``whole`` to ``32nd``.
        dotted: half as long again.
        triplet: two thirds as long.
    """

    start: int
    length: int
    kind: str
    dotted: bool
    triplet: bool
    pitches: tuple[int, ...]
    velocity: int
    ties_back: bool
    ties_on: bool


def bars(score: Score) -> list[Bar]:
    """Every bar up to the end of the last note.

    Raises:
        InputError: more than :data:`MOST_BARS`.
    """
    end = max(_divisions(np.array([score.end_ticks]), score)[0], 1)
    starts = _divisions(score.meter_ticks, score).tolist()
    meters = list(zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True))
    made: list[Bar] = []
    for (above, below), start, until in zip(meters, starts, [*starts[1:], None], strict=True):
        length = max(above * 4 * DIVISIONS // max(below, 1), 1)
        meter: tuple[int, int] | None = (above, below)
        stop = end if until is None else min(until, end)
        if (stop - start) // length + len(made) > MOST_BARS:
            raise InputError(f"the score has more than {MOST_BARS} bars", remedy="cut it into parts")
        while start < stop:
            full = start + length
            made.append(Bar(start, full if until is None else min(full, until), meter))
            start, meter = full, None
    return made or [Bar(0, 4 * DIVISIONS, (4, 4))]


def _divisions(ticks: NDArray[np.int32], score: Score) -> NDArray[np.int64]:
    per_quarter = score.ticks_per_quarter
    return (2 * ticks.astype(np.int64) * DIVISIONS + per_quarter) // (2 * per_quarter)


def voices(notes: Notes, score: Score) -> list[list[Chord]]:
    """Some notes of a score on their grid, in voices without overlap, the highest first."""
    onset_N, end_N = _on_grid(notes, score)
    chords: dict[tuple[int, int], list[int]] = {}
    for note, span in enumerate(zip(onset_N.tolist(), end_N.tolist(), strict=True)):
        chords.setdefault(span, []).append(note)
    found = [
        Chord(start, end, tuple(sorted(set(notes.pitch[own].tolist()))), int(notes.velocity[own].max()))
        for (start, end), own in chords.items()
    ]
    found.sort(key=lambda chord: (chord.start, -chord.pitches[-1], -chord.end))
    lines: list[list[Chord]] = []
    for chord in found:
        line = next((line for line in lines if line[-1].end <= chord.start), None)
        if line is None:
            lines.append([chord])
        else:
            line.append(chord)
    return lines


def _on_grid(notes: Notes, score: Score) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Onsets and ends in 24ths, by beat on the plainest grid that fits; a note keeps at least one step of it."""
    exact = np.stack((notes.onset_ticks.astype(np.int64), notes.onset_ticks.astype(np.int64) + notes.duration_ticks))
    exact = exact * (DIVISIONS / score.ticks_per_quarter)
    beat = np.floor(exact / DIVISIONS + 1e-9).astype(np.int64)
    places, index = np.unique(beat, return_inverse=True)
    index = index.reshape(beat.shape)
    counts = np.maximum(np.bincount(index.ravel(), minlength=len(places)), 1)
    errors = np.stack(
        [
            np.bincount(index.ravel(), weights=np.abs(np.round(exact / grid) * grid - exact).ravel()) / counts
            for grid in _GRIDS
        ]
    )
    chosen = np.argmax(errors <= errors.min(axis=0) * (1 + _FORGIVEN_SHARE) + _FORGIVEN, axis=0)
    grid = np.array(_GRIDS)[chosen][index]
    rounded = (np.round(exact / grid) * grid).astype(np.int64)
    return rounded[0], np.maximum(rounded[1], rounded[0] + grid[0])


def written(line: list[Chord], bar: Bar) -> Iterator[Written]:
    """A voice within a bar, rests between; nothing where it is silent throughout."""
    inside = [chord for chord in line if chord.start < bar.end and chord.end > bar.start]
    if not inside:
        return
    at = bar.start
    for chord in inside:
        start, end = max(chord.start, bar.start), min(chord.end, bar.end)
        yield from _values(at, start, bar, None)
        yield from _values(start, end, bar, chord)
        at = end
    yield from _values(at, bar.end, bar, None)


def _values(start: int, end: int, bar: Bar, chord: Chord | None) -> Iterator[Written]:
    edges = [start]
    while edges[-1] < end:
        edges.append(edges[-1] + _length(edges[-1] - bar.start, end - edges[-1]))
    for first, last in pairwise(edges):
        kind, dotted, triplet = _KINDS[last - first]
        yield Written(
            start=first,
            length=last - first,
            kind=kind,
            dotted=dotted,
            triplet=triplet,
            pitches=chord.pitches if chord else (),
            velocity=chord.velocity if chord else 0,
            ties_back=chord is not None and first > chord.start,
            ties_on=chord is not None and last < chord.end,
        )


def _length(at: int, left: int) -> int:
    """The longest value that can begin at a place of a bar, of what is left; those over a beat begin on one."""
    within = at % DIVISIONS
    if within == 0:
        for value in _WHOLE_BEATS:
            if value <= left and (value % DIVISIONS == 0 or left == value):
                return value
    left = min(left, DIVISIONS - within)
    binary = within % 3 == 0 and left % 3 == 0
    for value in _BINARY if binary else _TRIPLET:
        if value <= left and (value != 9 or left == 9) and (value != 18 or left == 18):
            return value
    # Between grids, as where one part's triplet ends on another's sixteenth: the finest values fill it.
    return next(value for value in (3, 2, 1) if value <= left)


_NAMES = ("whole", "half", "quarter", "eighth", "16th", "32nd", "64th", "128th")
_KINDS: dict[int, tuple[str, bool, bool]] = {
    **{96 >> place: (name, False, False) for place, name in enumerate(_NAMES[:6])},
    **{(96 >> place) * 3 // 2: (name, True, False) for place, name in enumerate(_NAMES[:5])},
    **{
        (96 >> place) * 2 // 3: (name, False, True)
        for place, name in enumerate(_NAMES[:7])
        if (96 >> place) * 2 % 3 == 0
    },
    1: ("64th", False, True),
}
