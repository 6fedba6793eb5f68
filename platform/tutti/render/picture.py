"""A score as a piano-roll picture.

Seconds run along the bottom and bars along the top, octaves up the side; a colour is an instrument family, a paler note
a softer one; drums have a lane of their own. Legend: N notes, B bar lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MultipleLocator
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.features.vocabulary import INSTRUMENTS, instrument_of
from tutti.render.synthesis import check_renderable
from tutti.training.style import COLOURS, GRID, INK, QUIET_INK, SHADE, add_axes, new_figure, to_png
from tutti.units import format_seconds, pitch_name

_WIDTH_IN, _HEIGHT_IN = 12.0, 5.4
_LEFT_IN, _RIGHT_IN, _TOP_IN, _BOTTOM_IN = 0.75, 0.2, 1.0, 0.5
_DRUM_ROW_IN = 0.22
_LEAST_PITCHES = 24
_MOST_SHADED_PITCHES = 62
_MOST_BARS, _MOST_BAR_LINES, _MOST_BAR_NUMBERS = 20_000, 48, 17
_MOST_OUTLINED_NOTES = 3000
_PALEST = 0.3
_LEAST_NOTE_WIDTH = 1 / 900
_SECONDS, _MOST_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300), 13
_BLACK_KEYS = (1, 3, 6, 8, 10)

# General MIDI drum keys by the part of the kit, bottom row first.
_DRUM_ROWS: tuple[tuple[str, frozenset[int]], ...] = (
    ("kick", frozenset({35, 36})),
    ("snare", frozenset({31, 37, 38, 39, 40})),
    ("toms", frozenset({41, 43, 45, 47, 48, 50})),
    ("hi-hat", frozenset({42, 44, 46})),
    ("cymbals", frozenset({49, 51, 52, 53, 55, 57, 59})),
)
_OTHER_DRUMS = "percussion"


def piano_roll_png(score: Score, *, title: str = "") -> bytes:
    """Draw a score of any length, 1440 by 648 pixels.

    Args:
        score: at least one note.
        title: written over the picture; left out, the score's own.

    Raises:
        InputError: no notes, or too long.
    """
    check_renderable(score)
    figure = new_figure(_WIDTH_IN, _HEIGHT_IN, title=title or score.title or "", facts=_facts(score))
    drums = score.notes.program == DRUM_PROGRAM
    melodic, kit = score.notes.take(~drums), score.notes.take(drums)
    colours = _colours(score.notes)
    rows = _drum_rows(kit)
    drums_in = (_HEIGHT_IN - _TOP_IN - _BOTTOM_IN if not len(melodic) else _DRUM_ROW_IN * len(rows)) if rows else 0.0
    lanes = []
    if len(melodic):
        gap_in = 0.1 if rows else 0.0
        lanes.append(_lane(figure, bottom_in=_BOTTOM_IN + drums_in + gap_in, top_in=_TOP_IN))
        _draw_pitches(lanes[-1], score, melodic, colours)
    if rows:
        lanes.append(_lane(figure, bottom_in=_BOTTOM_IN, top_in=_HEIGHT_IN - _BOTTOM_IN - drums_in))
        _draw_drums(lanes[-1], score, kit, rows, colours)
    _draw_time(lanes, score)
    _draw_legend(figure, colours)
    return to_png(figure)


def piano_rolls_png(scores: Sequence[Score], *, titles: Sequence[str], title: str = "") -> bytes:
    """Draw scores side by side over one scale of pitches, 1440 by 648 pixels; one without notes is an empty frame.

    Args:
        scores: at least one.
        titles: what is written over each.
        title: written over the picture.

    Raises:
        InputError: none has notes.
    """
    heard = [score for score in scores if len(score.notes)]
    if not heard:
        raise InputError("none of the scores has notes", remedy="give scores with at least one")
    figure = new_figure(_WIDTH_IN, _HEIGHT_IN, title=title, facts=f"{len(scores)} pieces side by side")
    low = min(int(score.notes.pitch.min()) for score in heard) - 2
    high = max(int(score.notes.pitch.max()) for score in heard) + 2
    octaves = [pitch for pitch in range(0, 128, 12) if low <= pitch <= high]
    gap_in, left_in = 0.12, _LEFT_IN
    width_in = (_WIDTH_IN - _LEFT_IN - _RIGHT_IN - gap_in * (len(scores) - 1)) / len(scores)
    for score, told in zip(scores, titles, strict=True):
        right_in = _WIDTH_IN - left_in - width_in
        axes = add_axes(figure, left_in=left_in, bottom_in=_BOTTOM_IN, right_in=right_in, top_in=_TOP_IN)
        axes.set_ylim(low - 0.5, high + 0.5)
        axes.set_yticks(octaves, [pitch_name(pitch) for pitch in octaves] if left_in == _LEFT_IN else [])
        axes.set_title(told, fontsize=9, color=QUIET_INK)
        axes.tick_params(axis="x", labelsize=7.5)
        if len(score.notes):
            axes.set_xlim(0, score.length_s)
            tints = _tints(score.notes, _colours(score.notes))
            _draw_notes(axes, score.notes, *_times_s(score, score.notes), score.notes.pitch.astype(float), tints=tints)
        left_in += width_in + gap_in
    return to_png(figure)


def _facts(score: Score) -> str:
    slowest, fastest = round(float(score.tempo_qpm.min())), round(float(score.tempo_qpm.max()))
    tempo = f"♩ = {slowest}" if slowest == fastest else f"♩ = {slowest} to {fastest}"
    meters = dict.fromkeys(zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True))
    shown = " ".join(f"{above}/{below}" for above, below in list(meters)[:4]) + (" …" if len(meters) > 4 else "")
    return f"{tempo}   ·   {shown}   ·   {format_seconds(score.length_s)}   ·   {len(score.notes):,} notes"


def _colours(notes: Notes) -> dict[str, tuple[float, float, float]]:
    """A colour for each family that plays, in General MIDI's order; drums are ink."""
    families = sorted({instrument_of(program) for program in np.unique(notes.program).tolist()}, key=INSTRUMENTS.index)
    pitched = [family for family in families if family != "drums"]
    colours = {family: to_rgb(COLOURS[place % len(COLOURS)]) for place, family in enumerate(pitched)}
    return colours | ({"drums": to_rgb(INK)} if "drums" in families else {})


