"""Equalisers by name: a few filters each, with what they are for.

Filters are the second-order ones of R. Bristow-Johnson's *Cookbook formulae for audio equalizer biquad filter
coefficients*. Legend: S samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from tutti.render.sound import EqualiserName

_SHELF_SLOPE = 0.7


@dataclass(frozen=True, slots=True)
class Band:
    """One filter.

    Args:
        kind: ``low_cut`` takes off what is below, shelves move what is below or above, a bell what is around ``hertz``.
        hertz: where.
        gain_db: by how much; a cut has none.
        quality: of a cut or a bell: how narrow.
    """

    kind: Literal["low_cut", "low_shelf", "bell", "high_shelf"]
    hertz: float
    gain_db: float = 0.0
    quality: float = math.sqrt(0.5)


# Nothing below 30 Hz is music, and it costs headroom.
_LOW_CUT = Band("low_cut", 30.0)

PRESETS: dict[EqualiserName, tuple[Band, ...]] = {
    "flat": (),
    "natural": (_LOW_CUT, Band("bell", 320.0, -1.5, 0.9), Band("high_shelf", 9_000.0, 1.5)),
    "warm": (_LOW_CUT, Band("low_shelf", 220.0, 2.0), Band("high_shelf", 6_000.0, -3.0)),
    "bright": (_LOW_CUT, Band("bell", 320.0, -2.0, 0.9), Band("high_shelf", 5_000.0, 3.0)),
    "under_speech": (_LOW_CUT, Band("bell", 2_500.0, -5.0, 0.6), Band("bell", 320.0, -1.5, 0.9)),
}
"""``natural`` thins what piles up where all instruments meet and gives a little air; ``under_speech`` leaves the range
that makes speech understood."""


def impulse_response(preset: EqualiserName, *, sample_rate_hz: int, samples: int) -> NDArray[np.float64]:
    """What a preset makes of a single impulse: ``response_S``."""
    impulse_S = np.zeros(samples)
    impulse_S[0] = 1.0
    bands = PRESETS[preset]
    return signal.sosfilt([_biquad(band, sample_rate_hz) for band in bands], impulse_S) if bands else impulse_S


def _biquad(band: Band, sample_rate_hz: int) -> tuple[float, ...]:
    """A row of second-order sections: b0, b1, b2, 1, a1, a2."""
    angle = 2 * math.pi * band.hertz / sample_rate_hz
    cosine, sine = math.cos(angle), math.sin(angle)
    amplitude = 10 ** (band.gain_db / 40)
    if band.kind in ("low_cut", "bell"):
        alpha = sine / (2 * band.quality)
    else:
        alpha = sine / 2 * math.sqrt((amplitude + 1 / amplitude) * (1 / _SHELF_SLOPE - 1) + 2)
    if band.kind == "low_cut":
        above = ((1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2)
        below = (1 + alpha, -2 * cosine, 1 - alpha)
    elif band.kind == "bell":
        above = (1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude)
        below = (1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude)
    else:
        side = 1.0 if band.kind == "high_shelf" else -1.0
        more, less, root = amplitude + 1, amplitude - 1, 2 * math.sqrt(amplitude) * alpha
        above = (
            amplitude * (more + side * less * cosine + root),
            -2 * side * amplitude * (less + side * more * cosine),
            amplitude * (more + side * less * cosine - root),
        )
        below = (
            more - side * less * cosine + root,
            2 * side * (less - side * more * cosine),
            more - side * less * cosine - root,
        )
    return tuple(value / below[0] for value in (*above, *below))
