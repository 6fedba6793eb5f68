"""Rolls from noise and classes: shapes, laws of the losses, the judge, and pieces that hold what was asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.examples import prepare
from jobs.ingest import IngestRecipe
from jobs.recipe import Recipe
from tests.music import works_table
from tests.trainings import StoppedError, Watch, assert_same_bits, plan_of, train, weights_of
from tutti import lineage
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import RecipeError
from tutti.evaluation import judgement
from tutti.evaluation.rolls import marks_of, rows_of_rolls
from tutti.features import roll
from tutti.features.vocabulary import instrument_of
from tutti.generation import composers
from tutti.generation.request import Request
from tutti.generation.rolls import RollComposer, in_one_key, programs
from tutti.models.roll_gan import ROLL_GAN, Critic, RollConfiguration, RollLearning, latent_noise, slopes
from tutti.models.roll_gan.network import held as held_of
from tutti.storage import Folder
from tutti.tables import to_parquet
from tutti.telemetry import Silent
from tutti.training.examples import random_rolls, roll_shape
from tutti.training.recipe import ModelRecipe
from tutti.training.roll_judge import RollJudge, measured
from tutti.units import parse_key

NANO: RollConfiguration = ROLL_GAN.configure("nano", shape=roll_shape())
LEARNING = RollLearning(NANO)


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    made = ROLL_GAN.networks(NANO)
    return made["generator"], made["critic"]


def examples(rows: int) -> dict[str, Tensor]:
    batch = random_rolls(rows)
    classes = torch.stack((torch.arange(rows) % NANO.moods, torch.arange(rows) % NANO.tempos), dim=1)
    return {"roll": torch.from_numpy(batch.roll_RMBSPK), "classes": classes.to(torch.uint8)}


def composer() -> RollComposer:
    generator, _ = networks()
    facts = {"data": {"track_programs": [DRUM_PROGRAM, 0, 0, 0, 0], "programs": [0, 19, 52]}}
    return RollComposer(generator.eval(), configuration=NANO, digest="0", facts=facts)


def test_rolls_are_binary_in_normal_form() -> None:
    generator, _ = networks()
    asked = examples(6)
    made = LEARNING.fakes(generator.eval(), asked, seed=3)
    assert made.shape == (6, *roll.SHAPE)
    assert set(made.unique().tolist()) == {0.0, 1.0}
    marks = made.detach().numpy() > 0.5
    sounds, begins = marks[:, roll.SOUNDS], marks[:, roll.BEGINS]
    assert not (begins & ~sounds).any()
    assert (begins == sounds)[..., roll.DRUMS].all()
    flat = sounds.reshape(6, roll.BARS * roll.STEPS, -1)
    fresh = flat[:, 1:] & ~flat[:, :-1]
    assert begins.reshape(flat.shape)[:, 1:][fresh].all()


def test_every_weight_counts_and_learns() -> None:
    generator, critic = networks()
    assert sum(w.numel() for network in (generator, critic) for w in network.parameters()) == NANO.parameters
    asked = examples(6)
    made = LEARNING.fakes(generator, asked, seed=3)
    assert made.shape == (6, *roll.SHAPE)
    assert set(made.unique().tolist()) == {0.0, 1.0}
    (critic(made, asked["classes"].long()) * torch.arange(6)).sum().backward()
    for network in (generator, critic):
        assert not [name for name, weight in network.named_parameters() if weight.grad is None]


def test_classes_and_noise_change_what_is_made_and_what_the_critic_says() -> None:
    generator, critic = networks()
    noise = torch.randn(1, NANO.tracks + 1, NANO.bars + 1, NANO.latent, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([[1, 2]])
    others = [torch.tensor([[3, 2]]), torch.tensor([[1, 5]])]
    first = generator.logits(noise, classes)

    def moved(noise: Tensor, classes: Tensor) -> list[float]:
        now = generator.logits(noise, classes)
        return [float((one - other).detach().abs().max()) for one, other in zip(first, now, strict=True)]

    real = examples(1)["roll"].float()
    for other in others:
        assert min(moved(noise, other)) > 1e-3
        assert abs(float((critic(real, classes) - critic(real, other)).detach())) > 1e-4
    assert min(moved(-noise, classes)) > 1e-3


@pytest.mark.parametrize("learns", [True, False])
def test_voices_hold_what_they_struck_last(learns: bool) -> None:
    generator, _ = networks()
    asked = examples(2)
    noise = latent_noise(2, configuration=NANO, seed=3)
    with torch.no_grad():
        made = generator.train(learns)(noise, asked["classes"].long()).flatten(2, 3)
        of_TRKVL, strike_TRKV1 = generator.logits(noise, asked["classes"].long())
    surest = nn.functional.one_hot(of_TRKVL.argmax(4), NANO.pitches + 1)
    struck_TRKVP = surest[..., :-1].float()
    strikes = (strike_TRKV1 > 0).float()
    assert 0.1 < float(strikes[:, :, 1:].mean()) < 0.9
    for track in range(1, NANO.tracks):
        held = struck_TRKVP[0, :, track, 0]
        for step in range(NANO.roll_steps):
            struck = strikes[step, :, track, 0]
            if step:
                held = torch.where(struck > 0, struck_TRKVP[step, :, track, 0], held)
            assert torch.equal(made[:, roll.SOUNDS, step, :, track], held)
            assert torch.equal(made[:, roll.BEGINS, step, :, track], struck * held)
    assert torch.equal(made[:, roll.SOUNDS, ..., roll.DRUMS], made[:, roll.BEGINS, ..., roll.DRUMS])


def test_a_strike_learns_what_it_changes_up_to_the_next_one() -> None:
    random = torch.Generator().manual_seed(2)
    share = torch.softmax(torch.randn(8, 1, 1, 1, 5, generator=random), dim=4)
    worth = torch.randn(8, 1, 1, 1, 5, generator=random)
    strikes = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 0]).view(8, 1, 1, 1, 1).requires_grad_()
    held = held_of(share, strikes)
    (slope,) = torch.autograd.grad((held * worth).sum(), strikes)
    for step, stop in ((1, 3), (2, 3), (4, 6), (5, 6), (7, 8)):
        gained = ((share[step] - held[step]).detach() * worth[step:stop].sum(0)).sum()
        assert float(slope[step]) == pytest.approx(float(gained), rel=1e-5)


def test_losses_are_sums_over_rows_wherever_a_batch_is_cut() -> None:
    generator, critic = networks()
    asked = examples(5)
    fakes = LEARNING.fakes(generator, asked, seed=0).detach()

    def of(start: int, stop: int) -> Tensor:
        part = {name: column[start:stop] for name, column in asked.items()}
        learning = replace(LEARNING, weights=replace(LEARNING.weights, penalty=0.0))
        loss, _ = learning.critic_loss(critic, part, fakes[start:stop], seed=1)
        return torch.stack((loss, learning.generator_loss(critic, part, fakes[start:stop])[0])).detach()

    torch.testing.assert_close(of(0, 5), of(0, 2) + of(2, 5), rtol=1e-4, atol=1e-4)


def test_a_step_is_a_function_of_weights_rows_and_seed() -> None:
    generator, critic = networks()
    asked = examples(4)

    def loss(seed: int) -> Tensor:
        return LEARNING.critic_loss(critic, asked, LEARNING.fakes(generator, asked, seed=seed), seed=seed)[0]

    torch.manual_seed(5)
    first = loss(7)
    torch.manual_seed(6)
    assert torch.equal(first, loss(7))
    assert not torch.equal(first, loss(8))


def test_the_penalty_is_of_the_scores_slope_at_the_cells() -> None:
    generator, network = networks()
    critic = cast(Critic, network.double())
    asked = examples(3)
    real, classes = asked["roll"].double(), asked["classes"].long()
    fakes = LEARNING.fakes(generator, asked, seed=1).detach().double()
    slope_R = slopes(critic, critic.seen(real), critic.seen(fakes), classes, seed=5)
    share = torch.rand(3, generator=torch.Generator().manual_seed(5)).double()
    between = torch.lerp(real, fakes, share.view(-1, *[1] * 5)).requires_grad_()
    (rise,) = torch.autograd.grad(critic(between, classes).sum(), between, create_graph=True)
    plain_R = rise.flatten(1).norm(dim=1)
    assert slope_R.detach().numpy() == pytest.approx(plain_R.detach().numpy(), rel=1e-5)
    weights = [weight for name, weight in critic.named_parameters() if not name.endswith("score.bias")]
    ours, plain = (
        torch.autograd.grad(torch.square(slope - 1).sum(), weights, allow_unused=True) for slope in (slope_R, plain_R)
    )
    for found, expected in zip(ours, plain, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    # And as differences tell it, along the way that rises most.
    way, small = rise.detach() / plain_R.detach().view(-1, *[1] * 5), 1e-4
    risen_R = critic(between + small * way, classes) - critic(between - small * way, classes)
    assert (risen_R / (2 * small)).detach().numpy() == pytest.approx(slope_R.detach().numpy(), rel=1e-4)


def test_voices_fall_silent_and_find_their_range_where_a_critic_asks_for_it() -> None:
    generator, _ = networks()
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-2)
    wanted = torch.full((roll.PITCHES,), -1.0)
    wanted[36:48] = 1
    asked = {"classes": torch.zeros(4, 2, dtype=torch.uint8)}
    for step in range(40):
        sounds = LEARNING.fakes(generator, asked, seed=step)[:, roll.SOUNDS]
        score = (sounds[..., 1:] * wanted[:, None]).sum() - sounds[..., roll.DRUMS].sum()
        optimizer.zero_grad()
        (-score / 4).backward()
        optimizer.step()
    sounds = LEARNING.fakes(generator.eval(), asked, seed=99)[:, roll.SOUNDS].detach()
    assert not sounds[..., roll.DRUMS].any()
    assert float(sounds[..., 36:48, 1:].sum() / sounds.sum()) > 0.95


def test_the_judge_finds_no_deviation_of_a_set_from_itself_and_much_of_noise() -> None:
    generator, _ = networks()
    made, classes = LEARNING.fakes(generator.eval(), examples(8), seed=0).detach(), examples(8)["classes"]
    alike = RollJudge().compared({"roll": made, "classes": classes}, made)
    assert alike["roll_deviation"] == 0
    assert alike["empty_bars_rate"] == alike["empty_bars_rate_of_data"]
    noise = (torch.rand(made.shape, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    assert RollJudge().compared({"roll": made, "classes": classes}, noise)["roll_deviation"] > 0.3
    repeated = made[:1].expand_as(made)
    assert RollJudge().compared({"roll": made, "classes": classes}, repeated)["variety"] == 0
    silent = RollJudge().compared({"roll": made, "classes": classes}, torch.zeros_like(made))
    assert 0.5 < silent["roll_deviation"] <= 1


def test_who_hears_what_was_asked_is_told_from_who_does_not() -> None:
    moods = roll.CLASSES["mood"]
    asked = torch.tensor([[moods.index(name), 0] for name in ("happy", "calm", "sad", "tense")])
    marks = torch.zeros(4, *roll.SHAPE)
    for row, third in enumerate((4, 4, 3, 3)):
        for degree in (0, third, 7):
            marks[row, :, :, :, 36 + degree, roll.LEAD] = 1
    listens = RollJudge().compared({"roll": marks, "classes": asked}, marks)
    assert listens["valence_contrast"] == listens["valence_contrast_of_data"] > 0.5
    deaf = RollJudge().compared({"roll": marks, "classes": asked}, marks[[0, 2, 0, 2]])
    assert deaf["valence_contrast"] == pytest.approx(0, abs=1e-6)
    alone = RollJudge().compared({"roll": marks, "classes": asked[:1].expand(4, 2)}, marks)
    assert "valence_contrast" not in alone


def test_what_is_made_reads_as_the_notes_that_lie_in_it() -> None:
    generator, _ = networks()
    marks = LEARNING.fakes(generator.eval(), examples(1), seed=2).detach().numpy() > 0.5
    score = roll.score_of(marks, tempo_qpm=120.0)
    again = roll.rolls_of(score, tracks=score.notes.track.astype(np.int64), mood="any", hop_bars=roll.BARS)
    _, read = roll.dense(again.tokens[0], lengths=np.array([len(again.tokens[0])]))
    assert (read[:, roll.SOUNDS] == marks[:, roll.SOUNDS]).all()
    assert (read[:, roll.BEGINS, :, :][:, :, 1:] == marks[:, roll.BEGINS][:, :, 1:]).all()


def test_an_evaluation_tells_the_figures_of_each_track_beside_those_of_the_data() -> None:
    generator, _ = networks()
    made = LEARNING.fakes(generator.eval(), examples(2), seed=2).detach().numpy() > 0.5
    made[..., roll.LEAD] = False
    batch = ScoreBatch.of([roll.score_of(made, tempo_qpm=100.0)])
    assert (marks_of(batch)[:, roll.SOUNDS] == made[:, roll.SOUNDS]).all()
    rows = {row.name: row.cells["takes"] for row in rows_of_rolls({"takes": batch})}
    figures = measured(made)
    assert rows["empty_bars_rate_lead"].value == 1
    assert rows["qualified_note_rate_bass"].value == figures["qualified_note_rate"][roll.BASS]
    assert rows["tonal_distance_keys_strings"].value == figures["tonal_distance"][3]
    assert rows["pitch_classes_used_lead"].why == "lead play in no phrase"
    nothing = rows_of_rolls({"takes": ScoreBatch.of([Score.of(Notes.none(), ticks_per_quarter=24)])})
    assert {row.cells["takes"].value for row in nothing} == {None}


def test_a_piece_holds_length_tempo_key_and_instruments_and_is_the_same_again() -> None:
    engine = composer()
    request = Request(bars=6, tempo=72, key="D minor", instruments=("organ", "brass"), mood="sad", seed=4)
    other = Request(length="20s", tempo=120, seed=5)
    first, second = engine.generate([request, other])
    assert engine.generate([other])[0].tokens.tolist() == second.tokens.tolist()
    notes = first.score.notes
    assert len(notes)
    assert first.score.tempo_qpm.tolist() == [72]
    assert int((notes.onset_ticks + notes.duration_ticks).max()) <= 6 * 96
    assert int((second.score.notes.onset_ticks + second.score.notes.duration_ticks).max()) <= 10 * 96
    assert set((notes.pitch % 12).tolist()) <= parse_key("D minor").pitch_classes
    assert {instrument_of(program) for program in notes.program.tolist()} == {"organ", "brass"}
    assert engine.generate([replace_seed(request)])[0].tokens.tolist() != first.tokens.tolist()


def replace_seed(request: Request) -> Request:
    return request.model_copy(update={"seed": 77})


@pytest.mark.parametrize(
    ("request_", "what"),
    [
        (Request(density="dense"), "cannot hold density"),
        (Request(collection="bach"), "cannot hold collection"),
        (Request(top_p=0.5), "cannot hold top_p"),
        (Request(meter="3/4"), "knows no meter 3/4"),
        (Request(instruments=("drums",)), "never heard drums"),
    ],
)
def test_what_rolls_cannot_hold_is_refused(request_: Request, what: str) -> None:
    with pytest.raises(RecipeError, match=what):
        composer().generate([request_])


def test_nothing_is_continued_and_who_gives_up_gets_nothing() -> None:
    engine = composer()
    piece = engine.generate([Request(bars=4)], cancelled=lambda _: True)[0]
    assert piece.cancelled
    assert not len(piece.score.notes)
    with pytest.raises(RecipeError, match="cannot continue"):
        engine.generate([Request()], materials=[piece.score])


def test_phrases_come_to_one_key() -> None:
    marks = np.zeros((2, *roll.SHAPE), dtype=bool)
    for phrase, tonic in enumerate((36, 39)):
        for step, degree in enumerate((0, 2, 4, 5, 7, 9, 11, 12, 0, 4, 7, 12, 0, 0, 0, 0)):
            marks[phrase, :, :, step, tonic + degree, 4] = True
    moved = in_one_key(marks, key=parse_key("G major"))
    sounding = np.flatnonzero(moved[:, roll.SOUNDS].any(axis=(0, 1, 2, 4)))
    assert set(((sounding + roll.LOWEST_PITCH) % 12).tolist()) == parse_key("G major").pitch_classes


def test_a_model_of_one_key_plays_in_any_and_in_the_one_that_is_asked() -> None:
    generator, _ = networks()
    facts = {"training": {"recipe": {"home_key": True}}}
    engine = RollComposer(generator.eval(), configuration=NANO, digest="0", facts=facts)
    drawn = [engine.generate([Request(bars=4, seed=seed)])[0].score.notes.pitch for seed in range(6)]
    plain = RollComposer(generator.eval(), configuration=NANO, digest="0", facts={})
    moved = {
        int(there[0]) - int(plain.generate([Request(bars=4, seed=seed)])[0].score.notes.pitch[0])
        for seed, there in enumerate(drawn)
    }
    assert len(moved) > 2
    asked = Request(bars=4, key="D minor", seed=1)
    assert engine.generate([asked])[0].tokens.tolist() == plain.generate([asked])[0].tokens.tolist()


def test_programs_are_the_usual_where_they_may_play() -> None:
    usual, known = (DRUM_PROGRAM, 33, 0, 48, 73), frozenset({0, 33, 48, 73, 19})
    assert programs((), usual=usual, known=known | {DRUM_PROGRAM}) == list(usual)
    assert programs((), usual=usual, known=known) == [None, *usual[1:]]
    assert programs(("piano", "organ"), usual=usual, known=known) == [None, 19, 0, 19, 19]
    assert programs(("drums",), usual=usual, known=known | {DRUM_PROGRAM}) == [DRUM_PROGRAM, None, None, None, None]


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole octaves"):
        replace(NANO, pitches=85)
    with pytest.raises(ValueError, match="drums are track 9 of 5"):
        replace(NANO, drums=9)


def test_killed_and_resumed_equals_never_stopped_and_what_is_left_composes_and_is_judged(tmp_path: Path) -> None:
    table, place = works_table(20), Folder(str(tmp_path / "works"))
    file = lineage.write_file(place, "works-00000.parquet", to_parquet(table), rows=table.num_rows)
    notes = sum(len(pitches) for pitches in table.column("pitch").to_pylist())
    works = lineage.publish(
        place,
        kind="works",
        name="walks",
        inputs={},
        files=[file],
        facts={"notes": notes, "works": table.num_rows, "licences": {"CC0-1.0": table.num_rows}},
    )
    recipe = Recipe(
        name="walks",
        corpus=IngestRecipe(sources=("walks",)),
        licences=("CC0-1.0",),
        model=ModelRecipe(family="roll_gan", flavour="nano"),
    )
    prepared = prepare(recipe, works, root=Folder(str(tmp_path)), reporter=Silent())
    assert sum(prepared.told["splits"].values()) == 20
    settings = {"steps": 4, "clip_norm": 0.0, "weight_decay": 0.0, "checkpoint_every_steps": 2}
    straight, broken = (
        replace(plan_of(prepared.dataset.folder, tmp_path / name, family="roll_gan", **settings), data=prepared.told)
        for name in ("straight", "broken")
    )
    train(straight)
    with pytest.raises(StoppedError):
        train(broken, watch=Watch(stop_at=3))
    train(broken)
    assert_same_bits(weights_of(straight.run), weights_of(broken.run))
    facts = lineage.load(straight.run).facts
    assert facts["score"] == "roll_deviation"
    bundle = straight.run.local_path / "bundle"
    again = judgement.judged(bundle, prepared.dataset, straight.training, split="valid", device="cpu")
    assert again == {name: value for name, value in facts["measures"].items() if name.startswith("valid_")}
    composer = composers.load(bundle)
    piece = composer.generate([Request(bars=4)])[0]
    assert len(piece.score.notes)
    assert set(piece.score.notes.program.tolist()) <= set(prepared.told["track_programs"])
