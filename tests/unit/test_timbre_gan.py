from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

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
from tutti.models.timbre_gan.objective import slopes

NANO = TimbreConfiguration(
    sample_rate_hz=8_000,
    n_fft=256,
    range_db=80.0,
    bins=12,
    frames=8,
    lowest_pitch=40,
    highest_pitch=44,
    instruments=3,
    latent=6,
    width=24,
    critic_width=24,
    halvings=2,
    likeness=0.0,
)
LR = 5e-3
NO_CLASSES = Weights(pitch=0, instrument=0)


def random_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def networks() -> tuple[Generator, Critic]:
    torch.manual_seed(1)
    return Generator(NANO), Critic(NANO)


def condition(rows: int) -> Condition:
    return Condition(40 + torch.arange(rows) % NANO.pitches, torch.arange(rows) % NANO.instruments)


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
    scores_B, pitch_BP, instrument_BI = critic(made_B2KF)
    assert (scores_B.shape, pitch_BP.shape, instrument_BI.shape) == ((5,), (5, 5), (5, 3))
    (scores_B.sum() + pitch_BP.square().sum() + instrument_BI.square().sum()).backward()
    for network in (generator, critic):
        unmoved = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not unmoved


def test_pitch_instrument_and_noise_each_change_the_picture() -> None:
    generator, _ = networks()
    noise = torch.randn(1, NANO.latent, generator=random_of(5))
    pitch, instrument = torch.tensor([41]), torch.tensor([1])
    first = generator(noise, pitch, instrument)
    for other in (
        generator(-noise, pitch, instrument),
        generator(noise, pitch + 1, instrument),
        generator(noise, pitch, instrument + 1),
    ):
        assert float((first - other).detach().abs().max()) > 1e-3
    assert torch.allclose(first, generator(3 * noise, pitch, instrument), atol=1e-6), "its direction is what counts"


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
    for together, single in zip(
        critic(alone), zip(*[critic(alone[row : row + 1]) for row in range(6)], strict=True), strict=True
    ):
        assert torch.allclose(together, torch.cat(single), atol=1e-4)


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
        assert set(parts) == {"distance", "penalty", "critic_pitch", "critic_instrument"}
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

    def forward(self, spectra_B2KF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = len(spectra_B2KF)
        return self.factor * spectra_B2KF.flatten(1).sum(dim=1), torch.zeros(rows, 5), torch.zeros(rows, 3)


def test_the_slope_is_that_of_the_score() -> None:
    numbers = 2 * NANO.bins * NANO.frames
    critic = Slanted(0.5)
    slope_B = slopes(critic, real(3), -real(3), random=random_of(0))
    assert torch.allclose(slope_B, torch.full((3,), 0.5 * numbers**0.5))
    # The penalty's own gradient goes through the slope: d/df (f sqrt(n) - 1)² = 2 (f sqrt(n) - 1) sqrt(n).
    (rise,) = torch.autograd.grad(torch.square(slope_B - 1).sum(), critic.factor)
    assert float(rise) == pytest.approx(3 * 2 * (0.5 * numbers**0.5 - 1) * numbers**0.5, rel=1e-4)


def test_losses_are_wassersteins_and_cross_entropys() -> None:
    generator, critic = networks()
    asked, real_B2KF = condition(4), real(4)
    fake_B2KF = fakes(generator, asked, random=random_of(0))
    scores_B, pitch_BP, instrument_BI = critic(fake_B2KF)
    told = torch.log_softmax(pitch_BP, dim=1)[torch.arange(4), asked.pitch_B - 40].sum()
    named = torch.log_softmax(instrument_BI, dim=1)[torch.arange(4), asked.instrument_B].sum()
    loss, _ = generator_loss(critic, fake_B2KF, asked, weights=Weights(pitch=2, instrument=3))
    assert torch.allclose(loss, -scores_B.sum() - 2 * told - 3 * named)
    weights = replace(NO_CLASSES, penalty=0, drift=0)
    loss, parts = critic_loss(critic, real_B2KF, fake_B2KF, asked, random=random_of(1), weights=weights)
    assert torch.allclose(loss, scores_B.sum() - critic(real_B2KF)[0].sum())
    assert torch.allclose(parts["distance"], -loss)


def test_the_critic_does_not_move_the_generator() -> None:
    generator, critic = networks()
    made_B2KF = fakes(generator, condition(2), random=random_of(0))
    loss, _ = critic_loss(critic, real(2), made_B2KF, condition(2), random=random_of(1))
    loss.backward()
    assert all(weight.grad is None for weight in generator.parameters())
    assert all(weight.grad is not None for weight in critic.parameters())


def _stripe(asked: Condition) -> Tensor:
    """A picture that a pitch and an instrument decide: a loud bin, for as long as the instrument says."""
    rows = len(asked.pitch_B)
    spectra = torch.full((rows, 2, NANO.bins, NANO.frames), -1.0)
    spectra[:, 1] = 0
    for row, (pitch, instrument) in enumerate(zip(asked.pitch_B.tolist(), asked.instrument_B.tolist(), strict=True)):
        spectra[row, 0, 2 * (pitch - 40) + 1, : 2 + 3 * instrument] = 1
    return spectra


def _learn(steps: int, *, draw: Callable[[Condition], Tensor]) -> Tensor:
    """Loudest bin of what is generated for each pitch, after so many steps."""
    generator, critic = networks()
    optimizers = [torch.optim.Adam(net.parameters(), lr=LR, betas=(0.0, 0.99)) for net in (generator, critic)]
    asked = condition(15)
    for step in range(steps):
        random = random_of(step)
        made_B2KF = fakes(generator, asked, random=random)
        loss, _ = critic_loss(critic, draw(asked), made_B2KF, asked, random=random)
        optimizers[1].zero_grad()
        loss.div(15).backward()
        optimizers[1].step()
        loss, _ = generator_loss(critic, fakes(generator, asked, random=random), asked)
        optimizers[0].zero_grad()
        loss.div(15).backward()
        optimizers[0].step()
    with torch.no_grad():
        return fakes(generator, asked, random=random_of(10_000))


def test_what_is_learnt_is_the_pitch_and_the_instrument_that_are_asked_for() -> None:
    made_B2KF, expected_B2KF = _learn(200, draw=_stripe), _stripe(condition(15))
    bins_B = made_B2KF[:, 0].mean(dim=2).argmax(dim=1)
    assert (bins_B == expected_B2KF[:, 0].mean(dim=2).argmax(dim=1)).float().mean() > 0.95
    assert float((made_B2KF - expected_B2KF)[:, 0].abs().mean()) < 0.25
    before_B2KF = _learn(0, draw=_stripe)
    assert float((before_B2KF - expected_B2KF)[:, 0].abs().mean()) > 0.6


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="8 frames cannot be halved 4 times"):
        replace(NANO, halvings=4)
    with pytest.raises(ValueError, match="pitches 50 to 44 are not within 0 to 127"):
        replace(NANO, lowest_pitch=50)
