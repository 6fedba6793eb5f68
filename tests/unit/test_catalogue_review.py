"""Each check passes what a listener would take and fails what they would send back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tutti.catalogue.order import Checks
from tutti.catalogue.review import FAILED, PASSED, Finding, from_json, passes, review, to_json
from tutti.config import build
from tutti.corpus.score import Notes, Score
from tutti.generation.request import Request

TICKS = 24
D_MINOR = (62, 64, 65, 67, 69, 70, 72, 74)


def melody(pitches: tuple[int, ...] = D_MINOR * 4, *, tempo: float = 120.0, program: int = 0, **changes: Any) -> Score:
    """A quarter note each, no gaps, 4/4: 32 quarters of 0.5 s are 16 s."""
    columns: dict[str, Any] = {
        "onset_ticks": TICKS * np.arange(len(pitches)),
        "duration_ticks": np.full(len(pitches), TICKS),
        "pitch": pitches,
        "program": program,
        **changes,
    }
    return Score.of(Notes.of(**columns), ticks_per_quarter=TICKS, tempos=[(0, tempo)])


def findings_of(
    score: Score, *, refused_tokens: int = 0, checks: Checks | None = None, **asked: Any
) -> dict[str, Finding]:
    request = build(Request, asked if "bars" in asked else {"length": 16, **asked})
    findings = review(score, request=request, refused_tokens=refused_tokens, checks=checks or Checks())
    return {finding.check: finding for finding in findings}


def test_a_good_take_passes_every_check() -> None:
    found = findings_of(melody(), key="D minor", tempo=120, instruments=["piano"])
    assert {name: finding.verdict for name, finding in found.items()} == dict.fromkeys(
        (
            "well_formed", "notes", "length", "silence", "silence_share", "endless_note",
            "stuck_notes", "range", "opening", "held_note", "overhang", "repetition", "key", "tonic", "tempo",
            "instruments", "silent_instruments",
        ),
        PASSED,
    )  # fmt: skip
    assert passes(list(found.values()))


def test_checks_that_nobody_asked_for_are_not_made() -> None:
    assert not {"key", "tempo", "instruments", "silent_instruments"} & set(findings_of(melody()))


def with_gap(quarters: int, *, at: int) -> Score:
    onset = TICKS * (np.arange(32) + np.where(np.arange(32) >= at, quarters, 0))
    return melody(onset_ticks=onset)


long_note = np.full(32, TICKS)
long_note[3] = 50 * TICKS
overlong = np.full(32, 2 * TICKS)

held = np.full(64, TICKS)
held[3] = 54 * TICKS
hanging = np.full(32, TICKS)
hanging[-1] = 24 * TICKS
WANDERING = tuple(np.random.default_rng(3).integers(60, 72, 64).tolist())
C_MAJOR = (60, 64, 67, 72, 60, 67, 64, 60)

FAULTS: list[tuple[str, Score, dict[str, Any], float]] = [
    ("well_formed", melody(), {"refused_tokens": 2}, 2),
    ("notes", melody(D_MINOR[:7]), {"length": 4}, 7),
    ("length", melody(), {"length": 30}, 14),
    ("length", melody(), {"length": 8}, 8),
    ("length", melody(), {"bars": 16}, 8),
    ("silence", with_gap(9, at=10), {"length": 20}, 4.5),
    ("silence", with_gap(10, at=0), {"length": 20}, 5),
    ("silence_share", melody(duration_ticks=np.full(32, 16)), {}, 0.3263),
    ("endless_note", melody(duration_ticks=long_note), {"length": 26}, 25),
    ("stuck_notes", melody((60,) * 32, duration_ticks=overlong), {}, 0.9688),
    ("range", melody((20, *D_MINOR * 4)), {}, 1),
    ("range", melody((*D_MINOR * 4, 109, 110)), {}, 2),
    ("key", melody(), {"key": "F# major"}, 0.25),
    ("opening", with_gap(5, at=0), {"length": 18.5}, 2.5),
    ("held_note", melody(WANDERING, tempo=240, duration_ticks=held), {}, 14),
    ("overhang", melody(tempo=240, duration_ticks=hanging), {"length": 13.75}, 6),
    ("repetition", melody(D_MINOR[:4] * 8), {}, 0.875),
    ("tonic", melody(C_MAJOR * 4), {"key": "A minor"}, 0.4901),
    ("tempo", melody(tempo=110), {"tempo": 120}, 0.0833),
    ("instruments", melody(program=np.repeat([0, 73], 16)), {"instruments": ["piano"]}, 16),
    ("silent_instruments", melody(), {"instruments": ["piano", "strings"]}, 1),
]


WITH = {
    "silence": ["opening"],
    "endless_note": ["held_note", "overhang"],
    "stuck_notes": ["repetition"],
    "key": ["tonic"],
}
"""What fails with some of these: a piece in another scale is in another key, one pitch alone is one loop."""


@pytest.mark.parametrize(("check", "score", "asked", "figure"), FAULTS)
def test_a_fault_fails_its_check_with_its_figure(
    check: str, score: Score, asked: dict[str, Any], figure: float
) -> None:
    found = findings_of(score, **asked)
    assert found[check].verdict == FAILED
    assert found[check].figure == pytest.approx(figure, abs=2e-3)
    failed = [name for name, finding in found.items() if finding.verdict == FAILED]
    assert failed in ([check], sorted([check, *WITH.get(check, ())], key=list(found).index))
    assert not passes(list(found.values()))


def test_every_check_has_a_fault_here() -> None:
    made = findings_of(melody(), key="D minor", tempo=120, instruments=["piano"])
    assert {check for check, *_ in FAULTS} == set(made)


def test_a_piece_opens_with_a_bar_of_silence_at_most_however_slow() -> None:
    assert (
        findings_of(melody(tempo=60, onset_ticks=TICKS * (4 + np.arange(32))), length=36)["opening"].verdict == PASSED
    )
    assert (
        findings_of(melody(tempo=60, onset_ticks=TICKS * (5 + np.arange(32))), length=36)["opening"].verdict == FAILED
    )


def test_a_pedal_under_nothing_is_not_held_against_others() -> None:
    alone = melody((60,) * 8, onset_ticks=np.zeros(8), duration_ticks=np.full(8, 60 * TICKS), tempo=240)
    found = findings_of(alone, length=15)
    assert (found["held_note"].figure, found["overhang"].verdict) == (0, FAILED)


def test_the_relative_is_told_and_passes_where_the_asked_key_is_near() -> None:
    found = findings_of(melody((62, 65, 69, 65, 60, 65, 69, 70) * 4), key="D minor")["tonic"]
    assert found.verdict == PASSED
    assert found.detail.startswith("D minor 0.")
    assert "F major 0." in found.detail


def test_a_form_that_returns_is_no_loop() -> None:
    first, second = (tuple(60 + np.random.default_rng(seed).integers(0, 12, 16)) for seed in (1, 2))
    assert findings_of(melody((*first, *first, *second, *first)))["repetition"].figure == 0.5
    assert "repetition" not in findings_of(melody((60,) * 28))


def test_a_limit_moves_the_verdict() -> None:
    score = with_gap(9, at=10)
    assert findings_of(score, length=20)["silence"].verdict == FAILED
    assert findings_of(score, length=20, checks=Checks(max_silence_s=5))["silence"].verdict == PASSED


def test_a_short_piece_may_miss_its_length_by_a_bar() -> None:
    found = findings_of(melody(D_MINOR), length=5.9)["length"]
    assert (found.verdict, found.limit) == (PASSED, 2.0)


def test_repeated_notes_that_end_in_time_are_not_stuck() -> None:
    assert findings_of(melody((60,) * 32))["stuck_notes"].figure == 0


def test_equal_pitches_of_other_instruments_are_not_stuck() -> None:
    score = melody((60,) * 32, duration_ticks=overlong, program=np.arange(32) % 4 * 8)
    assert findings_of(score)["stuck_notes"].figure == 0


def test_a_unison_struck_together_is_not_stuck() -> None:
    score = melody((60,) * 32, onset_ticks=np.arange(32) // 2 * 2 * TICKS, duration_ticks=overlong)
    assert findings_of(score)["stuck_notes"].figure == 0


def test_drums_have_no_range_and_no_key() -> None:
    found = findings_of(melody((35, 109, 38, 42) * 8, program=128), key="C major", checks=Checks(min_in_key=0))
    assert found["range"].figure == 0
    assert found["key"].figure == 0


def test_a_take_without_notes_is_rejected_for_it() -> None:
    found = findings_of(Score.of(Notes.none(), ticks_per_quarter=TICKS), key="D minor")
    assert found["notes"].verdict == FAILED
    assert set(found) == {"well_formed", "notes"}


def test_the_checks_column_reads_back() -> None:
    findings = list(findings_of(melody(), key="D minor").values())
    assert from_json(to_json(findings)) == findings
