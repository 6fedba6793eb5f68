"""`tutti generate` reaches the latents of bars: pieces between two files, and a file with more of something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import jobs.cli
from tests.music import sequences_dataset, walk, works_dataset
from tests.trainings import plan_of, train
from tutti.corpus.midi import read_midi, write_midi
from tutti.corpus.score_batch import ScoreBatch
from tutti.evaluation import latents
from tutti.evaluation.comparison import HELD_OUT, TAKES, TRAIN
from tutti.generation.engine import Engine
from tutti.registry.versions import Registry
from tutti.storage import Folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A small model of bars that was trained on walks and registered, and two files."""
    torch.set_num_threads(1)
    root = Folder(str(tmp_path_factory.mktemp("latents")))
    held = works_dataset(root / "works" / "walks" / "a")
    sequences = sequences_dataset(root)
    data = {"works_address": held.folder.uri, "licences": {"CC0-1.0": 40}, "programs": [0]}
    plan = plan_of(sequences.folder, root / "run", family="bar_vae", dropout=0.0, steps=8)
    train(replace(plan, data=data))
    registry = Registry.embedded(root)
    registry.backend.prepare()
    registry.register((root / "run").local_path / "bundle", name="walks")
    for name, seed in (("a.mid", 100), ("b.mid", 101)):
        root.write(name, write_midi(walk(seed, bars=2)))
    return root


def generate(root: Folder, *words: str) -> int:
    return jobs.cli.run(["generate", "--root", str(root.local_path), *words])


def test_pieces_between_two_files_and_their_picture(root: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    at = root.local_path
    ends = ("--between", str(at / "a.mid"), str(at / "b.mid"), "--steps", "3")
    assert generate(root, *ends, "--out", str(at / "way.mid"), "--out", str(at / "way.png")) == 0
    assert "3 pieces · walks/1" in capsys.readouterr().out
    assert sorted(path.name for path in at.glob("way*")) == ["way-1.mid", "way-2.mid", "way-3.mid", "way.png"]
    assert len(read_midi((at / "way-2.mid").read_bytes()).notes)
    assert (at / "way.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_with_more_of_something_is_another_piece(root: Folder) -> None:
    at = root.local_path
    for name, amount in (("low.mid", "-1000"), ("high.mid", "1000")):
        words = ("--vary", str(at / "a.mid"), "--more", f"pitch={amount}", "--out", str(at / name))
        assert generate(root, *words) == 0
    assert (at / "low.mid").read_bytes() != (at / "high.mid").read_bytes()
    assert generate(root, "--more", "density=1", "--bars", "1", "--out", str(at / "made.mid")) == 0
    assert len(read_midi((at / "made.mid").read_bytes()).notes)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--more", "joy=1"), "--more joy=1 names no attribute"),
        (("--more", "pitch=high"), "--more pitch=high has no amount"),
        (("--more", "pitch=1", "--between", "a", "b"), "--between and --more ask for different pieces"),
        (("--strength", "0.5"), "--strength says nothing without a file"),
        (("--fill", "a.mid", "--vary", "b.mid"), "--fill and --vary ask for different pieces"),
    ],
)
def test_what_cannot_be_is_one_line(
    root: Folder, words: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(root, *words) == 2
    assert line in capsys.readouterr().err


def test_an_evaluation_tells_what_comes_back_of_works(root: Folder) -> None:
    engine = Engine.load((root / "run").local_path / "bundle")
    sets = {TAKES: [1], HELD_OUT: [2, 3], TRAIN: [4, 5, 6]}
    scores = {name: ScoreBatch.of([walk(seed, bars=2) for seed in seeds]) for name, seeds in sets.items()}
    rows = {row.name: row for row in latents.rows_of_latents(engine, scores)}
    told, blind = (rows[f"token_accuracy_{name}"].cells for name in ("told", "blind"))
    assert 0 <= (told[HELD_OUT].value or 0) <= 1
    assert told[TAKES].value is None
    assert "nothing comes back" in told[TAKES].why
    assert blind[TRAIN].pieces == 3
    assert (rows["kl_nats_per_bar"].cells[HELD_OUT].value or 0) > 0
    active = rows["active_units"].cells[TRAIN].value
    assert active is not None
    assert 0 <= active <= 16
    assert {f"{name}_effect" for name in ("density", "pitch", "calmness")} < set(rows)
    assert len(latents.between(engine, scores, seed=0)) == latents.STEPS


def test_several_takes_each_the_best_of_two(root: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    at = root.local_path
    words = ("--bars", "1", "--seed", "4", "--takes", "2", "--best-of", "2")
    assert generate(root, *words, "--out", str(at / "several.mid")) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in at.glob("several*")) == ["several-1.mid", "several-2.mid"]
    assert len(lines) == 2
    assert all("best of 2: seed " in line for line in lines)
    assert last.endswith("2 takes from seed 4 on · walks/1")
    assert len(read_midi((at / "several-2.mid").read_bytes()).notes)
    assert generate(root, "--more", "density=1", "--takes", "2") == 2
    assert "leave out --takes and --best-of" in capsys.readouterr().err


def test_a_file_is_filled_in_and_varied(root: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    at = root.local_path
    filled = ("--fill", str(at / "a.mid"), "--at", "2", "--drafts", "2", "--out", str(at / "filled.mid"))
    assert generate(root, *filled, "--dry-run") == 0
    assert generate(root, *filled) == 0
    given, made = (read_midi((at / name).read_bytes()) for name in ("a.mid", "filled.mid"))
    bar_ticks = 4 * given.ticks_per_quarter
    before = given.notes.onset_ticks < bar_ticks
    again = made.with_resolution(given.ticks_per_quarter).notes
    assert again.pitch[again.onset_ticks < bar_ticks].tolist() == given.notes.pitch[before].tolist()
    assert generate(root, "--vary", str(at / "a.mid"), "--strength", "0.9", "--out", str(at / "varied.mid")) == 0
    assert generate(root, "--fill", str(at / "a.mid"), "--at", "9", "--dry-run") == 2
    assert "bars 9 are not all in the file: it has 2 bars with notes" in capsys.readouterr().err
