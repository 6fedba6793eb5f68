"""Where rows stand that compose around planted notes (:mod:`tutti.generation.planting`), each by the tokens it said.

What may be said next follows from it (:mod:`tutti.generation.narrowing`).

**Weights.** The logarithm of the share that the leading token itself had of the mass that it was lent, summed over a
row, says how well a draft fits what was planted: it is the importance weight of the draft, the proposal being the model
itself (Liu 2001, "Monte Carlo Strategies in Scientific Computing", chapter 2).

Legend: B rows of the batch, R rows with planted notes, N planted notes of all of them end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.features.grid import DURATIONS, METER_TICKS
from tutti.features.vocabulary import BAR, EVENTS
from tutti.generation.planting import COMPASS, MOST_VOICES, Planting
from tutti.generation.timetable import FAR

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

_KIND = {name: number for number, name in enumerate(EVENTS.kinds)}
_FIRST = {name: EVENTS.first(name) for name in EVENTS.kinds}
_NOTE_TOKENS = ("Program", "Duration", "Velocity", "Pitch", "Drum")
_NONE = -1


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
        programs_RQ: programs that free notes may play; Q programs.
        low_RQ, high_RQ: ranges of programs.
        may_RP: pitches that free notes may have at this position.
        bass_RP, lowest_R: where a chord begins, of which pitches the lowest free note is, and which one that is; 128:
            none yet, and one must come; -1: no rule.
        top_R: highest program that can say such a note.
        said_RP: pitches that free notes have said here in the running program.
        counted_R: whether voices are counted.
        voices_R, end_RV: voices left at this position, and until when free notes sound; V voices.
        must_R: next position in this bar at which a chord begins, FAR: none.
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
    counted_R: Mask = field(default_factory=_no_answers)
    voices_R: Index = field(default_factory=_no_numbers)
    lowest_R: Index = field(default_factory=_no_numbers)
    top_R: Index = field(default_factory=_no_numbers)
    must_R: Index = field(default_factory=_no_numbers)
    end_RV: Index = field(default_factory=lambda: np.zeros((0, MOST_VOICES), dtype=np.int64))
    log_weight_R: NDArray[np.float64] = field(default_factory=_no_figures)
    waiting_RP: Mask = field(default_factory=_no_pitches)
    waiting_drums_RP: Mask = field(default_factory=_no_pitches)
    own_RP: Mask = field(default_factory=_no_pitches)
    programs_RQ: Mask = field(default_factory=_no_pitches)
    may_RP: Mask = field(default_factory=_no_pitches)
    bass_RP: Mask = field(default_factory=_no_pitches)
    said_RP: Mask = field(default_factory=_no_pitches)
    low_RQ: Index = field(default_factory=lambda: np.zeros((0, COMPASS), dtype=np.int64))
    high_RQ: Index = field(default_factory=lambda: np.zeros((0, COMPASS), dtype=np.int64))
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
            drums_R=np.array([planting.drums]), log_weight_R=np.zeros(1),
            counted_R=np.array([planting.polyphony is not None]), voices_R=one + MOST_VOICES,
            lowest_R=one + _NONE, top_R=one + _NONE, must_R=one + FAR,
            end_RV=np.zeros((1, MOST_VOICES), dtype=np.int64),
            waiting_RP=np.zeros((1, 128), dtype=bool), waiting_drums_RP=np.zeros((1, 128), dtype=bool),
            own_RP=planting.own_programs[None].copy(), programs_RQ=planting.programs[None].copy(),
            may_RP=np.ones((1, 128), dtype=bool), bass_RP=np.ones((1, 128), dtype=bool),
            said_RP=np.zeros((1, 128), dtype=bool),
            low_RQ=planting.ranges[None, :, 0].copy(), high_RQ=planting.ranges[None, :, 1].copy(),
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
        self.said_RP[said["Program"]] = False
        self.last_kind_R = kinds
        self._say(np.flatnonzero(note), tokens)
        moved = np.flatnonzero(bar | position)
        self.free_R[moved] = 0
        self.bound_R[moved] = self.drum_here_R[moved] = False
        self.waiting_RP[moved] = self.waiting_drums_RP[moved] = self.said_RP[moved] = False
        self.lowest_R[moved] = _NONE
        for row in np.flatnonzero(bar).tolist():
            self._expect(row, self.bar_tick(row))
        for row in np.flatnonzero(position).tolist():
            self._arrive(row)

    def _say(self, rows: Index, tokens: Index) -> None:
        """Take a planted note off where it was said; others are free ones."""
        next_ = Next(self)
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
                self.said_RP[row, pitch[row]] |= not is_drum[row]
            else:
                self._say_freely(row, int(pitch[row]), drum=bool(is_drum[row]))

    def _waits(self, note: int, *, pitch: int, is_drum: bool) -> bool:
        """Whether another note at the place of the one before ``note`` has this pitch: those of two programs may."""
        left = int(self.note_left_N[note - 1]) - 1
        here = slice(note, note + left)
        drums = self.note_program_N[here] == DRUM_PROGRAM
        return bool(((self.note_pitch_N[here] == pitch) & (drums == is_drum)).any())

    def _say_freely(self, row: int, pitch: int, *, drum: bool) -> None:
        """A free note was said: how long it takes a voice, and what it is the lowest of."""
        self.free_R[row] += 1
        self.voices_R[row] -= 1
        if not drum:
            self.said_RP[row, pitch] = True
            self.lowest_R[row] = min(self.lowest_R[row], pitch)
        if self.counted_R[row]:
            planting, begin = self.plantings[row], self.bar_tick(row) + int(self.position_R[row])
            until = begin + int(DURATIONS[self.duration_R[row]])
            if planting.spans is not None:
                since, program = np.array([begin - planting.begin_ticks]), np.array([DRUM_PROGRAM if drum else 0])
                released = planting.spans.released(since, pitch=np.array([pitch]), program=program)
                until = min(until, int(released[0]) + planting.begin_ticks)
            voice = int(self.end_RV[row].argmin())
            self.end_RV[row, voice] = until

    def _arrive(self, row: int) -> None:
        """A row came to a position: what waits here, and what binds free notes."""
        first = int(self.next_R[row])
        planting, tick = self.plantings[row], self.bar_tick(row) + int(self.position_R[row])
        waiting = _no_numbers()
        if first < self.stop_R[row] and (self.note_bar_N[first], self.note_position_N[first]) == (
            int(self.bars_R[row]), self.position_R[row],
        ):  # fmt: skip
            notes = slice(first, first + int(self.note_left_N[first]))
            drums = self.note_program_N[notes] == DRUM_PROGRAM
            waiting = self.note_pitch_N[notes][~drums]
            self.waiting_RP[row, waiting] = True
            self.waiting_drums_RP[row, self.note_pitch_N[notes][drums]] = True
        here = planting.here(tick, waiting)
        self.may_RP[row] = here.pitches
        if here.lowest is not None and (here.must or here.below < COMPASS):
            self.bass_RP[row], self.lowest_R[row], self.top_R[row] = here.lowest, here.below, here.highest_program
        self.voices_R[row] = here.voices - int((self.end_RV[row] > tick).sum())
        self._expect(row, tick + 1)

    def _expect(self, row: int, tick: int) -> None:
        """Where in this bar, from a tick on, a chord begins next."""
        planting, begin = self.plantings[row], self.bar_tick(row)
        must = planting.next_must(tick)
        meter = planting.bar_meters[min(max(int(self.bars_R[row]), 1), len(planting.bar_meters)) - 1]
        self.must_R[row] = must - begin if must < begin + METER_TICKS[meter] else FAR

    def bar_tick(self, row: int) -> int:
        """Where the bar begins that a row is in, ticks of the grid."""
        ticks = self.plantings[row].bar_ticks
        return int(ticks[min(max(int(self.bars_R[row]), 1), len(ticks)) - 1])

    def full(self, row: int, positions: Index) -> Mask:
        """Positions of the bar that a row is in at which all voices sound; shape of ``positions``."""
        planting, ticks = self.plantings[row], self.bar_tick(row) + positions
        free = (self.end_RV[row][:, None] > ticks).sum(axis=0)
        return np.asarray(planting.sounding(ticks) + free >= (planting.polyphony or MOST_VOICES))

    def meter_of_bar(self) -> Index:
        """Of the bar that each row is in; shape (R,)."""
        bars = self.bars_R.tolist()
        return np.array([
            int(planting.bar_meters[min(bar, len(planting.bar_meters)) - 1])
            for planting, bar in zip(self.plantings, bars, strict=True)
        ], dtype=np.int64)  # fmt: skip


class Next:
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
