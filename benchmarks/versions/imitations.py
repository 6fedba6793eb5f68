"""Pieces that nobody wrote, for counting what is taken for a version of something although it is not.

Two voices, each a walk through what real voices do: the next interval and length are drawn from those that followed the
same two somewhere in a real voice (a Markov chain of second order), so that they share the habits of real music and now
and then a bar of it, and no two share more than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes
from tutti.corpus.score_batch import ScoreBatch
from tutti.seeding import mix64

ORDER = 2
STEPS_PER_QUARTER = 12
LONGEST_STEPS = 96
LOWEST, HIGHEST = 24, 107
RESTART_SHARE = 0.03


@dataclass(frozen=True)
class Habits:
    """What followed what in real voices: moves by the hash of the two before them, sorted by it."""

    context: NDArray[np.uint64]
    interval: NDArray[np.int64]
    gap_steps: NDArray[np.int64]

    @classmethod
    def of(cls, batch: ScoreBatch) -> Habits:
        """Of the highest notes of every part that is no drum."""
        notes = batch.notes
        steps = np.rint(notes.onset_ticks * (STEPS_PER_QUARTER / batch.ticks_per_quarter)[batch.piece_of_note])
        part = batch.piece_of_note * 2**16 + notes.track
        order = np.lexsort((notes.pitch, steps, part))
        order = order[notes.program[order] < DRUM_PROGRAM]
        part, steps, pitch = part[order], steps[order].astype(np.int64), notes.pitch[order].astype(np.int64)
        last = np.append((np.diff(steps) != 0) | (np.diff(part) != 0), True)
        part, steps, pitch = part[last], steps[last], pitch[last]
        interval, gap = np.diff(pitch), np.clip(np.diff(steps), 1, LONGEST_STEPS)
        move = _move(interval, gap)
        whole = part[ORDER + 1 :] == part[: -ORDER - 1]
        context = _context([move[back : len(move) - ORDER + back] for back in range(ORDER)])[whole]
        order = np.argsort(context, kind="stable")
        return cls(context[order], interval[ORDER:][whole][order], gap[ORDER:][whole][order])


def imitations(habits: Habits, *, count: int, notes_of_each: int, draw: np.random.Generator) -> ScoreBatch:
    """``count`` pieces of two voices with ``notes_of_each`` notes each."""
    voices = [_walks(habits, count=count, length=notes_of_each // 2, middle=middle, draw=draw) for middle in (74, 50)]
    pitch, onset = (np.concatenate([voice[column] for voice in voices], axis=1) for column in (0, 1))
    length = np.concatenate([voice[2] for voice in voices], axis=1)
    order = np.argsort(onset * 128 + pitch, axis=1, kind="stable")
    flat = [np.take_along_axis(column, order, axis=1).reshape(-1) for column in (onset, length, pitch)]
    track = np.take_along_axis(np.repeat([[0, 1]], pitch.shape[1] // 2, axis=1).repeat(count, axis=0), order, axis=1)
    return ScoreBatch(
        ticks_per_quarter=np.full(count, STEPS_PER_QUARTER, dtype=np.int32),
        notes=Notes.of(onset_ticks=flat[0], duration_ticks=flat[1], pitch=flat[2], track=track.reshape(-1)),
        note_starts=np.arange(count + 1) * pitch.shape[1],
        tempo_ticks=np.zeros(count, np.int32), tempo_qpm=np.full(count, 120.0), tempo_starts=np.arange(count + 1),
        meter_ticks=np.zeros(count, np.int32), meter_numerator=np.full(count, 4, np.uint8),
        meter_denominator=np.full(count, 4, np.uint8), meter_starts=np.arange(count + 1),
        titles=(None,) * count, composers=(None,) * count,
    )  # fmt: skip


def _walks(
    habits: Habits, *, count: int, length: int, middle: int, draw: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pitch, onset and duration; shapes (count, length)."""
    pitch = np.empty((count, length), dtype=np.int64)
    gaps = np.empty((count, length), dtype=np.int64)
    past = list(draw.integers(0, 2**20, (ORDER, count)))
    now = middle + draw.integers(-6, 7, count)
    for step in range(length):
        context = _context(past)
        begin, end = (np.searchsorted(habits.context, context, side=side) for side in ("left", "right"))
        lost = (begin == end) | (draw.random(count) < RESTART_SHARE)
        row = np.where(
            lost,
            draw.integers(0, len(habits.context), count),
            begin + draw.integers(0, 2**31, count) % np.maximum(end - begin, 1),
        )
        interval, gap = habits.interval[row], habits.gap_steps[row]
        now = now + interval
        # A voice that leaves its range goes on an octave nearer.
        now = np.where(now > middle + 18, now - 12, np.where(now < middle - 18, now + 12, now))
        now = np.clip(now, LOWEST, HIGHEST)
        pitch[:, step], gaps[:, step] = now, gap
        past = [*past[1:], _move(interval, gap)]
    onset = np.cumsum(gaps, axis=1) - gaps[:, :1]
    return pitch, onset, np.concatenate((gaps[:, 1:], gaps[:, :1]), axis=1)


def _move(interval: NDArray[np.int64], gap_steps: NDArray[np.int64]) -> NDArray[np.int64]:
    return (interval + 128) * 128 + gap_steps


def _context(moves: list[NDArray[np.int64]]) -> NDArray[np.uint64]:
    context = np.zeros(len(moves[0]), dtype=np.uint64)
    for move in moves:
        context = mix64(context ^ move.astype(np.uint64))
    return context
