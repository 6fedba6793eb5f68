"""What lies below a folder or a storage prefix, in order of names: music, archives and tables beside them.

Files on this machine are known by the SHA-256 of their bytes, which a :class:`HashIndex` remembers; objects on storage
by what the listing tells of them. No music is kept in memory, and no object on storage is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tutti.corpus import archives, sidecars
from tutti.corpus.file_index import HashIndex, Mark
from tutti.corpus.item import is_music, is_on_storage, limit_bytes, too_large
from tutti.storage import Folder

FILES_AT_ONCE = 1024
HASHING_THREADS = 8
# Handing a file to a thread costs as much as hashing a small one.
_FILES_OF_A_THREAD = 32
_SMALL_BYTES = 2**20


@dataclass(slots=True)
class Found:
    """One file of a listing.

    Args:
        path: below the folder that was listed.
        place: of its folder, on storage of the folder listed, ending in ``/``; its own if its name is no text.
        size_bytes: its size.
        mtime_ns: when it was changed; 0 on storage.
        version: what its bytes are known by; empty where it is refused, and for tables, which are read anyway.
        reason, detail: why it is refused, if it is.
    """

    path: str
    place: str
    size_bytes: int = 0
    mtime_ns: int = 0
    version: str = ""
    reason: str = ""
    detail: str = ""

    @property
    def full_place(self) -> str:
        """Its own path or address."""
        if not self.place.endswith("/"):
            return self.place
        return self.place + (self.path if is_on_storage(self.place) else self.path.rpartition("/")[2])


def is_listed(name: str) -> bool:
    """Whether a file of this name is music, an archive, or a table that may tell of music."""
    return not name.startswith(".") and (is_music(name) or bool(archives.kind_of(name)) or sidecars.is_sidecar(name))


def on_disk(root: str, *, index: HashIndex | None) -> Iterator[Found]:
    """Files below a folder of this machine. Links to files are files, links to folders are passed over.

    Args:
        root: absolute path of the folder.
        index: hashes known from before; it learns the others.
    """
    if index is not None:
        index.walk(root)
    seen = _walked(root)
    with ThreadPoolExecutor(HASHING_THREADS) as threads:
        while batch := _some(seen, index=index, threads=threads):
            yield from batch


def one_file(path: str, *, index: HashIndex | None) -> Found:
    """A file of this machine by its absolute path."""
    folder, name = os.path.split(path)
    seen = _seen(name, folder=folder, below="")
    with ThreadPoolExecutor(1) as threads:
        (found,) = _some(iter([seen]), index=index, threads=threads)
    return found


def on_storage(folder: Folder, *, path: str = "") -> Iterator[Found]:
    """Objects below a prefix, or the one that ``path`` names.

    Raises:
        PlaceError: the storage cannot be listed.
    """
    place = f"{folder.uri}/"
    for entry in sorted(folder.entries(path), key=lambda entry: entry.path.split("/")):
        name = entry.path.rpartition("/")[2]
        if is_listed(name):
            found = Found(entry.path, place=place, size_bytes=entry.size_bytes, version=entry.version)
            _refuse_too_large(found)
            yield found


@dataclass(slots=True)
class _Seen:
    """A file between the walk and its hash."""

    folder: str
    name: str
    mark: Mark
    found: Found


def _walked(root: str) -> Iterator[_Seen]:
    """Files below ``root``: of each folder in order of names, a folder's where its name stands."""
    stack: list[Iterator[_Seen | tuple[str, str]]] = [iter([(root, "")])]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, _Seen):
            yield entry
        else:
            folder, below = entry
            stack.append(_scanned(folder, below=below))


def _scanned(folder: str, *, below: str) -> Iterator[_Seen | tuple[str, str]]:
    """Files of one folder, and its folders with what comes before their files' names."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        path = _text(below).rstrip("/") or "."
        refused = Found(path, place=folder, reason="unreadable", detail=f"the folder cannot be read: {error.strerror}")
        yield _Seen(folder, name="", mark=Mark(0, 0, 0), found=refused)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield entry.path, f"{below}{entry.name}/"
        elif is_listed(entry.name) and not (entry.is_symlink() and entry.is_dir()):
            yield _seen(entry.name, folder=folder, below=below, entry=entry)


def _seen(name: str, *, folder: str, below: str, entry: os.DirEntry[str] | None = None) -> _Seen:
    path, place = _text(below + name), f"{folder.rstrip('/')}/"
    found = Found(path, place=place if path.endswith(name) else place + name)
    mark = Mark(0, 0, 0)
    try:
        facts = entry.stat() if entry is not None else os.stat(place + name)  # noqa: PTH116 - as the entry's own
    except OSError as error:
        found.reason, found.detail = "unreadable", f"the file cannot be read: {error.strerror}"
        return _Seen(folder, name=name, mark=mark, found=found)
    mark = Mark(facts.st_size, facts.st_mtime_ns, facts.st_ino)
    found.size_bytes, found.mtime_ns = mark.size_bytes, mark.mtime_ns
    if not stat.S_ISREG(facts.st_mode):
        # Reading a pipe would wait for ever.
        found.reason, found.detail = "unreadable", "it is no file but a folder, pipe, socket or device"
    else:
        _refuse_too_large(found)
    return _Seen(folder, name=name, mark=mark, found=found)


def _refuse_too_large(found: Found) -> None:
    if is_music(found.path) and found.size_bytes > (limit := limit_bytes(found.path)):
        found.reason, found.detail = "too_long", too_large(found.size_bytes, limit=limit)


def _some(seen: Iterator[_Seen], *, index: HashIndex | None, threads: ThreadPoolExecutor) -> list[Found]:
    """The next files, each with its version."""
    seen_ns = time.time_ns()
    batch = list(islice(seen, FILES_AT_ONCE))
    unknown = []
    for file in batch:
        if file.found.reason or sidecars.is_sidecar(file.name):
            continue
        if index is not None:
            file.found.version = index.known(file.folder, file.name, mark=file.mark)
        if not file.found.version:
            unknown.append(file)
    parts = [unknown[start : start + _FILES_OF_A_THREAD] for start in range(0, len(unknown), _FILES_OF_A_THREAD)]
    for part in threads.map(_hash, parts):
        for file in part:
            if index is not None and file.found.version:
                index.learn(file.folder, file.name, mark=file.mark, sha256=file.found.version, seen_ns=seen_ns)
    return [file.found for file in batch]


def _hash(files: Sequence[_Seen]) -> Sequence[_Seen]:
    for file in files:
        try:
            with open(os.path.join(file.folder, file.name), "rb", buffering=0) as opened:  # noqa: PTH118, PTH123
                # file_digest fills a buffer of 256 KiB first, which costs more than a small file.
                is_small = file.mark.size_bytes < _SMALL_BYTES
                digest = hashlib.sha256(opened.read()) if is_small else hashlib.file_digest(opened, "sha256")
            file.found.version = digest.hexdigest()
        except OSError as error:
            file.found.reason, file.found.detail = "unreadable", f"the file cannot be read: {error.strerror}"
    return files


def _text(path: str) -> str:
    """A path as text that can be written: bytes of a name that are no UTF-8 come as ``\\xff``."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
