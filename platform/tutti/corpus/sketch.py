"""A few hashes that stand for a piece: other versions of it share many of them, other pieces next to none.

A feature is a stretch of a line of :mod:`tutti.corpus.lines`, which neither key nor tempo nor note values change. Its
length is set by what it tells, not by a count: repeated notes, steps and figures that come again are common and take
more notes than leaps.

Of a piece's features those with the smallest hashes are kept (bottom-k: Broder 1997; Cohen and Kaplan 2007), so that
two sketches share what two full sets would, sampled alike. Each also says where in the piece and at which pitch it
first occurs, by which :mod:`tutti.corpus.duplicates` tells agreement from chance, as Wang 2003 ("An industrial-strength
audio search algorithm") does for recordings.

Legend: W pieces, F features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.lines import CODES, PIECES_AT_ONCE, Lines, codes, figures, lines
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.stretches import BASE, Stretches
from tutti.seeding import mix64

SKETCH_SIZE = 96

# An element is hash | onset | pitch, the hash in the highest bits so that sketches sort by it.
PITCH_BITS, ONSET_BITS, HASH_BITS = 7, 21, 36
ONSETS_PER_QUARTER = 16

_FEATURE_BITS, _REPEATED_BITS = 22, 1
# Works on storage hold their sketches: a feature's hash must stay what it was.
_AS_STORED = np.uint64(pow(BASE, 2, 2**64))
_CODE_HASHES = mix64(np.arange(CODES, dtype=np.uint64))

Words = NDArray[np.uint64]
Rows = NDArray[np.int64]


def sketches(batch: ScoreBatch) -> tuple[Words, Rows]:
    """The sketch of each piece, end to end, and where each begins; shapes (F,) and (W + 1,).

    A piece has at most :data:`SKETCH_SIZE` elements, in ascending order, no two with one hash; one without a line of
    three notes has none. What a piece gets does not depend on the others.
    """
    found = [_sketches_of(batch, first) for first in range(0, len(batch), PIECES_AT_ONCE)]
    counts = np.concatenate([np.zeros(1, np.int64), *(counts for _, counts in found)])
    return np.concatenate([np.empty(0, np.uint64), *(values for values, _ in found)]), np.cumsum(counts)


def _sketches_of(batch: ScoreBatch, first: int) -> tuple[Words, Rows]:
    """The sketches of the pieces from ``first``, end to end, and how many elements each has."""
    found = lines(batch, first=first)
    hashes, begins = _features(found)
    return _smallest(found, hashes, begins)


def _features(found: Lines) -> tuple[Words, Rows]:
    """Hash of every feature, and the row in which it begins; shapes (F,)."""
    line, size = found.line, len(found.line)
    says, bits = codes(found)
    bits[figures(found, says) & ~found.only_drums[found.piece]] = _REPEATED_BITS
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
    stretch = Stretches.of(_CODE_HASHES[says]).hashes(begins + 2, lasts + 1) * _AS_STORED
    stretch += (lasts - begins).astype(np.uint64)
    return mix64(stretch), begins


def _smallest(found: Lines, hashes: Words, begins: Rows) -> tuple[Words, Rows]:
    """The elements of the smallest hashes of each piece, each where it first occurs, and how many each piece has."""
    piece, pitch = found.piece[begins], found.pitch[begins]
    rate = ONSETS_PER_QUARTER / found.steps_per_quarter
    onset = (found.steps[begins] * rate[piece]).astype(np.uint64)
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
    counts = np.bincount(owner, minlength=len(rate))
    kept = np.arange(len(key)) - (np.cumsum(counts) - counts)[owner] < SKETCH_SIZE
    value = ((key << np.uint64(PITCH_BITS)) | lowest.astype(np.uint64))[kept]
    return value, np.minimum(counts, SKETCH_SIZE)
