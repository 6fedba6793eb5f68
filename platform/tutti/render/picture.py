"""A score as a piano-roll picture.

Seconds run along the bottom and bars along the top, octaves up the side; a colour is an instrument family, a paler note
a softer one; drums have a lane of their own. Legend: N notes, B bar lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.features.vocabulary import INSTRUMENTS, instrument_of
from tutti.render.canvas import COLOURS, INK, QUIET_INK, SHADE, Canvas, clock, stride, tint
from tutti.render.synthesis import check_renderable
from tutti.units import format_seconds, pitch_name

WIDTH, HEIGHT = 1440, 648
LEFT, RIGHT, TOP, BOTTOM = 90, 24, 120, 60
_DRUM_ROW = 26
_LANE_GAP, _SCORE_GAP = 12, 14
_LEAST_PITCHES = 24
_MOST_SHADED_PITCHES = 62
_MOST_BARS, _MOST_BAR_LINES, _MOST_BAR_NUMBERS = 20_000, 48, 17
_PALEST = 0.3
_LEAST_NOTE_WIDTH = 1 / 900
_SECONDS, _MOST_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300), 13
_BLACK_KEYS = (1, 3, 6, 8, 10)
_LABEL, _SMALL_LABEL = 14, 12

# General MIDI drum keys by the part of the kit, bottom row first.
_DRUM_ROWS: tuple[tuple[str, frozenset[int]], ...] = (
    ("kick", frozenset({35, 36})),
    ("snare", frozenset({31, 37, 38, 39, 40})),
    ("toms", frozenset({41, 43, 45, 47, 48, 50})),
    ("hi-hat", frozenset({42, 44, 46})),
    ("cymbals", frozenset({49, 51, 52, 53, 55, 57, 59})),
)
_OTHER_DRUMS = "percussion"


@dataclass(frozen=True, slots=True)
class Lane:
    """A box of the canvas in units of its own: seconds from left to right, heights from bottom to top."""

    canvas: Canvas
    left: float
    top: float
    right: float
    bottom: float
    from_s: float
    to_s: float
    low: float
    high: float

    def x(self, seconds: Any) -> Any:
        """Pixels of a time."""
        return self.left + (seconds - self.from_s) * ((self.right - self.left) / (self.to_s - self.from_s))

    def y(self, height: Any) -> Any:
        """Pixels of a height."""
        return self.bottom - (height - self.low) * ((self.bottom - self.top) / (self.high - self.low))


def piano_roll_png(score: Score, *, title: str = "") -> bytes:
    """Draw a score of any length, 1440 by 648 pixels.

    Args:
        score: at least one note.
        title: written over the picture; left out, the score's own.

    Raises:
        InputError: no notes, or too long.
    """
    check_renderable(score)
    canvas = Canvas(WIDTH, HEIGHT, title=title or score.title or "", facts=_facts(score))
    drums = score.notes.program == DRUM_PROGRAM
    melodic, kit = score.notes.take(~drums), score.notes.take(drums)
    colours = _colours(score.notes)
    rows = _drum_rows(kit)
    drums_height = (HEIGHT - TOP - BOTTOM if not len(melodic) else _DRUM_ROW * len(rows)) if rows else 0
    margin_s = score.length_s * 0.004
    span_s = (-margin_s, score.length_s + margin_s)
    lanes = []
    if len(melodic):
        low, high = int(melodic.pitch.min()) - 2, int(melodic.pitch.max()) + 2
        spare = max(0, _LEAST_PITCHES - (high - low)) // 2
        bottom = HEIGHT - BOTTOM - drums_height - (_LANE_GAP if rows else 0)
        lanes.append(Lane(canvas, LEFT, TOP, WIDTH - RIGHT, bottom, *span_s, low - spare - 0.5, high + spare + 0.5))
    if rows:
        bottom = HEIGHT - BOTTOM
        lanes.append(Lane(canvas, LEFT, bottom - drums_height, WIDTH - RIGHT, bottom, *span_s, -0.5, len(rows) - 0.5))
    if len(melodic):
        _draw_keys(lanes[0])
    _draw_bars(lanes, score)
    draw_seconds(lanes[-1], score.length_s)
    if len(melodic):
        _draw_notes(lanes[0], melodic, *_times_s(score, melodic), melodic.pitch.astype(float), colours)
    if rows:
        _draw_drums(lanes[-1], score, kit, rows, colours)
    for lane in lanes:
        canvas.frame(lane.left, lane.top, lane.right, lane.bottom)
    _draw_legend(canvas, colours)
    return canvas.png()


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
    canvas = Canvas(WIDTH, HEIGHT, title=title, facts=f"{len(scores)} pieces side by side")
    low = min(int(score.notes.pitch.min()) for score in heard) - 2.5
    high = max(int(score.notes.pitch.max()) for score in heard) + 2.5
    width = (WIDTH - LEFT - RIGHT - _SCORE_GAP * (len(scores) - 1)) / len(scores)
    for place, (score, told) in enumerate(zip(scores, titles, strict=True)):
        left = LEFT + place * (width + _SCORE_GAP)
        lane = Lane(canvas, left, TOP, left + width, HEIGHT - BOTTOM, 0, score.length_s or 1.0, low, high)
        canvas.words(left + width / 2, TOP - 14, told, size=15, colour=QUIET_INK, anchor="mm")
        if not place:
            _draw_octaves(lane)
        if len(score.notes):
            canvas.words(left, HEIGHT - BOTTOM + 14, clock(0), size=_SMALL_LABEL, colour=QUIET_INK)
            ends = clock(round(score.length_s, 1))
            canvas.words(left + width, HEIGHT - BOTTOM + 14, ends, size=_SMALL_LABEL, colour=QUIET_INK, anchor="rm")
            times_s = _times_s(score, score.notes)
            _draw_notes(lane, score.notes, *times_s, score.notes.pitch.astype(float), _colours(score.notes))
        canvas.frame(lane.left, lane.top, lane.right, lane.bottom)
    return canvas.png()


def _facts(score: Score) -> str:
    slowest, fastest = round(float(score.tempo_qpm.min())), round(float(score.tempo_qpm.max()))
    tempo = f"♩ = {slowest}" if slowest == fastest else f"♩ = {slowest} to {fastest}"
    meters = dict.fromkeys(zip(score.meter_numerator.tolist(), score.meter_denominator.tolist(), strict=True))
    shown = " ".join(f"{above}/{below}" for above, below in list(meters)[:4]) + (" …" if len(meters) > 4 else "")
    return f"{tempo}   ·   {shown}   ·   {format_seconds(score.length_s)}   ·   {len(score.notes):,} notes"


def _colours(notes: Notes) -> dict[str, str]:
    """A colour for each family that plays, in General MIDI's order; drums are ink."""
    families = sorted({instrument_of(program) for program in np.unique(notes.program).tolist()}, key=INSTRUMENTS.index)
    pitched = [family for family in families if family != "drums"]
    colours = {family: COLOURS[place % len(COLOURS)] for place, family in enumerate(pitched)}
    return colours | ({"drums": INK} if "drums" in families else {})


