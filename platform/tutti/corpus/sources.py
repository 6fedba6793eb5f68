"""Sources by name: folders, files, archives, addresses and the scores that music21 carries, as a list of items.

What was given decides the list, nothing else: folders are walked in order of names, and every item carries what its
bytes are known by, so that two lists are equal exactly when the same music was meant. A table that lies beside the
music (:mod:`tutti.corpus.sidecars`) gives it labels, and where it states a licence, that one counts.

The list becomes parcels and the parcels bytes: :func:`parcels`, :func:`read_items`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from tutti.corpus import archives, grids, listing, rights
from tutti.corpus.collection import Collection, Listing
from tutti.corpus.file_index import HashIndex
from tutti.corpus.item import MUSIC21_SCHEME, SUFFIXES, Item, is_music, is_on_storage, limit_bytes, too_large
from tutti.corpus.music21_corpus import music21_folder, music21_items, music21_version
from tutti.corpus.parcels import parcel_digest, parcels
from tutti.corpus.reading import read_items
from tutti.errors import InputError, MissingError, UserError
from tutti.storage import Folder

__all__ = [
    "MUSIC21_SCHEME", "Item", "Listing", "music21_folder", "music21_version", "parcel_digest", "parcels", "read_items",
    "resolve", "survey",
]  # fmt: skip

FETCH_TIMEOUT_S = 30.0
# What an archive on the net may hold, packed and unpacked: it is fetched once and kept in memory. A larger one is
# better brought to a disk or a bucket, where its members are read in place.
MAX_FETCHED_ARCHIVE_BYTES = 256 * 2**20
_HTTP = ("http://", "https://")


def resolve(source: str, *, licence: str = rights.UNKNOWN, index: HashIndex | None = None) -> list[Item]:
    """The items of one source; see :func:`survey`."""
    return survey(source, licence=licence, index=index).items


def survey(source: str, *, licence: str = rights.UNKNOWN, index: HashIndex | None = None) -> Listing:
    """The items of one source, and what came of the tables beside them.

    Args:
        source: a folder, a file, an archive, a book of grids (``.json``), ``http(s)://…``, ``s3://bucket/prefix`` or
            file, or ``music21:bach[/bwv1.6]``.
        licence: terms of its files, where no table beside them states others; the scores of music21 have their own.
        index: hashes of files of this machine that were read before.

    Raises:
        MissingError: the folder, file or collection is not there, or holds no music.
        PlaceError: the storage cannot be listed.
        RecipeError: a collection that asks for its own licence, a licence that is none, or a row of a table that
            cannot be read.
    """
    rights.check(licence)
    if source.startswith(MUSIC21_SCHEME):
        return Listing(music21_items(source, licence=licence), usages=[])
    if source.startswith(_HTTP):
        return _on_the_net(source, licence=licence)
    if is_on_storage(source):
        return _on_storage(source.rstrip("/"), licence=licence)
    path = Path(source.removeprefix("file://")).expanduser().absolute()
    if not path.exists() and not path.is_symlink():
        raise MissingError(
            f"source {source!r} is not there", remedy="name a folder, a file, a URL or music21:COLLECTION"
        )
    return _on_disk(path, licence=licence, index=index)


def _on_disk(path: Path, *, licence: str, index: HashIndex | None) -> Listing:
    if path.is_dir():
        name = path.resolve().name or "files"
        collection = Collection(name, licence=licence, prefix=f"{name}/")
        collection.take(listing.on_disk(str(path), index=index))
        return collection.listing(what=f"folder {str(path)!r}")
    if archives.kind_of(path.name):
        collection = Collection(_stem(path.name), licence=licence, prefix="")
    else:
        name = path.parent.name or "files"
        collection = Collection(name, licence=licence, prefix=f"{name}/")
    if grids.is_book(path.name) and path.is_file():
        _take_book(collection, path.read_bytes(), uri=f"{name}/{path.name}")
    else:
        collection.take([listing.one_file(str(path), index=index)])
    return collection.listing(what=f"file {str(path)!r}")


def _take_book(collection: Collection, data: bytes, *, uri: str) -> None:
    """Add each piece of a book of grids."""
    try:
        for name, piece in grids.pieces(data):
            collection.take_fetched(piece, uri=f"{uri}!{name}")
    except UserError as error:
        collection.refuse(uri, reason="unreadable", detail=error.what)


def _on_storage(source: str, *, licence: str) -> Listing:
    """Objects of a storage address: a file, or every file below a prefix."""
    base, _, name = source.rpartition("/")
    if grids.is_book(name):
        collection = Collection(base.rpartition("/")[2] or "storage", licence=licence, prefix="")
        _take_book(collection, Folder(base).read(name), uri=source)
    elif listing.is_listed(name):
        parent = _stem(name) if archives.kind_of(name) else base.rpartition("/")[2]
        collection = Collection(parent or "storage", licence=licence, prefix=f"{base}/")
        collection.take(listing.on_storage(Folder(base), path=name))
    else:
        collection = Collection(name or "storage", licence=licence, prefix=f"{source}/")
        collection.take(listing.on_storage(Folder(source)))
    return collection.listing(what=source)


def _on_the_net(url: str, *, licence: str) -> Listing:
    parts = urlsplit(url)
    path = unquote(parts.path)
    kind = archives.kind_of(path)
    collection = Collection(parts.hostname or "net", licence=licence, prefix=f"{url}/" if kind else "")
    if not kind and not is_music(path) and not grids.is_book(path):
        detail = f"the address ends in none of {', '.join(SUFFIXES)}, nor is it an archive"
        collection.refuse(url, reason="unknown_format", detail=detail)
        return collection.listing(what=url)
    try:
        data = _download(url, most_bytes=MAX_FETCHED_ARCHIVE_BYTES if kind else limit_bytes(path))
    except UserError as error:
        reason = "too_long" if isinstance(error, InputError) else "unreachable"
        collection.refuse(url, reason=reason, detail=error.what)
        return collection.listing(what=url)
    if grids.is_book(path):
        _take_book(collection, data, uri=url)
    elif kind:
        collection.take_fetched_archive(data, uri=url, kind=kind, most_bytes=MAX_FETCHED_ARCHIVE_BYTES)
    else:
        collection.take_fetched(data, uri=url)
    return collection.listing(what=url)


def _download(url: str, *, most_bytes: int) -> bytes:
    received = bytearray()
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=FETCH_TIMEOUT_S) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                received += part
                if len(received) > most_bytes:
                    raise InputError(too_large(len(received), limit=most_bytes))
    except httpx.HTTPStatusError as error:
        raise MissingError(f"the server answers {error.response.status_code}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MissingError(" ".join(str(error).split()) or type(error).__name__) from None
    return bytes(received)


def _stem(name: str) -> str:
    """An archive's name without its ending."""
    lower = name.lower()
    ends = [suffix for suffixes in archives.KINDS.values() for suffix in suffixes if lower.endswith(suffix)]
    return name[: len(name) - max(map(len, ends))]
