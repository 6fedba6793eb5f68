"""How a piece is to sound: what can be asked, and no more, so that who only reads an order needs no synthesizer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutti.config import Settings

RoomName = Literal["dry", "studio", "chamber", "hall", "church"]
EqualiserName = Literal["flat", "natural", "warm", "bright", "under_speech"]

SOUND_VERSION = 2
"""Of all that turns notes into samples: the same piece sounds otherwise under another."""


class Sound(Settings):
    """How a piece is to sound."""

    soundfont: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="SoundFont 2 that plays it: a path, file://, https:// or s3:// address; without one, TimGM6mb",
    )
    sample_rate_hz: Literal[44_100, 48_000] = Field(default=44_100, description="samples a second: 44100 or 48000")
    places: Literal["table", "none"] = Field(
        default="table", description="balance and panning: by the table, or as the font has them"
    )
    room: RoomName = Field(default="chamber", description="reverberation: dry, studio, chamber, hall or church")
    reverb_db: float | None = Field(
        default=None, ge=-40, le=6, description="how loud the room is beside the direct sound, dB; without it, its own"
    )
    equaliser: EqualiserName = Field(
        default="natural", description="flat, natural, warm, bright, or under_speech, which leaves a voice its range"
    )
    fade_out_s: float = Field(
        default=0.0, ge=0, le=60, description="seconds before its end in which the piece fades; 0: it rings out"
    )
    loudness_lufs: float = Field(
        default=-16.0,
        ge=-30,
        le=-12,
        description="integrated loudness, LUFS; the true peak keeps under -1 dBTP",
    )
