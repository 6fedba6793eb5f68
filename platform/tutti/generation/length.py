"""How long a piece is: whole bars, and tempos at which they last the asked seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tutti.features.vocabulary import METERS, TEMPOS_QPM
from tutti.units import MAX_TEMPO_QPM, MIN_TEMPO_QPM

USUAL_LENGTH_S = 30.0
"""Where nothing is asked."""
USUAL_QPM = 100.0
"""A moderate tempo."""
NEAR = 1.05
"""Tempos that differ by less are one tempo to the vocabulary, whose steps are about so wide."""

_TEMPOS = np.array(TEMPOS_QPM, dtype=np.float64)


def quarters_of(meter: tuple[int, int]) -> float:
    """Quarters of a bar."""
    return 4 * meter[0] / meter[1]


def seconds_of_bar(meter: tuple[int, int], *, tempo_qpm: float) -> float:
    """Seconds of a bar."""
    return 60 * quarters_of(meter) / tempo_qpm


def bars_of_length(length_s: float, *, tempo_qpm: float, meter: tuple[int, int]) -> int:
    """Bars that come nearest to a length; at least one."""
    return max(round(length_s / seconds_of_bar(meter, tempo_qpm=tempo_qpm)), 1)


def exact_tempo(length_s: float, *, bars: int, meter: tuple[int, int]) -> float:
    """The tempo, in quarters a minute, at which bars last a length."""
    return 60 * bars * quarters_of(meter) / length_s


def tempos_near(length_s: float, *, meter: tuple[int, int]) -> NDArray[np.bool_]:
    """Tempos of the vocabulary beside which there is one at which whole bars last the length; those that come nearest,
    where there is none. Shape (tempos,)."""
    of_bar = quarters_of(meter)
    bars = np.maximum(np.round(length_s * _TEMPOS / 60 / of_bar), 1)
    exact = 60 * bars * of_bar / length_s
    apart = np.maximum(exact / _TEMPOS, _TEMPOS / exact)
    near: NDArray[np.bool_] = (apart < NEAR) & (exact >= MIN_TEMPO_QPM) & (exact <= MAX_TEMPO_QPM)
    return near if near.any() else apart <= apart.min()


def meters_of_length(length_s: float, *, tempo_qpm: float | None) -> NDArray[np.bool_]:
    """Meters of which a whole number of bars comes nearest to a length; shape (meters,).

    Args:
        tempo_qpm: None: any tempo.
    """
    fastest = tempo_qpm if tempo_qpm is not None else MAX_TEMPO_QPM
    shortest = np.array([seconds_of_bar(meter, tempo_qpm=fastest) for meter in METERS])
    return shortest <= (length_s if tempo_qpm is None else 2 * length_s)


def exact_tempo_near(length_s: float, *, bars: int, meter: tuple[int, int], said_qpm: float) -> float:
    """The tempo at which bars last a length, where it is to the vocabulary the one that was said; or else that one."""
    exact = exact_tempo(length_s, bars=bars, meter=meter)
    is_near = max(exact / said_qpm, said_qpm / exact) < NEAR and MIN_TEMPO_QPM <= exact <= MAX_TEMPO_QPM
    return exact if is_near else said_qpm


def rounds_of_length(length_s: float, *, round_quarters: float, tempo_qpm: float | None) -> tuple[int, float]:
    """How often a round of so many quarters comes in a length, at least once, and at which tempo.

    Args:
        tempo_qpm: None: the tempo at which whole rounds last the length, of all that the one nearest to
            :data:`USUAL_QPM`.
    """
    if tempo_qpm is not None:
        return max(round(length_s * tempo_qpm / 60 / round_quarters), 1), tempo_qpm
    rounds = np.arange(1, max(int(length_s * MAX_TEMPO_QPM / 60 / round_quarters), 1) + 1)
    tempos = 60 * rounds * round_quarters / length_s
    best = int(np.abs(np.log(tempos / USUAL_QPM)).argmin())
    return int(rounds[best]), float(tempos[best])
