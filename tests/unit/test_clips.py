"""Sound cut into clips: nothing lost, nothing doubled, and everything said of a clip is said of what its FLAC holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_corpus_audio import RATE_HZ, file_of, tone
from tutti.corpus.audio import decode
from tutti.corpus.clips import (
    DESCRIBED,
    HEARD,
    TOLD,
    Cutting,
    clips_of,
    clips_of_samples,
    clips_table,
    hear_many,
    windows,
)
from tutti.corpus.isolation import Answer, Lost
from tutti.errors import DataError
from tutti.features.hearing import hear_in_child, hear_untrusted, joined
from tutti.features.sound import describe
from tutti.tables import CLIPS, from_parquet, to_parquet

SECOND = Cutting(clip_s=1.0)


def cut(data: bytes, cutting: Cutting = SECOND) -> list[dict[str, Any]]:
    return clips_of(data, cutting=cutting, describe=describe)[1]


def told(**columns: Any) -> dict[str, Any]:
    nothing = {"title": None, "composer": None, "work_id": None, "valence": None, "arousal": None, "mood_source": None}
    texts = dict.fromkeys(
        ("source_uri", "source_sha256", "collection", "metadata", "licence", "licence_origin", "split"), "x"
    )
    return {**nothing, **texts, "tags": ["a"], **columns}


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 60))
def test_windows_hold_every_sample_once_in_order(lengths: list[int], window_samples: int) -> None:
    sound_SC = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    blocks = np.split(sound_SC, np.cumsum(lengths)[:-1]) if lengths else []
    found = list(windows(blocks, window_samples=window_samples))
    assert all(len(window) == window_samples for window in found[:-1])
    assert all(0 < len(window) <= window_samples for window in found)
    assert np.array_equal(np.concatenate([*found, sound_SC[:0]]), sound_SC)


def test_clips_lie_end_to_end_and_hold_the_file() -> None:
    samples_SC, _ = decode(file_of(tone(seconds=3.6)))
    clips = cut(file_of(tone(seconds=3.6)))
    assert [(clip["start_s"], clip["length_s"]) for clip in clips] == [(0, 1), (1, 1), (2, 1), (3, 0.6)]
    assert np.array_equal(np.concatenate([decode(clip["audio"])[0] for clip in clips]), samples_SC)


def test_what_is_said_of_a_clip_is_said_of_its_flac() -> None:
    for clip in cut(file_of(tone(seconds=1.6, rate_hz=48_000), rate_hz=48_000)):
        samples_SC, rate_hz = decode(clip["audio"])
        assert (rate_hz, samples_SC.shape[1]) == (clip["sample_rate_hz"], clip["channels"])
        assert {name: clip[name] for name in DESCRIBED} == describe(samples_SC, sample_rate_hz=rate_hz)
        again = cut(clip["audio"])
        assert [each["clip_id"] for each in again] == [clip["clip_id"]]


def test_the_id_is_of_the_samples_and_not_of_their_file() -> None:
    one = cut(file_of(tone()))[0]["clip_id"]
    assert cut(file_of(tone(), kind="FLAC"))[0]["clip_id"] == one
    assert cut(file_of(tone(), kind="FLAC"), SECOND.model_copy(update={"bits": 24}))[0]["clip_id"] == one
    others = [tone(channels=1), tone(hertz=441), tone(seconds=0.9)]
    ids = {cut(file_of(other))[0]["clip_id"] for other in others}
    slower = SECOND.model_copy(update={"sample_rate_hz": 22_050})
    ids |= {clip["clip_id"] for clip in cut(file_of(tone(), rate_hz=22_050), slower)[:1]}
    # The same numbers, one after the other, in two channels and in one.
    flat_SC = tone().reshape(-1, 1)
    ids |= {clip["clip_id"] for clip in cut(file_of(flat_SC), Cutting(clip_s=2.0))}
    assert len(ids | {one}) == 6


def test_a_rest_is_kept_by_its_share_and_alone() -> None:
    assert len(cut(file_of(tone(seconds=2.49)))) == 2
    assert len(cut(file_of(tone(seconds=2.51)))) == 3
    assert [clip["length_s"] for clip in cut(file_of(tone(seconds=0.2)))] == [0.2]
    with pytest.raises(DataError, match=r"too_short: 0\.090 s are under the 0\.1 s"):
        cut(file_of(tone(seconds=0.09)))


def test_silent_clips_are_dropped_and_leave_their_time() -> None:
    sound_SC = tone(seconds=3)
    sound_SC[RATE_HZ : 2 * RATE_HZ] *= 1e-4
    assert [clip["start_s"] for clip in cut(file_of(sound_SC, subtype="PCM_24"))] == [0, 2]
    with pytest.raises(DataError, match=r"silent: all 3\.0 s are under -60 dB"):
        cut(file_of(1e-4 * sound_SC, subtype="FLOAT"))


def test_settings_set_rate_channels_and_bits() -> None:
    cutting = Cutting(clip_s=1.0, sample_rate_hz=16_000, max_channels=1, bits=24)
    (clip,) = cut(file_of(tone(channels=2)), cutting)
    assert (clip["sample_rate_hz"], clip["channels"], len(decode(clip["audio"])[0])) == (16_000, 1, 16_000)


def test_blocks_of_any_length_give_the_same_clips() -> None:
    sound_SC = tone(seconds=2.7, rate_hz=48_000)
    kinds = [
        clips_of_samples(np.array_split(sound_SC, parts), sample_rate_hz=48_000, cutting=SECOND, describe=describe)
        for parts in (1, 13)
    ]
    assert kinds[0] == kinds[1]


def test_rows_make_the_table_and_survive_parquet() -> None:
    assert {*HEARD, *TOLD} == set(CLIPS.names)
    clips = cut(file_of(tone(seconds=2)))
    table = clips_table(clips, told=[told(source_uri="a.wav"), told(valence=0.5, arousal=0.1, mood_source="label")])
    assert table.schema.equals(CLIPS)
    assert from_parquet(to_parquet(table), CLIPS).to_pylist() == table.to_pylist()
    assert table["audio"].to_pylist() == [clip["audio"] for clip in clips]


def test_files_are_heard_in_a_child_as_here() -> None:
    files = [("a.wav", file_of(tone(seconds=1.7))), ("b.wav", b"?"), ("c.mp3", file_of(tone(), kind="MP3"))]
    heard = hear_untrusted(files, cutting=SECOND)
    assert heard.file_of_clip == (0, 0, 2)
    assert list(heard.clips) == [*cut(files[0][1]), *cut(files[2][1])]
    assert [(file, reason) for file, reason, _ in heard.refusals] == [(1, "unreadable")]


def test_answers_around_a_lost_file_keep_their_numbers() -> None:
    files = [("a.wav", file_of(tone(seconds=1.7))), ("b.wav", b"?"), ("c.wav", b""), ("d.wav", file_of(tone()))]

    def answer(start: int, stop: int) -> Answer:
        facts, columns = hear_in_child(files[start:stop], SECOND.model_dump(mode="json"), lambda _: None)
        return Answer(start, stop, facts, columns)

    heard = joined([answer(0, 1), answer(2, 4)], [Lost(1, "parser_crashed", "signal SIGSEGV")])
    here = hear_many(files, cutting=SECOND, describe=describe, on_file=lambda _: None)
    assert heard.clips == here.clips
    assert heard.file_of_clip == here.file_of_clip == (0, 0, 3)
    assert [refusal[:2] for refusal in heard.refusals] == [(1, "parser_crashed"), (2, "empty")]


def test_real_one_shots_and_loops(shared_folder: Path) -> None:
    paths = sorted((shared_folder / "corpora" / "audio" / "sonic-pi-cc0").glob("*.flac"))
    heard = hear_untrusted([(path.name, path.read_bytes()) for path in paths], cutting=Cutting())
    assert len({*heard.file_of_clip}) + len(heard.refusals) == len(paths) == 130
    assert {reason for _, reason, _ in heard.refusals} == {"too_short"}
    by_name = {paths[file].stem: clip for file, clip in zip(heard.file_of_clip, heard.clips, strict=True)}
    for name, tempo_qpm in {"loop_amen_full": 140, "loop_garzul": 120, "loop_mika": 120, "loop_tabla": 120}.items():
        ratio = by_name[name]["tempo_qpm"] / tempo_qpm
        assert min(abs(ratio / octave - 1) for octave in (0.5, 1, 2)) < 0.02, name
    assert by_name["drum_cymbal_open"]["tempo_qpm"] is None
    # No float that JSON would have to bend, no numpy scalar.
    json.dumps([{name: clip[name] for name in HEARD if name != "audio"} for clip in heard.clips], allow_nan=False)
