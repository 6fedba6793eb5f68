"""Faults of voice leading in four-part writing, as a teacher of harmony marks them.

Goal: tell chorales that obey the rules from such as only sound like them, with the place of each fault. Convention: a
grid ``voices_TV`` of MIDI pitches, soprano, alto, tenor, bass, -1 for a rest. What counts is a change: two neighbouring
rows that differ. Figures are rates per hundred changes, so that pieces and grids of any length compare.

- ``parallel fifths``, ``parallel octaves``: two voices move the same way from one perfect fifth to another, from one
  unison or octave to another; octaves between do not matter.
- ``hidden fifths``, ``hidden octaves``: soprano and bass move the same way into one from another interval, and the
  soprano leaps.
- ``crossing``: a voice sounds below the one under it. ``overlap``: a voice moves above where its upper neighbour just
  was, or below where its lower one was.
- ``spacing``: more than an octave between soprano and alto or between alto and tenor.
- ``range``: a note outside of what the voice can sing. ``leap``: a voice moves by a tritone, a seventh or more than an
  octave; an octave is none.

Crossing, spacing and range are states: they are counted where they begin. Source: Aldwell and Schachter, "Harmony and
Voice Leading" (4th ed., chapters 5 and 6), but for the rules' exceptions, of which there are none here: consecutives
over a phrase's end are counted, so Bach's rates are low, not 0. The grid does not tell a repeated note from a held one,
so a voice that repeats its note does not move.

Measured on 382 chorales of J. S. Bach at sixteenths (33,192 changes), and on the same with the inner voices of the next
chorale under its outer voices, per hundred changes: parallel fifths 0.21 and 2.15, parallel octaves 0.12 and 2.20,
hidden fifths 0.37 and octaves 0.13 (the outer voices are the same), crossing 1.5 and 6.7, overlap 3.2 and 4.3, spacing
0.85 and 3.3, leap 1.5 and 1.4.

Without changes every rate is NaN, and there are no faults.

Legend: T steps, V = 4 voices, C changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import InputError

Voices = NDArray[np.integer]
Where = NDArray[np.bool_]

VOICES = ("soprano", "alto", "tenor", "bass")
RANGES = {"soprano": (60, 81), "alto": (53, 76), "tenor": (47, 69), "bass": (36, 64)}
"""Lowest and highest pitch of each voice: C4-A5, F3-E5, B2-A4, C2-E4, what Bach writes for his singers."""
REST = -1
KINDS = (
    "parallel fifths",
    "parallel octaves",
    "hidden fifths",
    "hidden octaves",
    "crossing",
    "overlap",
    "spacing",
    "range",
    "leap",
)

_FIFTH, _OCTAVE = 7, 0
_STEP, _WIDEST_SPACING = 2, 12
_ODD_LEAPS = (6, 10, 11)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        kind: member of :data:`KINDS`.
        step: row of the grid in which it is there, the later one of two.
        voices: who makes it, from the highest down.
    """

    kind: str
    step: int
    voices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VoiceLeading:
    """What was found in one grid.

    Args:
        changes: number of changes.
        faults: by step, then in the order of :data:`KINDS`.
    """

    changes: int
    faults: tuple[Fault, ...]

    def counts(self) -> dict[str, int]:
        """Number of faults of each kind."""
        found = dict.fromkeys(KINDS, 0)
        for fault in self.faults:
            found[fault.kind] += 1
        return found

    def rates(self) -> dict[str, float]:
        """Faults of each kind per hundred changes."""
        return {
            kind: 100 * count / self.changes if self.changes else float("nan") for kind, count in self.counts().items()
        }


def examine(voices_TV: Voices) -> VoiceLeading:
    """All faults of a grid of four voices.

    Raises:
        InputError: it has not four columns.
    """
    voices_TV = np.asarray(voices_TV, dtype=np.int64)
    if voices_TV.ndim != 2 or voices_TV.shape[1] != len(VOICES):
        raise InputError(f"a grid of shape {voices_TV.shape} is none of four voices", remedy="give shape (steps, 4)")
    kept = np.flatnonzero((voices_TV[1:] != voices_TV[:-1]).any(axis=1)) + 1
    before, after = voices_TV[kept - 1], voices_TV[kept]
    found: list[tuple[int, int, Fault]] = []

    def mark(kind: str, where: Where, steps: NDArray[np.int64], *voices: int) -> None:
        names = tuple(VOICES[voice] for voice in voices)
        found.extend((int(step), KINDS.index(kind), Fault(kind, int(step), names)) for step in steps[where])

    for upper, lower in combinations(range(len(VOICES)), 2):
        for kind, where in _consecutives(before, after, upper, lower).items():
            mark(kind, where, kept, upper, lower)
    all_steps = np.arange(len(voices_TV))
    for voice in range(len(VOICES)):
        mark("range", _begins(_out_of_range(voices_TV[:, voice], VOICES[voice])), all_steps, voice)
        mark("leap", _odd_leap(before[:, voice], after[:, voice]), kept, voice)
        if voice:
            high, low = voices_TV[:, voice - 1], voices_TV[:, voice]
            both = (high != REST) & (low != REST)
            mark("crossing", _begins(both & (high < low)), all_steps, voice - 1, voice)
            mark("overlap", _overlap(before, after, voice - 1), kept, voice - 1, voice)
            if VOICES[voice] != "bass":
                mark("spacing", _begins(both & (high - low > _WIDEST_SPACING)), all_steps, voice - 1, voice)
    return VoiceLeading(len(kept), tuple(fault for _, _, fault in sorted(found, key=lambda row: row[:2])))


