"""New bars of a file: after its end, or in place of some of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tutti.corpus.score import Score
from tutti.errors import InputError, RecipeError
from tutti.features.grid import nearest_tempo
from tutti.features.vocabulary import BAR, EVENTS, METERS, TICKS_PER_QUARTER
from tutti.generation.length import bars_of_length, rounds_of_length, seconds_of_bar
from tutti.generation.planting import Planting, every_pitch, full_ranges, no_notes
from tutti.generation.prepared import Prepared
from tutti.generation.request import Request
from tutti.generation.restoring import Kept, grid_onsets
from tutti.generation.source import Source, refuse_full, unbound
from tutti.generation.start import Start


def continued(request: Request, file: Source, *, collections: Sequence[str]) -> Prepared:
    """New bars after a file, from the bar line after its last note on."""
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
            polyphony=limits.polyphony,
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


def filled(request: Request, start: Start, file: Source, *, collections: Sequence[str]) -> Prepared:
    """Bars of a file anew.

    Raises:
        InputError: the file has not these bars.
        RecipeError: what hangs into them leaves no voice for a chord, or the chords do not fill them.
    """
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
    kept = (onsets < begin) | (onsets >= end)
    harmony = file.harmony(request, first=first, bars=last + 1 - first)
    kept_onsets, kept_ends = file.sounding(kept)
    planting = Planting(
        file.bars.meter[: last + 1],
        file.bars.start_ticks[: last + 1],
        no_notes(),
        programs=limits.programs,
        drums=bool(limits.drums.any()),
        pitches=every_pitch() if harmony else limits.home & limits.pitches,
        ranges=full_ranges() if limits.ranges is None else limits.ranges,
        polyphony=limits.polyphony,
        kept_onsets=kept_onsets,
        kept_ends=kept_ends,
        spans=None if harmony is None else harmony.spans(METERS[file.bars.meter[first]], before=limits.pitches),
        begin_ticks=begin,
    )
    refuse_full(planting, harmony)
    return Prepared(
        controls=file.told(request, collections=collections, bars=there, whole=True),
        limits=unbound(limits, chords=harmony is not None),
        given=tuple(tokens[: at[first] + 1]) if first else (),
        kept=Kept(
            file.score,
            kept,
            begin_ticks=begin,
            end_ticks=end,
            planted=no_notes(),
            polyphony=limits.polyphony,
        ),
        planting=planting,
        harmony=harmony,
        after=tuple(tokens[at[last + 1] :]),
        drafts=start.num_drafts,
    )
