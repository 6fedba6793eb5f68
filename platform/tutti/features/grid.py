"""The normal form of music, of many pieces at once: what event tokens can say of them.

Legend: W pieces, N notes, T tempo changes, B bars of all pieces together. ``…_starts`` has one entry more than there
are pieces: piece w holds the rows ``starts[w]`` to ``starts[w + 1]``.

**Time** is counted in the vocabulary's ticks on one line that holds all pieces one after the other, a pause between
them: one number says piece and tick, and neighbours in time can be compared without a look at whose they are. A note
then fits a key of 63 bits, and sorting plain integers is the cheapest grouping there is.

The rules: 24 ticks a quarter; durations, velocities and tempos on the vocabulary's scales; meter changes on bar lines
(an odd rest of a bar becomes a short bar of its own; one that no meter can name delays the change to the next bar line;
a meter that the vocabulary lacks reads as 4/4); one track a program; no two equal pitches of a program at one onset
(the longer stays), none sounding into its own repetition (the earlier ends there); no tempo or meter after the last
onset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes
from tutti.corpus.score_batch import ScoreBatch, Starts, reduced
from tutti.features.vocabulary import (
    DURATIONS_TICKS,
    MAX_BAR_TICKS,
    METERS,
    TEMPOS_QPM,
    TICKS_PER_QUARTER,
    VELOCITIES,
)

Index = NDArray[np.int64]
Small = NDArray[np.uint16]

DURATIONS = np.array(DURATIONS_TICKS)
METER_TICKS = np.array([above * 4 * TICKS_PER_QUARTER // below for above, below in METERS])
METER_INDEX = {meter: index for index, meter in enumerate(METERS)}
COMMON_TIME = METER_INDEX[4, 4]
PROGRAMS = DRUM_PROGRAM + 1

_TEMPOS = np.array(TEMPOS_QPM, dtype=np.float64)
_TEMPO_MIDDLES = np.sqrt(_TEMPOS[1:] * _TEMPOS[:-1])
_LONGEST = DURATIONS_TICKS[-1]
_LENGTHS = np.arange(_LONGEST + 1)
# Of each length in ticks: the nearest duration (the shorter of two), and the longest that fits into it.
_NEAREST = np.searchsorted((DURATIONS[1:] + DURATIONS[:-1]) / 2, _LENGTHS)
_LONGEST_WITHIN = np.maximum(np.searchsorted(DURATIONS, _LENGTHS, side="right") - 1, 0)
_METER_OF = np.full((256, 256), COMMON_TIME, dtype=np.int64)
for _meter, _index in METER_INDEX.items():
    _METER_OF[_meter] = _index

_PITCH_BITS, _VELOCITY_BITS, _DURATION_BITS, _PROGRAM_BITS, _TIME_BITS = 7, 5, 7, 8, 36
_LENGTH_AND_LOUDNESS_BITS = _DURATION_BITS + _VELOCITY_BITS
PAUSE_TICKS = _LONGEST
MAX_TIME_TICKS = 2**_TIME_BITS - PAUSE_TICKS
"""Where the line of time must end; a piece of any ticks that fit int32 is shorter, at whatever resolution."""


@dataclass(frozen=True, slots=True)
class GridNotes:
    """N notes sorted by time, program, duration, velocity and pitch, in the vocabulary's own measures.

    Args:
        time_ticks: where each begins, on the line of all pieces.
        program: General MIDI program, 128 for drums.
        duration: index into ``DURATIONS_TICKS``.
        velocity: index into ``VELOCITIES``.
        pitch: MIDI pitch or drum key.
    """

    time_ticks: Index
    program: Small
    duration: Small
    velocity: Small
    pitch: Small

    def __len__(self) -> int:
        return len(self.time_ticks)


@dataclass(frozen=True, slots=True)
class Grid:
    """W pieces in normal form.

    Args:
        begin_ticks: where each piece begins on the line of time; shape (W,).
        notes, note_starts: N notes.
        tempo_time_ticks, tempo, tempo_starts: T tempo changes, as indices into ``TEMPOS_QPM``, the first of each piece
            at its beginning.
        bar_time_ticks, bar_meter, bar_starts: B bars up to the one of each piece's last onset, at least one a piece;
            the meters are indices into ``METERS``.
    """

    begin_ticks: Index
    notes: GridNotes
    note_starts: Starts
    tempo_time_ticks: Index
    tempo: Index
    tempo_starts: Starts
    bar_time_ticks: Index
    bar_meter: Index
    bar_starts: Starts

    @classmethod
    def of(cls, batch: ScoreBatch) -> Grid:
        """The normal form of pieces.

        Raises:
            ValueError: together they last longer than :data:`MAX_TIME_TICKS`.
        """
        onset = _rescaled(batch.notes.onset_ticks, batch, starts=batch.note_starts)
        end = batch.notes.onset_ticks.astype(np.int64) + batch.notes.duration_ticks
        length = np.minimum(_rescaled(end, batch, starts=batch.note_starts) - onset, _LONGEST)
        span = span_ticks(batch)
        if span.sum() > MAX_TIME_TICKS:
            raise ValueError(f"{len(batch)} pieces last {span.sum()} ticks, over {MAX_TIME_TICKS}: take fewer at once")
        begin, last = np.cumsum(span) - span, span - 1 - PAUSE_TICKS
        onset += np.repeat(begin, np.diff(batch.note_starts))
        notes = settled(
            onset,
            program=np.minimum(batch.notes.program, DRUM_PROGRAM),
            pitch=np.minimum(batch.notes.pitch, 127),
            duration=_NEAREST[np.maximum(length, 1)],
            velocity=np.minimum(batch.notes.velocity, 127) >> 2,
        )
        tempo_time, tempo, tempo_starts = _tempos(batch, begin=begin, last=last)
        bar_time, bar_meter, bar_starts = _bars(batch, begin=begin, last=last)
        return cls(
            begin_ticks=begin,
            notes=notes,
            note_starts=starts_of(begin, notes.time_ticks),
            tempo_time_ticks=tempo_time,
            tempo=tempo,
            tempo_starts=tempo_starts,
            bar_time_ticks=bar_time,
            bar_meter=bar_meter,
            bar_starts=bar_starts,
        )

    def __len__(self) -> int:
        return len(self.begin_ticks)

    @property
    def piece_of_note(self) -> Index:
        """Which piece each note belongs to; shape (N,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.note_starts))

    @property
    def new_meter(self) -> NDArray[np.bool_]:
        """Bars that begin another meter than the bar before them in their piece had; shape (B,)."""
        new = changed(self.bar_meter)
        new[self.bar_starts[:-1]] = True
        return new

    def programs(self) -> NDArray[np.bool_]:
        """Which programs each piece plays; shape (W, 129)."""
        played = np.zeros(len(self) * PROGRAMS, dtype=bool)
        played[self.piece_of_note * PROGRAMS + self.notes.program] = True
        return played.reshape(-1, PROGRAMS)

    def scores(self, *, titles: tuple[str | None, ...], composers: tuple[str | None, ...]) -> ScoreBatch:
        """The pieces as scores, under the names that are given for each."""
        notes, piece = self.notes, self.piece_of_note
        track = np.cumsum(self.programs(), axis=1) - 1
        meter = np.flatnonzero(self.new_meter)
        piece_of_meter = np.searchsorted(self.bar_starts, meter, side="right") - 1
        fractions = np.array(METERS, dtype=np.uint8)[self.bar_meter[meter]]
        piece_of_tempo = np.repeat(np.arange(len(self)), np.diff(self.tempo_starts))
        return ScoreBatch(
            ticks_per_quarter=np.full(len(self), TICKS_PER_QUARTER, dtype=np.int32),
            notes=Notes(
                onset_ticks=(notes.time_ticks - self.begin_ticks[piece]).astype(np.int32),
                duration_ticks=DURATIONS[notes.duration].astype(np.int32),
                pitch=notes.pitch.astype(np.uint8),
                velocity=np.array(VELOCITIES, dtype=np.uint8)[notes.velocity],
                program=notes.program.astype(np.uint8),
                track=track[piece, notes.program].astype(np.uint16),
            ),
            note_starts=self.note_starts,
            tempo_ticks=(self.tempo_time_ticks - self.begin_ticks[piece_of_tempo]).astype(np.int32),
            tempo_qpm=_TEMPOS[self.tempo],
            tempo_starts=self.tempo_starts,
            meter_ticks=(self.bar_time_ticks[meter] - self.begin_ticks[piece_of_meter]).astype(np.int32),
            meter_numerator=fractions[:, 0],
            meter_denominator=fractions[:, 1],
            meter_starts=np.searchsorted(meter, self.bar_starts),
            titles=titles,
            composers=composers,
        )


