"""Where each instrument sits, and how loud it is beside the others: the stated table, and what it makes of a piece.

First every instrument is brought to one loudness: the same phrase at the same velocity is measured on it, whatever the
font (:func:`level_db`). Then :data:`TABLE` moves it. Two customs made the table: where musicians of an orchestra sit,
seen from the conductor (J. Meyer, *Acoustics and the Performance of Music*, 5th ed., 2009, the American seating), and
what mixing engineers keep in the middle (M. Senior, *Mixing Secrets for the Small Studio*, 2011: what is low, and what
leads). A piece of one instrument plays in the middle; a larger one is turned so that left and right weigh the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.features.vocabulary import instrument_of
from tutti.render.mastering import measure_loudness_lufs
from tutti.render.soundfont import SoundFont
from tutti.render.synthesis import Band, Seat
from tutti.render.voice import Instrument

COMMON_LUFS = -33.0
"""Loudness of the phrase on every instrument, the mean of the bundled font's."""
MOST_LEVELLING_DB = 8.0
MOST_TURNED = 0.3
"""Of a side, by which a piece is turned to weigh the same on both."""

_MEASURED_AT_HZ = 44_100
_PHRASE = (48, 55, 60, 67, 72)
_LOW_PHRASE = (36, 40, 43, 48)
# Kick, snare, hi-hat, a cymbal (General MIDI keys).
_BEAT = (36, 42, 38, 42, 36, 42, 38, 49)
_VELOCITY, _STEP_TICKS, _TICKS_PER_QUARTER = 90, 960, 480


@dataclass(frozen=True, slots=True)
class Place:
    """A row of the table.

    Args:
        pan: -1 left to 1 right.
        level_db: how much louder than the common loudness.
        reason: why there.
        fixed: whether it stays in the middle however the rest is turned.
    """

    pan: float
    level_db: float
    reason: str
    fixed: bool = False


TABLE: dict[str, Place] = {
    "piano": Place(-0.1, 0.0, "its keys are spread already; a little left leaves the middle to what leads"),
    "chromatic_percussion": Place(0.35, -3.0, "back right, and short sounds carry"),
    "organ": Place(0.0, -2.0, "fills a room from no side"),
    "guitar": Place(0.4, -1.0, "opposite the piano"),
    "bass": Place(0.0, 1.0, "the ear gives low sound no side, and one side alone would spend the headroom", fixed=True),
    "strings": Place(0.0, 0.0, "the section as a whole"),
    "ensemble": Place(0.0, -1.0, "a section or a choir spans the stage"),
    "brass": Place(0.3, -2.0, "back right; carries over everything"),
    "reed": Place(0.2, -1.0, "woodwind stands in the middle, clarinets and bassoons right of it"),
    "pipe": Place(-0.2, -1.0, "woodwind stands in the middle, flutes left of it"),
    "synth_lead": Place(0.0, 0.0, "leads"),
    "synth_pad": Place(0.0, -4.0, "lies behind everything"),
    "synth_effects": Place(0.0, -5.0, "colours, and does not lead"),
    "ethnic": Place(-0.3, -1.0, "plucked, as the guitar, on the other side"),
    "percussive": Place(0.3, -3.0, "with the percussion, back right"),
    "sound_effects": Place(0.0, -8.0, "noise is heard at once"),
    "drums": Place(
        0.0, -4.0, "the kit is spread already; a beat as loud as a phrase, being mostly silence, drowns it", fixed=True
    ),
}
"""By family of instruments."""

SINGLE: dict[int, Place] = {
    40: Place(-0.45, 0.0, "violin: first violins sit left"),
    41: Place(0.15, 0.0, "viola: right of the middle"),
    42: Place(0.4, 0.0, "cello: right"),
    43: Place(0.3, 1.0, "contrabass: right, behind the cellos, and not far, being low"),
    46: Place(-0.5, -1.0, "harp: far left"),
    47: Place(0.1, -2.0, "timpani: back, near the middle"),
    56: Place(0.2, -3.0, "trumpet: back, right of the middle; the loudest of the band"),
    58: Place(0.45, -1.0, "tuba: far right"),
    60: Place(-0.3, -2.0, "French horn: back left"),
    68: Place(-0.1, -1.0, "oboe: left of the middle"),
    70: Place(0.25, -1.0, "bassoon: right of the middle"),
}
"""Programs of General MIDI, from 0, that do not sit with their family."""


def place_of(program: int) -> Place:
    """The row that holds for a program (128: drums)."""
    return SINGLE.get(program, TABLE[instrument_of(program)])


def seats(score: Score, *, font: SoundFont, instruments: Mapping[int, Instrument]) -> dict[int, Seat]:
    """Where each program of a piece sits, and how much louder it is made."""
    programs = [int(program) for program in np.unique(score.notes.program)]
    pans = _turned(score.notes, programs) if len(programs) > 1 else dict.fromkeys(programs, 0.0)
    return {
        program: Seat(
            pan=pans[program] / 2,
            level_db=place_of(program).level_db + level_db(font, program, instruments.get(program)),
        )
        for program in programs
    }


def _turned(notes: Notes, programs: list[int]) -> dict[int, float]:
    """Pans of the table, less their mean over the time that notes sound, weighted as they are loud."""
    weight_N = notes.duration_ticks * np.square(notes.velocity / 127.0)
    weights = {program: float(weight_N[notes.program == program].sum()) for program in programs}
    moving = [program for program in programs if not place_of(program).fixed]
    total = sum(weights[program] for program in moving)
    lean = sum(weights[program] * place_of(program).pan for program in moving) / total if total else 0.0
    lean = min(max(lean, -MOST_TURNED), MOST_TURNED)
    return {program: place_of(program).pan - (lean if program in moving else 0.0) for program in programs}


def _measured_db(font: SoundFont, program: int, instrument: Instrument | None) -> float:
    pitches = _BEAT if program == DRUM_PROGRAM else _LOW_PHRASE if instrument_of(program) == "bass" else _PHRASE
    onsets = np.arange(len(pitches)) * _STEP_TICKS
    notes = Notes.of(
        onset_ticks=onsets, duration_ticks=[_STEP_TICKS] * len(pitches), pitch=pitches, velocity=_VELOCITY,
        program=program,
    )  # fmt: skip
    score = Score.of(notes, ticks_per_quarter=_TICKS_PER_QUARTER)
    players = {} if instrument is None else {program: instrument}
    try:
        dry_CS = Band(score, font=font, instruments=players, sample_rate_hz=_MEASURED_AT_HZ).play()
    except InputError:  # silent at all of the phrase's keys
        return 0.0
    apart_db = COMMON_LUFS - measure_loudness_lufs(dry_CS.T, sample_rate_hz=_MEASURED_AT_HZ)
    return float(np.clip(apart_db, -MOST_LEVELLING_DB, MOST_LEVELLING_DB))


def level_db(font: SoundFont, program: int, instrument: Instrument | None = None) -> float:
    """What brings an instrument's phrase, a kit's beat, to :data:`COMMON_LUFS`; at most :data:`MOST_LEVELLING_DB`."""
    key = (font, program, instrument)
    if key not in _LEVELS:
        if len(_LEVELS) >= _MOST_LEVELS:
            _LEVELS.clear()
        _LEVELS[key] = _measured_db(*key)
    return _LEVELS[key]


_MOST_LEVELS = 1024
_LEVELS: dict[tuple[Any, ...], float] = {}
