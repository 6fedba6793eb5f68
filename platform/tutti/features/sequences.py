"""Token sequences laid end to end, and the grid of music that whole ones say.

Legend: W sequences, T tokens, N notes, B bars, P positions of all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import Starts
from tutti.features.events import Tokens, encode_grid
from tutti.features.grid import METER_TICKS, PAUSE_TICKS, Grid, GridNotes, Index, starts_of
from tutti.features.vocabulary import BAR, END, EVENTS

_KIND = {kind: number for number, kind in enumerate(EVENTS.kinds)}
_FIRST = {kind: EVENTS.first(kind) for kind in EVENTS.kinds}
_NOTE_STARTS = ("Program", "Duration", "Velocity", "Pitch", "Drum")
_FOLLOWERS = {
    "Bar": ("Meter", "Position", "Bar", "End"),
    "Meter": ("Position", "Bar", "End"),
    "Position": ("Tempo", *_NOTE_STARTS),
    "Tempo": ("Position", "Bar", "End", *_NOTE_STARTS),
    "Program": ("Duration", "Velocity", "Pitch"),
    "Duration": ("Velocity", "Pitch", "Drum"),
    "Velocity": ("Pitch", "Drum"),
    "Pitch": ("Position", "Bar", "End", *_NOTE_STARTS),
    "Drum": ("Position", "Bar", "End", *_NOTE_STARTS),
}
_LAST = ("Bar", "Meter", "Tempo", "Pitch", "Drum", "End")


def _follow_table() -> NDArray[np.bool_]:
    """Which kind may follow which after the head; shape (kinds, kinds)."""
    table = np.zeros((len(_KIND), len(_KIND)), dtype=bool)
    for kind, followers in _FOLLOWERS.items():
        table[_KIND[kind], [_KIND[follower] for follower in followers]] = True
    return table


_FOLLOWS = _follow_table()
_MAY_BE_LAST = np.array([kind in _LAST for kind in EVENTS.kinds])


@dataclass(frozen=True, slots=True)
class Sequences:
    """W token sequences, each from ``Start``; those that were cut at a bar line have no ``End``.

    Args:
        tokens: all tokens; shape (T,).
        starts: where each begins, and the end of the last; shape (W + 1,).
    """

    tokens: Tokens
    starts: Starts

    @classmethod
    def of(cls, parts: Sequence[Tokens]) -> Sequences:
        """Sequences from separate ones."""
        return cls(
            tokens=np.concatenate([np.empty(0, dtype=np.uint16), *parts]),
            starts=np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Tokens:
        return self.tokens[self.starts[number] : self.starts[number + 1]]

    @property
    def lengths(self) -> Index:
        """Tokens of each; shape (W,)."""
        return np.diff(self.starts)

    @property
    def sequence_of_token(self) -> Index:
        """Which sequence each token belongs to; shape (T,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, index: Index) -> Sequences:
        """The sequences at ``index``, in that order."""
        return Sequences.of([self[number] for number in index.tolist()])

    def kept(self, tokens: NDArray[np.bool_]) -> Sequences:
        """Without the tokens that are not ``tokens``; shape (T,)."""
        before = np.concatenate(([0], np.cumsum(tokens)))
        return Sequences(self.tokens[tokens], before[self.starts])


@dataclass(frozen=True, slots=True)
class Opened:
    """What whole sequences say.

    Args:
        grid: their music; bars after the last onset stay.
        heads: control tokens of each.
        ended: whether each had an ``End``; shape (W,).
    """

    grid: Grid
    heads: list[Tokens]
    ended: NDArray[np.bool_]

    def closed(self) -> Sequences:
        """The sequences that say it."""
        tokens, starts = encode_grid(self.grid, heads=self.heads)
        kept = np.ones(len(tokens), dtype=bool)
        kept[starts[1:][~self.ended] - 1] = False
        return Sequences(tokens, starts).kept(kept)


def whole(sequences: Sequences) -> NDArray[np.bool_]:
    """Sequences whose every token can be understood from what precedes it; shape (W,).

    All are that :func:`tutti.features.events.encode` made and bar lines cut; a window that begins or ends within a bar
    may not be.
    """
    parts = _Parts(sequences)
    odd = np.zeros(len(sequences), dtype=np.int64)
    for at in parts.odd():
        np.add.at(odd, parts.sequence[at], 1)
    has_bar = np.zeros(len(sequences), dtype=bool)
    has_bar[parts.sequence[parts.bar_at]] = True
    return np.asarray((odd == 0) & has_bar)


def opened(sequences: Sequences) -> Opened:
    """The music of sequences that are :func:`whole`."""
    return _Parts(sequences).opened()


