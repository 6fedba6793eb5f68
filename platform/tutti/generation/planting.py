"""What one row must say, and how free its other notes are: notes that must be said stand among free ones.

Free notes leave the planted ones' programs alone where those are theirs, lie below the ceiling, keep their instrument's
range, and take no more voices than what is kept leaves. Chords bind them as they bind a piece without a file
(:mod:`tutti.generation.harmony`), and what is kept is bound by nothing: where a chord begins, the lowest free note is
its bass.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutti.features.grid import GridNotes
from tutti.generation.timetable import FAR, Spans

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_FREE_AT_ONE_POSITION = 8
"""Notes beside planted ones."""
MOST_VOICES = 24
COMPASS = 128


def no_notes() -> GridNotes:
    """Nothing that must be said."""
    small = np.zeros(0, dtype=np.uint16)
    return GridNotes(np.zeros(0, dtype=np.int64), small, small, small, small)


def every_pitch() -> Mask:
    """Shape (128,)."""
    return np.ones(COMPASS, dtype=bool)


def full_ranges() -> Index:
    """Lowest and highest pitch of each program where none is asked; shape (128, 2)."""
    return np.tile(np.array([0, COMPASS - 1]), (COMPASS, 1))


@dataclass(frozen=True, slots=True)
class Here:
    """What binds the free notes of one position.

    Args:
        pitches: that they may have, below the ceiling; shape (128,).
        lowest: of which the lowest of them must be; None: any. Shape (128,).
        highest_program: that can say such a lowest note; -1: none.
        below: that the lowest must lie below or be of its class, a kept note's pitch; 128: no kept note says so.
        voices: how many may sound.
        must: whether one must begin.
    """

    pitches: Mask
    lowest: Mask | None
    highest_program: int
    below: int
    voices: int
    must: bool


@dataclass(frozen=True, slots=True)
class Planting:
    """What one row must say, from its first bar on.

    Args:
        bar_meters: index into ``METERS`` of each bar of the piece; later bars keep the last.
        bar_ticks: where each bar begins, in ticks of the grid.
        notes: that must be said, sorted as the vocabulary sorts; their times count from the piece's beginning.
        own_programs: programs of planted notes that nobody else may play; shape (128,).
        programs: that free notes may play; shape (128,).
        drums: whether free notes may be drums.
        ceilings: from which tick on free notes lie below which pitch; rising ticks.
        pitches: that free notes may have everywhere, where no chords say otherwise; shape (128,).
        ranges: lowest and highest pitch of each program; shape (128, 2).
        polyphony: most notes that sound at once, kept ones among them; None: any number.
        kept_onsets, kept_ends: of all notes that stay, in ticks of the grid, each sorted; shape (K,).
        spans: what chords ask of free notes, from ``begin_ticks`` on.
        begin_ticks: where the first chord begins.
        keeps_bass: whether a kept note may be a chord's bass.
    """

    bar_meters: Index
    bar_ticks: Index
    notes: GridNotes
    own_programs: Mask = field(default_factory=lambda: np.zeros(COMPASS, dtype=bool))
    programs: Mask = field(default_factory=every_pitch)
    drums: bool = False
    ceilings: tuple[tuple[int, int], ...] = ()
    pitches: Mask = field(default_factory=every_pitch)
    ranges: Index = field(default_factory=full_ranges)
    polyphony: int | None = None
    kept_onsets: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    kept_ends: Index = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    spans: Spans | None = None
    begin_ticks: int = 0
    keeps_bass: bool = False

    @property
    def new_meter(self) -> Mask:
        """Bars that begin another meter than the bar before them; shape (bars,)."""
        return np.append(True, self.bar_meters[1:] != self.bar_meters[:-1])

    def sounding(self, ticks: Index) -> Index:
        """How many kept notes sound at each time."""
        begun = np.searchsorted(self.kept_onsets, ticks, side="right")
        return np.asarray(begun - np.searchsorted(self.kept_ends, ticks, side="right"))

    def next_must(self, tick: int) -> int:
        """When, at a tick or later, a note must begin because a chord does."""
        if self.spans is None:
            return int(FAR)
        musts = self.spans.start_ticks[self.spans.must] + self.begin_ticks
        place = int(np.searchsorted(musts, tick))
        return int(musts[place]) if place < len(musts) else int(FAR)

    def here(self, tick: int, waiting: Index) -> Here:
        """What binds the free notes of a position.

        Args:
            waiting: pitches of the notes that are planted here, percussion not among them.
        """
        pitches, lowest, must = self._asked(tick)
        least = len(waiting) + 1
        ceiling = self._ceiling(tick)
        needed = pitches & self.pitches if lowest is None else pitches & lowest
        if self.top_program(needed & (np.arange(COMPASS) < ceiling), least=least) < 0:
            # Where the melody lies too low to leave room beneath it, nothing is asked of the others.
            ceiling = COMPASS
        pitches = pitches & (np.arange(COMPASS) < ceiling)
        below = COMPASS
        if lowest is not None and len(waiting):
            low = int(waiting.min())
            beneath = lowest & (np.arange(COMPASS) < low)
            if self.keeps_bass and lowest[low]:
                must, below = False, low
            elif self.top_program(pitches & beneath, least=least) >= 0:
                lowest = beneath
        top = -1 if lowest is None else self.top_program(pitches & lowest, least=least)
        voices = MOST_VOICES if self.polyphony is None else self.polyphony - int(self.sounding(np.array([tick]))[0])
        return Here(pitches, lowest, top, below, voices, must and top >= 0 and voices > 0)

    def top_program(self, pitches: Mask, *, least: int = 1) -> int:
        """The highest program of free notes that reaches so many of these pitches; -1: none does."""
        below = np.append(0, np.cumsum(pitches))
        reach = below[self.ranges[:, 1] + 1] - below[self.ranges[:, 0]]
        return int(np.flatnonzero((reach >= least) & self.programs).max(initial=-1))

    def _asked(self, tick: int) -> tuple[Mask, Mask | None, bool]:
        """Pitches that chords leave at a time, those of the lowest note, and whether a note must begin."""
        since = tick - self.begin_ticks
        if self.spans is None or since < 0:
            return every_pitch(), None, False
        span = int(np.searchsorted(self.spans.start_ticks, since, side="right")) - 1
        pitches = self.spans.masks[self.spans.begin[span]]
        if self.spans.start_ticks[span] != since or self.spans.lowest[span] < 0:
            return pitches, None, False
        return pitches, self.spans.masks[self.spans.lowest[span]], bool(self.spans.must[span])

    def _ceiling(self, tick: int) -> int:
        place = bisect_right(self.ceilings, (tick, COMPASS)) - 1
        return self.ceilings[place][1] if place >= 0 else COMPASS
