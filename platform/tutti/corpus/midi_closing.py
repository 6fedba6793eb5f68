"""Tracks of a MIDI file made ready for a parser that trusts: every note ends, and a misread track shows.

symusic reads what stands there: a note without an end is dropped, ticks past 2^31 wrap, and bytes that are no events
are read as some. So each track gets a tail in place of its end-of-track:

- a witness, a tempo event of a value that the file holds nowhere, at the tick where the track ends. A track whose
  events were read out of step has lost it, and one that wrapped has it at a negative tick;
- :data:`PAUSE_TICKS` later, an end for every pitch of every channel that has notes. A note of that length had no end.

What stands after an end-of-track inside its chunk is not music.
"""

from __future__ import annotations

import re

import numpy as np

from tutti.corpus.midi_chunks import variable_length
from tutti.errors import DataError

PAUSE_TICKS = 2**30
MAX_TICKS = PAUSE_TICKS - 1
MAX_DELTA_TICKS = 2**28 - 1
_WRAP_TICKS = 2**32

_END_OF_TRACK = b"\xff\x2f\x00"
_META, _SYSTEM_EXCLUSIVE = 0xFF, (0xF0, 0xF7)
_WITNESS_MICROSECONDS = 0xFEDCBA
_NO_EVENT = b"\xff\x01\x00"
# The longest delta four times, each before a text event without text, and the 4 ticks that are left of the pause.
_PAUSE = (b"\xff\xff\xff\x7f" + _NO_EVENT) * 4 + bytes((PAUSE_TICKS - 4 * MAX_DELTA_TICKS,)) + _NO_EVENT
_ENDS = [
    b"\x00" + bytes((0x80 | channel,)) + b"\x00".join(bytes((pitch, 0)) for pitch in range(128))
    for channel in range(16)
]
_TAIL = b"\x00" + _END_OF_TRACK
_ODD_PITCH = re.compile(rb"[\x8f\x9f][\x80-\xff]")
_IS_HIGH = bytes(128) + b"\x01" * 128
# Bytes of data after each status 0x80 to 0xE0, by its high nibble.
_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}


def witness(tracks: list[bytes]) -> int:
    """Microseconds a quarter that none of the tracks' bytes can be read as."""
    value = _WITNESS_MICROSECONDS
    while any(value.to_bytes(3, "big") in track for track in tracks):
        value -= 1
    return value


def closed(track: bytes, *, witness_microseconds: int) -> bytes:
    """The track with its tail; see the module's first lines.

    Raises:
        DataError: too_long, past 2^32 ticks, shorter ones show by their witness; unreadable, where a walk of the events
            meets what is none.
    """
    end = _end_of_events(track)
    _check_wrapping(track)
    _check_pitches(track)
    ends = [_ENDS[channel] for channel in range(16) if (0x90 | channel) in track]
    # The end-of-track's own delta now stands before the witness; a track without one gets a delta of 0.
    body = track if end is None else track[:end]
    start = b"\x00\xff\x51\x03" if end is None else b"\xff\x51\x03"
    return b"".join((body, start, witness_microseconds.to_bytes(3, "big"), _PAUSE, *ends, _TAIL))


def _end_of_events(track: bytes) -> int | None:
    """Where the end-of-track event begins, after its delta; None where there is none."""
    at = track.find(_END_OF_TRACK)
    if at == len(track) - len(_END_OF_TRACK) or at < 0:
        return at if at >= 0 else None
    # The same three bytes may stand inside a text or a delta: only a walk tells.
    return _walk(track)[0]


def _check_wrapping(track: bytes) -> None:
    """Refuse a track whose ticks go around 2^32 and would look short again."""
    # Deltas of two bytes are below 2^14; the others have a run of two or three high bytes, and are below 2^21 and 2^28.
    most = (len(track) // 2) << 14
    if most < _WRAP_TICKS:
        high = track.translate(_IS_HIGH)
        runs = high.count(b"\x01\x01")
        if most + (runs << 28) < _WRAP_TICKS:
            return
        if most + (runs << 21) + (high.count(b"\x01\x01\x01") << 28) < _WRAP_TICKS:
            return
    # Still cheap beside the walk: every run of bytes read as a number, no fewer than the ticks.
    if _upper_bound_ticks(track) >= _WRAP_TICKS and _walk(track)[1] > MAX_TICKS:
        raise DataError("too_long", f"a track is longer than the limit of {MAX_TICKS} ticks")


def _check_pitches(track: bytes) -> None:
    """Refuse pitches past 127 on the last channel: symusic keeps notes by channel and pitch, and writes past the end.

    In running status a byte past 127 is a status, so such a pitch stands right after its own.
    """
    if (b"\x8f" in track or b"\x9f" in track) and _ODD_PITCH.search(track):
        _walk(track)


def _upper_bound_ticks(data: bytes) -> int:
    """Sum of every run of bytes read as a variable-length number: no fewer than the ticks of the track."""
    octets = np.frombuffer(data, dtype=np.uint8)
    goes_on, value = octets >= 0x80, (octets & 0x7F).astype(np.int64)
    low, chained = value.copy(), np.ones(len(octets), dtype=bool)
    for shift in (1, 2, 3):
        chained[:shift] = False
        chained[shift:] &= goes_on[:-shift]
        value[shift:] += np.where(chained[shift:], low[:-shift] << (7 * shift), 0)
    return int(value[~goes_on].sum())


def _walk(track: bytes) -> tuple[int | None, int]:
    """Event by event: where the first end-of-track begins, if there is one, and the ticks up to there.

    Strict, since it is asked about tracks that are odd already: what the standard does not allow is refused, lest
    symusic read on from another place than this walk.
    """
    at = ticks = status = running = 0
    while at < len(track):
        delta, at = variable_length(track, at)
        ticks += delta
        if at >= len(track):
            break
        event = at
        if track[at] >= 0x80:
            status, at = track[at], at + 1
        if status == _META:
            if track[event + 1 : event + 3] == _END_OF_TRACK[1:]:
                return event, ticks
            length, at = variable_length(track, at + 1)
            at, status = at + length, running
        elif status in _SYSTEM_EXCLUSIVE:
            length, at = variable_length(track, at)
            at, status = at + length, 0
        elif status >> 4 in _DATA_BYTES:
            data = track[at : at + _DATA_BYTES[status >> 4]]
            if any(byte >= 0x80 for byte in data):
                raise DataError("unreadable", f"an event of status {status:#x} has the data {data.hex(' ')}")
            at += len(data)
        else:
            raise DataError("unreadable", f"a track holds the byte {track[event]} where an event must begin")
        running = status
    return None, ticks
