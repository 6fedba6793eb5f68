"""Which token may come next, for a whole batch at once.

The grammar is the vocabulary's own (see :mod:`tutti.features.vocabulary`) narrowed by each request's limits, so every
sequence decodes without a refusal, begins with a note, has exactly its bars, ends on a bar line, and can never run into
a corner where nothing is allowed. Meter and tempo are said once, in the first bar.

Legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.features.vocabulary import BAR, DURATIONS_TICKS, END, EVENTS, METERS, TICKS_PER_QUARTER, VELOCITIES
from tutti.generation.controls import Limits

MOST_NOTES_AT_ONE_POSITION = 24

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
        self._tempo_asked = np.array([limit.tempo for limit in limits], dtype=np.int64)
        self._meter_asked = np.array([limit.meter for limit in limits], dtype=np.int64)
        self._melodic, self._drumming = self._programs.any(axis=1), self._drums.any(axis=1)
        self._most_notes = np.minimum(
            np.where(self._melodic, self._pitches.sum(axis=1), self._drums.sum(axis=1)),
            MOST_NOTES_AT_ONE_POSITION,
        )
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

    def read(self, row: int, tokens: NDArray[np.integer], *, more_length: bool) -> None:
        """Follow given music without asking whether it is allowed (material that is to be continued).

        Args:
            more_length: the asked length counts from the end of this music.
        """
        one = np.array([row])
        for token in tokens.tolist():
            self._follow(one, np.array([token]))
        if more_length and self._tempo[row] != _NONE:
            limits = self._limits[row]
            self._bars_asked[row] = self.bars[row] + limits.bars_at(tempo=self._tempo[row], meter=self._meter[row])

    def advance(self, tokens_B: NDArray[np.integer]) -> None:
        """Follow the token that each row chose; rows that ended stay as they are."""
        rows = np.flatnonzero(~self.ended)
        self._follow(rows, np.asarray(tokens_B)[rows])

    def join(self, other: Grammar) -> None:
        """Take the rows of another one behind these."""
        self._limits += other._limits
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, np.concatenate((value, getattr(other, name))))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Forget all rows but these."""
        self._limits = [self._limits[row] for row in rows.tolist()]
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                setattr(self, name, value[rows])

    def allowed(self) -> NDArray[np.bool_]:
        """Tokens that may come next; shape (B, V). Every row that has not ended allows at least one."""
        mask: NDArray[np.bool_] = _FOLLOWS[self.last_kind]
        first_bar = self.bars <= 1
        says_meter = first_bar & (self.last_kind == _KIND["Bar"])
        self._forbid(mask, ~says_meter, "Meter")
        self._only(mask, says_meter, "Meter", self._meter_asked)
        says_tempo = first_bar & (self._tempo == _NONE) & (self.last_kind == _KIND["Position"])
        self._forbid(mask, ~says_tempo, "Tempo")
        self._only(mask, says_tempo, "Tempo", self._tempo_asked)
        self._positions(mask, opening=first_bar & (self.last_kind == _KIND["Meter"]))
        self._notes(mask)
        self._forbid(mask, self.in_last_bar, "Bar")
        self._forbid(mask, ~self.in_last_bar | (self._notes_in_bar == 0), "End")
        return mask

    def note(self, row: int) -> tuple[int, int, int, int]:
        """Of the note that a row has just said: onset and duration in ticks, velocity, program.

        A note is released by the piece's last bar line.
        """
        onset_ticks = int(self._bar_start_ticks[row] + self._position[row])
        bars_left = int(self._bars_asked[row] - self.bars[row]) + 1
        end_ticks = int(self._bar_start_ticks[row]) + bars_left * int(self._bar_ticks[row])
        duration_ticks = min(DURATIONS_TICKS[int(self._duration[row])], end_ticks - onset_ticks)
        program = DRUM_PROGRAM if self.last_kind[row] == _KIND["Drum"] else int(self._program[row])
        return onset_ticks, duration_ticks, VELOCITIES[int(self._velocity[row])], program

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

    @property
    def _at_home(self) -> NDArray[np.bool_]:
        """Rows at the first position of their piece, or in the second half of its last bar."""
        at_home: NDArray[np.bool_] = (self.bars == 1) & (self._position == 0)
        return at_home | (self.in_last_bar & (2 * self._position >= self._bar_ticks))

    def _positions(self, mask: NDArray[np.bool_], *, opening: NDArray[np.bool_]) -> None:
        span = _SPAN["Position"]
        later = (self._position[:, None] < _POSITIONS) & (self._bar_ticks[:, None] > _POSITIONS)
        mask[:, span] &= np.where(opening[:, None], _POSITIONS == 0, later)
        for kind in ("Bar", "End"):
            self._forbid(mask, opening, kind)

    def _notes(self, mask: NDArray[np.bool_]) -> None:
        full = self._notes_here >= self._most_notes
        melodic, drums = self._melodic, self._drumming
        has_program, has_duration = self._program != _NONE, self._duration != _NONE
        set_up = has_duration & (self._velocity != _NONE)
        starting = full & _STARTS_NOTES[self.last_kind]
        if starting.any():
            for kind in _NOTE_START:
                self._forbid(mask, starting, kind)
        higher = self._programs & (self._program_here[:, None] < _PROGRAMS)
        mask[:, _SPAN["Program"]] &= higher & (melodic & ~self._drum_here)[:, None]
        to_melody = has_program & ~self._drum_here
        can_play = to_melody | (drums & ~self._bound_to_pitch)
        self._forbid(mask, ~can_play, "Duration")
        self._forbid(mask, ~can_play | ~has_duration, "Velocity")
        pitches = np.where(self._at_home[:, None], self._home, self._pitches)
        mask[:, _SPAN["Pitch"]] &= (pitches & ~self._sounding) & (to_melody & set_up)[:, None]
        mask[:, _SPAN["Drum"]] &= (self._drums & ~self._sounding_drums) & (set_up & ~self._bound_to_pitch)[:, None]

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

    def _new_meter(self, rows: NDArray[np.int64], meters: NDArray[np.int64]) -> None:
        self._meter[rows] = meters
        self._bar_ticks[rows] = _BAR_TICKS[meters]

    def _new_position(self, rows: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        self._position[rows] = positions
        self._leave_position(rows)

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

    def _new_drum(self, rows: NDArray[np.int64], keys: NDArray[np.int64]) -> None:
        self._sounding_drums[rows, keys] = True
        self._drum_here[rows] = True
        self._notes_here[rows] += 1

    @staticmethod
    def _forbid(mask: NDArray[np.bool_], rows: NDArray[np.bool_], kind: str) -> None:
        mask[:, _SPAN[kind]] &= ~rows[:, None]

    @staticmethod
    def _only(mask: NDArray[np.bool_], rows: NDArray[np.bool_], kind: str, asked_B: NDArray[np.int64]) -> None:
        """In ``rows`` nothing but ``kind`` may come, and of it only what the request asks."""
        span = _SPAN[kind]
        for row in np.flatnonzero(rows).tolist():
            mask[row, : span.start] = mask[row, span.stop :] = False
            mask[row, span] = asked_B[row] == _NONE or np.arange(span.stop - span.start) == asked_B[row]
