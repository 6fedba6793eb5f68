"""From a file and what is asked of it to what a model reads, what it must say, and what is put back afterwards.

=========== ================================ ================================= =====================================
kind        the model reads                  it composes                       of the file stays
=========== ================================ ================================= =====================================
continue    the file                         new bars                          all
infill      the bars before                  the bars asked, in their meters   all but the notes that begin in them
accompany   nothing                          around the melody                 the melody
harmonise   nothing                          beneath the melody                the melody
vary        nothing                          around the notes that stay        notes that carry the structure
restyle     nothing                          around the melody                 the melody, on another program if asked
=========== ================================ ================================= =====================================

What a request leaves open is told to the model as the file has it. What contradicts the file is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import InputError, RecipeError
from tutti.features.controls import Controls, density_class, length_class, tempo_class
from tutti.features.descriptors import describe_score
from tutti.features.events import Bars, bars_of, encode, on_grid
from tutti.features.grid import METER_TICKS, Grid, nearest_tempo
from tutti.features.mood import mood_word
from tutti.features.vocabulary import BAR, END, EVENTS, INSTRUMENTS, METERS, TICKS_PER_QUARTER, instrument_of
from tutti.generation.controls import Limits, controls_of, limits_of
from tutti.generation.length import bars_of_length, rounds_of_length, seconds_of_bar
from tutti.generation.melody import melody_of, structural
from tutti.generation.planted import MOST_FREE_AT_ONE_POSITION, Planting, no_notes
from tutti.generation.request import MAX_BARS, Request
from tutti.generation.restoring import Ends, Kept, grid_onsets
from tutti.generation.start import PLANTED, Start
from tutti.units import pitch_name

Mask = NDArray[np.bool_]

HELD_OVER_TICKS = TICKS_PER_QUARTER // 2
"""By how much a last note may sound over its bar line before the continuation waits for the next one."""
_UNCHANGED = {
    "infill": ("bars", "length", "tempo", "meter"),
    **dict.fromkeys(PLANTED, ("bars", "length", "meter")),
}
_NOTHING_ASKED = Request()
_COMPASS = 128
_NOTHING_ASKED = Request()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that starts from a file, ready to be composed.

    Args:
        controls: told to the model.
        limits: of what is composed; its ``bars`` are those of the whole piece.
        given: tokens after the controls that the model reads before it composes.
        kept: what is put back.
        planting: what must be said, if anything.
        after: tokens of what follows the composed bars.
        drafts: how many are made, of which one is taken.
        latents: of the bars, of models that have any; shape (bars, Z).
        tempo_qpm: of the whole piece, to the figure; None: as the tokens say it.
    """

    controls: Controls
    limits: Limits
    given: tuple[int, ...]
    kept: Kept | None = None
    planting: Planting | None = None
    after: tuple[int, ...] = ()
    drafts: int = 1
    latents: NDArray[np.float32] | None = None
    tempo_qpm: float | None = None


