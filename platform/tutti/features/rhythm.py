"""Time as a whole: bars, groove, density, polyphony, articulation; of many pieces at once.

Legend: W pieces, N notes, M meter changes, B bars of all pieces together.

Groove consistency is that of Wu and Yang (2020, "The Jazz Transformer on the front line", ISMIR) as MusPy counts it: 1
less the mean share of steps in which two neighbouring bars differ in that one begins a note there and the other does
not. A step is a 24th of a quarter, MusPy's default. We differ in that a bar is as long as its meter says, where MusPy
takes one length for a whole piece; two bars of unlike length are compared over the longer one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch, Starts, entry_at, reduced

Figures = NDArray[np.float64]
Index = NDArray[np.int64]

STEPS_PER_QUARTER = 24
LONGEST_LEGATO = 2.0
MOMENT_S = 0.05

_STEP_BITS = 31


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars of each piece, up to that of its last onset or a stated tick, numbered through all pieces.

    Args:
        of_note: bar of each onset; shape (N,).
        step_of_note: steps from the bar line to the onset, rounded; shape (N,).
        last_of_note: bar in which each note stops sounding, no later than the piece's last; shape (N,).
        starts: first bar of each piece; shape (W + 1,).
        steps: length of each bar; shape (B,).
    """

    of_note: Index
    step_of_note: Index
    last_of_note: Index
    starts: Starts
    steps: Index


