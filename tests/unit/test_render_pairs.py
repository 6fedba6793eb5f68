"""Works as clips: sound and notes lie on one clock, and the same work gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from tests.music import works_table
from tutti.corpus.audio import decode
from tutti.corpus.clips import TOLD, Cutting
from tutti.corpus.midi import read_midi
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import DataError
from tutti.features.pulse import onset_strength, onsets_s
from tutti.render.pairs import clips_of_work, notes_of_clip, rendering
from tutti.tables import CLIPS, to_parquet

RATE_HZ = 44_100
TWO_SECONDS = Cutting(clip_s=2.0, least_rest_share=0.0)


def rises_s(sound_S: NDArray[Any], onsets_S: NDArray[np.int64]) -> NDArray[np.float64]:
    """From each onset to the first sample louder than all of the 30 ms before it and than a tenth of the 50 ms after.

    NaN where the note does not stand out of what rings on.
    """
    found = []
    for onset in onsets_S.tolist():
        before = sound_S[max(onset - round(0.03 * RATE_HZ), 0) : onset].max(initial=0.0)
        after_S = sound_S[onset : onset + round(0.05 * RATE_HZ)]
        stands_out = after_S.max() > max(2 * before, 1e-3)
        found.append(np.argmax(after_S > max(1.1 * before, 0.1 * after_S.max())) / RATE_HZ if stands_out else np.nan)
    return np.array(found)


def pickup(program: int) -> Score:
    """A pickup of an eighth before the bar line, staccato notes, and four tempi."""
    onset = np.array([360, 480, 960, 1200, 1440, 1920, 2400, 2640, 2880, 3360, 3840])
    return Score.of(
        Notes.of(
            onset_ticks=onset,
            duration_ticks=np.full(len(onset), 60),
            pitch=np.array([60, 65, 69, 67, 65, 64, 62, 64, 65, 72, 38]),
            program=program,
            velocity=90,
        ),
        ticks_per_quarter=240,
        tempos=[(0, 90.0), (960, 61.5), (1920, 133.0), (2700, 47.7)],
        meters=[(0, 3, 4)],
    )


def sound_of(clips: pa.Table) -> NDArray[Any]:
    """The clips' audio, each at its own start, as the largest magnitude over the channels."""
    length = max(round((row["start_s"] + row["length_s"]) * RATE_HZ) for row in clips.to_pylist())
    sound_S = np.zeros(length)
    for row in clips.to_pylist():
        start = round(row["start_s"] * RATE_HZ)
        samples_SC, _ = decode(row["audio"])
        sound_S[start : start + len(samples_SC)] = np.abs(samples_SC).max(axis=1)
    return sound_S


def work_of(score: Score, **columns: Any) -> dict[str, Any]:
    return {**works_table(1).to_pylist()[0], **score.columns(), "work_id": "0f", **columns}


@pytest.mark.parametrize("mastered", [False, True])
@pytest.mark.parametrize("program", [0, 13, DRUM_PROGRAM])
def test_every_note_is_heard_within_10_ms_of_its_onset(program: int, mastered: bool) -> None:
    score = pickup(program)
    sound_S = sound_of(clips_of_work(work_of(score), cutting=TWO_SECONDS, mastered=mastered))
    onset_s = score.seconds_at(score.notes.onset_ticks)
    late_s = rises_s(sound_S, np.round(onset_s * RATE_HZ).astype(np.int64))
    assert np.isfinite(late_s).sum() >= 9
    assert np.nanmax(late_s) < 0.01
    assert not sound_S[: round(onset_s[0] * RATE_HZ)].any()


def test_the_onsets_that_are_heard_are_those_that_are_written() -> None:
    score = pickup(0)
    for row in clips_of_work(work_of(score), cutting=TWO_SECONDS, mastered=False).to_pylist():
        samples_SC, rate_hz = decode(row["audio"])
        heard = onsets_s(onset_strength(samples_SC.mean(axis=1), sample_rate_hz=rate_hz), sample_rate_hz=rate_hz)
        written = notes_of_clip(score, start_s=row["start_s"], length_s=row["length_s"])
        within = written.onset_s[written.onset_s >= 0]
        assert all(np.abs(heard - onset_s).min() < 0.02 for onset_s in within)


