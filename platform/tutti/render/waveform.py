"""Sound as a picture: the largest and the mean swing of each moment, left above right, over its time.

Legend: S samples, C channels, W columns of pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.errors import InputError
from tutti.render.canvas import COLOURS, GRID, QUIET_INK, Canvas, tint
from tutti.render.picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Lane, draw_seconds
from tutti.units import format_seconds

_GAP = 14
_LINES_DB = (-6.0, -12.0)


def waveform_png(audio_SC: NDArray[np.float32], *, sample_rate_hz: int, title: str = "", facts: str = "") -> bytes:
    """Draw sound of any length, 1440 by 648 pixels: a pale band up to the peaks, a strong one to the mean level.

    Args:
        audio_SC: within -1 to 1, one or two channels.
        sample_rate_hz: its rate.
        title: written over the picture.
        facts: written under the title, after the length.

    Raises:
        InputError: no samples.
    """
    if not len(audio_SC):
        raise InputError("there is no sound to draw", remedy="give at least one sample")
    length_s = len(audio_SC) / sample_rate_hz
    told = "   ·   ".join(filter(None, (format_seconds(length_s), facts)))
    canvas = Canvas(WIDTH, HEIGHT, title=title, facts=told)
    channels = audio_SC.shape[1]
    height = (HEIGHT - TOP - BOTTOM - _GAP * (channels - 1)) / channels
    for channel in range(channels):
        top = TOP + channel * (height + _GAP)
        lane = Lane(canvas, LEFT, top, WIDTH - RIGHT, top + height, 0.0, length_s, -1.0, 1.0)
        _draw_levels(lane)
        _draw_channel(lane, audio_SC[:, channel])
        name = ("left", "right")[channel] if channels == 2 else "mono"
        canvas.words(LEFT - 8, lane.y(0), name, size=13, colour=QUIET_INK, anchor="rm")
        canvas.frame(lane.left, lane.top, lane.right, lane.bottom)
    draw_seconds(lane, length_s)
    return canvas.png()


def _draw_levels(lane: Lane) -> None:
    for level_db in _LINES_DB:
        swing = 10 ** (level_db / 20)
        for height in (swing, -swing):
            lane.canvas.line((lane.left, lane.y(height)), (lane.right, lane.y(height)), colour=GRID)
        label = f"{level_db:g} dB"
        lane.canvas.words(lane.left - 8, lane.y(swing), label, size=11, colour=QUIET_INK, anchor="rm")


def _draw_channel(lane: Lane, sound_S: NDArray[np.float32]) -> None:
    columns = min(round(lane.right - lane.left), len(sound_S))
    starts_W = np.linspace(0, len(sound_S), columns, endpoint=False).astype(np.int64)
    lengths_W = np.diff(starts_W, append=len(sound_S))
    high_W, low_W = np.maximum.reduceat(sound_S, starts_W), np.minimum.reduceat(sound_S, starts_W)
    mean_W = np.sqrt(np.add.reduceat(np.square(sound_S), starts_W) / lengths_W)
    edges_W = lane.x(np.append(starts_W, len(sound_S)) / len(sound_S) * lane.to_s)
    for above_W, below_W, colour in (
        (high_W, low_W, tint(COLOURS[0], 0.45)),
        (np.minimum(mean_W, high_W), np.maximum(-mean_W, low_W), tint(COLOURS[0], 1.0)),
    ):
        boxes_W = np.stack((edges_W[:-1], lane.y(above_W), edges_W[1:], lane.y(below_W)), axis=1)
        lane.canvas.boxes(boxes_W.tolist(), [colour] * columns)
