"""The verbs of the river, as a user types them: a folder of MIDI files in, a registered model and its music out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.cli import run
from tests.music import walk
from tests.notes import taught_generator
from tutti.corpus.midi import read_midi, write_midi
from tutti.models.bundle import Bundle
from tutti.registry.versions import Registry
from tutti.storage import Folder

RECIPE = """
name: walks
corpus: {{sources: [{midi}], licence: CC0-1.0}}
licences: [CC0-1.0]
model: {{flavour: nano}}
training: {{steps: 8, sequence_tokens: 128, batch_sequences: 4, micro_batch_sequences: 4, workers: 1, strategy: plain,
           checkpoint_every_steps: 2, validate_every_steps: 4, warmup_steps: 2}}
gate: {{measures: {{valid_nll_nats_per_token: {{at_most: 0.1}}}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MIDI files, one of them broken, and a recipe for them."""
    place = tmp_path_factory.mktemp("river")
    (place / "midi").mkdir()
    for seed in range(30):
        (place / "midi" / f"walk-{seed:02d}.mid").write_bytes(write_midi(walk(seed)))
    (place / "midi" / "broken.mid").write_bytes(b"MThd\0\0")
    (place / "recipe.yaml").write_text(RECIPE.format(midi=place / "midi"))
    return place


@pytest.fixture(scope="module")
def trained(place: Path, ray_cluster: None) -> Path:
    """Results of ``tutti train``."""
    results = place / "results"
    assert run(["train", str(place / "recipe.yaml"), "--root", str(results)]) == 0
    return results


def _line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a refusal may take."""
    error = capsys.readouterr().err.strip()
    assert "\n" not in error, error
    return error


def test_a_recipe_becomes_a_registered_version_once(
    trained: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry.embedded(Folder(str(trained)))
    (version,) = registry.versions("walks")
    assert version.figures["valid_nll_nats_per_token"] < version.facts["measures"]["before_valid_nll_nats_per_token"]
    assert version.facts["data"]["licences"] == {"CC0-1.0": 30}
    samples = list((trained / "mlflow" / "artifacts").rglob("samples/*"))
    assert {sample.suffix for sample in samples} == {".mid", ".flac", ".png"}
    started_s = time.monotonic()
    assert run(["train", str(place / "recipe.yaml"), "--root", str(trained)]) == 0
    assert capsys.readouterr().err.count("found") == 5
    assert time.monotonic() - started_s < 30
    assert len(registry.versions("walks")) == 1


def test_what_a_recipe_asks_is_held_and_may_change_without_another_training(
    trained: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    promote = ["models", "promote", "walks/1", "--root", str(trained)]
    assert run(promote) == 2
    assert "walks/1 does not show what its gate asks (valid_nll_nats_per_token at most 0.1: " in _line(capsys)
    easier = ["--set", "gate.measures.valid_nll_nats_per_token.at_most=100"]
    assert run(["train", str(place / "recipe.yaml"), "--root", str(trained), *easier]) == 0
    assert capsys.readouterr().err.count("found") == 5
    assert run(promote) == 0
    assert capsys.readouterr().out.startswith("walks/1 is walks@production")


def test_a_piece_is_made_and_made_again(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["generate", "--root", str(trained), "--length", "4s", "--tempo", "90", "--key", "D minor"]
    files = ["--out", f"{tmp_path}/a.mid", "--out", f"{tmp_path}/a.flac", "--out", f"{tmp_path}/a.png"]
    assert run([*asked, *files]) == 0
    assert "walks" in capsys.readouterr().out
    score = read_midi((tmp_path / "a.mid").read_bytes())
    assert score.tempo_qpm.tolist() == pytest.approx([90.0], abs=1e-3)
    assert set((score.notes.pitch[score.notes.program < 128] % 12).tolist()) <= {2, 4, 5, 7, 9, 10, 0, 1}
    audio, rate_hz = soundfile.read(tmp_path / "a.flac")
    assert rate_hz == 44_100
    assert 0.01 < np.abs(audio).max() < 1.0
    assert run([*asked, "--out", f"{tmp_path}/b.mid"]) == 0
    assert (tmp_path / "b.mid").read_bytes() == (tmp_path / "a.mid").read_bytes()


def test_a_file_is_continued(trained: Path, place: Path, tmp_path: Path) -> None:
    given = place / "midi" / "walk-00.mid"
    arguments = ["--root", str(trained), "--bars", "1", "--continue", str(given), "--out", f"{tmp_path}/c.mid"]
    assert run(["generate", *arguments]) == 0
    before, after = read_midi(given.read_bytes()), read_midi((tmp_path / "c.mid").read_bytes())
    kept = len(before.notes) - 4
    assert after.notes.pitch[:kept].tolist() == before.notes.pitch[:kept].tolist()
    assert len(after.notes) > len(before.notes)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tempo", "0"], "tempo 0 is outside 20 to 300 quarters a minute"),
        (["--length", "10h"], "length 10h is outside 1 s to 600 s"),
        (["--length", "36000"], "is outside 1 s to 600 s"),
        (["--key", "H dur"], "key 'H dur' is not known"),
        (["--model", "elvis"], "elvis"),
        (["--collection", "elvis"], "collection 'elvis' is not known to this model"),
        (["--out", "take.xyz"], "take.xyz ends in no known format"),
        (["--out", "nowhere/take.mid"], "nowhere is not there"),
        (["--continue", "nothing.mid"], "nothing.mid is not a file"),
        (["--continue", "{midi}/broken.mid"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    trained: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = [argument.format(midi=place / "midi") for argument in arguments]
    assert run(["generate", "--root", str(trained), *given]) == 2
    assert said in _line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_training_killed_with_kill_9_goes_on_to_the_same_model(trained: Path, place: Path, tmp_path: Path) -> None:
    recipe, root = str(place / "recipe.yaml"), tmp_path / "results"
    command = [sys.executable, "-m", "jobs.cli", "train", recipe, "--root", str(root)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s and not list(root.glob("runs/*/*/checkpoints/*/manifest.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(root.glob("runs/*/*/manifest.json")), "it was over before it was killed"
    assert run(["train", recipe, "--root", str(root)]) == 0
    digests = [
        json.loads(next(results.glob("runs/walks/*/manifest.json")).read_text())["facts"]["digest"]
        for results in (trained, root)
    ]
    assert digests[0] == digests[1]


def test_a_model_of_notes_plays_a_piece(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Last of all: until here there is one model, which needs no name.
    generator = taught_generator()
    Bundle(
        family="timbre_gan", flavour="nano", configuration=generator.configuration.to_dict(),
        weights=generator.state_dict(), vocabulary=(), collections=("program-000", "program-071"), facts={},
    ).save(tmp_path / "notes")  # fmt: skip
    Registry.embedded(Folder(str(trained))).register(tmp_path / "notes", name="notes")
    asked = ["generate", "--root", str(trained), "--model", "walks", "--length", "4s"]
    assert run([*asked, "--out", f"{tmp_path}/plain.wav"]) == 0
    assert run([*asked, "--timbre", "notes:program-071", "--out", f"{tmp_path}/drawn.wav"]) == 0
    assert "program-071 of notes/1" in capsys.readouterr().out
    (plain, _), (drawn, _) = (soundfile.read(tmp_path / f"{name}.wav") for name in ("plain", "drawn"))
    length = min(len(plain), len(drawn))
    assert 0.01 < np.abs(drawn).max() < 1.0
    assert np.abs(plain[:length] - drawn[:length]).max() > 0.01
    assert run(["generate", "--root", str(trained), "--model", "notes"]) == 2
    assert "a timbre_gan composes no pieces: it reads spectra" in _line(capsys)