def prepared(request: Request, score: Score, *, collections: Sequence[str], programs: Sequence[int]) -> Prepared:
    """What is to be read, said and kept; ``continue`` where the request states no kind.

    Args:
        collections: that the model knows.
        programs: that it was trained on.

    Raises:
        InputError: the file has no notes, no melody or not the bars that are asked for.
        RecipeError: the request contradicts the file.
    """
    start = request.start or Start(kind="continue")
    if start.kind == "interpolate":
        raise RecipeError("interpolate needs a model with latents", remedy="use a model of bar_vae")
    if isinstance(score, Ends):
        raise RecipeError(f"{start.kind} starts from one file, and there are two", remedy="leave out one of them")
    if not len(score.notes):
        raise InputError("the file has no notes", remedy="give a file with notes")
    for name in _UNCHANGED.get(start.kind, ()):
        if getattr(request, name) != getattr(_NOTHING_ASKED, name):
            raise RecipeError(f"{start.kind} keeps the file's {name}", remedy=f"leave {name} out")
    file = _File.of(score)
    if start.kind == "continue":
        return _continued(request, file, collections=collections)
    if start.kind == "infill":
        return _filled(request, start, file, collections=collections)
    return _around(request, start, file, collections=collections, programs=programs)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is and as the model reads it."""

    score: Score
    grid: Score
    bars: Bars
    programs: tuple[int, ...] = field(default=())

    @classmethod
    def of(cls, score: Score) -> _File:
        grid = on_grid(score)
        return cls(score, grid, bars_of(grid), tuple(np.unique(grid.notes.program).tolist()))

    def bar_line(self, bar: int) -> int:
        """Tick at which bar ``bar`` (from 0) begins; bars after the last keep its meter."""
        known = len(self.bars.start_ticks)
        if bar < known:
            return int(self.bars.start_ticks[bar])
        return int(self.bars.start_ticks[-1]) + (bar - known + 1) * int(METER_TICKS[self.bars.meter[-1]])

    @property
    def num_bars(self) -> int:
        """Bars until the last note ends; one that only hangs over a bar line begins no new bar."""
        bars = len(self.bars.start_ticks)
        length = int(METER_TICKS[self.bars.meter[-1]])
        over = self.grid.end_ticks - HELD_OVER_TICKS - self.bar_line(bars)
        return bars + max(-(-over // length), 0)

    def body(self) -> list[int]:
        """Its tokens without controls and end."""
        tokens: list[int] = encode(self.grid)[:-1].tolist()
        return tokens[tokens.index(BAR) :]

    def told(self, request: Request, *, collections: Sequence[str], bars: int, whole: bool) -> Controls:
        """Controls: what is asked, and what the file is where nothing is asked.

        Args:
            bars: of the piece.
            whole: whether the file has all parts, and not a melody alone.
        """
        asked, known = controls_of(request, collections=collections), describe_score(self.grid)
        tempo = float(self.grid.tempo_qpm[0]) if request.tempo is None else request.tempo
        told = replace(asked, key=asked.key or known["key"], tempo_class=tempo_class(tempo), length=length_class(bars))
        if not whole:
            return told
        families = {instrument_of(program) for program in self.programs}
        return replace(
            told,
            density=asked.density or density_class(known["notes_per_quarter"]),
            mood=asked.mood or mood_word(known["valence"], known["arousal"]),
            instruments=asked.instruments or tuple(name for name in INSTRUMENTS if name in families),
        )

    def limits(self, request: Request, *, bars: int, programs: Sequence[int]) -> Limits:
        """Limits of what is composed; drum keys of the file are drums."""
        limits = replace(limits_of(request, known_programs=programs), bars=bars)
        if limits.drums.any():
            notes = self.grid.notes
            limits = replace(
                limits, drums=limits.drums | np.isin(np.arange(128), notes.pitch[notes.program == DRUM_PROGRAM])
            )
        return limits


def _continued(request: Request, file: _File, *, collections: Sequence[str]) -> Prepared:
    given, bars = file.body(), file.num_bars
    given += [BAR] * (bars - len(file.bars.start_ticks) + 1)
    seam = file.bar_line(bars)
    last = METERS[file.bars.meter[-1]]
    meter = last if request.meter is None else (int(request.meter.split("/")[0]), int(request.meter.split("/")[1]))
    since = np.flatnonzero(
        file.score.tempo_ticks.astype(np.int64) * TICKS_PER_QUARTER <= seam * file.score.ticks_per_quarter
    )
    held_qpm = float(file.score.tempo_qpm[since[-1]])
    tempo = held_qpm if request.tempo is None else request.tempo
    if meter != last:
        given.append(EVENTS[f"Meter_{meter[0]}/{meter[1]}"])
    if tempo != held_qpm:
        given += [EVENTS["Position_0"], EVENTS.first("Tempo") + int(nearest_tempo(np.array([tempo]))[0])]
    more = _more_bars(request, tempo_qpm=tempo, meter=meter)
    limits = file.limits(request, bars=bars + more, programs=file.programs)
    if limits.harmony is not None:
        if not limits.programs.any():
            raise RecipeError("the file has drums alone, and nobody plays the chords", remedy="name instruments too")
        limits = replace(limits, harmony=replace(limits.harmony, bars=more))
    return Prepared(
        controls=file.told(request, collections=collections, bars=bars + more, whole=True),
        limits=limits,
        given=tuple(given),
        kept=Kept(
            file.score,
            np.ones(len(file.score.notes), dtype=bool),
            begin_ticks=seam,
            end_ticks=None,
            planted=no_notes(),
            new_tempo=(seam, tempo) if tempo != held_qpm else None,
            new_meter=(seam, *meter) if _needs_meter(file.score, seam, meter) else None,
            marks_until=seam,
        ),
    )


def _more_bars(request: Request, *, tempo_qpm: float, meter: tuple[int, int]) -> int:
    """Bars after a file that is in a tempo and meter."""
    if request.progression is None or request.length is None or request.bars is not None:
        return request.extent[0] or bars_of_length(request.length_s, tempo_qpm=tempo_qpm, meter=meter)
    bars = len(request.progression)
    quarters = bars * seconds_of_bar(meter, tempo_qpm=60.0)
    return bars * rounds_of_length(request.length_s, round_quarters=quarters, tempo_qpm=tempo_qpm)[0]


def _needs_meter(score: Score, seam: int, meter: tuple[int, int]) -> bool:
    """Whether a file's own meters do not say what holds from a bar line of the grid on."""
    begin = score.meter_ticks.astype(np.int64) * TICKS_PER_QUARTER
    last = int(np.flatnonzero(begin <= seam * score.ticks_per_quarter)[-1])
    if (int(score.meter_numerator[last]), int(score.meter_denominator[last])) != meter:
        return True
    since = seam * score.ticks_per_quarter - int(begin[last])
    return since % (4 * meter[0] * TICKS_PER_QUARTER * score.ticks_per_quarter // meter[1]) != 0


def _filled(request: Request, start: Start, file: _File, *, collections: Sequence[str]) -> Prepared:
    first, last = start.span
    there = len(file.bars.start_ticks)
    if last >= there:
        raise InputError(f"bars {start.bars} are not all in the file", remedy=f"it has {there} bars with notes")
    tokens = file.body()
    at = [index for index, token in enumerate(tokens) if token == BAR] + [len(tokens)]
    limits = file.limits(request, bars=last + 1, programs=file.programs)
    if last + 1 < there:
        # The piece goes on: its end is not here.
        limits = replace(limits, home=limits.pitches)
    if first == 0:
        limits = replace(
            limits,
            meter=int(file.bars.meter[0]),
            tempo=int(nearest_tempo(np.array([file.grid.tempo_qpm[0]]))[0]),
        )
    begin, end = file.bar_line(first), file.bar_line(last + 1)
    onsets = grid_onsets(file.score)
    return Prepared(
        controls=file.told(request, collections=collections, bars=there, whole=True),
        limits=limits,
        given=tuple(tokens[: at[first] + 1]) if first else (),
        kept=Kept(
            file.score,
            (onsets < begin) | (onsets >= end),
            begin_ticks=begin,
            end_ticks=end,
            planted=no_notes(),
        ),
        planting=Planting(
            file.bars.meter[: last + 1], file.bars.start_ticks[: last + 1], no_notes(), drums=bool(limits.drums.any())
        ),
        after=tuple(tokens[at[last + 1] :]),
        drafts=start.num_drafts,
    )


def _around(
    request: Request, start: Start, file: _File, *, collections: Sequence[str], programs: Sequence[int]
) -> Prepared:
    bars = len(file.bars.start_ticks)
    if bars > MAX_BARS:
        raise InputError(f"a file of {bars} bars is longer than {MAX_BARS}", remedy="give a part of it")
    varies = start.kind == "vary"
    limits = file.limits(request, bars=bars, programs=file.programs if varies else programs)
    if varies:
        kept = structural(file.score, share=1 - start.share_anew, seed=request.seed) & _fits(file.score, limits)
        source = file.score
    else:
        kept = melody_of(file.score, start.melody)
        source = _recast(file.score, kept, request, limits) if start.kind == "restyle" else file.score
        _refuse_contradictions(request, source, kept, limits)
    if start.kind == "restyle":
        _refuse_no_style(request)
    tempo = float(file.grid.tempo_qpm[0]) if request.tempo is None else request.tempo
    planting = _planting(start, file, source, kept, limits, named=bool(request.instruments))
    meter = METERS[file.bars.meter[0]]
    given = (
        BAR,
        EVENTS[f"Meter_{meter[0]}/{meter[1]}"],
        EVENTS["Position_0"],
        EVENTS.first("Tempo") + int(nearest_tempo(np.array([tempo]))[0]),
    )
    return Prepared(
        controls=file.told(request, collections=collections, bars=bars, whole=varies),
        limits=limits,
        given=given,
        kept=Kept(source, kept, begin_ticks=0, end_ticks=None, planted=planting.notes, tempo_qpm=request.tempo),
        planting=planting,
        drafts=start.num_drafts,
    )


def _planting(start: Start, file: _File, source: Score, kept: Mask, limits: Limits, *, named: bool) -> Planting:
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
        # Who names several instruments means that the melody has its own.
        others = start.kind != "harmonise" and named and bool((limits.programs & ~own).any() or limits.drums.any())
        if not others:
            own &= ~limits.programs
            ceilings = _ceilings(source, kept)
    _, together = np.unique(notes.time_ticks, return_counts=True)
    most_planted = int(together.max(initial=0))

    def room(below: int) -> int:
        return int((limits.home & limits.pitches)[:below].sum()) - most_planted - 1

    # Where the melody lies too low to leave room beneath it, nothing is asked of the others.
    ceilings = tuple(
        (tick, pitch if room(pitch) >= MOST_FREE_AT_ONE_POSITION else _COMPASS) for tick, pitch in ceilings
    )
    most_free = min(MOST_FREE_AT_ONE_POSITION, room(_COMPASS)) if limits.programs.any() else MOST_FREE_AT_ONE_POSITION
    if most_free < 1:
        raise RecipeError("the pitches asked leave no room beside the notes that stay", remedy="ask for a wider range")
    return Planting(
        file.bars.meter,
        file.bars.start_ticks,
        notes,
        own_programs=own,
        drums=bool(limits.drums.any()),
        ceilings=ceilings,
        most_free=most_free,
    )


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
    return np.asarray(np.where(drum, limits.drums[notes.pitch], limits.pitches[notes.pitch] & limits.programs[program]))


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


def closing(tokens: Sequence[int], after: Sequence[int]) -> list[int]:
    """A filled-in sequence with the bars that follow, from its controls to its end."""
    body = list(tokens[:-1]) if tokens and tokens[-1] == END else list(tokens)
    return [*body, *after, END] if after else list(tokens)
