"""Ingest on a real Ray: what a folder of good and bad files becomes, and that it becomes it once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from jobs import pairs
from jobs.ingest import IngestRecipe, command, run
from tutti import lineage
from tutti.config import build
from tutti.corpus.midi import in_midi_form, write_midi
from tutti.corpus.score import Notes, Score
from tutti.errors import InputError, MissingError, PlaceError, RecipeError
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import CLIPS, REFUSALS, WORKS, from_parquet
from tutti.telemetry import Silent

GOOD = 21


def melody(number: int, *, count: int = 12) -> Score:
    generator = np.random.default_rng(number)
    notes = Notes.of(
        onset_ticks=np.arange(count) * 240,
        duration_ticks=np.full(count, 240),
        pitch=60 + generator.integers(0, 24, count),
        track=np.arange(count) % 2,
    )
    return Score.of(notes, ticks_per_quarter=480, tempos=[(0, 100.0)], title=f"Air {number}")


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    folder = tmp_path / "songs"
    (folder / "deep").mkdir(parents=True)
    for number in range(GOOD):
        (folder / ("deep" if number % 2 else "") / f"{number:02d}.mid").write_bytes(write_midi(melody(number)))
    whole = write_midi(melody(99))
    (folder / "again.midi").write_bytes(write_midi(melody(3)))
    (folder / "cut.mid").write_bytes(whole[:60])
    (folder / "empty.mid").write_bytes(b"")
    (folder / "gone.mid").symlink_to(tmp_path / "nowhere")
    (folder / "long.mid").write_bytes(write_midi(melody(98, count=40)))
    (folder / "noteless.mid").write_bytes(whole.split(b"MTrk")[0][:-4] + b"\x00\x01\x01\xe0MTrk\0\0\0\4\0\xff\x2f\0")
    (folder / "tune.abc").write_text("X:1\nT:Reel\nM:4/4\nL:1/4\nK:D\nDFAd|dAFD|\n")
    (folder / "words.mid").write_text("these are words")
    (folder / "README.txt").write_text("left alone")
    return folder


def rows(dataset: Dataset, name: str) -> list[dict[str, object]]:
    schema = {"refusals": REFUSALS, "clips": CLIPS, "works": WORKS}[name]
    return [row for path in dataset.paths() if path.startswith(name) for row in _table(dataset, path, schema)]


def _table(dataset: Dataset, path: str, schema: object) -> list[dict[str, object]]:
    return from_parquet(dataset.read(path), schema).to_pylist()


@pytest.mark.usefixtures("ray_cluster")
def test_a_folder_of_good_and_bad_files(songs: Path, tmp_path: Path) -> None:
    recipe = build(
        IngestRecipe,
        {"sources": [str(songs)], "licence": "CC0-1.0", "screening": {"max_notes": 30}, "works_per_shard": 8},
    )
    made = run(recipe, name="songs", root=Folder(str(tmp_path / "one")), reporter=Silent())
    works = rows(made, "works")
    assert len(works) == made.facts["works"] == GOOD + 1
    assert [row["source_uri"] for row in works] == sorted(str(row["source_uri"]) for row in works)
    refused = {Path(str(row["source_uri"])).name: row["reason"] for row in rows(made, "refusals")}
    # Names are taken in order, so the copy that comes later is the duplicate.
    assert refused == {
        "03.mid": "duplicate",
        "cut.mid": "unreadable",
        "empty.mid": "empty",
        "gone.mid": "unreadable",
        "long.mid": "too_long",
        "noteless.mid": "no_notes",
        "words.mid": "unreadable",
    }
    assert made.facts["refusals"] == {"duplicate": 1, "empty": 1, "no_notes": 1, "too_long": 1, "unreadable": 3}
    by_title = {row["title"]: row for row in works}
    row = by_title["Air 7"]
    assert Score.from_columns(row).same_music(in_midi_form(melody(7)))
    assert (row["source_uri"], row["collection"], row["licence"]) == ("songs/deep/07.mid", "songs", "CC0-1.0")
    assert by_title["Reel"]["key"] == "D major"
    assert made.facts["collections"] == {"songs": GOOD + 1}
    assert sum(made.facts["splits"].values()) == GOOD + 1

    (tmp_path / "other").mkdir()
    moved = songs.rename(tmp_path / "other" / "songs")
    recipe = build(IngestRecipe, {**recipe.model_dump(), "sources": [str(moved)]})
    again = run(recipe, name="songs", root=Folder(str(tmp_path / "two")), reporter=Silent())
    assert again.address == made.address
    assert [(entry.path, entry.sha256) for entry in again.files] == [(entry.path, entry.sha256) for entry in made.files]


@pytest.mark.usefixtures("ray_cluster")
def test_music21_and_an_http_address_into_s3(web: str, s3_folder: Folder) -> None:
    recipe = IngestRecipe(sources=("music21:bach/bwv66.6", f"{web}/air.mid", f"{web}/no-such.mid"))
    made = run(recipe, root=s3_folder, reporter=Silent())
    assert made.name == "bach-127.0.0.1"
    assert {row["source_uri"]: row["licence"] for row in rows(made, "works")} == {
        "music21:bach/bwv66.6.mxl": "LicenseRef-music21-corpus",
        f"{web}/air.mid": "unknown",
    }
    assert rows(made, "refusals") == [
        {
            "source_uri": f"{web}/no-such.mid",
            "stage": "ingest",
            "reason": "unreachable",
            "detail": "the server answers 404",
        }
    ]
    s3_folder.write("midi/a/air.mid", write_midi(melody(1)))
    from_s3 = run(IngestRecipe(sources=(f"{s3_folder.uri}/midi",)), root=s3_folder, reporter=Silent())
    assert [row["source_uri"] for row in rows(from_s3, "works")] == [f"{s3_folder.uri}/midi/a/air.mid"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_second_run_finds_the_first_and_writes_nothing(songs: Path, tmp_path: Path) -> None:
    recipe = IngestRecipe(sources=(str(songs),), max_files=2)
    root = tmp_path / "results"
    made = run(recipe, root=Folder(str(root)), reporter=Silent())
    before = {path: path.stat().st_mtime_ns for path in (root / "works").rglob("*")}
    found = run(recipe, root=Folder(str(root)), reporter=Silent())
    assert found.address == made.address
    assert {path: path.stat().st_mtime_ns for path in (root / "works").rglob("*")} == before
    (songs / "00.mid").write_bytes(write_midi(melody(50)))
    assert run(recipe, root=Folder(str(root)), reporter=Silent()).address != made.address


@pytest.mark.usefixtures("ray_cluster")
def test_only_bad_files_are_one_clear_line_and_no_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "a.mid").write_bytes(b"")
    (folder / "b.mid").write_bytes(b"")
    (folder / "c.mid").write_bytes(b"words")
    root = Folder(str(tmp_path / "results"))
    line = (
        r"3 of 3 files cannot be taken, more than the share of 0.5: 2 empty, 1 unreadable "
        r"\(such as: bad/a.mid: the file holds no bytes\): "
        r"mend the sources, or allow more with --set max_refused_share=1"
    )
    with pytest.raises(InputError, match=line):
        run(IngestRecipe(sources=(str(folder),)), root=root, reporter=Silent())
    line = (
        r"none of 3 files could be taken, 2 of them as empty \(such as: the file holds no bytes\): name other sources"
    )
    with pytest.raises(InputError, match=line):
        run(IngestRecipe(sources=(str(folder),), max_refused_share=1.0), root=root, reporter=Silent())
    assert not list((tmp_path / "results").rglob(lineage.MANIFEST))


def test_mistakes_are_told_before_ray_starts(tmp_path: Path, songs: Path) -> None:
    root = Folder(str(tmp_path / "results"))
    with pytest.raises(MissingError, match="is not there"):
        run(IngestRecipe(sources=("/no/such",)), root=root, reporter=Silent())
    with pytest.raises(RecipeError, match="licence = 'free': licence 'free' is not known"):
        build(IngestRecipe, {"sources": [str(songs)], "licence": "free"})
    with pytest.raises(RecipeError, match="leave nothing to train on"):
        build(IngestRecipe, {"sources": [str(songs)], "valid_share": 0.5, "test_share": 0.5})
    with pytest.raises(RecipeError, match=r"name '\.\./up' cannot be a folder"):
        run(IngestRecipe(sources=(str(songs),)), name="../up", root=root, reporter=Silent())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PlaceError):
        run(IngestRecipe(sources=(str(songs),)), root=Folder(str(tmp_path / "file")), reporter=Silent())
    assert not (tmp_path / "results").exists()


def test_a_dry_run_tells_and_writes_nothing(songs: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    done = CliRunner().invoke(command, [str(songs), "music21:bach", "--root", str(root), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "works       songs-bach, not made yet" in done.output
    assert f"collection  songs: {GOOD + 8} files under unknown" in done.output
    assert "refused     1 files already, as unreadable" in done.output
    assert f"address     {root}/works/songs-bach/" in done.output
    assert not root.exists()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "air.mid").write_bytes(write_midi(melody(1)))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def wave(path: Path, *, hertz: float, seconds: float, level: float = 0.3) -> None:
    times_s = np.arange(int(seconds * 22_050)) / 22_050
    soundfile.write(path, (level * np.sin(2 * np.pi * hertz * times_s)).astype(np.float32), 22_050)


@pytest.mark.usefixtures("ray_cluster")
def test_sound_becomes_clips_and_works_are_rendered_beside_their_notes(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    wave(folder / "a.wav", hertz=440, seconds=13)
    wave(folder / "b-again.wav", hertz=440, seconds=13)
    wave(folder / "c.flac", hertz=262, seconds=3)
    wave(folder / "d.wav", hertz=262, seconds=3, level=0.0)
    (folder / "e.ogg").write_bytes(b"OggS and no more")
    (folder / "f.mid").write_bytes(write_midi(melody(1)))
    (folder / "g.mid").write_bytes(write_midi(melody(2)))
    (folder / "metadata.csv").write_text(
        'file,title,license,tags,mood,room\na.wav,Tone,CC-BY-4.0,"calm, long",calm,hall\nnone.wav,Gone,,,,\n'
    )
    recipe = build(
        IngestRecipe, {"sources": [str(folder)], "licence": "CC0-1.0", "cutting": {"sample_rate_hz": 22_050}}
    )
    root = Folder(str(tmp_path / "results"))
    made = run(recipe, root=root, reporter=Silent())
    refused = {Path(str(row["source_uri"])).name: row["reason"] for row in rows(made, "refusals")}
    assert refused == {"b-again.wav": "duplicate", "d.wav": "silent", "e.ogg": "unreadable"}
    clips = rows(made, "clips")
    assert [(Path(str(row["source_uri"])).name, row["start_s"], row["length_s"]) for row in clips] == [
        ("a.wav", 0.0, 10.0),
        ("c.flac", 0.0, 3.0),
    ]
    tone = clips[0]
    assert (tone["title"], tone["licence"], tone["tags"], tone["mood_source"]) == (
        "Tone", "CC-BY-4.0", ["calm", "long"], "label"
    )  # fmt: skip
    assert (tone["valence"], tone["arousal"], tone["metadata"]) == (0.5, -0.5, '{"room": "hall"}')
    assert made.facts["clips"]["licences"] == {"CC-BY-4.0": 1, "CC0-1.0": 1}
    assert made.facts["works"] == 2
    assert "1 rows name no file here (lines 3)" in made.facts["metadata"][0]

    settings = pairs.PairSettings(cutting=recipe.cutting)
    paired = pairs.run(made, settings=settings, root=root, reporter=Silent())
    rendered = rows(paired, "clips")
    assert {row["work_id"] for row in rendered} == {row["work_id"] for row in rows(made, "works")}
    assert paired.facts["licences"] == {"CC0-1.0": 2}
    # Killed before the manifest, and with a file lost: what is missing is made again, to the same bytes.
    paired.folder.delete(lineage.MANIFEST)
    paired.folder.delete("clips-00000.parquet")
    again = pairs.run(made, settings=settings, root=root, reporter=Silent())
    assert [(entry.path, entry.sha256) for entry in again.files] == [
        (entry.path, entry.sha256) for entry in paired.files
    ]
