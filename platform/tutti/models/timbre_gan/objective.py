"""What generator and critic make small: Wasserstein distance, a gradient penalty, and the note that was asked for.

Sources: I. Gulrajani et al. 2017 (arXiv 1704.00028) for the penalty; T. Karras et al. 2018 (1710.10196) for the small
pull of the real scores to 0. The generator is also drawn towards a real note of the pitch and the instrument that it
was asked for (as P. Isola et al. 2017, 1611.07004, do it), which GANSynth's is not: minutes teach what days of a critic
alone would. The critic is told the key and has no classes to tell.

Every loss is a sum over its rows and no row knows another, so a batch may be cut anywhere. All randomness is drawn from
the generator of random numbers that is handed in, in the order of the rows.

Legend: B rows, Z latent numbers, K bins, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tutti.models.timbre_gan.network import Generator, TimbreConfiguration


@dataclass(frozen=True, slots=True)
class Condition:
    """The notes that are asked for.

    Args:
        pitch_B: MIDI pitches, int64.
        instrument_B: numbers of their instruments, int64.
    """

    pitch_B: Tensor
    instrument_B: Tensor

    def __len__(self) -> int:
        return len(self.pitch_B)


@dataclass(frozen=True, slots=True)
class Weights:
    """How much the parts of the losses count beside the critic's score.

    Args:
        penalty: of the critic's slope, away from 1.
        drift: of the square of the scores of real notes.
        likeness: of how far a generated note lies from a real one, see :func:`unlikeness`.
    """

    penalty: float = 10.0
    drift: float = 0.001
    likeness: float = 0.0


def latent_noise(rows: int, *, configuration: TimbreConfiguration, random: torch.Generator) -> Tensor:
    """Normal noise for so many notes, ``latent_BZ``; the same on every device."""
    return torch.randn(rows, configuration.latent, generator=random, device=random.device)


def fakes(generator: nn.Module, condition: Condition, *, random: torch.Generator) -> Tensor:
    """Pictures of the notes that are asked for, ``spectra_B2KF``, each of a timbre of its own."""
    noise_BZ = latent_noise(len(condition), configuration=_configuration(generator), random=random)
    out: Tensor = generator(noise_BZ.to(condition.pitch_B.device), condition.pitch_B, condition.instrument_B)
    return out


def critic_loss(
    critic: nn.Module,
    real_B2KF: Tensor,
    fake_B2KF: Tensor,
    condition: Condition,
    *,
    random: torch.Generator,
    weights: Weights = Weights(),
) -> tuple[Tensor, dict[str, Tensor]]:
    """The critic's loss and its parts by name, summed over the rows.

    Args:
        critic: gives scores.
        real_B2KF: real notes of ``condition``.
        fake_B2KF: generated ones; no gradient runs into them.
        random: where between a real and a generated note the slope is looked at.
    """
    fake_B2KF = fake_B2KF.detach()
    asked = (condition.pitch_B, condition.instrument_B)
    real_scores_B, fake_scores_B = critic(real_B2KF, *asked), critic(fake_B2KF, *asked)
    slope = slopes(critic, real_B2KF, fake_B2KF, condition, random=random)
    parts = {
        "distance": (real_scores_B - fake_scores_B).float().sum(),
        "penalty": torch.square(slope - 1).sum(),
    }
    drift = torch.square(real_scores_B.float()).sum()
    return weights.penalty * parts["penalty"] - parts["distance"] + weights.drift * drift, parts


def generator_loss(
    critic: nn.Module,
    fake_B2KF: Tensor,
    condition: Condition,
    *,
    weights: Weights = Weights(),
    real_B2KF: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The generator's loss and its parts by name, summed over the rows.

    Args:
        critic: gives scores.
        fake_B2KF: generated notes of ``condition``.
        real_B2KF: real ones, to be drawn towards; None where they have no weight.
    """
    loss = -critic(fake_B2KF, condition.pitch_B, condition.instrument_B).float().sum()
    if real_B2KF is None:
        return loss, {}
    apart = unlikeness(fake_B2KF, real_B2KF).sum()
    return loss + weights.likeness * apart, {"unlikeness": apart}


