"""Parcels to parts to shards, without Ray: nothing is lost, nothing is made twice, a killed run goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.music import walk
from tutti import lineage
from tutti.corpus import ingest
from tutti.corpus.drafting import Analysis
from tutti.corpus.ingest import IngestSettings, check_refused
from tutti.corpus.item import Item
from tutti.corpus.midi import write_midi
from tutti.corpus.parcels import parcel_digest, parcels
from tutti.corpus.parts import Outcome, read_parcel
from tutti.corpus.score import Notes, Score
from tutti.corpus.sources import resolve
from tutti.errors import InputError, IntegrityError, PlaceError
from tutti.features.descriptors import describe
from tutti.features.hearing import hear_untrusted
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import REFUSALS, WORKS, from_parquet

ANALYSIS = Analysis(describe=describe, hear=hear_untrusted)
SETTINGS = IngestSettings(works_per_shard=40)


def transposed(score: Score, *, semitones: int) -> Score:
    columns = {name: getattr(score.notes, name) for name in Notes.__slots__}
    return Score.of(
        Notes.of(**{**columns, "pitch": score.notes.pitch + semitones}), ticks_per_quarter=score.ticks_per_quarter
    )


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(150):
        data = write_midi(walk(number, bars=12))
        (folder / f"{number:03d}.mid").write_bytes(data)
        if number % 30 == 0:
            (folder / f"{number:03d}-again.mid").write_bytes(data)
            (folder / f"{number:03d}-cut.mid").write_bytes(data[:60])
            (folder / f"{number:03d}-higher.mid").write_bytes(
                write_midi(transposed(walk(number, bars=12), semitones=5))
            )
    return folder


def outcomes(items: list[Item], *, root: Folder, settings: IngestSettings = SETTINGS) -> list[Outcome]:
    folder = ingest.parts_folder(root, settings)
    return [
        read_parcel(parcel, parsing=settings.parsing, analysis=ANALYSIS, folder=folder) for parcel in parcels(items)
    ]


def ingested(source: Path, *, root: Folder, settings: IngestSettings = SETTINGS) -> Dataset:
    items = resolve(str(source), licence="CC0-1.0")
    made = ingest.plan(outcomes(items, root=root, settings=settings), settings=settings)
    folder = root / "works"
    parts = ingest.parts_folder(root, settings)
    files = [ingest.write_shard(shard, parts=parts, folder=folder) for shard in made.shards]
    return ingest.publish(
        made,
        files=files,
        items=items,
        settings=settings,
        folder=folder,
        name="songs",
        sources=[str(source)],
        metadata=[],
    )


def rows(dataset: Dataset) -> list[dict[str, object]]:
    shards = [path for path in dataset.paths(".parquet") if path.startswith("works")]
    return [row for path in shards for row in from_parquet(dataset.read(path), WORKS).to_pylist()]


def state(root: Folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in root.local_path.rglob("*") if path.is_file()}


def test_every_file_is_a_work_a_duplicate_or_a_refusal(songs: Path, tmp_path: Path) -> None:
    dataset = ingested(songs, root=Folder(str(tmp_path / "root")))
    refusals = from_parquet(dataset.read("refusals.parquet"), REFUSALS).to_pylist()
    uris = [str(row["source_uri"]) for row in (*rows(dataset), *refusals)]
    assert sorted(uris) == sorted(f"songs/{path.name}" for path in songs.iterdir())
    assert dataset.facts["works"] == 155
    assert dataset.facts["refusals"] == {"duplicate": 5, "unreadable": 5}
    sizes = [entry.rows or 0 for entry in dataset.files if entry.path.startswith("works")]
    assert sum(sizes) == 155
    assert len(sizes) > 1


def test_near_duplicates_are_grouped_and_lie_in_one_split(songs: Path, tmp_path: Path) -> None:
    held = rows(ingested(songs, root=Folder(str(tmp_path / "root"))))
    by_uri = {str(row["source_uri"]): row for row in held}
    for number in range(0, 150, 30):
        higher, first = by_uri[f"songs/{number:03d}-higher.mid"], by_uri[f"songs/{number:03d}-again.mid"]
        assert higher["work_id"] != first["work_id"]
        assert higher["group_id"] == first["group_id"] == min(str(higher["work_id"]), str(first["work_id"]))
    splits: dict[object, set[object]] = {}
    for row in held:
        splits.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "valid", "test"}


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(songs: Path, tmp_path: Path) -> None:
    whole = ingested(songs, root=Folder(str(tmp_path / "whole")))
    root = Folder(str(tmp_path / "killed"))
    items = resolve(str(songs), licence="CC0-1.0")
    folder = ingest.parts_folder(root, SETTINGS)
    first, second, *_ = parcels(items)
    read_parcel(first, parsing=SETTINGS.parsing, analysis=ANALYSIS, folder=folder)
    read_parcel(second, parsing=SETTINGS.parsing, analysis=ANALYSIS, folder=folder)
    # Killed before the second parcel's index: its part is there and does not count.
    (index,) = [path for path in folder.paths() if path.endswith(".index") and path not in _of(first, folder)]
    folder.delete(index)
    before = state(root)
    again = ingested(songs, root=root)
    assert [(entry.path, entry.sha256) for entry in again.files] == [
        (entry.path, entry.sha256) for entry in whole.files
    ]
    kept = {Path(path).name for path, time in state(root).items() if before.get(path) == time}
    assert kept == _of(first, folder)


def _of(parcel: tuple[Item, ...], folder: Folder) -> set[str]:
    return {path for path in folder.paths() if path.startswith(parcel_digest(parcel))}


def test_a_file_more_costs_its_parcel_alone(songs: Path, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    ingested(songs, root=root)
    before = state(root)
    (songs / "075-new.mid").write_bytes(write_midi(walk(1000, bars=12)))
    items = resolve(str(songs), licence="CC0-1.0")
    outcomes(items, root=root)
    fresh = [path for path, time in state(root).items() if before.get(path) != time]
    assert 0 < len(fresh) <= 4
    assert len(parcels(items)) >= 2


def test_other_settings_have_other_parts_unless_they_only_lay_down(songs: Path, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    ingested(songs, root=root)
    before = state(root)
    ingested(songs, root=root, settings=IngestSettings(works_per_shard=1000, valid_share=0.3))
    assert {path for path in state(root) if "/parts/" in path} == {path for path in before if "/parts/" in path}
    assert ingest.parts_folder(root, SETTINGS).uri != ingest.parts_folder(root, IngestSettings(timeout_s=3)).uri


def test_a_stated_share_of_bad_files_stops_the_run_with_the_table() -> None:
    refused = Counter(unreadable=30, empty=21, duplicate=500, drums_only=400)
    check_refused(refused, files=1000, max_share=0.051, example="it is cut short")
    line = (
        r"51 of 1000 files cannot be taken, more than the share of 0.05: 30 unreadable, 21 empty "
        r"\(such as: it is cut short\): mend the sources, or allow more with --set max_refused_share=1"
    )
    with pytest.raises(InputError, match=line):
        check_refused(refused, files=1000, max_share=0.05, example="it is cut short")


def test_what_cannot_be_read_for_a_moment_is_not_kept(songs: Path, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    items = resolve(str(songs), licence="CC0-1.0")
    away = songs.rename(tmp_path / "away")
    with pytest.raises(
        PlaceError, match=r"165 files that were listed cannot be read now \(such as songs/.*No such file"
    ):
        ingest.plan(outcomes(items, root=root), settings=SETTINGS)
    assert not ingest.parts_folder(root, SETTINGS).paths()
    away.rename(songs)
    assert ingest.plan(outcomes(items, root=root), settings=SETTINGS).works.num_rows == 155


def test_a_part_that_is_gone_is_made_again_and_a_damaged_one_is_told(songs: Path, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    whole = ingested(songs, root=root)
    parts = ingest.parts_folder(root, SETTINGS)
    first, second, *_ = [path for path in parts.paths() if path.endswith(".works")]
    parts.delete(first)
    assert ingested(songs, root=root).files == whole.files
    parts.write(second, parts.read(second)[:-10])
    with pytest.raises(IntegrityError, match="differs from what was written; delete it"):
        ingested(songs, root=root)


def test_files_count_as_bad_only_where_nothing_of_them_was_taken(tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    pieces = {"onset_s": [[0.0], [0.0], [0.0]], "duration_s": [[1.0]] * 3, "pitch": [[60], [64], [200]]}
    pq.write_table(pa.table({"piece_id": ["a", "b", "c"], **pieces}), tmp_path / "mixed" / "three.parquet")
    (tmp_path / "mixed" / "empty.mid").write_bytes(b"")
    (outcome,) = outcomes(resolve(str(tmp_path / "mixed"), licence="CC0-1.0"), root=Folder(str(tmp_path / "root")))
    assert outcome.works.num_rows == 2
    assert [row["reason"] for row in outcome.refusals] == ["empty", "unreadable"]
    assert outcome.bad == Counter(empty=1)


@pytest.mark.parametrize("name", ["Who Are You?.mid", "C# minor.mid", "[1] a!b.mid", "What?/Now.mid"])
def test_odd_names_are_names(name: str, tmp_path: Path) -> None:
    path = tmp_path / "odd" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(write_midi(walk(1)))
    (outcome,) = outcomes(resolve(str(tmp_path / "odd"), licence="CC0-1.0"), root=Folder(str(tmp_path / "root")))
    assert outcome.works["source_uri"].to_pylist() == [f"odd/{name}"]
    assert outcome.bad == Counter()


def test_readers_find_nothing_before_the_manifest(songs: Path, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    items = resolve(str(songs), licence="CC0-1.0")
    made = ingest.plan(outcomes(items, root=root), settings=SETTINGS)
    ingest.write_shard(made.shards[0], parts=ingest.parts_folder(root, SETTINGS), folder=root / "works")
    assert lineage.find(root / "works") is None


def test_the_plan_takes_the_first_of_equal_works() -> None:
    ids = ["b" * 24, "a" * 24, "b" * 24, "c" * 24, "a" * 24]
    assert ingest._first_of_equals(np.array(ids)).tolist() == [0, 1, 0, 3, 1]
    assert ingest._first_of_equals(np.array([], dtype=object)).tolist() == []
    values = np.array([b"d", b"a", b"c", b"b"])
    assert ingest._smallest(values, np.array([0, 7, 0, 7])).tolist() == [b"c", b"a", b"c", b"a"]
