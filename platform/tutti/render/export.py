"""Finished files: a score as MIDI, sound in four encodings, and a picture.

Legend: S samples, C channels. The same input gives the same bytes on the same machine, except for ``ogg``, whose
stream number libvorbis draws from the clock.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import soundfile
from numpy.typing import NDArray

from tutti.corpus.midi import write_midi
from tutti.corpus.score import Score
from tutti.errors import RecipeError
from tutti.render.mastering import TRUE_PEAK_DBTP, Mastered, master, measure_true_peak_dbtp
from tutti.render.picture import piano_roll_png
from tutti.render.synthesis import SAMPLE_RATE_HZ, synthesise
from tutti.render.voice import Instrument
from tutti.seeding import generator

AudioKind = Literal["wav", "flac", "mp3", "ogg"]
Format = Literal["midi", "wav", "flac", "mp3", "png"]
AUDIO_KINDS: tuple[AudioKind, ...] = get_args(AudioKind)
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: dict[str, str] = {name: "mid" if name == "midi" else name for name in FORMATS}

Audio = NDArray[np.float32]

# libsndfile dies on a long OGG that is written in one call, so every kind is written in blocks.
_BLOCK_SAMPLES = 65_536
_LOSSLESS_STEPS = 32_768
_ENCODINGS: dict[str, dict[str, Any]] = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.2},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
}
_LOSSY = ("mp3", "ogg")
_LOSSY_HEADROOM_DB = 0.05
_MOST_ENCODINGS = 3


@dataclass(frozen=True, slots=True)
class Finished:
    """The files of one piece.

    Args:
        files: bytes by suffix: ``mid``, ``wav``, ``flac``, ``mp3``, ``png``.
        loudness_lufs, true_peak_dbtp: of the mastered sound; none where no sound was asked for.
    """

    files: dict[str, bytes]
    loudness_lufs: float | None
    true_peak_dbtp: float | None


def finish(
    score: Score, *, formats: Sequence[str], title: str = "", instruments: Mapping[int, Instrument] | None = None
) -> Finished:
    """Make the asked files of a score; its sound is synthesised and mastered once for all of them.

    WAV and FLAC hold the mastered sound at 16 bits with dither. A lossy encoding overshoots what it is given, so an MP3
    is decoded, measured, and made again quieter by what it exceeded until it too keeps under -1 dBTP.

    Args:
        score: at least one note.
        formats: of :data:`FORMATS`.
        title: written over the picture and into the sound files.
        instruments: as in :func:`tutti.render.synthesis.synthesise`.

    Raises:
        RecipeError: a format that is not known, or an instrument for drums.
        InputError: no notes, too long, or no sound.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise RecipeError(f"format {unknown[0]!r} is not known", remedy=f"choose among {', '.join(FORMATS)}")
    files: dict[str, bytes] = {}
    mastered: Mastered | None = None
    for name in dict.fromkeys(formats):
        if name == "midi":
            data = write_midi(score)
        elif name == "png":
            data = piano_roll_png(score, title=title)
        else:
            mastered = mastered or master(synthesise(score, instruments=instruments), sample_rate_hz=SAMPLE_RATE_HZ)
            data = _within_peak(mastered.audio_SC, kind=name, title=title)
        files[SUFFIXES[name]] = data
    return Finished(
        files=files,
        loudness_lufs=mastered.loudness_lufs if mastered else None,
        true_peak_dbtp=mastered.true_peak_dbtp if mastered else None,
    )


def _within_peak(audio_SC: Audio, *, kind: str, title: str) -> bytes:
    gain_db = 0.0
    for _ in range(_MOST_ENCODINGS):
        quieter_SC = audio_SC * np.float32(10 ** (gain_db / 20))
        data = encode_audio(quieter_SC, sample_rate_hz=SAMPLE_RATE_HZ, kind=kind, title=title)
        if kind not in _LOSSY:
            break
        excess_db = measure_true_peak_dbtp(decode_audio(data)[0]) - TRUE_PEAK_DBTP
        if excess_db <= 0:
            break
        gain_db -= excess_db + _LOSSY_HEADROOM_DB
    return data


def encode_audio(audio_SC: Audio, *, sample_rate_hz: int, kind: str, title: str = "") -> bytes:
    """Sound as the bytes of a file.

    WAV and FLAC are 16-bit with triangular dither of a fixed seed; MP3 and OGG have variable bit rates.

    Args:
        audio_SC: within -1 to 1.
        sample_rate_hz: its rate.
        kind: of :data:`AUDIO_KINDS`.
        title: written into the file.

    Raises:
        RecipeError: a kind that is not known, or a rate that it cannot hold.
    """
    if kind not in _ENCODINGS:
        raise RecipeError(f"audio kind {kind!r} is not known", remedy=f"choose among {', '.join(AUDIO_KINDS)}")
    target = io.BytesIO()
    try:
        sink = soundfile.SoundFile(
            target, "w", samplerate=sample_rate_hz, channels=audio_SC.shape[1], **_ENCODINGS[kind]
        )
    except soundfile.LibsndfileError as error:
        raise RecipeError(
            f"{kind} cannot hold {audio_SC.shape[1]} channels at {sample_rate_hz} Hz ({error.error_string})",
            remedy="use 2 channels at 44100 Hz",
        ) from error
    with sink:
        if title:
            sink.title = title
        for block_SC in _blocks(audio_SC) if kind in _LOSSY else _dithered(audio_SC):
            sink.write(block_SC)
    return target.getvalue()


def _blocks(audio_SC: Audio) -> Iterator[Audio]:
    for start in range(0, len(audio_SC), _BLOCK_SAMPLES):
        yield audio_SC[start : start + _BLOCK_SAMPLES]


def _dithered(audio_SC: Audio) -> Iterator[NDArray[np.int16]]:
    draws = generator(0, "dither")
    for block_SC in _blocks(audio_SC):
        noise_SC = draws.random(block_SC.shape, dtype=np.float32) - draws.random(block_SC.shape, dtype=np.float32)
        steps_SC = np.rint(block_SC * np.float32(_LOSSLESS_STEPS) + noise_SC)
        yield np.clip(steps_SC, -_LOSSLESS_STEPS, _LOSSLESS_STEPS - 1).astype(np.int16)


def decode_audio(data: bytes) -> tuple[Audio, int]:
    """Sound of a file's bytes: ``audio_SC`` as float32 and its sample rate in Hz."""
    with soundfile.SoundFile(io.BytesIO(data)) as source:
        blocks = list(source.blocks(blocksize=_BLOCK_SAMPLES, dtype="float32", always_2d=True))
        return np.concatenate(blocks), int(source.samplerate)
