from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.notes import played
from tutti import lineage
from tutti.corpus.clips import Cutting, clips_of_samples, clips_table
from tutti.dataset.blocks import Blocks
from tutti.dataset.note_sources import Cut, Played
from tutti.dataset.packed import Packed
from tutti.dataset.spectra import HEAD, SpectraLayout, pack_spectra, scale_of
from tutti.errors import RecipeError, UserError
from tutti.features.sound import describe
from tutti.features.spectra import SpectrumScale, to_spectra
from tutti.lineage import Dataset
from tutti.render.notes import play_note
from tutti.storage import Folder
from tutti.tables import to_parquet

SCALE = SpectrumScale(sample_rate_hz=8_000, n_fft=512, bins=32, frames=16)
LOW, HIGH = 55, 66


def source(**changes: Any) -> Played:
    settings: dict[str, Any] = {
        "player": play_note, "sound": "font", "licence": "CC0-1.0", "programs": (73, 0), "lowest_pitch": LOW,
        "highest_pitch": HIGH, "velocities": (60, 100), "valid_share": 0.2, "test_share": 0.2,
    }  # fmt: skip
    return Played(**{**settings, **changes})


def rows_of(dataset: Dataset, split: str) -> list[Packed]:
    blocks = Blocks(dataset, split=split, with_pieces=True, patience_s=1)
    return [blocks.read(at, block) for at, group in enumerate(blocks.sources) for block in range(group.blocks)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(str(tmp_path_factory.mktemp("spectra")))


@pytest.fixture(scope="module")
def dataset(root: Folder) -> Dataset:
    return pack_spectra([source()], scale=SCALE, root=root, name="played")


def test_every_note_is_there_once_as_it_was_drawn(dataset: Dataset) -> None:
    layout, found = SpectraLayout(scale=SCALE, lowest_pitch=LOW), dict[tuple[int, int], list[Any]]()
    for split in dataset.facts["sequences"]:
        for packed in rows_of(dataset, split):
            batch = layout.laid(packed, num_rows=len(packed))
            assert batch.num_targets == len(packed)
            columns = batch.arrays()
            for spectrum, pitch, instrument in zip(
                columns["spectra"], columns["pitch"].tolist(), columns["instrument"].tolist(), strict=True
            ):
                found.setdefault((instrument, pitch), []).append(spectrum)
    assert dataset.facts["instruments"] == ["program-000", "program-073"]
    assert sorted(found) == [(instrument, pitch) for instrument in (0, 1) for pitch in range(LOW, HIGH + 1)]
    assert {len(spectra) for spectra in found.values()} == {2}
    length_s = SCALE.note_samples / SCALE.sample_rate_hz
    expected = to_spectra(
        play_note(program=73, pitch=60, velocity=100, length_s=length_s, sample_rate_hz=8_000)[None], scale=SCALE
    )[0].astype(np.float16)
    assert any(np.array_equal(spectrum, expected) for spectrum in found[1, 60])
    assert not any(np.array_equal(spectrum, expected) for spectrum in found[1, 61] + found[0, 60])


def test_velocities_of_a_key_share_a_split_and_facts_count_them(dataset: Dataset) -> None:
    keys = {
        split: [tuple(row[:HEAD].tolist()) for packed in rows_of(dataset, split) for row in _rows(packed)]
        for split in dataset.facts["sequences"]
    }
    assert set(keys) == {"train", "valid", "test"}
    for split, others in (("train", "valid"), ("valid", "test"), ("test", "train")):
        assert not set(keys[split]) & set(keys[others])
    assert dataset.facts["split_notes"] == {split: len(rows) for split, rows in keys.items()}
    assert sum(dataset.facts["split_notes"].values()) == 2 * 2 * (HIGH - LOW + 1)
    assert dataset.facts["licences"] == {"CC0-1.0": 48}
    assert dataset.facts["pitches"] == [LOW, HIGH]
    assert scale_of(dataset) == SCALE


def _rows(packed: Packed) -> NDArray[np.uint16]:
    return packed.tokens.reshape(len(packed), -1)


def test_the_same_is_found_and_another_is_made(dataset: Dataset, root: Folder) -> None:
    again = pack_spectra([source(programs=(0, 73, 0), player=None)], scale=SCALE, root=root, name="played")
    assert again.address == dataset.address
    addresses = {dataset.address}
    for changes in ({"sound": "other"}, {"velocities": (100,)}, {"test_share": 0.1}, {"licence": "CC-BY-4.0"}):
        other = source(**{"programs": (0,), "lowest_pitch": 60, "highest_pitch": 61, **changes})
        addresses.add(pack_spectra([other], scale=SCALE, root=root, name="played").address)
    assert len(addresses) == 5


def test_a_note_twice_gives_the_same_bytes(dataset: Dataset, tmp_path: Path) -> None:
    again = pack_spectra([source()], scale=SCALE, root=Folder(str(tmp_path)), name="played")
    assert [entry.sha256 for entry in again.files] == [entry.sha256 for entry in dataset.files]


def test_rows_are_cut_and_filled_up_with_silence(dataset: Dataset) -> None:
    layout, packed = SpectraLayout(scale=SCALE, lowest_pitch=LOW), rows_of(dataset, "train")[0]
    batch = layout.laid(packed, num_rows=len(packed) + 3)
    assert batch.num_targets == len(packed)
    assert (batch.spectra_B2KF[len(packed) :, 0] == -1).all()
    assert (batch.spectra_B2KF[len(packed) :, 1] == 0).all()
    assert (batch.pitch_B[len(packed) :] == LOW).all()
    parts = [batch.rows(0, 2), batch.rows(2, len(packed) + 1), batch.rows(len(packed) + 1, len(packed) + 3)]
    assert [part.num_targets for part in parts] == [2, len(packed) - 2, 0]
    empty = layout.laid(packed.rows(0, 0), num_rows=2)
    assert empty.num_targets == 0
    assert empty.spectra_B2KF.shape == (2, *SCALE.shape)


def test_pictures_of_another_scale_are_refused(dataset: Dataset) -> None:
    SpectraLayout(scale=SCALE, lowest_pitch=LOW).check(dataset.facts, where="here")
    other = SpectrumScale(sample_rate_hz=8_000, n_fft=512, bins=32, frames=8)
    with pytest.raises(RecipeError, match="here was made with"):
        SpectraLayout(scale=other, lowest_pitch=LOW).check(dataset.facts, where="here")


def clips_dataset(folder: Folder) -> Dataset:
    """A melody and a chord as clips of two collections under two licences."""
    rate_hz = 16_000
    melody_S = np.concatenate(
        [played(program=0, pitch=pitch, rate_hz=rate_hz, seconds=0.9) for pitch in (60, 57, 72, 64)]
    )
    chord_S = sum(played(program=0, pitch=pitch, rate_hz=rate_hz, seconds=0.9) for pitch in (60, 64, 67))
    tables = []
    for sound_S, collection, licence in (
        (melody_S, "mine", "CC0-1.0"), (melody_S * 0.9, "theirs", "unknown"), (chord_S, "chords", "CC0-1.0"),
    ):  # fmt: skip
        cutting = Cutting(clip_s=10, sample_rate_hz=rate_hz)
        clips = clips_of_samples([sound_S[:, None]], sample_rate_hz=rate_hz, cutting=cutting, describe=describe)
        told = {
            "source_uri": "note:", "source_sha256": "0", "collection": collection, "title": None, "composer": None,
            "tags": [], "metadata": "{}", "licence": licence, "licence_origin": "tests", "split": "valid",
            "work_id": None, "valence": None, "arousal": None, "mood_source": None,
        }  # fmt: skip
        tables.append(clips_table(clips, told=[told] * len(clips)))
    files = [
        lineage.write_file(folder, f"clips-{number:05d}.parquet", to_parquet(table), rows=table.num_rows)
        for number, table in enumerate(tables)
    ]
    return lineage.publish(folder, kind="clips", name="clips", inputs={}, files=files, facts={})


def test_notes_are_cut_from_clips_that_may_be_learnt_from(tmp_path: Path) -> None:
    clips = clips_dataset(Folder(str(tmp_path / "clips")))
    cut = Cut(clips, licences=("CC0-1.0",), lowest_pitch=58, highest_pitch=71)
    found = pack_spectra(
        [cut, source(programs=(0,), lowest_pitch=60, highest_pitch=60)],
        scale=SCALE,
        root=Folder(str(tmp_path)),
        name="x",
    )
    assert found.facts["instruments"] == ["mine", "program-000"]
    cut_rows = np.concatenate([_rows(packed) for packed in rows_of(found, "valid") if packed.tokens[1] == 0])
    assert sorted(cut_rows[:, 0].tolist()) == [60, 64]
    nothing = Cut(clips, licences=("CC-BY-4.0",), lowest_pitch=58, highest_pitch=71)
    with pytest.raises(UserError, match="no source gives a note that sounds"):
        pack_spectra([nothing], scale=SCALE, root=Folder(str(tmp_path)), name="y")


def test_silence_is_left_out_and_counted(tmp_path: Path) -> None:
    def mute(**asked: Any) -> NDArray[np.float32]:
        return np.zeros(8_000, np.float32) if asked["pitch"] < 60 else play_note(**asked)

    found = pack_spectra([source(player=mute, programs=(0,))], scale=SCALE, root=Folder(str(tmp_path)), name="z")
    assert found.facts["silent"] == 2 * (60 - LOW)
    assert sum(found.facts["split_notes"].values()) == 2 * (HIGH - 59)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"programs": (128,)}, "program 128 is not one of MIDI's"),
        ({"velocities": (0,)}, "velocity 0 is not one of MIDI's"),
        ({"lowest_pitch": 70}, "there is no note to play"),
        ({"programs": ()}, "there is no note to play"),
        ({"highest_pitch": 128}, "pitch 128 is not one of MIDI's"),
    ],
)
def test_what_cannot_be_played_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        source(**changes)
