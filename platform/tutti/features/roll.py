"""Score to multi-track piano-roll and back: four bars at once, sixteenths by pitches by groups of instruments.

Legend: N notes, R rolls, M marks (a cell sounds; a note begins in it), B bars, S steps of a bar, P pitches, K tracks.

A roll covers :data:`BARS` bars of four quarters (4/4, 2/2, 8/8); bars of other meters are left out and counted, for a
step would not be a sixteenth there or a bar not sixteen of them. A held note and a repeated one differ: a cell says not
only that it sounds but whether a note begins in it. (Dong et al. 2018, MuseGAN, arXiv 1709.06298, keep the first mark
alone and lose repetitions.) A note that comes in from the window before sounds in the first step without beginning
there, so that consecutive rolls join again without a seam.

The normal form, which decoding gives back exactly: onsets and ends at the nearest sixteenth, no note shorter than one;
a drum's hit is one step; one velocity; pitches outside the range come in by octaves, drum keys outside it are left
out; where two notes of a track meet in one cell, one that begins ends the other, and of two that begin there the longer
stays.

A roll is kept **sparse**, as 16-bit tokens: one for the mood class, one for the tempo class, then one for each cell
that sounds, in order of time, pitch and track.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import tonality
from tutti.features.controls import tempo_class
from tutti.features.grid import METER_TICKS, Grid, Index, runs
from tutti.features.vocabulary import ANY, MOODS, TEMPO_CLASS_LIMITS_QPM, TEMPO_CLASSES, TEMPOS_QPM, TICKS_PER_QUARTER

Tokens = NDArray[np.uint16]
Marks = NDArray[np.bool_]

ROLL_VERSION = 1
"""Moves whenever the same works would give other rolls."""
BARS, STEPS, PITCHES, LOWEST_PITCH = 4, 16, 84, 24
"""Four bars are a phrase; 84 pitches, C1 to B7, are what Dong et al. (2018) take: seven octaves."""
TRACKS = ("drums", "bass", "keys", "strings", "lead")
"""Groups by what they do in a band or a score: the beat, its ground, chords that are struck or plucked, what is
sustained (strings, choirs, pads), and what sings. Four of them have pitches: as many as a chorale has voices."""
PROGRAMS = (DRUM_PROGRAM, 33, 0, 48, 73)
"""A General MIDI program for each: drum kit, fingered bass, piano, string ensemble, flute."""
CLASSES = {"mood": (ANY, *MOODS), "tempo": (ANY, *TEMPO_CLASSES)}
"""Classes by the kind of token that says them, in the head's order."""

SOUNDS, BEGINS = 0, 1
HEAD_TOKENS = len(CLASSES)
SHAPE = (2, BARS, STEPS, PITCHES, len(TRACKS))
CELLS = BARS * STEPS * PITCHES * len(TRACKS)
DRUMS, BASS, KEYS, STRINGS, LEAD = range(len(TRACKS))
VELOCITY = 80

_HEAD_STARTS = np.cumsum([2 * CELLS, *map(len, CLASSES.values())])[:HEAD_TOKENS]
_STEP_TICKS = 4 * TICKS_PER_QUARTER // STEPS
_ROLL_STEPS = BARS * STEPS
_FEWEST_WRITTEN_VOICES = 3
_HOME_OF_MINOR = 9


def _groups() -> NDArray[np.int64]:
    """Track of each General MIDI program; shape (129,)."""
    track = np.full(DRUM_PROGRAM + 1, KEYS)
    track[40:56] = track[61:64] = track[88:104] = track[120:128] = STRINGS
    track[[45, 46, 47]] = KEYS  # pizzicato, harp and timpani are struck or plucked
    track[56:61] = track[64:88] = track[109:112] = LEAD
    track[[22, 40]] = LEAD  # harmonica, and the violin that plays alone
    track[32:40] = track[[43, 58]] = BASS  # with contrabass and tuba
    track[DRUM_PROGRAM] = DRUMS
    return track