def voices_of(score: Score, *, steps_per_quarter: int) -> Voices:
    """The grid of a score of four parts, the part with the highest mean pitch first; shape (T, 4).

    A part is what plays one program in one track; drums are left out. Where a part has a chord its highest note counts
    if it is the soprano, its lowest otherwise. Notes are sampled at the first tick of each step.

    Raises:
        InputError: the score has not four parts.
    """
    notes = score.notes.take(score.notes.program != DRUM_PROGRAM)
    parts, part = np.unique(notes.track.astype(np.int64) * 256 + notes.program, return_inverse=True)
    if len(parts) != len(VOICES):
        raise InputError(f"the score has {len(parts)} parts, not 4", remedy="write each voice as a part of its own")
    height = np.bincount(part, weights=notes.pitch) / np.bincount(part)
    rank = np.argsort(np.argsort(-height, kind="stable"))[part]
    onset = notes.onset_ticks.astype(np.int64)
    ends = onset + notes.duration_ticks
    first, last = (-(-ticks * steps_per_quarter // score.ticks_per_quarter) for ticks in (onset, ends))
    voices_TV = np.full((int(last.max(initial=0)), len(VOICES)), REST)
    # Of a chord the note that is written last stays.
    order = np.lexsort((np.where(rank == 0, notes.pitch.astype(np.int64), -notes.pitch.astype(np.int64)), onset))
    for note in order.tolist():
        voices_TV[first[note] : last[note], rank[note]] = notes.pitch[note]
    return voices_TV


def _consecutives(before: Voices, after: Voices, upper: int, lower: int) -> dict[str, Where]:
    """Parallels of two voices, and hidden ones if they are the outer voices; each of shape (C,)."""
    pair_before, pair_after = before[:, [upper, lower]], after[:, [upper, lower]]
    sound = (pair_before != REST).all(axis=1) & (pair_after != REST).all(axis=1)
    moves = pair_after - pair_before
    same_way = sound & (moves[:, 0] * moves[:, 1] > 0)
    was, becomes = ((pair[:, 0] - pair[:, 1]) % 12 for pair in (pair_before, pair_after))
    found = {
        "parallel fifths": same_way & (was == _FIFTH) & (becomes == _FIFTH),
        "parallel octaves": same_way & (was == _OCTAVE) & (becomes == _OCTAVE),
    }
    if (upper, lower) == (0, len(VOICES) - 1):
        hidden = same_way & (was != becomes) & (np.abs(moves[:, 0]) > _STEP)
        found["hidden fifths"] = hidden & (becomes == _FIFTH)
        found["hidden octaves"] = hidden & (becomes == _OCTAVE)
    return found


def _overlap(before: Voices, after: Voices, upper: int) -> Where:
    """Whether a voice passes where its neighbour was, in a change after which they do not cross; shape (C,)."""
    high_before, low_before = before[:, upper], before[:, upper + 1]
    high, low = after[:, upper], after[:, upper + 1]
    up = (low > high_before) & (low > low_before) & (high_before != REST) & (low_before != REST)
    down = (high < low_before) & (high < high_before) & (high != REST) & (low_before != REST) & (high_before != REST)
    return np.asarray((up | down) & (low != REST) & (high != REST) & (high >= low))


def _out_of_range(line: Voices, voice: str) -> Where:
    lowest, highest = RANGES[voice]
    return np.asarray((line != REST) & ((line < lowest) | (line > highest)))


def _odd_leap(before: Voices, after: Voices) -> Where:
    size = np.where((before != REST) & (after != REST), np.abs(after - before), 0)
    return np.isin(size, _ODD_LEAPS) | (size > 12)


def _begins(where: Where) -> Where:
    """Where a state begins."""
    return where & ~np.concatenate(([False], where[:-1]))
