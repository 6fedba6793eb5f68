"""Score to event tokens and back, on whole columns at a time.

Legend: N notes, P distinct positions, B bars, T tokens.

The **normal form** (:func:`on_grid`) is what tokens can say; the law is ``decode(encode(on_grid(s))) == on_grid(s)``.
It has 24 ticks a quarter; durations, velocities and tempos on the vocabulary's scales; meter changes on bar lines (an
odd rest of a bar becomes a short bar of its own; one that no meter can name delays the change to the next bar line; a
meter that the vocabulary lacks reads as 4/4); one track a program; no two equal pitches of a program at one onset (the
longer stays), none sounding into its own repetition (the earlier ends there); no tempo or meter after the last onset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.features.controls import Controls
from tutti.features.vocabulary import (
    BAR,
    DURATIONS_TICKS,
    END,
    EVENTS,
    MAX_BAR_TICKS,
    METERS,
    PAD,
    START,
    TEMPOS_QPM,
    TICKS_PER_QUARTER,
    VELOCITIES,
)

Tokens = NDArray[np.uint16]
Index = NDArray[np.int64]

_DURATIONS = np.array(DURATIONS_TICKS)
_DURATION_MIDDLES = (_DURATIONS[1:] + _DURATIONS[:-1]) / 2
_TEMPOS = np.array(TEMPOS_QPM, dtype=np.float64)
_TEMPO_MIDDLES = np.sqrt(_TEMPOS[1:] * _TEMPOS[:-1])
_METER_INDEX = {meter: index for index, meter in enumerate(METERS)}
_METER_TICKS = np.array([above * 4 * TICKS_PER_QUARTER // below for above, below in METERS])
_COMMON_TIME = _METER_INDEX[4, 4]

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


def nearest_tempo(qpm: NDArray[np.float64]) -> Index:
    """Index into ``TEMPOS_QPM`` of the nearest tempo by ratio; same shape."""
    return np.searchsorted(_TEMPO_MIDDLES, qpm).astype(np.int64)


def on_grid(score: Score) -> Score:
    """The normal form of a score: what event tokens can say of it."""
    score = score.with_resolution(TICKS_PER_QUARTER)
    notes = _settled(_quantised(score.notes))
    last_onset = int(notes.onset_ticks.max()) if len(notes) else 0
    meter_ticks, meters = _meters_on_bar_lines(score, until_ticks=last_onset)
    tempo_ticks, tempos = _changes(score.tempo_ticks, nearest_tempo(score.tempo_qpm), until_ticks=last_onset)
    normal = _score(notes, tempo_ticks=tempo_ticks, tempos=tempos, meter_ticks=meter_ticks, meters=meters)
    return replace(normal, title=score.title, composer=score.composer)


def bars_of(score: Score) -> Bars:
    """Bar lines of a score in normal form, up to the bar of its last onset."""
    last_onset = int(score.notes.onset_ticks.max()) if len(score.notes) else 0
    meters = np.array(
        [
            _METER_INDEX[above, below]
            for above, below in zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True)
        ]
    )
    ends = np.append(score.meter_ticks[1:], last_onset + 1)
    starts = [
        np.arange(start, end, _METER_TICKS[meter])
        for start, end, meter in zip(score.meter_ticks.tolist(), ends.tolist(), meters.tolist(), strict=True)
    ]
    return Bars(
        start_ticks=np.concatenate(starts).astype(np.int64),
        meter=np.repeat(meters, [len(segment) for segment in starts]),
    )


def encode(score: Score, controls: Controls | None = None) -> Tokens:
    """Tokens of a score in normal form (others are brought to it), from ``Start`` to ``End``; shape (T,)."""
    score = on_grid(score)
    notes = score.notes
    bars = bars_of(score)
    onset = notes.onset_ticks.astype(np.int64)
    position_ticks = np.union1d(onset, score.tempo_ticks)
    bar_of_position = np.searchsorted(bars.start_ticks, position_ticks, side="right") - 1
    position_of_note = np.searchsorted(position_ticks, onset)
    says = _said(notes, bar_of_position[position_of_note])

    new_meter = np.diff(bars.meter, prepend=-1) != 0
    has_tempo = np.isin(position_ticks, score.tempo_ticks)
    note_cost = np.concatenate(([0], np.cumsum(1 + says.program.astype(np.int64) + says.duration + says.velocity)))
    position_cost = np.concatenate(([0], np.cumsum(1 + has_tempo.astype(np.int64))))
    bar_cost = np.concatenate(([0], np.cumsum(1 + new_meter.astype(np.int64))))

    first_note = np.searchsorted(position_of_note, np.arange(len(position_ticks) + 1))
    first_position = np.searchsorted(bar_of_position, np.arange(len(bars.meter)))
    head = (controls or Controls()).tokens()
    base = 1 + len(head)
    bar_at = base + bar_cost[:-1] + position_cost[first_position] + note_cost[first_note[first_position]]
    position_at = base + bar_cost[bar_of_position + 1] + position_cost[:-1] + note_cost[first_note[:-1]]
    note_at = (
        base + bar_cost[bar_of_position[position_of_note] + 1] + position_cost[position_of_note + 1] + note_cost[1:] - 1
    )

    tokens = np.empty(base + bar_cost[-1] + position_cost[-1] + note_cost[-1] + 1, dtype=np.uint16)
    tokens[0], tokens[1:base], tokens[-1] = START, head, END
    tokens[bar_at] = BAR
    tokens[bar_at[new_meter] + 1] = _METER0 + bars.meter[new_meter]
    tokens[position_at] = _POSITION0 + position_ticks - bars.start_ticks[bar_of_position]
    tokens[position_at[has_tempo] + 1] = _TEMPO0 + nearest_tempo(score.tempo_qpm)
    drum = notes.program == DRUM_PROGRAM
    tokens[note_at] = np.where(drum, _DRUM0, _PITCH0) + notes.pitch.astype(np.int64)
    at = note_at[says.velocity] - 1
    tokens[at] = _VELOCITY0 + notes.velocity[says.velocity].astype(np.int64) // 4
    at = note_at[says.duration] - 1 - says.velocity[says.duration]
    tokens[at] = _DURATION0 + np.searchsorted(_DURATIONS, notes.duration_ticks[says.duration])
    at = note_at[says.program] - 1 - says.velocity[says.program] - says.duration[says.program]
    tokens[at] = _PROGRAM0 + notes.program[says.program].astype(np.int64)
    return tokens


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
    fits = offset < _METER_TICKS[meters[bar[position_at]]]
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
    notes = Notes.of(
        onset_ticks=onset[place[known]],
        duration_ticks=_DURATIONS[body[duration[known]] - _DURATION0],
        pitch=body[note_at] - np.where(drum, _DRUM0, _PITCH0),
        velocity=np.array(VELOCITIES)[body[velocity[known]] - _VELOCITY0],
        program=np.where(drum, DRUM_PROGRAM, body[program[known]] - _PROGRAM0),
    )
    settled = _settled(notes)
    refused += len(notes) - len(settled)
    score = _assembled(settled, tempo_ticks=tempo_ticks, tempos=tempos, bar_starts=starts, meters=meters)
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
class _Said:
    """Which running values each note has to say; each of shape (N,)."""

    program: NDArray[np.bool_]
    duration: NDArray[np.bool_]
    velocity: NDArray[np.bool_]


def _said(notes: Notes, bar: Index) -> _Said:
    new_bar = np.diff(bar, prepend=-1) != 0
    melodic = np.flatnonzero(notes.program != DRUM_PROGRAM)
    program = np.zeros(len(notes), dtype=bool)
    program[melodic] = (np.diff(bar[melodic], prepend=-1) != 0) | (
        np.diff(notes.program[melodic].astype(np.int64), prepend=-1) != 0
    )
    return _Said(
        program=program,
        duration=new_bar | (np.diff(notes.duration_ticks.astype(np.int64), prepend=-1) != 0),
        velocity=new_bar | (np.diff(notes.velocity.astype(np.int64), prepend=-1) != 0),
    )


def _quantised(notes: Notes) -> Notes:
    return replace(
        notes,
        duration_ticks=_DURATIONS[np.searchsorted(_DURATION_MIDDLES, notes.duration_ticks)].astype(np.int32),
        velocity=(np.minimum(notes.velocity, 127) // 4 * 4 + 3).astype(np.uint8),
        program=np.minimum(notes.program, DRUM_PROGRAM).astype(np.uint8),
        pitch=np.minimum(notes.pitch, 127).astype(np.uint8),
    )


def _settled(notes: Notes) -> Notes:
    """One note a pitch, program and onset, none into its own repetition; sorted as tokens are; one track a program."""
    order = np.lexsort(
        (-notes.velocity.astype(int), -notes.duration_ticks, notes.onset_ticks, notes.pitch, notes.program)
    )
    notes = notes.take(order)
    voice = notes.program.astype(np.int64) * 128 + notes.pitch
    onset = notes.onset_ticks.astype(np.int64)
    first = (np.diff(voice, prepend=-1) != 0) | (np.diff(onset, prepend=-1) != 0)
    notes, voice, onset = notes.take(first), voice[first], onset[first]
    room = np.full(len(notes), np.iinfo(np.int32).max, dtype=np.int64)
    same_voice = voice[1:] == voice[:-1]
    room[:-1][same_voice] = np.diff(onset)[same_voice]
    clipped = _DURATIONS[np.searchsorted(_DURATIONS, np.minimum(notes.duration_ticks, room), side="right") - 1]
    notes = replace(
        notes,
        duration_ticks=clipped.astype(np.int32),
        track=np.unique(notes.program, return_inverse=True)[1].astype(np.uint16),
    )
    return notes.take(np.lexsort((notes.pitch, notes.velocity, notes.duration_ticks, notes.program, notes.onset_ticks)))


def _changes(ticks: NDArray[np.integer], values: Index, *, until_ticks: int) -> tuple[Index, Index]:
    """The map's entries up to a tick; at one tick the last wins, repeated values vanish."""
    kept = ticks <= until_ticks
    ticks, values = np.asarray(ticks[kept], dtype=np.int64), values[kept]
    last = np.append(np.diff(ticks) != 0, True)
    ticks, values = ticks[last], values[last]
    new = np.append(True, np.diff(values) != 0)
    return ticks[new], values[new]