_TRACK_OF_PROGRAM = _groups()


@dataclass(frozen=True, slots=True)
class Rolls:
    """All windows of one work.

    Args:
        tokens: of each roll, silent ones too; each of shape (:data:`HEAD_TOKENS` + sounding cells,).
        bars: bar of the work at which each begins, from 0.
        left_out: bars that no window holds, by reason: ``meter`` (they are not four quarters long), ``short`` (fewer
            than :data:`BARS` in a row were left).
    """

    tokens: list[Tokens]
    bars: list[int]
    left_out: Counter[str]


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells that sound, by bar line: a step counts from the work's first bar, :data:`STEPS` to each bar."""

    step: Index
    pitch: Index
    track: Index
    begins: Marks


def described() -> dict[str, Any]:
    """What a roll is, as plain values: two datasets of rolls can be read as one where these are equal."""
    return {
        "version": ROLL_VERSION,
        "bars": BARS,
        "steps": STEPS,
        "pitches": PITCHES,
        "lowest_pitch": LOWEST_PITCH,
        "tracks": list(TRACKS),
        "classes": {kind: list(names) for kind, names in CLASSES.items()},
        "tempo_class_limits_qpm": list(TEMPO_CLASS_LIMITS_QPM),
    }


def tracks_of(notes: Notes) -> Index:
    """Which track each note of a work belongs to; shape (N,).

    Drums are drums. Where the other parts are of several groups of instruments, a note belongs to its program's. Where
    all are of one (a keyboard, a choir, a quartet), the group's name says nothing, and voices become tracks: of three
    or more parts as they are written, the highest on average being the lead and the lowest the bass; of fewer by what
    sounds when the note begins: the highest pitch is the lead, the lowest the bass.
    """
    track = _TRACK_OF_PROGRAM[np.minimum(notes.program, DRUM_PROGRAM)]
    pitched = np.flatnonzero(track != DRUMS)
    if len(np.unique(track[pitched])) != 1:
        return track
    parts, part = np.unique(
        np.stack([notes.program[pitched], notes.track[pitched]]).astype(np.int64), axis=1, return_inverse=True
    )
    num_parts, part = parts.shape[1], part.reshape(-1)
    if num_parts >= _FEWEST_WRITTEN_VOICES:
        mean_pitch = np.bincount(part, weights=notes.pitch[pitched]) / np.bincount(part)
        above = np.argsort(np.argsort(-mean_pitch, kind="stable"))[part]
        below = num_parts - 1 - above
    else:
        above, below = _neighbours(notes.take(pitched))
    inner = np.where(above <= below, STRINGS, KEYS)
    track[pitched] = np.where(above == 0, LEAD, np.where(below == 0, BASS, inner))
    return track


def _neighbours(notes: Notes) -> tuple[Index, Index]:
    """How many notes sound above and below each when it begins; each of shape (N,)."""
    onset = notes.onset_ticks.astype(np.int64)
    end, pitch = onset + np.maximum(notes.duration_ticks, 1), notes.pitch.astype(np.int64)
    order = np.argsort(onset, kind="stable")
    above, below = np.zeros(len(notes), np.int64), np.zeros(len(notes), np.int64)
    sounding = np.empty(0, np.int64)
    starts = np.flatnonzero(np.diff(onset[order], prepend=-1))
    for begin, stop in zip(starts.tolist(), np.append(starts[1:], len(order)).tolist(), strict=True):
        new = order[begin:stop]
        sounding = np.concatenate((sounding[end[sounding] > onset[new[0]]], new))
        # A unison is neither above nor below.
        apart = pitch[sounding][None, :] - pitch[new][:, None]
        above[new], below[new] = (apart > 0).sum(axis=1), (apart < 0).sum(axis=1)
    return above, below


