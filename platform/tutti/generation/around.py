"""What is composed around notes of a file that stay: its melody, or those that carry its structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import InputError, RecipeError
from tutti.features.events import on_grid
from tutti.features.grid import Grid, nearest_tempo
from tutti.features.vocabulary import BAR, EVENTS, INSTRUMENTS, METERS, instrument_of
from tutti.generation.controls import Limits
from tutti.generation.harmony import Harmony
from tutti.generation.melody import melody_of, structural
from tutti.generation.planting import Planting, every_pitch, full_ranges
from tutti.generation.prepared import Prepared
from tutti.generation.request import MAX_BARS, Request
from tutti.generation.restoring import Kept, grid_onsets
from tutti.generation.source import Source, refuse_full, unbound
from tutti.generation.start import Start
from tutti.units import pitch_name

Mask = NDArray[np.bool_]


def around(
    request: Request, start: Start, file: Source, *, collections: Sequence[str], programs: Sequence[int]
) -> Prepared:
    """What plays around the notes that a request keeps.

    Args:
        programs: that the model was trained on.

    Raises:
        InputError: the file has no melody, or too many bars.
        RecipeError: the request contradicts the file.
    """
    bars = len(file.bars.start_ticks)
    if bars > MAX_BARS:
        raise InputError(f"a file of {bars} bars is longer than {MAX_BARS}", remedy="give a part of it")
    varies = start.kind == "vary"
    limits = file.limits(request, bars=bars, programs=file.programs if varies else programs)
    harmony = file.harmony(request, bars=bars)
    if varies:
        source, kept = file.score, _structure(request, start, file, limits, harmony)
    else:
        kept = melody_of(file.score, start.melody)
        source = _recast(file.score, kept, request, limits) if start.kind == "restyle" else file.score
        _refuse_contradictions(request, source, kept, limits)
    if start.kind == "restyle":
        _refuse_no_style(request)
    tempo = float(file.grid.tempo_qpm[0]) if request.tempo is None else request.tempo
    planting = _planting(start, file, source, kept, limits, harmony, named=bool(request.instruments))
    refuse_full(planting, harmony)
    meter = METERS[file.bars.meter[0]]
    given = (
        BAR,
        EVENTS[f"Meter_{meter[0]}/{meter[1]}"],
        EVENTS["Position_0"],
        EVENTS.first("Tempo") + int(nearest_tempo(np.array([tempo]))[0]),
    )
    return Prepared(
        controls=file.told(request, collections=collections, bars=bars, whole=varies),
        limits=unbound(limits, chords=harmony is not None),
        given=given,
        kept=Kept(
            source,
            kept,
            begin_ticks=0,
            end_ticks=None,
            planted=planting.notes,
            tempo_qpm=request.tempo,
            polyphony=limits.polyphony,
        ),
        planting=planting,
        drafts=start.num_drafts,
        harmony=harmony,
    )


def _structure(request: Request, start: Start, file: Source, limits: Limits, harmony: Harmony | None) -> Mask:
    """Which notes a variation keeps: the share asked, of them those that keep what is asked; shape (N,)."""
    kept = structural(file.score, share=1 - start.share_anew, seed=request.seed) & _fits(file.score, limits)
    if harmony is not None:
        kept &= _within_chords(file, harmony)
    return kept if limits.polyphony is None else _thinned(file, kept, most=limits.polyphony - 1)


def _planting(
    start: Start, file: Source, source: Score, kept: Mask, limits: Limits, harmony: Harmony | None, *, named: bool
) -> Planting:
    """What must be said of the notes that stay, and how free the others are.

    Args:
        named: whether instruments are asked for.
    """
    only = replace(source, notes=source.notes.take(kept))
    notes = Grid.of(ScoreBatch.of([only])).notes
    own = np.zeros(128, dtype=bool)
    ceilings: tuple[tuple[int, int], ...] = ()
    if start.kind != "vary":
        own[notes.program[notes.program != DRUM_PROGRAM]] = True
        # Who names several instruments means that the melody has its own; but chords want one that has pitches.
        drums_do = harmony is None and bool(limits.drums.any())
        others = start.kind != "harmonise" and named and (bool((limits.programs & ~own).any()) or drums_do)
        if not others:
            own &= ~limits.programs
            ceilings = _ceilings(source, kept)
    onsets, ends = file.sounding(kept)
    planting = Planting(
        file.bars.meter,
        file.bars.start_ticks,
        notes,
        own_programs=own,
        programs=limits.programs & ~own,
        drums=bool(limits.drums.any()),
        ceilings=ceilings,
        pitches=every_pitch() if harmony else limits.home & limits.pitches,
        ranges=full_ranges() if limits.ranges is None else limits.ranges,
        polyphony=limits.polyphony,
        kept_onsets=onsets,
        kept_ends=ends,
        spans=None if harmony is None else harmony.spans(harmony.meters[0], before=every_pitch()),
        keeps_bass=start.kind == "vary",
    )
    _, together = np.unique(notes.time_ticks[notes.program != DRUM_PROGRAM], return_counts=True)
    sets = (planting.pitches,) if planting.spans is None else tuple(planting.spans.masks[planting.spans.begin])
    least = int(together.max(initial=0)) + 1
    if planting.programs.any() and any(planting.top_program(each, least=least) < 0 for each in sets):
        raise RecipeError("the pitches asked leave no room beside the notes that stay", remedy="ask for a wider range")
    return planting


def _ceilings(source: Score, kept: Mask) -> tuple[tuple[int, int], ...]:
    """From which tick on others lie below which pitch: below the lowest note of the melody that sounds, or did last."""
    only = on_grid(replace(source, notes=source.notes.take(kept)))
    notes = only.notes
    onsets = np.unique(notes.onset_ticks).tolist()
    found = [(onset, int(notes.pitch[notes.onset_ticks == onset].min())) for onset in onsets]
    return ((0, found[0][1]), *found) if found and found[0][0] > 0 else tuple(found)


def _fits(score: Score, limits: Limits) -> Mask:
    """Notes that keep the limits; shape (N,)."""
    notes = score.notes
    drum = notes.program == DRUM_PROGRAM
    program = np.minimum(notes.program, 127)
    plays = limits.pitches[notes.pitch] & limits.programs[program] & _in_range(score, limits)
    return np.asarray(np.where(drum, limits.drums[notes.pitch], plays))


def _in_range(score: Score, limits: Limits) -> Mask:
    """Notes within the range of their instrument, percussion always; shape (N,)."""
    notes = score.notes
    ranges = full_ranges() if limits.ranges is None else limits.ranges
    low, high = ranges[np.minimum(notes.program, 127)].T
    return np.asarray((notes.program == DRUM_PROGRAM) | ((low <= notes.pitch) & (notes.pitch <= high)))


def _within_chords(file: Source, harmony: Harmony) -> Mask:
    """Notes that the chords allow where they begin, and for as long as they sound; percussion always; shape (N,)."""
    notes, onset = file.score.notes, grid_onsets(file.score)
    end = file.end_ticks
    spans = harmony.spans(harmony.meters[0], before=every_pitch())
    span = np.searchsorted(spans.start_ticks, onset, side="right") - 1
    inside = spans.masks[spans.begin[span], notes.pitch]
    inside &= end <= spans.released(onset, pitch=notes.pitch, program=notes.program)
    return np.asarray(inside | (notes.program == DRUM_PROGRAM))


def _thinned(file: Source, kept: Mask, *, most: int) -> Mask:
    """Of the notes that stay so many, the earlier and then the longer first, that ``most`` sound at once."""
    notes, stays, until = file.score.notes, np.zeros(len(kept), dtype=bool), np.zeros(0, dtype=np.int64)
    ends = notes.onset_ticks.astype(np.int64) + notes.duration_ticks
    for note in np.lexsort((-ends, notes.onset_ticks)).tolist():
        until = until[until > notes.onset_ticks[note]]
        if kept[note] and len(until) < most:
            stays[note], until = True, np.append(until, ends[note])
    return stays


def _recast(score: Score, kept: Mask, request: Request, limits: Limits) -> Score:
    """The melody on a program of the instruments that are asked for, where its own is none of them."""
    if not request.instruments or not limits.programs.any():
        return score
    program = score.notes.program.copy()
    first = next(name for name in request.instruments if name != INSTRUMENTS[-1])
    ours = [number for number in np.flatnonzero(limits.programs).tolist() if instrument_of(number) == first]
    foreign = kept & np.array([instrument_of(int(each)) not in request.instruments for each in program])
    program[foreign] = ours[0]
    return replace(score, notes=replace(score.notes, program=program))


def _refuse_contradictions(request: Request, score: Score, kept: Mask, limits: Limits) -> None:
    notes = score.notes.take(kept)
    families = sorted({instrument_of(int(program)) for program in notes.program})
    if request.instruments and not set(families) <= set(request.instruments):
        raise RecipeError(
            f"the melody is played by {', '.join(families)}, and only {', '.join(request.instruments)} may play",
            remedy=f"add {families[0]}, or restyle the file",
        )
    far = notes.take(~_in_range(score, limits)[kept])
    if len(far):
        raise RecipeError(
            f"{len(far)} of {len(notes)} notes of the melody are outside the range of its instrument, such as "
            f"{pitch_name(int(far.pitch[0]))}",
            remedy="widen the pitch range, or restyle the file",
        )
    outside = notes.pitch[~limits.pitches[notes.pitch]].tolist()
    if outside:
        key = request.tonality
        in_key = key is None or all(pitch % 12 in key.pitch_classes for pitch in outside)
        what = "the pitch range" if in_key else f"key {request.key}"
        raise RecipeError(
            f"{len(outside)} of {len(notes)} notes of the melody are outside {what}, such as {pitch_name(outside[0])}",
            remedy="ask for another one, or leave it out",
        )


def _refuse_no_style(request: Request) -> None:
    if not any((request.mood, request.collection, request.density, request.instruments, request.tempo, request.key)):
        raise RecipeError(
            "restyle says nothing of the manner", remedy="ask for a mood, collection, density, tempo or instruments"
        )