def _draw_notes(
    lane: Lane,
    notes: Notes,
    starts_s: NDArray[Any],
    ends_s: NDArray[Any],
    heights: NDArray[Any],
    colours: dict[str, str],
) -> None:
    """One box a note, soft ones first so that loud ones lie on top; a pixel between one and the next."""
    left_N, right_N = lane.x(starts_s), lane.x(ends_s)
    right_N = np.where(right_N - left_N > 3, right_N - 1, right_N)
    boxes_N = np.stack((left_N, lane.y(heights + 0.42), right_N, lane.y(heights - 0.42)), axis=1)
    order = np.argsort(notes.velocity, kind="stable")
    tints = {
        (program, velocity): tint(colours[instrument_of(program)], _PALEST + (1 - _PALEST) * velocity / 127)
        for program, velocity in np.unique(np.stack((notes.program, notes.velocity), axis=1), axis=0).tolist()
    }
    played = zip(notes.program[order].tolist(), notes.velocity[order].tolist(), strict=True)
    lane.canvas.boxes(boxes_N[order].tolist(), (tints[key] for key in played))


def _times_s(score: Score, notes: Notes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and ends, each note wide enough to be seen."""
    starts_s = score.seconds_at(notes.onset_ticks)
    ends_s = score.seconds_at(notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
    return starts_s, np.maximum(ends_s, starts_s + score.length_s * _LEAST_NOTE_WIDTH)


def _draw_keys(lane: Lane) -> None:
    """Black keys shaded, octaves lined and named."""
    low, high = round(lane.low + 0.5), round(lane.high - 0.5)
    if high - low <= _MOST_SHADED_PITCHES:
        shaded = [pitch for pitch in range(low, high + 1) if pitch % 12 in _BLACK_KEYS]
        boxes = [(lane.left, lane.y(pitch + 0.5), lane.right, lane.y(pitch - 0.5)) for pitch in shaded]
        lane.canvas.boxes(boxes, [SHADE] * len(boxes))
    _draw_octaves(lane)


def _draw_octaves(lane: Lane) -> None:
    for pitch in range(0, 128, 12):
        if lane.low < pitch < lane.high:
            edge = lane.y(pitch - 0.5)
            lane.canvas.line((lane.left, edge), (lane.right, edge))
            lane.canvas.words(
                lane.left - 8, lane.y(pitch), pitch_name(pitch), size=_LABEL, colour=QUIET_INK, anchor="rm"
            )


def _drum_rows(kit: Notes) -> list[tuple[str, frozenset[int]]]:
    """Parts of the kit that play, bottom row first."""
    played = frozenset(kit.pitch.tolist())
    rows = [(name, keys & played) for name, keys in _DRUM_ROWS if keys & played]
    other = played.difference(*(keys for _, keys in _DRUM_ROWS))
    return [*rows, (_OTHER_DRUMS, other)] if other else rows


def _draw_drums(
    lane: Lane, score: Score, kit: Notes, rows: list[tuple[str, frozenset[int]]], colours: dict[str, str]
) -> None:
    row_of_pitch = np.zeros(256)
    for row, (name, keys) in enumerate(rows):
        row_of_pitch[list(keys)] = row
        lane.canvas.words(lane.left - 8, lane.y(row), name, size=_SMALL_LABEL, colour=QUIET_INK, anchor="rm")
        if row:
            lane.canvas.line((lane.left, lane.y(row - 0.5)), (lane.right, lane.y(row - 0.5)))
    starts_s, _ = _times_s(score, kit)
    # A stroke has no length that is heard: all are drawn alike.
    ends_s = starts_s + max(score.length_s * 2 * _LEAST_NOTE_WIDTH, min(0.06, score.length_s / 100))
    _draw_notes(lane, kit, starts_s, ends_s, row_of_pitch[kit.pitch], colours)


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


def _draw_bars(lanes: list[Lane], score: Score) -> None:
    """Bar lines in every lane, bar numbers above the first."""
    bars_s = score.seconds_at(_bar_ticks(score))
    line_every, number_every = (stride(len(bars_s), most) for most in (_MOST_BAR_LINES, _MOST_BAR_NUMBERS))
    for lane in lanes:
        for x in lane.x(bars_s[::line_every]).tolist():
            lane.canvas.line((x, lane.top), (x, lane.bottom))
    first = lanes[0]
    for bar, x in zip(range(0, len(bars_s), number_every), first.x(bars_s[::number_every]).tolist(), strict=True):
        if x <= first.right:
            first.canvas.words(x, first.top - 9, str(bar + 1), size=_SMALL_LABEL, colour=QUIET_INK, anchor="mm")


def draw_seconds(lane: Lane, length_s: float) -> None:
    """Times below a lane."""
    spacing_s = next((step for step in _SECONDS if length_s <= step * _MOST_SECONDS), length_s)
    for number in range(int(lane.to_s / spacing_s) + 1):
        x = lane.x(number * spacing_s)
        lane.canvas.line((x, lane.bottom), (x, lane.bottom + 4), colour=QUIET_INK)
        told = clock(round(number * spacing_s, 3))
        lane.canvas.words(x, lane.bottom + 15, told, size=_LABEL, colour=QUIET_INK, anchor="mm")


def _draw_legend(canvas: Canvas, colours: dict[str, str]) -> None:
    """Families and their colours from the right edge, under the title; in as many lines as it takes."""
    x, y = LEFT - 30.0, 92.0
    names = [(family.replace("_", " "), colour) for family, colour in colours.items()]
    for name, colour in names:
        canvas.boxes([(x, y - 5, x + 12, y + 5)], [colour])
        x = canvas.words(x + 18, y, name, size=_LABEL - 1, colour=INK) + 18
