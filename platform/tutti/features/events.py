"""Score to event tokens and back, on whole columns at a time.

Legend: W pieces, N notes, P distinct positions, B bars, T tokens.

The normal form (:mod:`tutti.features.grid`) is what tokens can say; the law is
``decode(encode(on_grid(s))) == on_grid(s)``. A call of numpy costs more than the notes of a bar, so any number of
pieces is encoded at once, and one piece is the case of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DEFAULT_TEMPO_QPM, DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch, Starts
from tutti.features.controls import Controls
from tutti.features.grid import (
    COMMON_TIME,
    METER_TICKS,
    Grid,
    GridNotes,
    Index,
    changed,
    changes,
    nearest_tempo,
    runs,
    settled,
)
from tutti.features.vocabulary import BAR, END, EVENTS, PAD, START

Tokens = NDArray[np.uint16]

_METER0, _POSITION0, _TEMPO0 = EVENTS.first("Meter"), EVENTS.first("Position"), EVENTS.first("Tempo")
_PROGRAM0, _DURATION0 = EVENTS.first("Program"), EVENTS.first("Duration")
_VELOCITY0, _PITCH0, _DRUM0 = EVENTS.first("Velocity"), EVENTS.first("Pitch"), EVENTS.first("Drum")


@dataclass(frozen=True, slots=True)
class Decoded:
    """What tokens said.

    Args:
        score: the notes that could be placed, in normal form.
        bars: number of bars, empty ones at the end included.
        refused: number of tokens that said nothing that can be (0 for every sequence that the grammar allowed).
        ended: whether an ``End`` was found.
    """

    score: Score
    bars: int
    refused: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Bars:
    """Bar lines of a score on the grid: start and meter (index into ``METERS``) of each of B bars."""

    start_ticks: Index
    meter: Index


def on_grid(score: Score) -> Score:
    """The normal form of a score: what event tokens can say of it."""
    grid = Grid.of(ScoreBatch.of([score]))
    return grid.scores(titles=(score.title,), composers=(score.composer,))[0]


def bars_of(score: Score) -> Bars:
    """Bar lines of a score in normal form, up to the bar of its last onset."""
    grid = Grid.of(ScoreBatch.of([score]))
    return Bars(start_ticks=grid.bar_time_ticks, meter=grid.bar_meter)


def encode(score: Score, controls: Controls | None = None) -> Tokens:
    """Tokens of a score in normal form (others are brought to it), from ``Start`` to ``End``; shape (T,)."""
    head = (controls or Controls()).tokens()
    return encode_grid(Grid.of(ScoreBatch.of([score])), heads=[head])[0]


def encode_grid(grid: Grid, *, heads: Sequence[Tokens]) -> tuple[Tokens, Starts]:
    """Tokens of pieces in normal form, end to end, and where each piece's begin; shapes (T,) and (W + 1,).

    Args:
        grid: W pieces.
        heads: the control tokens of each.
    """
    notes = grid.notes
    at = _positions(grid)
    says = _said(notes, bar=at.bar[at.of_note])
    new_meter = grid.new_meter
    # Where a token lies is how many come before it: heads and ends of pieces, bars, positions, notes.
    bar_size, position_size = 1 + new_meter.astype(np.int64), 1 + at.has_tempo.astype(np.int64)
    of_bars, of_positions = _sums(bar_size), _sums(position_size)
    of_notes = _sums(1 + says.program.astype(np.int8) + says.duration + says.velocity)
    head_size = np.array([len(head) for head in heads], dtype=np.int64)
    of_frames = _sums(head_size + 2)
    before_bar = of_bars[1:] + np.repeat(of_frames[:-1] + 1 + head_size, np.diff(grid.bar_starts))
    before_position = before_bar[at.bar] + of_positions[1:]
    note_at = before_position[at.of_note] + of_notes[1:] - 1
    position_at = before_position - position_size + of_notes[at.first_note[:-1]]
    of_bodies = (of_positions + of_notes[at.first_note])[at.first_of_bar]
    bar_at = before_bar - bar_size + of_bodies[:-1]
    starts = of_frames + (of_bars + of_bodies)[grid.bar_starts]

    tokens = np.empty(starts[-1], dtype=np.uint16)
    tokens[starts[:-1]], tokens[starts[1:] - 1] = START, END
    tokens[runs(starts[:-1] + 1, head_size)] = np.concatenate(heads) if len(heads) else 0
    tokens[bar_at] = BAR
    tokens[bar_at[new_meter] + 1] = _METER0 + grid.bar_meter[new_meter]
    tokens[position_at] = _POSITION0 + at.time_ticks - grid.bar_time_ticks[at.bar]
    tokens[position_at[at.has_tempo] + 1] = _TEMPO0 + grid.tempo
    _write_notes(tokens, notes, says, at=note_at)
    return tokens, starts


def decode(tokens: NDArray[np.integer]) -> Decoded:
    """The score that tokens say; every token that says nothing possible is counted, none is guessed at."""
    body, refused, ended = _body(np.asarray(tokens, dtype=np.int64))
    kind = EVENTS.kind_of[body]
    index = np.arange(len(body))
    is_ = {name: kind == EVENTS.kinds.index(name) for name in EVENTS.kinds}
    bar = np.cumsum(is_["Bar"]) - 1
    bar_index = np.flatnonzero(is_["Bar"])

    meter_at = np.flatnonzero(is_["Meter"])
    in_place = body[meter_at - 1] == BAR
    refused += int((~in_place).sum())
    meter_at = meter_at[in_place]
    meters, starts = _bar_lines(len(bar_index), bar_of_meter=bar[meter_at], meter=body[meter_at] - _METER0)
    refused += int(len(bar_index) > 0 and (len(meter_at) == 0 or bar[meter_at[0]] != 0))

    position_at = np.flatnonzero(is_["Position"])
    offset = body[position_at] - _POSITION0
    onset = starts[bar[position_at]] + offset
    fits = offset < METER_TICKS[meters[bar[position_at]]]
    rises = onset > np.concatenate(([-1], np.maximum.accumulate(np.where(fits, onset, -1))[:-1]))
    refused += int((~(fits & rises)).sum())
    position_at, onset = position_at[fits & rises], onset[fits & rises]

    tempo_at = np.flatnonzero(is_["Tempo"])
    holder = np.searchsorted(position_at, tempo_at) - 1
    in_place = (
        (holder >= 0) & (position_at[holder] == tempo_at - 1) if len(position_at) else np.zeros(len(tempo_at), bool)
    )
    refused += int((~in_place).sum())
    tempo_ticks, tempos = onset[holder[in_place]], body[tempo_at[in_place]] - _TEMPO0

    note_at = np.flatnonzero(is_["Pitch"] | is_["Drum"])
    bar_start = bar_index[bar[note_at]] if len(bar_index) else note_at

    def running(name: str) -> Index:
        last = np.maximum.accumulate(np.where(is_[name], index, -1))[note_at]
        return np.where(last > bar_start, last, -1)

    drum = is_["Drum"][note_at]
    place = np.searchsorted(position_at, note_at) - 1
    placed = (place >= 0) & (position_at[place] > bar_start) if len(position_at) else np.zeros(len(note_at), bool)
    program, duration, velocity = running("Program"), running("Duration"), running("Velocity")
    known = placed & (duration >= 0) & (velocity >= 0) & (drum | (program >= 0))
    refused += int((~known).sum())
    note_at, drum = note_at[known], drum[known]
    notes = settled(
        onset[place[known]],
        program=np.where(drum, DRUM_PROGRAM, body[program[known]] - _PROGRAM0),
        pitch=body[note_at] - np.where(drum, _DRUM0, _PITCH0),
        duration=body[duration[known]] - _DURATION0,
        velocity=body[velocity[known]] - _VELOCITY0,
    )
    refused += len(note_at) - len(notes)
    score = _assembled(notes, tempo_ticks=tempo_ticks, tempos=tempos, bar_ticks=starts[:-1], meters=meters)
    return Decoded(score=score, bars=len(bar_index), refused=refused, ended=ended)


def bar_windows(tokens: Tokens, *, max_tokens: int) -> list[Tokens]:
    """Cut a sequence at bar lines into windows of at most ``max_tokens``.

    Each window repeats the head (``Start`` and controls) and, after its first ``Bar``, the meter in force. A bar that
    alone is too long for a window is cut where the window ends; what follows it in that bar starts the next window
    under a repeated ``Bar``, so no token is lost.
    """
    if len(tokens) <= max_tokens:
        return [tokens]
    is_meter = EVENTS.kind_of[tokens] == EVENTS.kinds.index("Meter")
    bar_at = np.flatnonzero(tokens == BAR)
    head = tokens[: bar_at[0]]
    edges = np.append(bar_at, len(tokens))
    room = max_tokens - len(head) - 2
    windows: list[Tokens] = []
    start, meter = int(bar_at[0]), tokens[bar_at[0] + 1]
    while start < len(tokens):
        start += int(tokens[start] == BAR)
        if is_meter[start : start + 1].any():
            meter = tokens[start]
            start += 1
        whole = edges[(edges > start) & (edges <= start + room)]
        stop = int(whole[-1]) if len(whole) else start + room
        windows.append(np.concatenate((head, np.array([BAR, meter], dtype=np.uint16), tokens[start:stop])))
        changes = np.flatnonzero(is_meter[start:stop])
        meter = tokens[start + changes[-1]] if len(changes) else meter
        start = stop
    return windows


@dataclass(frozen=True, slots=True)
class _Positions:
    """The P distinct positions of a grid.

    Args:
        time_ticks, has_tempo, bar: of each; shape (P,).
        first_note: first note at or after each, and N; shape (P + 1,).
        first_of_bar: first position of each bar or after it, and P; shape (B + 1,).
        of_note: position of each note; shape (N,).
    """

    time_ticks: Index
    has_tempo: NDArray[np.bool_]
    bar: Index
    first_note: Index
    first_of_bar: Index
    of_note: Index


def _positions(grid: Grid) -> _Positions:
    """Where notes begin, and where the tempo changes between notes."""
    first_note = np.flatnonzero(changed(grid.notes.time_ticks))
    time_ticks = grid.notes.time_ticks[first_note]
    at = np.searchsorted(time_ticks, grid.tempo_time_ticks)
    between = np.append(time_ticks, -1)[at] != grid.tempo_time_ticks
    time_ticks = np.insert(time_ticks, at[between], grid.tempo_time_ticks[between])
    first_note = np.append(first_note, len(grid.notes))
    first_note = np.insert(first_note, at[between], first_note[at[between]])
    has_tempo = np.zeros(len(time_ticks), dtype=bool)
    has_tempo[at + np.cumsum(between) - between] = True
    first_of_bar = np.append(np.searchsorted(time_ticks, grid.bar_time_ticks), len(time_ticks))
    return _Positions(
        time_ticks=time_ticks,
        has_tempo=has_tempo,
        bar=np.repeat(np.arange(len(grid.bar_time_ticks)), np.diff(first_of_bar)),
        first_note=first_note,
        first_of_bar=first_of_bar,
        of_note=np.repeat(np.arange(len(time_ticks)), np.diff(first_note)),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """Which running values each note has to say; each of shape (N,)."""

    program: NDArray[np.bool_]
    duration: NDArray[np.bool_]
    velocity: NDArray[np.bool_]


def _said(notes: GridNotes, *, bar: Index) -> _Said:
    new_bar = changed(bar)
    melodic = np.flatnonzero(notes.program != DRUM_PROGRAM)
    program = np.zeros(len(notes), dtype=bool)
    program[melodic] = changed(bar[melodic]) | changed(notes.program[melodic])
    return _Said(
        program=program,
        duration=new_bar | changed(notes.duration),
        velocity=new_bar | changed(notes.velocity),
    )


def _write_notes(tokens: Tokens, notes: GridNotes, says: _Said, *, at: Index) -> None:
    """Put notes where their last token is ``at``."""
    tokens[at] = notes.pitch + np.where(notes.program == DRUM_PROGRAM, np.uint16(_DRUM0), np.uint16(_PITCH0))
    rows = np.flatnonzero(says.velocity)
    tokens[at[rows] - 1] = _VELOCITY0 + notes.velocity[rows]
    rows = np.flatnonzero(says.duration)
    tokens[at[rows] - 1 - says.velocity[rows]] = _DURATION0 + notes.duration[rows]
    rows = np.flatnonzero(says.program)
    tokens[at[rows] - 1 - says.velocity[rows] - says.duration[rows]] = _PROGRAM0 + notes.program[rows]


def _sums(counts: NDArray[np.integer]) -> Index:
    """How many come before each, and all; one entry more."""
    sums = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def _body(tokens: Index) -> tuple[Index, int, bool]:
    """Tokens from the first ``Bar`` to before ``End``, how many others were refused, whether an ``End`` was found."""
    unknown = (tokens < 0) | (tokens >= len(EVENTS))
    tokens = tokens[~unknown]
    ends = np.flatnonzero(tokens == END)
    stop = int(ends[0]) if len(ends) else len(tokens)
    refused = int(unknown.sum()) + int((tokens[stop + 1 :] != PAD).sum())
    bars = np.flatnonzero(tokens[:stop] == BAR)
    head, body = np.split(tokens[:stop], [int(bars[0]) if len(bars) else stop])
    allowed_in_head = (head < BAR) & (head != PAD)
    is_event = body >= BAR
    refused += int((~allowed_in_head).sum()) + int((~is_event).sum())
    return body[is_event], refused, bool(len(ends))


def _bar_lines(num_bars: int, *, bar_of_meter: Index, meter: Index) -> tuple[Index, Index]:
    """Meter and start tick of each bar, and one entry more for what would come next."""
    meters = np.full(max(num_bars, 1), -1, dtype=np.int64)
    meters[bar_of_meter] = meter
    last = np.maximum.accumulate(np.where(meters >= 0, np.arange(len(meters)), -1))
    meters = np.where(last >= 0, meters[last], COMMON_TIME)
    starts = np.concatenate(([0], np.cumsum(METER_TICKS[meters])))
    return meters, starts


def _assembled(notes: GridNotes, *, tempo_ticks: Index, tempos: Index, bar_ticks: Index, meters: Index) -> Score:
    """The score of one piece whose line of time is its own."""
    last_onset = int(notes.time_ticks[-1]) if len(notes) else 0
    if not len(tempo_ticks) or tempo_ticks[0] != 0:
        tempo_ticks, tempos = np.append(0, tempo_ticks), np.append(nearest_tempo(np.array([DEFAULT_TEMPO_QPM])), tempos)
    rows = np.flatnonzero(tempo_ticks <= last_onset)
    rows = rows[changes(tempo_ticks[rows], tempos[rows], piece=np.zeros_like(rows))]
    bars = int(np.searchsorted(bar_ticks, last_onset, side="right"))
    grid = Grid(
        begin_ticks=np.zeros(1, dtype=np.int64),
        notes=notes,
        note_starts=np.array([0, len(notes)]),
        tempo_time_ticks=tempo_ticks[rows],
        tempo=tempos[rows],
        tempo_starts=np.array([0, len(rows)]),
        bar_time_ticks=bar_ticks[:bars],
        bar_meter=meters[:bars],
        bar_starts=np.array([0, bars]),
    )
    return grid.scores(titles=(None,), composers=(None,))[0]