@dataclass(frozen=True, slots=True)
class BarLines:
    """Where the bar lines of W pieces are, by their meters; a meter that changes inside a bar begins a new one.

    Args:
        batch: the pieces.
        bar_ticks: length of a bar of each meter, at least one tick; shape (M,).
        before: bars of its piece before each meter; shape (M,).
    """

    batch: ScoreBatch
    bar_ticks: Index
    before: Index

    @classmethod
    def of(cls, batch: ScoreBatch) -> BarLines:
        """Of all pieces."""
        piece = np.repeat(np.arange(len(batch)), np.diff(batch.meter_starts))
        # A meter of 4/0 or 0/4 does not pass the readers; a bar has at least one tick.
        quarter_ticks = batch.ticks_per_quarter.astype(np.int64)[piece]
        bar_ticks = np.maximum(4 * quarter_ticks * batch.meter_numerator // batch.meter_denominator, 1)
        lasts = np.diff(batch.meter_ticks.astype(np.int64), append=0)
        lasts[batch.meter_starts[1:] - 1] = 0
        bars_of_meter = -(-lasts // bar_ticks)
        before = np.cumsum(bars_of_meter) - bars_of_meter
        return cls(batch, bar_ticks, before - before[batch.meter_starts[:-1]][piece])

    def at(self, ticks: Index, piece: Index) -> tuple[Index, Index]:
        """Number within its piece of the bar that holds each tick, and the ticks from its bar line; of one shape."""
        meter_ticks = self.batch.meter_ticks
        meter = entry_at(ticks, piece, entry_ticks=meter_ticks, starts=self.batch.meter_starts)
        bar, ticks_in = np.divmod(ticks - meter_ticks[meter], self.bar_ticks[meter])
        return bar + self.before[meter], ticks_in


def bars(batch: ScoreBatch, *, steps_per_quarter: int = STEPS_PER_QUARTER, until_ticks: Index | None = None) -> Bars:
    """Where the bar lines are, by the meters.

    Args:
        batch: W pieces.
        steps_per_quarter: what steps are counted in.
        until_ticks: the tick of each piece whose bar is its last, no earlier than its last onset, in place of that
            onset; shape (W,).
    """
    lines = BarLines.of(batch)
    ticks_per_quarter = batch.ticks_per_quarter.astype(np.int64)
    piece, onset = batch.piece_of_note, batch.notes.onset_ticks.astype(np.int64)
    bar, ticks_in = lines.at(onset, piece)
    bar_of_end, _ = lines.at(onset + batch.notes.duration_ticks - 1, piece)
    if until_ticks is None:
        count = reduced(np.maximum, bar + 1, batch.note_starts)
    else:
        count = lines.at(until_ticks, np.arange(len(batch)))[0] + 1
    starts = np.concatenate(([0], np.cumsum(count)))
    first = starts[:-1][piece]
    return Bars(
        of_note=bar + first,
        step_of_note=(2 * ticks_in * steps_per_quarter // ticks_per_quarter[piece] + 1) // 2,
        last_of_note=np.minimum(bar_of_end, count[piece] - 1) + first,
        starts=starts,
        steps=_steps_of_bars(lines, starts=starts, steps_per_quarter=steps_per_quarter),
    )


def _steps_of_bars(lines: BarLines, *, starts: Starts, steps_per_quarter: int) -> Index:
    """Length of every bar in steps; shape (B,)."""
    batch = lines.batch
    piece_of_meter = np.repeat(np.arange(len(batch)), np.diff(batch.meter_starts))
    first_bar = np.minimum(lines.before + starts[piece_of_meter], starts[piece_of_meter + 1])
    lengths = np.diff(np.append(first_bar, starts[-1]))
    steps = lines.bar_ticks * steps_per_quarter // batch.ticks_per_quarter[piece_of_meter]
    return np.repeat(np.maximum(steps, 1), lengths)


def groove_consistency(bars: Bars) -> Figures:
    """Groove consistency of each piece, 0 to 1; 1 for a piece of one bar. Shape (W,)."""
    size = len(bars.starts) - 1
    begun = np.sort((bars.of_note << _STEP_BITS) + np.minimum(bars.step_of_note, 2**_STEP_BITS - 1))
    begun = begun[np.diff(begun, prepend=-1) != 0]
    bar = begun >> _STEP_BITS
    begun_in_bar = np.bincount(bar, minlength=int(bars.starts[-1]))
    # Steps that are begun in a bar and in the one after it.
    after = np.searchsorted(begun, begun + (1 << _STEP_BITS))
    common = np.bincount(
        bar[begun[np.minimum(after, len(begun) - 1)] == begun + (1 << _STEP_BITS)], minlength=len(begun_in_bar)
    )
    pairs = np.arange(len(begun_in_bar) - 1) if len(begun_in_bar) else np.empty(0, np.int64)
    piece_of_bar = np.repeat(np.arange(size), np.diff(bars.starts))
    pairs = pairs[piece_of_bar[pairs] == piece_of_bar[pairs + 1]]
    unlike = begun_in_bar[pairs] + begun_in_bar[pairs + 1] - 2 * common[pairs]
    share = unlike / np.maximum(bars.steps[pairs], bars.steps[pairs + 1])
    owner = piece_of_bar[pairs]
    return 1.0 - np.bincount(owner, weights=share, minlength=size) / np.maximum(np.bincount(owner, minlength=size), 1)


def empty_share(bars: Bars) -> Figures:
    """Share of the bars in which no note begins or sounds; 0 for a piece without bars. Shape (W,)."""
    total = int(bars.starts[-1])
    sounding = np.cumsum(
        np.bincount(bars.of_note, minlength=total + 1)
        - np.bincount(np.maximum(bars.last_of_note, bars.of_note) + 1, minlength=total + 1)
    )[:total]
    piece_of_bar = np.repeat(np.arange(len(bars.starts) - 1), np.diff(bars.starts))
    empty = np.bincount(piece_of_bar[sounding == 0], minlength=len(bars.starts) - 1)
    return empty / np.maximum(np.diff(bars.starts), 1)


def longest_meters(batch: ScoreBatch) -> list[str]:
    """The meter that holds for the longest time up to the end of each piece, such as ``3/4``; the first of equals."""
    piece = np.repeat(np.arange(len(batch)), np.diff(batch.meter_starts))
    ticks = batch.meter_ticks.astype(np.int64)
    until = np.append(ticks[1:], 0)
    until[batch.meter_starts[1:] - 1] = batch.end_ticks
    lasts = np.maximum(np.minimum(until, batch.end_ticks[piece]) - ticks, 0)
    names = [
        f"{above}/{below}"
        for above, below in zip(batch.meter_numerator.tolist(), batch.meter_denominator.tolist(), strict=True)
    ]
    longest = names[:] if len(names) == len(batch) else []
    if not longest:
        for begin, end in zip(batch.meter_starts[:-1].tolist(), batch.meter_starts[1:].tolist(), strict=True):
            held: dict[str, int] = {}
            for row in range(begin, end):
                held[names[row]] = held.get(names[row], 0) + int(lasts[row])
            longest.append(max(held, key=lambda name: held[name]))
    return longest


def notes_per_quarter(batch: ScoreBatch) -> Figures:
    """Notes over the quarters from the first onset to the last end, of which there is at least one; shape (W,)."""
    first = reduced(np.minimum, batch.notes.onset_ticks.astype(np.int64), batch.note_starts)
    quarters = (batch.end_ticks - first) / batch.ticks_per_quarter
    return np.asarray(np.diff(batch.note_starts) / np.maximum(quarters, 1.0))


def polyphony(batch: ScoreBatch) -> Figures:
    """Mean number of notes that sound where any sounds, 0 without notes; shape (W,)."""
    if not len(batch.notes):
        return np.zeros(len(batch))
    # Each piece lies after the one before it, so that one running maximum serves all.
    base = batch.piece_of_note << 33
    onset = base + batch.notes.onset_ticks
    end = onset + batch.notes.duration_ticks
    covered = np.concatenate(([-1], np.maximum.accumulate(end)[:-1]))
    sounding = np.clip(end - np.maximum(onset, covered), 0, None)
    total = np.bincount(batch.piece_of_note, weights=batch.notes.duration_ticks, minlength=len(batch))
    covers = np.bincount(batch.piece_of_note, weights=sounding, minlength=len(batch))
    return np.asarray(total / np.maximum(covers, 1))


def moments(batch: ScoreBatch) -> tuple[Index, Figures]:
    """Moments at which notes begin, and the seconds from the first onset to the last end; each of shape (W,).

    Onsets less than 50 ms after a moment's first belong to it: played chords are not struck at once (Goebl 2001,
    "Melody lead in piano performance": up to 30 ms).
    """
    seconds = batch.seconds_at(batch.notes.onset_ticks, batch.piece_of_note)
    frame = (batch.piece_of_note << 32) + np.floor(seconds / MOMENT_S).astype(np.int64)
    at = np.flatnonzero(np.diff(frame, prepend=-1) != 0)
    # A chord may lie across the border of two frames.
    crosses = (np.diff(frame[at]) == 1) & (np.diff(seconds[at]) < MOMENT_S)
    counted = at[np.append(True, ~crosses)] if len(at) else at
    first = reduced(np.minimum, batch.notes.onset_ticks.astype(np.int64), batch.note_starts)
    begins_s = batch.seconds_at(first, np.arange(len(batch)))
    return np.bincount(batch.piece_of_note[counted], minlength=len(batch)), batch.length_s - begins_s


def legato(batch: ScoreBatch) -> Figures:
    """Median of a note's duration over the time to the next onset of its part, at most 2; 1 where no part has two
    onsets. Shape (W,)."""
    if not len(batch.notes):
        return np.ones(len(batch))
    part = (batch.piece_of_note << 16) + batch.notes.track
    order = np.argsort((part << 31) + batch.notes.onset_ticks, kind="stable")
    part, onset = part[order], batch.notes.onset_ticks[order].astype(np.int64)
    begins = np.flatnonzero((np.diff(onset, prepend=-1) != 0) | (np.diff(part, prepend=-1) != 0))
    gap = np.append(np.where(np.diff(part[begins]) == 0, np.diff(onset[begins]), 0), 0)
    gap_of_note = np.repeat(gap, np.diff(np.append(begins, len(order))))
    known = gap_of_note > 0
    share = np.minimum(batch.notes.duration_ticks[order][known] / gap_of_note[known], LONGEST_LEGATO)
    piece = part[known] >> 16
    return _medians(share, piece, size=len(batch), empty=1.0)


def _medians(values: Figures, piece: Index, *, size: int, empty: float) -> Figures:
    """Median of the values, 0 to 2, of each piece to 2^-31; ``empty`` for a piece without any. Shape (size,)."""
    scale = 2.0**31
    packed = np.sort((piece << 33) + np.rint(values * scale).astype(np.int64))
    counts = np.bincount(piece, minlength=size)
    first = np.cumsum(counts) - counts
    low, high = first + np.maximum(counts - 1, 0) // 2, first + counts // 2
    made = np.full(size, empty)
    held = counts > 0
    mask = (1 << 33) - 1
    made[held] = ((packed[low[held]] & mask) + (packed[high[held]] & mask)) / (2 * scale)
    return made
