"""Ogg streams as the same bytes every time, with comments of our own.

An Ogg file is a row of pages (RFC 3533). libvorbis draws the stream's serial number from the clock; here it becomes a
number made from the stream itself, and the checksum of every page that carries it is made anew. The second packet of a
Vorbis stream holds its comments, and the third what decoders need; both are laid out anew on pages of their own, before
the first page of sound (Vorbis I specification, sections 4.2.1 and A.2).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tutti.errors import IntegrityError

_HEAD = struct.Struct("<4sBBqIIIB")
_CONTINUED = 1
_MOST_SEGMENTS, _SEGMENT_BYTES = 255, 255
_NO_PACKET_ENDS = -1
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    position: int
    segments: bytes
    body: bytes

    def packed(self, *, serial: int, number: int) -> bytes:
        head = _HEAD.pack(b"OggS", 0, self.flags, self.position, serial, number, 0, len(self.segments))
        data = head + self.segments + self.body
        return data[:22] + struct.pack("<I", _checksum(data)) + data[26:]


def _checksum(data: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7 from 0, high bit first: zlib's, which is low bit first, seen in a mirror."""
    mirrored = zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def settled(data: bytes, *, comments: list[str]) -> bytes:
    """A Vorbis stream with a serial number that depends on it alone, and with these comments, ``NAME=value``.

    Raises:
        IntegrityError: it is no Vorbis stream.
    """
    first, *pages = _pages(data)
    of_headers = 0
    lengths: list[int] = []
    # The second and third packet end together with a page.
    while len(lengths) < 2 and of_headers < len(pages):
        of_headers += 1
        lengths = list(_packet_lengths(b"".join(page.segments for page in pages[:of_headers])))
    packets = b"".join(page.body for page in pages[:of_headers])
    if len(lengths) != 2 or sum(lengths) != len(packets) or not packets.startswith(b"\x03vorbis"):
        raise IntegrityError("the encoder gave no Vorbis stream")
    vendor_bytes = int.from_bytes(packets[7:11], "little")
    vendor = packets[7 : 11 + vendor_bytes]
    told = b"\x03vorbis" + vendor + comment_list(comments) + b"\x01"
    laid = [first, *_laid_out([told, packets[lengths[0] :]]), *pages[of_headers:]]
    serial = zlib.crc32(b"".join(page.body for page in laid))
    return b"".join(page.packed(serial=serial, number=number) for number, page in enumerate(laid))


def comment_list(comments: list[str]) -> bytes:
    """Comments as Vorbis and FLAC store them, after the vendor's name."""
    lines = [comment.encode() for comment in comments]
    return struct.pack("<I", len(lines)) + b"".join(struct.pack("<I", len(line)) + line for line in lines)


def _pages(data: bytes) -> Iterator[_Page]:
    at = 0
    while at < len(data):
        if data[at : at + 4] != b"OggS":
            raise IntegrityError("the encoder gave no Ogg pages")
        _, _, flags, position, _, _, _, count = _HEAD.unpack_from(data, at)
        body = at + _HEAD.size + count
        segments = data[at + _HEAD.size : body]
        at = body + sum(segments)
        yield _Page(flags, position, segments, data[body:at])


def _packet_lengths(segments: bytes) -> Iterator[int]:
    length = 0
    for segment in segments:
        length += segment
        if segment < _SEGMENT_BYTES:
            yield length
            length = 0


def _laid_out(packets: list[bytes]) -> list[_Page]:
    """Packets of a header on pages of their own."""
    segments = b"".join(
        bytes([_SEGMENT_BYTES]) * (len(packet) // _SEGMENT_BYTES) + bytes([len(packet) % _SEGMENT_BYTES])
        for packet in packets
    )
    body, pages = b"".join(packets), []
    for start in range(0, len(segments), _MOST_SEGMENTS):
        own = segments[start : start + _MOST_SEGMENTS]
        ends = any(segment < _SEGMENT_BYTES for segment in own)
        page = _Page(0, 0 if ends else _NO_PACKET_ENDS, own, body[: sum(own)])
        if start and segments[start - 1] == _SEGMENT_BYTES:
            page = replace(page, flags=_CONTINUED)
        pages.append(page)
        body = body[sum(own) :]
    return pages
