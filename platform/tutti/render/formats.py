"""Forms in which a piece is finished, by name; who only names them need not load what makes them."""

from __future__ import annotations

from typing import Literal, get_args

AudioKind = Literal["wav", "flac", "mp3", "ogg"]
Format = Literal["midi", "musicxml", "wav", "flac", "mp3", "ogg", "png", "waveform", "stems"]
AUDIO_KINDS: tuple[AudioKind, ...] = get_args(AudioKind)
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, str] = {
    **{name: name for name in FORMATS if name != "stems"},
    "midi": "mid",
    "waveform": "waveform.png",
}
"""What a file's name ends in, by format; ``stems`` are several files."""


def instrument_in(name: str) -> str:
    """The instrument that a stem's name tells, in words."""
    return name.rpartition("/")[2].partition("-")[2].removesuffix(".flac").replace("-", " ")
