"""What a piece has in common with known works, in whatever key, tempo, note values and instruments.

Goal: say which passage of a piece stands in which work, however many works are known, before anyone hears the piece;
and tell a copy from what all music shares. Convention: pieces and works as a
:class:`~tutti.corpus.score_batch.ScoreBatch`; times in quarters from the first bar line to onsets; shares of a piece's
notes, equal pitches that begin together counted once. Drums count only in pieces of drums alone.

A piece is read in two ways (:mod:`tutti.metrics.readings`): its melody, which finds a tune under another accompaniment,
and its texture, which finds what a tune alone is too short or too plain for. A suffix array over all works gives the
longest stretch that a work holds from each place on (Meredith, Lemström and Wiggins 2002, "Algorithms for discovering
repeated patterns in multidimensional representations of polyphonic music", find the same by geometry, at one tempo).

**What counts is not how long a passage is but how much it tells.** A scale or a broken chord of forty notes is
everybody's. The longest passage is that which tells the most bits: half of 490 works, held against 1,940 others, have
none over 40 in the melody and 28 in the texture, one in a hundred one over 100 and 75, and those are mostly quotations.

:func:`is_copy` holds against :data:`LIMITS`: a passage of 150 bits in the melody or of 120 in the texture is a copy, or
a quotation; so is a piece of which one work holds 0.35 of the notes in passages that each tell something. Of 47,600
copies of 1,980 works, transposed, stretched, on other instruments and cut to 8 bars, it misses six: three hold chords
that stand in many works and nothing else, three are rounded to ticks too coarse for them. Of works held out it takes
0.4 to 0.8 % for copies (``python -m benchmarks.originality``, platform/decisions/0012-originality.md).

A piece without three moments has no passage and shares nothing; an index of no works holds nothing.

Legend: W pieces, M matches (stretches that a work holds and that no longer one of the piece contains), Q places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.lines import PIECES_AT_ONCE
from tutti.corpus.score_batch import ScoreBatch
from tutti.features.grid import Grid, runs
from tutti.features.rhythm import BarLines
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.metrics import readings
from tutti.metrics.readings import Reading
from tutti.metrics.suffixes import NOTHING, Search, SuffixArray
from tutti.seeding import mix64

Rows = NDArray[np.int64]

# A match that tells less is everybody's, and what many works hold is held against so many of them.
_TELLING_BITS = 24
_MOST_WORKS = 16


@dataclass(frozen=True, slots=True)
class Passage:
    """The passage of a piece that tells most of those that a work holds.

    Args:
        work_id: the work, of several the first in the index.
        num_works: how many works hold it.
        notes: its length; of a melody the notes of the line.
        bits: what it tells.
        bars: number of bars of the piece in which it stands.
        share: its notes over those of the piece, 0 to 1.
        begin_quarters, end_quarters: first and last onset in the piece.
        work_begin_quarters: first onset in the work.
        semitones: by how much the piece is higher than the work.
        stretch: quarters in the piece for each quarter in the work.
    """

    work_id: str
    num_works: int
    notes: int
    bits: int
    bars: int
    share: float
    begin_quarters: float
    end_quarters: float
    work_begin_quarters: float
    semitones: int
    stretch: float


@dataclass(frozen=True, slots=True)
class Shared:
    """What a piece has of the work that has most of it, in passages of its texture that each tell something.

    Args:
        work_id: the work, of several the first in the index.
        notes: number of the piece's notes in such passages; the first two moments of each are not counted.
        bits: what they tell together.
        share: ``notes`` over those of the piece, 0 to 1.
    """

    work_id: str
    notes: int
    bits: int
    share: float


@dataclass(frozen=True, slots=True)
class Originality:
    """What a piece has in common with the works of an index; each is None where there is nothing."""

    melody: Passage | None
    texture: Passage | None
    shared: Shared | None


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a piece is a copy.

    Args:
        melody_bits, texture_bits: of its longest passage in either reading.
        share: of its notes in one work, where they tell at least ``shared_bits``.
    """

    melody_bits: int
    texture_bits: int
    share: float
    shared_bits: int


LIMITS = Limits(melody_bits=150, texture_bits=120, share=0.35, shared_bits=40)


