"""What is asked of sound at each door: an order's address, and what `tutti generate` is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jobs import sounding
from tutti.catalogue import publish
from tutti.catalogue.order import Order
from tutti.catalogue.takes import Plan
from tutti.config import build
from tutti.errors import InputError, RecipeError
from tutti.render.fonts import KnownFont
from tutti.render.sound import SOUND_VERSION


def inputs_of(*, font: KnownFont | None = None, **asked: Any) -> dict[str, Any]:
    order = build(Order, {"name": "etudes", "model": "m", "lines": [{"count": 1}], **asked})
    return publish.inputs_of(Plan(order, "m", "1", "digest", font=font))


def test_an_order_that_asks_nothing_of_sound_says_nothing_of_it() -> None:
    assert "sound" not in inputs_of(formats=["midi"])["order"]
    assert inputs_of(formats=["midi"]) == inputs_of(formats=["midi"], sound={"room": "chamber"})
    assert inputs_of(sound={"room": "hall"})["order"]["sound"] == {"room": "hall"}


def test_only_what_sounds_is_bound_to_the_version_of_the_sound() -> None:
    assert "sound" not in inputs_of(formats=["midi", "png", "musicxml"])
    for kind in ("flac", "wav", "mp3", "ogg", "stems", "waveform"):
        assert inputs_of(formats=[kind])["sound"] == SOUND_VERSION


def test_a_font_is_its_bytes_and_not_its_address() -> None:
    here, there, other = (
        inputs_of(font=KnownFont(address, sha256, Path("x")), sound={"soundfont": address})
        for address, sha256 in (("a.sf2", "1"), ("https://b/a.sf2", "1"), ("a.sf2", "2"))
    )
    assert here == there
    assert here != other


def test_sound_is_asked_by_name_and_value() -> None:
    sound, font = sounding.asked(["room=hall", "fade_out_s=4", "sample_rate_hz=48000"])
    assert (sound.room, sound.fade_out_s, sound.sample_rate_hz, font) == ("hall", 4.0, 48_000, None)
    with pytest.raises(InputError, match="--sound 'hall' is not KEY=VALUE"):
        sounding.asked(["hall"])
    with pytest.raises(RecipeError, match="room = 'cave'"):
        sounding.asked(["room=cave"])
    with pytest.raises(RecipeError, match=re.escape("unknown key 'rom'")):
        sounding.asked(["rom=hall"])


@pytest.mark.parametrize(
    ("name", "suffix", "second"),
    [
        ("take.mid", "mid", "take-2.mid"),
        ("my.song.FLAC", "flac", "my.song-2.FLAC"),
        ("take.waveform.png", "waveform.png", "take-2.waveform.png"),
        ("take.png", "png", "take-2.png"),
        ("take", "", "take-2"),
    ],
)
def test_a_number_stands_before_the_suffix(name: str, suffix: str, second: str) -> None:
    assert sounding.suffix_of(Path(name)) == suffix
    assert sounding.numbered(Path("x") / name, "2") == Path("x") / second
