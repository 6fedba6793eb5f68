"""Stems: one sound file for each instrument, which add up to the master.

Mixing is a sum (:mod:`tutti.render.mixing`), and mastering multiplies each moment by a gain: what brings the piece to
its loudness, less where the limiter holds a peak, and the fades at both ends. Every stem passes the same room and
equaliser and is multiplied by the same gain, moment by moment, limiter and all. So the stems, added, are the master
within the rounding of their 24 bits (and the dither of the master's 16); a stem alone is as loud as it is in the piece.
Two loud instruments against each other can each be larger than their sum: where a stem would pass full scale, all
stems are lowered alike by whole decibels, and each says so in its comment. Legend: S samples, C channels.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import numpy as np
import soundfile
from numpy.typing import NDArray

from tutti.corpus.programs import program_name
from tutti.corpus.score import Score
from tutti.render.formats import instrument_in
from tutti.render.mixing import Mix
from tutti.render.tags import Tags, tagged

FOLDER = "stems"

_BLOCK_SAMPLES = 65_536


def stem_files(
    score: Score, mix: Mix, *, gain_S: NDArray[np.float32], sample_rate_hz: int, tags: Tags
) -> dict[str, bytes]:
    """A 24-bit FLAC for each instrument, by name, such as ``stems/02-violin.flac``.

    Args:
        score: what plays.
        mix: the piece before mastering.
        gain_S: what mastering multiplied it by.
        sample_rate_hz: of both.
        tags: of the whole.
    """
    stems = {name: mix.alone(program, samples=len(gain_S)) * gain_S for program, name in stem_names(score).items()}
    largest = max(float(np.abs(stem_CS).max(initial=0)) for stem_CS in stems.values())
    lowered_db = math.ceil(max(20 * math.log10(largest), 0)) if largest > 0 else 0
    comment = "a stem: all stems of the piece add up to it"
    if lowered_db:
        comment += f", raised by {lowered_db} dB"
    return {
        name: tagged(
            _encoded(stem_CS * np.float32(10 ** (-lowered_db / 20)), sample_rate_hz),
            kind="flac",
            tags=replace(tags, title=f"{tags.title} ({instrument_in(name)})".strip(), comment=comment),
        )
        for name, stem_CS in stems.items()
    }


def stem_names(score: Score) -> dict[int, str]:
    """What the stem of each program is called, in the order of programs."""
    programs = np.unique(score.notes.program).tolist()
    return {
        program: f"{FOLDER}/{number:02d}-{re.sub('[^a-z0-9]+', '-', program_name(program).lower()).strip('-')}.flac"
        for number, program in enumerate(programs, start=1)
    }


def _encoded(sound_CS: NDArray[np.float32], sample_rate_hz: int) -> bytes:
    target = io.BytesIO()
    with soundfile.SoundFile(
        target, "w", samplerate=sample_rate_hz, channels=len(sound_CS), format="FLAC", subtype="PCM_24"
    ) as sink:
        for start in range(0, sound_CS.shape[1], _BLOCK_SAMPLES):
            sink.write(sound_CS[:, start : start + _BLOCK_SAMPLES].T)
    return target.getvalue()
