"""Finished files: a score as MIDI and MusicXML, sound in four encodings, one sound for each instrument, pictures.

Legend: S samples, C channels. The same input gives the same bytes on the same machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from tutti.corpus.midi import write_midi
from tutti.corpus.musicxml import write_musicxml
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import RecipeError
from tutti.features.descriptors import describe_score
from tutti.render import loops
from tutti.render.formats import AUDIO_KINDS, FORMATS, SUFFIXES
from tutti.render.mastering import TRUE_PEAK_DBTP, Mastered, master, measure_true_peak_dbtp
from tutti.render.mixing import Mix
from tutti.render.picture import piano_roll_png
from tutti.render.sound import Sound
from tutti.render.soundfont import SoundFont, default_path, read_soundfont
from tutti.render.stems import stem_files
from tutti.render.tags import Tags, tagged
from tutti.render.voice import Instrument
from tutti.render.waveform import waveform_png
from tutti.units import parse_key

Audio = NDArray[np.float32]

# libsndfile dies on a long OGG that is written in one call, so every kind is written in blocks.
_BLOCK_SAMPLES = 65_536
_LOSSLESS_STEPS = 32_768
_DITHER_SEED = 0x5EED
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
        files: bytes by what their names end in, of :data:`SUFFIXES`; stems as ``stems/01-piano.flac``.
        loudness_lufs, true_peak_dbtp: of the mastered sound; none where no sound was asked for.
    """

    files: dict[str, bytes]
    loudness_lufs: float | None
    true_peak_dbtp: float | None


def finish(
    score: Score,
    *,
    formats: Sequence[str],
    title: str = "",
    instruments: Mapping[int, Instrument] | None = None,
    sound: Sound | None = None,
    font: SoundFont | None = None,
    tags: Tags | None = None,
) -> Finished:
    """Make the asked files of a score; its sound is mixed and mastered once for all of them.

    WAV and FLAC hold the mastered sound at 16 bits with dither. A lossy encoding overshoots what it is given, so an MP3
    or OGG is decoded, measured, and made again quieter by what it exceeded until it too keeps under -1 dBTP.

    Args:
        score: at least one note.
        formats: of :data:`FORMATS`.
        title: written over the pictures and into the sound files.
        instruments: as in :func:`tutti.render.synthesis.synthesise`.
        sound: how it is to sound; its font is not fetched here, see :mod:`tutti.render.fonts`.
        font: what plays; left out, the one that pretty_midi carries.
        tags: what else the sound files say.

    Raises:
        RecipeError: a format that is not known, or an instrument for drums.
        InputError: no notes, too long, or no sound.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise RecipeError(f"format {unknown[0]!r} is not known", remedy=f"choose among {', '.join(FORMATS)}")
    sound = sound or Sound()
    rate_hz = sound.sample_rate_hz
    tags = replace(tags or Tags(), title=title or (tags.title if tags else ""))
    files: dict[str, bytes] = {}
    mix: Mix | None = None
    mastered: Mastered | None = None
    for name in dict.fromkeys(formats):
        if name in ("midi", "musicxml", "png"):
            files[SUFFIXES[name]] = _written(score, name, title=title)
            continue
        if mix is None or mastered is None:
            font = font or read_soundfont(default_path())
            mix = Mix(score, sound=sound, font=font, instruments=instruments or {})
            mastered = master(mix.whole().T, sample_rate_hz=rate_hz, loudness_lufs=sound.loudness_lufs)
        if name == "stems":
            files |= stem_files(score, mix, gain_S=mastered.gain_S, sample_rate_hz=rate_hz, tags=tags)
        elif name == "waveform":
            facts = f"{mastered.loudness_lufs:.1f} LUFS   ·   {mastered.true_peak_dbtp:.1f} dBTP"
            files[SUFFIXES[name]] = waveform_png(mastered.audio_SC, sample_rate_hz=rate_hz, title=title, facts=facts)
        else:
            files[SUFFIXES[name]] = _within_peak(mastered.audio_SC, kind=name, sample_rate_hz=rate_hz, tags=tags)
    return Finished(
        files=files,
        loudness_lufs=mastered.loudness_lufs if mastered else None,
        true_peak_dbtp=mastered.true_peak_dbtp if mastered else None,
    )


def _written(score: Score, name: str, *, title: str) -> bytes:
    if name == "midi":
        return write_midi(score)
    if name == "png":
        return piano_roll_png(score, title=title)
    pitched = score.notes.program != DRUM_PROGRAM
    key = parse_key(describe_score(score)["key"]) if pitched.any() else None
    return write_musicxml(replace(score, title=title or score.title), key=key)


def _within_peak(audio_SC: Audio, *, kind: str, sample_rate_hz: int, tags: Tags) -> bytes:
    gain_db = 0.0
    for _ in range(_MOST_ENCODINGS):
        quieter_SC = audio_SC if gain_db == 0 else audio_SC * np.float32(10 ** (gain_db / 20))
        data = _encoded(quieter_SC, sample_rate_hz=sample_rate_hz, kind=kind)
        if kind not in _LOSSY:
            break
        excess_db = measure_true_peak_dbtp(decode_audio(data)[0]) - TRUE_PEAK_DBTP
        if excess_db <= 0:
            break
        gain_db -= excess_db + _LOSSY_HEADROOM_DB
    return tagged(data, kind=kind, tags=tags)


def encode_audio(
    audio_SC: Audio, *, sample_rate_hz: int, kind: str, title: str = "", tags: Tags | None = None
) -> bytes:
    """Sound as the bytes of a file.

    WAV and FLAC are 16-bit with triangular dither of a fixed seed; MP3 and OGG have variable bit rates.

    Args:
        audio_SC: within -1 to 1.
        sample_rate_hz: its rate.
        kind: of :data:`AUDIO_KINDS`.
        title: written into the file.
        tags: what else is.

    Raises:
        RecipeError: a kind that is not known, or a rate that it cannot hold.
    """
    tags = replace(tags or Tags(), title=title or (tags.title if tags else ""))
    return tagged(_encoded(audio_SC, sample_rate_hz=sample_rate_hz, kind=kind), kind=kind, tags=tags)


def _encoded(audio_SC: Audio, *, sample_rate_hz: int, kind: str) -> bytes:
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
        for block_SC in _blocks(audio_SC if kind in _LOSSY else _dithered(audio_SC)):
            sink.write(block_SC)
    return target.getvalue()


def _blocks(audio_SC: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(audio_SC), _BLOCK_SAMPLES):
        yield audio_SC[start : start + _BLOCK_SAMPLES]


def _dithered(audio_SC: Audio) -> NDArray[np.int16]:
    made_SC = np.empty(audio_SC.shape, dtype=np.int16)
    sound_CS = np.ascontiguousarray(audio_SC.T, dtype=np.float32)
    loops.in_steps(sound_CS, _DITHER_SEED, np.float32(_LOSSLESS_STEPS), made_SC)
    return made_SC


def decode_audio(data: bytes) -> tuple[Audio, int]:
    """Sound of a file's bytes: ``audio_SC`` as float32 and its sample rate in Hz."""
    with soundfile.SoundFile(io.BytesIO(data)) as source:
        blocks = list(source.blocks(blocksize=_BLOCK_SAMPLES, dtype="float32", always_2d=True))
        return np.concatenate(blocks), int(source.samplerate)
