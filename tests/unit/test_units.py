"""Quantities: what is read, what is refused and how, and that notation and number agree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.errors import RecipeError
from tutti.units import (
    PITCH_CLASSES,
    Key,
    check_tempo_qpm,
    format_bytes,
    format_seconds,
    parse_key,
    parse_length_s,
    pitch_name,
)

KEYS = st.builds(Key, tonic=st.integers(0, 11), minor=st.booleans())


@given(KEYS)
def test_a_key_is_read_from_its_own_notation(key: Key) -> None:
    assert parse_key(str(key)) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("D minor", Key(2, True)),
        ("d", Key(2, True)),
        ("D", Key(2, False)),
        ("F# major", Key(6, False)),
        ("f♯-min", Key(6, True)),
        ("Bb", Key(10, False)),
        ("B♭ maj", Key(10, False)),
        ("c#m", Key(1, True)),
        ("CM", Key(0, False)),
        ("Cm", Key(0, True)),
        ("c major", Key(0, False)),
        ("Cb", Key(11, False)),
        ("  e minor ", Key(4, True)),
    ],
)
def test_keys_as_musicians_write_them(text: str, key: Key) -> None:
    assert parse_key(text) == key


@pytest.mark.parametrize("text", ["", "H", "D dorian", "C##", "minor", "0", "D\nminor\nx"])
def test_what_is_no_key_is_refused_by_name(text: str) -> None:
    with pytest.raises(RecipeError, match="is not known: write it like"):
        parse_key(text)


@given(KEYS, st.integers(-40, 40))
def test_transposition_moves_the_scale_with_the_tonic(key: Key, semitones: int) -> None:
    moved = key.transposed(semitones)
    assert moved.pitch_classes == {(pitch + semitones) % 12 for pitch in key.pitch_classes}
    assert moved.transposed(-semitones) == key
    assert len(key.pitch_classes) == (8 if key.minor else 7)


@pytest.mark.parametrize(
    ("text", "length_s"),
    [(30, 30), ("30", 30), ("30s", 30), ("1m30s", 90), ("2 min", 120), ("1m 5 s", 65), ("0.5m", 30), (" 90 s ", 90)],
)
def test_lengths_as_people_write_them(text: str | float, length_s: float) -> None:
    assert parse_length_s(text) == length_s


@given(st.integers(1, 600))
def test_a_length_is_read_from_its_own_notation(seconds: int) -> None:
    assert parse_length_s(format_seconds(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "s", "m", "thirty", "10:30", "-5", "1e3", "30ss"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a time: write it like"):
        parse_length_s(text)


@pytest.mark.parametrize("value", [0, 0.99, 600.1, "600m", "1h", "10h", 36_000, -3, math.inf, math.nan])
def test_a_length_outside_the_limits_is_refused_with_them(value: str | float) -> None:
    with pytest.raises(RecipeError, match=rf"length {value} is outside 1 s to 600 s"):
        parse_length_s(value)


@pytest.mark.parametrize("tempo", [0, 19.9, 300.5, -60, math.inf, math.nan])
def test_a_tempo_outside_the_limits_is_refused_with_them(tempo: float) -> None:
    with pytest.raises(RecipeError, match="is outside 20 to 300 quarters a minute"):
        check_tempo_qpm(tempo)


@pytest.mark.parametrize("tempo", [20, 96.5, 300])
def test_a_tempo_within_the_limits_passes(tempo: float) -> None:
    assert check_tempo_qpm(tempo) == tempo


@given(st.integers(0, 127))
def test_pitch_names_tell_class_and_octave(pitch: int) -> None:
    name = pitch_name(pitch)
    letters = name.rstrip("-0123456789")
    assert 12 * (int(name.removeprefix(letters)) + 1) + PITCH_CLASSES.index(letters) == pitch


def test_middle_c_is_c4() -> None:
    assert pitch_name(60) == "C4"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (2 << 40, "2048.0 GiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2s"), (9.94, "9.9s"), (12.4, "12s"), (59.7, "1m00s"), (75, "1m15s"), (3599.8, "1h00m"), (7300, "2h01m")],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
