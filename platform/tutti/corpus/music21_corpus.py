"""The scores that music21 carries, named by the version of its package, which is found without importing it."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tutti.corpus import rights
from tutti.corpus.item import MUSIC21_SCHEME, Item, stated_by_caller
from tutti.corpus.scores import SUFFIXES
from tutti.errors import MissingError, RecipeError

LICENCE_ORIGIN = "music21 corpus/license.txt"
# Collections whose encoders ask for more than music21's own terms: https://github.com/cuthbertLab/music21
NEEDS_OWN_LICENCE = {
    "palestrina": "its encoder John Miller keeps the rights and licenses them himself",
    "essenFolksong": "its encoders permit non-commercial use",
}


def music21_version() -> str:
    """Version of the installed music21, without importing it."""
    return importlib.metadata.version("music21")


def music21_folder() -> Path:
    """Folder of the scores that music21 carries, without importing it.

    Raises:
        MissingError: music21 or its scores are not installed.
    """
    found = importlib.util.find_spec("music21")
    folder = Path(found.origin).parent / "corpus" if found and found.origin else None
    if folder is None or not (folder / "bach").is_dir():
        raise MissingError("music21's scores are not installed", remedy="install music21 with its corpus")
    return folder


def music21_items(source: str, *, licence: str) -> list[Item]:
    """The scores that ``music21:COLLECTION[/SCORE]`` names.

    Raises:
        MissingError: there is no such collection or score.
        RecipeError: a collection that asks for its own licence.
    """
    root = music21_folder()
    wanted = source.removeprefix(MUSIC21_SCHEME).strip("/")
    collection = wanted.partition("/")[0]
    names = sorted(path.name for path in root.iterdir() if path.is_dir() and any(_scores_below(path)))
    if collection not in names or ".." in wanted.split("/"):
        near = difflib.get_close_matches(collection, names, n=1)
        hint = f"did you mean music21:{near[0]}?" if near else f"it carries {', '.join(names)}"
        raise MissingError(f"music21 carries no collection {collection!r}", remedy=hint)
    own_terms = collection in NEEDS_OWN_LICENCE
    if own_terms and licence == rights.UNKNOWN:
        raise RecipeError(
            f"{source} needs its licence to be named: {NEEDS_OWN_LICENCE[collection]}",
            remedy="name the one that you have, as in --licence LicenseRef-my-permission",
        )
    files = _matching(root, wanted)
    if not files:
        stems = sorted(path.stem for path in _scores_below(root / collection))
        near = difflib.get_close_matches(wanted.rpartition("/")[2], stems, n=3)
        hint = f"near are {', '.join(near)}" if near else f"music21:{collection} names all of its {len(stems)}"
        raise MissingError(f"music21 carries no score {wanted!r}", remedy=hint)
    addresses = ((f"{MUSIC21_SCHEME}{file.relative_to(root).as_posix()}", file) for file in files)
    version = f"music21 {music21_version()}"
    return [
        Item(
            uri=address,
            collection=collection,
            licence=licence if own_terms else rights.MUSIC21,
            licence_origin=stated_by_caller(licence) if own_terms else LICENCE_ORIGIN,
            place=address,
            version=version,
            size_bytes=file.stat().st_size,
        )
        for address, file in addresses
    ]


def _matching(root: Path, wanted: str) -> list[Path]:
    """Files below the folder ``wanted``, or those of that name with or without their suffix."""
    path = root / wanted
    if path.is_dir():
        return sorted(_scores_below(path))
    return sorted(
        file
        for file in (path.parent.iterdir() if path.parent.is_dir() else ())
        if wanted.rpartition("/")[2] in (file.name, file.stem) and file.suffix.lower() in SUFFIXES
    )


def _scores_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