def rolls_of(score: Score, *, tracks: Index, mood: str, hop_bars: int) -> Rolls:
    """All windows of a work.

    Args:
        score: the work.
        tracks: of each of its notes, as :func:`tracks_of` gives them; shape (N,).
        mood: member of ``MOODS``, or ``any``; the tempo class is that of the tempo at the window's first bar line.
        hop_bars: bars from one window to the next; with :data:`BARS` every bar comes once.
    """
    grid = Grid.of(ScoreBatch.of([score]))
    of_four = METER_TICKS[grid.bar_meter] == 4 * TICKS_PER_QUARTER
    bounds = np.flatnonzero(np.diff(of_four, prepend=False, append=False)).reshape(-1, 2)
    cells = _cells(score.with_resolution(TICKS_PER_QUARTER).notes, tracks, bar_ticks=grid.bar_time_ticks, bounds=bounds)
    left_out = Counter({"meter": int((~of_four).sum()), "short": 0})
    starts = list[int]()
    for first, stop in bounds.tolist():
        starts += range(first, stop - BARS + 1, hop_bars)
        covered = BARS + (stop - first - BARS) // hop_bars * hop_bars if stop - first >= BARS else 0
        left_out["short"] += stop - first - covered
    at_start = np.searchsorted(grid.tempo_time_ticks, grid.bar_time_ticks[starts], side="right") - 1
    tempos = [tempo_class(TEMPOS_QPM[tempo]) for tempo in grid.tempo[at_start].tolist()]
    token = 2 * ((cells.step * PITCHES + cells.pitch) * len(TRACKS) + cells.track) + cells.begins
    ends = np.searchsorted(cells.step, np.array([[start, start + BARS] for start in starts]).reshape(-1, 2) * STEPS)
    per_bar = 2 * STEPS * PITCHES * len(TRACKS)
    return Rolls(
        tokens=[
            np.concatenate((head_of(mood=mood, tempo=tempo), (token[begin:end] - start * per_bar).astype(np.uint16)))
            for start, tempo, (begin, end) in zip(starts, tempos, ends.tolist(), strict=True)
        ],
        bars=starts,
        left_out=+left_out,
    )


def head_of(*, mood: str, tempo: str) -> Tokens:
    """The tokens that say the classes; shape (:data:`HEAD_TOKENS`,)."""
    said = {"mood": mood, "tempo": tempo}
    index = [CLASSES[kind].index(said[kind]) for kind in CLASSES]
    return (_HEAD_STARTS + index).astype(np.uint16)


def notes_in(tokens: Tokens) -> int:
    """How many notes begin in a roll."""
    cells = tokens[HEAD_TOKENS:]
    return int(np.count_nonzero(cells % 2))


def _cells(notes: Notes, track: Index, *, bar_ticks: Index, bounds: Index) -> _Cells:
    """Cells that sound within runs of bars, sorted by step, pitch and track.

    Args:
        notes: of :data:`TICKS_PER_QUARTER` ticks a quarter.
        track: of each.
        bar_ticks: where bars begin.
        bounds: first bar and end of each run of bars of four quarters; shape (runs, 2).
    """
    onset = notes.onset_ticks.astype(np.int64)
    bar = np.searchsorted(bar_ticks, onset, side="right") - 1
    run = np.searchsorted(bounds[:, 0], bar, side="right") - 1
    pitch = notes.pitch.astype(np.int64) - LOWEST_PITCH
    has_cell = (pitch >= 0) & (pitch < PITCHES) | (track != DRUMS)
    kept = np.flatnonzero((run >= 0) & (bar < np.append(bounds[:, 1], 0)[run]) & has_cell)
    onset, run, pitch, track = onset[kept], run[kept], pitch[kept], track[kept].astype(np.int64)
    low, high = pitch < 0, pitch >= PITCHES
    pitch[low] %= 12
    pitch[high] = PITCHES - 12 + pitch[high] % 12
    run_end = bounds[run, 1] * STEPS
    # What is played just ahead of a bar line belongs to the bar after it, if that is one of the run.
    begin = np.minimum(_steps(onset, bar_ticks), run_end - 1)
    end = np.clip(_steps(onset + notes.duration_ticks[kept], bar_ticks), begin + 1, run_end)
    end[track == DRUMS] = begin[track == DRUMS] + 1
    return _laid(begin, end, pitch=pitch, track=track)