class _Parts:
    """Where bars, positions and notes lie, found once for both questions: is it whole, and what does it say."""

    def __init__(self, sequences: Sequences) -> None:
        self.sequences, self.sequence = sequences, sequences.sequence_of_token
        tokens = self.tokens = sequences.tokens.astype(np.int64)
        self.kind = EVENTS.kind_of[tokens]
        self.bar_at = np.flatnonzero(tokens == BAR)
        self.position_at = self._at("Position")
        self.note_at = np.flatnonzero((self.kind == _KIND["Pitch"]) | (self.kind == _KIND["Drum"]))
        self.bar_of_token = np.cumsum(tokens == BAR) - 1
        self.first_bar = np.searchsorted(self.bar_at, sequences.starts[:-1])
        self.says_meter = np.append(self.kind[1:], 0)[self.bar_at] == _KIND["Meter"]
        bar_that_said = np.maximum.accumulate(np.where(self.says_meter, np.arange(len(self.bar_at)), 0))
        meter = np.append(tokens, 0)[self.bar_at[bar_that_said] + 1] - _FIRST["Meter"]
        # Where no bar has said one yet, the sequence is odd, and any meter will do until that is found.
        self.bar_meter = np.clip(meter, 0, len(METER_TICKS) - 1)
        self.offset = tokens[self.position_at] - _FIRST["Position"]

    def _at(self, kind: str) -> Index:
        return np.flatnonzero(self.kind == _KIND[kind])

    def running(self, kind: str) -> Index:
        """Where the value in force at each note was said, -1 where it was not in its bar; shape (N,)."""
        said = np.where(self.kind == _KIND[kind], np.arange(len(self.kind)), -1)
        last = np.maximum.accumulate(said)[self.note_at]
        bar_start = self.bar_at[np.maximum(self.bar_of_token[self.note_at], 0)] if len(self.bar_at) else 0
        return np.where(last > bar_start, last, -1)

    def odd(self) -> list[Index]:
        """Tokens that cannot be understood."""
        starts, lasts = self.sequences.starts[:-1], self.sequences.starts[1:] - 1
        first_bar_at = np.full(len(starts), len(self.tokens))
        has_bar = self.first_bar < len(self.bar_at)
        first_bar_at[has_bar] = self.bar_at[self.first_bar[has_bar]]
        in_body = np.arange(len(self.tokens)) >= first_bar_at[self.sequence]
        odd = [np.flatnonzero(~in_body & (self.tokens > BAR)), lasts[~_MAY_BE_LAST[self.kind[lasts]]]]
        in_body[lasts] = False
        pairs = np.flatnonzero(in_body)
        odd.append(pairs[~_FOLLOWS[self.kind[pairs], self.kind[pairs + 1]]])
        opening = self.first_bar[has_bar & (first_bar_at <= lasts)]
        odd.append(self.bar_at[opening[~self.says_meter[opening]]])
        bar = np.maximum(self.bar_of_token[self.position_at], 0)
        if len(self.bar_at):
            odd.append(self.position_at[self.offset >= METER_TICKS[self.bar_meter[bar]]])
        falls = (np.diff(self.offset) <= 0) & (np.diff(bar) == 0)
        odd.append(self.position_at[1:][falls])
        unknown = (self.running("Duration") < 0) | (self.running("Velocity") < 0)
        unknown |= (self.running("Program") < 0) & (self.kind[self.note_at] == _KIND["Pitch"])
        unknown |= self.running("Position") < 0
        return [*odd, self.note_at[unknown]]

    def opened(self) -> Opened:
        tokens, sequences = self.tokens, self.sequences
        bar_starts = np.append(self.first_bar, len(self.bar_at))
        lengths = METER_TICKS[self.bar_meter]
        before = np.concatenate(([0], np.cumsum(lengths)))
        begin = before[self.first_bar] + PAUSE_TICKS * np.arange(len(sequences))
        bar_time = before[:-1] + PAUSE_TICKS * np.repeat(np.arange(len(sequences)), np.diff(bar_starts))
        position_time = bar_time[self.bar_of_token[self.position_at]] + self.offset
        tempo_at = self._at("Tempo")
        tempo_time = position_time[np.searchsorted(self.position_at, tempo_at) - 1]
        drum = self.kind[self.note_at] == _KIND["Drum"]
        pitch = tokens[self.note_at] - np.where(drum, _FIRST["Drum"], _FIRST["Pitch"])
        program = np.where(drum, DRUM_PROGRAM, tokens[self.running("Program")] - _FIRST["Program"])
        notes = GridNotes(
            time_ticks=position_time[np.searchsorted(self.position_at, self.note_at) - 1],
            program=program.astype(np.uint16),
            duration=(tokens[self.running("Duration")] - _FIRST["Duration"]).astype(np.uint16),
            velocity=(tokens[self.running("Velocity")] - _FIRST["Velocity"]).astype(np.uint16),
            pitch=pitch.astype(np.uint16),
        )
        grid = Grid(
            begin_ticks=begin,
            notes=notes,
            note_starts=starts_of(begin, notes.time_ticks),
            tempo_time_ticks=tempo_time,
            tempo=tokens[tempo_at] - _FIRST["Tempo"],
            tempo_starts=starts_of(begin, tempo_time),
            bar_time_ticks=bar_time,
            bar_meter=self.bar_meter,
            bar_starts=bar_starts,
        )
        heads = [
            sequences.tokens[start:stop]
            for start, stop in zip(
                (sequences.starts[:-1] + 1).tolist(), self.bar_at[self.first_bar].tolist(), strict=True
            )
        ]
        return Opened(grid=grid, heads=heads, ended=tokens[sequences.starts[1:] - 1] == END)