def _lane(figure: Figure, *, bottom_in: float, top_in: float) -> Any:
    return add_axes(figure, left_in=_LEFT_IN, bottom_in=bottom_in, right_in=_RIGHT_IN, top_in=top_in)


def _tints(notes: Notes, colours: dict[str, tuple[float, float, float]]) -> NDArray[np.float64]:
    """Colour of each note, towards white as it is softer; shape (N, 3)."""
    of_program = np.ones((DRUM_PROGRAM + 1, 3))
    for program in np.unique(notes.program).tolist():
        of_program[program] = colours[instrument_of(program)]
    strength = (_PALEST + (1 - _PALEST) * notes.velocity / 127)[:, None]
    return np.asarray(1 - strength * (1 - of_program[notes.program]))


def _draw_notes(
    axes: Any, notes: Notes, starts_s: NDArray[Any], ends_s: NDArray[Any], heights: NDArray[Any], *, tints: NDArray[Any]
) -> None:
    """One box a note, soft ones first so that loud ones lie on top."""
    boxes: Any = np.empty((len(notes), 4, 2))
    boxes[:, (0, 1), 0], boxes[:, (2, 3), 0] = starts_s[:, None], ends_s[:, None]
    boxes[:, (0, 3), 1], boxes[:, (1, 2), 1] = (heights - 0.42)[:, None], (heights + 0.42)[:, None]
    order = np.argsort(notes.velocity, kind="stable")
    gap = 0.3 if len(notes) <= _MOST_OUTLINED_NOTES else 0.0
    axes.add_collection(
        PolyCollection(boxes[order], facecolors=tints[order], edgecolors="white", linewidths=gap), autolim=False
    )


