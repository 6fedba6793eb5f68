"""One file to read: what it is called, under which terms, and where a task finds its bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tutti.corpus import audio, formats, note_tables
from tutti.corpus.metadata import Labels
from tutti.corpus.midi_chunks import MAX_FILE_BYTES
from tutti.corpus.rights import UNKNOWN
from tutti.units import format_bytes

MUSIC21_SCHEME = "music21:"
# Two hours of stereo as FLAC, fifty minutes as WAV.
MAX_AUDIO_BYTES = 512 * 2**20
SUFFIXES = tuple(dict.fromkeys((*formats.SUFFIXES, *audio.SUFFIXES)))
_SUFFIXES = frozenset(SUFFIXES)
_STORAGE = ("s3://", "memory://")


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that holds others.

    Args:
        uri: collection and path below its source, or the address.
        place: a path or a storage address.
        kind: one of :data:`tutti.corpus.archives.KINDS`.
        version: what its bytes are known by.
        size_bytes, mtime_ns: what it had when it was listed; storage tells no ``mtime_ns``.
    """

    uri: str
    place: str
    kind: str
    version: str
    size_bytes: int
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """One file to read.

    Args:
        uri: collection and path below its source, or the address; ``ARCHIVE!member/path`` for what an archive holds.
        collection: name of the source collection.
        licence, licence_origin: its terms, and who stated them.
        place: where a task finds the bytes: a path, a storage address or ``music21:…``; empty where ``data`` or
            ``archive`` is given. Where it ends in ``/``, a thousand files share it: on a disk it is then the file's
            folder, which holds it under the URI's last name, on storage the beginning of the URI.
        version: what its bytes are known by: the SHA-256 of files that were at hand, the ETag of an object on storage,
            the version of music21 for its scores, the version of the archive (and the CRC-32) for a member.
        size_bytes: its size, unpacked.
        data: the bytes, where they were fetched already.
        reason, detail: why it is refused before it is parsed, if it is.
        labels: what a table beside it says of it.
        archive: what it is a member of.
        offset_bytes: where its entry (zip) or its bytes (tar, unpacked) begin in the archive.
    """

    uri: str
    collection: str
    licence: str
    licence_origin: str
    place: str = ""
    version: str = ""
    size_bytes: int = 0
    data: bytes | None = None
    reason: str = ""
    detail: str = ""
    labels: Labels | None = None
    archive: Archive | None = None
    offset_bytes: int = 0

    @property
    def crc32(self) -> int | None:
        """The checksum of a zip's member, which its version ends in; of others nothing."""
        is_zipped = self.archive is not None and self.archive.kind == "zip"
        return int(self.version[-8:], 16) if is_zipped else None

    @property
    def is_trusted(self) -> bool:
        """Whether the file comes from an installed package."""
        return self.place.startswith(MUSIC21_SCHEME)

    def identity(self) -> list[object]:
        """What an address must hash of it, as JSON-like values."""
        labels = self.labels.identity() if self.labels else None
        return [self.uri, self.version, self.collection, self.licence, self.licence_origin, self.reason, labels]


def stated_by_caller(licence: str) -> str:
    """Who stated a licence that came with the source's name."""
    return "nobody" if licence == UNKNOWN else "the caller of ingest"


def is_on_storage(place: str) -> bool:
    """Whether a place is an address of object storage."""
    return place.startswith(_STORAGE)


def is_music(name: str) -> bool:
    """Whether a name ends in a format that can be read, of notes or of audio."""
    return _suffix(name) in _SUFFIXES


def limit_bytes(name: str) -> int:
    """The largest file of this name that is read."""
    suffix = _suffix(name)
    if suffix in note_tables.SUFFIXES:
        return note_tables.MAX_FILE_BYTES
    return MAX_AUDIO_BYTES if suffix in audio.SUFFIXES else MAX_FILE_BYTES


def too_large(size_bytes: int, *, limit: int) -> str:
    """The line that says so."""
    return f"{format_bytes(size_bytes)} are more than the limit of {format_bytes(limit)}"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - four times as fast, and asked for every file