def test_clips_carry_what_is_known_of_their_work() -> None:
    work = work_of(pickup(0), title="A", tags=["x"], split="valid", licence="CC0-1.0")
    clips = clips_of_work(work, cutting=TWO_SECONDS, mastered=True)
    assert clips.schema.equals(CLIPS)
    assert clips.num_rows > 3
    for row in clips.to_pylist():
        assert {name: row[name] for name in TOLD} == {name: work[name] for name in TOLD}
        assert row["mood_source"] == "estimate"
    assert clips["start_s"].to_pylist()[:3] == [0, 2, 4]


def test_the_same_work_gives_the_same_bytes() -> None:
    work = works_table(1, bars=6).to_pylist()[0]
    tables = [to_parquet(clips_of_work(work, cutting=TWO_SECONDS, mastered=True)) for _ in range(2)]
    assert tables[0] == tables[1]


def test_settings_hold_for_renderings_too() -> None:
    cutting = Cutting(clip_s=1.5, sample_rate_hz=22_050, max_channels=1, bits=24)
    row = clips_of_work(work_of(pickup(0)), cutting=cutting, mastered=False).to_pylist()[0]
    samples_SC, rate_hz = decode(row["audio"])
    assert (rate_hz, samples_SC.shape) == (22_050, (33_075, 1))


def test_a_loud_chord_is_brought_down_and_not_clipped() -> None:
    pitch = [*range(40, 80)] * 5
    notes = Notes.of(onset_ticks=[0] * 200, duration_ticks=[480] * 200, pitch=pitch, velocity=127)
    sound_SC = rendering(Score.of(notes, ticks_per_quarter=480), sample_rate_hz=RATE_HZ, mastered=False)
    assert np.abs(sound_SC).max() == pytest.approx(1, abs=1e-6)
    assert (np.abs(sound_SC) > 0.999).sum() < 20


@pytest.mark.parametrize(
    ("notes", "reason"),
    [
        (Notes.none(), "no_notes"),
        (Notes.of(onset_ticks=[0], duration_ticks=[480 * 4000], pitch=[60]), "too_long"),
        (Notes.of(onset_ticks=[0], duration_ticks=[480], pitch=[1], program=DRUM_PROGRAM), "silent"),
    ],
)
def test_what_has_no_sound_is_refused(notes: Notes, reason: str) -> None:
    work = work_of(Score.of(notes, ticks_per_quarter=480))
    with pytest.raises(DataError, match=reason):
        clips_of_work(work, cutting=TWO_SECONDS, mastered=True)


def test_notes_of_clips_are_the_notes_of_the_work() -> None:
    score = pickup(0)
    length_s = score.length_s
    parts = [notes_of_clip(score, start_s=start, length_s=1.0) for start in np.arange(0, length_s, 1.0)]
    begun = [part.pitch[part.onset_s >= 0].tolist() for part in parts]
    assert [pitch for part in begun for pitch in part] == score.notes.pitch.tolist()
    whole = notes_of_clip(score, start_s=0.0, length_s=length_s)
    assert np.array_equal(whole.onset_s, score.seconds_at(score.notes.onset_ticks))
    assert whole.end_s.max() == pytest.approx(length_s)


def test_real_piano_is_heard_where_it_is_written(shared_folder: Path) -> None:
    late_s = []
    for path in sorted((shared_folder / "corpora" / "mutopia").rglob("*.mid"))[::70]:
        score = read_midi(path.read_bytes())
        if not 20 < score.length_s < 90 or score.notes.program.any():
            continue
        sound_S = np.abs(rendering(score, sample_rate_hz=RATE_HZ, mastered=True)).max(axis=1)
        onset_s = score.seconds_at(np.unique(score.notes.onset_ticks))
        late_s.append(rises_s(sound_S, np.round(onset_s * RATE_HZ).astype(np.int64)))
    found = np.concatenate(late_s)
    found = found[np.isfinite(found)]
    assert len(found) > 100
    assert np.median(found) < 0.006
    assert (found < 0.01).mean() > 0.9
