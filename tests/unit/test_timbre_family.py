"""Notes from a recipe to a registered instrument: packed, learnt, judged, evaluated, and played."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from jobs import evaluate, notes, samples
from jobs import recipe as recipes
from jobs.cli import run
from jobs.dry_run import told
from tests.notes import NOTES, notes_dataset, plan_of_notes
from tests.trainings import StoppedError, Watch, assert_same_bits, train, weights_of
from tutti import lineage
from tutti.catalogue import publish
from tutti.catalogue.on_ray import players_of
from tutti.catalogue.order import Order
from tutti.catalogue.takes import Plan as Catalogue
from tutti.config import build
from tutti.corpus.clips import Cutting, clips_of_samples, clips_table
from tutti.errors import InputError, IntegrityError, MissingError, RecipeError, UserError
from tutti.evaluation.notes import HELD_OUT, MEAN, MODEL, NEAREST, SHIFTED
from tutti.features.sound import describe
from tutti.generation import composers
from tutti.lineage import Dataset
from tutti.metrics import timbre
from tutti.models import bundle as bundles
from tutti.models.timbre_gan.objective import unlikeness
from tutti.registry.versions import Registry
from tutti.render import timbres
from tutti.render.notes import play_note
from tutti.render.phrase import phrase
from tutti.storage import Folder
from tutti.tables import to_parquet
from tutti.telemetry import Silent
from tutti.training.plan import Plan
from tutti.training.timbre_judge import TimbreJudge

RECIPE = {
    "name": "keys", "notes": NOTES.model_dump(mode="json"), "licences": ["CC0-1.0"],
    "model": {"family": "timbre_gan", "flavour": "nano"},
    "training": {"steps": 4, "workers": 1, "strategy": "plain", "batch_sequences": 4, "micro_batch_sequences": 4},
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Results with a small model of notes, trained and registered."""

    root: Folder
    spectra: Dataset
    plan: Plan
    registry: Registry


SETTINGS = {"steps": 4, "validate_every_steps": 4, "checkpoint_every_steps": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    torch.set_num_threads(1)
    root = Folder(str(tmp_path_factory.mktemp("notes")))
    spectra = notes_dataset(root)
    made = plan_of_notes(spectra, root.local_path / "run", **SETTINGS)
    train(made)
    registry = Registry.embedded(root)
    registry.backend.prepare()
    registry.register(made.run.local_path / "bundle", name="keys")
    return Place(root, spectra, made, registry)


def test_killed_and_resumed_equals_never_stopped_to_the_bit(place: Place, tmp_path: Path) -> None:
    broken = plan_of_notes(place.spectra, tmp_path, **SETTINGS)
    with pytest.raises(StoppedError):
        train(broken, watch=Watch(stop_at=3))
    train(broken)
    # Each step of the generator goes through its critic: weights that are the same mean that both were taken up.
    assert_same_bits(weights_of(place.plan.run), weights_of(broken.run))
    facts = lineage.load(broken.run).facts
    assert facts["score"] == "timbre_distance"
    assert {"valid_timbre_distance", "test_pitch_accuracy", "test_real_timbre_distance"} <= facts["measures"].keys()
    assert facts["measures"]["test_real_pitch_accuracy"] == 1
    assert facts["training"]["notes_per_s"] > 0


def test_the_judge_says_what_the_measures_say(place: Place) -> None:
    drawn = np.random.default_rng(0).uniform(-1, 1, (2, 6, *NOTES.scale.shape)).astype(np.float32)
    pitch_B = np.arange(60, 66)
    examples = {"spectra": torch.from_numpy(drawn[0]), "pitch": torch.from_numpy(pitch_B).float()}
    found = TimbreJudge(NOTES.scale).compared(examples, torch.from_numpy(drawn[1]))
    expected = timbre.compared(drawn[0], drawn[1], pitch_B=pitch_B, scale=NOTES.scale)
    assert found == {name: value for name, value in expected.items() if np.isfinite(value)}
    assert TimbreJudge.score_name in found


def test_likeness_is_of_levels_and_of_the_frequencies_that_sound() -> None:
    real = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert unlikeness(real, real).tolist() == [0, 0, 0]
    real[:, 0, 2:] = -1
    elsewhere = real.clone()
    elsewhere[:, 1, 2:] = 0.5
    assert unlikeness(elsewhere, real).tolist() == [0, 0, 0], "frequencies of silence"
    louder = real.clone()
    louder[:, 0] += 0.25
    assert torch.allclose(unlikeness(louder, real), torch.full((3,), 0.25))
    sharper = real.clone()
    sharper[:, 1] += 0.25
    assert torch.allclose(unlikeness(sharper, real), torch.full((3,), 0.25))


def test_a_model_is_held_against_notes_that_it_never_heard(place: Place, tmp_path: Path) -> None:
    asked = ["keys", "--samples", "2", "--root", str(place.root.local_path)]
    planned = CliRunner().invoke(evaluate.command, [*asked, "--dry-run"]).output.splitlines()
    assert planned[0].startswith("model      keys/1")
    assert planned[1] == f"held out   {place.spectra.facts['split_notes']['test']} of 12 notes of test"
    done = CliRunner().invoke(evaluate.command, [*asked, "--out", str(tmp_path)])
    assert done.exception is None, done.output
    document = json.loads((tmp_path / "evaluation.json").read_bytes())
    found = document["figures"]
    assert found[HELD_OUT]["pitch_accuracy"] == found[SHIFTED]["pitch_accuracy"] == 1
    assert found[NEAREST]["pitch_accuracy"] == 0
    assert found[SHIFTED]["spectral_distance_db"] < found[NEAREST]["spectral_distance_db"]
    assert found[SHIFTED]["spectral_distance_db"] < found[MEAN]["spectral_distance_db"]
    assert found[MODEL]["pitch_accuracy"] > 0.8, "where harmonics lie need not be taught"
    assert found[MODEL]["spectral_distance_db"] < found[MEAN]["spectral_distance_db"], "nor what pitch does to a note"
    assert found[MODEL]["spectral_distance_db"] > found[SHIFTED]["spectral_distance_db"], "four steps teach little"
    assert found[MODEL]["variety_db"] > 0
    assert sorted(document["instruments"]) == ["program-000", "program-073"]
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "phrase.mid", "phrase.flac", "note-001.flac", "note-012.flac", "held-out-001.flac", "held-out-012.flac",
    }  # fmt: skip
    page = (tmp_path / "evaluation.html").read_text()
    assert "http" not in page.split("</head>")[1]
    assert page.count("<figure>") == 2
    figures = place.registry.resolve("keys/1").evaluations["test"]
    assert figures["pitch_accuracy.shifted"] == 1


