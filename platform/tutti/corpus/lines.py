"""Lines of pieces: what is heard as melody and bass, without ornaments, and how it goes on from note to note.

Lines are the highest and the lowest sounding notes of the whole and the highest of each part, so that a missing part or
voice leaves others; a note below one that still sounds is no part of a highest line, and quick notes before a longer
one are taken as its ornament. A piece of drums alone has one line for each key.

What a note says after the two before it is a code: the interval between notes, and by which class of ratio the times
between their onsets grow or shrink (Pardo and Birmingham 2002, "Encoding timing information for musical query
matching"), so that neither key nor tempo nor note values matter. Of drums time alone is told.

Legend: W pieces, N notes, M notes of lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import ScoreBatch, reduced
from tutti.seeding import mix64

# A sort key holds kind of line, piece, part, onset, pitch and duration in 64 bits, which bounds how many pieces are
# sorted at once. Parts beyond the last share their lines.
_PITCH_BITS = 7
_PIECE_BITS, _PART_BITS, _STEP_BITS, _LENGTH_BITS = 6, 9, 24, 16
PIECES_AT_ONCE = 2**_PIECE_BITS
_LOWEST, _PART = 1, 2  # kinds of line; 0 are the highest notes of the whole
_KIND_SHIFT = _PIECE_BITS + _PART_BITS
_LAST_STEP = 2**_STEP_BITS - 2**_LENGTH_BITS - 1
_LENGTH_SHIFT = np.uint64(_LENGTH_BITS)
_STEP_SHIFT = np.uint64(_LENGTH_BITS + _PITCH_BITS)
_LINE_SHIFT = np.uint64(_LENGTH_BITS + _PITCH_BITS + _STEP_BITS)
_MIRROR = np.uint64(127 << _LENGTH_BITS)

_STEPS_PER_QUARTER = 480
# How many notes of a line back one is looked for that still sounds; its last sixteenth may reach into the next note.
_SOUNDING_NOTES, _LEGATO_SHIFT = 6, 4
# A note is an ornament if it is this much shorter than the longest of so many neighbours on either side.
_ORNAMENT_SHARE, _ORNAMENT_NEIGHBOURS = 0.3, 3

# Classes lie around 1, 1.5, 2, 3, 4 and 6, with bounds where ratios of simple note values are not.
_RATIO_CLASSES = 5
# Bits that an interval tells, by its size in semitones: steps and repeated notes are what melodies are made of.
_INTERVAL_BITS = np.array([2, 3, 2, 3, 4, 4, 5, 4, 5, 5, 6, 6, 4] + [6] * 115, dtype=np.int32)
_SAME_RATIO_BITS, _OTHER_RATIO_BITS = 1, 3
# Notes after which a figure of accompaniment comes again.
_PERIODS = (1, 2, 3, 4, 6, 8)

# Drums have no intervals, but players: 12 classes an octave tell two takes of one beat apart.
_DRUM_CLASSES_PER_OCTAVE, _DRUM_CODES, _DRUM_BITS = 12, 64, 2

CODES, _CODE_BITS = 256 * 16 + _DRUM_CODES, 13
_SHAPE_HASHES = mix64(np.arange(CODES, CODES + 128, dtype=np.uint64))

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]
Small = NDArray[np.int32]


@dataclass(frozen=True)
class Lines:
    """M notes of the lines of some pieces, line by line, in order of time.

    Args:
        line: number of each note's line; shape (M,).
        steps: onset, in steps of its piece; shape (M,).
        pitch: MIDI pitch or drum key; shape (M,).
        piece: of each note, the first is 0; shape (M,).
        only_drums: whether each piece has nothing but drums; shape (W,).
        steps_per_quarter: of each piece, 480 or, of one too long for that, fewer; shape (W,).
    """

    line: Small
    steps: Rows
    pitch: Small
    piece: Rows
    only_drums: NDArray[np.bool_]
    steps_per_quarter: NDArray[np.float64]


def lines(batch: ScoreBatch, *, first: int) -> Lines:
    """The lines of up to :data:`PIECES_AT_ONCE` pieces from ``first``."""
    pieces = _Pieces.of(batch, first=first, last=min(first + PIECES_AT_ONCE, len(batch)))
    line, steps, pitch = _reduced_lines(_line_keys(pieces))
    return Lines(
        line=line,
        steps=steps,
        pitch=pitch,
        piece=(line >> _PART_BITS) & (PIECES_AT_ONCE - 1),
        only_drums=pieces.only_drums,
        steps_per_quarter=pieces.steps_per_quarter,
    )


@dataclass(frozen=True)
class Moments:
    """Where notes begin: M moments.

    Args:
        tops: the highest note of each, as one line of each piece.
        notes: how many pitches begin; shape (M,).
        shapes: a hash of how far below the highest they are; shape (M,).
    """

    tops: Lines
    notes: Rows
    shapes: Words


def moments(batch: ScoreBatch, *, first: int) -> Moments:
    """The moments of up to :data:`PIECES_AT_ONCE` pieces from ``first``; drums only where there is nothing else.

    Equal pitches that begin together count once, whoever plays them.
    """
    pieces = _Pieces.of(batch, first=first, last=min(first + PIECES_AT_ONCE, len(batch)))
    kept = ~pieces.drums | pieces.only_drums[pieces.piece]
    key = (pieces.piece[kept].astype(np.uint64) << np.uint64(_STEP_BITS)) | pieces.onset_steps[kept]
    key = np.unique((key << np.uint64(_PITCH_BITS)) | (np.uint64(127) - pieces.pitch[kept]))
    moment, pitch = (key >> np.uint64(_PITCH_BITS)).astype(np.int64), 127 - (key & np.uint64(127)).astype(np.int32)
    begins = np.flatnonzero(np.diff(moment, prepend=-1))
    notes = np.diff(np.append(begins, len(key)))
    below = np.repeat(pitch[begins], notes) - pitch
    shapes = np.add.reduceat(_SHAPE_HASHES[below], begins) if len(begins) else np.empty(0, np.uint64)
    piece = moment[begins] >> _STEP_BITS
    tops = Lines(
        line=piece.astype(np.int32),
        steps=moment[begins] & (2**_STEP_BITS - 1),
        pitch=pitch[begins],
        piece=piece,
        only_drums=pieces.only_drums,
        steps_per_quarter=pieces.steps_per_quarter,
    )
    return Moments(tops, notes, shapes)


def codes(found: Lines) -> tuple[Small, Small]:
    """What each note says after the two before it, 1 to :data:`CODES` - 1, and how many bits that tells; shapes (M,).

    The first two notes of a line say nothing: 0, and 0 bits.
    """
    line, steps, pitch = found.line, found.steps, found.pitch
    says, bits = (np.zeros(len(line), dtype=np.int32) for _ in range(2))
    if len(line) < 3:
        return says, bits
    logs = np.log2(np.maximum(np.diff(steps), 1).astype(np.float32))
    growth = np.diff(logs)
    ratio = np.minimum(np.floor(np.abs(growth) * 2 + 0.4), _RATIO_CLASSES)
    ratio = np.copysign(ratio, growth).astype(np.int32)
    interval = np.diff(pitch)[1:]
    inside = line[2:] == line[:-2]
    says[2:] = np.where(inside, (interval + 128) * 16 + ratio + 8, 0)
    bits[2:] = _INTERVAL_BITS[np.abs(interval)] + np.where(ratio == 0, _SAME_RATIO_BITS, _OTHER_RATIO_BITS)
    if found.only_drums.any():
        beaten = found.only_drums[found.piece][2:] & inside
        fine = np.clip(np.rint(growth * _DRUM_CLASSES_PER_OCTAVE), 1 - _DRUM_CODES // 2, _DRUM_CODES // 2 - 1)
        says[2:][beaten] = fine[beaten].astype(np.int32) + CODES - _DRUM_CODES // 2
        bits[2:][beaten] = _DRUM_BITS
    bits[2:][~inside] = 0
    return says, bits


def figures(found: Lines, says: Small) -> NDArray[np.bool_]:
    """Whether each note says what one a few notes before it said, as in an accompaniment; shape (M,)."""
    again = np.zeros(len(says), dtype=bool)
    placed = (found.line << _CODE_BITS) | says
    for period in _PERIODS:
        again[period:] |= placed[period:] == placed[:-period]
    return again


@dataclass(frozen=True)
class _Pieces:
    """Some pieces on one grid: of N notes piece, onset, length, pitch, part and whether they are drums; of W pieces
    whether they have nothing else, and the steps of a quarter."""

    piece: Rows
    onset_steps: Words
    length_steps: Words
    pitch: Words
    part: Words
    drums: NDArray[np.bool_]
    only_drums: NDArray[np.bool_]
    steps_per_quarter: NDArray[np.float64]

    @classmethod
    def of(cls, batch: ScoreBatch, *, first: int, last: int) -> _Pieces:
        starts = batch.note_starts[first : last + 1]
        notes = batch.notes.take(slice(starts[0], starts[-1]))
        starts = starts - starts[0]
        piece = np.repeat(np.arange(last - first), np.diff(starts))
        quarters = reduced(np.maximum, notes.onset_ticks, starts) / batch.ticks_per_quarter[first:last]
        steps_per_quarter = np.minimum(_STEPS_PER_QUARTER, _LAST_STEP / np.maximum(quarters, 1.0))
        rate = (steps_per_quarter / batch.ticks_per_quarter[first:last])[piece]
        drums = notes.program == DRUM_PROGRAM
        return cls(
            piece=piece,
            onset_steps=np.rint(notes.onset_ticks * rate).astype(np.uint64),
            length_steps=np.clip(np.rint(notes.duration_ticks * rate), 1, 2**_LENGTH_BITS - 1).astype(np.uint64),
            pitch=notes.pitch.astype(np.uint64),
            part=notes.track.astype(np.uint64),
            drums=drums,
            only_drums=reduced(np.logical_and, drums, starts, empty=False),
            steps_per_quarter=steps_per_quarter,
        )


def _line_keys(pieces: _Pieces) -> Words:
    """Notes of all lines in order, packed as line, onset, pitch and length; pitches of lowest lines mirrored."""
    moment = (pieces.onset_steps << _STEP_SHIFT) | (pieces.pitch << _LENGTH_SHIFT) | pieces.length_steps
    line, part = pieces.piece.astype(np.uint64) << np.uint64(_PART_BITS), pieces.part
    whole = moment | (line << _LINE_SHIFT)
    if pieces.drums.any():
        beaten = pieces.only_drums[pieces.piece]
        kept = ~pieces.drums | beaten
        whole, line, moment = whole[~pieces.drums], line[kept], moment[kept]
        part = np.where(beaten, pieces.pitch, part)[kept]
    line |= (part & np.uint64(2**_PART_BITS - 1)) | np.uint64(_PART << _KIND_SHIFT)
    parts = np.sort(moment | (line << _LINE_SHIFT))
    whole = np.sort(whole)
    lowest = (whole[_changes(whole)[:-1]] ^ _MIRROR) | (np.uint64(_LOWEST << _KIND_SHIFT) << _LINE_SHIFT)
    return np.concatenate((whole[_changes(whole)[1:]], lowest, parts[_changes(parts)[1:]]))


def _changes(keys: Words) -> NDArray[np.bool_]:
    """Whether line or onset change before each key and after the last; one entry more than there are keys."""
    changes = np.ones(len(keys) + 1, dtype=bool)
    changes[1:-1] = ((keys[1:] ^ keys[:-1]) >> _STEP_SHIFT) != 0
    return changes


def _reduced_lines(keys: Words) -> tuple[Small, Rows, Small]:
    """Line, onset in steps and pitch of what is left without notes below a sounding one and without ornaments."""
    time = (keys >> _STEP_SHIFT).astype(np.int64)
    length = (keys & np.uint64(2**_LENGTH_BITS - 1)).astype(np.int64)
    ends = time + length - (length >> _LEGATO_SHIFT)
    pitch = ((keys >> _LENGTH_SHIFT) & np.uint64(127)).astype(np.uint8)
    # A time holds its line in the bits above, lines ascend and none reaches the next: comparing times compares lines.
    covered = np.zeros(len(keys), dtype=bool)
    for back in range(1, min(_SOUNDING_NOTES + 1, len(keys))):
        covered[back:] |= (pitch[:-back] > pitch[back:]) & (ends[:-back] > time[back:])
    kept = np.flatnonzero(~covered)
    time, pitch = time[kept], pitch[kept]
    gaps = np.zeros(len(time), dtype=np.int64)
    same_line = (time[1:] ^ time[:-1]) >> _STEP_BITS == 0
    gaps[:-1] = np.where(same_line, time[1:] - time[:-1], 0)
    longest = np.zeros(len(time), dtype=np.int64)
    line = time >> _STEP_BITS
    for away in range(1, min(_ORNAMENT_NEIGHBOURS + 1, len(time))):
        same = line[away:] == line[:-away]
        np.maximum(longest[away:], gaps[:-away] * same, out=longest[away:])
        np.maximum(longest[:-away], gaps[away:] * same, out=longest[:-away])
    main = np.flatnonzero((gaps == 0) | (gaps > _ORNAMENT_SHARE * longest))
    # An ornament gives its onset to the note that it leads to.
    time, pitch = time[np.concatenate(([0], main[:-1] + 1))[: len(main)]], pitch[main]
    line = time >> _STEP_BITS
    mirrored = line >> _KIND_SHIFT == _LOWEST
    return line.astype(np.int32), time & (2**_STEP_BITS - 1), np.where(mirrored, 127 - pitch, pitch).astype(np.int32)
