"""Sound files: what they hold comes back, what is wrong with one is a refusal."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tutti.corpus.audio import (
    SUFFIXES,
    Bits,
    Floats,
    Recording,
    decode,
    dequantised,
    encode_flac,
    is_known,
    mixed_down,
    quantised,
    resampled,
)
from tutti.errors import DataError

RATE_HZ = 44_100
KINDS = {
    "WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III", "AIFF": "PCM_16",
}  # fmt: skip


def tone(*, seconds: float = 1.0, hertz: float = 440.0, channels: int = 2, rate_hz: int = RATE_HZ) -> Floats:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    sound_S = 0.3 * np.sin(2 * np.pi * hertz * time_s) + 0.01 * np.random.default_rng(0).standard_normal(len(time_s))
    return np.repeat(sound_S[:, None], channels, axis=1).astype(np.float32)


def file_of(samples_SC: Floats, *, kind: str = "WAV", subtype: str | None = None, rate_hz: int = RATE_HZ) -> bytes:
    target, subtype = io.BytesIO(), subtype or KINDS[kind]
    # libsndfile rounds floats for one container as it does not for another.
    held_SC = quantised(samples_SC, bits=24 if subtype == "PCM_24" else 16) if "PCM" in subtype else samples_SC
    with soundfile.SoundFile(target, "w", rate_hz, samples_SC.shape[1], subtype=subtype, format=kind) as sink:
        for start in range(0, len(samples_SC), 4096):
            sink.write(held_SC[start : start + 4096])
    return target.getvalue()


def refused(data: bytes, *, max_length_s: float = 60.0, max_decoded_bytes: int = 2**24) -> tuple[str, str]:
    with pytest.raises(DataError) as caught:
        decode(data, max_length_s=max_length_s, max_decoded_bytes=max_decoded_bytes)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read(kind: str) -> None:
    samples_SC, rate_hz = decode(file_of(tone(), kind=kind))
    assert rate_hz == RATE_HZ
    assert samples_SC.dtype == np.float32
    assert samples_SC.shape == tone().shape
    assert np.sqrt(np.square(samples_SC - tone()).mean()) < 0.02


def test_names_are_known_in_either_case() -> None:
    assert all(is_known(f"a{suffix.upper()}") for suffix in SUFFIXES)
    assert not is_known("a.mid")


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.sampled_from([1, 2]), st.sampled_from([16, 24]))
def test_canonical_samples_survive_flac_to_the_bit(seed: int, length: int, channels: int, bits: Bits) -> None:
    samples_SC = np.random.default_rng(seed).uniform(-1.2, 1.2, (length, channels)).astype(np.float32)
    steps_SC = quantised(samples_SC, bits=bits)
    found_SC, rate_hz = decode(encode_flac(steps_SC, sample_rate_hz=22_050, bits=bits))
    assert rate_hz == 22_050
    assert np.array_equal(found_SC, dequantised(steps_SC))
    assert np.array_equal(quantised(found_SC, bits=bits), steps_SC)
    assert np.abs(found_SC - np.clip(samples_SC, -1, 1)).max() <= 2.0 ** (1 - bits)


@pytest.mark.parametrize("bits", [16, 24])
def test_what_a_file_held_comes_back_to_the_bit(bits: Bits) -> None:
    data = file_of(tone(), kind="WAV", subtype=f"PCM_{bits}")
    expected, _ = soundfile.read(io.BytesIO(data), dtype="int32", always_2d=True)
    assert np.array_equal(quantised(decode(data)[0], bits=bits), expected)


def test_no_bytes_no_sound_and_no_samples() -> None:
    assert refused(b"")[0] == "empty"
    assert refused(b"no sound at all" * 99)[0] == "unreadable"
    assert refused(file_of(tone(seconds=0)))[0] == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 4.0, -1e30])
def test_values_that_are_no_sound_are_refused(value: float) -> None:
    samples_SC = tone()
    samples_SC[30_000, 1] = value
    reason, detail = refused(file_of(samples_SC, subtype="FLOAT"))
    assert reason == "unreadable"
    assert "times full scale" in detail


def test_what_overshoots_a_little_is_clipped() -> None:
    samples_SC = 4 * tone()
    found_SC, _ = decode(file_of(samples_SC, subtype="FLOAT"))
    assert np.array_equal(found_SC, np.clip(samples_SC, -1, 1))
    assert np.abs(samples_SC).max() > 1.1


@pytest.mark.parametrize("kind", KINDS)
def test_length_and_bytes_are_limited(kind: str) -> None:
    data = file_of(tone(seconds=3), kind=kind)
    detail = "3 s of 2 channels are more than 2.9s or 16.0 MiB of samples"
    assert refused(data, max_length_s=2.9) == ("too_long", detail)
    assert refused(data, max_decoded_bytes=8 * 3 * RATE_HZ - 9)[0] == "too_long"
    assert len(decode(data, max_length_s=3, max_decoded_bytes=8 * 3 * RATE_HZ)[0]) == 3 * RATE_HZ


@pytest.mark.parametrize(("claimed", "opens"), [(0, True), (2**32 - 1, False)])
def test_a_header_that_lies_does_not_let_more_pass(claimed: int, opens: bool) -> None:
    data = bytearray(file_of(tone(seconds=3), kind="FLAC"))
    data[22:26] = claimed.to_bytes(4, "big")
    assert refused(bytes(data), max_length_s=2.0)[0] == "too_long"
    if opens:
        # A stream that was written to a pipe tells no length; libsndfile then loses its last block.
        assert 2.5 * RATE_HZ < len(decode(bytes(data), max_length_s=4.0)[0]) <= 3 * RATE_HZ


@pytest.mark.parametrize("rate_hz", [1, 3999, 384_001])
def test_odd_rates_are_refused(rate_hz: int) -> None:
    assert refused(file_of(tone(), rate_hz=rate_hz)) == ("unreadable", f"{rate_hz} Hz is no sample rate that is read")


def test_other_containers_are_refused() -> None:
    assert refused(file_of(tone(), kind="CAF", subtype="PCM_16")) == ("unreadable", "sound as CAF is not read")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_breaks_off_counts_up_to_there(kind: str) -> None:
    whole = file_of(tone(seconds=6), kind=kind)
    expected_SC, _ = decode(whole)
    found_SC, _ = decode(whole[: len(whole) // 2])
    assert 1.5 * RATE_HZ < len(found_SC) < 3.5 * RATE_HZ
    settled = len(found_SC) - 4096
    assert np.allclose(found_SC[:settled], expected_SC[:settled], atol=1e-6)


def test_the_file_tells_its_title() -> None:
    target = io.BytesIO()
    with soundfile.SoundFile(target, "w", RATE_HZ, 1, format="FLAC") as sink:
        sink.title = " Étude "
        sink.write(tone(channels=1))
    with Recording(target.getvalue()) as recording:
        assert recording.title == "Étude"
    with Recording(file_of(tone())) as recording:
        assert recording.title is None


def test_more_channels_than_asked_become_their_mean() -> None:
    samples_SC = np.stack([tone(channels=1)[:, 0] * gain for gain in (1, 2, 0, -1)], axis=1)
    (mono_SC,) = mixed_down([samples_SC], max_channels=2)
    assert np.allclose(mono_SC[:, 0], samples_SC[:, 0] / 2, atol=1e-6)
    assert next(mixed_down([samples_SC[:, :2]], max_channels=2)).shape[1] == 2
    assert next(mixed_down([samples_SC[:, :2]], max_channels=1)).shape[1] == 1


@pytest.mark.parametrize(("from_hz", "to_hz"), [(48_000, 44_100), (22_050, 44_100), (44_100, 16_000)])
def test_a_tone_is_the_same_tone_at_another_rate(from_hz: int, to_hz: int) -> None:
    time_s = np.arange(2 * from_hz) / from_hz
    samples_SC = np.sin(2 * np.pi * 1000 * time_s).astype(np.float32)[:, None]
    blocks = np.array_split(samples_SC, 7)
    found_SC = np.concatenate(list(resampled(blocks, from_hz=from_hz, to_hz=to_hz)))
    assert abs(len(found_SC) - 2 * to_hz) <= 1
    expected_S = np.sin(2 * np.pi * 1000 * np.arange(len(found_SC)) / to_hz)
    inside = slice(to_hz // 10, -to_hz // 10)
    assert np.abs(found_SC[inside, 0] - expected_S[inside]).max() < 1e-4
