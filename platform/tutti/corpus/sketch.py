"""A few hashes that stand for a piece: other versions of it share many of them, other pieces next to none.

A feature is a stretch of a line: the intervals between its notes and by which class of ratio the times between their
onsets grow or shrink (Pardo and Birmingham 2002, "Encoding timing information for musical query matching"), so that
neither key nor tempo nor note values matter. Its length is set by what it tells, not by a count: repeated notes, steps
and figures that come again are common and take more notes than leaps. Lines are the highest and the lowest sounding
notes of the whole and the highest of each part, so that a missing part or voice leaves others; a note below one that
still sounds is no part of a highest line, and quick notes before a longer one are taken as its ornament. A piece of
drums alone has one line for each key, and time alone is told of it.

Of a piece's features those with the smallest hashes are kept (bottom-k: Broder 1997; Cohen and Kaplan 2007), so that
two sketches share what two full sets would, sampled alike. Each also says where in the piece and at which pitch it
first occurs, by which :mod:`tutti.corpus.duplicates` tells agreement from chance, as Wang 2003 ("An industrial-strength
audio search algorithm") does for recordings.

Legend: W pieces, N notes, M notes of lines, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.corpus.score_batch import ScoreBatch, reduced
from tutti.seeding import mix64

SKETCH_SIZE = 96

# An element is hash | onset | pitch, the hash in the highest bits so that sketches sort by it.
PITCH_BITS, ONSET_BITS, HASH_BITS = 7, 21, 36
ONSETS_PER_QUARTER = 16

# A sort key holds kind of line, piece, part, onset, pitch and duration in 64 bits, which bounds how many pieces are
# sorted at once. Parts beyond the last share their lines.
_PIECE_BITS, _PART_BITS, _STEP_BITS, _LENGTH_BITS = 6, 9, 24, 16
_PIECES_AT_ONCE = 2**_PIECE_BITS
_LOWEST, _PART = 1, 2  # kinds of line; 0 are the highest notes of the whole
_KIND_SHIFT = _PIECE_BITS + _PART_BITS
_LAST_STEP = 2**_STEP_BITS - 2**_LENGTH_BITS - 1
_LENGTH_SHIFT = np.uint64(_LENGTH_BITS)
_STEP_SHIFT = np.uint64(_LENGTH_BITS + PITCH_BITS)
_LINE_SHIFT = np.uint64(_LENGTH_BITS + PITCH_BITS + _STEP_BITS)
_MIRROR = np.uint64(127 << _LENGTH_BITS)

_STEPS_PER_QUARTER = 480
# How many notes of a line back one is looked for that still sounds; its last sixteenth may reach into the next note.
_SOUNDING_NOTES, _LEGATO_SHIFT = 6, 4
# A note is an ornament if it is this much shorter than the longest of so many neighbours on either side.
_ORNAMENT_SHARE, _ORNAMENT_NEIGHBOURS = 0.3, 3

# Classes lie around 1, 1.5, 2, 3, 4 and 6, with bounds where ratios of simple note values are not.
_RATIO_CLASSES = 5
_FEATURE_BITS = 22
# Bits that an interval tells, by its size in semitones: steps and repeated notes are what melodies are made of.
_INTERVAL_BITS = np.array([2, 3, 2, 3, 4, 4, 5, 4, 5, 5, 6, 6, 4] + [6] * 115, dtype=np.int32)
_SAME_RATIO_BITS, _OTHER_RATIO_BITS, _REPEATED_BITS = 1, 3, 1
# Notes after which a figure of accompaniment comes again.
_PERIODS = (1, 2, 3, 4, 6, 8)

# Drums have no intervals, but players: 12 classes an octave tell two takes of one beat apart.
_DRUM_CLASSES_PER_OCTAVE, _DRUM_CODES, _DRUM_BITS = 12, 64, 2

_CODES, _CODE_BITS = 256 * 16 + _DRUM_CODES, 13
_CODE_HASHES = mix64(np.arange(_CODES, dtype=np.uint64))
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


def sketches(batch: ScoreBatch) -> tuple[Words, Rows]:
    """The sketch of each piece, end to end, and where each begins; shapes (F,) and (W + 1,).

    A piece has at most :data:`SKETCH_SIZE` elements, in ascending order, no two with one hash; one without a line of
    three notes has none. What a piece gets does not depend on the others.
    """
    found = [_sketches_of(batch, first) for first in range(0, len(batch), _PIECES_AT_ONCE)]
    counts = np.concatenate([np.zeros(1, np.int64), *(counts for _, counts in found)])
    return np.concatenate([np.empty(0, np.uint64), *(values for values, _ in found)]), np.cumsum(counts)


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


def _sketches_of(batch: ScoreBatch, first: int) -> tuple[Words, Rows]:
    """The sketches of the pieces from ``first``, end to end, and how many elements each has."""
    pieces = _Pieces.of(batch, first=first, last=min(first + _PIECES_AT_ONCE, len(batch)))
    line, steps, pitch = _reduced_lines(_line_keys(pieces))
    piece = (line >> _PART_BITS) & (_PIECES_AT_ONCE - 1)
    hashes, begins = _features(line, steps, pitch, only_drums=pieces.only_drums[piece])
    return _smallest(hashes, piece[begins], steps[begins], pitch[begins], steps_per_quarter=pieces.steps_per_quarter)


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


def _reduced_lines(keys: Words) -> tuple[Rows, Rows, Rows]:
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


def _features(line: Rows, steps: Rows, pitch: Rows, *, only_drums: NDArray[np.bool_]) -> tuple[Words, Rows]:
    """Hash of every feature, and the row in which it begins; shapes (F,)."""
    size = len(line)
    codes, bits = _codes(line, steps, pitch, only_drums=only_drums)
    told = np.cumsum(bits)
    begins = np.flatnonzero(line[2:] == line[:-2]) if size > 2 else np.empty(0, np.int64)
    ends = np.flatnonzero(np.append(line[1:] != line[:-1], True)[:size])
    line_ends = np.repeat(ends, np.diff(ends, prepend=-1))[begins]
    lasts = np.searchsorted(told, told[begins + 1] + _FEATURE_BITS)
    # A line too short for one feature is one.
    opens = np.ones(len(begins), dtype=bool)
    opens[1:] = line[begins[1:]] != line[begins[:-1]]
    whole = (lasts <= line_ends) | opens
    begins, lasts = begins[whole], np.minimum(lasts, line_ends)[whole]
    # Sums of codes times powers of the base, so that a stretch of any length is one difference.
    powers, inverses = _powers(1 << size.bit_length())
    sums = np.cumsum(_CODE_HASHES[codes] * powers[:size], dtype=np.uint64)
    stretch = (sums[lasts] - sums[begins + 1]) * inverses[begins] + (lasts - begins).astype(np.uint64)
    return mix64(stretch.astype(np.uint64, copy=False)), begins


def _codes(
    line: Rows, steps: Rows, pitch: Rows, *, only_drums: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """What each note of a line says after the two before it, and how many bits that tells."""
    codes, bits = (np.zeros(len(line), dtype=np.int32) for _ in range(2))
    if len(line) < 3:
        return codes, bits
    logs = np.log2(np.maximum(np.diff(steps), 1).astype(np.float32))
    growth = np.diff(logs)
    ratio = np.minimum(np.floor(np.abs(growth) * 2 + 0.4), _RATIO_CLASSES)
    ratio = np.copysign(ratio, growth).astype(np.int32)
    interval = np.diff(pitch)[1:]
    inside = line[2:] == line[:-2]
    codes[2:] = np.where(inside, (interval + 128) * 16 + ratio + 8, 0)
    bits[2:] = _INTERVAL_BITS[np.abs(interval)] + np.where(ratio == 0, _SAME_RATIO_BITS, _OTHER_RATIO_BITS)
    placed = (line << _CODE_BITS) | codes
    for period in _PERIODS:
        bits[period:][placed[period:] == placed[:-period]] = _REPEATED_BITS
    if only_drums.any():
        beaten = only_drums[2:] & inside
        fine = np.clip(np.rint(growth * _DRUM_CLASSES_PER_OCTAVE), 1 - _DRUM_CODES // 2, _DRUM_CODES // 2 - 1)
        codes[2:][beaten] = fine[beaten].astype(np.int32) + _CODES - _DRUM_CODES // 2
        bits[2:][beaten] = _DRUM_BITS
    return codes, bits


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[Words, Words]:
    """The first powers of the base and of its inverse."""
    powers, inverses = (np.full(size, base, dtype=np.uint64) for base in (_BASE, _INVERSE))
    return np.multiply.accumulate(powers), np.multiply.accumulate(inverses)


def _smallest(
    hashes: Words, piece: Rows, steps: Rows, pitch: Rows, *, steps_per_quarter: NDArray[np.float64]
) -> tuple[Words, Rows]:
    """The elements of the smallest hashes of each piece, each where it first occurs, and how many each piece has."""
    onset = (steps * (ONSETS_PER_QUARTER / steps_per_quarter)[piece]).astype(np.uint64)
    onset = np.minimum(onset, np.uint64(2**ONSET_BITS - 1))
    value = (hashes >> np.uint64(64 - HASH_BITS) << np.uint64(ONSET_BITS)) | onset
    key = (piece.astype(np.uint64) << np.uint64(HASH_BITS + ONSET_BITS)) | value
    order = np.argsort(key)
    key = key[order]
    apart = np.ones(len(key), dtype=bool)
    apart[1:] = key[1:] != key[:-1]
    places = np.flatnonzero(apart)
    lowest = np.minimum.reduceat(pitch[order], places) if len(places) else pitch
    key = key[places]
    named = key >> np.uint64(ONSET_BITS)
    apart = np.ones(len(key), dtype=bool)
    apart[1:] = named[1:] != named[:-1]
    key, lowest = key[apart], lowest[apart]
    owner = (key >> np.uint64(HASH_BITS + ONSET_BITS)).astype(np.int64)
    counts = np.bincount(owner, minlength=len(steps_per_quarter))
    kept = np.arange(len(key)) - (np.cumsum(counts) - counts)[owner] < SKETCH_SIZE
    value = ((key << np.uint64(PITCH_BITS)) | lowest.astype(np.uint64))[kept]
    return value, np.minimum(counts, SKETCH_SIZE)
