"""Registered models of notes as the instruments that play a piece, written ``[FAMILY=]MODEL:INSTRUMENT[:SEED]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutti.errors import InputError
from tutti.features.vocabulary import INSTRUMENTS

if TYPE_CHECKING:  # who only reads an order needs neither MLflow nor torch
    from tutti.models.bundle import Bundle
    from tutti.registry.versions import ModelVersion, Registry
    from tutti.render.voice import Instrument

FORM = "[FAMILY=]MODEL:INSTRUMENT[:SEED]"
PITCHED = tuple(name for name in INSTRUMENTS if name != "drums")
PROGRAMS_OF_FAMILY = 8

_WRITTEN = re.compile(r"(?:(?P<family>[^=:]+)=)?(?P<model>[^=:]+):(?P<instrument>[^=:]+)(?::(?P<seed>\d+))?")


@dataclass(frozen=True, slots=True)
class Timbre:
    """One instrument that a model draws, and which programs it plays.

    Args:
        programs: General MIDI programs that it plays in place of the SoundFont.
        model: NAME, NAME@ALIAS or NAME/VERSION.
        instrument: what the model calls it.
        seed: of the timbre within it.
    """

    programs: tuple[int, ...]
    model: str
    instrument: str
    seed: int


@dataclass(frozen=True, slots=True)
class KnownTimbre:
    """A timbre whose model was found.

    Args:
        timbre: as it was asked for.
        version: of its model, such as ``notes/3``.
        digest: of that version's bundle.
        licences: of the notes that it learnt from, with counts.
    """

    timbre: Timbre
    version: str
    digest: str
    licences: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        timbre = self.timbre
        return {
            "model": self.version, "digest": self.digest, "instrument": timbre.instrument, "seed": timbre.seed,
            "programs": list(timbre.programs), "licences": dict(self.licences),
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.timbre.instrument} of {self.version}"


def parse(text: str) -> Timbre:
    """What a text of :data:`FORM` names; a bare number of an instrument is that General MIDI program.

    Raises:
        InputError: it is not of that form, or no such family of instruments.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise InputError(f"timbre {text!r} is not {FORM}", remedy="write it like notes@production:program-000")
    family, instrument = found["family"], found["instrument"]
    if family is not None and family not in PITCHED:
        raise InputError(f"{family!r} is no family of instruments", remedy=f"choose among {', '.join(PITCHED)}")
    first = 0 if family is None else PITCHED.index(family) * PROGRAMS_OF_FAMILY
    last = len(PITCHED) * PROGRAMS_OF_FAMILY if family is None else first + PROGRAMS_OF_FAMILY
    if instrument.isdigit():
        instrument = f"program-{int(instrument):03d}"
    return Timbre(tuple(range(first, last)), found["model"], instrument, int(found["seed"] or 0))


def known(texts: Iterable[str], *, registry: Registry) -> list[tuple[KnownTimbre, Path]]:
    """Each timbre with its version, and the folder of that version's files on this machine.

    Raises:
        InputError: a text is not of :data:`FORM`.
        MissingError: no such model, or it knows no such instrument.
        RecipeError: the model plays no notes.
    """
    from tutti.models import bundle as bundles

    found = []
    for timbre in map(parse, texts):
        version: ModelVersion = registry.resolve(timbre.model)
        folder = registry.fetch(version)
        bundle = bundles.load(folder)
        licences = bundle.facts.get("data", {}).get("licences", {})
        known_timbre = KnownTimbre(timbre, version=str(version), digest=version.digest, licences=licences)
        players([(known_timbre, bundle)])
        found.append((known_timbre, folder))
    return found


def players(timbres: Iterable[tuple[KnownTimbre, Bundle]]) -> dict[int, Instrument]:
    """Who plays each program; the later of two that name one program plays it.

    Raises:
        MissingError: a model knows no such instrument.
        RecipeError: a model plays no notes.
    """
    from tutti.render.drawn import drawn_instrument

    playing: dict[int, Instrument] = {}
    for known_timbre, bundle in timbres:
        timbre = known_timbre.timbre
        instrument = drawn_instrument(bundle, instrument=timbre.instrument, seed=timbre.seed)
        playing |= dict.fromkeys(timbre.programs, instrument)
    return playing
