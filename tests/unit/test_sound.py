"""What is said of sound, where the answer is known: clicks, sines, meters' test signals, rendered works."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.midi import read_midi
from tutti.corpus.score import Notes, Score
from tutti.features.augment_audio import amplified, crop, drawn_crop_start, drawn_gain_db
from tutti.features.descriptors import estimate_key
from tutti.features.loudness import integrated_lufs
from tutti.features.pulse import onset_strength, onsets_s, tempo_qpm
from tutti.features.sound import describe
from tutti.features.spectral import Floats
from tutti.render.synthesis import synthesise

RATE_HZ = 44_100


def clicks(qpm: float, *, seconds: float = 10.0, rate_hz: int = RATE_HZ, seed: int = 0) -> Floats:
    """A short burst of noise on each beat over quiet noise."""
    random = np.random.default_rng(seed)
    sound_S = 1e-4 * random.standard_normal(round(seconds * rate_hz))
    burst = random.standard_normal(rate_hz // 50) * np.geomspace(0.5, 0.005, rate_hz // 50)
    for start in np.round(np.arange(0.1, seconds - 0.05, 60 / qpm) * rate_hz).astype(int).tolist():
        sound_S[start : start + len(burst)] += burst
    return sound_S.astype(np.float32)


def cadence(tonic: int, *, minor: bool) -> Score:
    third, sixth = (3, 8) if minor else (4, 9)
    chords = [(0, third, 7), (0, 5, sixth), (-1, 2, 5, 7), (0, third, 7)] * 2
    onset = np.repeat(np.arange(8) * 480, [len(chord) for chord in chords])
    pitch = [60 + tonic + step for chord in chords for step in chord]
    return Score.of(Notes.of(onset_ticks=onset, duration_ticks=[480] * len(pitch), pitch=pitch), ticks_per_quarter=480)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("qpm", [60, 72, 85.5, 100, 113, 120, 137, 150, 160])
def test_clicks_give_their_tempo(qpm: float, rate_hz: int) -> None:
    strength_F = onset_strength(clicks(qpm, rate_hz=rate_hz), sample_rate_hz=rate_hz)
    found, confidence = tempo_qpm(strength_F, sample_rate_hz=rate_hz)
    # One frame of the slowest lag is 1 %, of the fastest 3 %: only what is read off between frames is this close.
    assert found == pytest.approx(qpm, rel=0.002)
    assert confidence > 0.5
    onsets = onsets_s(strength_F, sample_rate_hz=rate_hz)
    assert np.abs(onsets - np.arange(0.1, 9.95, 60 / qpm)).max() < 0.02


@pytest.mark.parametrize("qpm", [43, 50, 170, 180, 200, 240])
def test_clicks_far_from_the_middle_give_their_tempo_or_its_octave(qpm: float) -> None:
    found, _ = tempo_qpm(onset_strength(clicks(qpm), sample_rate_hz=RATE_HZ), sample_rate_hz=RATE_HZ)
    assert min(abs(found / (qpm * octave) - 1) for octave in (0.5, 1, 2)) < 0.02


def test_noise_a_tone_one_stroke_and_silence_have_no_tempo() -> None:
    noise_S = np.random.default_rng(0).standard_normal(10 * RATE_HZ).astype(np.float32) * np.float32(0.1)
    tone_S = np.sin(np.arange(10 * RATE_HZ) * 0.05).astype(np.float32)
    stroke_S = noise_S * np.geomspace(1, 1e-5, len(noise_S), dtype=np.float32)
    for sound_S in (noise_S, tone_S, stroke_S, 0 * noise_S, noise_S[:4410], noise_S[:1]):
        assert tempo_qpm(onset_strength(sound_S, sample_rate_hz=RATE_HZ), sample_rate_hz=RATE_HZ)[0] is None


def test_what_sounds_at_the_start_begins_there() -> None:
    stroke_S = clicks(60, seconds=0.9)[RATE_HZ // 10 :]
    assert onsets_s(onset_strength(stroke_S, sample_rate_hz=RATE_HZ), sample_rate_hz=RATE_HZ).tolist() == [0.0]
    assert not len(onsets_s(onset_strength(0 * stroke_S, sample_rate_hz=RATE_HZ), sample_rate_hz=RATE_HZ))


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", range(-6, 6))
def test_a_cadence_sounds_in_its_key(tonic: int, minor: bool) -> None:
    score = cadence(tonic, minor=minor)
    found = describe(synthesise(score), sample_rate_hz=RATE_HZ)
    assert found["key"] == str(estimate_key(score)[0])
    assert found["key_confidence"] > 0.03
    assert found["tempo_qpm"] == pytest.approx(120, rel=0.02)


def test_silence_says_nothing() -> None:
    assert describe(np.zeros((RATE_HZ, 2), np.float32), sample_rate_hz=RATE_HZ) == {
        "loudness_lufs": None, "tempo_qpm": None, "tempo_confidence": 0.0, "key": "C major", "key_confidence": 0.0,
        "onsets_per_s": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("rate_hz", [32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("level_db", [-23, -33])
def test_a_stereo_sine_of_1_khz_is_as_loud_as_its_level(level_db: float, rate_hz: int) -> None:
    # EBU Tech 3341, cases 1 and 2.
    sine_S = 10 ** (level_db / 20) * np.sin(2 * np.pi * 1000 * np.arange(5 * rate_hz) / rate_hz)
    stereo_SC = np.repeat(sine_S[:, None], 2, axis=1).astype(np.float32)
    assert integrated_lufs(stereo_SC, sample_rate_hz=rate_hz) == pytest.approx(level_db, abs=0.1)


def test_silence_between_is_gated_out() -> None:
    # EBU Tech 3341, case 3: -36, -23, -36 dB read -23 LUFS.
    time_s = np.arange(10 * 48_000) / 48_000
    parts = [10 ** (level_db / 20) * np.sin(2 * np.pi * 1000 * time_s) for level_db in (-36, -23, -23, -36)]
    stereo_SC = np.repeat(np.concatenate(parts)[:, None], 2, axis=1).astype(np.float32)
    assert integrated_lufs(stereo_SC, sample_rate_hz=48_000) == pytest.approx(-23, abs=0.1)


@given(st.integers(0, 2**32 - 1), st.floats(0.4, 3.0), st.sampled_from([1, 2]), st.floats(-80, 0))
def test_loudness_is_that_of_pyloudnorm(seed: int, seconds: float, channels: int, level_db: float) -> None:
    random = np.random.default_rng(seed)
    swell = np.exp(random.standard_normal(1 + round(10 * seconds))).repeat(RATE_HZ // 10)[: round(seconds * RATE_HZ)]
    sound_SC = random.standard_normal((len(swell), channels)) * swell[:, None] * 10 ** (level_db / 20) * 0.1
    sound_SC = sound_SC.astype(np.float32)
    whole_SC = sound_SC[: len(sound_SC) // 4410 * 4410]
    expected = pyloudnorm.Meter(RATE_HZ, filter_class="DeMan").integrated_loudness(whole_SC)
    found = integrated_lufs(whole_SC, sample_rate_hz=RATE_HZ)
    assert found == pytest.approx(expected, abs=0.02) if math.isfinite(expected) else found == expected


def test_a_short_sound_is_measured_with_silence_after_it() -> None:
    tone_SC = 0.5 * np.sin(np.arange(4410) * 0.2)[:, None].astype(np.float32)
    padded_SC = np.concatenate((tone_SC, np.zeros((4 * 4410 - len(tone_SC), 1), np.float32)))
    assert integrated_lufs(tone_SC, sample_rate_hz=RATE_HZ) == integrated_lufs(padded_SC, sample_rate_hz=RATE_HZ)
    assert integrated_lufs(0 * tone_SC, sample_rate_hz=RATE_HZ) == -math.inf


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 1000), st.integers(0, 5000), st.integers(1, 3000))
def test_a_crop_lies_within_and_its_draw_repeats(seed: int, epoch: int, sample: int, length: int, size: int) -> None:
    drawn = {"epoch": epoch, "sample": sample, "length_samples": length, "crop_samples": size}
    start = drawn_crop_start(seed, **drawn)
    assert start == drawn_crop_start(seed, **drawn)
    assert 0 <= start <= max(length - size, 0)
    sound_SC = np.arange(1, 2 * length + 1, dtype=np.float32).reshape(-1, 2)
    found_SC = crop(sound_SC, start_samples=start, crop_samples=size)
    assert found_SC.shape == (size, 2)
    held = min(size, length)
    assert np.array_equal(found_SC[:held], sound_SC[start : start + held])
    assert not found_SC[held:].any()


def test_draws_are_spread_over_all_starts_and_gains() -> None:
    starts = [drawn_crop_start(1, epoch=0, sample=n, length_samples=14, crop_samples=5) for n in range(2000)]
    assert np.bincount(starts, minlength=10).min() > 140
    assert len(set(starts)) == 10
    assert starts != [drawn_crop_start(1, epoch=1, sample=n, length_samples=14, crop_samples=5) for n in range(2000)]
    gains = np.array([drawn_gain_db(1, epoch=0, sample=n, most_db=6.0) for n in range(2000)])
    assert -6 <= gains.min() < -5.9
    assert 5.9 < gains.max() <= 6
    assert abs(gains.mean()) < 0.3


@given(st.floats(-30, 30), st.floats(0.001, 1.0))
def test_a_gain_is_what_it_says_unless_it_would_clip(gain_db: float, peak: float) -> None:
    sound_SC = np.array([[peak, -peak / 2]], dtype=np.float32)
    found_SC = amplified(sound_SC, gain_db=gain_db)
    expected = min(peak * 10 ** (gain_db / 20), 1.0)
    assert found_SC[0, 0] == pytest.approx(expected, rel=1e-5)
    assert found_SC[0, 1] == pytest.approx(-expected / 2, rel=1e-5)


def test_rendered_works_are_heard_as_they_are_written(shared_folder: Path) -> None:
    keys, tempos, count = 0, 0, 0
    for path in sorted((shared_folder / "corpora" / "lieder" / "midi").rglob("*.mid"))[::120]:
        score = read_midi(path.read_bytes())
        if len(score.tempo_qpm) > 1 or not 20 < score.length_s < 120:
            continue
        found = describe(synthesise(score), sample_rate_hz=RATE_HZ)
        ratio = (found["tempo_qpm"] or 0) / score.tempo_qpm[0]
        count += 1
        keys += found["key"] == str(estimate_key(score)[0])
        tempos += any(abs(ratio / meter - 1) < 0.02 for meter in (1, 2, 3, 1 / 2, 1 / 3, 3 / 2, 2 / 3))
    assert count >= 4
    assert keys >= 0.6 * count
    assert tempos >= 0.6 * count
