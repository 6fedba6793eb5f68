"""Which token may come next, for a whole batch at once.

The grammar is the vocabulary's own (see :mod:`tutti.features.vocabulary`) narrowed by each request's limits, so every
sequence decodes without a refusal, begins with a note, has exactly its bars, ends on a bar line, and can never run into
a corner where nothing is allowed. Meter and tempo are said once, in the first bar.

Polyphony counts what sounds: a note from its onset until it is released, struck again, or cut by the end of its chord,
percussion among it. A position at which all voices still sound cannot be reached.

Legend: B rows, V vocabulary, P voices of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.features.vocabulary import BAR, DURATIONS_TICKS, END, EVENTS, METERS, TICKS_PER_QUARTER, VELOCITIES
from tutti.generation.controls import Limits
from tutti.generation.leading import PULSES_TICKS
from tutti.generation.request import MOST_VOICES
from tutti.generation.timetable import FAR, Timetable

MOST_NOTES_AT_ONE_POSITION = MOST_VOICES

_KINDS = EVENTS.kinds
_KIND = {name: number for number, name in enumerate(_KINDS)}
_SPAN = {name: slice(EVENTS.span(name).start, EVENTS.span(name).stop) for name in _KINDS}
_FIRST = {name: EVENTS.first(name) for name in _KINDS}
_BAR_TICKS = np.array([above * 4 * TICKS_PER_QUARTER // below for above, below in METERS])
_NOTE_START = ("Program", "Duration", "Velocity", "Pitch", "Drum")
_FOLLOWERS: dict[str, tuple[str, ...]] = {
    "Bar": ("Meter", "Position", "Bar", "End"),
    "Meter": ("Position", "Bar", "End"),
    "Position": ("Tempo", *_NOTE_START),
    "Tempo": _NOTE_START,
    "Program": ("Duration", "Velocity", "Pitch"),
    "Duration": ("Velocity", "Pitch", "Drum"),
    "Velocity": ("Pitch", "Drum"),
    "Pitch": ("Position", "Bar", "End", *_NOTE_START),
    "Drum": ("Position", "Bar", "End", *_NOTE_START),
}
_NONE = -1
_NO_NOTE = 128
_DURATIONS = np.array(DURATIONS_TICKS)
_PITCHES = np.arange(128)
_STARTS_NOTES = np.isin(np.arange(len(_KINDS)), [_KIND[kind] for kind in ("Position", "Tempo", "Pitch", "Drum")])


def _follower_table() -> NDArray[np.bool_]:
    """Kind after kind; shape (kinds, V). Before the first bar only ``Bar`` may come."""
    table = np.zeros((len(_KINDS), len(EVENTS)), dtype=bool)
    table[:, _SPAN["Bar"]] = True
    for kind, followers in _FOLLOWERS.items():
        table[_KIND[kind]] = np.isin(EVENTS.kind_of, [_KIND[follower] for follower in followers])
    return table


_FOLLOWS = _follower_table()
_POSITIONS = np.arange(_SPAN["Position"].stop - _SPAN["Position"].start)
_PROGRAMS = np.arange(128)
_PULSES = np.add.outer(np.arange(0, len(_POSITIONS) + TICKS_PER_QUARTER, TICKS_PER_QUARTER), PULSES_TICKS).ravel()
_NEXT_PULSE = _PULSES[np.searchsorted(_PULSES, np.append(_NONE, _POSITIONS), side="right")]
"""Of each position the next one at which a note must begin, of rows with a pulse; that of none is the first."""


class Grammar:
    """State of B sequences, each after its head of controls.

    Args:
        limits: one of each row.
    """

    def __init__(self, limits: Sequence[Limits]) -> None:
        rows = len(limits)
        self._limits = list(limits)
        self._pitches = np.array([limit.pitches for limit in limits], dtype=bool).reshape(rows, 128)
        self._home = np.array([limit.home for limit in limits], dtype=bool).reshape(rows, 128)
        self._programs = np.array([limit.programs for limit in limits], dtype=bool).reshape(rows, 128)
        self._drums = np.array([limit.drums for limit in limits], dtype=bool).reshape(rows, 128)
        every = np.tile(np.array([0, 127]), (128, 1))
        ranges = np.array([every if each.ranges is None else each.ranges for each in limits], dtype=np.int64)
        ranges = ranges.reshape(rows, 128, 2)
        self._low, self._high = ranges[..., 0].copy(), ranges[..., 1].copy()
        self._ranged = np.array([limit.ranges is not None for limit in limits], dtype=bool)
        self._pulsed = np.array([limit.pulsed for limit in limits], dtype=bool)
        # Voices that a row has not are never free; those of a row without a limit are never taken.
        voices = np.array([limit.polyphony or MOST_VOICES for limit in limits], dtype=np.int64)
        self._counts_voices = np.array([limit.polyphony is not None for limit in limits], dtype=bool)
        self._voice_end_ticks = np.where(np.arange(MOST_VOICES) < voices[:, None], np.int64(-1), FAR)
        self._voice_of = np.full((rows, MOST_VOICES), _NONE)
        self._timetable = Timetable([limit.spans(METERS[limit.meter]) for limit in limits])
        self._span = np.zeros(rows, dtype=np.int64)
        self._must_ticks = np.full(rows, FAR)
        self._lowest_here = np.full(rows, _NONE)
        self._lowest_may_be = np.zeros((rows, 128), dtype=bool)
        self._now = self._home.copy()
        self.last_kind = np.full(rows, _KIND["Start"])
        self.ended = np.zeros(rows, dtype=bool)
        self.bars = np.zeros(rows, dtype=np.int64)
        self._bars_asked = np.full(rows, np.iinfo(np.int32).max, dtype=np.int64)
        self._tempo = np.full(rows, _NONE)
        self._meter = np.full(rows, _NONE)
        self._bar_ticks = np.zeros(rows, dtype=np.int64)
        self._bar_start_ticks = np.zeros(rows, dtype=np.int64)
        self._position = np.full(rows, _NONE)
        self._program = np.full(rows, _NONE)
        self._program_here = np.full(rows, _NONE)
        self._duration = np.full(rows, _NONE)
        self._velocity = np.full(rows, _NONE)
        self._bound_to_pitch = np.zeros(rows, dtype=bool)
        self._drum_here = np.zeros(rows, dtype=bool)
        self._notes_here = np.zeros(rows, dtype=np.int64)
        self._sounding = np.zeros((rows, 128), dtype=bool)
        self._sounding_drums = np.zeros((rows, 128), dtype=bool)

    def read(self, row: int, tokens: NDArray[np.integer]) -> None:
        """Follow given music without asking whether it is allowed; chords begin at its last bar line."""
        one, harmony = np.array([row]), self._limits[row].harmony
        if harmony is not None:
            self._timetable.origin_ticks[row] = FAR
        for token in tokens.tolist():
            self._follow(one, np.array([token]))
        if harmony is not None:
            self._begin_harmony(row)

    def _begin_harmony(self, row: int) -> None:
        """Let a row's chords begin with the bar that it is in, in the meter that it has."""
        begin_ticks = self._bar_start_ticks[row]
        fresh = Timetable([self._limits[row].spans(METERS[self._meter[row]])])
        fresh.origin_ticks[0] = begin_ticks
        order = np.arange(len(self._timetable))
        order[row] = len(order)
        self._timetable.join(fresh)
        self._timetable.keep(order)
        ends = self._voice_end_ticks[row]
        self._voice_end_ticks[row] = np.where(ends < FAR, np.minimum(ends, begin_ticks), ends)
        self._must_ticks[row] = begin_ticks
        if self._position[row] != _NONE:
            self._keep_time(np.array([row]))

    def advance(self, tokens_B: NDArray[np.integer]) -> None:
        """Follow the token that each row chose; rows that ended stay as they are."""
        rows = np.flatnonzero(~self.ended)
        self._follow(rows, np.asarray(tokens_B)[rows])

    def join(self, other: Grammar) -> None:
        """Take the rows of another one behind these."""
        self._limits += other._limits
        self._timetable.join(other._timetable)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, np.concatenate((value, getattr(other, name))))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._limits = [self._limits[row] for row in rows.tolist()]
        self._timetable.keep(rows)
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[rows])

    def allowed(self) -> NDArray[np.bool_]:
        """Tokens that may come next; shape (B, V). Every row that has not ended allows at least one."""
        mask: NDArray[np.bool_] = _FOLLOWS[self.last_kind]
        first_bar = self.bars <= 1
        says_meter = first_bar & (self.last_kind == _KIND["Bar"])
        self._forbid(mask, ~says_meter, "Meter")
        self._only(mask, says_meter, "Meter", lambda row: self._limits[row].meters)
        says_tempo = first_bar & (self._tempo == _NONE) & (self.last_kind == _KIND["Position"])
        self._forbid(mask, ~says_tempo, "Tempo")
        self._only(mask, says_tempo, "Tempo", lambda row: self._limits[row].tempos(int(self._meter[row])))
        self._positions(mask, opening=first_bar & (self.last_kind == _KIND["Meter"]))
        self._notes(mask)
        silent = self._notes_in_bar == 0
        if self._counts_voices.any():
            # Notes that are held through the whole last bar leave no place for another one in it.
            silent &= mask[:, _SPAN["Position"]].any(axis=1)
        self._forbid(mask, self.in_last_bar, "Bar")
        self._forbid(mask, ~self.in_last_bar | silent, "End")
        if self._pulsed.any():
            waits = self._pulsed & (_NEXT_PULSE[self._position + 1] < self._bar_ticks)
            self._forbid(mask, waits, "Bar")
            self._forbid(mask, waits, "End")
        if self._timetable.any:
            waits = self._must_ticks < self._bar_start_ticks + self._bar_ticks
            self._forbid(mask, waits, "Bar")
            self._forbid(mask, waits, "End")
        return mask

    @property
    def pitches(self) -> NDArray[np.bool_]:
        """Pitches that may begin at the position where each row is; shape (B, 128)."""
        return self._now

    def note(self, row: int, pitch: int) -> tuple[int, int, int, int]:
        """Of the note of a pitch that a row has just said: onset and duration in ticks, velocity, program.

        A note is released by the piece's last bar line, and by the end of its chord.
        """
        onset_ticks = int(self._bar_start_ticks[row] + self._position[row])
        bars_left = int(self._bars_asked[row] - self.bars[row]) + 1
        end_ticks = int(self._bar_start_ticks[row]) + bars_left * int(self._bar_ticks[row])
        program = DRUM_PROGRAM if self.last_kind[row] == _KIND["Drum"] else int(self._program[row])
        if self._timetable.any:
            pitches = None if program == DRUM_PROGRAM else np.array([pitch])
            end_ticks = min(end_ticks, int(self._released(np.array([row]), pitches)[0]))
        duration_ticks = min(DURATIONS_TICKS[int(self._duration[row])], end_ticks - onset_ticks)
        return onset_ticks, duration_ticks, VELOCITIES[int(self._velocity[row])], program

    def meter(self, row: int) -> tuple[int, int]:
        """The meter that a row is in."""
        return METERS[int(self._meter[row])]

    @property
    def in_last_bar(self) -> NDArray[np.bool_]:
        """Rows whose next bar line is their end; shape (B,)."""
        return self.bars >= self._bars_asked

    def with_one_bar_line(self, logits_BV: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits in which leaving a bar is one wish, whether it is said ``Bar`` or ``End``.

        A model that wants the bar to be over where its piece must end means the end, and one that wants the end too
        early means the next bar; without this its wish would fall to whatever else is allowed.
        """
        joined_B = np.logaddexp(logits_BV[:, BAR], logits_BV[:, END])
        out_BV = logits_BV.copy()
        out_BV[:, BAR] = np.where(self.in_last_bar, logits_BV[:, BAR], joined_B)
        out_BV[:, END] = np.where(self.in_last_bar, joined_B, logits_BV[:, END])
        return out_BV

    @property
    def _notes_in_bar(self) -> NDArray[np.int64]:
        # A position past the bar's first is only ever left after a note; the first may hold a tempo alone.
        return np.where(self._position > 0, 1, self._notes_here)

    def _at_home(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows are at the first position of their piece, or in the second half of its last bar."""
        bars, position = self.bars[rows], self._position[rows]
        at_home: NDArray[np.bool_] = (bars == 1) & (position == 0)
        return at_home | ((bars >= self._bars_asked[rows]) & (2 * position >= self._bar_ticks[rows]))

    def _positions(self, mask: NDArray[np.bool_], *, opening: NDArray[np.bool_]) -> None:
        span = _SPAN["Position"]
        later = (self._position[:, None] < _POSITIONS) & (self._bar_ticks[:, None] > _POSITIONS)
        if self._counts_voices.any():
            later &= (self._voice_end_ticks.min(axis=1) - self._bar_start_ticks)[:, None] <= _POSITIONS
        if self._pulsed.any():
            later &= ~self._pulsed[:, None] | (_NEXT_PULSE[self._position + 1][:, None] >= _POSITIONS)
        if self._timetable.any:
            later &= (self._must_ticks - self._bar_start_ticks)[:, None] >= _POSITIONS
        mask[:, span] &= np.where(opening[:, None], _POSITIONS == 0, later)
        for kind in ("Bar", "End"):
            self._forbid(mask, opening, kind)

    def _notes(self, mask: NDArray[np.bool_]) -> None:
        full = self._notes_here >= MOST_NOTES_AT_ONE_POSITION
        if self._counts_voices.any():
            full |= self._voice_end_ticks.min(axis=1) > self._bar_start_ticks + self._position
        has_program, has_duration = self._program != _NONE, self._duration != _NONE
        set_up = has_duration & (self._velocity != _NONE)
        starting = full & _STARTS_NOTES[self.last_kind]
        if starting.any():
            for kind in _NOTE_START:
                self._forbid(mask, starting, kind)
        pitches = self._now & ~self._sounding
        drums = self._drums & ~self._sounding_drums & ~self._bound_to_pitch[:, None]
        if self._timetable.any:
            pitches &= self._lowest_may_be | (self._lowest_here[:, None] < _PITCHES)
            drums &= (self._lowest_here != _NO_NOTE)[:, None]
        higher = self._programs & (self._program_here[:, None] < _PROGRAMS)
        if self._ranged.any():
            self._keep_ranges(pitches, higher)
        mask[:, _SPAN["Program"]] &= higher & (~self._drum_here)[:, None]
        to_melody = has_program & ~self._drum_here & pitches.any(axis=1)
        can_play = to_melody | drums.any(axis=1)
        self._forbid(mask, ~can_play, "Duration")
        self._forbid(mask, ~can_play | ~has_duration, "Velocity")
        mask[:, _SPAN["Pitch"]] &= pitches & (to_melody & set_up)[:, None]
        mask[:, _SPAN["Drum"]] &= drums & set_up[:, None]

    def _keep_ranges(self, pitches: NDArray[np.bool_], programs: NDArray[np.bool_]) -> None:
        """Of the pitches leave those in the running program's range, of the programs those that have one to play."""
        fresh = self._now
        if self._timetable.any:
            fresh = fresh & (self._lowest_may_be | (self._lowest_here[:, None] < _PITCHES))
        below = np.append(np.zeros((len(fresh), 1), dtype=np.int64), np.cumsum(fresh, axis=1), axis=1)
        programs &= np.take_along_axis(below, self._high + 1, axis=1) > np.take_along_axis(below, self._low, axis=1)
        running = np.maximum(self._program, 0)[:, None]
        pitches &= np.take_along_axis(self._low, running, axis=1) <= _PITCHES
        pitches &= np.take_along_axis(self._high, running, axis=1) >= _PITCHES

    def _follow(self, rows: NDArray[np.int64], tokens: NDArray[np.integer]) -> None:
        kinds = EVENTS.kind_of[tokens]
        for kind, follow in (
            ("Bar", self._new_bar), ("Meter", self._new_meter), ("Position", self._new_position),
            ("Tempo", self._new_tempo), ("Program", self._new_program),
            ("Pitch", self._new_pitch), ("Drum", self._new_drum),
        ):  # fmt: skip
            here = kinds == _KIND[kind]
            if here.any():
                follow(rows[here], tokens[here].astype(np.int64) - _FIRST[kind])
        for kind, held in (("Duration", self._duration), ("Velocity", self._velocity)):
            here = kinds == _KIND[kind]
            held[rows[here]] = tokens[here].astype(np.int64) - _FIRST[kind]
        self.ended[rows[tokens == END]] = True
        self.last_kind[rows] = kinds

    def _new_bar(self, rows: NDArray[np.int64], _: NDArray[np.int64]) -> None:
        self._bar_start_ticks[rows] += np.where(self.bars[rows] > 0, self._bar_ticks[rows], 0)
        self.bars[rows] += 1
        self._position[rows] = self._program[rows] = self._duration[rows] = self._velocity[rows] = _NONE
        self._leave_position(rows)
        if self._timetable.any:
            before = self._timetable.span(rows, self._bar_start_ticks[rows] - 1)
            self._must_ticks[rows] = self._timetable.next_must(rows, before)

    def _new_meter(self, rows: NDArray[np.int64], meters: NDArray[np.int64]) -> None:
        self._meter[rows] = meters
        self._bar_ticks[rows] = _BAR_TICKS[meters]

    def _new_position(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        self._position[rows] = positions
        self._leave_position(rows)
        self._now[rows] = np.where(self._at_home(rows)[:, None], self._home[rows], self._pitches[rows])
        if self._timetable.any:
            self._keep_time(rows[self._timetable.timed[rows]])

    def _keep_time(self, rows: NDArray[np.int64]) -> None:
        """What the timetable says of the positions that rows have reached."""
        ticks = self._bar_start_ticks[rows] + self._position[rows]
        self._span[rows] = spans = self._timetable.span(rows, ticks)
        self._now[rows] = self._timetable.begin(rows, spans)
        ruled, self._lowest_may_be[rows] = self._timetable.lowest(rows, spans, ticks)
        self._lowest_here[rows] = np.where(ruled, _NO_NOTE, _NONE)
        self._must_ticks[rows] = self._timetable.next_must(rows, spans)

    def _released(self, rows: NDArray[np.int64], pitches: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Where notes that begin now are released at the latest; without pitches: percussion."""
        released = self._timetable.released(rows, self._span[rows], pitches=pitches)
        return np.where(self._timetable.timed[rows], released, FAR)

    def _hold(self, rows: NDArray[np.int64], pitches: NDArray[np.int64], *, drums: bool) -> None:
        """Let notes take voices."""
        counted = self._counts_voices[rows]
        rows, pitches = rows[counted], pitches[counted]
        now = self._bar_start_ticks[rows] + self._position[rows]
        until = now + _DURATIONS[self._duration[rows]]
        if self._timetable.any:
            until = np.minimum(until, self._released(rows, None if drums else pitches))
        of_BP, ends_BP = self._voice_of[rows], self._voice_end_ticks[rows]
        note = pitches + 128 * (DRUM_PROGRAM if drums else self._program[rows])
        # What is struck again has ended, and only what sounds longer takes a voice from another note.
        ends_BP[(of_BP == note[:, None]) & (ends_BP < FAR)] = -1
        at, voice = np.arange(len(rows)), ends_BP.argmin(axis=1)
        of_BP[at, voice], ends_BP[at, voice] = note, np.maximum(until, ends_BP[at, voice])
        self._voice_of[rows], self._voice_end_ticks[rows] = of_BP, ends_BP

    def _leave_position(self, rows: NDArray[np.int64]) -> None:
        self._program_here[rows] = _NONE
        self._bound_to_pitch[rows] = self._drum_here[rows] = False
        self._notes_here[rows] = 0
        self._sounding[rows] = self._sounding_drums[rows] = False

    def _new_tempo(self, rows: NDArray[np.int64], tempos: NDArray[np.int64]) -> None:
        fresh = self._tempo[rows] == _NONE
        self._tempo[rows] = tempos
        for row, tempo in zip(rows[fresh].tolist(), tempos[fresh].tolist(), strict=True):
            self._bars_asked[row] = self._limits[row].bars_at(tempo=tempo, meter=int(self._meter[row]))

    def _new_program(self, rows: NDArray[np.int64], programs: NDArray[np.int64]) -> None:
        self._program[rows] = self._program_here[rows] = programs
        self._bound_to_pitch[rows] = True
        self._sounding[rows] = False

    def _new_pitch(self, rows: NDArray[np.int64], pitches: NDArray[np.int64]) -> None:
        self._sounding[rows, pitches] = True
        self._program_here[rows] = self._program[rows]
        self._notes_here[rows] += 1
        self._bound_to_pitch[rows] = False
        self._lowest_here[rows] = np.minimum(self._lowest_here[rows], pitches)
        if self._counts_voices.any():
            self._hold(rows, pitches, drums=False)

    def _new_drum(self, rows: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
        self._sounding_drums[rows, keys] = True
        self._drum_here[rows] = True
        self._notes_here[rows] += 1
        if self._counts_voices.any():
            self._hold(rows, keys, drums=True)

    @staticmethod
    def _forbid(mask: NDArray[np.bool_], rows: NDArray[np.bool_], kind: str) -> None:
        mask[:, _SPAN[kind]] &= ~rows[:, None]

    @staticmethod
    def _only(
        mask: NDArray[np.bool_], rows: NDArray[np.bool_], kind: str, may_be: Callable[[int], NDArray[np.bool_]]
    ) -> None:
        """In ``rows`` nothing but ``kind`` may come, and of it only what the request leaves open."""
        span = _SPAN[kind]
        for row in np.flatnonzero(rows).tolist():
            mask[row, : span.start] = mask[row, span.stop :] = False
            mask[row, span] = may_be(row)