def _meters_on_bar_lines(score: Score, *, until_ticks: int) -> tuple[Index, Index]:
    wanted = [
        _METER_INDEX.get((above, below), _COMMON_TIME)
        for above, below in zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True)
    ]
    ticks: list[int] = [0]
    meters: list[int] = [wanted[0]]
    for tick, meter in zip(score.meter_ticks.tolist()[1:], wanted[1:], strict=True):
        length = int(_METER_TICKS[meters[-1]])
        whole, rest = divmod(max(tick - ticks[-1], 0), length)
        line = ticks[-1] + whole * length
        if rest:
            short = _short_meter(rest)
            if short is None:
                line += length
            else:
                ticks.append(line)
                meters.append(short)
                line += rest
        ticks.append(line)
        meters.append(meter)
    return _changes(np.array(ticks), np.array(meters), until_ticks=until_ticks)


def _short_meter(ticks: int) -> int | None:
    """The meter of one bar of ``ticks``, in the largest note value that counts it."""
    for below in (4, 8, 16):
        beat = 4 * TICKS_PER_QUARTER // below
        if ticks % beat == 0 and ticks <= MAX_BAR_TICKS:
            return _METER_INDEX.get((ticks // beat, below))
    return None


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
    meters = np.where(last >= 0, meters[last], _COMMON_TIME)
    starts = np.concatenate(([0], np.cumsum(_METER_TICKS[meters])))
    return meters, starts


def _assembled(notes: Notes, *, tempo_ticks: Index, tempos: Index, bar_starts: Index, meters: Index) -> Score:
    last_onset = int(notes.onset_ticks.max()) if len(notes) else 0
    meter_ticks, meters = _changes(bar_starts[:-1], meters, until_ticks=last_onset)
    if not len(tempo_ticks) or tempo_ticks[0] != 0:
        tempo_ticks, tempos = np.append(0, tempo_ticks), np.append(int(nearest_tempo(np.array([120.0]))[0]), tempos)
    tempo_ticks, tempos = _changes(tempo_ticks, tempos, until_ticks=last_onset)
    return _score(notes, tempo_ticks=tempo_ticks, tempos=tempos, meter_ticks=meter_ticks, meters=meters)


def _score(notes: Notes, *, tempo_ticks: Index, tempos: Index, meter_ticks: Index, meters: Index) -> Score:
    """A score in normal form; tempos and meters are indices into the vocabulary's scales."""
    fractions = np.array(METERS, dtype=np.uint8)[meters]
    return Score(
        ticks_per_quarter=TICKS_PER_QUARTER,
        notes=notes,
        tempo_ticks=tempo_ticks.astype(np.int32),
        tempo_qpm=_TEMPOS[tempos],
        meter_ticks=meter_ticks.astype(np.int32),
        meter_numerator=fractions[:, 0],
        meter_denominator=fractions[:, 1],
    )
