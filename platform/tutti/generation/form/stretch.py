"""Stretches of notes that a piece is put together from: whole bars on the grid of 24 ticks a quarter.

Legend: N notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tutti.corpus.score import Notes, Score
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.generation.harmony import bar_ticks
from tutti.generation.source import HELD_OVER_TICKS

LOUDER = 18
"""MIDI velocities between level 0 and level 1."""
SOFTEST, LOUDEST = 16, 124


@dataclass(frozen=True, slots=True)
class Stretch:
    """Notes of so many bars.

    Args:
        notes: onsets count from the first bar line; 24 ticks a quarter.
        bars: whole bars.
        meter: of all of them.
    """

    notes: Notes
    bars: int
    meter: tuple[int, int]

    @property
    def ticks(self) -> int:
        """Its length."""
        return self.bars * bar_ticks(self.meter)

    @property
    def silent_bars(self) -> int:
        """Bars at its end in which nothing begins or sounds on: a continuation would begin with them."""
        if not len(self.notes):
            return self.bars
        onset = self.notes.onset_ticks.astype(np.int64)
        length = bar_ticks(self.meter)
        end = int((onset + self.notes.duration_ticks).max()) - HELD_OVER_TICKS
        return self.bars - max(int(onset.max()) // length + 1, -(-end // length))

    def last(self, bars: int) -> Stretch:
        """Its last bars."""
        before = max(self.bars - bars, 0) * bar_ticks(self.meter)
        return Stretch(_later(self.notes, -before), min(bars, self.bars), self.meter)

    def score(self, *, tempo_qpm: float) -> Score:
        """As a score of one tempo."""
        return Score.of(
            self.notes, ticks_per_quarter=TICKS_PER_QUARTER, tempos=[(0, tempo_qpm)], meters=[(0, *self.meter)]
        )


def of_score(score: Score, *, after_bars: int, bars: int, meter: tuple[int, int]) -> Stretch:
    """Bars of a score, from ``after_bars`` on; notes end with them."""
    held = score.with_resolution(TICKS_PER_QUARTER)
    notes = _later(held.notes, -after_bars * bar_ticks(meter))
    ticks = bars * bar_ticks(meter)
    notes = notes.take(notes.onset_ticks < ticks)
    room = np.minimum(notes.duration_ticks, ticks - notes.onset_ticks).astype(np.int32)
    return Stretch(replace(notes, duration_ticks=room), bars, meter)


def joined(stretches: Sequence[Stretch]) -> Stretch:
    """One after the other; at least one, all in one meter."""
    notes, bars, meter = [], 0, stretches[0].meter
    for stretch in stretches:
        notes.append(_later(stretch.notes, bars * bar_ticks(meter)))
        bars += stretch.bars
    columns = Notes.__dataclass_fields__
    return Stretch(Notes(*(np.concatenate([getattr(each, name) for each in notes]) for name in columns)), bars, meter)


def thinned(notes: Notes, *, polyphony: int) -> Notes:
    """Notes of which never more than ``polyphony`` sound at once: of those too many the inner ones are left out."""
    begin = notes.onset_ticks.astype(np.int64)
    end = begin + notes.duration_ticks
    stays = np.ones(len(notes), dtype=bool)
    for onset in np.unique(begin).tolist():
        sounding = np.flatnonzero(stays & (begin < onset) & (end > onset))
        new = np.flatnonzero(begin == onset)
        room = max(polyphony - len(sounding), 0)
        inorder = new[np.argsort(notes.pitch[new], kind="stable")].tolist()
        # From above and below by turns.
        outer = [inorder.pop(-1 if turn % 2 == 0 else 0) for turn in range(min(room, len(inorder)))]
        stays[np.setdiff1d(new, outer)] = False
    return notes.take(stays)


def shaded(notes: Notes, *, at_ticks: Sequence[float], levels: Sequence[float]) -> Notes:
    """Notes louder and softer by a curve.

    Args:
        at_ticks: rising; before the first and after the last the level stays.
        levels: -1 to 1 at each.
    """
    louder = LOUDER * np.interp(notes.onset_ticks, at_ticks, levels)
    velocity = np.clip(np.round(notes.velocity + louder), SOFTEST, LOUDEST)
    return replace(notes, velocity=velocity.astype(notes.velocity.dtype))


def ended(notes: Notes, *, from_ticks: int, to_ticks: int) -> Notes:
    """Notes of which those that begin first from a tick on are held to another, and none begins after them."""
    onset = notes.onset_ticks
    late = onset >= from_ticks
    if not late.any():
        return notes
    last = onset == onset[late].min()
    duration = np.where(last, to_ticks - onset, notes.duration_ticks).astype(np.int32)
    return replace(notes, duration_ticks=duration).take(~late | last)


def _later(notes: Notes, ticks: int) -> Notes:
    """Notes so much later; those that would begin before the first bar line are left out."""
    moved = replace(notes, onset_ticks=(notes.onset_ticks + np.int32(ticks)).astype(np.int32))
    return moved if ticks >= 0 else moved.take(moved.onset_ticks >= 0)
