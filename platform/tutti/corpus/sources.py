"""Sources by name: folders, files, addresses on the net and the scores that music21 carries, as a list of items.

What was given decides the list, nothing else: folders are walked in order of names, and every item of a file carries
the hash of its bytes, so that two lists are equal exactly when the same music was meant. The scores of music21 are
named by the version of its package, which is found without importing it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from tutti.corpus import rights
from tutti.corpus.formats import SUFFIXES, is_known
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.scores import SUFFIXES as SCORE_SUFFIXES
from tutti.errors import InputError, MissingError, RecipeError, UserError
from tutti.storage import Folder
from tutti.units import format_bytes

MUSIC21_SCHEME = "music21:"
MUSIC21_LICENCE_ORIGIN = "music21 corpus/license.txt"
# Collections whose encoders ask for more than music21's own terms: https://github.com/cuthbertLab/music21
NEEDS_OWN_LICENCE = {
    "palestrina": "its encoder John Miller keeps the rights and licenses them himself",
    "essenFolksong": "its encoders permit non-commercial use",
}
FETCHES_AT_ONCE = 8
FETCH_TIMEOUT_S = 30.0
_HTTP = ("http://", "https://")
_STORAGE = ("s3://", "memory://")


@dataclass(frozen=True, slots=True)
class Item:
    """One file to read.

    Args:
        uri: collection and path below its source, or the address.
        collection: name of the source collection.
        licence, licence_origin: its terms, and who stated them.
        place: where a task finds the bytes: a path, ``music21:…`` or a storage address; empty where ``data`` is given.
        sha256: hash of the bytes; of music21's scores, which are named by version, only the reading task knows it.
        data: the bytes, where they were fetched already.
        reason, detail: why it is refused before it is parsed, if it is.
    """

    uri: str
    collection: str
    licence: str
    licence_origin: str
    place: str = ""
    sha256: str = ""
    data: bytes | None = None
    reason: str = ""
    detail: str = ""

    @property
    def is_trusted(self) -> bool:
        """Whether the file comes from an installed package."""
        return self.place.startswith(MUSIC21_SCHEME)

    def identity(self) -> list[str]:
        """What an address must hash of it."""
        return [self.uri, self.sha256, self.collection, self.licence, self.licence_origin, self.reason]

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError, UserError: they cannot be read.
        """
        if self.data is not None:
            return self.data
        if self.is_trusted:
            return (music21_folder() / self.place.removeprefix(MUSIC21_SCHEME)).read_bytes()
        if self.place.startswith(_STORAGE):
            folder, _, name = self.place.rpartition("/")
            return Folder(folder).read(name)
        return Path(self.place).read_bytes()


def resolve(source: str, *, licence: str = rights.UNKNOWN) -> list[Item]:
    """The items of one source, in order of names.

    Args:
        source: a folder, a file, ``http(s)://…``, ``s3://bucket/prefix`` or file, or ``music21:bach[/bwv1.6]``.
        licence: terms of its files; the scores of music21 have their own.

    Raises:
        MissingError: the folder, file or collection is not there, or holds no music.
        RecipeError: a collection that asks for its own licence, or a licence that is none.
    """
    rights.check(licence)
    if source.startswith(MUSIC21_SCHEME):
        return _music21(source, licence=licence)
    if source.startswith(_HTTP):
        return [_fetched(source, licence=licence)]
    if source.startswith(_STORAGE):
        return _stored(source, licence=licence)
    path = Path(source.removeprefix("file://")).expanduser()
    if path.is_dir():
        return _walked(path, licence=licence)
    if not path.exists() and not path.is_symlink():
        raise MissingError(
            f"source {source!r} is not there", remedy="name a folder, a file, a URL or music21:COLLECTION"
        )
    collection = path.absolute().parent.name or "files"
    return [_hashed(path, uri=f"{collection}/{path.name}", collection=collection, licence=licence)]


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


def _music21(source: str, *, licence: str) -> list[Item]:
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
    below = [file.relative_to(root).as_posix() for file in files]
    version = f"music21 {music21_version()}"
    return [
        Item(
            uri=f"{MUSIC21_SCHEME}{name}",
            collection=collection,
            licence=licence if own_terms else rights.MUSIC21,
            licence_origin=_stated_by_caller(licence) if own_terms else MUSIC21_LICENCE_ORIGIN,
            place=f"{MUSIC21_SCHEME}{name}",
            sha256=version,
        )
        for name in below
    ]


