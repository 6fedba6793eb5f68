"""A generator of pictures of notes, and the critic that teaches it.

Both read a picture as a sequence of frames whose channels are its frequencies: harmonics lie far apart in frequency and
begin together, so all of a frame is seen at once, and what is shared from one place to the next is time. Blocks are
residual, halve or double the number of frames, and are normalised by each place's own channels, never over the rows of
a batch: a row's result does not depend on its neighbours. The generator's blocks are steered by the note that is
asked for (E. Perez et al. 2018, "FiLM", arXiv 1709.07871); the critic tells pitch and instrument besides its score
(A. Odena et al. 2017, AC-GAN, 1610.09585), as GANSynth's does (J. Engel et al. 2019, 1902.08710).

Legend: B rows, Z latent numbers, W width, K bins, F frames, P pitches, I instruments.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.family import Footprint

CHANNELS = 2
"""Level and frequency."""


@dataclass(frozen=True)
class TimbreConfiguration:
    """Size of a generator and its critic.

    Args:
        sample_rate_hz, n_fft, range_db: what the pictures were made with
            (:class:`tutti.features.spectra.SpectrumScale`); the networks need it not, who listens to them does.
        bins, frames: K and F of the pictures; F is a multiple of 2 ** halvings.
        lowest_pitch, highest_pitch: MIDI pitches that can be asked for.
        instruments: I, kinds of notes that can be asked for; 1 where nothing tells them apart.
        latent: Z.
        width: W, channels of the generator.
        critic_width: the same of the critic.
        halvings: how often the critic halves the number of frames.
        likeness: weight, in the generator's loss, of how far a note lies from a real one of its pitch and instrument; 0
            leaves all to the critic.
    """

    sample_rate_hz: int
    n_fft: int
    range_db: float
    bins: int
    frames: int
    lowest_pitch: int
    highest_pitch: int
    instruments: int
    latent: int
    width: int
    critic_width: int
    halvings: int
    likeness: float

    def __post_init__(self) -> None:
        if self.frames % 2**self.halvings:
            raise ValueError(f"{self.frames} frames cannot be halved {self.halvings} times")
        if not 0 <= self.lowest_pitch <= self.highest_pitch <= 127:
            raise ValueError(f"pitches {self.lowest_pitch} to {self.highest_pitch} are not within 0 to 127")
        if min(self.bins, self.frames, self.instruments, self.latent, self.width, self.critic_width) < 1:
            raise ValueError("every size is at least 1")
        if min(self.halvings, self.likeness) < 0:
            raise ValueError("halvings and likeness are not below 0")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def pitches(self) -> int:
        """P."""
        return self.highest_pitch - self.lowest_pitch + 1

    @property
    def fewest_frames(self) -> int:
        """Frames where both networks are at their shortest."""
        return self.frames >> self.halvings

    @property
    def generator_parameters(self) -> int:
        """Number of weights of the generator."""
        width = self.width
        asked = width * (self.pitches + self.instruments + self.latent + 1) + width * (3 * width + 1)
        start = self.fewest_frames * width * (width + 1)
        steering = 2 * width * (width + 1)
        picture = self._picture_numbers * (3 * width + 1)
        return asked + start + (self.halvings + 1) * (_block_parameters(width) + steering) + width + picture

    @property
    def critic_parameters(self) -> int:
        """Number of weights of the critic."""
        width = self.critic_width
        picture = width * (3 * self._picture_numbers + 1)
        summary = width * (self.fewest_frames * width + 1)
        told = (1 + self.pitches + self.instruments) * (width + 1)
        return picture + (self.halvings + 1) * _block_parameters(width) + width + summary + told

    @property
    def parameters(self) -> int:
        """Number of weights of both networks."""
        return self.generator_parameters + self.critic_parameters

    def training_flops_per_place(self, places: int) -> float:  # noqa: ARG002
        """Floating-point operations of one step of both networks for one note.

        The generator goes forward twice, for the critic's step and for its own, and back once. The critic goes forward
        and back over real and generated notes, over the places between them, where the way back is itself gone back
        (twice what a way back costs), and once more for the generator. A weight of a convolution counts once a frame
        of its block.
        """
        frames = sum(self.frames >> halving for halving in range(self.halvings + 1))
        generator, critic = (
            6 * width**2 * frames + 3 * width * self._picture_numbers * self.frames + self.fewest_frames * width**2
            for width in (self.width, self.critic_width)
        )
        return 2.0 * ((2 + 2) * generator + (3 + 3 + 7 + 2) * critic)

    @property
    def footprint(self) -> Footprint:
        """What it remembers for a note: the critic over a real note, a generated one, and one between them, whose slope
        is gone back through too."""
        blocks = self.halvings + 1
        frames = sum(self.frames >> halving for halving in range(blocks))
        places = self.critic_width * frames / blocks
        return Footprint(blocks, 2 * 6 * 5 * places, 5 * places, 0, 8 * self._picture_numbers * self.frames)

    @property
    def _picture_numbers(self) -> int:
        """Channels of the picture's frames."""
        return CHANNELS * self.bins


