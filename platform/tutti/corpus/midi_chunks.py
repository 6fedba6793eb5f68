"""The frame of a MIDI file, read before a parser sees it: header, time base, and the bytes of each track.

What is meant is taken where it is plain, and refused where it is not:

- RIFF wrapping, chunks of other kinds and bytes after the last chunk are passed over.
- A header of more than 6 bytes is read by its first 6. Where its stated length leads to no chunk and a track begins
  right after the usual 14 bytes, it is the length that is wrong.
- All tracks are read, also those that the header does not count. Fewer than it counts means a file that was cut.
- SMPTE time counts fractions of a second: it becomes ticks of a quarter and a tempo that give each tick its exact
  time. Tempo and meter events count in beats, of which such a file has none, and are passed over.

Source: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1996); RIFF wrapping is Microsoft's RMID.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tutti.errors import DataError

MAX_FILE_BYTES = 32 * 2**20
MAX_TRACKS = 2**16 - 1

_HEADER_BYTES, _CHUNK_HEAD_BYTES = 14, 8
_META, _TRACK_NAME = 0xFF, 0x03
# By frames a second: ticks of a quarter for each tick of a frame, and microseconds of a quarter. 29 is 30,000 / 1,001.
_SMPTE = {24: (12, 500_000), 25: (25, 1_000_000), 29: (15, 500_500), 30: (15, 500_000)}


@dataclass(frozen=True, slots=True)
class Chunks:
    """A sound frame.

    Args:
        kind: 0, 1 or 2; each track of a file of type 2 is a piece of its own.
        ticks_per_quarter: 1 to 32767.
        microseconds_per_quarter: the one tempo of a file in SMPTE time; None where its events tell.
        tracks: the bytes of each track.
    """

    kind: int
    ticks_per_quarter: int
    microseconds_per_quarter: int | None
    tracks: list[bytes]

    def pieces(self) -> list[list[bytes]]:
        """The tracks of each piece: all together, or of a type 2 file each alone."""
        return [[track] for track in self.tracks] if self.kind == 2 else [self.tracks]


def read_chunks(data: bytes) -> Chunks:
    """The frame of a MIDI file.

    Raises:
        DataError: empty, unreadable, no_notes (no track), bad_time (division) or too_long (size, tracks).
    """
    if not data:
        raise DataError("empty", "the file holds no bytes")
    if len(data) > MAX_FILE_BYTES:
        raise DataError("too_long", f"{len(data)} bytes are more than the limit of {MAX_FILE_BYTES}")
    if data[:4] == b"RIFF":
        data = _unwrapped(data)
    if data[:4] != b"MThd":
        raise DataError("unreadable", f"the file begins with {bytes(data[:4])!r}, not with a MIDI header")
    if len(data) < _HEADER_BYTES:
        raise DataError("unreadable", f"the file ends inside its header, after {len(data)} bytes")
    header_bytes, kind, track_count, division = struct.unpack_from(">IHHH", data, 4)
    if kind > 2:
        raise DataError("unreadable", f"MIDI type {kind} is none of 0, 1 and 2")
    ticks_per_quarter, microseconds_per_quarter = _time_base(division)
    tracks = _tracks(data, start=_header_end(data, stated=_CHUNK_HEAD_BYTES + header_bytes))
    if len(tracks) < track_count:
        raise DataError(
            "unreadable", f"the header promises {track_count} tracks and the file holds {len(tracks)}: it is cut short"
        )
    if len(tracks) > MAX_TRACKS:
        raise DataError(
            "too_long", f"{len(tracks)} tracks are more than the limit of {MAX_TRACKS}, which a header can count"
        )
    if not tracks:
        raise DataError("no_notes", "the file holds no track")
    return Chunks(kind, ticks_per_quarter, microseconds_per_quarter, tracks)


def first_name(track: bytes) -> str | None:
    """The name at tick 0 of a track; a file of several tracks keeps its title in that of the first."""
    at = 0
    while at + 3 < len(track) and track[at] == 0 and track[at + 1] == _META:
        kind = track[at + 2]
        length, start = variable_length(track, at + 3)
        if kind == _TRACK_NAME:
            return _text(track[start : start + length])
        at = start + length
    return None


def variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and the position after it."""
    value = 0
    for byte in data[at : at + 4]:
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            break
    return value, at


def _unwrapped(data: bytes) -> bytes:
    if data[8:12] != b"RMID":
        raise DataError("unreadable", f"the file is RIFF of kind {bytes(data[8:12])!r}, not RMID")
    at = 12
    while at + _CHUNK_HEAD_BYTES <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"data":
            return data[at + _CHUNK_HEAD_BYTES : at + _CHUNK_HEAD_BYTES + size]
        at += _CHUNK_HEAD_BYTES + size + size % 2
    raise DataError("unreadable", "the RIFF file holds no MIDI data")


def _time_base(division: int) -> tuple[int, int | None]:
    """Ticks per quarter, and microseconds of a quarter where they are fixed."""
    if division & 0x8000:
        frames, ticks_of_frame = 256 - (division >> 8), division & 0xFF
        if frames not in _SMPTE or not ticks_of_frame:
            raise DataError("bad_time", f"SMPTE time of {frames} frames a second by {ticks_of_frame} ticks is none")
        ticks, microseconds = _SMPTE[frames]
        return ticks * ticks_of_frame, microseconds
    if division == 0:
        raise DataError("bad_time", "0 ticks per quarter give no finite length")
    return division, None


def _header_end(data: bytes, *, stated: int) -> int:
    """Where the chunks after the header begin."""
    if stated != _HEADER_BYTES and data[_HEADER_BYTES : _HEADER_BYTES + 4] == b"MTrk":
        return _HEADER_BYTES
    if stated < _HEADER_BYTES:
        raise DataError("unreadable", f"a header of {stated - _CHUNK_HEAD_BYTES} bytes is not a MIDI file's")
    return stated


def _tracks(data: bytes, *, start: int) -> list[bytes]:
    tracks: list[bytes] = []
    at = start
    while at + _CHUNK_HEAD_BYTES <= len(data):
        name, size = struct.unpack_from(">4sI", data, at)
        if not name.isalnum():
            break  # bytes after the last chunk: some editors pad their files
        at += _CHUNK_HEAD_BYTES
        if at + size > len(data):
            missing = at + size - len(data)
            raise DataError("unreadable", f"the file is cut short: {missing} bytes of track {len(tracks) + 1} are gone")
        if name == b"MTrk":
            tracks.append(data[at : at + size])
        at += size
    return tracks


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split()) or None
