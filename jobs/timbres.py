"""Registered models of notes as the instruments that play a piece: ``[FAMILY=]MODEL:INSTRUMENT[:SEED]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tutti.errors import InputError
from tutti.features.vocabulary import INSTRUMENTS
from tutti.models import bundle as bundles
from tutti.registry.versions import ModelVersion, Registry
from tutti.render.drawn import drawn_instrument
from tutti.render.voice import Instrument

FORM = "[FAMILY=]MODEL:INSTRUMENT[:SEED]"
PITCHED = tuple(name for name in INSTRUMENTS if name != "drums")
_WRITTEN = re.compile(r"(?:(?P<family>[^=:]+)=)?(?P<model>[^=:]+):(?P<instrument>[^=:]+)(?::(?P<seed>\d+))?")
_PROGRAMS_OF_FAMILY = 8


@dataclass(frozen=True)
class Timbre:
    """One instrument that a model draws, and which programs it plays.

    Args:
        programs: General MIDI programs that it plays in place of the SoundFont.
        model: NAME, NAME@ALIAS or NAME/VERSION.
        instrument: one that the model knows by this name.
        seed: of the timbre within it.
    """

    programs: tuple[int, ...]
    model: str
    instrument: str
    seed: int


def parse(text: str) -> Timbre:
    """What a text of :data:`FORM` names; a bare number of an instrument is that General MIDI program.

    Raises:
        InputError: it is not of that form, or no such family of instruments.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise InputError(f"timbre {text!r} is not {FORM}", remedy="write it like keys@production:program-000")
    family, instrument = found["family"], found["instrument"]
    if family is not None and family not in PITCHED:
        raise InputError(f"{family!r} is no family of instruments", remedy=f"choose among {', '.join(PITCHED)}")
    first = 0 if family is None else PITCHED.index(family) * _PROGRAMS_OF_FAMILY
    last = len(PITCHED) * _PROGRAMS_OF_FAMILY if family is None else first + _PROGRAMS_OF_FAMILY
    if instrument.isdigit():
        instrument = f"program-{int(instrument):03d}"
    return Timbre(tuple(range(first, last)), found["model"], instrument, int(found["seed"] or 0))


def players(texts: Iterable[str], *, registry: Registry) -> tuple[dict[int, Instrument], dict[Timbre, ModelVersion]]:
    """Who plays each program, and which version each timbre is of; the later of two that name one program plays it.

    Raises:
        InputError: a text is not of :data:`FORM`.
        MissingError: no such model, or it knows no such instrument.
        RecipeError: the model plays no notes.
    """
    playing: dict[int, Instrument] = {}
    versions: dict[Timbre, ModelVersion] = {}
    for timbre in map(parse, texts):
        version = registry.resolve(timbre.model)
        bundle = bundles.load(registry.fetch(version))
        instrument = drawn_instrument(bundle, instrument=timbre.instrument, seed=timbre.seed)
        playing |= dict.fromkeys(timbre.programs, instrument)
        versions[timbre] = version
    return playing, versions