def _steps(ticks: Index, bar_ticks: Index) -> Index:
    """The nearest step of each tick, counted :data:`STEPS` to a bar."""
    bar = np.searchsorted(bar_ticks, ticks, side="right") - 1
    return bar * STEPS + (2 * (ticks - bar_ticks[bar]) + _STEP_TICKS) // (2 * _STEP_TICKS)


def _laid(begin: Index, end: Index, *, pitch: Index, track: Index) -> _Cells:
    """The cells of notes, none sounding into its own repetition."""
    order = np.lexsort((end, begin, pitch, track))
    begin, end, voice = begin[order], end[order], (track * PITCHES + pitch)[order]
    # The last of those that begin together is the longest.
    last = np.append((np.diff(begin) != 0) | (np.diff(voice) != 0), np.ones(min(len(order), 1), bool))
    begin, end, voice = begin[last], end[last], voice[last]
    follows = np.append(np.diff(voice) == 0, np.zeros(min(len(voice), 1), bool))
    end = np.where(follows, np.minimum(end, np.append(begin[1:], 0)[: len(begin)]), end)
    length = end - begin
    step, voice = runs(begin, length), np.repeat(voice, length)
    begins = np.zeros(len(step), dtype=bool)
    begins[np.cumsum(length) - length] = True
    track, pitch = np.divmod(voice, PITCHES)
    order = np.lexsort((track, pitch, step))
    return _Cells(step[order], pitch[order], track[order], begins[order])


def dense(tokens: Tokens, *, lengths: NDArray[np.integer]) -> tuple[NDArray[np.int64], Marks]:
    """Classes and marks of rolls that lie end to end.

    Args:
        tokens: of all rolls.
        lengths: tokens of each; shape (R,).

    Returns:
        Index into :data:`CLASSES` of each kind, shape (R, kinds), and ``roll_RMBSPK``: whether each cell sounds and
        whether a note begins in it.
    """
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    head = starts[:, None] + np.arange(HEAD_TOKENS)
    is_cell = np.ones(len(tokens), dtype=bool)
    is_cell[head] = False
    roll = np.repeat(np.arange(len(lengths)), lengths)[is_cell]
    cell, begins = np.divmod(tokens[is_cell].astype(np.int64), 2)
    marks = np.zeros((len(lengths), 2, CELLS), dtype=bool)
    marks[roll, SOUNDS, cell] = True
    marks[roll, BEGINS, cell] = begins.astype(bool)
    return tokens[head].astype(np.int64) - _HEAD_STARTS, marks.reshape(-1, *SHAPE)


def sparse(classes: NDArray[np.integer], roll_RMBSPK: Marks) -> list[Tokens]:
    """The tokens of rolls: the inverse of :func:`dense`."""
    flat = roll_RMBSPK.reshape(-1, 2, CELLS)
    tokens = []
    for head, sounds, begins in zip(classes + _HEAD_STARTS, flat[:, SOUNDS], flat[:, BEGINS], strict=True):
        cell = np.flatnonzero(sounds)
        tokens.append(np.concatenate((head, 2 * cell + begins[cell])).astype(np.uint16))
    return tokens