def _block_parameters(width: int) -> int:
    """Without steering."""
    return width + 2 * width * (3 * width + 1)


class Generator(nn.Module):
    """Noise, a pitch and an instrument to a picture of a note."""

    def __init__(self, configuration: TimbreConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.width
        self.pitch = nn.Embedding(configuration.pitches, width)
        self.instrument = nn.Embedding(configuration.instruments, width)
        self.latent = nn.Linear(configuration.latent, width)
        self.mapping = nn.Linear(3 * width, width)
        self.start = nn.Linear(width, width * configuration.fewest_frames)
        self.blocks = nn.ModuleList(
            _SteeredBlock(width, grows=block > 0) for block in range(configuration.halvings + 1)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.picture = nn.Conv1d(width, CHANNELS * configuration.bins, 3, padding=1)
        _initialise(self)

    def forward(self, latent_BZ: Tensor, pitch_B: Tensor, instrument_B: Tensor) -> Tensor:
        """``spectra_B2KF`` in -1 to 1.

        Args:
            latent_BZ: normal noise; its direction is what counts.
            pitch_B: MIDI pitches within the configuration's.
            instrument_B: 0 to I - 1.
        """
        configuration = self.configuration
        latent_BZ = functional.normalize(latent_BZ, dim=1) * configuration.latent**0.5
        asked = (
            self.latent(latent_BZ), self.pitch(pitch_B - configuration.lowest_pitch), self.instrument(instrument_B),
        )  # fmt: skip
        note_BW = functional.silu(self.mapping(torch.cat(asked, dim=1)))
        x_BWF = self.start(note_BW).view(len(note_BW), configuration.width, configuration.fewest_frames)
        for block in self.blocks:
            x_BWF = block(x_BWF, note_BW)
        x_BWF = functional.silu(_by_place(self.norm, x_BWF))
        out: Tensor = torch.tanh(self.picture(x_BWF))
        return out.view(len(out), CHANNELS, configuration.bins, configuration.frames)


class Critic(nn.Module):
    """A picture of a note to how real it looks, and the pitch and the instrument that it shows."""

    def __init__(self, configuration: TimbreConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.critic_width
        self.picture = nn.Conv1d(CHANNELS * configuration.bins, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, shrinks=block > 0) for block in range(configuration.halvings + 1))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.summary = nn.Linear(width * configuration.fewest_frames, width)
        self.score = nn.Linear(width, 1)
        self.pitch = nn.Linear(width, configuration.pitches)
        self.instrument = nn.Linear(width, configuration.instruments)
        _initialise(self)

    def forward(self, spectra_B2KF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of shape (B,), logits of the pitches (B, P) and of the instruments (B, I)."""
        x_BWF = self.picture(spectra_B2KF.flatten(1, 2))
        for block in self.blocks:
            x_BWF = block(x_BWF)
        x_BWF = _by_place(self.norm, x_BWF)
        seen_BW = functional.silu(self.summary(x_BWF.flatten(1)))
        return self.score(seen_BW)[:, 0], self.pitch(seen_BW), self.instrument(seen_BW)


class _Block(nn.Module):
    def __init__(self, width: int, *, shrinks: bool) -> None:
        super().__init__()
        self.shrinks = shrinks
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x_BWF: Tensor) -> Tensor:
        if self.shrinks:
            x_BWF = functional.avg_pool1d(x_BWF, 2)
        branch_BWF = functional.silu(self.first(_by_place(self.norm, x_BWF)))
        out_BWF: Tensor = x_BWF + self.second(branch_BWF)
        return out_BWF


class _SteeredBlock(nn.Module):
    def __init__(self, width: int, *, grows: bool) -> None:
        super().__init__()
        self.grows = grows
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.steering = nn.Linear(width, 2 * width)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x_BWF: Tensor, note_BW: Tensor) -> Tensor:
        if self.grows:
            x_BWF = x_BWF.repeat_interleave(2, dim=2)
        scale_BW1, shift_BW1 = self.steering(note_BW)[:, :, None].chunk(2, dim=1)
        branch_BWF = _by_place(self.norm, x_BWF) * (1 + scale_BW1) + shift_BW1
        branch_BWF = functional.silu(self.first(functional.silu(branch_BWF)))
        out_BWF: Tensor = x_BWF + self.second(branch_BWF)
        return out_BWF


def _by_place(norm: nn.Module, x_BWF: Tensor) -> Tensor:
    """Normalise the channels of each frame."""
    out: Tensor = norm(x_BWF.transpose(1, 2)).transpose(1, 2)
    return out


def _initialise(network: nn.Module) -> None:
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.dim() > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="linear" if "steering" in name else "relu")
