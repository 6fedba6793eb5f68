"""Other versions of one piece, as they lie beside each other in real collections: pure functions of a score and a draw.

Each takes a score of 480 ticks a quarter or any other resolution and leaves drums alone unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score

Perturbation = Callable[[Score, np.random.Generator], Score]

MIN_NOTES = 24
ORNAMENTED_SHARE = 0.1
MAX_SEMITONES = 6


def transposed(score: Score, draw: np.random.Generator) -> Score:
    """1 to 6 semitones up or down, as far as MIDI's pitches reach."""
    melodic = score.notes.program != DRUM_PROGRAM
    pitch = score.notes.pitch.astype(np.int64)
    held = pitch[melodic]
    semitones = [step for step in range(-MAX_SEMITONES, MAX_SEMITONES + 1) if step]
    if len(held):
        semitones = [step for step in semitones if -held.min() <= step <= 127 - held.max()]
    pitch[melodic] += draw.choice(semitones)
    return _with(score, pitch=pitch)


def at_another_tempo(score: Score, draw: np.random.Generator) -> Score:
    """Every tempo 0.5 to 2 times as fast: the notes stay."""
    return replace(score, tempo_qpm=score.tempo_qpm * 2 ** draw.uniform(-1, 1))


def in_other_note_values(score: Score, draw: np.random.Generator) -> Score:
    """Written in note values twice or half as long."""
    return _stretched(score, 2.0 if draw.random() < 0.5 else 0.5)


def stretched(score: Score, draw: np.random.Generator) -> Score:
    """0.7 to 1.4 times as long on the same grid of ticks, as where a recording was made without a click."""
    return _stretched(score, float(2 ** draw.uniform(-0.5, 0.5)))


def on_another_instrument(score: Score, draw: np.random.Generator) -> Score:
    """Every part gets another program; half of the time all of them lie in one part then."""
    notes = score.notes
    melodic = notes.program != DRUM_PROGRAM
    program = np.where(melodic, draw.integers(0, 128, 2**16, dtype=np.uint8)[notes.track], notes.program)
    track = notes.track
    if draw.random() < 0.5:
        program = np.where(melodic, program[melodic][:1].sum(dtype=np.uint8), notes.program)
        track = np.where(melodic, 0, track + 1)
    return _with(score, program=program, track=track)


