"""A generator of pictures of notes, and the critic that teaches it.

Both read a picture as a sequence of frames whose channels are its frequencies: harmonics lie far apart in frequency and
begin together, so all of a frame is seen at once, and what is shared from one place to the next is time. Blocks are
residual, halve or double the number of frames, and are normalised by each place's own channels, never over the rows of
a batch: a row's result does not depend on its neighbours. The generator's blocks are steered by the note that is
asked for (E. Perez et al. 2018, "FiLM", arXiv 1709.07871).

Both are given the harmonics of the pitch (:mod:`tutti.models.timbre_gan.harmonics`), where GANSynth (J. Engel et al.
2019, 1902.08710) gives a number of its pitch. The generator says how loud each harmonic is and what else sounds, and
its last layer draws that: a note is in tune before anything is learnt. The critic reads the levels along the harmonics
beside the picture, so what it knows of one pitch holds for the next, and is told the key by projection (T. Miyato and
M. Koyama 2018, 1802.05637).

Legend: B rows, Z latent numbers, W width, J places of harmonics, K bins, F frames, I instruments.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.family import Footprint
from tutti.models.timbre_gan.harmonics import Harmonics, harmonic_count, spread

CHANNELS = 2
"""Level and frequency."""
KNOT = 2
"""Semitones from one pitch of which an instrument has something of its own to the next."""
LOUDEST = 2.0
"""Level of a harmonic that cannot be passed, above the loudest bin at 1."""
MOST_DETUNED, MOST_BENT = 0.6, 0.03
"""How far a note may lie from its pitch, semitones; and swing from there at a time, as a share of its frequency."""
STRETCH = 1e-3
"""Unit of a string's stiffness; a piano's are 1e-4 to 1e-3."""
A4_HZ, A4_PITCH = 440.0, 69

_SHARE_AT_FIRST = 0.08
_UNSTRETCHED, _LEVEL_AT_FIRST, _FADE_AT_FIRST, _NOISE_AT_FIRST = 4.0, 1.5, 0.22, 3.0


@dataclass(frozen=True)
class TimbreConfiguration:
    """Size of a generator and its critic.

    Args:
        sample_rate_hz, n_fft, range_db: what the pictures are made with
            (:class:`tutti.features.spectra.SpectrumScale`), and harmonics drawn by.
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
        asked = (
            width * (self._keys + self.instruments + self.latent + 1) + width * (3 * width + 1) + width * (width + 1)
        )
        start = self.fewest_frames * width * (width + 1)
        steering = 2 * width * (width + 1)
        said = sum(self.channels) * (3 * width + 1) + 2 * (width + 1)
        return asked + start + (self.halvings + 1) * (_block_parameters(width) + steering) + width + said

    @property
    def critic_parameters(self) -> int:
        """Number of weights of the critic."""
        width = self.critic_width
        picture = width * (3 * self._seen_numbers + 1)
        summary = width * (self.fewest_frames * width + 1)
        score = (width + 1) + self._keys * width
        return picture + (self.halvings + 1) * _block_parameters(width) + width + summary + score

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
            6 * width**2 * frames + 3 * width * numbers * self.frames + self.fewest_frames * width**2
            for width, numbers in ((self.width, sum(self.channels)), (self.critic_width, self._seen_numbers))
        )
        read = harmonic_count(self.lowest_hz, sample_rate_hz=self.sample_rate_hz) * self.bins * self.frames
        return 2.0 * ((2 + 2) * (generator + 2 * read) + (3 + 3 + 7 + 2) * (critic + read))

    @property
    def footprint(self) -> Footprint:
        """What it remembers for a note: the critic over a real note, a generated one, and one between them, whose slope
        is gone back through too; and what each bin shows of each harmonic."""
        blocks = self.halvings + 1
        frames = sum(self.frames >> halving for halving in range(blocks))
        places = self.critic_width * frames / blocks
        shown = 9 * self.bins * harmonic_count(self.lowest_hz, sample_rate_hz=self.sample_rate_hz)
        return Footprint(blocks, 2 * 6 * 5 * places, 5 * places, 0, 8 * CHANNELS * self.bins * self.frames + shown)

    @property
    def channels(self) -> list[int]:
        """Numbers that the generator says of each frame: levels of harmonics, bend, level and place of all else."""
        return [self._places, 1, self.bins, self.bins]

    @property
    def knots(self) -> int:
        """Pitches of which each instrument has something of its own."""
        return (self.pitches - 1) // KNOT + 2

    @property
    def lowest_hz(self) -> float:
        """Of the lowest note."""
        return A4_HZ * 2 ** ((self.lowest_pitch - A4_PITCH) / 12)

    def harmonics(self) -> Harmonics:
        """What draws its notes and reads them."""
        scale = {name: getattr(self, name) for name in ("sample_rate_hz", "n_fft", "bins", "frames", "range_db")}
        return Harmonics(**scale, lowest_hz=self.lowest_hz)

    @property
    def _places(self) -> int:
        return len(spread(harmonic_count(self.lowest_hz, sample_rate_hz=self.sample_rate_hz)))

    @property
    def _keys(self) -> int:
        return self.instruments * self.knots

    @property
    def _seen_numbers(self) -> int:
        """Channels of the frames that the critic sees."""
        return CHANNELS * self.bins + self._places


def _block_parameters(width: int) -> int:
    """Without steering."""
    return width + 2 * width * (3 * width + 1)