def test_a_sample_is_a_phrase_that_sounds(place: Place) -> None:
    made = samples.made(place.plan.run.local_path / "bundle", title="keys")
    assert set(made.files) == {"mid", "flac", "png"}
    assert made.loudness_lufs == pytest.approx(-16, abs=2)
    score = phrase({5: (36, 84), 6: (70, 75)})
    assert set(score.notes.program.tolist()) == {5, 6}
    assert (score.notes.pitch[score.notes.program == 5].min(), score.notes.pitch.max()) == (43, 84)


def test_a_model_of_notes_plays_and_composes_nothing(place: Place) -> None:
    drawn = timbres.known(["keys:0", "pipe=keys/1:program-073:5"], registry=place.registry)
    assert [str(timbre) for timbre, _ in drawn] == ["program-000 of keys/1", "program-073 of keys/1"]
    assert drawn[0][0].to_dict()["licences"] == {"CC0-1.0": 48}
    playing = timbres.players((timbre, bundles.load(folder)) for timbre, folder in drawn)
    assert set(playing) == set(range(128))
    assert {program for program, player in playing.items() if player is playing[72]} == set(range(72, 80))
    with pytest.raises(MissingError, match="knows no instrument 'program-001': choose among program-000, program-073"):
        timbres.known(["keys:1"], registry=place.registry)
    with pytest.raises(RecipeError, match="a timbre_gan composes no pieces: it reads spectra"):
        composers.load(place.plan.run.local_path / "bundle")
    assert run(["generate", "--model", "keys", "--root", str(place.root.local_path)]) == 2


