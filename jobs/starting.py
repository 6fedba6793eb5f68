"""Options of ``tutti generate`` that name a file to start from, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tutti.config import build
from tutti.corpus.score import Score
from tutti.errors import DataError, InputError, MissingError
from tutti.generation.request import Request
from tutti.generation.restoring import works_of
from tutti.generation.start import Start
from tutti.storage import Folder

_FILES = {
    "continue": ("--continue", "Compose new bars after a file, which stays as it is; the length counts from its end."),
    "infill": ("--fill", "Compose the bars --at of a file anew; all others stay."),
    "accompany": ("--accompany", "Keep the melody of a file, and compose what plays with it."),
    "harmonise": ("--harmonise", "Keep the melody of a file, and compose voices beneath it."),
    "restyle": ("--restyle", "Keep the melody of a file, in another mood, collection, tempo or on other instruments."),
    "vary": ("--vary", "Compose a share --strength of a file's notes anew; with --more: see there."),
}
_FIGURES = {
    "bars": ("--at", str, "Of --fill: bars to compose, such as 5-8, counted from 1."),
    "melody": ("--melody", str, "Where the melody is: highest, all, track:N (from 0) or program:N; else it is found."),
    "strength": ("--strength", float, "Of --vary: share of the notes that is composed anew; 0.5 by itself."),
    "drafts": ("--drafts", int, "Drafts, of which the one is taken that fits what stays best; 4 by itself."),
}


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with all of them."""
    for name, (flag, kind, says) in reversed(_FIGURES.items()):
        command = click.option(flag, f"start_{name}", type=kind, help=says)(command)
    for name, (flag, says) in reversed(_FILES.items()):
        command = click.option(flag, f"start_{name}", metavar="FILE", help=says)(command)
    return command


@dataclass(frozen=True, slots=True)
class Given:
    """What is asked of which file; nothing of none.

    Args:
        kind: of what a piece may start from.
        path: the file.
        figures: of the kind.
    """

    kind: str | None
    path: Path | None
    figures: Mapping[str, Any]

    @property
    def flag(self) -> str | None:
        """The option that names the file."""
        return None if self.kind is None else _FILES[self.kind][0]

    def read(self) -> Score | None:
        """The file's music."""
        return None if self.path is None else read(self.path)

    def stated(self, request: Request, score: Score | None) -> Request:
        """A request that says so.

        Raises:
            RecipeError: a figure outside its limits, or of another kind.
        """
        if score is None:
            return request
        start = build(Start, {"kind": self.kind, **self.figures, "works": works_of(score)}, origin="generate")
        return request.model_copy(update={"start": start})


def taken(options: MutableMapping[str, Any]) -> Given:
    """What is given of all options; nothing of it is left among them.

    Raises:
        InputError: two files to start from, or a figure that belongs to none.
    """
    files = {kind: path for kind in _FILES if (path := options.pop(f"start_{kind}", None)) is not None}
    figures = {name: value for name in _FIGURES if (value := options.pop(f"start_{name}", None)) is not None}
    if len(files) > 1:
        flags = " and ".join(_FILES[kind][0] for kind in files)
        raise InputError(f"{flags} ask for different pieces", remedy="leave out one of them")
    if not files and figures:
        flag, all_flags = _FIGURES[next(iter(figures))][0], ", ".join(flag for flag, _ in _FILES.values())
        raise InputError(f"{flag} says nothing without a file", remedy=f"name one by {all_flags}")
    kind, path = next(iter(files.items()), (None, None))
    return Given(kind, None if path is None else Path(path), figures)


def read(path: Path) -> Score:
    """The first piece of a file.

    Raises:
        MissingError: there is no such file.
        InputError: it holds no music that can be read.
    """
    from tutti.corpus.untrusted import read_untrusted

    if not path.is_file():
        raise MissingError(f"{path} is not a file", remedy="name a MIDI or MusicXML file")
    data = Folder(str(path.absolute().parent)).read(path.name)
    try:
        return read_untrusted(data, name=path.name)
    except DataError as error:
        raise InputError(f"{path} cannot be read ({error.detail})", remedy="name a MIDI file with notes") from None