def unlikeness(fake_B2KF: Tensor, real_B2KF: Tensor) -> Tensor:
    """How far each note lies from another: mean absolute difference of the levels, and of the frequencies that sound.

    A frequency counts by the level of its bin in the real note, 0 at silence to 1 at the loudest: in silence it says
    nothing. Shape (B,).
    """
    apart_B2KF = (fake_B2KF.float() - real_B2KF.float()).abs()
    heard_BKF = (real_B2KF[:, 0].float() + 1) / 2
    frequency_B = (apart_B2KF[:, 1] * heard_BKF).sum(dim=(1, 2)) / heard_BKF.sum(dim=(1, 2)).clamp_min(1.0)
    return apart_B2KF[:, 0].mean(dim=(1, 2)) + frequency_B


def slopes(
    critic: nn.Module, real_B2KF: Tensor, fake_B2KF: Tensor, condition: Condition, *, random: torch.Generator
) -> Tensor:
    """How steeply the score rises at a drawn place between each real note and a generated one; shape (B,)."""
    share_B = torch.rand(len(real_B2KF), generator=random, device=random.device).to(real_B2KF)
    between_B2KF = torch.lerp(real_B2KF, fake_B2KF.to(real_B2KF), share_B[:, None, None, None]).requires_grad_()
    scores_B = critic(between_B2KF, condition.pitch_B, condition.instrument_B)
    (rise_B2KF,) = torch.autograd.grad(scores_B.sum(), between_B2KF, create_graph=True)
    steep_B: Tensor = rise_B2KF.float().flatten(1).norm(dim=1)
    return steep_B


def _configuration(network: nn.Module) -> TimbreConfiguration:
    """Of a generator, whatever engine it is wrapped in."""
    network = getattr(network, "module", network)
    assert isinstance(network, Generator)
    return network.configuration


@dataclass(frozen=True, slots=True)
class TimbreLearning:
    """The same for examples by the names of their columns: ``spectra``, ``pitch``, ``instrument``.

    Args:
        critic_steps: steps of the critic for each one of the generator.
        betas: Adam's, of both networks.
        weights: of the parts of the losses.
    """

    critic_steps: int = 1
    betas: tuple[float, float] = (0.5, 0.99)
    weights: Weights = field(default_factory=Weights)

    @classmethod
    def of(cls, configuration: TimbreConfiguration) -> TimbreLearning:
        """As a configuration weighs its parts."""
        return cls(weights=Weights(likeness=configuration.likeness))

    def fakes(self, generator: nn.Module, examples: Mapping[str, Tensor], *, seed: int) -> Tensor:
        """As many as there are examples, of their pitches and instruments."""
        return fakes(generator, _condition(examples), random=_random(seed))

    def critic_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor, *, seed: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the critic makes small, and figures by name; all summed over the rows."""
        real_B2KF = examples["spectra"].to(fakes.dtype)
        return critic_loss(critic, real_B2KF, fakes, _condition(examples), random=_random(seed), weights=self.weights)

    def generator_loss(
        self, critic: nn.Module, examples: Mapping[str, Tensor], fakes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generator makes small, and figures by name; all summed over the rows."""
        real_B2KF = examples["spectra"].to(fakes.dtype) if self.weights.likeness else None
        return generator_loss(critic, fakes, _condition(examples), weights=self.weights, real_B2KF=real_B2KF)


def _condition(examples: Mapping[str, Tensor]) -> Condition:
    return Condition(examples["pitch"].long(), examples["instrument"].long())


def _random(seed: int) -> torch.Generator:
    """On the processor, so that a device changes nothing."""
    return torch.Generator().manual_seed(seed)
