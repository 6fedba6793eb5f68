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
from tutti.generation.harmony import Harmony
from tutti.generation.leading import pulsed
from tutti.generation.length import bars_of_length, meters_of_length, tempos_near
from tutti.generation.request import Request
from tutti.generation.timetable import Spans
from tutti.units import PitchRange

_ANY = -1
GENERAL_MIDI_DRUM_KEYS = range(35, 82)


@dataclass(frozen=True, slots=True)
class Limits:
    """What every sequence of a request obeys.

    Args:
        bars: number of bars, or None where it follows from ``length_s`` once tempo and meter are known.
        length_s: asked length in seconds, where bars were not asked.
        tempo_qpm: asked tempo; None: the model chooses.
        tempo: the nearest one, index into ``TEMPOS_QPM``; -1: the model chooses of those at which whole bars last the
            length.
        meter: index into ``METERS``; -1: the model chooses.
        free_meters: meters that it may choose; shape (meters,).
        pitches: allowed pitches; shape (128,).
        home: allowed pitches where a piece begins and where it ends: with a key, its tonic triad; shape (128,).
        programs: allowed programs; shape (128,).
        drums: allowed drum keys; shape (128,).
        pulsed: whether notes must begin at :data:`tutti.generation.leading.PULSES_TICKS` of each quarter.
        ranges: lowest and highest pitch of each program, where instruments have ranges of their own; shape (128, 2).
        polyphony: most notes that sound at once; None: any number.
        harmony: chords over time.
    """

    bars: int | None
    length_s: float
    tempo_qpm: float | None
    tempo: int
    meter: int
    free_meters: NDArray[np.bool_]
    pitches: NDArray[np.bool_]
    home: NDArray[np.bool_]
    programs: NDArray[np.bool_]
    drums: NDArray[np.bool_]
    polyphony: int | None = None
    harmony: Harmony | None = None
    ranges: NDArray[np.int64] | None = None
    pulsed: bool = False

    def bars_at(self, *, tempo: int, meter: int) -> int:
        """Bars that come nearest to the asked length at a tempo and meter."""
        if self.bars is not None:
            return self.bars
        said_qpm = float(TEMPOS_QPM[tempo]) if self.tempo_qpm is None or tempo != self.tempo else self.tempo_qpm
        return bars_of_length(self.length_s, tempo_qpm=said_qpm, meter=METERS[meter])

    @property
    def meters(self) -> NDArray[np.bool_]:
        """Meters that a piece may have; shape (meters,)."""
        return self.free_meters if self.meter == _ANY else np.isin(np.arange(len(METERS)), [self.meter])

    def tempos(self, meter: int) -> NDArray[np.bool_]:
        """Tempos that a piece in a meter may have; shape (tempos,)."""
        if self.tempo != _ANY:
            return np.isin(np.arange(len(TEMPOS_QPM)), [self.tempo])
        if self.bars is not None:
            return np.ones(len(TEMPOS_QPM), dtype=bool)
        return tempos_near(self.length_s, meter=METERS[meter])

    def spans(self, meter: tuple[int, int]) -> Spans | None:
        """What its chords ask over time, from the beginning of the first one."""
        return None if self.harmony is None else self.harmony.spans(meter, before=self.pitches)


def controls_of(request: Request, *, collections: Sequence[str]) -> Controls:
    """Control tokens of a request.

    Raises:
        RecipeError: the model knows no such collection.
    """
    if request.collection is not None and request.collection not in collections:
        raise RecipeError(
            f"collection {request.collection!r} is not known to this model", remedy=f"it knows {', '.join(collections)}"
        )
    bars, tempo_qpm = request.extent
    if bars is None and tempo_qpm is not None:
        bars = bars_of_length(request.length_s, tempo_qpm=tempo_qpm, meter=request.meter_or_usual)
    return Controls(
        collection=None if request.collection is None else list(collections).index(request.collection),
        key=None if request.nearest_key is None else str(request.nearest_key),
        tempo_class=None if tempo_qpm is None else tempo_class(tempo_qpm),
        density=request.density,
        length=None if bars is None else length_class(bars),
        mood=request.feeling,
        instruments=request.instruments,
    )


def limits_of(request: Request, *, known_programs: Sequence[int] = range(DRUM_PROGRAM + 1)) -> Limits:
    """Limits of a request.

    Args:
        known_programs: programs that the model was trained on (128: drums). A request that names no instrument gets
            these; one that does gets its families, of them the known programs where there are any.
    """
    playing = _programs(request.instruments, known_programs=known_programs)
    bars, tempo_qpm = request.extent
    meter = METERS.index(request.meter_or_usual) if request.meter is not None or request.chords is not None else _ANY
    any_meter = np.ones(len(METERS), dtype=bool)
    return Limits(
        bars=bars,
        length_s=request.length_s,
        tempo_qpm=tempo_qpm,
        tempo=_ANY if tempo_qpm is None else int(nearest_tempo(np.array([tempo_qpm]))[0]),
        meter=meter,
        free_meters=any_meter if bars else meters_of_length(request.length_s, tempo_qpm=tempo_qpm),
        pitches=_pitches(request.pitch_classes, request.compass),
        home=_pitches(request.home_classes, request.compass),
        programs=playing[:DRUM_PROGRAM],
        drums=np.isin(np.arange(128), GENERAL_MIDI_DRUM_KEYS) & playing[DRUM_PROGRAM],
        polyphony=request.polyphony,
        harmony=harmony_of(request),
        ranges=ranges_of(request),
        pulsed=pulsed(request),
    )


def ranges_of(request: Request) -> NDArray[np.int64] | None:
    """Lowest and highest pitch of each program; shape (128, 2). None where no instrument has a range of its own."""
    if not request.ranges:
        return None
    ranges = np.tile(np.array([0, 127]), (DRUM_PROGRAM, 1))
    for program in range(DRUM_PROGRAM):
        if (own := request.ranges.get(instrument_of(program))) is not None:
            ranges[program] = own.low, own.high
    return ranges


def harmony_of(request: Request) -> Harmony | None:
    """The chords of a request over time."""
    bars, _ = request.extent
    if request.progression is None or bars is None:
        return None
    asked = request.key is not None or request.scale is not None
    return Harmony(
        request.progression,
        bars=bars,
        scale=request.pitch_classes if asked else None,
        pitch_range=request.compass,
        has_bass=request.polyphony != 1,
    )


def _pitches(classes: frozenset[int], compass: PitchRange) -> NDArray[np.bool_]:
    pitches = np.arange(128)
    return np.isin(pitches % 12, list(classes)) & (pitches >= compass.low) & (pitches <= compass.high)


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