def is_copy(found: Originality, *, limits: Limits) -> bool:
    """Whether a piece reaches any of the limits."""
    return bool(
        (found.melody is not None and found.melody.bits >= limits.melody_bits)
        or (found.texture is not None and found.texture.bits >= limits.texture_bits)
        or (found.shared is not None and found.shared.share >= limits.share and found.shared.bits >= limits.shared_bits)
    )


@dataclass(frozen=True, slots=True)
class Closeness:
    """What of a piece comes nearest to a limit, as a share of that limit.

    Args:
        work_id: the work that holds it.
        measure: ``melody`` or ``texture``, a passage in bits; or ``share``, of the piece's notes.
        figure, limit: both in the measure's unit.
        passage: of a melody or texture.
    """

    work_id: str
    measure: str
    figure: float
    limit: float
    passage: Passage | None = None

    @property
    def is_copy(self) -> bool:
        """Whether it reaches its limit."""
        return self.figure >= self.limit


def closest(found: Originality, *, limits: Limits) -> Closeness | None:
    """The measure of a piece that comes nearest to its limit; it reaches it just where :func:`is_copy` says so.

    None where no work holds anything of the piece that counts.
    """
    near = [
        Closeness(passage.work_id, measure, passage.bits, limit, passage)
        for measure, passage, limit in (
            ("melody", found.melody, limits.melody_bits),
            ("texture", found.texture, limits.texture_bits),
        )
        if passage is not None
    ]
    if found.shared is not None and found.shared.bits >= limits.shared_bits:
        near.append(Closeness(found.shared.work_id, "share", found.shared.share, limits.share))
    return max(near, key=lambda each: each.figure / each.limit, default=None)


@dataclass(frozen=True)
class _Text:
    """One reading of all forms of works, sorted."""

    suffixes: SuffixArray
    form: NDArray[np.int32]
    steps: NDArray[np.int32]
    pitch: NDArray[np.uint8]
    shapes: NDArray[np.uint32]
    steps_per_quarter: NDArray[np.float64]

    @classmethod
    def of(cls, reading: Reading) -> _Text:
        return cls(
            SuffixArray.of(reading.codes),
            reading.piece.astype(np.int32),
            reading.steps.astype(np.int32),
            reading.pitch,
            reading.shapes,
            reading.steps_per_quarter,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its columns; what the suffix array takes no time to make again is not among them."""
        columns = {name: getattr(self, name) for name in _TEXT_COLUMNS}
        return {"codes": self.suffixes.codes, "order": self.suffixes.order, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> _Text:
        suffixes = SuffixArray.sorted(arrays["codes"], order=arrays["order"])
        return cls(suffixes, **{name: arrays[name] for name in _TEXT_COLUMNS})


_TEXT_COLUMNS = ("form", "steps", "pitch", "shapes", "steps_per_quarter")


@dataclass(frozen=True)
class WorkIndex:
    """Known works, ready to be asked; plain arrays, so that processes can share it.

    Args:
        work_ids: the works.
        work_of_form: which work each form of the texts is; a work has another one where its onsets lie off the grid of
            event tokens.
    """

    work_ids: tuple[str, ...]
    work_of_form: NDArray[np.int32]
    _melody: _Text
    _texture: _Text

    @classmethod
    def of(cls, works: ScoreBatch, *, work_ids: Sequence[str], apart: Rows | None = None) -> WorkIndex:
        """The index of ``works``, one name for each.

        Args:
            works: the works.
            work_ids: their names.
            apart: a number for each, where a piece is to be held against works of its own number alone.

        Raises:
            ValueError: more or fewer names than works.
        """
        if len(work_ids) != len(works):
            raise ValueError(f"{len(work_ids)} names for {len(works)} works")
        forms, work_of_form = _with_grid_forms(works)
        apart = None if apart is None else apart[work_of_form]
        melody, texture = (_apart(read(forms), apart) for read in (readings.melody, readings.texture))
        return cls(tuple(work_ids), work_of_form, _Text.of(melody), _Text.of(texture))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the works' names, for :meth:`from_arrays`; 21 bytes a place of either reading."""
        texts = {"melody": self._melody, "texture": self._texture}
        columns = {f"{name}.{key}": column for name, text in texts.items() for key, column in text.arrays().items()}
        return {"work_of_form": self.work_of_form, **columns}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, work_ids: Sequence[str]) -> WorkIndex:
        """The index whose :meth:`arrays` these are.

        Raises:
            KeyError: a column is missing.
        """
        melody, texture = (
            _Text.from_arrays(
                {key.removeprefix(name): column for key, column in arrays.items() if key.startswith(name)}
            )
            for name in ("melody.", "texture.")
        )
        return cls(tuple(work_ids), arrays["work_of_form"], melody, texture)

    def originality(self, pieces: ScoreBatch, *, apart: Rows | None = None) -> list[Originality]:
        """What each of W pieces has in common with the works, or with those of its own number in ``apart``."""
        melody, texture = (_apart(read(pieces), apart) for read in (readings.melody, readings.texture))
        total = np.bincount(texture.piece, weights=texture.notes, minlength=len(pieces)).astype(np.int64)
        asked = _Asked(BarLines.of(pieces), total, self.work_ids, self.work_of_form)
        matches = _Matches.of(texture, self._texture)
        tunes, chords = asked.longest(_Matches.of(melody, self._melody)), asked.longest(matches)
        return [Originality(*each) for each in zip(tunes, chords, asked.shared(matches), strict=True)]