def transposed(tokens: Tokens, *, lengths: NDArray[np.integer], semitones: Index) -> Tokens:
    """Rolls that lie end to end, each moved by its number of semitones; drums stay.

    A roll of which a note would leave the range stays as it was. Mood and tempo are of no key.

    Args:
        tokens: of all rolls.
        lengths: tokens of each; shape (R,).
        semitones: of each; shape (R,).
    """
    roll = np.repeat(np.arange(len(lengths)), lengths)
    token = tokens.astype(np.int64)
    moves = (token < 2 * CELLS) & (token // 2 % len(TRACKS) != DRUMS)
    pitch = token // (2 * len(TRACKS)) % PITCHES + semitones[roll]
    leaves = np.zeros(len(lengths), dtype=bool)
    leaves[roll[moves & ((pitch < 0) | (pitch >= PITCHES))]] = True
    moves &= ~leaves[roll]
    moved = token + moves * semitones[roll] * 2 * len(TRACKS)
    # Of one step, pitched cells pass drums of other pitches: the order is of time, pitch and track.
    order = np.lexsort((np.where(token < 2 * CELLS, moved, -1), roll))
    return np.asarray(moved[order].astype(np.uint16))


def semitones_home(tokens: Tokens, *, lengths: NDArray[np.integer]) -> Index:
    """How far each roll is to be moved to lie in C major or A minor, whichever its notes fit: -6 to 5; shape (R,).

    Args:
        tokens: of rolls that lie end to end.
        lengths: tokens of each; shape (R,).
    """
    roll = np.repeat(np.arange(len(lengths)), lengths)
    pitch, track = np.divmod(tokens.astype(np.int64) // 2, len(TRACKS))
    told = (tokens < 2 * CELLS) & (track != DRUMS)
    name = (pitch % PITCHES + LOWEST_PITCH) % 12
    weight = np.bincount(roll[told] * 12 + name[told], minlength=12 * len(lengths)).reshape(-1, 12)
    keys, _ = tonality.best_keys(tonality.fit_of_classes(weight.astype(np.float64)))
    home = np.array([_HOME_OF_MINOR if tonality.KEYS[key].minor else 0 for key in keys])
    tonic = np.array([tonality.KEYS[key].tonic for key in keys], dtype=np.int64)
    return np.asarray((home - tonic + 6) % 12 - 6)


def score_of(roll_RMBSPK: Marks, *, tempo_qpm: float, programs: Sequence[int] = PROGRAMS) -> Score:
    """Consecutive rolls as one piece in 4/4.

    A note begins where a cell says so, and where one sounds that was silent a step before; it ends where the next one
    begins or nothing sounds.

    Args:
        roll_RMBSPK: one or more rolls in their order.
        tempo_qpm: quarters a minute.
        programs: General MIDI program of each track.
    """
    steps = len(roll_RMBSPK) * _ROLL_STEPS
    sounds, begins = (
        # By voice and then by time, so that a note is a run of neighbours.
        roll_RMBSPK[:, mark].reshape(steps, -1).T
        for mark in (SOUNDS, BEGINS)
    )
    before = np.zeros_like(sounds)
    before[:, 1:] = sounds[:, :-1]
    drums = (np.arange(len(sounds)) % len(TRACKS) == DRUMS)[:, None]
    starts = sounds & (begins | ~before | drums)
    voice, onset = np.nonzero(starts)
    # A note lasts up to the first of the cells that begin a note or are silent.
    stops = starts | ~sounds
    ends = np.full((len(sounds), steps + 1), steps)
    ends[:, :-1][stops] = np.nonzero(stops)[1]
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    pitch, track = np.divmod(voice, len(TRACKS))
    notes = Notes.of(
        onset_ticks=onset * _STEP_TICKS,
        duration_ticks=(np.where(track == DRUMS, onset + 1, ends[voice, onset + 1]) - onset) * _STEP_TICKS,
        pitch=pitch + LOWEST_PITCH,
        velocity=np.full(len(onset), VELOCITY),
        program=np.array(programs)[track],
        track=track,
    )
    return Score.of(notes, ticks_per_quarter=TICKS_PER_QUARTER, tempos=[(0, tempo_qpm)])
