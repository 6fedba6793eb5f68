"""A checkpoint becomes a model that loads, and what cannot is said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import jobs.cli
from tests.music import sequences_dataset
from tests.trainings import Dump, Watch, assert_same_bits, plan_of, train
from tutti import lineage
from tutti.corpus.score import Notes, Score
from tutti.errors import IntegrityError, MissingError
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.render.export import finish
from tutti.storage import Folder
from tutti.training import exporting
from tutti.training.plan import Outcome

FILES = {"MLmodel", "card.md", "input_example.json", "model.json", "model.safetensors", "requirements.txt"}


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A run that is not finished: checkpoints of steps 4 and 6, and the models of 2, 4 and 6 as the loop had them."""
    torch.set_num_threads(1)
    sequences = sequences_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder
    run = tmp_path_factory.mktemp("run")
    plan = plan_of(sequences, run, checkpoint_every_steps=100, sample_every_steps=2, keep_checkpoints=2)
    # A pause saves at its step for certain; on the way a checkpoint waits for the one before it.
    for step in (4, 6):
        train(plan, watch=Watch(pause_at=step), sampler=Dump(run / "dump"))
    return plan.run


class Mute:
    """Plays a piece without notes, as a model that has learnt nothing may make one."""

    def files(self, bundle: Bundle, *, step: int) -> dict[str, bytes]:  # noqa: ARG002
        return finish(Score.of(Notes.none(), ticks_per_quarter=24), formats=("midi", "flac"), title="").files


def test_a_sample_without_notes_is_left_out_with_a_line(tmp_path: Path) -> None:
    sequences = sequences_dataset(Folder(str(tmp_path / "data"))).folder
    plan = plan_of(sequences, tmp_path / "run", steps=2, sample_every_steps=1)
    outcome, watch = train(plan, sampler=Mute())
    assert outcome == Outcome.FINISHED
    assert [line for line in watch.lines if line.startswith("no sample of step 1: the score has no notes")]
    assert lineage.load(plan.run).facts["training"]["unit"] == "tokens"


def _export(*words: str) -> int:
    return jobs.cli.run(["models", "export", *words])


@pytest.mark.parametrize(("words", "step"), [(("--step", "4"), 4), ((), 6)])
def test_a_checkpoint_of_a_run_that_goes_on_is_a_model(
    paused: Folder, tmp_path: Path, words: tuple[str, ...], step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _export("--checkpoint", paused.uri, *words, "--out", str(out), "--dry-run") == 0
    assert capsys.readouterr().out == f"would write the checkpoint of step {step} of {paused.uri} to {out}\n"
    assert not out.exists()
    assert _export("--checkpoint", paused.uri, *words, "--out", str(out)) == 0
    assert capsys.readouterr().out == f"checkpoint of step {step}: 7 files in {out}\n"
    assert {path.name for path in out.iterdir()} == {*FILES, "vocabulary.json"}
    exported, known = bundles.load(out), bundles.load(paused.local_path / "dump" / str(step))
    assert_same_bits(dict(exported.weights), dict(known.weights))
    assert exported.digest() == known.digest()
    assert exported.facts["training"]["steps"] == step
    assert exported.facts["training"]["tokens"] > 0
    assert exported.facts["measures"]["unigram_nll_nats_per_token"] == 4.0
    assert ("valid_nll_nats_per_token" in exported.facts["measures"]) == (step == 4)
    assert f"| steps | {step} |" in (out / "card.md").read_text()
    assert len(Engine.load(out).generate([Request(bars=1, seed=0)])) == 1


def test_a_checkpoint_is_a_llama_for_other_engines(
    paused: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert _export("--checkpoint", paused.uri, "--format", "llama", "--out", str(out)) == 0
    assert capsys.readouterr().out == f"checkpoint of step 6: 3 files in {out}\n"
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}
    assert json.loads((out / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_what_cannot_be_is_said_in_one_line(paused: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"))
    for words, line in (
        (("--checkpoint", paused.uri, "--step", "2"), "no complete checkpoint of step 2 at"),
        (("--checkpoint", paused.uri, "--step", "2"), "there are those of 4, 6"),
        (("--checkpoint", str(tmp_path)), "name a run that goes on, or keeps some when it ends"),
        ((), "name a version, or a run by --checkpoint"),
        (("bach", "--checkpoint", paused.uri), "name a version, or a run by --checkpoint"),
        (("bach", "--step", "3"), "--step is of a checkpoint: name its run by --checkpoint"),
    ):
        assert _export(*words, *out) == 2
        told = capsys.readouterr()
        assert line in told.err
        assert told.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_damage_is_noticed(paused: Folder, tmp_path: Path) -> None:
    saved = exporting.found(paused, step=4)
    copy = Folder(str(tmp_path))
    for path in saved.dataset.folder.paths():
        (copy / "checkpoints" / "step-00000004-a0").write(path, saved.dataset.folder.read(path))
    assert_same_bits(dict(exporting.bundle_of(exporting.found(copy)).weights), dict(exporting.bundle_of(saved).weights))
    state = tmp_path / "checkpoints" / "step-00000004-a0" / "state-plain.pt"
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="differs from its manifest"):
        exporting.bundle_of(exporting.found(copy))


def test_one_that_says_nothing_of_its_model_is_refused(paused: Folder, tmp_path: Path) -> None:
    manifest = json.loads(exporting.found(paused, step=4).dataset.folder.read(lineage.MANIFEST))
    del manifest["facts"]["model"]
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] == "history.json"]
    folder = tmp_path / "checkpoints" / "step-00000004-a0"
    folder.mkdir(parents=True)
    (folder / "history.json").write_bytes(exporting.found(paused, step=4).dataset.read("history.json"))
    (folder / lineage.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(MissingError, match=r"step 4 at .* says nothing of its model: start its training again"):
        exporting.found(Folder(str(tmp_path)))