def _apart(reading: Reading, number: Rows | None) -> Reading:
    """The reading with other codes for every number of its pieces, so that none of one matches any of another."""
    if number is None:
        return reading
    salt = mix64(number.astype(np.uint64))[reading.piece]
    salted = (mix64(reading.codes.astype(np.uint64) ^ salt) >> np.uint64(33)).astype(np.int64)
    return replace(reading, codes=np.where(reading.codes == NOTHING, NOTHING, salted))


def _with_grid_forms(works: ScoreBatch) -> tuple[ScoreBatch, NDArray[np.int32]]:
    """The works, and after them such as take another form on the grid of event tokens; and which work each is."""
    off_grid = (
        works.notes.onset_ticks.astype(np.int64) * TICKS_PER_QUARTER % works.ticks_per_quarter[works.piece_of_note]
    )
    rows = np.flatnonzero(np.bincount(works.piece_of_note[off_grid != 0], minlength=len(works)))
    parts = [works]
    for first in range(0, len(rows), PIECES_AT_ONCE):
        some = works.take(rows[first : first + PIECES_AT_ONCE])
        parts.append(Grid.of(some).scores(titles=some.titles, composers=some.composers))
    return ScoreBatch.joined(parts), np.concatenate((np.arange(len(works)), rows)).astype(np.int32)


@dataclass(frozen=True)
class _Matches:
    """M matches of a reading in a text: first place, number of codes, what they tell, and rows of the text's order."""

    reading: Reading
    text: _Text
    begin: Rows
    length: Rows
    bits: Rows
    first_row: Rows
    past_row: Rows

    @classmethod
    def of(cls, reading: Reading, text: _Text) -> _Matches:
        search: Search = text.suffixes.search(reading.codes)
        length = search.longest()
        # From the second code of a match on the rest of it is found again.
        begin = np.flatnonzero((length > 0) & (np.diff(length, prepend=0) != -1))
        told = np.concatenate(([0], np.cumsum(reading.bits)))
        bits = told[begin + length[begin]] - told[begin]
        # Of what tells next to nothing only the longest of each piece is looked at.
        kept = (bits >= _TELLING_BITS) | _best(reading.piece[begin], bits, length[begin])
        begin, bits = begin[kept], bits[kept]
        first_row, past_row = search.rows(begin, length[begin])
        return cls(reading, text, begin, length[begin], bits, first_row, past_row)

    def best(self) -> Rows:
        """The match of each piece that tells most, of several the longest, of several the first."""
        return np.flatnonzero(_best(self.reading.piece[self.begin], self.bits, self.length))


def _best(piece: Rows, bits: Rows, length: Rows) -> NDArray[np.bool_]:
    """Which matches are the best of their pieces, by bits, then length, then place."""
    order = np.lexsort((-length, -bits, piece))
    chosen = np.zeros(len(piece), dtype=bool)
    chosen[order[np.diff(piece[order], prepend=-1) != 0]] = True
    return chosen


def _before(reading: Reading, text: _Text, here: int, there: int) -> int:
    """How many of the two places before a match are the same too: a code speaks of them, but not of all their notes."""
    if reading.shapes[here - 1] != text.shapes[there - 1]:
        return 0
    mine, yours = reading.pitch[here - 2 : here].astype(int), text.pitch[there - 2 : there].astype(int)
    same = reading.shapes[here - 2] == text.shapes[there - 2] and mine[1] - mine[0] == yours[1] - yours[0]
    return 1 + int(same)


