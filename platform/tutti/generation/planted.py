"""Notes that must be said: rows that compose around given notes say each of them at its place.

The grammar says what may come next (:mod:`tutti.generation.grammar`); this narrows it, for those rows that have planted
notes, so that none is passed: within a bar no position lies behind the next planted one, and within a position no note
comes before a planted one that sorts behind it (by program, duration, velocity and pitch, as the vocabulary sorts).
What is free before a planted note stays the model's to choose.

**A wish to pass is a wish for what is planted.** Where the model would go past a planted note (leave the bar, say a
later position or a note that sorts behind it), the mass of all that is added to the token that leads to the planted
note. Were it only forbidden, it would fall to the free notes before it, and the piece would clog.

**Weights.** The logarithm of the share that the leading token itself had of that mass, summed over a row, says how well
a draft fits what was planted: it is the importance weight of the draft, the proposal being the model itself (Liu 2001,
"Monte Carlo Strategies in Scientific Computing", chapter 2).

Legend: B rows of the batch, R rows with planted notes, N planted notes of all of them end to end, V vocabulary.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.features.grid import METER_TICKS, GridNotes
from tutti.features.vocabulary import BAR, END, EVENTS

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOST_FREE_AT_ONE_POSITION = 8
"""Notes beside planted ones."""
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


@dataclass(frozen=True, slots=True)
class Planting:
    """What one row must say, from its first bar on.

    Args:
        bar_meters: index into ``METERS`` of each bar of the piece; later bars keep the last.
        bar_ticks: where each bar begins, in ticks of the grid.
        notes: that must be said, sorted as the vocabulary sorts; their times count from the piece's beginning.
        own_programs: programs of planted notes that nobody else may play; shape (128,).
        drums: whether free notes may be drums.
        ceilings: from which tick on free notes lie below which pitch; rising ticks.
        most_free: notes beside planted ones at one position; so many pitches are always left to them.
    """

    bar_meters: Index
    bar_ticks: Index
    notes: GridNotes
    own_programs: Mask = field(default_factory=lambda: np.zeros(128, dtype=bool))
    drums: bool = False
    ceilings: tuple[tuple[int, int], ...] = ()
    most_free: int = MOST_FREE_AT_ONE_POSITION

    @property
    def new_meter(self) -> Mask:
        """Bars that begin another meter than the bar before them; shape (bars,)."""
        return np.append(True, self.bar_meters[1:] != self.bar_meters[:-1])


def no_notes() -> GridNotes:
    """Nothing that must be said."""
    small = np.zeros(0, dtype=np.uint16)
    return GridNotes(np.zeros(0, dtype=np.int64), small, small, small, small)


def _no_numbers() -> Index:
    return np.zeros(0, dtype=np.int64)


def _no_answers() -> Mask:
    return np.zeros(0, dtype=bool)


def _no_pitches() -> Mask:
    return np.zeros((0, 128), dtype=bool)


def _no_figures() -> NDArray[np.float64]:
    return np.zeros(0)


@dataclass
class Planted:
    """State of R rows, each where it stands; columns of one length but for the notes, which are shared.

    Attributes:
        row_R: place in the batch.
        next_R, stop_R: of the notes, the next one that a row must say, and the end of its own.
        last_kind_R, bars_R, position_R, program_R, duration_R, velocity_R: what the row has said last, -1: nothing yet.
        free_R: free notes at this position.
        bound_R, drum_here_R: whether a program waits for its pitch, and whether a drum was struck at this position.
        waiting_RP, waiting_drums_RP: pitches and drum keys that are planted at this position and not said yet.
        own_RP: programs that only planted notes may play.
        drums_R: whether free notes may be drums.
        ceiling_R: free notes lie below it.
        most_free_R: free notes at one position.
        log_weight_R: see the module.
    """

    plantings: list[Planting] = field(default_factory=list)
    row_R: Index = field(default_factory=_no_numbers)
    next_R: Index = field(default_factory=_no_numbers)
    stop_R: Index = field(default_factory=_no_numbers)
    last_kind_R: Index = field(default_factory=_no_numbers)
    bars_R: Index = field(default_factory=_no_numbers)
    position_R: Index = field(default_factory=_no_numbers)
    program_R: Index = field(default_factory=_no_numbers)
    duration_R: Index = field(default_factory=_no_numbers)
    velocity_R: Index = field(default_factory=_no_numbers)
    free_R: Index = field(default_factory=_no_numbers)
    bound_R: Mask = field(default_factory=_no_answers)
    drum_here_R: Mask = field(default_factory=_no_answers)
    drums_R: Mask = field(default_factory=_no_answers)
    ceiling_R: Index = field(default_factory=_no_numbers)
    most_free_R: Index = field(default_factory=_no_numbers)
    log_weight_R: NDArray[np.float64] = field(default_factory=_no_figures)
    waiting_RP: Mask = field(default_factory=_no_pitches)
    waiting_drums_RP: Mask = field(default_factory=_no_pitches)
    own_RP: Mask = field(default_factory=_no_pitches)
    # Of all notes: bar (from 1), position in it, and the vocabulary's values; how many more stand at the same place.
    note_bar_N: Index = field(default_factory=_no_numbers)
    note_position_N: Index = field(default_factory=_no_numbers)
    note_program_N: Index = field(default_factory=_no_numbers)
    note_duration_N: Index = field(default_factory=_no_numbers)
    note_velocity_N: Index = field(default_factory=_no_numbers)
    note_pitch_N: Index = field(default_factory=_no_numbers)
    note_left_N: Index = field(default_factory=_no_numbers)
    forced_R: Index = field(default_factory=_no_numbers)
    gain_R: NDArray[np.float64] = field(default_factory=_no_figures)

    def __len__(self) -> int:
        return len(self.row_R)

    @classmethod
    def of(cls, planting: Planting, *, given: Sequence[int]) -> Planted:
        """One row, after tokens that it was given, its controls not among them."""
        notes = planting.notes
        bar = np.searchsorted(planting.bar_ticks, notes.time_ticks, side="right")
        position = notes.time_ticks - planting.bar_ticks[np.maximum(bar - 1, 0)]
        one = np.zeros(1, dtype=np.int64)
        # Of a run of equal places, how many from each note to its end.
        place = notes.time_ticks
        ends = np.searchsorted(place, place, side="right")
        row = cls(
            plantings=[planting],
            row_R=one.copy(), next_R=one.copy(), stop_R=one + len(notes), last_kind_R=one + _KIND["Start"],
            bars_R=one.copy(), position_R=one + _NONE, program_R=one + _NONE, duration_R=one + _NONE,
            velocity_R=one + _NONE, free_R=one.copy(), bound_R=one > 0, drum_here_R=one > 0,
            drums_R=np.array([planting.drums]), ceiling_R=one + 128, most_free_R=one + planting.most_free,
            log_weight_R=np.zeros(1),
            waiting_RP=np.zeros((1, 128), dtype=bool), waiting_drums_RP=np.zeros((1, 128), dtype=bool),
            own_RP=planting.own_programs[None].copy(),
            note_bar_N=bar.astype(np.int64), note_position_N=position.astype(np.int64),
            note_program_N=notes.program.astype(np.int64), note_duration_N=notes.duration.astype(np.int64),
            note_velocity_N=notes.velocity.astype(np.int64), note_pitch_N=notes.pitch.astype(np.int64),
            note_left_N=(ends - np.arange(len(notes))).astype(np.int64),
            forced_R=one + _NONE, gain_R=np.zeros(1),
        )  # fmt: skip
        # Only what the last bar said matters, and how many bars there are.
        bars = [index for index, token in enumerate(given) if token == BAR]
        if bars:
            row.bars_R[:] = len(bars) - 1
            for token in given[bars[-1] :]:
                row.advance(np.array([token]))
        return row

    def join(self, other: Planted, *, row: int) -> None:
        """Take one row more, which stands at ``row`` of the batch."""
        offset = len(self.note_bar_N)
        moved = replace(other, row_R=np.array([row]), next_R=other.next_R + offset, stop_R=other.stop_R + offset)
        self.plantings = self.plantings + other.plantings
        for name in _COLUMNS:
            setattr(self, name, np.concatenate((getattr(self, name), getattr(moved, name))))

    def keep(self, rows: Index) -> None:
        """Forget all rows of the batch but these."""
        if not len(self):
            return
        now = np.full(max(int(rows.max(initial=-1)), int(self.row_R.max())) + 1, _NONE)
        now[rows] = np.arange(len(rows))
        stays = np.flatnonzero(now[self.row_R] != _NONE)
        self.plantings = [self.plantings[row] for row in stays.tolist()]
        for name in _COLUMNS_R:
            setattr(self, name, getattr(self, name)[stays])
        self.row_R = now[self.row_R]
        if not len(stays):
            for name in _COLUMNS_N:
                setattr(self, name, getattr(self, name)[:0])

    def weight(self, row: int) -> float:
        """Logarithm of the importance weight of a row of the batch, nats; 0 where it has nothing planted."""
        found = np.flatnonzero(self.row_R == row)
        return float(self.log_weight_R[found[0]]) if len(found) else 0.0

    def narrow(self, logits_BV: NDArray[np.float32], allowed_BV: Mask) -> tuple[NDArray[np.float32], Mask]:
        """Logits and allowed tokens of the batch, with those of the rows that have something planted led to it."""
        base = allowed_BV[self.row_R]
        mask = base.copy()
        next_ = _Next(self)
        self._meters(mask)
        self._positions(mask, next_)
        forced = np.full(len(self), _NONE)
        leading = next_.ahead & _LEAVES[self.last_kind_R]
        forced[leading] = (_FIRST["Position"] + next_.position)[leading]
        self._notes(mask, next_)
        self._free(mask, next_)
        self._lead(forced, next_)
        due = self._due()
        forced[due] = _NONE
        mask[due] = False
        mask[due, _FIRST["Meter"] + self._meter_of_bar()[due]] = True
        led = np.flatnonzero(forced != _NONE)
        mask[led, forced[led]] = True
        out_BV, allowed_BV = logits_BV.copy(), allowed_BV.copy()
        passing = base & ~mask
        self._lend(out_BV, mask, passing, next_)
        scores = np.where(passing[led], logits_BV[self.row_R[led]], -np.inf).astype(np.float64)
        own = logits_BV[self.row_R[led], forced[led]].astype(np.float64)
        most = np.maximum(scores.max(axis=1, initial=-np.inf), own)
        joined = most + np.log(np.exp(scores - most[:, None]).sum(axis=1) + np.exp(own - most))
        out_BV[self.row_R[led], forced[led]] = joined
        allowed_BV[self.row_R] = mask
        self.forced_R = forced
        self.gain_R = np.zeros(len(self))
        self.gain_R[led] = own - joined
        return out_BV, allowed_BV

    def advance(self, tokens_B: NDArray[np.integer]) -> None:
        """Follow the token that each row of the batch chose."""
        tokens = np.asarray(tokens_B)[self.row_R].astype(np.int64)
        self.log_weight_R = self.log_weight_R + np.where(tokens == self.forced_R, self.gain_R, 0.0)
        self.forced_R = np.full(len(self), _NONE)
        kinds = EVENTS.kind_of[tokens].astype(np.int64)
        said = {name: kinds == _KIND[name] for name in ("Bar", "Position", *_NOTE_TOKENS)}
        bar, position = said["Bar"], said["Position"]
        self.bars_R = self.bars_R + bar
        for held in (self.position_R, self.program_R, self.duration_R, self.velocity_R):
            held[bar] = _NONE
        self.position_R[position] = tokens[position] - _FIRST["Position"]
        for kind, held in (
            ("Program", self.program_R), ("Duration", self.duration_R), ("Velocity", self.velocity_R),
        ):  # fmt: skip
            held[said[kind]] = tokens[said[kind]] - _FIRST[kind]
        note = said["Pitch"] | said["Drum"]
        self.bound_R = (self.bound_R | said["Program"]) & ~note
        self.drum_here_R = self.drum_here_R | said["Drum"]
        self.last_kind_R = kinds
        self._say(np.flatnonzero(note), tokens)
        moved = np.flatnonzero(bar | position)
        self.free_R[moved] = 0
        self.bound_R[moved] = self.drum_here_R[moved] = False
        self.waiting_RP[moved] = self.waiting_drums_RP[moved] = False
        for row in np.flatnonzero(position).tolist():
            self._arrive(row)

    def _say(self, rows: Index, tokens: Index) -> None:
        """Take a planted note off where it was said; others are free ones."""
        next_ = _Next(self)
        is_drum = self.last_kind_R == _KIND["Drum"]
        pitch = tokens - np.where(is_drum, _FIRST["Drum"], _FIRST["Pitch"])
        program = np.where(is_drum, DRUM_PROGRAM, self.program_R)
        planted = (
            next_.here & (program == next_.program) & (self.duration_R == next_.duration)
            & (self.velocity_R == next_.velocity) & (pitch == next_.pitch)
        )  # fmt: skip
        for row in rows.tolist():
            if planted[row]:
                self.next_R[row] += 1
                if not self._waits(int(self.next_R[row]), pitch=int(pitch[row]), is_drum=bool(is_drum[row])):
                    (self.waiting_drums_RP if is_drum[row] else self.waiting_RP)[row, pitch[row]] = False
            else:
                self.free_R[row] += 1

    def _waits(self, note: int, *, pitch: int, is_drum: bool) -> bool:
        """Whether another note at the place of the one before ``note`` has this pitch: those of two programs may."""
        left = int(self.note_left_N[note - 1]) - 1
        here = slice(note, note + left)
        drums = self.note_program_N[here] == DRUM_PROGRAM
        return bool(((self.note_pitch_N[here] == pitch) & (drums == is_drum)).any())

    def _arrive(self, row: int) -> None:
        """A row came to a position: what waits here, and how high free notes may lie."""
        first = int(self.next_R[row])
        planting, bar = self.plantings[row], int(self.bars_R[row])
        if first < self.stop_R[row] and (self.note_bar_N[first], self.note_position_N[first]) == (
            bar, self.position_R[row],
        ):  # fmt: skip
            here = slice(first, first + int(self.note_left_N[first]))
            drums = self.note_program_N[here] == DRUM_PROGRAM
            self.waiting_RP[row, self.note_pitch_N[here][~drums]] = True
            self.waiting_drums_RP[row, self.note_pitch_N[here][drums]] = True
        if planting.ceilings:
            tick = int(planting.bar_ticks[min(bar, len(planting.bar_ticks)) - 1] + self.position_R[row])
            place = bisect_right(planting.ceilings, (tick, 128)) - 1
            self.ceiling_R[row] = planting.ceilings[place][1] if place >= 0 else 128

    def _meter_of_bar(self) -> Index:
        """Of the bar that each row is in; shape (R,)."""
        bars = self.bars_R.tolist()
        return np.array([
            int(planting.bar_meters[min(bar, len(planting.bar_meters)) - 1])
            for planting, bar in zip(self.plantings, bars, strict=True)
        ], dtype=np.int64)  # fmt: skip

    def _due(self) -> Mask:
        """Rows that must say a meter now; shape (R,)."""
        due: Mask = self.last_kind_R == _KIND["Bar"]
        for row in np.flatnonzero(due).tolist():
            new_meter = self.plantings[row].new_meter
            due[row] = self.bars_R[row] <= len(new_meter) and new_meter[self.bars_R[row] - 1]
        return due

    def _meters(self, mask: Mask) -> None:
        mask[:, _SPAN["Meter"]] = False
        # A piece that begins with an upbeat leaves its first position to the tempo alone.
        opening = np.flatnonzero(self.last_kind_R == _KIND["Tempo"])
        ticks = METER_TICKS[self._meter_of_bar()[opening]]
        later = (_SIZES["Position"] > self.position_R[opening, None]) & (_SIZES["Position"] < ticks[:, None])
        mask[opening, _SPAN["Position"]] = later
        ends = self.bars_R[opening] >= [len(self.plantings[row].bar_meters) for row in opening.tolist()]
        mask[opening, BAR] = ~ends

    def _positions(self, mask: Mask, next_: _Next) -> None:
        behind = _SIZES["Position"] > np.where(next_.here, _NONE, next_.position)[:, None]
        mask[:, _SPAN["Position"]] &= ~(behind & (next_.ahead | next_.here)[:, None])
        for token in (BAR, END):
            mask[:, token] &= ~(next_.ahead | next_.here)

    def _notes(self, mask: Mask, next_: _Next) -> None:
        """Within the position of a planted note nothing may sort behind it."""
        pitched, drummed = next_.here & ~next_.is_drum, next_.here & next_.is_drum
        program, duration, velocity = self.program_R, self.duration_R, self.velocity_R
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
            | (same[:, None] & self.waiting_RP)
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
            | (drummed[:, None] & self.waiting_drums_RP)
        )

    def _sings(self) -> Mask:
        """Rows whose running program a free note may play; shape (R,)."""
        own = np.take_along_axis(self.own_RP, np.maximum(self.program_R, 0)[:, None], axis=1)[:, 0]
        sings: Mask = (self.program_R != _NONE) & ~own & ~self.drum_here_R
        return sings

    def _free(self, mask: Mask, next_: _Next) -> None:
        """Free notes leave the planted ones' programs alone, and lie below the ceiling."""
        mask[:, _SPAN["Program"]] &= ~self.own_RP
        mute = (self.program_R != _NONE) & ~self.drum_here_R & ~self._sings()
        mask[:, _SPAN["Pitch"]] &= ~mute[:, None]
        silent = mute & ~(self.drums_R & ~(next_.here & ~next_.is_drum))
        for kind in ("Duration", "Velocity"):
            mask[:, _SPAN[kind]] &= ~silent[:, None]
        mask[:, _SPAN["Pitch"]] &= _SIZES["Pitch"] < self.ceiling_R[:, None]
        full = (self.free_R >= self.most_free_R) & _STARTS_NOTES[self.last_kind_R]
        for kind in _NOTE_TOKENS:
            mask[:, _SPAN[kind]] &= ~full[:, None]

    def _lend(self, logits_BV: NDArray[np.float32], mask: Mask, passing: Mask, next_: _Next) -> None:
        """A wish for a note of a program that only planted notes may play becomes one for any program that may play."""
        begins = _STARTS_NOTES[self.last_kind_R] & ~next_.here & ~self._sings() & (self.program_R != _NONE)
        for row in np.flatnonzero(begins).tolist():
            may, logits_V = mask[row, _SPAN["Program"]], logits_BV[self.row_R[row]]
            wished = passing[row] & _IS_NOTE_TOKEN
            if may.any() and wished.any():
                programs_P = logits_V[_SPAN["Program"]]
                all_V = np.concatenate((logits_V[wished], programs_P[may])).astype(np.float64)
                programs_P[may] += np.float32(_log_sum(all_V) - _log_sum(programs_P[may].astype(np.float64)))
                passing[row] &= ~wished

    def _lead(self, forced: Index, next_: _Next) -> None:
        """The next token on the way to a planted note of this position."""
        last = self.last_kind_R
        begins = _STARTS_NOTES[last] & next_.here
        ready = next_.is_drum | (self.program_R == next_.program)
        length, loudness = self.duration_R == next_.duration, self.velocity_R == next_.velocity
        mine = next_.here & ready & ~(next_.is_drum & self.bound_R)
        on_way = begins | (mine & (last == _KIND["Program"]))
        on_way |= mine & length & (last == _KIND["Duration"])
        on_way |= mine & length & loudness & (last == _KIND["Velocity"])
        steps = (
            (~ready, _FIRST["Program"] + next_.program),
            (~length, _FIRST["Duration"] + next_.duration),
            (~loudness, _FIRST["Velocity"] + next_.velocity),
            (np.ones(len(self), dtype=bool), np.where(next_.is_drum, _FIRST["Drum"], _FIRST["Pitch"]) + next_.pitch),
        )
        for lacks, token in steps:
            now = on_way & lacks
            forced[now] = token[now]
            on_way &= ~lacks


class _Next:
    """The next planted note of each row: where and what; shape (R,) each."""

    def __init__(self, planted: Planted) -> None:
        has = planted.next_R < planted.stop_R
        at = np.where(has, planted.next_R, 0)

        def of(column: Index) -> Index:
            return np.where(has, column[at], _NONE) if len(column) else np.full(len(has), _NONE)

        self.position, self.program = of(planted.note_position_N), of(planted.note_program_N)
        self.duration, self.velocity = of(planted.note_duration_N), of(planted.note_velocity_N)
        self.pitch = of(planted.note_pitch_N)
        self.is_drum: Mask = self.program == DRUM_PROGRAM
        in_bar = has & (of(planted.note_bar_N) == planted.bars_R)
        self.here: Mask = in_bar & (self.position == planted.position_R)
        self.ahead: Mask = in_bar & ~self.here


_COLUMNS = tuple(each.name for each in fields(Planted) if each.name != "plantings")
_COLUMNS_N = tuple(name for name in _COLUMNS if name.endswith("_N"))
_COLUMNS_R = tuple(name for name in _COLUMNS if not name.endswith("_N"))
