from __future__ import annotations

import io
import struct
from typing import Any

import mutagen
import numpy as np
import pytest
from numpy.typing import NDArray

from tutti.errors import IntegrityError
from tutti.render import ogg
from tutti.render.export import decode_audio, encode_audio
from tutti.render.formats import AUDIO_KINDS
from tutti.render.tags import Tags, tagged

RATE_HZ = 44_100
ALL = Tags(
    title="Grüße, 音楽", mood="calm", tempo_qpm=96.4, key="D minor", model="bach 3", licence="CC0-1.0", comment="a take"
)


def noise(samples: int = RATE_HZ) -> NDArray[np.float32]:
    return (np.random.default_rng(0).normal(size=(samples, 2)) * 0.1).astype(np.float32)


def read(data: bytes, kind: str) -> dict[str, Any]:
    tags = mutagen.File(io.BytesIO(data)).tags
    if kind in ("flac", "ogg"):
        return {name: values[0] for name, values in tags.as_dict().items()}
    names = {"TIT2": "title", "TPE1": "artist", "TMOO": "mood", "TBPM": "bpm", "TKEY": "initialkey"}
    names |= {"TXXX:KEY": "key", "TXXX:LICENSE": "license", "COMM::eng": "comment", "TENC": "encoded-by"}
    return {names[name]: str(value) for name, value in tags.items() if name in names}


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_every_kind_says_all_to_another_reader(kind: str) -> None:
    data = encode_audio(noise(), sample_rate_hz=RATE_HZ, kind=kind, tags=ALL)
    assert read(data, kind) == {
        "title": "Grüße, 音楽", "artist": "bach 3", "mood": "calm", "bpm": "96", "key": "D minor", "initialkey": "Dm",
        "license": "CC0-1.0", "comment": "a take", "encoded-by": "Tutti",
    }  # fmt: skip
    untold = encode_audio(noise(), sample_rate_hz=RATE_HZ, kind=kind)
    assert read(untold, kind) == {"encoded-by": "Tutti"}
    assert np.array_equal(decode_audio(data)[0], decode_audio(untold)[0])


@pytest.mark.parametrize("size", [0, 200, 255, 65_000, 200_000])
def test_comments_of_any_length_lie_on_pages_as_they_must(size: int) -> None:
    plain = encode_audio(noise(4_000), sample_rate_hz=RATE_HZ, kind="ogg")
    data = encode_audio(noise(4_000), sample_rate_hz=RATE_HZ, kind="ogg", title="t" * size)
    assert read(data, "ogg").get("title", "") == "t" * size
    assert np.array_equal(decode_audio(data)[0], decode_audio(plain)[0])


def test_pages_carry_their_checksums_and_one_serial_number() -> None:
    data = encode_audio(noise(), sample_rate_hz=RATE_HZ, kind="ogg", tags=ALL)
    at, serials = 0, set()
    while at < len(data):
        count = data[at + 26]
        size = 27 + count + sum(data[at + 27 : at + 27 + count])
        page = bytearray(data[at : at + size])
        serials.add(bytes(page[14:18]))
        (told,) = struct.unpack("<I", page[22:26])
        page[22:26] = b"\0\0\0\0"
        # RFC 3533, section 6: polynomial 0x04C11DB7, high bit first, from 0.
        made = 0
        for byte in page:
            made ^= byte << 24
            for _ in range(8):
                made = (made << 1) ^ (0x104C11DB7 if made & 0x80000000 else 0)
        assert made == told
        at += size
        if at > 20_000:
            break
    assert len(serials) == 1
    other = encode_audio(noise()[::-1], sample_rate_hz=RATE_HZ, kind="ogg", tags=ALL)
    assert other[14:18] not in serials


@pytest.mark.parametrize(("kind", "message"), [("wav", "no WAV"), ("flac", "no FLAC"), ("ogg", "no Ogg pages")])
def test_what_is_of_another_kind_is_refused(kind: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        tagged(b"something else altogether", kind=kind, tags=ALL)
    with pytest.raises(IntegrityError, match="no Vorbis stream"):
        ogg.settled(b"OggS" + bytes(22) + b"\1\5hello", comments=[])
