"""A file's own notes put back exactly: what the grid rounds is rounded only for the model to read.

Onsets finer than the grid, velocities between its steps, tracks, several tempos and meters that the vocabulary lacks
are all lost on the grid (:mod:`tutti.features.grid`). Grid and file count the same quarters, so notes that are kept go
back to where they were, and only what was composed lies on the grid.

Legend: N notes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import work_id
from tutti.features.grid import GridNotes
from tutti.features.vocabulary import TICKS_PER_QUARTER

_FINEST = 32_767
"""Ticks a quarter that a MIDI file can state."""


@dataclass(frozen=True, slots=True)
class Ends(Score):
    """Two files to make something between: it goes wherever the music goes that a request starts from.

    Args:
        second: the other one; the fields are the first one's.
    """

    second: Score = field(kw_only=True)

    @classmethod
    def between(cls, first: Score, second: Score) -> Ends:
        """Two files as one material."""
        return cls(**{each.name: getattr(first, each.name) for each in fields(Score)}, second=second)

    @property
    def first(self) -> Score:
        """The first file alone."""
        return Score(**{each.name: getattr(self, each.name) for each in fields(Score)})


def works_of(material: Score) -> tuple[str, ...]:
    """Identities of the music that a request starts from."""
    return (work_id(material.first), work_id(material.second)) if isinstance(material, Ends) else (work_id(material),)


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a file.

    Args:
        source: the file, in its own resolution.
        notes: which of its notes stay; shape (N,).
        begin_ticks, end_ticks: between which ticks of the grid new notes begin; the end is None where it is open.
        planted: of the notes that stay, those that the sequence says again, as it says them.
        tempo_qpm: in place of all tempos of the file, or None.
        new_tempo: tick of the grid and tempo from there on, or None.
        new_meter: tick of the grid and meter from there on, or None.
        own_tracks: whether new notes keep the tracks that they come with.
        polyphony: most notes that sound at once where a new one does; None: any number.
        marks_until: tick of the grid after which the file's tempos and meters hold no more; None: all hold.
    """

    source: Score
    notes: NDArray[np.bool_]
    begin_ticks: int
    end_ticks: int | None
    planted: GridNotes
    tempo_qpm: float | None = None
    new_tempo: tuple[int, float] | None = None
    new_meter: tuple[int, int, int] | None = None
    marks_until: int | None = None
    own_tracks: bool = False
    polyphony: int | None = None

    @property
    def changed_tempo(self) -> tuple[int, float] | None:
        """Tick of the grid and tempo that hold in place of the file's; None: the file's hold throughout."""
        return self.new_tempo if self.tempo_qpm is None else (0, self.tempo_qpm)


