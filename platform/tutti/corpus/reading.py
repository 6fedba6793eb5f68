"""The bytes of a parcel's items, in order: from this machine, from storage, out of archives.

What cannot be read is a :class:`DataError` in its place. An archive is opened once for all items of it that stand
together, and is read at their places, through ranges where it lies on storage; objects on storage are fetched a few at
a time ahead of the reader. Storage is asked again where its error may pass (:mod:`tutti.storage`).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from typing import BinaryIO

from tutti.corpus.archives import Opened
from tutti.corpus.item import MUSIC21_SCHEME, Archive, Item, is_on_storage
from tutti.corpus.music21_corpus import music21_folder
from tutti.errors import DataError, UserError
from tutti.storage import Folder

FETCHES_AT_ONCE = 8
_CHANGED = "the file changed while it was read"


class UnreadError(DataError):
    """A file that was listed cannot be read now, or is no longer what was listed: another try may take it."""


def read_items(parcel: Sequence[Item]) -> Iterator[bytes | DataError]:
    """Bytes of each item, or why there are none.

    Args:
        parcel: items; those of one archive together and in the order in which it was listed.
    """
    for kind, group in groupby(parcel, key=_together):
        items = list(group)
        if isinstance(kind, Archive):
            yield from _archived(items, archive=kind)
        elif kind == "storage":
            yield from _fetched(items)
        else:
            yield from map(_result, items)


def _together(item: Item) -> Archive | str:
    """What items have in common that are read in one go."""
    if item.archive is not None:
        return item.archive
    return "storage" if is_on_storage(item.place) else ""


def _result(item: Item) -> bytes | DataError:
    try:
        return _bytes_of(item)
    except DataError as error:
        return error


def _bytes_of(item: Item) -> bytes:
    if item.reason:
        raise DataError(item.reason, item.detail)
    if item.data is not None:
        return item.data
    try:
        if is_on_storage(item.place):
            data = Folder(item.place.rstrip("/")).read(item.uri.removeprefix(item.place))
            is_same = len(data) == item.size_bytes
        elif item.is_trusted:
            data, is_same = (music21_folder() / item.place.removeprefix(MUSIC21_SCHEME)).read_bytes(), True
        else:
            place = item.place + item.uri.rpartition("/")[2] if item.place.endswith("/") else item.place
            with open(place, "rb") as file:  # noqa: PTH123 - half the time of Path for small files
                data = file.read(item.size_bytes + 1)
            is_same = hashlib.sha256(data).hexdigest() == item.version
    except OSError as error:
        raise UnreadError("unreadable", f"the file cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UnreadError("unreachable", error.what) from None
    if not is_same:
        raise UnreadError("unreadable", _CHANGED)
    return data


def _fetched(items: Sequence[Item]) -> Iterator[bytes | DataError]:
    """Objects of storage, a few on their way while one is used."""
    coming: deque[Future[bytes | DataError]] = deque()
    with ThreadPoolExecutor(FETCHES_AT_ONCE) as threads:
        try:
            for item in items:
                coming.append(threads.submit(_result, item))
                if len(coming) > FETCHES_AT_ONCE:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for left in coming:
                left.cancel()


def _archived(items: Sequence[Item], *, archive: Archive) -> Iterator[bytes | DataError]:
    """Members of one archive."""
    try:
        file = opened_archive(archive)
    except DataError as error:
        yield from (DataError(item.reason, item.detail) if item.reason else error for item in items)
        return
    with file:
        opened = Opened(file, kind=archive.kind)
        for item in items:
            try:
                yield _member(item, opened=opened)
            except DataError as error:
                yield error


def _member(item: Item, *, opened: Opened) -> bytes:
    if item.reason:
        raise DataError(item.reason, item.detail)
    try:
        return opened.read(offset_bytes=item.offset_bytes, size_bytes=item.size_bytes, crc32=item.crc32)
    except UserError as error:
        raise UnreadError("unreachable", error.what) from None


def opened_archive(archive: Archive) -> BinaryIO:
    """A seekable reader of an archive, which the caller closes.

    Raises:
        DataError: it cannot be read, or is not what was listed.
    """
    try:
        if is_on_storage(archive.place):
            base, _, name = archive.place.rpartition("/")
            seen = [(entry.version, entry.size_bytes) for entry in Folder(base).entries(name)]
            if not seen:
                raise UnreadError("unreachable", f"{archive.place} is not there")
            is_same = seen == [(archive.version, archive.size_bytes)]
            file = Folder(base).open(name)
        else:
            file = open(archive.place, "rb")  # noqa: PTH123, SIM115 - the caller closes it
            facts = os.fstat(file.fileno())
            is_same = (facts.st_size, facts.st_mtime_ns) == (archive.size_bytes, archive.mtime_ns)
    except OSError as error:
        raise UnreadError("unreadable", f"the archive cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UnreadError("unreachable", error.what) from None
    if not is_same:
        file.close()
        raise UnreadError("unreadable", "the archive changed while it was read")
    return file
