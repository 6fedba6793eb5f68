"""Hashes of files that were read before, so that an unchanged folder is listed without reading it.

A file is taken for unchanged while its size, time of change and inode are what they were when it was hashed, as git's
index does (https://git-scm.com/docs/racy-git). A file that was changed within two seconds of being hashed is not
remembered: it could change again without its time telling (two seconds are the coarsest clock, that of FAT).
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import NamedTuple

from tutti.errors import MissingError
from tutti.storage import Folder

RACY_NS = 2 * 10**9
_HEAD = "tutti file index 1"
_MARK = struct.Struct(">QqQ")
_SHA256_BYTES = 32


class Mark(NamedTuple):
    """What tells, without reading, that a file is the one that was hashed."""

    size_bytes: int
    mtime_ns: int
    inode: int


class HashIndex:
    """SHA-256 by folder and name, kept in one object on disk or storage.

    One run reads it, asks and tells it, and writes it whole; files below a folder that the run walked, and that it did
    not ask for, are forgotten.
    """

    def __init__(self, folder: Folder, *, path: str) -> None:
        self._folder, self._path = folder, path
        self._kept: dict[str, dict[str, bytes]] = {}
        self._fresh: dict[str, dict[str, bytes]] = {}
        self._walked: list[str] = []
        self._learnt = False

    @classmethod
    def read(cls, folder: Folder, *, path: str) -> HashIndex:
        """The index at ``path``; an empty one where there is none, or one that is damaged.

        Raises:
            PlaceError: the folder cannot be read.
        """
        index = cls(folder, path=path)
        try:
            data = folder.read(path)
        except MissingError:
            return index
        head, _, body = data.partition(b"\n")
        if head == _head(body):
            index._kept = _parsed(body)
        return index

    def write(self) -> None:
        """Put it where it was read from, whole; where nothing was learnt or forgotten, nothing is written.

        Raises:
            PlaceError: the folder cannot be written.
        """
        folders = {name: files for name, files in self._kept.items() if not self._was_walked(name)} | self._fresh
        if not self._learnt and folders == self._kept:
            return
        body = _written(folders)
        self._folder.write(self._path, _head(body) + b"\n" + body)
        self._kept, self._fresh, self._walked, self._learnt = folders, {}, [], False

    def walk(self, root: str) -> None:
        """Say that all files below the folder ``root`` will be asked for."""
        self._walked.append(root)

    def known(self, folder: str, name: str, *, mark: Mark) -> str:
        """SHA-256 of the file, empty where it is not known or has changed."""
        kept = self._kept.get(folder)
        packed = kept.get(name) if kept else None
        if packed is None or packed[: _MARK.size] != _MARK.pack(*mark):
            return ""
        self._fresh.setdefault(folder, {})[name] = packed
        return packed[_MARK.size :].hex()

    def learn(self, folder: str, name: str, *, mark: Mark, sha256: str, seen_ns: int) -> None:
        """Remember a hash.

        Args:
            folder, name: the file.
            mark: what it had before it was read.
            sha256: of what was read then.
            seen_ns: when ``mark`` was taken, or earlier, in nanoseconds since 1970.
        """
        self._learnt = True
        if mark.mtime_ns < seen_ns - RACY_NS:
            self._fresh.setdefault(folder, {})[name] = _MARK.pack(*mark) + bytes.fromhex(sha256)

    def _was_walked(self, folder: str) -> bool:
        return any(folder == root or folder.startswith(f"{root.rstrip('/')}/") for root in self._walked)


def _head(body: bytes) -> bytes:
    return f"{_HEAD} {hashlib.sha256(body).hexdigest()}".encode()


def _written(folders: dict[str, dict[str, bytes]]) -> bytes:
    # A folder's line is a JSON string, a file's its mark and hash in hexadecimal digits and then its name.
    lines = []
    for folder, files in sorted(folders.items()):
        lines.append(json.dumps(folder))
        lines += [f"{packed.hex()} {json.dumps(name)}" for name, packed in sorted(files.items())]
    return "\n".join(lines).encode()


def _parsed(body: bytes) -> dict[str, dict[str, bytes]]:
    folders: dict[str, dict[str, bytes]] = {}
    files: dict[str, bytes] = {}
    digits = 2 * (_MARK.size + _SHA256_BYTES)
    for line in body.decode().split("\n") if body else ():
        if line.startswith('"'):
            files = folders.setdefault(json.loads(line), {})
        else:
            files[json.loads(line[digits + 1 :])] = bytes.fromhex(line[:digits])
    return folders
