"""Rows of the ``clips`` table: sound cut into windows, and what is known of where it comes from.

Legend: S samples, C channels. A clip's canonical samples are those that its FLAC holds, after mixing down, resampling
and rounding to bits; its id is their hash, and everything said of its sound is computed from them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutti.config import Settings
from tutti.corpus.audio import (
    MAX_DECODED_BYTES,
    MAX_LENGTH_S,
    Bits,
    Floats,
    Recording,
    dequantised,
    encode_flac,
    mixed_down,
    quantised,
    resampled,
)
from tutti.errors import DataError
from tutti.tables import CLIPS, to_table

_ID_HEX_DIGITS = 24


class Describe(Protocol):
    """What gives the descriptor columns of the ``clips`` table (:data:`DESCRIBED`), by name."""

    def __call__(self, samples_SC: Floats, /, *, sample_rate_hz: int) -> dict[str, Any]:
        """The columns of one clip."""


class Cutting(Settings):
    """How sound is read and cut into clips."""

    clip_s: float = Field(default=10.0, gt=0, le=600, description="length of a clip, seconds")
    least_rest_share: float = Field(
        default=0.5, ge=0, le=1, description="part of clip_s that what is left after the last whole clip must have"
    )
    least_length_s: float = Field(default=0.1, ge=0.01, description="shortest sound that is taken at all, seconds")
    silence_db: float = Field(
        default=-60.0, lt=0, description="a clip whose root mean square is below this is dropped, decibels"
    )
    sample_rate_hz: int = Field(default=44_100, ge=8000, le=192_000, description="rate that all clips get, hertz")
    max_channels: Literal[1, 2] = Field(default=2, description="channels of a clip; sound with more is made mono")
    bits: Bits = Field(default=16, description="bits of a sample in a clip's FLAC")
    max_length_s: float = Field(default=MAX_LENGTH_S, gt=0, description="longest sound that is taken, seconds")
    max_decoded_bytes: int = Field(
        default=MAX_DECODED_BYTES, ge=1, description="most that a decoded file may take, bytes"
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """What many files hold.

    Args:
        clips: columns of the ``clips`` table that the sound alone tells (:data:`HEARD`), a mapping a clip.
        file_of_clip: index of the file that each comes from.
        titles: what each file calls itself, by index, where it does.
        refusals: file index, reason, detail.
    """

    clips: tuple[Mapping[str, Any], ...]
    file_of_clip: tuple[int, ...]
    titles: Mapping[int, str]
    refusals: tuple[tuple[int, str, str], ...]


DESCRIBED = ("loudness_lufs", "tempo_qpm", "tempo_confidence", "key", "key_confidence", "onsets_per_s")
HEARD = ("clip_id", "start_s", "length_s", "sample_rate_hz", "channels", "audio", *DESCRIBED)
TOLD = tuple(name for name in CLIPS.names if name not in HEARD)
"""Columns of the ``clips`` table that the sound does not tell."""


def hear_many(
    files: Sequence[tuple[str, bytes]], *, cutting: Cutting, describe: Describe, on_file: Callable[[int], None]
) -> Heard:
    """The clips of each file; whatever is wrong with one is a refusal of that one.

    Args:
        files: name and bytes of each.
        cutting: how to cut.
        describe: the descriptor columns of a clip.
        on_file: told of each file before it is touched.
    """
    clips: list[dict[str, Any]] = []
    file_of_clip: list[int] = []
    titles: dict[int, str] = {}
    refusals = []
    for file, (_, data) in enumerate(files):
        on_file(file)
        try:
            title, found = clips_of(data, cutting=cutting, describe=describe)
        except DataError as error:
            refusals.append((file, error.reason, error.detail))
            continue
        clips += found
        file_of_clip += [file] * len(found)
        if title:
            titles[file] = title
    return Heard(tuple(clips), tuple(file_of_clip), titles, tuple(refusals))


def clips_of(data: bytes, *, cutting: Cutting, describe: Describe) -> tuple[str | None, list[dict[str, Any]]]:
    """Title of a sound file and its clips, as the :data:`HEARD` columns of each.

    Raises:
        DataError: what :class:`tutti.corpus.audio.Recording` refuses; too_short; silent.
    """
    with Recording(data, max_length_s=cutting.max_length_s, max_decoded_bytes=cutting.max_decoded_bytes) as recording:
        found = clips_of_samples(
            recording.blocks(), sample_rate_hz=recording.sample_rate_hz, cutting=cutting, describe=describe
        )
        return recording.title, found


def clips_of_samples(
    blocks: Iterable[Floats], *, sample_rate_hz: int, cutting: Cutting, describe: Describe
) -> list[dict[str, Any]]:
    """Sound, ``block_SC`` after ``block_SC``, as clips in the order of time.

    The rest after the last whole clip is kept if it is long enough, or if it is all there is. Silent clips are dropped:
    ``start_s`` tells where the others stand.

    Raises:
        DataError: too_short; silent, where no clip is left.
    """
    mixed = mixed_down(blocks, max_channels=cutting.max_channels)
    even = resampled(mixed, from_hz=sample_rate_hz, to_hz=cutting.sample_rate_hz)
    clip_samples = round(cutting.clip_s * cutting.sample_rate_hz)
    clips, samples = [], 0
    for number, window_SC in enumerate(windows(even, window_samples=clip_samples)):
        samples += len(window_SC)
        if len(window_SC) < clip_samples * cutting.least_rest_share and number:
            continue
        if samples < cutting.least_length_s * cutting.sample_rate_hz:
            break
        if _level(window_SC) >= 10 ** (cutting.silence_db / 20):
            clips.append(_clip(window_SC, start=number * clip_samples, cutting=cutting, describe=describe))
    length_s = samples / cutting.sample_rate_hz
    if length_s < cutting.least_length_s:
        raise DataError("too_short", f"{length_s:.3f} s are under the {cutting.least_length_s:g} s of a recording")
    if not clips:
        raise DataError("silent", f"all {length_s:.1f} s are under {cutting.silence_db:g} dB")
    return clips


def windows(blocks: Iterable[Floats], *, window_samples: int) -> Iterator[Floats]:
    """The same samples in windows of equal length, the last one as long as what is left."""
    held: list[Floats] = []
    missing = window_samples
    for block_SC in blocks:
        rest_SC = block_SC
        while len(rest_SC) >= missing:
            yield np.concatenate([*held, rest_SC[:missing]])
            rest_SC, held, missing = rest_SC[missing:], [], window_samples
        if len(rest_SC):
            held.append(rest_SC)
            missing -= len(rest_SC)
    if held:
        yield np.concatenate(held)


def clips_table(clips: Sequence[Mapping[str, Any]], *, told: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of the ``clips`` table.

    Args:
        clips: :data:`HEARD` columns of each.
        told: :data:`TOLD` columns of each.
    """
    return to_table(({**source, **clip} for clip, source in zip(clips, told, strict=True)), CLIPS)


def _level(samples_SC: Floats) -> float:
    """Root mean square over all channels."""
    return float(np.sqrt(np.einsum("sc,sc->", samples_SC, samples_SC, dtype=np.float64) / samples_SC.size))


def _clip(window_SC: Floats, *, start: int, cutting: Cutting, describe: Describe) -> dict[str, Any]:
    rate_hz = cutting.sample_rate_hz
    steps_SC = quantised(window_SC, bits=cutting.bits)
    state = hashlib.sha256(f"{rate_hz} Hz, {steps_SC.shape[1]} channels\n".encode())
    state.update(np.ascontiguousarray(steps_SC, dtype="<i4").data)
    return {
        "clip_id": state.hexdigest()[:_ID_HEX_DIGITS],
        "start_s": start / rate_hz,
        "length_s": len(steps_SC) / rate_hz,
        "sample_rate_hz": rate_hz,
        "channels": steps_SC.shape[1],
        "audio": encode_flac(steps_SC, sample_rate_hz=rate_hz, bits=cutting.bits),
        **describe(dequantised(steps_SC), sample_rate_hz=rate_hz),
    }
