"""Works as sound for training: clips of a rendering, each with the notes that sound in it.

Legend: S samples, C channels, N notes. Nothing between the score and the clip moves sound in time: a note begins in the
rendering at the sample nearest to its onset under the tempo map, counted from the first bar line, and mastering looks
ahead without delay. The same work gives the same bytes on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tutti.corpus.clips import TOLD, Cutting, clips_of_samples, clips_table
from tutti.corpus.score import Score
from tutti.errors import DataError, InputError
from tutti.features.sound import describe
from tutti.render.mastering import master
from tutti.render.synthesis import MAX_RENDER_S, synthesise

Audio = NDArray[np.float32]

_BLOCK_SAMPLES = 1 << 16


@dataclass(frozen=True, slots=True)
class ClipNotes:
    """The N notes that sound in a stretch of a work, in the score's order.

    Args:
        onset_s: from the stretch's first sample; negative where the note began before it.
        end_s: as written, without ring-out; it may lie behind the stretch.
        pitch, velocity, program: as in the score.
    """

    onset_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]
    program: NDArray[np.uint8]


def clips_of_work(
    work: Mapping[str, Any], *, cutting: Cutting, mastered: bool, soundfont: Path | None = None
) -> pa.Table:
    """Rows of the ``clips`` table that render one row of ``works``; source, rights, split and mood are the work's.

    Args:
        work: the row, as a mapping.
        cutting: how to cut; the rendering is made at its sample rate.
        mastered: brought to the loudness of a finished piece, or as synthesised and brought down only where it would
            exceed full scale.
        soundfont: as in :func:`tutti.render.synthesis.synthesise`.

    Raises:
        DataError: no_notes; too_long; too_short; silent.
        MissingError: no font.
    """
    audio_SC = rendering(
        Score.from_columns(work), sample_rate_hz=cutting.sample_rate_hz, mastered=mastered, soundfont=soundfont
    )
    clips = clips_of_samples(
        _blocks(audio_SC), sample_rate_hz=cutting.sample_rate_hz, cutting=cutting, describe=describe
    )
    told = {name: work[name] for name in TOLD}
    return clips_table(clips, told=[told] * len(clips))


def rendering(score: Score, *, sample_rate_hz: int, mastered: bool, soundfont: Path | None = None) -> Audio:
    """A score as ``audio_SC`` within full scale, with the ring-out of its last notes.

    Raises:
        DataError: no_notes; too_long; silent.
        MissingError: no font.
    """
    if not len(score.notes):
        raise DataError("no_notes", "a work without notes has no sound")
    if not score.length_s <= MAX_RENDER_S:
        raise DataError("too_long", f"{score.length_s:.0f} s are more than the {MAX_RENDER_S:.0f} s that are rendered")
    try:
        audio_SC = synthesise(score, sample_rate_hz=sample_rate_hz, soundfont=soundfont)
        if mastered:
            return master(audio_SC, sample_rate_hz=sample_rate_hz).audio_SC
    except InputError as error:
        raise DataError("silent", error.what) from error
    peak = max(float(audio_SC.max()), -float(audio_SC.min()))
    return audio_SC if peak <= 1 else np.asarray(audio_SC / np.float32(peak), dtype=np.float32)


def notes_of_clip(score: Score, *, start_s: float, length_s: float) -> ClipNotes:
    """The notes that are held at some moment from ``start_s`` to ``start_s + length_s``."""
    notes = score.notes
    onset_s = score.seconds_at(notes.onset_ticks)
    end_s = score.seconds_at(notes.onset_ticks.astype(np.int64) + notes.duration_ticks)
    held = (onset_s < start_s + length_s) & (end_s > start_s)
    return ClipNotes(
        onset_s=onset_s[held] - start_s,
        end_s=end_s[held] - start_s,
        pitch=notes.pitch[held],
        velocity=notes.velocity[held],
        program=notes.program[held],
    )


def _blocks(audio_SC: Audio) -> Iterator[Audio]:
    for start in range(0, len(audio_SC), _BLOCK_SAMPLES):
        yield audio_SC[start : start + _BLOCK_SAMPLES]
