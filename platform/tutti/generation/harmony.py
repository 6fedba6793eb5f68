"""A chord progression as limits of pitch over time.

Where a chord begins, a note begins, notes are tones of the chord, and the lowest of them is its bass. On strong beats,
and a 32nd after, notes that begin are tones of the chord; between them they belong to its scale. A note ends where its
chord does, and one that is no tone of the chord at the next strong beat, so what sounds on a strong beat is the chord.
The piece ends on its last chord's tones. Chords that follow each other and are the same are one.

A chord's scale is the key or scale that was asked, which must hold it; without one, of the seven-note scales that hold
the chord the one that shares most with the key that the progression is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.generation.chords import Chord, Progression
from tutti.generation.scales import SCALES
from tutti.generation.timetable import Spans
from tutti.units import PitchRange

STRONG_TICKS = TICKS_PER_QUARTER // 8
"""How late a note may begin and still count as on the beat: a 32nd."""
_NO_RULE = -1
_CANDIDATES = tuple(
    frozenset((tonic + step) % 12 for step in SCALES[name])
    for name in (
        "major", "melodic minor", "harmonic minor", "harmonic major", "half whole diminished", "whole tone",
    )
    for tonic in range(12)
)  # fmt: skip


def scale_of(chord: Chord, *, key: frozenset[int]) -> frozenset[int]:
    """Pitch classes that may stand between a chord's tones, in a key given by its own."""
    if chord.tones <= key:
        return key
    holding = [scale for scale in _CANDIDATES if chord.tones <= scale]
    return max(holding, key=lambda scale: len(scale & key), default=chord.tones)


def beat_ticks(meter: tuple[int, int]) -> int:
    """A beat: three eighths (or sixteenths) in compound meters, the lower figure in all others."""
    above, below = meter
    unit = 4 * TICKS_PER_QUARTER // below
    return 3 * unit if below >= 8 and above > 3 and above % 3 == 0 else unit


def strong_beats(meter: tuple[int, int]) -> list[int]:
    """Strong beats of a bar in ticks: the first, and every second one as far as two remain; 5 counts as 3 and 2."""
    beat = beat_ticks(meter)
    beats = bar_ticks(meter) // beat
    odd = beats % 2 and beats > 3
    return [beat * place for place in ([0, *range(3, beats - 1, 2)] if odd else range(0, max(beats - 1, 1), 2))]


def bar_ticks(meter: tuple[int, int]) -> int:
    """A bar in ticks."""
    return 4 * TICKS_PER_QUARTER * meter[0] // meter[1]


@dataclass(frozen=True, slots=True)
class Harmony:
    """A progression, repeated through a piece.

    Args:
        progression: chords of some bars.
        bars: of the piece.
        scale: pitch classes of the key or scale that was asked; None: each chord's own.
        pitch_range: that notes keep to.
        has_bass: whether the lowest note is the bass where a chord begins; a single line has none.
        meters: of each bar, where they are a file's own; none: the meter that is asked for holds throughout.
    """

    progression: Progression
    bars: int
    scale: frozenset[int] | None
    pitch_range: PitchRange
    has_bass: bool
    meters: tuple[tuple[int, int], ...] = ()

    def lines(self, meter: tuple[int, int]) -> list[tuple[int, tuple[int, int]]]:
        """Where each bar begins, in ticks, and its meter; last where the piece ends."""
        meters = self.meters or (meter,) * self.bars
        begins = [0, *np.cumsum([bar_ticks(each) for each in meters]).tolist()]
        return list(zip(begins, (*meters, meters[-1]), strict=True))

    def spans(self, meter: tuple[int, int], *, before: NDArray[np.bool_]) -> Spans:
        """The limits over time.

        Args:
            before: pitches that may begin before the progression does; shape (128,).
        """
        columns = _Columns(self)
        regions = self.regions(meter)
        *lines, (end, last) = self.lines(meter)
        home = end - (bar_ticks(last) + 1) // 2
        strong = [begin + beat for begin, own in lines for beat in strong_beats(own)]
        strong_at = 0
        for start, stop, chord in regions:
            while strong_at < len(strong) and strong[strong_at] <= start:
                strong_at += 1
            beats = [start]
            while strong_at < len(strong) and strong[strong_at] < stop:
                beats.append(strong[strong_at])
                strong_at += 1
            for beat, after in pairwise([*beats, stop]):
                columns.add(beat, chord, tones=True, first=beat == start, hold=stop, release=after)
                weak = beat + STRONG_TICKS
                if weak < after and weak < home:
                    columns.add(weak, chord, tones=False, first=False, hold=stop, release=after)
                if weak < home < after:
                    columns.add(home, chord, tones=True, first=False, hold=stop, release=after)
        return columns.spans(before)

    def regions(self, meter: tuple[int, int]) -> list[tuple[int, int, Chord]]:
        """Start and end in ticks of every chord, the same one after itself being one."""
        regions: list[tuple[int, int, Chord]] = []
        for bar, (first, own) in enumerate(self.lines(meter)[:-1]):
            chords = self.progression.bars[bar % len(self.progression)]
            edges = [first + tick for tick in _edges([shares for _, shares in chords], own)]
            for (chord, _), (start, stop) in zip(chords, pairwise(edges), strict=True):
                if regions and regions[-1][2].sounds_like(chord):
                    regions[-1] = (regions[-1][0], stop, regions[-1][2])
                else:
                    regions.append((start, stop, chord))
        return regions

    def pitches(self, classes: frozenset[int]) -> tuple[bool, ...]:
        """Of these classes, the pitches in range; shape (128,)."""
        return tuple(pitch % 12 in classes and pitch in self.pitch_range for pitch in range(128))


