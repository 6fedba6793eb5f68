from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tutti.features.spectra import SpectrumScale, to_sound
from tutti.metrics import timbre
from tutti.models.timbre_gan import (
    Condition,
    Critic,
    Generator,
    TimbreConfiguration,
    Weights,
    critic_loss,
    fakes,
    generator_loss,
)
from tutti.models.timbre_gan.objective import slopes, unlikeness

NANO = TimbreConfiguration(
    sample_rate_hz=8_000,
    n_fft=512,
    range_db=80.0,
    bins=24,
    frames=8,
    lowest_pitch=60,
    highest_pitch=64,
    instruments=3,
    latent=6,
    width=24,
    critic_width=24,
    halvings=2,
    likeness=0.0,
)
LR = 5e-3


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks() -> tuple[Generator, Critic]:
    torch.manual_seed(1)
    return Generator(NANO), Critic(NANO)


def condition(rows: int) -> Condition:
    return Condition(60 + torch.arange(rows) % NANO.pitches, torch.arange(rows) % NANO.instruments)


def real(rows: int, *, seed: int = 3) -> Tensor:
    return torch.rand(rows, 2, NANO.bins, NANO.frames, generator=random_of(seed)) * 2 - 1


def gradients(network: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True))


def close(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(
        (a is None and b is None) or torch.allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(some, others, strict=True)
    )


def test_pictures_are_of_the_asked_shape_and_every_weight_counts() -> None:
    generator, critic = networks()
    assert sum(weight.numel() for weight in generator.parameters()) == NANO.generator_parameters
    assert sum(weight.numel() for weight in critic.parameters()) == NANO.critic_parameters
    assert NANO.parameters == NANO.generator_parameters + NANO.critic_parameters
    assert TimbreConfiguration(**NANO.to_dict()) == NANO
    made_B2KF = fakes(generator, condition(5), random=random_of(0))
    assert made_B2KF.shape == (5, 2, NANO.bins, NANO.frames)
    assert float(made_B2KF.detach().abs().max()) <= 1
    scores_B = critic(made_B2KF, *_columns(condition(5)))
    assert scores_B.shape == (5,)
    (scores_B.sum() + made_B2KF.sum()).backward()
    for network in (generator, critic):
        unmoved = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not unmoved


def test_pitch_instrument_and_noise_each_change_the_picture() -> None:
    generator, _ = networks()
    noise = torch.randn(1, NANO.latent, generator=random_of(5))
    pitch, instrument = torch.tensor([61]), torch.tensor([1])
    first = generator(noise, pitch, instrument)
    for other in (
        generator(-noise, pitch, instrument),
        generator(noise, pitch + 1, instrument),
        generator(noise, pitch, instrument + 1),
    ):
        assert float((first - other).detach().abs().max()) > 1e-3
    assert torch.allclose(first, generator(3 * noise, pitch, instrument), atol=1e-5), "its direction is what counts"


def test_a_row_does_not_know_its_neighbours() -> None:
    generator, critic = networks()
    generator_rows = generator(torch.randn(6, NANO.latent, generator=random_of(2)), *_columns(condition(6)))
    alone = torch.cat(
        [
            generator(
                torch.randn(6, NANO.latent, generator=random_of(2))[row : row + 1], *_columns(_rows(condition(6), row))
            )
            for row in range(6)
        ]
    )
    assert torch.allclose(generator_rows, alone, atol=1e-5)
    asked = condition(6)
    single = torch.cat([critic(alone[row : row + 1], *_columns(_rows(asked, row))) for row in range(6)])
    assert torch.allclose(critic(alone, *_columns(asked)), single, atol=1e-4)


def _columns(asked: Condition) -> tuple[Tensor, Tensor]:
    return asked.pitch_B, asked.instrument_B


def _rows(asked: Condition, first: int, last: int | None = None) -> Condition:
    part = slice(first, first + 1 if last is None else last)
    return Condition(asked.pitch_B[part], asked.instrument_B[part])


def test_losses_are_sums_over_rows_wherever_a_batch_is_cut() -> None:
    generator, critic = networks()
    asked, real_B2KF = condition(6), real(6)
    fake_B2KF = fakes(generator, asked, random=random_of(0)).detach()

    def of(first: int, last: int, *, random: torch.Generator) -> tuple[Tensor, Tensor]:
        part = _rows(asked, first, last)
        loss, parts = critic_loss(critic, real_B2KF[first:last], fake_B2KF[first:last], part, random=random)
        assert set(parts) == {"distance", "penalty"}
        return loss, generator_loss(critic, fake_B2KF[first:last], part)[0]

    whole = of(0, 6, random=random_of(9))
    # One stream over both parts draws what the whole drew.
    stream = random_of(9)
    parts = [of(0, 2, random=stream), of(2, 6, random=stream)]
    for number in range(2):
        assert torch.allclose(whole[number], parts[0][number] + parts[1][number], rtol=1e-5)
    summed = [gradients(critic, parts[part][0]) for part in range(2)]
    both = [None if a is None or b is None else a + b for a, b in zip(*summed, strict=True)]
    assert close(gradients(critic, whole[0]), both)


def test_a_step_is_a_function_of_weights_rows_and_seed() -> None:
    generator, critic = networks()
    asked = condition(4)

    def loss(seed: int) -> Tensor:
        random = random_of(seed)
        made_B2KF = fakes(generator, asked, random=random)
        return critic_loss(critic, real(4), made_B2KF, asked, random=random)[0]

    torch.manual_seed(123)
    first = loss(7)
    torch.manual_seed(456)
    assert torch.equal(first, loss(7))
    assert not torch.equal(first, loss(8))


class Slanted(nn.Module):
    """A critic of a known slope: the mean of the picture times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, spectra_B2KF: Tensor, pitch_B: Tensor, instrument_B: Tensor) -> Tensor:
        return self.factor * spectra_B2KF.flatten(1).sum(dim=1) + pitch_B + instrument_B


def test_the_slope_is_that_of_the_score() -> None:
    numbers = 2 * NANO.bins * NANO.frames
    critic = Slanted(0.5)
    slope_B = slopes(critic, real(3), -real(3), condition(3), random=random_of(0))
    assert torch.allclose(slope_B, torch.full((3,), 0.5 * numbers**0.5))
    # The penalty's own gradient goes through the slope: d/df (f sqrt(n) - 1)² = 2 (f sqrt(n) - 1) sqrt(n).
    (rise,) = torch.autograd.grad(torch.square(slope_B - 1).sum(), critic.factor)
    assert float(rise) == pytest.approx(3 * 2 * (0.5 * numbers**0.5 - 1) * numbers**0.5, rel=1e-4)


def test_losses_are_wassersteins_and_the_pull_to_a_real_note() -> None:
    generator, critic = networks()
    asked, real_B2KF = condition(4), real(4)
    fake_B2KF = fakes(generator, asked, random=random_of(0))
    scores_B = critic(fake_B2KF, *_columns(asked))
    assert torch.allclose(generator_loss(critic, fake_B2KF, asked)[0], -scores_B.sum())
    loss, parts = generator_loss(critic, fake_B2KF, asked, weights=Weights(likeness=3), real_B2KF=real_B2KF)
    assert torch.allclose(loss, 3 * unlikeness(fake_B2KF, real_B2KF).sum() - scores_B.sum())
    assert torch.allclose(parts["unlikeness"], unlikeness(fake_B2KF, real_B2KF).sum())
    weights = Weights(penalty=0, drift=0)
    loss, parts = critic_loss(critic, real_B2KF, fake_B2KF, asked, random=random_of(1), weights=weights)
    assert torch.allclose(loss, scores_B.sum() - critic(real_B2KF, *_columns(asked)).sum())
    assert torch.allclose(parts["distance"], -loss)


def test_the_critic_does_not_move_the_generator() -> None:
    generator, critic = networks()
    made_B2KF = fakes(generator, condition(2), random=random_of(0))
    loss, _ = critic_loss(critic, real(2), made_B2KF, condition(2), random=random_of(1))
    loss.backward()
    assert all(weight.grad is None for weight in generator.parameters())
    assert all(weight.grad is not None for weight in critic.parameters())


HARMONICS = NANO.harmonics()


def _bells(asked: Condition) -> Tensor:
    """Notes whose instrument decides which harmonic sounds, and for how long."""
    rows = len(asked)
    level_BJF = torch.full((rows, NANO.channels[0], NANO.frames), -2.0)
    for row, instrument in enumerate(asked.instrument_B.tolist()):
        level_BJF[row, 2 * instrument, : 2 + 3 * instrument] = 1
    nothing_BKF = torch.full((rows, NANO.bins, NANO.frames), -2.0)
    hertz_BN = HARMONICS.frequencies(440 * 2 ** ((asked.pitch_B - 69) / 12), torch.zeros(rows))
    return HARMONICS(hertz_BN, level_BJF, torch.zeros(rows, NANO.frames), nothing_BKF, nothing_BKF)


def _heard(spectra_B2KF: Tensor, asked: Condition) -> tuple[Tensor, Tensor]:
    """The loudest of the first harmonics, and for how many frames it is nearly as loud as it gets."""
    level_BJF = HARMONICS.read(spectra_B2KF[:, 0], 440 * 2 ** ((asked.pitch_B - 69) / 12))[:, :6]
    loudest_B = level_BJF.mean(dim=2).argmax(dim=1)
    own_BF = level_BJF[torch.arange(len(asked)), loudest_B]
    return loudest_B, (own_BF > own_BF.amax(dim=1, keepdim=True) - 0.5).sum(dim=1)


def _learn(steps: int) -> Tensor:
    """What is generated after so many steps with the critic alone."""
    generator, critic = networks()
    optimizers = [torch.optim.Adam(net.parameters(), lr=LR, betas=(0.5, 0.99)) for net in (generator, critic)]
    asked = condition(15)
    for step in range(steps):
        random = random_of(step)
        made_B2KF = fakes(generator, asked, random=random)
        loss, _ = critic_loss(critic, _bells(asked), made_B2KF, asked, random=random)
        optimizers[1].zero_grad()
        loss.div(15).backward()
        optimizers[1].step()
        loss, _ = generator_loss(critic, fakes(generator, asked, random=random), asked)
        optimizers[0].zero_grad()
        loss.div(15).backward()
        optimizers[0].step()
    with torch.no_grad():
        return fakes(generator, asked, random=random_of(10_000))


def test_the_critic_alone_teaches_what_an_instrument_sounds_like() -> None:
    asked = condition(15)
    real_B2KF = _bells(asked)
    expected_B, frames_B = _heard(real_B2KF, asked)
    assert expected_B.tolist() == (2 * asked.instrument_B).tolist()
    before_B2KF, made_B2KF = _learn(0), _learn(100)
    made_B, lasts_B = _heard(made_B2KF, asked)
    assert (made_B == expected_B).float().mean() > 0.9
    assert float((lasts_B - frames_B).float().abs().mean()) < 1.5
    assert float((made_B2KF - real_B2KF)[:, 0].abs().mean()) < 0.5 * float((before_B2KF - real_B2KF)[:, 0].abs().mean())


def test_notes_are_in_tune_before_anything_is_learnt() -> None:
    scale = SpectrumScale(sample_rate_hz=16_000, n_fft=2048, bins=96, frames=16)
    torch.manual_seed(2)
    generator = Generator(
        replace(NANO, **scale.to_dict(), lowest_pitch=43, highest_pitch=84, latent=8, width=32)  # type: ignore[arg-type]
    )
    asked = Condition(torch.tensor([43, 55, 60, 66, 71, 84]), torch.tensor([0, 1, 2, 0, 1, 2]))
    with torch.no_grad():
        made_B2KF = fakes(generator, asked, random=random_of(0)).numpy()
    sound_BS = to_sound(made_B2KF, scale=scale, length_s=0.5)
    cents_B = timbre.pitch_errors_cents(sound_BS, pitch_B=asked.pitch_B.numpy(), sample_rate_hz=16_000)
    assert np.abs(cents_B).max() < timbre.IN_TUNE_CENTS


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="8 frames cannot be halved 4 times"):
        replace(NANO, halvings=4)
    with pytest.raises(ValueError, match="pitches 70 to 64 are not within 0 to 127"):
        replace(NANO, lowest_pitch=70)
