"""How `tutti generate` makes its pieces sound, and where their stems go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tutti import config
from tutti.catalogue.provenance import data_licences
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import InputError
from tutti.features.descriptors import describe_score
from tutti.features.mood import mood_word
from tutti.models import bundle as bundles
from tutti.render.export import finish
from tutti.render.fonts import known_font
from tutti.render.formats import SUFFIXES
from tutti.render.sound import Sound
from tutti.render.soundfont import SoundFont
from tutti.render.tags import Tags
from tutti.render.timbres import KnownTimbre, players
from tutti.render.voice import Instrument
from tutti.storage import Folder


@dataclass(frozen=True, slots=True)
class Sounding:
    """What pieces are played with.

    Args:
        sound: room, equaliser, loudness and the rest.
        font: of what ``instruments`` do not play; None: the bundled one.
        instruments: what plays the notes of a program in place of the SoundFont.
        stems: folder of one sound for each instrument; None: none are made.
        tags: what the sound files say beside title, mood, tempo and key.
    """

    sound: Sound = field(default_factory=Sound)
    font: SoundFont | None = None
    instruments: Mapping[int, Instrument] = field(default_factory=dict)
    stems: Path | None = None
    tags: Tags = field(default_factory=Tags)

    def write(self, score: Score, files: Mapping[str, Path], *, title: str, number: str = "") -> None:
        """One piece in each format.

        Args:
            files: by format, where it goes.
            title: of the piece.
            number: of the piece among several: a folder of its own for its stems.
        """
        formats = (*files, *(("stems",) if self.stems else ()))
        made = finish(
            score,
            formats=formats,
            title=title,
            instruments=self.instruments,
            sound=self.sound,
            font=self.font,
            tags=self._tags(score),
        )
        for name, path in files.items():
            Folder(str(path.absolute().parent)).write(path.name, made.files[SUFFIXES[name]])
        if self.stems:
            place = Folder(str((self.stems / number).absolute()))
            for name, data in made.files.items():
                if name.startswith("stems/"):
                    place.write(name.removeprefix("stems/"), data)

    def _tags(self, score: Score) -> Tags:
        if not len(score.notes):
            return self.tags
        told = describe_score(score)
        pitched = bool((score.notes.program != DRUM_PROGRAM).any())
        return replace(
            self.tags,
            mood=mood_word(told["valence"], told["arousal"]),
            tempo_qpm=float(score.tempo_qpm[0]),
            key=told["key"] if pitched else "",
        )


def asked(settings: Sequence[str]) -> tuple[Sound, SoundFont | None]:
    """What ``--sound KEY=VALUE`` asks for, its font fetched and tried.

    Raises:
        RecipeError: no such setting, or a value that it does not take.
        InputError: not of that form, or the font is none.
        MissingError, PlaceError: there is no such font, or it cannot be reached.
    """
    tree = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--sound {setting!r} is not KEY=VALUE", remedy="write it like room=hall")
        try:
            tree[name] = yaml.safe_load(value) if name != "soundfont" else value
        except yaml.YAMLError:
            tree[name] = value
    sound = config.build(Sound, tree, origin="--sound")
    if sound.soundfont is None:
        return sound, None
    return sound, known_font(sound.soundfont).opened()


def of(
    sound: Sound,
    font: SoundFont | None,
    drawn: Sequence[tuple[KnownTimbre, Path]],
    *,
    stems: Path | None,
    model: str,
    facts: Mapping[str, Any],
) -> Sounding:
    """What the pieces of a model are played with.

    Args:
        sound, font: as :func:`asked` gives them.
        drawn: timbres, and the folders of their models.
        stems: folder of a sound for each instrument.
        model: that composes.
        facts: of its making; the licences of what it learnt from are written into the files.
    """
    licences = ", ".join(data_licences(facts))
    tags = Tags(model=model, licence=f"learnt from {licences}" if licences else "")
    instruments = players((timbre, bundles.load(folder)) for timbre, folder in drawn)
    return Sounding(sound, font, instruments, stems, tags)


def suffix_of(path: Path) -> str:
    """What a file's name ends in, of the formats' suffixes: ``waveform.png`` is one."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES.values() if "." in suffix and name.endswith(f".{suffix}")), "") or (
        path.suffix.lstrip(".").lower()
    )


def numbered(path: Path, number: str) -> Path:
    """The path with a number before what its name ends in."""
    ending = path.name[-len(suffix_of(path)) - 1 :] if path.suffix else ""
    return path.with_name(f"{path.name.removesuffix(ending)}-{number}{ending}")