@dataclass(frozen=True)
class _Asked:
    """W pieces that are asked about: their bar lines and numbers of notes, and the names of works and their forms."""

    bar_lines: BarLines
    notes: Rows
    work_ids: tuple[str, ...]
    work_of_form: NDArray[np.int32]

    def longest(self, matches: _Matches) -> list[Passage | None]:
        """The passage of each piece."""
        found: list[Passage | None] = [None] * len(self.notes)
        for match in matches.best().tolist():
            found[int(matches.reading.piece[matches.begin[match]])] = self._passage(matches, match)
        return found

    def _passage(self, matches: _Matches, match: int) -> Passage:
        reading, text = matches.reading, matches.text
        places = np.sort(text.suffixes.order[matches.first_row[match] : matches.past_row[match]])
        work_of_place = self.work_of_form[text.form[places]]
        works = np.unique(work_of_place)
        there = int(places[np.argmax(work_of_place == works[0])])
        here, last = int(matches.begin[match]), int(matches.begin[match] + matches.length[match] - 1)
        back = _before(reading, text, here, there)
        piece = int(reading.piece[here])
        steps = reading.steps[[here - back, last]] / reading.steps_per_quarter[piece]
        begin, end = steps.tolist()
        work_steps = text.steps[[there - back, there + last - here]] / text.steps_per_quarter[text.form[there]]
        work_begin, work_end = work_steps.tolist()
        ticks = np.rint(steps * self.bar_lines.batch.ticks_per_quarter[piece]).astype(np.int64)
        bars, _ = self.bar_lines.at(ticks, np.full(2, piece))
        notes = int(reading.notes[here - back : last + 1].sum())
        return Passage(
            work_id=self.work_ids[works[0]],
            num_works=len(works),
            notes=notes,
            bits=int(matches.bits[match]),
            bars=int(bars[1] - bars[0]) + 1,
            share=notes / int(self.notes[piece]),
            begin_quarters=begin,
            end_quarters=end,
            work_begin_quarters=work_begin,
            semitones=int(reading.pitch[here - 1]) - int(text.pitch[there - 1]),
            stretch=(end - begin) / (work_end - work_begin) if work_end > work_begin else 1.0,
        )

    def shared(self, matches: _Matches) -> list[Shared | None]:
        """What each piece has of the work that has most of it."""
        reading, text, works = matches.reading, matches.text, max(len(self.work_ids), 1)
        telling = np.flatnonzero(matches.bits >= _TELLING_BITS)
        rows = np.minimum(matches.past_row - matches.first_row, _MOST_WORKS)[telling]
        match = np.repeat(telling, rows)
        work = self.work_of_form[text.form[text.suffixes.order[runs(matches.first_row[telling], rows)]]]
        begin = matches.begin[match]
        pair = reading.piece[begin] * works + work
        order = np.lexsort((begin, pair))
        pairs, begin, end = _united(pair[order], begin[order], (begin + matches.length[match])[order])
        pair, which = np.unique(pairs, return_inverse=True)
        notes, bits = (
            np.bincount(which, weights=sums[end] - sums[begin], minlength=len(pair)).astype(np.int64)
            for sums in (np.concatenate(([0], np.cumsum(column))) for column in (reading.notes, reading.bits))
        )
        found: list[Shared | None] = [None] * len(self.notes)
        for row in np.flatnonzero(_best(pair // works, notes, bits)).tolist():
            piece, number = divmod(int(pair[row]), works)
            share = int(notes[row]) / int(self.notes[piece])
            found[piece] = Shared(self.work_ids[number], int(notes[row]), int(bits[row]), share)
        return found


def _united(groups: Rows, begin: Rows, end: Rows) -> tuple[Rows, Rows, Rows]:
    """Stretches, sorted by group and begin, each shortened to what lies past those before it in its group."""
    span = int(end.max(initial=0)) + 1
    reached = np.maximum.accumulate(groups * span + end) - groups * span
    before = np.zeros(len(groups), np.int64)
    before[1:] = np.where(groups[1:] == groups[:-1], reached[:-1], 0)
    begin = np.maximum(begin, before)
    return groups, begin, np.maximum(end, begin)
