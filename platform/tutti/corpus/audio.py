"""Sound files: bytes that nobody vouches for to samples, and samples to bytes without loss.

Legend: S samples, C channels. Samples are float32 in -1 to 1. :func:`decode` and :class:`Recording` belong in a child
process that may die (:mod:`tutti.corpus.isolation`): the decoders of libsndfile are written in C.

A file that breaks off, or whose decoder gives up in the middle, counts up to there; one that gives nothing at all is
refused. So is one with values that are no finite numbers or that reach four times full scale; what lies between full
scale and that, as lossy codecs leave it, is clipped.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Literal, Self

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from tutti.errors import DataError
from tutti.units import format_bytes, format_seconds

Floats = NDArray[np.float32]
Steps = NDArray[np.int32]
Bits = Literal[16, 24]

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF")
MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 4_000, 384_000
MOST_OF_FULL_SCALE = 4.0
MAX_LENGTH_S = 1800.0
MAX_DECODED_BYTES = 2**31

# libsndfile dies on a long OGG that is written in one call; of a block that breaks, all is lost.
_BLOCK_VALUES = 1 << 15
_UNKNOWN_FRAMES = 2**62
_SUBTYPES = {16: "PCM_16", 24: "PCM_24"}
_FLAC_LEVEL = 0.5


def is_known(name: str) -> bool:
    """Whether a file of this name would be read as sound."""
    return name.lower().endswith(SUFFIXES)


class Recording:
    """An opened sound file, read once, a block at a time.

    Args:
        data: the file.
        max_length_s: longest that is taken.
        max_decoded_bytes: most that its samples may take as float32.

    Raises:
        DataError: empty, unreadable, or too long by what its header says.
    """

    def __init__(
        self, data: bytes, *, max_length_s: float = MAX_LENGTH_S, max_decoded_bytes: int = MAX_DECODED_BYTES
    ) -> None:
        if not data:
            raise DataError("empty", "the file holds no bytes")
        try:
            self._file = soundfile.SoundFile(io.BytesIO(data))
        except (soundfile.LibsndfileError, TypeError, ValueError) as error:
            raise DataError("unreadable", f"not a sound file that can be read ({_said(error)})") from None
        self.sample_rate_hz, self.channels = int(self._file.samplerate), int(self._file.channels)
        self._most_frames = int(min(max_length_s * self.sample_rate_hz, max_decoded_bytes / (4 * self.channels)))
        self._limits = f"{format_seconds(max_length_s)} or {format_bytes(max_decoded_bytes)} of samples"
        try:
            self._check_header()
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def title(self) -> str | None:
        """The title that the file itself tells."""
        return self._file.title.strip() or None

    def blocks(self) -> Iterator[Floats]:
        """All samples, as ``block_SC`` after ``block_SC``.

        Raises:
            DataError: as the module says, or too long although the header said otherwise.
        """
        frames = 0
        for block_SC in self._read():
            peak = max(float(block_SC.max()), -float(block_SC.min()))
            if not peak < MOST_OF_FULL_SCALE:
                raise DataError("unreadable", f"samples reach {peak:g} times full scale")
            frames += len(block_SC)
            self._check_length(frames)
            yield np.clip(block_SC, -1, 1, out=block_SC) if peak > 1 else block_SC
        if not frames:
            raise DataError("empty", "the file holds no samples")

    def close(self) -> None:
        """Forget the file."""
        self._file.close()

    def _check_header(self) -> None:
        if self._file.format not in FORMATS:
            raise DataError("unreadable", f"sound as {self._file.format} is not read")
        if not MIN_SAMPLE_RATE_HZ <= self.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise DataError("unreadable", f"{self.sample_rate_hz} Hz is no sample rate that is read")
        # A stream that cannot tell its length says the largest number there is.
        if self._file.frames < _UNKNOWN_FRAMES:
            self._check_length(self._file.frames)

    def _check_length(self, frames: int) -> None:
        if frames > self._most_frames:
            length_s = frames / self.sample_rate_hz
            raise DataError("too_long", f"{length_s:.0f} s of {self.channels} channels are more than {self._limits}")

    def _read(self) -> Iterator[Floats]:
        block_frames = max(1, _BLOCK_VALUES // self.channels)
        started = False
        while True:
            try:
                block_SC = self._file.read(block_frames, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                if not started:
                    raise DataError("unreadable", f"the sound cannot be decoded ({_said(error)})") from None
                return
            if not len(block_SC):
                return
            started = True
            yield block_SC


def decode(
    data: bytes, *, max_length_s: float = MAX_LENGTH_S, max_decoded_bytes: int = MAX_DECODED_BYTES
) -> tuple[Floats, int]:
    """All samples of a file, ``samples_SC``, and their rate in hertz.

    Raises:
        DataError: as :class:`Recording`.
    """
    with Recording(data, max_length_s=max_length_s, max_decoded_bytes=max_decoded_bytes) as recording:
        return np.concatenate(list(recording.blocks())), recording.sample_rate_hz


def mixed_down(blocks: Iterable[Floats], *, max_channels: int) -> Iterator[Floats]:
    """``block_SC`` of at most 1 or 2 channels: where there are more, their mean, as nobody says where they stand."""
    for block_SC in blocks:
        yield block_SC if block_SC.shape[1] <= max_channels else block_SC.mean(axis=1, keepdims=True)


def resampled(blocks: Iterable[Floats], *, from_hz: int, to_hz: int) -> Iterator[Floats]:
    """The same sound at another rate, by soxr in high quality: S samples become about ``S * to_hz / from_hz``."""
    if from_hz == to_hz:
        yield from blocks
        return
    stream, channels = None, 0
    for block_SC in blocks:
        if stream is None:
            channels = block_SC.shape[1]
            stream = soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32", quality="HQ")
        yield stream.resample_chunk(np.ascontiguousarray(block_SC))
    if stream is not None:
        yield stream.resample_chunk(np.empty((0, channels), dtype=np.float32), last=True)


def quantised(samples_SC: Floats, *, bits: Bits) -> Steps:
    """Samples in steps of ``bits`` bits, without dither, in the upper bits of ``steps_SC``; clipped at full scale.

    What came from a file of so many bits comes back to the bit.
    """
    most = 1 << (bits - 1)
    # Only float64 holds every step of 24 bits and the half between two.
    steps_SC = np.rint(samples_SC * (np.float32(most) if bits == 16 else np.float64(most)))
    return np.asarray(np.clip(steps_SC, -most, most - 1).astype(np.int32) << (32 - bits))


def dequantised(steps_SC: Steps) -> Floats:
    """What :func:`decode` gives of :func:`encode_flac`'s bytes."""
    return np.asarray(steps_SC.astype(np.float32) * np.float32(2.0**-31))


def encode_flac(steps_SC: Steps, *, sample_rate_hz: int, bits: Bits) -> bytes:
    """The steps of :func:`quantised` as FLAC, without loss."""
    target = io.BytesIO()
    with soundfile.SoundFile(
        target,
        "w",
        samplerate=sample_rate_hz,
        channels=steps_SC.shape[1],
        format="FLAC",
        subtype=_SUBTYPES[bits],
        compression_level=_FLAC_LEVEL,
    ) as sink:
        sink.write(steps_SC)
    return target.getvalue()


def _said(error: Exception) -> str:
    text = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
    return " ".join(text.split()).strip(".") or type(error).__name__