class Generator(nn.Module):
    """Noise, a pitch and an instrument to a picture of a note."""

    def __init__(self, configuration: TimbreConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.width
        self.key = _Keys(configuration, width)
        self.instrument = nn.Embedding(configuration.instruments, width)
        self.latent = nn.Linear(configuration.latent, width)
        self.mapping = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.start = nn.Linear(width, width * configuration.fewest_frames)
        self.blocks = nn.ModuleList(
            _SteeredBlock(width, grows=block > 0) for block in range(configuration.halvings + 1)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.tuning = nn.Linear(width, 2)
        self.said = nn.Conv1d(width, sum(configuration.channels), 3, padding=1)
        self.harmonics = configuration.harmonics()
        _initialise(self)
        self._begin_quietly()

    def forward(self, latent_BZ: Tensor, pitch_B: Tensor, instrument_B: Tensor) -> Tensor:
        """``spectra_B2KF`` in -1 to 1.

        Args:
            latent_BZ: normal noise; its direction is what counts.
            pitch_B: MIDI pitches within the configuration's.
            instrument_B: 0 to I - 1.
        """
        configuration = self.configuration
        latent_BZ = functional.normalize(latent_BZ, dim=1) * configuration.latent**0.5
        asked = (self.latent(latent_BZ), self.key(pitch_B, instrument_B), self.instrument(instrument_B))
        note_BW = self.mapping(torch.cat(asked, dim=1))
        x_BWF = self.start(note_BW).view(len(note_BW), configuration.width, configuration.fewest_frames)
        for block in self.blocks:
            x_BWF = block(x_BWF, note_BW)
        said = self.said(functional.silu(_by_place(self.norm, x_BWF))).float()
        level_BJF, bend_B1F, noise_BKF, place_BKF = torch.split(said, configuration.channels, dim=1)
        detuned_B, stretch_B = self.tuning(note_BW).float().unbind(1)
        hertz_BN = self.harmonics.frequencies(
            _hertz(pitch_B + MOST_DETUNED * torch.tanh(detuned_B)),
            STRETCH * functional.softplus(stretch_B - _UNSTRETCHED),
        )
        spectra_B2KF: Tensor = self.harmonics(
            hertz_BN,
            LOUDEST - functional.softplus(level_BJF),
            MOST_BENT * torch.tanh(bend_B1F[:, 0]),
            LOUDEST - functional.softplus(noise_BKF),
            torch.tanh(place_BKF),
        )
        return spectra_B2KF

    @torch.no_grad()
    def _begin_quietly(self) -> None:
        """Harmonics that fall by 9 dB an octave, little noise, and the pitch as it was asked for."""
        self.tuning.weight.mul_(_SHARE_AT_FIRST)
        self.latent.weight.mul_(_SHARE_AT_FIRST)
        self.said.weight.mul_(2 * _SHARE_AT_FIRST)
        bias = self.said.bias
        assert bias is not None
        levels_J, _, noise_K, _ = torch.split(bias, self.configuration.channels)
        levels_J.copy_(_LEVEL_AT_FIRST + _FADE_AT_FIRST * torch.arange(1, len(levels_J) + 1).log2())
        noise_K.fill_(_NOISE_AT_FIRST)


class Critic(nn.Module):
    """A picture of a note and the key that was asked for to how real it looks."""

    def __init__(self, configuration: TimbreConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width = configuration.critic_width
        seen = CHANNELS * configuration.bins + configuration.channels[0]
        self.picture = nn.Conv1d(seen, width, 3, padding=1)
        self.blocks = nn.ModuleList(_Block(width, shrinks=block > 0) for block in range(configuration.halvings + 1))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.summary = nn.Linear(width * configuration.fewest_frames, width)
        self.score = nn.Linear(width, 1)
        self.key = _Keys(configuration, width)
        self.harmonics = configuration.harmonics()
        _initialise(self)

    def forward(self, spectra_B2KF: Tensor, pitch_B: Tensor, instrument_B: Tensor) -> Tensor:
        """Scores of shape (B,).

        Args:
            spectra_B2KF: pictures.
            pitch_B, instrument_B: what they should show.
        """
        read_BJF = self.harmonics.read(spectra_B2KF[:, 0], _hertz(pitch_B))
        x_BWF = self.picture(torch.cat((spectra_B2KF.flatten(1, 2), read_BJF.to(spectra_B2KF)), dim=1))
        for block in self.blocks:
            x_BWF = block(x_BWF)
        x_BWF = _by_place(self.norm, x_BWF)
        seen_BW = functional.silu(self.summary(x_BWF.flatten(1)))
        fits_B = (seen_BW * self.key(pitch_B, instrument_B)).sum(dim=1) / seen_BW.shape[1] ** 0.5
        scores_B: Tensor = self.score(seen_BW)[:, 0] + fits_B
        return scores_B


class _Keys(nn.Module):
    """What an instrument has of its own at a pitch: learnt for every :data:`KNOT` semitones, mixtures between them.

    So a key that was never heard is what lies between its neighbours.
    """

    def __init__(self, configuration: TimbreConfiguration, width: int) -> None:
        super().__init__()
        self.lowest_pitch, self.knots = configuration.lowest_pitch, configuration.knots
        self.table = nn.Embedding(configuration.instruments * configuration.knots, width)

    def forward(self, pitch_B: Tensor, instrument_B: Tensor) -> Tensor:
        at_B = (pitch_B - self.lowest_pitch) / KNOT
        below_B = at_B.floor().long()
        first_B = instrument_B * self.knots + below_B
        low_BW, high_BW = self.table(first_B), self.table(first_B + 1)
        return torch.lerp(low_BW, high_BW, (at_B - below_B).to(low_BW)[:, None])


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


def _hertz(pitch_B: Tensor) -> Tensor:
    return A4_HZ * torch.exp2((pitch_B - A4_PITCH) / 12)


def _initialise(network: nn.Module) -> None:
    embeddings = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif weight.dim() > 1 and id(weight) not in embeddings:
            nn.init.kaiming_normal_(weight, nonlinearity="linear" if "steering" in name else "relu")
