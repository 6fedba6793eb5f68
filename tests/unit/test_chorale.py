"""The family of chorales: nothing to come is heard, one step after another says what all at once say, and it learns."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.music import voices_dataset
from tests.obedience import _of_chords as chord_faults
from tests.trainings import StoppedError, Watch, assert_same_bits, plan_of, train, weights_of
from tutti import lineage
from tutti.corpus.score import Score
from tutti.dataset.loader import Loader
from tutti.dataset.voices import MOST_STEPS, VoiceLayout
from tutti.errors import InputError, RecipeError
from tutti.features.voices import FIRST_PITCH, LOWEST_PITCH, NOTHING, VOCABULARY_SIZE, VOICES, score_of
from tutti.generation import composers
from tutti.generation.composing import drained
from tutti.generation.request import Request
from tutti.generation.start import Start
from tutti.models.chorale import CHORALE, Chorale
from tutti.models.chorale.part import heard_classes, held_steps
from tutti.storage import Folder
from tutti.units import parse_key

SHAPE = {"vocabulary_size": VOCABULARY_SIZE, "voices": VOICES}


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    torch.set_num_threads(1)
    return voices_dataset(Folder(str(tmp_path_factory.mktemp("data")))).folder


@pytest.fixture(scope="module")
def learnt(voices: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    train(plan_of(voices, run, family="chorale", dropout=0.0, steps=60, learning_rate=1e-2, most_semitones=2))
    return run


def network(**settings: object) -> Chorale:
    torch.manual_seed(0)
    made = Chorale(CHORALE.configure("nano", shape=SHAPE, settings=settings)).eval()
    for part in made.parts:
        torch.nn.init.normal_(part.intervals.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    for block in made.blocks:
        torch.nn.init.normal_(block.attention.distance_HS)  # type: ignore[union-attr, arg-type]
    return made


def grids(rows: int, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    now = torch.randint(1, VOCABULARY_SIZE, (rows, steps, VOICES), generator=torch.Generator().manual_seed(3))
    now[:, 1::2] = now[:, ::2][:, : now[:, 1::2].shape[1]]
    before = torch.cat((torch.zeros_like(now[:, :1]), now[:, :-1]), dim=1)
    return before, now, torch.arange(steps).expand(rows, steps)


def test_pitches_are_hidden_from_the_attention_while_it_learns_and_only_then() -> None:
    open_, hiding = network(), network(hidden_share=1.0)
    before, now, places = grids(2, 12)
    assert torch.equal(open_(before, now, places), hiding(before, now, places))
    open_.train()
    hiding.train()
    elsewhere = torch.where(before >= FIRST_PITCH, before + 1, before)
    first = hiding._read(*(hiding._partly_hidden(before),) * 2, held_steps(before))
    second = hiding._read(*(hiding._partly_hidden(elsewhere),) * 2, held_steps(elsewhere))
    assert torch.equal(first, second)
    assert not torch.equal(open_(before, now, places), hiding(before, now, places))


def test_what_was_heard_fades_and_draws_the_voices_to_its_classes() -> None:
    # One voice sings class 4 for a bar, then class 7 for a bar; the others are silent.
    sung = torch.ones(1, 32, VOICES, dtype=torch.long)
    sung[0, :16, 0], sung[0, 16:, 0] = 36 + 4, 36 + 7
    heard = heard_classes(sung, steps=32)
    fading = 2.0 ** (-np.arange(32) / 16)
    share = fading[16:].sum() / fading.sum()
    rare = 0.02
    assert heard[0, -1, 4, 0] == pytest.approx(np.log(share + rare) - np.log(1 / 12 + rare), abs=1e-5)
    assert heard[0, 0, 7, 0] == pytest.approx(np.log(rare) - np.log(1 / 12 + rare), abs=1e-5)
    assert torch.equal(heard_classes(sung, steps=1)[:, 0], heard[:, -1])
    assert torch.allclose(heard_classes(sung[:, :20], steps=20), heard[:, :20], atol=1e-6)
    drawn, plain = network(), network()
    with torch.no_grad():
        drawn.parts[0].key.bias[0] = 1.0  # type: ignore[union-attr, operator, index]
        places = torch.arange(31)[None]
        more = (drawn(sung[:, :-1], sung[:, 1:], places) - plain(sung[:, :-1], sung[:, 1:], places))[0, -1, 0]
    assert set(torch.topk(more[FIRST_PITCH:], 12).indices.add(FIRST_PITCH).remainder(12).tolist()) <= {4, 7}
    assert more[:FIRST_PITCH].abs().max() == 0


def test_the_configuration_counts_its_weights() -> None:
    for flavour in ("nano", "tiny"):
        size = CHORALE.configure(flavour, shape=SHAPE)
        assert size.parameters == sum(weight.numel() for weight in Chorale(size).parameters())


@torch.inference_mode()
def test_a_voice_hears_the_past_and_the_voices_above_it_alone() -> None:
    made, (before, now, places) = network(), grids(2, 12)
    said = made(before, now, places)
    changed = now.clone()
    changed[:, 7, 2] = 40
    other = made(torch.cat((torch.zeros_like(now[:, :1]), changed[:, :-1]), dim=1), changed, places)
    assert torch.equal(other[:, :7], said[:, :7])
    assert torch.equal(other[:, 7, :3], said[:, 7, :3])
    assert not torch.allclose(other[:, 7, 3], said[:, 7, 3])
    assert not torch.allclose(other[:, 8], said[:, 8])


@torch.inference_mode()
def test_step_by_step_it_says_what_it_says_of_all_at_once() -> None:
    made, (before, now, places) = network(distances=5), grids(3, 20)
    said, memory = made(before, now, places), made.new_memory(rows=3)
    rows = torch.arange(3)
    for step in range(20):
        if step == 10:
            rows = torch.tensor([2, 0])
            memory.keep(rows)
        for voice, logits, singing in made.sing(memory):
            torch.testing.assert_close(logits, said[rows, step, voice], atol=1e-5, rtol=1e-5)
            singing[:, voice] = now[rows, step, voice]


@torch.inference_mode()
def test_intervals_are_the_same_in_every_key() -> None:
    made, (before, now, _) = network(), grids(1, 4)
    now = now % 20 + 20
    before[:, 1:] = now[:, :-1]
    part = made.parts[3]
    x = torch.randn(1, 4, 32)
    up = lambda grid: torch.where(grid >= FIRST_PITCH, grid + 5, grid)  # noqa: E731
    references = torch.cat((before, now[..., :3]), dim=-1)
    here, there = (part._of_intervals(part.intervals(x), r) for r in (references, up(references)))  # type: ignore[operator, union-attr]
    assert torch.equal(here[..., 20:40], there[..., 25:45])


def test_a_layout_cuts_and_transposes_within_the_compass(voices: Folder) -> None:
    dataset = lineage.load(voices)
    layout = VoiceLayout(steps=16, most_semitones=6)
    with closing(Loader(dataset, split="train", layout=layout, batch_sequences=8, seed=1)) as loader:
        batches = [loader.batch(number) for number in range(12)]
        whole = next(iter(loader.in_order(rank=0, num_ranks=1, rows=8)))
    shifts, starts = set[int](), set[int]()
    for batch in batches:
        columns = batch.arrays()
        now, before, targets, places = (columns[name] for name in ("now", "before", "targets", "places"))
        assert now.shape == (8, 16, VOICES)
        starts |= set(places[:, 0].tolist())
        for row in range(8):
            assert (targets[row, 0] == NOTHING).all() == (places[row, 0] > 0)
            assert (before[row, 1:] == now[row, :-1]).all()
            assert (targets[row, 1:] == now[row, 1:]).all()
        shifts |= set((now[now >= FIRST_PITCH].astype(int) % 12).tolist())
    assert {0, 16} <= starts
    assert len(shifts) == 12
    assert whole.arrays()["now"].shape[1] == 32
    assert MOST_STEPS > 32


def test_killed_and_resumed_equals_never_stopped_to_the_bit(voices: Folder, tmp_path: Path) -> None:
    straight, broken = (plan_of(voices, tmp_path / name, family="chorale") for name in ("straight", "broken"))
    train(straight)
    with pytest.raises(StoppedError):
        train(broken, watch=Watch(stop_at=5))
    train(broken)
    assert_same_bits(weights_of(straight.run), weights_of(broken.run))


def test_it_learns_and_tells_its_likelihood_by_token_and_by_piece(learnt: Path) -> None:
    measures = lineage.load(Folder(str(learnt))).facts["measures"]
    assert measures["valid_nll_nats_per_token"] < 0.5 * measures["before_valid_nll_nats_per_token"]
    assert measures["before_valid_nll_nats_per_token"] == pytest.approx(np.log(VOCABULARY_SIZE), rel=0.05)
    # All pieces of the tests are of one length, so both means are one.
    assert measures["valid_nll_nats_per_token_of_pieces"] == pytest.approx(measures["valid_nll_nats_per_token"])


def test_it_composes_what_is_asked_and_the_same_again(learnt: Path) -> None:
    composer = composers.load(learnt / "bundle")
    asked = [
        Request(bars=2, key="D minor", tempo=72, seed=1),
        Request(bars=3, seed=2, instruments=("strings",)),
        Request(length="12s", tempo=60, seed=1),
    ]
    together, alone = composer.generate(asked), composer.generate(asked[1:2])
    assert together[1].tokens.tolist() == alone[0].tokens.tolist()
    for piece, bars in zip(together, (2, 3, 3), strict=True):
        notes = piece.score.notes
        ends = (notes.onset_ticks + notes.duration_ticks) / piece.score.ticks_per_quarter
        assert ends.max() <= 4 * bars
        assert set(notes.track.tolist()) <= set(range(VOICES))
        assert ((notes.pitch >= LOWEST_PITCH) & (notes.pitch <= 96)).all()
        assert not piece.refused_tokens
    key = parse_key("D minor")
    assert set((together[0].score.notes.pitch % 12).tolist()) <= set(key.pitch_classes)
    assert together[0].score.tempo_qpm.tolist() == [72]
    assert set(together[1].score.notes.program.tolist()) <= set(range(40, 48))


def test_what_voices_cannot_hold_is_refused_by_name(learnt: Path) -> None:
    composer = composers.load(learnt / "bundle")
    for asked, named in (
        ({"mood": "calm"}, "mood"),
        ({"meter": "3/4"}, "3/4"),
        ({"guidance": 2.0}, "guid"),
        ({"instruments": ("drums",)}, "drum"),
    ):
        with pytest.raises(RecipeError, match=named):
            composer.generate([Request(bars=1), Request(bars=1, **asked)])  # type: ignore[arg-type]


def test_a_piece_that_is_given_up_ends_alone(learnt: Path) -> None:
    composer = composers.load(learnt / "bundle")
    pieces = composer.generate([Request(bars=2, seed=3), Request(bars=2, seed=4)], cancelled=lambda number: number == 0)
    assert [piece.cancelled for piece in pieces] == [True, False]
    alone = composer.generate([Request(bars=2, seed=4)])[0]
    assert pieces[1].tokens.tolist() == alone.tokens.tolist()


def four_voices() -> Score:
    grid = np.repeat(np.array([[72, 67, 64, 48], [71, 67, 62, 43], [72, 69, 65, 41], [71, 67, 62, 43]]), 8, axis=0)
    score = score_of((grid - LOWEST_PITCH + 2).astype(np.uint16), tempo_qpm=77.0)
    # Off the grid of sixteenths a little, and louder than it writes: what is kept must come back as it was.
    exact = score.with_resolution(480)
    velocity = (exact.notes.pitch % 50 + 40).astype(np.uint8)
    return replace(exact, notes=replace(exact.notes, onset_ticks=exact.notes.onset_ticks + 7, velocity=velocity))


def rows_of(score: Score) -> set[tuple[int, ...]]:
    score = score.with_resolution(480)
    columns = (getattr(score.notes, name).tolist() for name in ("onset_ticks", "duration_ticks", "pitch", "velocity"))
    return set(zip(*columns, strict=True))


def test_a_soprano_is_harmonised_and_other_voices_stay_beneath(learnt: Path) -> None:
    composer, file = composers.load(learnt / "bundle"), four_voices()
    tune = replace(file, notes=file.notes.take(file.notes.track == 0))
    asked = Request(start=Start(kind="harmonise", drafts=5), seed=4)
    (piece,) = composer.generate([asked], materials=[tune])
    assert rows_of(tune) <= rows_of(piece.score)
    assert piece.score.tempo_qpm.tolist() == [77]
    assert len(np.unique(piece.score.notes.track)) == VOICES
    others = piece.score.with_resolution(480).notes.take(piece.score.notes.track > 0)
    sung = tune.notes.pitch[(np.searchsorted(tune.notes.onset_ticks - 7, others.onset_ticks, side="right") - 1)]
    assert (others.pitch <= sung).all()
    session = composer.open()
    number = session.submit(asked, material=tune)
    assert drained(session, [number])[0].score.same_music(piece.score)


def test_chorales_are_continued_filled_in_and_varied_and_what_stays_is_exact(learnt: Path) -> None:
    composer, file = composers.load(learnt / "bundle"), four_voices()
    more, filled, varied = composer.generate(
        [
            Request(bars=1, seed=1),
            Request(start=Start(kind="infill", bars="2", drafts=3), seed=2),
            Request(start=Start(kind="vary", strength=0.5, drafts=3), seed=3),
        ],
        materials=[file] * 3,
    )
    assert rows_of(file) < rows_of(more.score)
    assert more.score.notes.onset_ticks.max() >= 2 * 4 * more.score.ticks_per_quarter
    bar_ticks = 4 * 480
    outside = {row for row in rows_of(file) if row[0] < bar_ticks}
    assert outside < rows_of(filled.score)
    assert all(row in outside or bar_ticks <= row[0] for row in rows_of(filled.score))
    assert len(rows_of(file) & rows_of(varied.score)) >= len(file.notes) // 2
    assert filled.score.end_ticks <= 2 * 4 * filled.score.ticks_per_quarter


def test_files_that_voices_cannot_sing_are_refused_in_one_line(learnt: Path) -> None:
    composer, file = composers.load(learnt / "bundle"), four_voices()
    tune = replace(file, notes=file.notes.take(file.notes.track == 0))
    waltz = Score.of(tune.notes, ticks_per_quarter=480, meters=[(0, 3, 4)])
    high = replace(tune, notes=replace(tune.notes, pitch=tune.notes.pitch + 30))
    for kind, score, line in (
        ("vary", tune, "the file is not of four voices"),
        ("harmonise", waltz, "knows no meter 3/4"),
        ("harmonise", high, "pitches 101 to 102 are outside the voices'"),
        ("restyle", tune, "a model of voices cannot restyle a piece"),
        ("harmonise", None, "harmonise starts from a file, and there is none"),
    ):
        with pytest.raises((RecipeError, InputError), match=line):
            composer.generate([Request(start=Start(kind=kind))], materials=[score])  # type: ignore[arg-type]


def test_voices_follow_chords_alone_and_beneath_a_tune(learnt: Path) -> None:
    composer, file = composers.load(learnt / "bundle"), four_voices()
    chords = "C G7/B | Am F"
    (alone,) = composer.generate([Request(chords=chords, bars=4, seed=2)])
    assert chord_faults(alone) == []
    tune = replace(file, notes=file.notes.take(file.notes.track == 0))
    asked = Request(chords="Em", start=Start(kind="harmonise", drafts=3), seed=5)
    (piece,) = composer.generate([asked], materials=[tune])
    new = piece.score.notes.take(piece.score.notes.track > 0)
    assert set((new.pitch % 12).tolist()) <= {4, 6, 7, 9, 11, 0, 2}
    first = new.pitch[new.onset_ticks == 0]
    assert first.min() % 12 == 4
    ends = (file.end_ticks * piece.score.ticks_per_quarter) // file.ticks_per_quarter
    for beat in range(0, ends, 2 * piece.score.ticks_per_quarter):
        sounds = (new.onset_ticks <= beat) & (beat < new.onset_ticks + new.duration_ticks)
        assert set((new.pitch[sounds] % 12).tolist()) <= {4, 7, 11}
