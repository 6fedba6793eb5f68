"""The frame of a MIDI file, checked before a parser sees it.

symusic reads past what it should trust: a file cut between two events gives notes of negative velocity, ticks past 2^31
wrap, a division of 0 gives an infinite length. What this module lets through has a sound header, whole chunks and ticks
that fit 31 bits.

Source: Standard MIDI Files 1.0 (MIDI Manufacturers Association, 1996); RIFF wrapping is Microsoft's RMID.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tutti.errors import DataError

MAX_FILE_BYTES = 32 * 2**20
MAX_TICKS = 2**31 - 1

_HEADER_BYTES = 14
_META, _TRACK_NAME = 0xFF, 0x03
# Bytes of data after each status 0x80 to 0xE0, by its high nibble.
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


@dataclass(frozen=True, slots=True)
class Chunks:
    """A sound frame.

    Args:
        data: the file from its header on, without any RIFF wrapping.
        ticks_per_quarter: 1 to 32767.
        tracks: the bytes of each track.
    """

    data: bytes
    ticks_per_quarter: int
    tracks: tuple[bytes, ...]

    def first_name(self) -> str | None:
        """The name at tick 0 of the first track, where a file of several tracks keeps its title."""
        track, at = self.tracks[0], 0
        while at + 3 < len(track) and track[at] == 0 and track[at + 1] == _META:
            kind = track[at + 2]
            length, start = _variable_length(track, at + 3)
            if kind == _TRACK_NAME:
                return _text(track[start : start + length])
            at = start + length
        return None


def read_chunks(data: bytes) -> Chunks:
    """Check the frame of a MIDI file.

    Raises:
        DataError: empty, unreadable, no_notes (no track), bad_time (division) or too_long (size, ticks).
    """
    if not data:
        raise DataError("empty", "the file holds no bytes")
    if len(data) > MAX_FILE_BYTES:
        raise DataError("too_long", f"{len(data)} bytes are more than the limit of {MAX_FILE_BYTES}")
    data = _unwrapped(data)
    if data[:4] != b"MThd":
        raise DataError("unreadable", f"the file begins with {bytes(data[:4])!r}, not with a MIDI header")
    if len(data) < _HEADER_BYTES:
        raise DataError("unreadable", f"the file ends inside its header, after {len(data)} bytes")
    header_bytes, kind, track_count, division = struct.unpack(">IHHH", data[4:_HEADER_BYTES])
    if kind > 2 or header_bytes < 6:
        raise DataError("unreadable", f"MIDI type {kind} with a header of {header_bytes} bytes is not a MIDI file")
    if kind == 2 and track_count > 1:
        raise DataError("unreadable", f"MIDI type 2 holds {track_count} independent pieces; save each as type 1")
    if division & 0x8000:
        raise DataError(
            "bad_time", f"SMPTE time ({256 - (division >> 8)} frames a second) is not supported; save with beats"
        )
    if division == 0:
        raise DataError("bad_time", "0 ticks per quarter give no finite length")
    tracks = _tracks(data, start=8 + header_bytes)
    if len(tracks) < track_count:
        raise DataError(
            "unreadable", f"the header promises {track_count} tracks and the file holds {len(tracks)}: it is cut short"
        )
    if not tracks:
        raise DataError("no_notes", "the file holds no track")
    # The exact walk is slow, so an upper bound decides first whether it is needed.
    if _upper_bound_ticks(data) > MAX_TICKS and max(map(_last_tick, tracks)) > MAX_TICKS:
        raise DataError("too_long", f"a track is longer than the limit of {MAX_TICKS} ticks")
    return Chunks(data=data, ticks_per_quarter=division, tracks=tracks)


def _unwrapped(data: bytes) -> bytes:
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[at : at + 8])
        if name == b"data":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise DataError("unreadable", "the RIFF file holds no MIDI data")


def _tracks(data: bytes, *, start: int) -> tuple[bytes, ...]:
    tracks: list[bytes] = []
    at = start
    while at + 8 <= len(data):
        name, size = struct.unpack(">4sI", data[at : at + 8])
        if not name.isalnum():
            break  # bytes after the last chunk: some editors pad their files
        if at + 8 + size > len(data):
            missing = at + 8 + size - len(data)
            raise DataError("unreadable", f"the file is cut short: {missing} bytes of track {len(tracks) + 1} are gone")
        if name == b"MTrk":
            tracks.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return tuple(tracks)


def _upper_bound_ticks(data: bytes) -> int:
    """Sum of every run of bytes read as a variable-length number: no fewer than the ticks of any track."""
    octets = np.frombuffer(data, dtype=np.uint8)
    goes_on, value = octets >= 0x80, (octets & 0x7F).astype(np.int64)
    low, chained = value.copy(), np.ones(len(octets), dtype=bool)
    for shift in (1, 2, 3):
        chained[:shift] = False
        chained[shift:] &= goes_on[:-shift]
        value[shift:] += np.where(chained[shift:], low[:-shift] << (7 * shift), 0)
    return int(value[~goes_on].sum())


def _last_tick(track: bytes) -> int:
    """Ticks of a whole track, event by event."""
    at = ticks = status = 0
    while at < len(track):
        delta, at = _variable_length(track, at)
        ticks += delta
        if at >= len(track):
            break
        if track[at] >= 0x80:
            status, at = track[at], at + 1
        if status in (0xF0, 0xF7, _META):
            length, at = _variable_length(track, at + (status == _META))
            at += length
        elif status >> 4 in _DATA_BYTES:
            at += _DATA_BYTES[status >> 4]
        else:
            raise DataError("unreadable", f"a track holds a data byte {track[at]} without a status before it")
    return ticks


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and the position after it."""
    value = 0
    for byte in data[at : at + 4]:
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            break
    return value, at


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split()) or None
