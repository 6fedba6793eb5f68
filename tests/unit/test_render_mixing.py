from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile
from numpy.typing import NDArray
from scipy import signal

from tutti.corpus.programs import program_name
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.render import equaliser, loops, room
from tutti.render.export import decode_audio, finish
from tutti.render.mastering import master, measure_loudness_lufs, measure_true_peak_dbtp
from tutti.render.mixing import Mix
from tutti.render.places import COMMON_LUFS, MOST_LEVELLING_DB, SINGLE, TABLE, level_db, place_of, seats
from tutti.render.sound import Sound
from tutti.render.soundfont import SoundFont, default_path, read_soundfont
from tutti.render.synthesis import Band

RATE_HZ = 44_100
DRY = {"room": "dry", "equaliser": "flat", "places": "none"}


@pytest.fixture(scope="module")
def font() -> SoundFont:
    return read_soundfont(default_path())


def band(*programs: int, velocity: int = 90) -> Score:
    """A chord and a beat for each program, one after another."""
    places = np.arange(len(programs))
    return Score.of(
        Notes.of(
            onset_ticks=np.concatenate((places * 480, places * 480 + 240)),
            duration_ticks=400,
            pitch=np.concatenate((np.full(len(programs), 48), np.full(len(programs), 64))),
            velocity=velocity,
            program=np.concatenate((programs, programs)),
        ),
        ticks_per_quarter=480,
    )


def mix(score: Score, font: SoundFont, **settings: object) -> NDArray[np.float32]:
    return Mix(score, sound=Sound.model_validate(settings), font=font, instruments={}).whole()


def level_of(sound_S: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.square(sound_S, dtype=np.float64).sum() + 1e-12))


def test_every_program_has_a_place_with_a_reason() -> None:
    for program in range(DRUM_PROGRAM + 1):
        place = place_of(program)
        assert -1 <= place.pan <= 1
        assert place.reason
    assert all(place.pan == 0 for place in TABLE.values() if place.fixed)
    assert set(SINGLE) <= set(range(128))


def test_the_table_is_told_as_it_is(repository: Path) -> None:
    text = (repository / "docs" / "sound.md").read_text(encoding="utf-8")
    names = {name.replace("_", " "): place for name, place in TABLE.items()}
    names |= {f"{program_name(program)} ({program})": place for program, place in SINGLE.items()}
    told = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and " dB | " in line]
    assert {cells[0].removeprefix("| "): cells[3].removesuffix(" |") for cells in told} == {
        name: place.reason for name, place in names.items()
    }
    for name, where, level, _ in told:
        place = names[name.removeprefix("| ")]
        share, _, side = where.partition(" % ")
        assert place.pan == (0 if where == "middle" else int(share) / 100 * (-1 if side == "left" else 1))
        assert float(level.removesuffix(" dB")) == place.level_db


def test_instruments_are_brought_to_one_loudness(font: SoundFont) -> None:
    onsets = np.arange(5) * 960
    for program in (0, 48, 73):
        phrase = Notes.of(
            onset_ticks=onsets, duration_ticks=960, pitch=[48, 55, 60, 67, 72], velocity=90, program=program
        )
        dry_CS = Band(Score.of(phrase, ticks_per_quarter=480), font=font, instruments={}, sample_rate_hz=RATE_HZ).play()
        moved_db = level_db(font, program)
        assert abs(moved_db) <= MOST_LEVELLING_DB
        assert measure_loudness_lufs(dry_CS.T, sample_rate_hz=RATE_HZ) + moved_db == pytest.approx(COMMON_LUFS, abs=0.1)


