"""What a request asks, as what the engine can hold: control tokens to steer by, limits to obey.

Soft controls (mood, density, collection, and the tokens for key, tempo class, length and instruments) lead the model;
limits are kept by the grammar whatever the model wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM
from tutti.errors import RecipeError
from tutti.features.controls import Controls, length_class, tempo_class
from tutti.features.grid import nearest_tempo
from tutti.features.vocabulary import METERS, TEMPOS_QPM, instrument_of
from tutti.generation.request import Request

_ANY = -1
GENERAL_MIDI_DRUM_KEYS = range(35, 82)


@dataclass(frozen=True, slots=True)
class Limits:
    """What every sequence of a request obeys.

    Args:
        bars: number of bars, or None where it follows from ``length_s`` once tempo and meter are known.
        length_s: asked length in seconds, where bars were not asked.
        tempo, meter: index into ``TEMPOS_QPM`` and ``METERS``; -1: the model chooses.
        pitches: allowed pitches; shape (128,).
        home: allowed pitches where a piece begins and where it ends: with a key, its tonic triad; shape (128,).
        programs: allowed programs; shape (128,).
        drums: allowed drum keys; shape (128,).
    """

    bars: int | None
    length_s: float
    tempo: int
    meter: int
    pitches: NDArray[np.bool_]
    home: NDArray[np.bool_]
    programs: NDArray[np.bool_]
    drums: NDArray[np.bool_]

    def bars_at(self, *, tempo: int, meter: int) -> int:
        """Bars that come nearest to the asked length at a tempo and meter."""
        if self.bars is not None:
            return self.bars
        return bars_of_length(self.length_s, tempo_qpm=float(TEMPOS_QPM[tempo]), meter=METERS[meter])


def bars_of_length(length_s: float, *, tempo_qpm: float, meter: tuple[int, int]) -> int:
    """Bars that come nearest to a length; at least one."""
    quarters_per_bar = 4 * meter[0] / meter[1]
    return max(round(length_s * tempo_qpm / 60 / quarters_per_bar), 1)


def controls_of(request: Request, *, collections: Sequence[str]) -> Controls:
    """Control tokens of a request.

    Raises:
        RecipeError: the model knows no such collection.
    """
    if request.collection is not None and request.collection not in collections:
        raise RecipeError(
            f"collection {request.collection!r} is not known to this model", remedy=f"it knows {', '.join(collections)}"
        )
    bars = request.bars
    if bars is None and request.tempo is not None:
        bars = bars_of_length(request.length_s, tempo_qpm=request.tempo, meter=_meter(request) or (4, 4))
    return Controls(
        collection=None if request.collection is None else list(collections).index(request.collection),
        key=request.key,
        tempo_class=None if request.tempo is None else tempo_class(request.tempo),
        density=request.density,
        length=None if bars is None else length_class(bars),
        mood=request.mood,
        instruments=request.instruments,
    )


def limits_of(request: Request, *, known_programs: Sequence[int] = range(DRUM_PROGRAM + 1)) -> Limits:
    """Limits of a request.

    Args:
        known_programs: programs that the model was trained on (128: drums). A request that names no instrument gets
            these; one that does gets its families, of them the known programs where there are any.
    """
    pitches = home = np.ones(128, dtype=bool)
    if request.tonality is not None:
        pitches = np.isin(np.arange(128) % 12, list(request.tonality.pitch_classes))
        home = np.isin(np.arange(128) % 12, list(request.tonality.triad))
    meter = _meter(request)
    playing = _programs(request.instruments, known_programs=known_programs)
    return Limits(
        bars=request.bars,
        length_s=request.length_s,
        tempo=_ANY if request.tempo is None else int(nearest_tempo(np.array([request.tempo]))[0]),
        meter=_ANY if meter is None else METERS.index(meter),
        pitches=pitches,
        home=home,
        programs=playing[:DRUM_PROGRAM],
        drums=np.isin(np.arange(128), GENERAL_MIDI_DRUM_KEYS) & playing[DRUM_PROGRAM],
    )


def _programs(instruments: Sequence[str], *, known_programs: Sequence[int]) -> NDArray[np.bool_]:
    """Programs that may play; shape (129,)."""
    known = np.isin(np.arange(DRUM_PROGRAM + 1), known_programs)
    if not instruments:
        return known
    families = np.array([instrument_of(program) for program in range(DRUM_PROGRAM + 1)])
    playing = np.zeros_like(known)
    for instrument in instruments:
        family = families == instrument
        playing |= family & known if (family & known).any() else family
    return playing


def _meter(request: Request) -> tuple[int, int] | None:
    if request.meter is None:
        return None
    above, below = request.meter.split("/")
    return int(above), int(below)