def _matching(root: Path, wanted: str) -> list[Path]:
    """Files below the folder ``wanted``, or those of that name with or without their suffix."""
    path = root / wanted
    if path.is_dir():
        return sorted(_scores_below(path))
    return sorted(
        file
        for file in (path.parent.iterdir() if path.parent.is_dir() else ())
        if wanted.rpartition("/")[2] in (file.name, file.stem) and file.suffix.lower() in SCORE_SUFFIXES
    )


def _scores_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SCORE_SUFFIXES and path.is_file())


def _walked(folder: Path, *, licence: str) -> list[Item]:
    collection = folder.resolve().name or "files"
    unreadable: list[OSError] = []
    files = sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder, onerror=unreadable.append)
        for name in names
        if is_known(name) and not name.startswith(".")
    )
    if not files and not unreadable:
        raise MissingError(
            f"folder {str(folder)!r} holds no music", remedy=f"name one with files that end in {', '.join(SUFFIXES)}"
        )

    def uri(path: Path) -> str:
        return f"{collection}/{path.relative_to(folder).as_posix()}"

    items = [_hashed(path, uri=uri(path), collection=collection, licence=licence) for path in files]
    for error in unreadable:
        item = _item(uri(Path(error.filename)), collection=collection, licence=licence)
        items.append(replace(item, reason="unreadable", detail=f"the folder cannot be read: {error.strerror}"))
    return items


def _hashed(path: Path, *, uri: str, collection: str, licence: str) -> Item:
    item = replace(_item(uri, collection=collection, licence=licence), place=str(path.absolute()))
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            return replace(item, reason="too_long", detail=_too_large(size))
        return replace(item, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        return replace(item, reason="unreadable", detail=f"the file cannot be read: {error.strerror}")


def _fetched(url: str, *, licence: str) -> Item:
    parts = urlsplit(url)
    item = _item(url, collection=parts.hostname or "net", licence=licence)
    if not is_known(unquote(parts.path)):
        return replace(item, reason="unknown_format", detail=f"the address ends in none of {', '.join(SUFFIXES)}")
    return _with_bytes(item, lambda: _download(url))


def _download(url: str) -> bytes:
    received = bytearray()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=FETCH_TIMEOUT_S) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                received += part
                if len(received) > MAX_FILE_BYTES:
                    raise InputError(_too_large(len(received)))
    except httpx.HTTPStatusError as error:
        raise MissingError(f"the server answers {error.response.status_code}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MissingError(" ".join(str(error).split()) or type(error).__name__) from None
    return bytes(received)


def _stored(source: str, *, licence: str) -> list[Item]:
    """Objects of a storage address: a file, or every file below a prefix."""
    base, _, name = source.rstrip("/").rpartition("/")
    collection = name or "storage"
    if is_known(name):
        found = [(source, Folder(base), name)]
        collection = base.rpartition("/")[2]
    else:
        folder = Folder(source.rstrip("/"))
        found = [(f"{folder.uri}/{path}", folder, path) for path in folder.paths() if is_known(path)]
    if not found:
        raise MissingError(
            f"{source} holds no music", remedy=f"name a prefix of files that end in {', '.join(SUFFIXES)}"
        )

    def item(entry: tuple[str, Folder, str]) -> Item:
        uri, folder, path = entry
        read = _with_bytes(_item(uri, collection=collection, licence=licence), lambda: folder.read(path))
        return replace(read, place=uri, data=None)

    with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
        return list(pool.map(item, found))


def _with_bytes(item: Item, read: Callable[[], bytes]) -> Item:
    try:
        data = read()
    except UserError as error:
        reason = "too_long" if isinstance(error, InputError) else "unreachable"
        return replace(item, reason=reason, detail=error.what)
    return replace(item, data=data, sha256=hashlib.sha256(data).hexdigest())


def _item(uri: str, *, collection: str, licence: str) -> Item:
    return Item(uri=uri, collection=collection, licence=licence, licence_origin=_stated_by_caller(licence))


def _stated_by_caller(licence: str) -> str:
    return "nobody" if licence == rights.UNKNOWN else "the caller of ingest"


def _too_large(size: int) -> str:
    return f"{format_bytes(size)} are more than the limit of {format_bytes(MAX_FILE_BYTES)}"
