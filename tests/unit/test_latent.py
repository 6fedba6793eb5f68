"""Bars as points: latents are used, ends come back, the middle lies between, and directions lead where they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutti.corpus.score import Notes, Score
from tutti.errors import InputError, RecipeError
from tutti.features.events import encode
from tutti.features.vocabulary import BAR, EVENTS
from tutti.generation import latent
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.generation.restoring import Ends
from tutti.generation.start import Start
from tutti.models.bar_vae import BAR_VAE, BarVae
from tutti.models.decoder import DECODER, Decoder
from tutti.models.family import NOT_LEARNT

SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 256, "bar_token": BAR}
STEPS = 300


def piece(seed: int, *, notes: int | None = None, low: int | None = None, bars: int = 4) -> Score:
    """Even notes that go to and fro by a whole tone: 1, 2, 4 or 8 a bar, from a lowest pitch."""
    random = np.random.default_rng(seed)
    onsets, pitches = [], []
    for bar in range(bars):
        many = notes or int(random.choice([1, 2, 4, 8]))
        lowest = low or int(random.choice([48, 60, 72]))
        onsets += [96 * bar + 96 // many * place for place in range(many)]
        pitches += [lowest + 2 * (place % 2) for place in range(many)]
    columns = Notes.of(onset_ticks=onsets, duration_ticks=[12] * len(onsets), pitch=pitches)
    return Score.of(columns, ticks_per_quarter=24, tempos=[(0, 96.0)])


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    return [piece(seed) for seed in range(160)]


@pytest.fixture(scope="module")
def engine(scores: list[Score]) -> Engine:
    """A small model, learnt here from all but the last scores."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = {"kl_weight": 0.2, "annealing_steps": STEPS, "free_nats": 0.3, "word_dropout": 0.3}
    configuration = BAR_VAE.configure("nano", shape=SHAPE, settings=settings)
    network, objective = BarVae(configuration).train(), BAR_VAE.objective(configuration)
    rows = [torch.from_numpy(encode(score).astype(np.int64)) for score in scores[:128]]
    held = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    segments = torch.where(held == NOT_LEARNT, -1, 0)
    targets = torch.where(held >= BAR, held, torch.where(held == EVENTS["End"], held, NOT_LEARNT))
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, step / 20 + 0.05) * (1 - 0.9 * step / STEPS)
    )
    for step in range(STEPS):
        picked = torch.randperm(len(rows))[:16]
        length = max(len(rows[row]) for row in picked.tolist())
        outputs = network(held[picked, : length - 1], segments[picked, : length - 1])
        loss, _ = objective.loss(outputs, targets[picked, 1:length], step=step)
        (loss / int((targets[picked, 1:length] != NOT_LEARNT).sum())).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return engine_of(network.eval())


def engine_of(network: BarVae | Decoder) -> Engine:
    return Engine(network, digest="0" * 32, collections=(), facts={"data": {"programs": [0]}}, context_tokens=128)


def test_latents_say_what_the_decoder_cannot_know(engine: Engine, scores: list[Score]) -> None:
    found = latent.readings(engine, scores[128:])
    assert found["token_accuracy_told"] > found["token_accuracy_blind"] + 0.1
    assert found["note_f1_sampled"] > 0.5


def test_ends_come_back_and_the_middle_lies_between(engine: Engine) -> None:
    first, last = piece(1000, notes=1, low=48), piece(1001, notes=8, low=72)
    made = latent.interpolate(engine, first, last, steps=5)
    ends = Ends.between(first, last)
    asked = [Request(start=Start(kind="interpolate", weight=step / 4), top_p=latent.GREEDY) for step in range(5)]
    for asked_for, same in zip(engine.generate(asked, materials=[ends] * 5), made, strict=True):
        assert asked_for.score.same_music(same.score)
    with pytest.raises(RecipeError, match="interpolate needs two files"):
        engine.generate(asked[:1], materials=[first])
    with pytest.raises(RecipeError, match="vary starts from one file, and there are two"):
        engine.generate([Request(start=Start(kind="vary"))], materials=[ends])
    alone = latent.reconstruct(engine, [first, last])
    assert [made[0].tokens.tolist(), made[-1].tokens.tolist()] == [ends.tokens.tolist() for ends in alone]
    assert all(each.refused_tokens == 0 for each in made)
    pitches = [each.score.notes.pitch.mean() for each in made]
    counts = [len(each.score.notes) for each in made]
    assert pitches[0] + 10 < pitches[-1]
    # Pieces of the training have 1, 2, 4 or 8 notes a bar in three registers: only numbers have something between.
    assert counts[0] < counts[2] < counts[-1]
    assert counts == sorted(counts)


@pytest.mark.parametrize("attribute", latent.ATTRIBUTES)
def test_a_direction_leads_where_it_says(engine: Engine, scores: list[Score], attribute: latent.Attribute) -> None:
    direction = latent.attribute_direction(engine, scores[:128], attribute)
    moved = [piece(2000 + seed, notes=None if attribute == "pitch" else 4, low=60) for seed in range(8)]
    points = [latent.encode_bars(engine, score) for score in moved]
    requests = [latent.request_like(score) for score in moved]

    def attained(amount: float) -> float:
        shifted = [latent.shift(each, direction, amount=amount) for each in points]
        made = latent.decode_bars(engine, shifted, requests=requests)
        return float(np.mean([np.nanmean(latent.attribute_of_bars(each.score, attribute)) for each in made]))

    less, as_is, more = attained(-1), attained(0), attained(1)
    assert less < as_is < more


def test_models_without_latents_are_refused(scores: list[Score]) -> None:
    size = DECODER.configure("nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": 256})
    with pytest.raises(InputError, match="this model has no latents"):
        latent.encode_bars(engine_of(Decoder(size).eval()), scores[0])


def test_what_cannot_be_placed_is_refused(engine: Engine, scores: list[Score]) -> None:
    with pytest.raises(InputError, match="1 steps have no two ends"):
        latent.interpolate(engine, scores[0], scores[1], steps=1)
    with pytest.raises(InputError, match="0 bars with notes have no quarters"):
        latent.attribute_direction(engine, [], "pitch")
    with pytest.raises(InputError, match="a score without notes has no latents"):
        latent.encode_bars(engine, Score.of(Notes.none(), ticks_per_quarter=24))
    with pytest.raises(InputError, match="longer than the 256 that are read"):
        latent.encode_bars(engine, piece(0, notes=8, bars=40))