def _times_s(score: Score, notes: Notes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends, each note wide enough to be seen."""
    starts_s = score.seconds_at(notes.onset_ticks)
    ends_s = score.seconds_at(notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
    return starts_s, np.maximum(ends_s, starts_s + score.length_s * _LEAST_NOTE_WIDTH)


def _draw_pitches(axes: Any, score: Score, notes: Notes, colours: dict[str, tuple[float, float, float]]) -> None:
    low, high = int(notes.pitch.min()) - 2, int(notes.pitch.max()) + 2
    spare = max(0, _LEAST_PITCHES - (high - low)) // 2
    low, high = low - spare, high + spare
    axes.set_ylim(low - 0.5, high + 0.5)
    if high - low <= _MOST_SHADED_PITCHES:
        for pitch in range(low, high + 1):
            if pitch % 12 in _BLACK_KEYS:
                axes.axhspan(pitch - 0.5, pitch + 0.5, color=SHADE, linewidth=0, zorder=0)
    octaves = [pitch for pitch in range(0, 128, 12) if low <= pitch <= high]
    for pitch in octaves:
        axes.axhline(pitch - 0.5, color=GRID, linewidth=0.8, zorder=0.5)
    axes.set_yticks(octaves, [pitch_name(pitch) for pitch in octaves])
    starts_s, ends_s = _times_s(score, notes)
    _draw_notes(axes, notes, starts_s, ends_s, notes.pitch.astype(float), tints=_tints(notes, colours))


def _drum_rows(kit: Notes) -> list[tuple[str, frozenset[int]]]:
    """Parts of the kit that play, bottom row first."""
    played = frozenset(kit.pitch.tolist())
    rows = [(name, keys & played) for name, keys in _DRUM_ROWS if keys & played]
    other = played.difference(*(keys for _, keys in _DRUM_ROWS))
    return [*rows, (_OTHER_DRUMS, other)] if other else rows


def _draw_drums(
    axes: Any,
    score: Score,
    kit: Notes,
    rows: list[tuple[str, frozenset[int]]],
    colours: dict[str, tuple[float, float, float]],
) -> None:
    row_of_pitch = np.zeros(256)
    for row, (_, keys) in enumerate(rows):
        row_of_pitch[list(keys)] = row
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    for row in range(1, len(rows)):
        axes.axhline(row - 0.5, color=GRID, linewidth=0.5, zorder=0.5)
    starts_s, _ = _times_s(score, kit)
    # A stroke has no length that is heard: all are drawn alike.
    ends_s = starts_s + max(score.length_s * 2 * _LEAST_NOTE_WIDTH, min(0.06, score.length_s / 100))
    _draw_notes(axes, kit, starts_s, ends_s, row_of_pitch[kit.pitch], tints=_tints(kit, colours))


def _bar_ticks(score: Score) -> NDArray[np.int64]:
    """Where bars begin, up to the end of the last note; shape (B,), none where they could not be told apart."""
    starts = score.meter_ticks.astype(np.int64)
    stops = np.append(starts[1:], np.iinfo(np.int64).max)
    bar_ticks = np.maximum(
        score.meter_numerator.astype(np.int64)
        * 4
        * score.ticks_per_quarter
        // np.maximum(score.meter_denominator.astype(np.int64), 1),
        1,
    )
    stops_M = np.minimum(stops, score.end_ticks + 1)
    if ((stops_M - starts) // bar_ticks).sum() > _MOST_BARS:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([np.arange(*span) for span in zip(starts, stops_M, bar_ticks, strict=True)])


def _draw_time(lanes: list[Any], score: Score) -> None:
    """Bar lines in every lane, bar numbers above the first, seconds below the last."""
    bars_s = score.seconds_at(_bar_ticks(score))
    line_every, number_every = (_stride(len(bars_s), most) for most in (_MOST_BAR_LINES, _MOST_BAR_NUMBERS))
    margin_s = score.length_s * 0.004
    for axes in lanes:
        axes.set_xlim(-margin_s, score.length_s + margin_s)
        bottom, top = axes.get_ylim()
        lines = [((x, bottom), (x, top)) for x in bars_s[::line_every].tolist()]
        axes.add_collection(LineCollection(lines, colors=GRID, linewidths=0.6, zorder=0.6), autolim=False)
        axes.tick_params(axis="x", labelbottom=False, length=0)
    numbers = lanes[0].secondary_xaxis("top")
    numbers.set_xticks(bars_s[::number_every], [str(bar + 1) for bar in range(0, len(bars_s), number_every)])
    numbers.tick_params(colors=QUIET_INK, labelsize=7.5, length=0, pad=2)
    numbers.spines["top"].set_visible(False)
    lanes[-1].tick_params(axis="x", labelbottom=True, length=3)
    spacing_s = next((step for step in _SECONDS if score.length_s <= step * _MOST_SECONDS), score.length_s)
    lanes[-1].xaxis.set_major_locator(MultipleLocator(spacing_s))
    lanes[-1].xaxis.set_major_formatter(FuncFormatter(_clock))


def _stride(count: int, most: int) -> int:
    """Smallest power of two that thins ``count`` to at most ``most``."""
    stride = 1
    while count > most * stride:
        stride *= 2
    return stride


def _clock(seconds: float, _position: int) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _draw_legend(figure: Figure, colours: dict[str, tuple[float, float, float]]) -> None:
    handles = [Patch(color=colour, label=family.replace("_", " ")) for family, colour in colours.items()]
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1 - _RIGHT_IN / _WIDTH_IN, 1 - 0.46 / _HEIGHT_IN),
        ncols=min(len(handles), 7),
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        handlelength=1.0,
        handleheight=0.8,
        columnspacing=1.2,
        borderaxespad=0,
    )
