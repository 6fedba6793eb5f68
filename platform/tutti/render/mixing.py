"""A piece as one mix, before mastering: who plays, from where, in which room.

From the notes to the master everything is a sum over instruments: an instrument alone, under the same settings and the
same gain, is its share of the whole. Legend: S samples, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tutti.corpus.score import Score
from tutti.render import room
from tutti.render.places import seats
from tutti.render.sound import Sound
from tutti.render.soundfont import SoundFont
from tutti.render.synthesis import Band, audible_samples
from tutti.render.voice import Instrument

# A room's last seconds, which nobody hears, would stay as silence at the end of every file.
_OVER_DB = 60.0


class Mix:
    """A piece under settings of sound, before mastering.

    Args:
        score: at least one note, at most 30 minutes.
        sound: how it is to sound; its font is ``font``.
        font: of what no other instrument plays.
        instruments: what plays the notes of a program in place of the SoundFont; by program, no drums.

    Raises:
        RecipeError: an instrument for drums.
        InputError: no notes, too long.
    """

    def __init__(self, score: Score, *, sound: Sound, font: SoundFont, instruments: Mapping[int, Instrument]) -> None:
        rate_hz = sound.sample_rate_hz
        self._band = Band(score, font=font, instruments=instruments, sample_rate_hz=rate_hz)
        self._seats = seats(score, font=font, instruments=instruments) if sound.places == "table" else {}
        self._response = room.response(sound.room, sound.equaliser, reverb_db=sound.reverb_db, sample_rate_hz=rate_hz)
        self._fade = round(min(sound.fade_out_s, score.length_s) * rate_hz)
        self._end = round(score.length_s * rate_hz) if self._fade else None

    def whole(self) -> NDArray[np.float32]:
        """All of it, up to where it is no longer heard: ``mix_CS``.

        Raises:
            InputError: no note has a sound.
        """
        mix_CS = self._sounding(None)
        return mix_CS[:, : audible_samples(mix_CS, depth_db=_OVER_DB)]

    def alone(self, program: int, *, samples: int) -> NDArray[np.float32]:
        """One program's share of the whole, ``mix_CS``, so many samples long."""
        share_CS = self._sounding(program)[:, :samples]
        return np.pad(share_CS, ((0, 0), (0, samples - share_CS.shape[1])))

    def _sounding(self, program: int | None) -> NDArray[np.float32]:
        mix_CS = self._band.play(seats=self._seats, only=program)
        if self._response is not None:
            mix_CS = room.played_in(mix_CS, self._response)
        if self._end is not None:
            mix_CS = mix_CS[:, : self._end]
            fade = min(self._fade, mix_CS.shape[1])
            mix_CS[:, mix_CS.shape[1] - fade :] *= np.cos(np.linspace(0, np.pi / 2, fade, dtype=np.float32)) ** 2
        return mix_CS