def test_a_catalogue_is_played_by_the_timbres_of_its_order(place: Place) -> None:
    tree = {"name": "o", "model": "m", "lines": [{"count": 1}]}
    plain = Catalogue(build(Order, tree), model="m", model_version="1", model_digest="d" * 32)
    assert "timbres" not in publish.inputs_of(plain)["order"], "catalogues keep their addresses"
    order = build(Order, {**tree, "timbres": ["reed=keys:73"]})
    ((timbre, folder),) = timbres.known(order.timbres, registry=place.registry)
    planned = replace(plain, order=order, timbres=(timbre,))
    assert publish.inputs_of(planned)["timbres"] == [timbre.to_dict()]
    files = [{path.name: path.read_bytes() for path in folder.iterdir()}]
    assert set(players_of(planned, files)) == set(range(64, 72))
    with pytest.raises(IntegrityError, match="the files of keys/1 have digest"):
        players_of(replace(planned, timbres=(replace(timbre, digest="e" * 32),)), files)
    with pytest.raises(RecipeError, match="is no family of instruments"):
        build(Order, {**tree, "timbres": ["oboe=keys:73"]})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("keys", r"timbre 'keys' is not \[FAMILY=\]MODEL:INSTRUMENT\[:SEED\]"),
        ("keys:piano:loud", "is not"),
        ("oboe=keys:0", "'oboe' is no family of instruments: choose among piano"),
        ("drums=keys:0", "'drums' is no family of instruments"),
    ],
)
def test_a_timbre_that_cannot_be_read_is_one_line(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        timbres.parse(text)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"notes": None}, "notes says what a timbre_gan learns from, and is missing"),
        ({"notes": {"programs": []}}, "notes are played by notes.programs or cut from corpus, and there is neither"),
        ({"notes": {"programs": [0]}}, "licence says under which terms the SoundFont is"),
        ({"notes": {"programs": [128], "licence": "MIT"}}, "program 128 is not one of MIDI's"),
        ({"notes": {"lowest_pitch": 70, "highest_pitch": 60}}, "lowest_pitch 70 is above highest_pitch 60"),
        ({"notes": {"octaves": 3}}, "octaves"),
        ({"model": {"family": "timbre_gan", "settings": {"bins": 64}}}, "model.settings.bins is what the notes decide"),
        ({"model": {"family": "decoder"}}, "a decoder learns from works, not from notes"),
        ({"model": {"family": "decoder"}, "notes": None}, "corpus says what is read, and is missing"),
    ],
)
def test_a_recipe_that_says_too_little_or_too_much_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        build(recipes.Recipe, {**RECIPE, **changes}, origin="recipe")


def test_a_recipe_of_notes_is_sized_before_there_are_any(tmp_path: Path) -> None:
    recipe = build(recipes.Recipe, RECIPE, origin="recipe")
    assert recipe.expected_model.settings == NOTES.decides(instruments=2)
    lines = list(told(recipe, root=Folder(str(tmp_path))))
    assert "sources: 2 programs of the bundled SoundFont · licences: CC0-1.0" in lines
    assert any(line.startswith("training: 4 steps of 4 x 1 notes") for line in lines)
    with pytest.raises(RecipeError, match=r"works under CC0-1\.0 are not among the licences"):
        notes.packed(NOTES, None, licences=("MIT",), name="x", root=Folder(str(tmp_path)), reporter=Silent())


def test_notes_of_a_corpus_are_cut_from_its_clips(tmp_path: Path) -> None:
    rate_hz, root = 16_000, Folder(str(tmp_path))
    found = []
    for pitch in range(55, 67):
        sound = play_note(program=73, pitch=pitch, velocity=100, length_s=1.5, sample_rate_hz=rate_hz)
        clips = clips_of_samples(
            [np.pad(sound, (rate_hz // 4, 0))[:, None]], sample_rate_hz=rate_hz, cutting=Cutting(), describe=describe
        )
        found += [(clip, ("train", "valid", "test")[pitch % 3]) for clip in clips]
    same = {
        "source_uri": "note:", "source_sha256": "0", "collection": "flutes", "title": None, "composer": None,
        "tags": [], "metadata": "{}", "licence": "CC0-1.0", "licence_origin": "tests", "work_id": None,
        "valence": None, "arousal": None, "mood_source": None,
    }  # fmt: skip
    table = clips_table([clip for clip, _ in found], told=[{**same, "split": split} for _, split in found])
    folder = lineage.place(root, kind="works", name="flutes", inputs={})
    files = [lineage.write_file(folder, "clips-00000.parquet", to_parquet(table), rows=table.num_rows)]
    works = lineage.publish(folder, kind="works", name="flutes", inputs={}, files=files, facts={})
    asked = NOTES.model_copy(update={"programs": ()})
    spectra = notes.packed(asked, works, licences=("CC0-1.0",), name="flutes", root=root, reporter=Silent())
    assert spectra.facts["instruments"] == ["flutes"]
    assert min(spectra.facts["split_notes"].values()) >= 4
    few = asked.model_copy(update={"highest_pitch": 56})
    with pytest.raises(UserError, match=r"has [0-3] notes, and 4 are needed"):
        notes.packed(few, works, licences=("CC0-1.0",), name="few", root=root, reporter=Silent())