def grid_onsets(score: Score) -> NDArray[np.int64]:
    """Onset of each note in ticks of the grid, rounded as the grid rounds; shape (N,)."""
    own = score.ticks_per_quarter
    return np.asarray((2 * TICKS_PER_QUARTER * score.notes.onset_ticks.astype(np.int64) + own) // (2 * own))


def restored(made: Score, kept: Kept) -> Score:
    """The file's notes that stay and those of ``made`` that are new, in a resolution that holds both.

    A new note that begins while a kept one of its pitch and program sounds is left out, and one that would sound into
    such a note ends before it.

    Args:
        made: on the grid, the kept notes among them.
    """
    source = kept.source
    ticks_per_quarter = _resolution(source)
    of_source = ticks_per_quarter // source.ticks_per_quarter

    def at(grid_ticks: NDArray[Any] | int) -> NDArray[np.int64]:
        scaled = 2 * np.asarray(grid_ticks, dtype=np.int64) * ticks_per_quarter + TICKS_PER_QUARTER
        return np.asarray(scaled // (2 * TICKS_PER_QUARTER))

    old = source.notes.take(kept.notes)
    old = replace(
        old,
        onset_ticks=(old.onset_ticks * np.int32(of_source)).astype(np.int32),
        duration_ticks=(old.duration_ticks * np.int32(of_source)).astype(np.int32),
    )
    new = _new_notes(made.notes, kept)
    onset, end = at(new.onset_ticks), at(new.onset_ticks.astype(np.int64) + new.duration_ticks)
    if kept.end_ticks is not None:
        end = np.minimum(end, at(kept.end_ticks))
    new = replace(
        new,
        onset_ticks=onset.astype(np.int32),
        duration_ticks=np.maximum(end - onset, 1).astype(np.int32),
        track=new.track if kept.own_tracks else _tracks(new.program, old),
    )
    new = _apart(new, old)
    if kept.polyphony is not None:
        new = _within_voices(new, old, most=kept.polyphony)
    last = None if kept.marks_until is None else int(at(kept.marks_until))
    tempos = _map(source.tempo_ticks, source.tempo_qpm, factor=of_source, last=last)
    if kept.tempo_qpm is not None:
        tempos = [(0, kept.tempo_qpm)]
    meters = _map(source.meter_ticks, source.meter_numerator, source.meter_denominator, factor=of_source, last=last)
    if kept.new_tempo is not None:
        tempos.append((int(at(kept.new_tempo[0])), kept.new_tempo[1]))
    if kept.new_meter is not None:
        meters.append((int(at(kept.new_meter[0])), *kept.new_meter[1:]))
    return Score.of(_joined(old, new), ticks_per_quarter=ticks_per_quarter, tempos=tempos, meters=meters)


def _resolution(source: Score) -> int:
    """Ticks a quarter that hold the file's notes exactly, and the grid's too where so many can be stated."""
    both = lcm(source.ticks_per_quarter, TICKS_PER_QUARTER)
    longest = max(source.end_ticks, int(source.tempo_ticks[-1]), int(source.meter_ticks[-1]), 1)
    # As much again for what is composed.
    fits = 2 * longest * (both // source.ticks_per_quarter) < 2**31
    return both if both <= _FINEST and fits else source.ticks_per_quarter


def _new_notes(notes: Notes, kept: Kept) -> Notes:
    new = notes.onset_ticks >= kept.begin_ticks
    if kept.end_ticks is not None:
        new &= notes.onset_ticks < kept.end_ticks
    planted = kept.planted
    said = _places(planted.time_ticks, planted.program, planted.pitch)
    return notes.take(new & ~np.isin(_places(notes.onset_ticks, notes.program, notes.pitch), said))


def _places(ticks: NDArray[Any], program: NDArray[Any], pitch: NDArray[Any]) -> NDArray[np.int64]:
    """One number for when, who and what; shape (N,)."""
    return (ticks.astype(np.int64) << 16) | (program.astype(np.int64) << 8) | pitch.astype(np.int64)


def _tracks(programs: NDArray[np.uint8], old: Notes) -> NDArray[np.uint16]:
    """Track of each new note: the first that plays its program, or one of its own behind all."""
    pairs = set(zip(old.program.tolist(), old.track.tolist(), strict=True))
    found = dict(sorted(pairs, reverse=True))
    free = int(old.track.max(initial=0)) + 1 if len(old) else 0
    for program in np.unique(programs).tolist():
        if program not in found:
            found[program], free = free, free + 1
    return np.array([found[program] for program in programs.tolist()], dtype=np.uint16)


def _apart(new: Notes, old: Notes) -> Notes:
    """New notes that meet no old one of their pitch and program."""
    sounding: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for program, pitch, onset, duration in zip(
        old.program.tolist(), old.pitch.tolist(), old.onset_ticks.tolist(), old.duration_ticks.tolist(), strict=True
    ):
        sounding.setdefault((program, pitch), []).append((onset, onset + duration))
    stays, duration_ticks = np.ones(len(new), dtype=bool), new.duration_ticks.copy()
    for note, key in enumerate(zip(new.program.tolist(), new.pitch.tolist(), strict=True)):
        onset = int(new.onset_ticks[note])
        for begin, end in sounding.get(key, ()):
            if begin <= onset < end:
                stays[note] = False
            elif onset < begin < onset + duration_ticks[note]:
                duration_ticks[note] = begin - onset
    return replace(new, duration_ticks=duration_ticks).take(stays)


def _within_voices(new: Notes, old: Notes, *, most: int) -> Notes:
    """New notes of which, with the old ones, no more than ``most`` sound at once.

    One that sounds when another begins gives way to it, the one that would end first; one that begins when old ones
    take every voice is left out.
    """
    begins = np.concatenate((old.onset_ticks, new.onset_ticks)).astype(np.int64)
    ends = begins + np.concatenate((old.duration_ticks, new.duration_ticks))
    stays = np.ones(len(begins), dtype=bool)
    for tick in np.unique(begins).tolist():
        sounding = np.flatnonzero(stays & (begins <= tick) & (tick < ends))
        over = len(sounding) - most
        if over <= 0:
            continue
        ours = sounding[sounding >= len(old)]
        for note in ours[np.lexsort((ends[ours], begins[ours] == tick))[:over]].tolist():
            if begins[note] < tick:
                ends[note] = tick
            else:
                stays[note] = False
    durations = (ends - begins)[len(old) :].astype(np.int32)
    return replace(new, duration_ticks=durations).take(stays[len(old) :])


def _map(ticks: NDArray[Any], *columns: NDArray[Any], factor: int, last: int | None) -> list[Any]:
    """Rows of a map in another resolution, up to a tick."""
    rows = zip((ticks * np.int32(factor)).tolist(), *(column.tolist() for column in columns), strict=True)
    return [row for row in rows if last is None or row[0] <= last]


def _joined(left: Notes, right: Notes) -> Notes:
    return Notes(*(np.concatenate((getattr(left, name), getattr(right, name))) for name in Notes.__dataclass_fields__))
