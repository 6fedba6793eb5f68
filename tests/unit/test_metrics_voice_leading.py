"""Voice leading: each fault planted and caught, laws, and the chorales of who made the rules."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError
from tutti.metrics.voice_leading import KINDS, REST, VOICES, Fault, examine, voices_of

# I, IV, V, I in C major without a fault: each voice to the nearest note, outer voices in contrary motion.
CADENCE = np.array([[72, 67, 64, 48], [72, 69, 65, 53], [71, 67, 62, 55], [72, 67, 64, 48]])

# What the second chord must become so that the first two make the fault.
PLANTED = {
    "parallel fifths": ([72, 67, 60, 48], [74, 69, 62, 53], ("alto", "tenor")),
    "parallel octaves": ([72, 67, 64, 48], [74, 65, 62, 50], ("soprano", "bass")),
    "hidden fifths": ([69, 64, 60, 48], [74, 65, 62, 55], ("soprano", "bass")),
    "hidden octaves": ([67, 64, 60, 48], [74, 65, 57, 50], ("soprano", "bass")),
    "crossing": ([72, 67, 64, 48], [72, 65, 67, 48], ("alto", "tenor")),
    "overlap": ([67, 64, 60, 48], [72, 69, 60, 48], ("soprano", "alto")),
    "spacing": ([72, 67, 64, 48], [79, 64, 60, 48], ("soprano", "alto")),
    "range": ([72, 67, 64, 48], [83, 71, 64, 48], ("soprano",)),
    "leap": ([72, 67, 64, 48], [72, 67, 64, 58], ("bass",)),
}

pitches = st.integers(34, 84) | st.just(REST)
grids = st.lists(st.lists(pitches, min_size=4, max_size=4), min_size=0, max_size=12).map(
    lambda rows: np.array(rows, dtype=int).reshape(-1, 4)
)


def test_a_plain_cadence_is_without_fault() -> None:
    found = examine(CADENCE)
    assert (found.changes, found.faults) == (3, ())
    assert set(found.rates().values()) == {0.0}


@pytest.mark.parametrize("kind", KINDS)
def test_each_planted_fault_is_caught(kind: str) -> None:
    before, after, voices = PLANTED[kind]
    assert kind not in {fault.kind for fault in examine(np.array([before, before])).faults}
    found = examine(np.array([before, before, after, after]))
    assert Fault(kind, 2, voices) in found.faults
    assert found.changes == 1
    assert found.counts()[kind] == 1
    assert found.rates()[kind] == 100


def test_what_only_looks_like_a_fault_is_none() -> None:
    innocent = {
        "parallel fifths": [[67, 60, 55, 48], [67, 60, 55, 48]],  # held
        "parallel octaves": [[72, 67, 64, 48], [60, 57, 55, 48]],  # one voice moves
        "hidden octaves": [[71, 67, 62, 43], [72, 67, 64, 48]],  # the soprano steps
        "hidden fifths": [[72, 64, 60, 48], [67, 65, 64, 60]],  # contrary motion
        "leap": [[72, 67, 64, 48], [72, 67, 64, 60]],  # an octave
        "overlap": [[72, 67, 64, 48], [72, 72, 64, 48]],  # to where the upper voice was, not above
        "crossing": [[67, 67, 60, 48], [69, 67, 60, 48]],  # a unison
        "spacing": [[72, 60, 48, 36], [72, 60, 48, 36]],  # octaves
    }
    for kind, rows in innocent.items():
        assert examine(np.array(rows)).counts()[kind] == 0, kind


def test_a_tritone_between_parallel_fifths_is_no_parallel() -> None:
    """A diminished fifth that follows a perfect one is allowed."""
    found = examine(np.array([[76, 67, 60, 48], [74, 65, 59, 55]]))
    assert found.counts()["parallel fifths"] == 0


def test_states_are_counted_where_they_begin() -> None:
    crossed = [[72, 62, 64, 48], [72, 62, 64, 50], [72, 65, 64, 50], [72, 62, 64, 50]]
    assert [fault.step for fault in examine(np.array(crossed)).faults if fault.kind == "crossing"] == [0, 3]


@given(grids, st.integers(2, 5))
def test_a_finer_grid_has_the_same_faults(grid: NDArray[np.int64], times: int) -> None:
    coarse, fine = examine(grid), examine(np.repeat(grid, times, axis=0))
    assert fine.changes == coarse.changes
    assert [(fault.kind, fault.step // times, fault.voices) for fault in fine.faults] == [
        (fault.kind, fault.step, fault.voices) for fault in coarse.faults
    ]


@given(grids, st.integers(-3, 3))
def test_only_range_depends_on_the_key(grid: NDArray[np.int64], semitones: int) -> None:
    moved = np.where(grid == REST, REST, grid + semitones)
    one, other = ([fault for fault in examine(each).faults if fault.kind != "range"] for each in (grid, moved))
    assert one == other


@given(grids)
def test_rests_make_no_consecutives(grid: NDArray[np.int64]) -> None:
    """Whoever rests makes no fault with others."""
    grid[:, 1:] = REST
    assert {fault.kind for fault in examine(grid).faults} <= {"range", "leap"}
    assert all(fault.voices == ("soprano",) for fault in examine(grid).faults)


def in_parts(grid: NDArray[np.int64], *, steps_ticks: int) -> Score:
    """A score of four tracks, the highest voice last."""
    columns: dict[str, list[int]] = {"onset_ticks": [], "duration_ticks": [], "pitch": [], "track": []}
    for voice in range(4):
        edges = [0, *(np.flatnonzero(np.diff(grid[:, voice])) + 1).tolist(), len(grid)]
        for begin, end in pairwise(edges):
            if grid[begin, voice] != REST:
                columns["onset_ticks"].append(begin * steps_ticks)
                columns["duration_ticks"].append((end - begin) * steps_ticks)
                columns["pitch"].append(int(grid[begin, voice]))
                columns["track"].append(3 - voice)
    return Score.of(Notes.of(**columns), ticks_per_quarter=480)


@given(grids.filter(lambda grid: len(grid) > 0), st.sampled_from([(120, 4), (480, 1), (240, 8)]))
def test_a_score_of_four_parts_is_its_grid(grid: NDArray[np.int64], steps: tuple[int, int]) -> None:
    steps_ticks, steps_per_quarter = steps
    times = steps_ticks * steps_per_quarter // 480
    # Voices far apart, so that the mean pitch tells them; the last row sounds.
    grid = np.where(grid == REST, REST, grid % 10 + np.array([80, 60, 40, 20]))
    grid[-1] = [80, 60, 40, 20]
    found = voices_of(in_parts(grid, steps_ticks=steps_ticks), steps_per_quarter=steps_per_quarter)
    assert found.tolist() == np.repeat(grid, times, axis=0).tolist()


def test_chords_in_a_part_give_their_outer_note_and_drums_are_no_part() -> None:
    notes = Notes.of(
        onset_ticks=[0, 0, 0, 0, 0, 0, 0],
        duration_ticks=24,
        pitch=[72, 76, 67, 60, 48, 43, 36],
        track=[0, 0, 1, 2, 3, 3, 4],
        program=[0, 0, 0, 0, 0, 0, DRUM_PROGRAM],
    )
    assert voices_of(Score.of(notes, ticks_per_quarter=24), steps_per_quarter=1).tolist() == [[76, 67, 60, 43]]


def test_a_part_is_one_program_of_one_track() -> None:
    notes = Notes.of(onset_ticks=[0] * 4, duration_ticks=24, pitch=[72, 67, 60, 43], track=[0, 0, 1, 1],
                     program=[0, 1, 0, 1])  # fmt: skip
    assert voices_of(Score.of(notes, ticks_per_quarter=24), steps_per_quarter=1).tolist() == [[72, 67, 60, 43]]


def test_what_is_not_of_four_voices_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(3, 5\) is none of four voices: give shape"):
        examine(np.zeros((3, 5), dtype=int))
    two = Notes.of(onset_ticks=[0, 0], duration_ticks=24, pitch=[60, 64], track=[0, 1])
    with pytest.raises(InputError, match="has 2 parts, not 4: write each voice"):
        voices_of(Score.of(two, ticks_per_quarter=24), steps_per_quarter=4)


@pytest.mark.parametrize("rows", [0, 1])
def test_nothing_has_no_rates(rows: int) -> None:
    found = examine(CADENCE[:rows])
    assert (found.changes, found.faults) == (0, ())
    assert all(math.isnan(rate) for rate in found.rates().values())


def test_bachs_chorales_have_few_faults_and_mixed_ones_many(shared_folder: Path) -> None:
    path = shared_folder / "corpora" / "jsb" / "Jsb16thSeparated.json"
    if not path.exists():
        pytest.skip("no chorales in ../shared")
    split = json.loads(path.read_text())
    chorales = [np.array(grid) for name in ("train", "valid", "test") for grid in split[name]]
    assert len(chorales) == 382

    def rates(grids: list[NDArray[np.int64]]) -> dict[str, float]:
        found = [examine(grid) for grid in grids]
        changes = sum(each.changes for each in found)
        return {kind: 100 * sum(each.counts()[kind] for each in found) / changes for kind in KINDS}

    bach = rates(chorales)
    assert bach["parallel fifths"] < 0.25
    assert bach["parallel octaves"] < 0.15
    assert bach["hidden fifths"] < 0.5
    assert bach["hidden octaves"] < 0.2
    assert bach["range"] < 0.02
    assert bach["spacing"] < 1
    assert max(bach["crossing"], bach["leap"]) < 2
    mixed = []
    for outer, inner in pairwise(chorales):
        steps = min(len(outer), len(inner))
        mixed.append(np.concatenate((outer[:steps, :1], inner[:steps, 1:3], outer[:steps, 3:]), axis=1))
    false = rates(mixed)
    assert all(false[kind] > 3 * bach[kind] for kind in ("parallel fifths", "parallel octaves", "crossing", "spacing"))


def test_the_planted_faults_are_one_for_each_kind() -> None:
    assert tuple(PLANTED) == KINDS
    assert all(set(voices) <= set(VOICES) for _, _, voices in PLANTED.values())