def ornamented(score: Score, draw: np.random.Generator, *, share: float = ORNAMENTED_SHARE) -> Score:
    """Mordents, trills, grace notes and passing notes on ``share`` of all notes; on drums flams and added strokes."""
    notes = score.notes
    onset, pitch = notes.onset_ticks.astype(np.int64), notes.pitch.astype(np.int64)
    duration = notes.duration_ticks.astype(np.int64)
    chosen = np.flatnonzero((draw.random(len(notes)) < share) & (duration >= 8))
    if not len(chosen):
        return score
    kind = draw.integers(0, 4, len(chosen))
    quick = np.where(kind == 1, duration[chosen] // 8, duration[chosen] // 4)
    quick = np.clip(np.minimum(quick, score.ticks_per_quarter // 8), 1, None)
    drums = notes.program[chosen] == DRUM_PROGRAM
    away = np.where(drums, 0, draw.choice((-2, -1, 1, 2), len(chosen)))
    rows, begins, lasts, moves = [], [], [], []

    def add(which: NDArray[np.bool_], begin: NDArray[np.int64], last: NDArray[np.int64], move: int) -> None:
        rows.append(chosen[which])
        begins.append((onset[chosen] + begin)[which])
        lasts.append(last[which])
        moves.append((away * move)[which])

    nothing, whole = np.zeros_like(quick), duration[chosen]
    for number, begin, last, move in (
        *((0, turn * quick, quick, turn) for turn in range(2)), (0, 2 * quick, whole - 2 * quick, 0),  # mordent
        *((1, turn * quick, quick, turn % 2) for turn in range(6)), (1, 6 * quick, whole - 6 * quick, 0),  # trill
        (2, nothing, quick, 1), (2, quick, whole - quick, 0),  # grace note on the beat
        (3, nothing, whole // 2, 0), (3, whole // 2, whole - whole // 2, 1),  # passing note
    ):  # fmt: skip
        add((kind == number) & (last > 0), begin, last, move)
    kept = np.setdiff1d(np.arange(len(notes)), chosen)
    row = np.concatenate((kept, *rows))
    made = replace(
        notes.take(row),
        onset_ticks=np.concatenate((onset[kept], *begins)).astype(np.int32),
        duration_ticks=np.concatenate((duration[kept], *lasts)).astype(np.int32),
        pitch=np.clip(pitch[row] + np.concatenate((np.zeros(len(kept), np.int64), *moves)), 0, 127).astype(np.uint8),
    )
    return replace(score, notes=made.in_order())


def without_a_voice(score: Score, draw: np.random.Generator) -> Score | None:
    """One part of several is missing, or the highest or the lowest note of every chord; drums count as their keys.

    None where nothing but one voice is there, or less than a quarter of the notes would be left.
    """
    notes = score.notes
    drums_only = bool((notes.program == DRUM_PROGRAM).all())
    part = notes.pitch.astype(np.int64) if drums_only else notes.track.astype(np.int64)
    part = np.where((notes.program == DRUM_PROGRAM) & (not drums_only), -1, part)
    parts = np.unique(part[part >= 0])
    if len(parts) > 1:
        kept = part != draw.choice(parts)
    else:
        order = np.lexsort((notes.pitch, notes.onset_ticks))
        apart = np.diff(notes.onset_ticks[order]) > 0
        first, last = np.append(True, apart), np.append(apart, True)
        missing = (last if draw.random() < 0.5 else first) & ~(first & last)
        kept = np.ones(len(notes), dtype=bool)
        kept[order] = ~missing
        if missing.sum() < len(notes) / 10:
            return None
    left = kept & ((notes.program != DRUM_PROGRAM) | drums_only)
    if left.sum() < max(len(notes) / 4, MIN_NOTES):
        return None
    return replace(score, notes=notes.take(kept))


def cut(score: Score, draw: np.random.Generator, *, share: float) -> Score | None:
    """A contiguous ``share`` of the time from first to last onset, from any place; None where few notes are left."""
    onset = score.notes.onset_ticks.astype(np.int64)
    length = int((onset.max() - onset.min()) * share) if len(onset) else 0
    begin = int(onset.min() + draw.random() * ((onset.max() - onset.min()) - length)) if len(onset) else 0
    kept = (onset >= begin) & (onset <= begin + length)
    notes = score.notes.take(kept)
    if len(notes) < MIN_NOTES:
        return None
    return replace(score, notes=replace(notes, onset_ticks=notes.onset_ticks - np.int32(begin)))


def some_bars(score: Score, draw: np.random.Generator, *, count: int) -> Score | None:
    """So many bars of those that the first bar's meter makes, from any place; None where few notes are left."""
    bar_ticks = 4 * score.ticks_per_quarter * int(score.meter_numerator[0]) // int(score.meter_denominator[0])
    bar = score.notes.onset_ticks.astype(np.int64) // bar_ticks
    first = int(draw.integers(0, max(int(bar.max(initial=0)) + 2 - count, 1)))
    notes = score.notes.take((bar >= first) & (bar < first + count))
    if len(notes) < MIN_NOTES:
        return None
    return replace(score, notes=replace(notes, onset_ticks=notes.onset_ticks - np.int32(first * bar_ticks)))


def several(score: Score, draw: np.random.Generator) -> Score:
    """In another key and tempo, stretched, on other instruments and ornamented."""
    for change in (ornamented, transposed, at_another_tempo, stretched, on_another_instrument):
        score = change(score, draw)
    return score


def several_and_cut(score: Score, draw: np.random.Generator) -> Score | None:
    """All of :func:`several`, of half of the piece."""
    held = cut(score, draw, share=0.5)
    return None if held is None else several(held, draw)


KINDS: Mapping[str, Callable[[Score, np.random.Generator], Score | None]] = {
    "transposed": transposed,
    "another tempo": at_another_tempo,
    "doubled or halved values": in_other_note_values,
    "stretched": stretched,
    "another instrument": on_another_instrument,
    "ornamented": ornamented,
    "a voice missing": without_a_voice,
    "half": lambda score, draw: cut(score, draw, share=1 / 2),
    "third": lambda score, draw: cut(score, draw, share=1 / 3),
    "several": several,
    "several, half": several_and_cut,
}
# Drums have neither key nor instrument: what changes keys on them makes another beat.
DRUM_KINDS = tuple(kind for kind in KINDS if kind not in ("transposed", "another instrument"))


def _stretched(score: Score, ratio: float) -> Score:
    def scaled(ticks: NDArray[Any]) -> NDArray[np.int64]:
        return np.asarray(np.rint(ticks * ratio), dtype=np.int64)

    onset = score.notes.onset_ticks.astype(np.int64)
    end = scaled(onset + score.notes.duration_ticks)
    notes = Notes.of(
        onset_ticks=scaled(onset),
        duration_ticks=np.maximum(end - scaled(onset), 1),
        **{name: getattr(score.notes, name) for name in ("pitch", "velocity", "program", "track")},
    )
    return replace(
        score,
        notes=notes.in_order(),
        tempo_ticks=scaled(score.tempo_ticks).astype(np.int32),
        tempo_qpm=score.tempo_qpm * ratio,
        meter_ticks=scaled(score.meter_ticks).astype(np.int32),
    )


def _with(score: Score, **columns: NDArray[np.generic]) -> Score:
    kinds = {name: columns[name].astype(getattr(score.notes, name).dtype) for name in columns}
    return replace(score, notes=replace(score.notes, **kinds).in_order())
