"""What may come before a planted note: a batch's allowed tokens, narrowed for the rows that have planted notes.

The grammar says what may come next (:mod:`tutti.generation.grammar`); this narrows it, so that no planted note is
passed: within a bar no position lies behind the next planted one, and within a position no note comes before a planted
one that sorts behind it (by program, duration, velocity and pitch, as the vocabulary sorts). Nor is the beginning of a
chord passed, where a free note must begin. What is free before that stays the model's to choose, within what binds it.

**A wish to pass is a wish for what is planted.** Where the model would go past a planted note (leave the bar, say a
later position or a note that sorts behind it), the mass of all that is added to the token that leads to the planted
note. Were it only forbidden, it would fall to the free notes before it, and the piece would clog.

Legend: B rows of the batch, R rows with planted notes, P pitches, Q programs, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.features.grid import METER_TICKS
from tutti.features.vocabulary import BAR, END, EVENTS
from tutti.generation.planted import Next, Planted
from tutti.generation.planting import COMPASS, MOST_FREE_AT_ONE_POSITION
from tutti.generation.timetable import FAR

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

_KIND = {name: number for number, name in enumerate(EVENTS.kinds)}
_SPAN = {name: slice(EVENTS.span(name).start, EVENTS.span(name).stop) for name in EVENTS.kinds}
_FIRST = {name: EVENTS.first(name) for name in EVENTS.kinds}
_SIZES = {name: np.arange(len(EVENTS.span(name))) for name in ("Position", "Program", "Duration", "Velocity", "Pitch")}
_STARTS_NOTES = np.isin(np.arange(len(_KIND)), [_KIND[name] for name in ("Position", "Tempo", "Pitch", "Drum")])
_LEAVES = np.isin(np.arange(len(_KIND)), [_KIND[name] for name in ("Bar", "Meter", "Tempo", "Pitch", "Drum")])
_NOTE_TOKENS = ("Program", "Duration", "Velocity", "Pitch", "Drum")
_IS_NOTE_TOKEN = np.isin(EVENTS.kind_of, [_KIND[name] for name in _NOTE_TOKENS])
_NONE = -1


def _log_sum(logs: NDArray[np.float64]) -> float:
    """Logarithm of the sum of what they are logarithms of."""
    most = logs.max()
    return float(most + np.log(np.exp(logs - most).sum()))


def narrowed(
    planted: Planted, logits_BV: NDArray[np.float32], *, allowed_BV: Mask, pitches_BP: Mask
) -> tuple[NDArray[np.float32], Mask]:
    """Logits and allowed tokens of the batch, with those of the rows that have something planted led to it.

    Args:
        planted: where its rows stand; what leads them is noted there.
        pitches_BP: that the grammar allows at the position where each row is; shape (B, 128).
    """
    return _Narrowing(planted, pitches_BP).of(logits_BV, allowed_BV)


class _Narrowing:
    """One step of all rows that have something planted."""

    def __init__(self, planted: Planted, pitches_BP: Mask) -> None:
        self._rows, self._next = planted, Next(planted)
        # Until a chord's bass is there nobody leaves; after it, free notes lie above or double it.
        self._owed: Mask = planted.lowest_R == COMPASS
        above = _SIZES["Pitch"] > planted.lowest_R[:, None]
        ruled = planted.lowest_R[:, None] >= 0
        self._may_RP = pitches_BP[planted.row_R] & planted.may_RP & (~ruled | planted.bass_RP | above)
        self._stop = np.minimum(np.where(self._next.ahead, self._next.position, FAR), planted.must_R)

    def of(self, logits_BV: NDArray[np.float32], allowed_BV: Mask) -> tuple[NDArray[np.float32], Mask]:
        """See :func:`narrowed`."""
        rows = self._rows
        base = allowed_BV[rows.row_R]
        mask = base.copy()
        self._meters(mask)
        self._positions(mask)
        self._notes(mask)
        self._free(mask)
        forced = self._forced()
        due = self._due()
        forced[due] = _NONE
        mask[due] = False
        mask[due, _FIRST["Meter"] + rows.meter_of_bar()[due]] = True
        led = np.flatnonzero(forced != _NONE)
        mask[led, forced[led]] = True
        # Where what is kept takes all voices of a last bar, it stays without a new note.
        mask[rows.counted_R & ~mask.any(axis=1), END] = True
        out_BV, allowed_BV = logits_BV.copy(), allowed_BV.copy()
        passing = base & ~mask
        self._lend(out_BV, mask, passing)
        scores = np.where(passing[led], logits_BV[rows.row_R[led]], -np.inf).astype(np.float64)
        own = logits_BV[rows.row_R[led], forced[led]].astype(np.float64)
        most = np.maximum(scores.max(axis=1, initial=-np.inf), own)
        joined = most + np.log(np.exp(scores - most[:, None]).sum(axis=1) + np.exp(own - most))
        out_BV[rows.row_R[led], forced[led]] = joined
        allowed_BV[rows.row_R] = mask
        rows.forced_R = forced
        rows.gain_R = np.zeros(len(rows))
        rows.gain_R[led] = own - joined
        return out_BV, allowed_BV

    def _due(self) -> Mask:
        """Rows that must say a meter now; shape (R,)."""
        rows = self._rows
        due: Mask = rows.last_kind_R == _KIND["Bar"]
        for row in np.flatnonzero(due).tolist():
            new_meter = rows.plantings[row].new_meter
            due[row] = rows.bars_R[row] <= len(new_meter) and new_meter[rows.bars_R[row] - 1]
        return due

    def _meters(self, mask: Mask) -> None:
        rows = self._rows
        mask[:, _SPAN["Meter"]] = False
        # A piece that begins with an upbeat leaves its first position to the tempo alone.
        opening = np.flatnonzero(rows.last_kind_R == _KIND["Tempo"])
        ticks = METER_TICKS[rows.meter_of_bar()[opening]]
        later = (_SIZES["Position"] > rows.position_R[opening, None]) & (_SIZES["Position"] < ticks[:, None])
        mask[opening, _SPAN["Position"]] = later
        ends = rows.bars_R[opening] >= [len(rows.plantings[row].bar_meters) for row in opening.tolist()]
        mask[opening, BAR] = ~ends

    def _positions(self, mask: Mask) -> None:
        """No position behind the next planted note or chord, none without a voice; and nobody leaves a debt."""
        here = self._next.here | self._owed
        stops = here | (self._stop < FAR)
        mask[:, _SPAN["Position"]] &= _SIZES["Position"] <= np.where(here, _NONE, self._stop)[:, None]
        for row in np.flatnonzero(self._rows.counted_R & ~here).tolist():
            mask[row, _SPAN["Position"]] &= ~self._rows.full(row, _SIZES["Position"])
        for token in (BAR, END):
            mask[:, token] &= ~stops

    def _notes(self, mask: Mask) -> None:
        """Within the position of a planted note nothing may sort behind it."""
        rows, next_ = self._rows, self._next
        pitched, drummed = next_.here & ~next_.is_drum, next_.here & next_.is_drum
        program, duration, velocity = rows.program_R, rows.duration_R, rows.velocity_R
        unset_or_longer = (duration == _NONE) | (duration > next_.duration)
        same_length = duration == next_.duration
        louder = same_length & ((velocity == _NONE) | (velocity > next_.velocity))
        level = same_length & (velocity == next_.velocity)
        longer = _SIZES["Duration"] > next_.duration[:, None]
        loud = _SIZES["Velocity"] > next_.velocity[:, None]
        high = _SIZES["Pitch"] > next_.pitch[:, None]

        mask[:, _SPAN["Program"]] &= ~(pitched[:, None] & (_SIZES["Program"] > next_.program[:, None]))
        mask[:, _SPAN["Drum"]] &= ~pitched[:, None]
        # A program that runs on from the position before, and sorts behind, would bar the way.
        beyond = pitched & ((program == _NONE) | (program > next_.program))
        same = pitched & (program == next_.program)
        mask[:, _SPAN["Duration"]] &= ~(beyond[:, None] | (same[:, None] & longer))
        mask[:, _SPAN["Velocity"]] &= ~(
            (beyond | (same & unset_or_longer))[:, None] | ((same & same_length)[:, None] & loud)
        )
        mask[:, _SPAN["Pitch"]] &= ~(
            (beyond | (same & (unset_or_longer | louder)))[:, None]
            | ((same & level)[:, None] & high)
            | (same[:, None] & rows.waiting_RP)
        )
        # Before a drum every melodic note may come, if one can.
        tuneless = drummed & ~self._sings()
        mask[:, _SPAN["Duration"]] &= ~(tuneless[:, None] & longer)
        mask[:, _SPAN["Velocity"]] &= ~(
            (tuneless & unset_or_longer)[:, None] | ((tuneless & same_length)[:, None] & loud)
        )
        mask[:, _SPAN["Drum"]] &= ~(
            (drummed & (unset_or_longer | louder))[:, None]
            | ((drummed & level)[:, None] & high)
            | (drummed[:, None] & rows.waiting_drums_RP)
        )

    def _in_range(self) -> Mask:
        """Pitches in the running program's range; shape (R, P)."""
        running = np.maximum(self._rows.program_R, 0)[:, None]
        low = np.take_along_axis(self._rows.low_RQ, running, axis=1)
        high = np.take_along_axis(self._rows.high_RQ, running, axis=1)
        found: Mask = (low <= _SIZES["Pitch"]) & (_SIZES["Pitch"] <= high)
        return found

    def _sings(self) -> Mask:
        """Rows whose running program a free note may play; shape (R,)."""
        rows = self._rows
        running = np.maximum(rows.program_R, 0)[:, None]
        plays = np.take_along_axis(rows.programs_RQ, running, axis=1)[:, 0]
        left = self._may_RP & self._in_range() & ~rows.said_RP & ~rows.waiting_RP
        sings: Mask = (rows.program_R != _NONE) & plays & ~rows.drum_here_R & left.any(axis=1)
        return sings

    def _free(self, mask: Mask) -> None:
        """Free notes keep to what binds them, and leave the planted ones' programs alone."""
        rows, next_, sings = self._rows, self._next, self._sings()
        below: Index = np.zeros((len(rows), COMPASS + 1), dtype=np.int64)
        np.cumsum(self._may_RP & ~rows.waiting_RP, axis=1, out=below[:, 1:])
        reach = np.take_along_axis(below, rows.high_RQ + 1, axis=1) > np.take_along_axis(below, rows.low_RQ, axis=1)
        mask[:, _SPAN["Program"]] &= rows.programs_RQ & reach
        mask[:, _SPAN["Pitch"]] &= self._may_RP & self._in_range() & (sings | (rows.program_R == _NONE))[:, None]
        strikes = rows.drums_R & ~(next_.here & ~next_.is_drum) & ~self._owed
        silent = ~sings & ~strikes & ~(rows.drum_here_R & ~self._owed)
        for kind in ("Duration", "Velocity"):
            mask[:, _SPAN[kind]] &= ~silent[:, None]
        mask[:, _SPAN["Drum"]] &= ~self._owed[:, None]
        full = (rows.free_R >= MOST_FREE_AT_ONE_POSITION) | (rows.voices_R <= 0)
        full &= _STARTS_NOTES[rows.last_kind_R]
        for kind in _NOTE_TOKENS:
            mask[:, _SPAN[kind]] &= ~full[:, None]

    def _lend(self, logits_BV: NDArray[np.float32], mask: Mask, passing: Mask) -> None:
        """A wish for a note of a program that only planted notes may play becomes one for any program that may play."""
        rows = self._rows
        begins = _STARTS_NOTES[rows.last_kind_R] & ~self._next.here & ~self._sings() & (rows.program_R != _NONE)
        for row in np.flatnonzero(begins).tolist():
            may, logits_V = mask[row, _SPAN["Program"]], logits_BV[rows.row_R[row]]
            wished = passing[row] & _IS_NOTE_TOKEN
            if may.any() and wished.any():
                programs_P = logits_V[_SPAN["Program"]]
                all_V = np.concatenate((logits_V[wished], programs_P[may])).astype(np.float64)
                programs_P[may] += np.float32(_log_sum(all_V) - _log_sum(programs_P[may].astype(np.float64)))
                passing[row] &= ~wished

    def _forced(self) -> Index:
        """The next token on the way to a planted note or to a chord's beginning; -1: none. Shape (R,)."""
        rows, next_, last = self._rows, self._next, self._rows.last_kind_R
        forced = np.full(len(rows), _NONE)
        # Who sorts before a planted note and owes a bass says it first, for behind that note it cannot.
        first = self._owed & (rows.top_R < next_.program)
        leading = ~next_.here & ~self._owed & (self._stop < FAR) & _LEAVES[last]
        forced[leading] = _FIRST["Position"] + self._stop[leading]
        begins = _STARTS_NOTES[last] & next_.here & ~first
        ready = next_.is_drum | (rows.program_R == next_.program)
        length, loudness = rows.duration_R == next_.duration, rows.velocity_R == next_.velocity
        mine = next_.here & ready & ~(next_.is_drum & rows.bound_R) & ~first
        on_way = begins | (mine & (last == _KIND["Program"]))
        on_way |= mine & length & (last == _KIND["Duration"])
        on_way |= mine & length & loudness & (last == _KIND["Velocity"])
        steps = (
            (~ready, _FIRST["Program"] + next_.program),
            (~length, _FIRST["Duration"] + next_.duration),
            (~loudness, _FIRST["Velocity"] + next_.velocity),
            (np.ones(len(rows), dtype=bool), np.where(next_.is_drum, _FIRST["Drum"], _FIRST["Pitch"]) + next_.pitch),
        )
        for lacks, token in steps:
            now = on_way & lacks
            forced[now] = token[now]
            on_way &= ~lacks
        return forced