def _edges(shares: list[int], meter: tuple[int, int]) -> list[int]:
    """Where the chords of a bar begin, and its end: on beats where there are enough, earlier chords longer."""
    ticks, beat = bar_ticks(meter), beat_ticks(meter)
    count, beats = sum(shares), ticks // beat
    if count <= beats:
        each, over = divmod(beats, count)
        lengths = [beat * (each + (place < over)) for place in range(count)]
    else:
        points = [place * ticks // count for place in range(count + 1)]
        lengths = [stop - start for start, stop in pairwise(points)]
    starts = np.append(0, np.cumsum(lengths))[np.append(0, np.cumsum(shares))]
    return [*starts[:-1].tolist(), ticks]


class _Columns:
    """Spans as they are added."""

    def __init__(self, harmony: Harmony) -> None:
        self._harmony = harmony
        self._key = harmony.scale if harmony.scale is not None else harmony.progression.key().pitch_classes
        self._masks: dict[frozenset[int], int] = {}
        self._rows: list[tuple[int, int, int, int, int, int, bool]] = []

    def _mask(self, classes: frozenset[int]) -> int:
        return self._masks.setdefault(classes, len(self._masks))

    def add(self, start: int, chord: Chord, *, tones: bool, first: bool, hold: int, release: int) -> None:
        """One more span."""
        begin = self._mask(chord.tones if tones else self._scale(chord))
        # Without a bass the lowest note is any tone, but one is there.
        lowest = self._mask(frozenset({chord.bass}) if self._harmony.has_bass else chord.tones) if first else _NO_RULE
        self._rows.append((start, begin, lowest, self._mask(chord.tones), hold, release, first))

    def _scale(self, chord: Chord) -> frozenset[int]:
        return self._key if self._harmony.scale is not None else scale_of(chord, key=self._key)

    def spans(self, before: NDArray[np.bool_]) -> Spans:
        start, begin, lowest, hold, hold_ticks, release_ticks, must = zip(*self._rows, strict=True)
        return Spans(
            start_ticks=np.array(start, dtype=np.int64),
            begin=np.array(begin, dtype=np.int16),
            lowest=np.array(lowest, dtype=np.int16),
            hold=np.array(hold, dtype=np.int16),
            hold_ticks=np.array(hold_ticks, dtype=np.int64),
            release_ticks=np.array(release_ticks, dtype=np.int64),
            must=np.array(must, dtype=bool),
            masks=np.array([self._harmony.pitches(classes) for classes in self._masks], dtype=bool),
            before=np.asarray(before, dtype=bool),
        )
