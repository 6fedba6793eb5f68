"""A block is done when its rows and every file they name are there; whatever is missing is made again, the same."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti import lineage, tables
from tutti.catalogue import publish
from tutti.catalogue.blocks import is_done, preview_of, read_block, score_of, stem_of, write_block
from tutti.catalogue.order import Order
from tutti.catalogue.review import Draft, passes, review
from tutti.catalogue.takes import ACCEPTED, REJECTED, Block, Plan, Take, fill
from tutti.config import build
from tutti.corpus.midi import read_midi
from tutti.corpus.score import Notes, Score
from tutti.errors import IntegrityError
from tutti.storage import Folder

TICKS = 24


def plan_of(*, formats: tuple[str, ...] = ("midi", "flac"), count: int = 3, retries: int = 1) -> Plan:
    tree = {
        "name": "o",
        "model": "m",
        "formats": formats,
        "retries": retries,
        "takes_per_block": 2,
        "lines": [{"count": count, "title": 'Étude "{number}"', "controls": {"bars": 1}}],
    }
    return Plan(build(Order, tree), model="m", model_version="4", model_digest="d" * 32)


def score_for(take: Take) -> Score:
    """Eight quavers that the take's seed chooses; a second tempo and meter for good measure."""
    pitch = 60 + np.random.default_rng(take.request.seed).integers(0, 12, 8)
    notes = Notes.of(onset_ticks=12 * np.arange(8), duration_ticks=[12] * 8, pitch=pitch, program=[0, 40] * 4)
    return Score.of(notes, ticks_per_quarter=TICKS, tempos=[(0, 240.0), (48, 200.0)], meters=[(0, 4, 4), (96, 3, 4)])


def drafts_of(block: Block, plan: Plan, *, score: Callable[[Take], Score] = score_for) -> list[Draft]:
    """The block's drafts; the first attempt at number 1 is broken."""

    under_way: list[Take] = []

    def ended() -> list[tuple[Take, Draft]]:
        take = under_way.pop(0)
        made, broken = score(take), int(take.slot.number == 1 and take.attempt == 0)
        found = review(made, request=take.request, refused_tokens=broken, checks=plan.order.checks)
        return [(take, Draft(take, made, tuple(found)))]

    return fill(block, plan=plan, begin=under_way.extend, ended=ended, passes=lambda drafted: passes(drafted.findings))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_a_block_reads_back_and_its_rows_hold_the_music(folder: Folder) -> None:
    plan = plan_of()
    drafts = drafts_of(plan.block(0), plan)
    written = write_block(folder, plan.block(0), drafts, plan=plan)
    read = read_block(folder, plan.block(0))
    assert read.rows.equals(written.rows)
    assert read.files == written.files
    for draft, row in zip(drafts, read.rows.to_pylist(), strict=True):
        assert score_of(row).notes.pitch.tolist() == draft.score.notes.pitch.tolist()
        assert score_of(row).length_s == pytest.approx(draft.score.length_s)
        assert read_midi(folder.read(row["midi_path"])).title == row["title"]


def test_what_is_rejected_keeps_its_midi_apart(folder: Folder) -> None:
    plan = plan_of()
    rows = write_block(folder, plan.block(0), drafts_of(plan.block(0), plan), plan=plan).rows.to_pylist()
    places = [(row["number"], row["attempt"], row["verdict"], row["midi_path"].partition("/")[0]) for row in rows]
    assert places == [(0, 0, ACCEPTED, "files"), (1, 0, REJECTED, "rejected"), (1, 1, ACCEPTED, "files")]
    assert rows[1]["audio_path"] is None
    assert rows[1]["loudness_lufs"] is None
    assert rows[0]["loudness_lufs"] == pytest.approx(-16, abs=0.6)


@pytest.mark.parametrize(
    ("formats", "endings", "played"),
    [
        (("midi",), ["mid"], None),
        (("flac", "waveform"), ["flac", "mid", "waveform.png"], "flac"),
        (("wav", "mp3"), ["mid", "mp3", "wav"], "mp3"),
        (("ogg", "stems"), ["mid", "ogg"], "ogg"),
        (("png", "musicxml"), ["mid", "musicxml", "png"], None),
    ],
)
def test_each_format_is_a_file_and_one_of_sound_is_played(
    folder: Folder, formats: tuple[str, ...], endings: list[str], played: str | None
) -> None:
    plan = plan_of(formats=formats)
    write_block(folder, plan.block(0), drafts_of(plan.block(0), plan), plan=plan)
    assert sorted({path.partition(".")[2] for path in folder.paths("files")}) == endings
    assert len(folder.paths("files")) == 2 * len(endings)
    assert len(folder.paths("stems")) == (4 if "stems" in formats else 0)
    rows = [row for row in read_block(folder, plan.block(0)).rows.to_pylist() if row["verdict"] == "accepted"]
    previews = {preview_of(row, formats=formats) for row in rows}
    assert {path and path.rpartition(".")[2] for path in previews} == {played}
    assert all(path is None or folder.exists(path) for path in previews)


def test_made_again_it_is_the_same_to_the_byte(tmp_path: Path) -> None:
    plan = plan_of(formats=("midi", "flac", "png"))
    first, second = Folder(str(tmp_path / "a")), Folder(str(tmp_path / "b"))
    for folder in (first, second):
        write_block(folder, plan.block(0), drafts_of(plan.block(0), plan), plan=plan)
    assert first.paths() == second.paths()
    assert [path for path in first.paths() if first.read(path) != second.read(path)] == []