def span_ticks(batch: ScoreBatch) -> Index:
    """Ticks of the grid that each piece takes on the line of time, the pause after its last onset included; (W,)."""
    last = reduced(np.maximum, batch.notes.onset_ticks, batch.note_starts)
    return _rescaled(last, batch, starts=np.arange(len(batch) + 1)) + 1 + PAUSE_TICKS


def nearest_tempo(qpm: NDArray[np.float64]) -> Index:
    """Index into ``TEMPOS_QPM`` of the nearest tempo by ratio; same shape."""
    return np.searchsorted(_TEMPO_MIDDLES, qpm).astype(np.int64)


def settled(
    time_ticks: Index,
    *,
    program: NDArray[Any],
    pitch: NDArray[Any],
    duration: NDArray[Any],
    velocity: NDArray[Any],
) -> GridNotes:
    """Notes of any order, sorted; one a pitch, program and time, and none sounds into its own repetition.

    Args:
        time_ticks: below :data:`MAX_TIME_TICKS`; two pieces lie a pause of the longest duration apart.
        program, pitch, duration, velocity: as in :class:`GridNotes`.
    """
    place = ((program.astype(np.int64) << _PITCH_BITS | pitch) << _TIME_BITS) | time_ticks
    key = np.sort((place << _DURATION_BITS | duration) << _VELOCITY_BITS | velocity)
    place = key >> _LENGTH_AND_LOUDNESS_BITS
    # The last of those at one place is the longest, of these the loudest.
    last = np.append(place[1:] != place[:-1], np.ones(min(len(place), 1), dtype=bool))
    if not last.all():
        key, place = key[last], place[last]
    # Places of two voices, too, are further apart than any note lasts: time ends that much before its bits do.
    room = np.full(len(place), _LONGEST)
    np.minimum(place[1:] - place[:-1], _LONGEST, out=room[:-1])
    duration = np.minimum(key >> _VELOCITY_BITS & (1 << _DURATION_BITS) - 1, _LONGEST_WITHIN[room])
    velocity = key & (1 << _VELOCITY_BITS) - 1
    voice, time_ticks = place >> _TIME_BITS, place & (1 << _TIME_BITS) - 1
    key = (time_ticks << _PROGRAM_BITS | voice >> _PITCH_BITS) << _DURATION_BITS | duration
    key = np.sort((key << _VELOCITY_BITS | velocity) << _PITCH_BITS | voice & (1 << _PITCH_BITS) - 1)
    return _unpacked(key)


