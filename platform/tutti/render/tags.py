"""What a sound file says of its piece: title, mood, tempo, key, model, licence, in each format's own way.

FLAC and OGG carry Vorbis comments (https://xiph.org/vorbis/doc/v-comment.html, names as in the Picard tag map), MP3 an
ID3 tag of version 2.4 (https://id3.org/id3v2.4.0-frames), WAV both a RIFF INFO list and that ID3 tag. All are written
here, into the file that the encoder gave without any: libsndfile knows no tempo, key or mood, and mutagen, which does,
is under the GPL; the tests read every tag back with it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tutti.errors import IntegrityError
from tutti.render import ogg

MADE_BY = "Tutti"

_FLAC_COMMENTS = 4
_LAST_BLOCK = 0x80


@dataclass(frozen=True, slots=True)
class Tags:
    """What is known of a piece; whatever is empty is left out.

    Args:
        title: of the piece.
        mood: a word.
        tempo_qpm: quarters a minute at its beginning.
        key: such as ``D minor``.
        model: name and version of what composed it.
        licence: of the works that the model learnt from.
        comment: anything else, in a sentence.
    """

    title: str = ""
    mood: str = ""
    tempo_qpm: float | None = None
    key: str = ""
    model: str = ""
    licence: str = ""
    comment: str = ""

    @property
    def short_key(self) -> str:
        """The key in at most three characters, as ID3 and players want it: ``Dm``."""
        tonic, _, mode = self.key.partition(" ")
        return tonic + ("m" if mode == "minor" else "")

    @property
    def bpm(self) -> str:
        """The tempo, whole."""
        return "" if self.tempo_qpm is None else f"{self.tempo_qpm:.0f}"


def tagged(data: bytes, *, kind: str, tags: Tags) -> bytes:
    """An encoded file with its tags.

    Args:
        data: as the encoder gave it, without tags.
        kind: ``wav``, ``flac``, ``mp3`` or ``ogg``.
        tags: what it is to say.

    Raises:
        IntegrityError: it is no file of that kind.
    """
    if kind == "mp3":
        return _id3(tags) + data
    if kind == "ogg":
        return ogg.settled(data, comments=_comments(tags))
    return _flac(data, tags) if kind == "flac" else _wav(data, tags)


def _comments(tags: Tags) -> list[str]:
    named = {
        "TITLE": tags.title,
        "ARTIST": tags.model,
        "MOOD": tags.mood,
        "BPM": tags.bpm,
        "KEY": tags.key,
        "INITIALKEY": tags.short_key,
        "LICENSE": tags.licence,
        "COMMENT": tags.comment,
        "ENCODED-BY": MADE_BY,
    }
    return [f"{name}={value}" for name, value in named.items() if value]


def _flac(data: bytes, tags: Tags) -> bytes:
    """The stream with one block of comments, ours, and no padding (https://xiph.org/flac/format.html)."""
    if not data.startswith(b"fLaC"):
        raise IntegrityError("the encoder gave no FLAC stream")
    blocks, at, last = [], 4, False
    vendor = b""
    while not last:
        kind, size = data[at] & ~_LAST_BLOCK, int.from_bytes(data[at + 1 : at + 4], "big")
        last = bool(data[at] & _LAST_BLOCK)
        body = data[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == _FLAC_COMMENTS:
            vendor = body[: 4 + int.from_bytes(body[:4], "little")]
        elif kind != 1:
            blocks.append((kind, body))
    told = (vendor or struct.pack("<I", len(MADE_BY)) + MADE_BY.encode()) + ogg.comment_list(_comments(tags))
    heads = b"".join(bytes([kind]) + len(body).to_bytes(3, "big") + body for kind, body in blocks)
    return b"fLaC" + heads + bytes([_FLAC_COMMENTS | _LAST_BLOCK]) + len(told).to_bytes(3, "big") + told + data[at:]


def _wav(data: bytes, tags: Tags) -> bytes:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise IntegrityError("the encoder gave no WAV file")
    told = {
        b"INAM": tags.title,
        b"IART": tags.model,
        b"IGNR": tags.mood,
        b"ICOP": tags.licence,
        b"ICMT": ", ".join(text for text in (tags.key, tags.bpm and f"{tags.bpm} bpm", tags.comment) if text),
        b"ISFT": MADE_BY,
    }
    entries = b"".join(_chunk(name, value.encode() + b"\0") for name, value in told.items() if value)
    added = _chunk(b"LIST", b"INFO" + entries) + _chunk(b"id3 ", _id3(tags))
    return data[:4] + struct.pack("<I", len(data) - 8 + len(added)) + data[8:] + added


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _id3(tags: Tags) -> bytes:
    frames = {
        b"TIT2": tags.title,
        b"TPE1": tags.model,
        b"TMOO": tags.mood,
        b"TBPM": tags.bpm,
        b"TKEY": tags.short_key,
        b"TCOP": tags.licence,
        b"TENC": MADE_BY,
    }
    body = b"".join(_frame(name, b"\x03" + value.encode()) for name, value in frames.items() if value)
    for name, value in (("KEY", tags.key), ("LICENSE", tags.licence)):
        body += _frame(b"TXXX", b"\x03" + name.encode() + b"\0" + value.encode()) if value else b""
    if tags.comment:
        body += _frame(b"COMM", b"\x03eng\0" + tags.comment.encode())
    return b"ID3\x04\0\0" + _in_sevens(len(body)) + body


def _frame(name: bytes, body: bytes) -> bytes:
    return name + _in_sevens(len(body)) + b"\0\0" + body


def _in_sevens(size: int) -> bytes:
    """A size in four bytes of seven bits."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
