"""What Yang and Lerch measure of each piece of a set, so that two sets can be compared.

Goal: the features by which generated music is most often held against real music. Convention: pieces as a
:class:`~tutti.corpus.score_batch.ScoreBatch`; one row a piece. Drums are notes with lengths and onsets, but no pitch.
Histograms and transition matrices sum to 1, so that pieces of unlike length compare; times are in seconds.

Source: Yang and Lerch 2020, "On the evaluation of generative models in music" (Neural Computing and Applications 32),
and their tool mgeval, which reads one track of one voice. We differ where music has several:

- What follows what is told along lines, not through chords: the line of a part (of a track's one program) is its
  highest note at each onset. mgeval takes the notes as they stand in the file; its pitch class transitions break off
  where a rest is longer than 50 ms, ours do not.
- Time between onsets is that between moments; mgeval counts 0 within each chord.
- Pitch classes are weighted by sounding time; mgeval weighs loudness as well.
- Numbers per bar are means over the bars up to the last onset, empty ones included.

Without notes counts and ranges are 0, means of nothing NaN, and histograms and matrices NaN throughout.

Legend: W pieces, N notes, M notes of lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score_batch import ScoreBatch, reduced
from tutti.features import rhythm as bar_lines
from tutti.metrics import pitch, rhythm

Figures = NDArray[np.float64]
Index = NDArray[np.int64]

# A sort key holds piece, track, program, onset and pitch.
_TRACK_BITS, _PROGRAM_BITS, _ONSET_BITS, _PITCH_BITS = 16, 8, 31, 7


def describe(batch: ScoreBatch) -> dict[str, Figures]:
    """Every feature by name, each of shape (W,), (W, 12) or (W, 12, 12).

    ``pitch count`` (different pitches), ``note count``, both also ``per bar``, ``pitch range`` in semitones, ``pitch
    interval`` (mean size in semitones), ``inter-onset interval`` (mean, seconds), ``pitch class histogram``, ``pitch
    class transitions``, ``note length histogram`` and ``note length transitions`` (classes of
    :data:`~tutti.metrics.rhythm.NOTE_LENGTHS`); a transition is from the row to the column.
    """
    line, of_note = _lines(batch)
    pitched = batch.without_drums()
    pitched_line, pitched_note = _lines(pitched)
    classes, lengths = pitched.notes.pitch[pitched_note] % 12, rhythm.note_length_classes(batch)[of_note]
    size = len(batch)
    return {
        "pitch count": pitch.pitches_used(batch).astype(np.float64),
        "pitch count per bar": _pitches_per_bar(pitched),
        "note count": np.diff(batch.note_starts).astype(np.float64),
        "note count per bar": np.diff(batch.note_starts) / np.maximum(_bars(batch), 1),
        "pitch range": pitch.pitch_range(batch).astype(np.float64),
        "pitch interval": _mean_interval(pitched, line=pitched_line, of_note=pitched_note),
        "inter-onset interval": _mean_interval_s(batch),
        "pitch class histogram": _class_weights(pitched),
        "pitch class transitions": _transitions(pitched_line, classes, size=size),
        "note length histogram": _shares(rhythm.note_length_histogram(batch).astype(np.float64)),
        "note length transitions": _transitions(line, lengths, size=size),
    }


def _lines(batch: ScoreBatch) -> tuple[Index, Index]:
    """The notes of all parts' lines in order: piece and part as one number, and row of the note; shapes (M,)."""
    notes = batch.notes
    part = (
        (batch.piece_of_note << (_TRACK_BITS + _PROGRAM_BITS))
        + (notes.track.astype(np.int64) << _PROGRAM_BITS)
        + notes.program
    )
    order = np.lexsort((notes.pitch, notes.onset_ticks, part))
    moment = np.append(np.diff(part[order]) | np.diff(notes.onset_ticks[order]), 1)[: len(order)]
    highest = order[moment != 0]
    return part[highest], highest


def _piece(line: Index) -> Index:
    return line >> (_TRACK_BITS + _PROGRAM_BITS)


def _transitions(line: Index, kind: NDArray[np.integer], *, size: int) -> Figures:
    """How often each of 12 kinds follows each, along lines, as a share of all; shape (size, 12, 12)."""
    same = line[1:] == line[:-1]
    place = (_piece(line[1:]) * 12 + kind[:-1]) * 12 + kind[1:]
    counts = np.bincount(place[same], minlength=144 * size).astype(np.float64)
    return _shares(counts.reshape(size, 144)).reshape(size, 12, 12)


def _mean_interval(pitched: ScoreBatch, *, line: Index, of_note: Index) -> Figures:
    same = line[1:] == line[:-1]
    steps = np.abs(np.diff(pitched.notes.pitch[of_note].astype(np.int64)))[same]
    return _means(_piece(line[1:])[same], steps.astype(np.float64), size=len(pitched))


def _mean_interval_s(batch: ScoreBatch) -> Figures:
    """Seconds from the first moment to the last over the times between them."""
    seconds = batch.seconds_at(batch.notes.onset_ticks, batch.piece_of_note)
    first, last = (reduced(side, seconds, batch.note_starts) for side in (np.minimum, np.maximum))
    _, starts = rhythm.inter_onset_intervals(batch)
    intervals = np.diff(starts)
    return np.where(intervals > 0, (last - first) / np.maximum(intervals, 1), np.nan)


def _class_weights(pitched: ScoreBatch) -> Figures:
    place = pitched.piece_of_note * 12 + pitched.notes.pitch % 12
    lasting = pitched.notes.duration_ticks.astype(np.float64)
    return _shares(np.bincount(place, weights=lasting, minlength=12 * len(pitched)).reshape(len(pitched), 12))


def _bars(batch: ScoreBatch) -> Index:
    return np.diff(bar_lines.bars(batch).starts)


def _pitches_per_bar(pitched: ScoreBatch) -> Figures:
    bars = bar_lines.bars(pitched)
    used = np.unique(bars.of_note * 128 + pitched.notes.pitch) // 128
    piece = np.searchsorted(bars.starts, used, side="right") - 1
    return np.bincount(piece, minlength=len(pitched)) / np.maximum(np.diff(bars.starts), 1)


def _means(piece: Index, values: Figures, *, size: int) -> Figures:
    count = np.bincount(piece, minlength=size)
    return np.where(count > 0, np.bincount(piece, weights=values, minlength=size) / np.maximum(count, 1), np.nan)


def _shares(counts: NDArray[Any]) -> Figures:
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), np.nan)