def spoil_rows(folder: Folder, block: Block) -> None:
    folder.write(block.path, folder.read(block.path)[:-20])


def lose_rows(folder: Folder, block: Block) -> None:
    folder.delete(block.path)


def lose_a_file(folder: Folder, block: Block) -> None:
    folder.delete(folder.paths("files")[0])


def cut_a_file(folder: Folder, block: Block) -> None:
    path = folder.paths("files")[0]
    folder.write(path, folder.read(path)[:-1])


@pytest.mark.parametrize("harm", [spoil_rows, lose_rows, lose_a_file, cut_a_file])
def test_a_block_that_lacks_anything_is_not_done(folder: Folder, harm: Callable[[Folder, Block], None]) -> None:
    plan = plan_of(formats=("midi",))
    block = plan.block(0)
    write_block(folder, block, drafts_of(block, plan), plan=plan)
    assert is_done(folder, block)
    harm(folder, block)
    assert not is_done(folder, block)


def test_a_take_without_notes_is_a_row_and_a_midi_file(folder: Folder) -> None:
    plan = plan_of(count=1, retries=0)
    nothing = Score.of(Notes.none(), ticks_per_quarter=TICKS)
    drafts = drafts_of(plan.block(0), plan, score=lambda _: nothing)
    (row,) = write_block(folder, plan.block(0), drafts, plan=plan).rows.to_pylist()
    assert (row["verdict"], row["notes"], row["key"], row["mood"]) == (REJECTED, 0, None, None)
    assert folder.read(row["midi_path"])[:4] == b"MThd"


@given(st.text(max_size=200), st.text("0123456789abcdef", min_size=24, max_size=24))
def test_any_title_gives_a_plain_file_name(title: str, take_id: str) -> None:
    stem = stem_of(title, take_id=take_id)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{8}", stem)
    assert len(stem) <= 69
    assert stem.endswith(take_id[:8])


def fill_all(folder: Folder, plan: Plan) -> None:
    for block in plan.blocks():
        write_block(folder, block, drafts_of(block, plan), plan=plan)


def test_published_it_is_one_table_one_sheet_one_page(folder: Folder) -> None:
    plan = plan_of(formats=("midi",))
    fill_all(folder, plan)
    folder.write("files/of-an-earlier-run.flac", b"x")
    dataset = publish.publish(folder, plan=plan, model_facts={})
    assert dataset == lineage.load(folder)
    assert set(folder.paths()) == {entry.path for entry in dataset.files} | {lineage.MANIFEST}
    assert not folder.exists("files/of-an-earlier-run.flac")
    table = tables.from_parquet(dataset.read("takes.parquet"), tables.TAKES)
    assert table["number"].to_pylist() == [0, 1, 1, 2]
    sheet = dataset.read("catalogue.csv").decode("utf-8-sig").splitlines()
    assert len(sheet) == 5
    assert sheet[2].startswith('"Étude ""2""",rejected,')
    assert "well_formed" in sheet[2]
    assert dataset.facts["accepted"] == 3
    assert dataset.facts["failed_checks"] == {"well_formed": 1}


def test_an_order_may_want_a_zip_as_well(folder: Folder) -> None:
    plan = plan_of(formats=("midi",))
    zipped = Plan(plan.order.model_copy(update={"zip": True}), model="m", model_version="4", model_digest="d" * 32)
    assert "zip" not in plan.order.document()
    assert zipped.order.document()["zip"] is True
    fill_all(folder, zipped)
    dataset = publish.publish(folder, plan=zipped, model_facts={})
    with zipfile.ZipFile(io.BytesIO(dataset.read("catalogue.zip"))) as archive:
        names = archive.namelist()
    assert {"o/index.html", "o/catalogue.csv", "o/takes.parquet"} < set(names)
    assert (
        sum(name.startswith("o/files/") for name in names)
        == sum(name.startswith("o/provenance/") for name in names)
        == 3
    )


def test_a_doubled_block_is_refused(folder: Folder) -> None:
    plan = plan_of(formats=("midi",), count=4)
    fill_all(folder, plan)
    folder.write(plan.block(1).path, folder.read(plan.block(0).path))
    with pytest.raises(IntegrityError, match="is there twice"):
        publish.publish(folder, plan=plan, model_facts={})
    assert lineage.find(folder) is None


def test_blocks_of_another_model_are_refused(folder: Folder) -> None:
    plan = plan_of(formats=("midi",))
    fill_all(folder, plan)
    other = Plan(plan.order, model="m", model_version="5", model_digest="e" * 32)
    with pytest.raises(IntegrityError, match="is not of this order"):
        publish.publish(folder, plan=other, model_facts={})


def test_the_address_follows_order_and_model() -> None:
    plan = plan_of()
    root = Folder("results")
    places = {
        publish.place_of(plan, root=root).uri,
        publish.place_of(plan_of(count=4), root=root).uri,
        publish.place_of(Plan(plan.order, model="m", model_version="4", model_digest="e" * 32), root=root).uri,
    }
    assert len(places) == 3
    assert publish.place_of(plan_of(), root=root) == publish.place_of(plan, root=root)
