"""Controls that cannot hold together are refused by name, with the same line at every door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from jobs.generate import command
from serve.schemas import GenerateBody
from tutti import config
from tutti.catalogue.order import Order
from tutti.errors import RecipeError
from tutti.generation.contradictions import RULES
from tutti.generation.request import Request

CASES: list[tuple[str, dict[str, Any], str]] = [
    ("_drums_alone", {"instruments": ["drums"], "key": "C major"}, "drums alone have no key: leave it out"),
    ("_drums_alone", {"instruments": ["drums"], "chords": "C"}, "drums alone have no chords: leave it out"),
    ("_drums_alone", {"instruments": ["drums"], "pitch_range": "C3-C4"}, "drums alone have no pitch_range"),
    ("_mood_twice", {"mood": "sad", "arousal": 0.5}, "mood sad and arousal both say a mood: leave out one of them"),
    ("_length_twice", {"length": "20s", "bars": 8}, "length 20 s and bars 8 both say how long: leave out one of them"),
    ("_no_bar", {"length": 1, "tempo": 20, "meter": "4/4"}, "length 1 s is less than half a bar of 4/4 at tempo 20"),
    ("_scale_without_tonic", {"scale": "blues"}, "scale 'blues' has no tonic: write it like 'C blues'"),
    ("_key_and_scale", {"key": "C major", "scale": "A blues"}, "scale 'A blues' is not on the tonic of key"),
    ("_key_and_scale", {"key": "A minor", "scale": "A blues"}, "scale 'A blues' has Eb, which key 'A minor' has not"),
    ("_chords_and_length", {"chords": "C | F | G", "bars": 8}, "bars 8 are no whole number of rounds of the 3 bars of"),
    ("_chords_and_length", {"chords": "C | F | G", "bars": 2}, "leave bars out, or ask for 3"),
    ("_chords_and_length", {"chords": "C | F", "length": 1, "tempo": 60}, "they last 8 s at tempo 60"),
    ("_chords_and_length", {"chords": "C|F|G|C|F|G|C|F", "length": 2}, "they would need a tempo of 960"),
    ("_chords_and_length", {"chords": "C|" * 513}, "chords have 513 bars: write at most 512"),
    ("_chords_and_length", {"chords": "C", "length": 600, "tempo": 300}, "750 bars are more than 512"),
    ("_chords_and_key", {"chords": "C | D7", "key": "C major"}, "'D7' in bar 2 has F#, which key 'C major' has not"),
    (
        "_chords_and_key",
        {"chords": "C E", "scale": "C gong"},
        "'E' in bar 1 has Ab and B, which scale 'C gong' has not",
    ),
    (
        "_range_and_key",
        {"key": "C major", "pitch_range": "D4-D4"},
        "pitch_range D4-D4 holds none of C, E and G, on which",
    ),
    ("_range_and_chords", {"chords": "C | F#", "pitch_range": "C4-G4", "polyphony": 1, "bars": 2}, ""),
    ("_start", {"chords": "C", "start": {"kind": "interpolate"}}, "chords cannot hold on the way between two files"),
    ("contradicted", {"form": "ABA", "chords": "C"}, "form and chords both say how the piece goes: leave out one"),
    ("contradicted", {"form": "ABA", "start": {"kind": "continue"}}, "form and start both say how the piece goes"),
    ("contradicted", {"form": "ABA", "bars": 11}, "'A B A' has 3 sections of at least 4 bars, and there are 11 bars"),
    ("contradicted", {"form": "rondo", "length": 20, "tempo": 60}, "5 sections of at least 4 bars, and there are 5"),
    ("contradicted", {"form": "A:8 B:8 A", "bars": 20}, "form has 24 bars and bars says 20: leave bars out"),
    ("contradicted", {"form": "A:8 B:8", "length": 60, "tempo": 60}, "form of 16 bars at tempo 60 has a length of its"),
    ("contradicted", {"form": "A:8 B:8", "length": 600}, "form of 16 bars would need tempo 6 to last 600 s"),
    (
        "_range_without_player",
        {"pitch_range": {"bass": "C2-C3"}, "instruments": ["piano"]},
        "names bass, and only piano",
    ),
    (
        "_range_and_key",
        {"key": "C major", "pitch_range": {"piano": "D4-D4", "bass": "C2-C3"}},
        "pitch_range of piano D4-D4 holds none of C, E and G",
    ),
    (
        "_range_and_chords",
        {"chords": "C", "pitch_range": {"piano": "E4-G4", "bass": "D2-D2"}, "instruments": ["piano", "bass"]},
        "pitch_range of piano E4-G4 and bass D2-D2 holds no C, the bass of 'C'",
    ),
    ("_range_and_chords", {"chords": "C", "pitch_range": "D4-Eb4"}, "holds no tone of the chord 'C': widen it"),
    ("_range_and_chords", {"chords": "C", "pitch_range": "D4-G4"}, "holds no C, the bass of 'C': widen it"),
]


@pytest.mark.parametrize(("rule", "asked", "line"), CASES)
def test_contradictions_are_refused_by_name(rule: str, asked: dict[str, Any], line: str) -> None:
    if not line:
        Request(**asked)
        return
    with pytest.raises(ValidationError) as caught:
        Request(**asked)
    assert line in str(caught.value)


def test_every_rule_is_shown_once() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, _, line in CASES if line}


@pytest.mark.parametrize(
    "asked",
    [
        {"bars": 4, "length": 30.0},
        {"key": "A minor", "scale": "harmonic minor"},
        {"key": "A minor", "scale": "A yu"},
        {"instruments": ["drums", "piano"], "key": "C major"},
        {"chords": "Am | E7", "key": "A minor", "bars": 4},
        {"polyphony": 1, "chords": "C | F", "pitch_range": "D4-G4"},
        {"chords": "C", "pitch_range": {"piano": "E4-G4"}, "instruments": ["piano", "bass"]},
        {"chords": "C | F", "length": "20s"},
        {"form": "rondo", "bars": 40},
        {"form": "A:8 B:8 A", "length": 60.0},
    ],
)
def test_what_goes_together_is_taken(asked: dict[str, Any]) -> None:
    request = Request(**asked)
    assert Request.model_validate(request.model_dump()) == request
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_all_doors_refuse_with_the_same_line(tmp_path: Path) -> None:
    asked, line = {"chords": "C | D7", "key": "C major"}, "'D7' in bar 2 has F#, which key 'C major' has not"
    shell = ["--chords", "C | D7", "--key", "C major", "--root", str(tmp_path)]
    refused = CliRunner().invoke(command, shell).exception
    assert isinstance(refused, RecipeError)
    assert line in str(refused)
    with pytest.raises(ValidationError, match="'D7' in bar 2 has F#, which key 'C major' has not"):
        GenerateBody(**asked)
    with pytest.raises(RecipeError, match="'D7' in bar 2 has F#, which key 'C major' has not"):
        config.build(Order, {"name": "one", "model": "bach", "lines": [{"count": 1, "controls": asked}]})


def test_what_is_not_asked_leaves_no_trace() -> None:
    assert not {"scale", "pitch_range", "polyphony", "chords", "form"} & set(Request(bars=4, seed=3).model_dump())
    # As it was before these controls came.
    assert Request().digest() == "5a3016b694538425"
    assert Request(bars=4).digest() == "faa2450a678da95d"
    assert Request(bars=4).digest() != Request(bars=4, polyphony=1).digest()


def test_chords_say_how_long() -> None:
    assert Request(chords="C | F | G").extent == (3, None)
    assert Request(chords="C | F | G", bars=6).extent == (6, None)
    assert Request(chords="C | F | G", tempo=60, length=36).extent == (9, 60)
    # The whole rounds that last as long at a moderate tempo.
    assert Request(chords="C | F | G", length=30).extent == (12, 96.0)