def changed(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value differs from the one before it; the first always does. Same shape."""
    new = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new


def changes(time_ticks: Index, values: Index, *, piece: Index) -> Index:
    """Rows of a map that change something: at one time the last one speaks, and a value said again says nothing."""
    rows = np.flatnonzero(np.append(time_ticks[1:] != time_ticks[:-1], np.ones(min(len(time_ticks), 1), dtype=bool)))
    return rows[changed(values[rows]) | changed(piece[rows])]


def runs(starts: Index, lengths: Index) -> Index:
    """Runs of numbers end to end: each counts from its start and has its length."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(starts - before, lengths))


def starts_of(begin: Index, time_ticks: Index) -> Starts:
    """Where the rows of each piece begin that begins at ``begin``; one entry more."""
    return np.append(np.searchsorted(time_ticks, begin), len(time_ticks))


def _unpacked(key: Index) -> GridNotes:
    def field(shift: int, bits: int) -> Small:
        return (key >> shift & (1 << bits) - 1).astype(np.uint16)

    velocity_at = _PITCH_BITS
    duration_at = velocity_at + _VELOCITY_BITS
    program_at = duration_at + _DURATION_BITS
    return GridNotes(
        time_ticks=key >> program_at + _PROGRAM_BITS,
        program=field(program_at, _PROGRAM_BITS),
        duration=field(duration_at, _DURATION_BITS),
        velocity=field(velocity_at, _VELOCITY_BITS),
        pitch=field(0, _PITCH_BITS),
    )


def _rescaled(ticks: NDArray[Any], batch: ScoreBatch, *, starts: Starts) -> Index:
    """Ticks on the grid, rounded to the nearest, halves up; a copy."""
    own: Any = batch.ticks_per_quarter.astype(np.int64)
    # One resolution for all is the usual case, and dividing by one number is several times faster.
    own = own[0] if len(own) and (own == own[0]).all() else np.repeat(own, np.diff(starts))
    return np.asarray((2 * TICKS_PER_QUARTER * ticks.astype(np.int64) + own) // (2 * own))


def _tempos(batch: ScoreBatch, *, begin: Index, last: Index) -> tuple[Index, Index, Starts]:
    piece = np.repeat(np.arange(len(batch)), np.diff(batch.tempo_starts))
    ticks, tempo = _rescaled(batch.tempo_ticks, batch, starts=batch.tempo_starts), nearest_tempo(batch.tempo_qpm)
    kept = ticks <= last[piece]
    time, tempo, piece = (ticks + begin[piece])[kept], tempo[kept], piece[kept]
    rows = changes(time, tempo, piece=piece)
    return time[rows], tempo[rows], np.searchsorted(piece[rows], np.arange(len(batch) + 1))


def _bars(batch: ScoreBatch, *, begin: Index, last: Index) -> tuple[Index, Index, Starts]:
    piece, ticks, meter = _meters_on_bar_lines(batch)
    kept = ticks <= last[piece]
    time, meter, piece = (ticks + begin[piece])[kept], meter[kept], piece[kept]
    rows = changes(time, meter, piece=piece)
    time, meter, piece = time[rows], meter[rows], piece[rows]
    ends = np.append(time[1:], 0)
    ends[np.append(piece[1:] != piece[:-1], np.ones(min(len(piece), 1), dtype=bool))] = begin + last + 1
    lengths = METER_TICKS[meter]
    bars = -(-(ends - time) // lengths)
    first = np.cumsum(bars) - bars
    number = np.arange(bars.sum()) - np.repeat(first, bars)
    bar_time = np.repeat(time, bars) + number * np.repeat(lengths, bars)
    return bar_time, np.repeat(meter, bars), starts_of(begin, bar_time)


def _meters_on_bar_lines(batch: ScoreBatch) -> tuple[Index, Index, Index]:
    """Piece, tick and index of every meter, each on a bar line of the one before."""
    counts = np.diff(batch.meter_starts)
    piece = np.repeat(np.arange(len(batch)), counts)
    ticks = _rescaled(batch.meter_ticks, batch, starts=batch.meter_starts)
    meter = _METER_OF[batch.meter_numerator, batch.meter_denominator]
    alone = counts[piece] == 1
    moved = [(piece[alone], np.zeros(int(alone.sum()), dtype=np.int64), meter[alone])]
    for number in np.flatnonzero(counts > 1).tolist():
        rows = slice(batch.meter_starts[number], batch.meter_starts[number + 1])
        lines, meters = _on_bar_lines(ticks[rows].tolist(), meter[rows].tolist())
        moved.append((np.full(len(lines), number), np.array(lines), np.array(meters)))
    piece, ticks, meter = (np.concatenate([part[column] for part in moved]) for column in range(3))
    order = np.argsort(piece, kind="stable")
    return piece[order], ticks[order], meter[order]


def _on_bar_lines(ticks: list[int], wanted: list[int]) -> tuple[list[int], list[int]]:
    """Ticks and meters of one piece, moved to bar lines; short bars are put in before them where they are needed."""
    lines, meters = [0], [wanted[0]]
    for tick, meter in zip(ticks[1:], wanted[1:], strict=True):
        length = int(METER_TICKS[meters[-1]])
        whole, rest = divmod(max(tick - lines[-1], 0), length)
        line = lines[-1] + whole * length
        if rest:
            short = _short_meter(rest)
            if short is None:
                line += length
            else:
                lines.append(line)
                meters.append(short)
                line += rest
        lines.append(line)
        meters.append(meter)
    return lines, meters


def _short_meter(ticks: int) -> int | None:
    """The meter of one bar of ``ticks``, in the largest note value that counts it."""
    for below in (4, 8, 16):
        beat = 4 * TICKS_PER_QUARTER // below
        if ticks % beat == 0 and ticks <= MAX_BAR_TICKS:
            return METER_INDEX.get((ticks // beat, below))
    return None