def test_one_instrument_sits_in_the_middle_and_several_around_it(font: SoundFont) -> None:
    assert {seat.pan for seat in seats(band(40), font=font, instruments={}).values()} == {0.0}
    four = seats(band(40, 41, 42, 33), font=font, instruments={})
    assert four[40].pan < four[41].pan < four[42].pan
    assert four[33].pan == 0
    assert sum(four[program].pan for program in (40, 41, 42)) == pytest.approx(0, abs=0.01)
    left_S, right_S = mix(band(40, 42), font, room="dry", equaliser="flat")[:, : RATE_HZ // 5]
    assert level_of(left_S) > level_of(right_S) + 3


def test_the_settings_are_heard_each_in_its_own_way(font: SoundFont) -> None:
    score = band(0, 40)
    dry_CS = mix(score, font, **DRY)
    end = round(score.length_s * RATE_HZ) + RATE_HZ // 2
    hall_CS = mix(score, font, **{**DRY, "room": "hall"})
    assert hall_CS.shape[1] > dry_CS.shape[1] + RATE_HZ // 4
    assert level_of(hall_CS[:, end:]) > level_of(dry_CS[:, end:]) + 20
    wetter_CS = mix(score, font, **{**DRY, "room": "hall", "reverb_db": 0.0})
    assert level_of(wetter_CS[:, end:]) - level_of(hall_CS[:, end:]) == pytest.approx(9, abs=1)
    faded_CS = mix(score, font, **{**DRY, "fade_out_s": 0.5})
    assert faded_CS.shape[1] <= round(score.length_s * RATE_HZ)
    assert np.array_equal(faded_CS[:, : RATE_HZ // 10], dry_CS[:, : RATE_HZ // 10])
    assert np.abs(faded_CS[:, -50:]).max() < 2e-3 * np.abs(dry_CS).max()
    finer_CS = mix(score, font, **{**DRY, "sample_rate_hz": 48_000})
    assert finer_CS.shape[1] / dry_CS.shape[1] == pytest.approx(48_000 / RATE_HZ, rel=1e-2)


@pytest.mark.parametrize("name", ["studio", "chamber", "hall", "church"])
def test_a_room_dies_away_as_it_says_and_keeps_low_sound_out(name: room.RoomName) -> None:
    response_CS = room.impulse_response(name, sample_rate_hz=RATE_HZ)
    stated = room.ROOMS[name]
    assert stated is not None
    assert np.square(response_CS).sum(axis=1) == pytest.approx([1, 1], rel=1e-3)
    assert np.abs(response_CS[:, : round(stated.before_s * RATE_HZ) - 1]).max() == 0
    assert abs(np.corrcoef(response_CS)[0, 1]) < 0.1
    # Reverberation time from the fall between -5 and -25 dB of the energy to come (ISO 3382, T20).
    band_S = signal.sosfilt(signal.butter(4, (1_000, 3_000), "bandpass", fs=RATE_HZ, output="sos"), response_CS[0])
    fall_db = 10 * np.log10(np.cumsum(np.square(band_S)[::-1])[::-1] / np.square(band_S).sum() + 1e-12)
    first, last = (int(np.argmax(fall_db < level)) for level in (-5, -25))
    assert 3 * (last - first) / RATE_HZ == pytest.approx(stated.decay_s, rel=0.25)
    spectrum = np.square(np.abs(np.fft.rfft(response_CS[0])))
    hertz = np.fft.rfftfreq(response_CS.shape[1], 1 / RATE_HZ)
    assert spectrum[hertz < 100].mean() < 0.1 * spectrum[(hertz > 400) & (hertz < 1_500)].mean()


@pytest.mark.parametrize("preset", equaliser.PRESETS)
@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
def test_an_equaliser_does_what_its_bands_say(preset: equaliser.EqualiserName, rate_hz: int) -> None:
    response_S = equaliser.impulse_response(preset, sample_rate_hz=rate_hz, samples=1 << 15)
    hertz = np.fft.rfftfreq(len(response_S), 1 / rate_hz)
    moved_db = 20 * np.log10(np.abs(np.fft.rfft(response_S)) + 1e-9)
    middle = float(np.interp(1_000, hertz, moved_db))
    assert abs(middle) < 2.5
    for each in equaliser.PRESETS[preset]:
        at = {"low_cut": 15.0, "low_shelf": each.hertz / 4, "high_shelf": min(each.hertz * 3, 20_000)}.get(
            each.kind, each.hertz
        )
        found = float(np.interp(at, hertz, moved_db))
        assert found < -9 if each.kind == "low_cut" else abs(found - each.gain_db) < 1.2


def test_a_sound_in_blocks_is_the_same_as_in_one(font: SoundFont) -> None:
    random = np.random.default_rng(0)
    sound_CS = random.normal(size=(2, 400_000)).astype(np.float32)
    passed = room.response("studio", "bright", reverb_db=-3.0, sample_rate_hz=RATE_HZ)
    assert passed is not None
    assert sound_CS.shape[1] > passed.block
    made_CS = room.played_in(sound_CS, passed)
    direct_S = equaliser.impulse_response("bright", sample_rate_hz=RATE_HZ, samples=8192)
    wet_S = signal.fftconvolve(room.impulse_response("studio", sample_rate_hz=RATE_HZ)[0], direct_S) * 10 ** (-3 / 20)
    own, other = 1 / np.hypot(1, 0.35), 0.35 / np.hypot(1, 0.35)
    expected_S = signal.fftconvolve(sound_CS[0], direct_S)
    expected_S = np.pad(expected_S, (0, made_CS.shape[1] - len(expected_S)))
    heard_S = signal.fftconvolve(own * sound_CS[0] + other * sound_CS[1], wet_S)
    expected_S[: len(heard_S)] += heard_S[: len(expected_S)]
    assert np.abs(made_CS[0] - expected_S).max() < 1e-3


def test_stems_add_up_to_the_master(font: SoundFont) -> None:
    score = band(0, 40, 56, DRUM_PROGRAM, velocity=127)
    made = finish(score, formats=["wav", "stems"], title="A band", sound=Sound(loudness_lufs=-12.0))
    master_SC, _ = decode_audio(made.files["wav"])
    stems = {name: decode_audio(data)[0] for name, data in made.files.items() if name.startswith("stems/")}
    assert [name.partition("-")[2] for name in stems] == [
        "acoustic-grand-piano.flac", "violin.flac", "trumpet.flac", "drums.flac",
    ]  # fmt: skip
    assert all(np.abs(stem_SC).max() > 0.01 for stem_SC in stems.values())
    whole_SC = np.sum(list(stems.values()), axis=0)
    assert np.abs(whole_SC - master_SC).max() < 1.6 / 32_768
    with soundfile.SoundFile(io.BytesIO(made.files["stems/02-violin.flac"])) as file:
        assert (file.title, file.subtype) == ("A band (violin)", "PCM_24")


def test_what_was_multiplied_is_told(font: SoundFont) -> None:
    random = np.random.default_rng(1)
    loud_SC = (random.normal(size=(RATE_HZ, 2)) ** 3 * 0.02).astype(np.float32)
    made = master(loud_SC, sample_rate_hz=RATE_HZ)
    assert np.ptp(made.gain_S[500:-500]) > 0.01 * made.gain_S.max()
    assert np.abs(loud_SC * made.gain_S[:, None] - made.audio_SC).max() < 1e-6


def test_the_meters_read_as_other_peoples_do() -> None:
    random = np.random.default_rng(2)
    for length_s, rate_hz in ((0.7, 44_100), (5.0, 48_000)):
        audio_SC = random.normal(size=(round(length_s * rate_hz), 2)).astype(np.float32)
        audio_SC *= np.linspace(0.001, 0.3, len(audio_SC), dtype=np.float32)[:, None]
        expected = pyloudnorm.Meter(rate_hz).integrated_loudness(audio_SC)
        assert measure_loudness_lufs(audio_SC, sample_rate_hz=rate_hz) == pytest.approx(expected, abs=1e-3)
        finer = max(np.abs(signal.resample_poly(np.pad(side_S, 64), 4, 1)).max() for side_S in audio_SC.T)
        assert measure_true_peak_dbtp(audio_SC) == pytest.approx(20 * np.log10(finer), abs=0.02)


def test_dither_is_white_triangular_and_between_the_channels_independent() -> None:
    made_SC = np.empty((200_000, 2), dtype=np.int16)
    loops.in_steps(np.zeros((2, 200_000), dtype=np.float32), 1, np.float32(32_768), made_SC)
    # Two draws of a rectangle of one step: variance 1/6, and that of rounding, 1/12.
    assert made_SC.var(axis=0) == pytest.approx([0.25, 0.25], rel=0.02)
    assert np.abs(made_SC.mean(axis=0)).max() < 0.01
    assert abs(np.corrcoef(made_SC.T)[0, 1]) < 0.01
    assert abs(np.corrcoef(made_SC[1:, 0], made_SC[:-1, 0])[0, 1]) < 0.01
