from __future__ import annotations

import io
import re

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.music import walk
from tutti.corpus.midi import read_midi
from tutti.corpus.score import Notes, Score
from tutti.errors import InputError, RecipeError
from tutti.render.export import decode_audio, encode_audio, finish
from tutti.render.formats import AUDIO_KINDS, FORMATS, SUFFIXES
from tutti.render.mastering import (
    LOUDNESS_LUFS,
    LOUDNESS_TOLERANCE_LU,
    TRUE_PEAK_DBTP,
    measure_loudness_lufs,
    measure_true_peak_dbtp,
)

RATE_HZ = 44_100


def tone(*, length_s: float = 1.0, peak: float = 0.5) -> NDArray[np.float32]:
    times_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    return (peak * np.stack([np.sin(2 * np.pi * hertz * times_s) for hertz in (440, 660)], axis=1)).astype(np.float32)


def noise_to_signal_db(decoded_SC: NDArray[np.float32], audio_SC: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.square(decoded_SC - audio_SC).mean() / np.square(audio_SC).mean()))


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_what_is_encoded_can_be_heard_again(kind: str) -> None:
    audio_SC = tone()
    data = encode_audio(audio_SC, sample_rate_hz=RATE_HZ, kind=kind, title="Grüße")
    decoded_SC, sample_rate_hz = decode_audio(data)
    assert sample_rate_hz == RATE_HZ
    assert decoded_SC.shape == audio_SC.shape
    assert noise_to_signal_db(decoded_SC, audio_SC) < (-80 if kind in ("wav", "flac") else -25)
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.title == "Grüße"


def test_lossless_kinds_hold_the_same_sixteen_bits() -> None:
    wav, flac = (decode_audio(encode_audio(tone(), sample_rate_hz=RATE_HZ, kind=kind))[0] for kind in ("wav", "flac"))
    assert np.array_equal(wav, flac)
    assert np.array_equal(wav * 32_768, np.rint(wav * 32_768))


def test_dither_keeps_what_is_softer_than_one_step() -> None:
    audio_SC = tone(length_s=4, peak=0.4 / 32_768)
    decoded_SC, _ = decode_audio(encode_audio(audio_SC, sample_rate_hz=RATE_HZ, kind="wav"))
    assert np.corrcoef(decoded_SC[:, 0], audio_SC[:, 0])[0, 1] > 0.2


def test_full_scale_does_not_wrap_around() -> None:
    audio_SC = np.array([[1.0, -1.0]] * 1000, dtype=np.float32)
    decoded_SC, _ = decode_audio(encode_audio(audio_SC, sample_rate_hz=RATE_HZ, kind="wav"))
    assert np.abs(decoded_SC - audio_SC).max() < 3 / 32_768


def test_a_long_ogg_is_written_whole() -> None:
    audio_SC = np.repeat(tone(length_s=20)[:, :1], 8).reshape(-1, 1)
    decoded_SC, _ = decode_audio(encode_audio(audio_SC, sample_rate_hz=8000, kind="ogg"))
    assert decoded_SC.shape == audio_SC.shape


@pytest.mark.parametrize("kind", AUDIO_KINDS)
def test_encoding_twice_gives_the_same_bytes(kind: str) -> None:
    first, second = (encode_audio(tone(), sample_rate_hz=RATE_HZ, kind=kind) for _ in range(2))
    assert first == second


def test_finished_files_are_of_one_sound_at_the_promised_loudness() -> None:
    score = walk(0)
    finished = finish(score, formats=FORMATS, title="A walk")
    assert set(finished.files) == {*SUFFIXES.values(), "stems/01-acoustic-grand-piano.flac"}
    assert np.array_equal(read_midi(finished.files["mid"]).notes.pitch, score.notes.pitch)
    assert finished.files["png"].startswith(b"\x89PNG")
    for suffix in ("wav", "flac", "mp3", "ogg"):
        audio_SC, sample_rate_hz = decode_audio(finished.files[suffix])
        assert len(audio_SC) / sample_rate_hz > score.length_s
        loudness = measure_loudness_lufs(audio_SC, sample_rate_hz=sample_rate_hz)
        assert abs(loudness - LOUDNESS_LUFS) <= LOUDNESS_TOLERANCE_LU
        assert loudness == pytest.approx(finished.loudness_lufs, abs=0.3)
        assert measure_true_peak_dbtp(audio_SC) <= TRUE_PEAK_DBTP
    assert finished == finish(score, formats=FORMATS, title="A walk")


def test_an_mp3_that_would_overshoot_is_made_quieter() -> None:
    drums = Score.of(
        Notes.of(
            onset_ticks=np.arange(16) * 480, duration_ticks=[120] * 16, pitch=[39] * 16, velocity=120, program=128
        ),
        ticks_per_quarter=480,
    )
    finished = finish(drums, formats=["wav", "mp3"])
    sound_SC, _ = decode_audio(finished.files["wav"])
    at_once_SC, _ = decode_audio(encode_audio(sound_SC, sample_rate_hz=RATE_HZ, kind="mp3"))
    assert measure_true_peak_dbtp(at_once_SC) > TRUE_PEAK_DBTP
    assert measure_true_peak_dbtp(decode_audio(finished.files["mp3"])[0]) <= TRUE_PEAK_DBTP


def test_no_sound_is_made_where_none_is_asked_for() -> None:
    finished = finish(walk(0), formats=["midi", "png"])
    assert set(finished.files) == {"mid", "png"}
    assert finished.loudness_lufs is None
    assert finished.true_peak_dbtp is None


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(
        RecipeError,
        match=re.escape(
            "format 'aiff' is not known: choose among midi, musicxml, wav, flac, mp3, ogg, png, waveform, stems"
        ),
    ):
        finish(walk(0), formats=["midi", "aiff"])
    with pytest.raises(RecipeError, match="audio kind 'aiff' is not known"):
        encode_audio(tone(), sample_rate_hz=RATE_HZ, kind="aiff")
    with pytest.raises(RecipeError, match="mp3 cannot hold 2 channels at 12345 Hz"):
        encode_audio(tone(), sample_rate_hz=12_345, kind="mp3")
    with pytest.raises(InputError, match="the score has no notes"):
        finish(Score.of(Notes.none(), ticks_per_quarter=24), formats=["flac"])
