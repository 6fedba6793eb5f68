"""A generator of four-bar phrases for several tracks, and the critic that teaches it.

After MuseGAN (H.-W. Dong et al. 2018, arXiv 1709.06298): noise for the phrase and for each bar, shared by all tracks
and of each track's own; time unfolds from bars to beats to steps in a branch that all tracks share, and each track
then goes on in a branch of its own, which ends in pitches. We differ in what is decided. There it is cell by cell
whether it sounds; here a track has a few **voices**, and each says of every step whether it **strikes**, and what: a
pitch or silence. Where it does not strike, it holds what it struck last, so that notes are whole. Which pitch is the
sum of three opinions: the harmony of the beat, by pitch classes, which comes to all tracks but the drums from the
branch that they share; a bell around the height where the voice is; and what it likes besides.

Both are decided in training as they are in evaluation: a voice takes what it is surest of, with the gradient of the
share that was not taken (Y. Bengio et al. 2013, 1308.3432; the binary neurons of H.-W. Dong and Y.-H. Yang 2018,
1804.09399). So the critic has nothing but music to tell music by, and what a decision is worth is reckoned up to the
next strike. Voices that decided without holding, and without the bell, drifted into noise here; where the critic saw
how sure they are (as that of I. Gulrajani et al. 2017 sees letters, 1704.00028, section 5.4), it learnt to see
fractions first (platform/decisions/log.md).

The critic looks at a step's cells once, through one matrix, and judges three streams of what it sees: each track's
pitches, pitch classes (the same weights in every key), and motion: how many notes begin and sound, and how high. It is
told the classes by projection (T. Miyato and M. Koyama 2018, 1802.05637). Nothing is normalised over the rows of a
batch: a row's result does not depend on its neighbours.

Legend: R rolls, M marks (a cell sounds; a note begins in it), B bars, S steps of a bar, P pitches, K tracks; T steps of
a roll, V voices, G groups (all tracks, then each), N moments (the phrase, then each bar), Z noise, C kinds of classes,
W width, U a track's own width, X what a step is seen as.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.family import Footprint

BEATS, OCTAVE = 4, 12
"""Beats of a bar; semitones."""
_SILENT_AT_FIRST = 1.0
"""How much the logit of silence leads in all voices but a track's first, before anything is learnt."""
_PULSE_AT_FIRST = 1.5
"""How much the logit of striking leads where a beat begins, and lags elsewhere: no note is told from another before
there are notes."""
_LOWEST_AT_FIRST, _HIGHEST_AT_FIRST = 0.3, 0.6
"""Where the first and the last track are at first, as shares of all pitches: tracks are told from the bass upwards."""
_BELL_AT_FIRST = 4.0
"""Spread of the bell around a voice's height, semitones."""
_HEIGHT_UNIT = 12.0
"""Semitones by which what a layer says moves a height."""
_SHARPNESS = 4.0
"""Of logits: who is to be sure of one pitch among many needs large ones, in as many steps as all else is learnt in."""
_LOGITS_AT_FIRST = 0.25
"""Share of their usual spread."""
_SAID_BESIDES = 3
"""What a voice says of a step beside its pitches: silence, to strike, and how much higher it is than usual."""
_PLACES_AT_FIRST = 0.1
"""How far the places within a beat lie apart, so that a note lasts until another is asked for."""


@dataclass(frozen=True)
class RollConfiguration:
    """Size of a generator and its critic.

    Args:
        bars, steps, pitches, tracks: of a roll; steps of each bar, a multiple of :data:`BEATS`; pitches are whole
            octaves.
        drums: which track is one of hits that do not last.
        moods, tempos: classes of each kind, the one that says nothing included.
        latent: Z.
        width: W, channels of what all tracks share and of the critic.
        track_width: U.
        voices: V of each track.
        critic_steps: steps of the critic for each one of the generator.
    """

    bars: int
    steps: int
    pitches: int
    tracks: int
    drums: int
    moods: int
    tempos: int
    latent: int
    width: int
    track_width: int
    voices: int
    critic_steps: int

    def __post_init__(self) -> None:
        if self.steps % BEATS:
            raise ValueError(f"a bar of {self.steps} steps is no whole number of steps in each of {BEATS} beats")
        if self.pitches % OCTAVE:
            raise ValueError(f"{self.pitches} pitches are no whole octaves")
        if not 0 <= self.drums < self.tracks:
            raise ValueError(f"drums are track {self.drums} of {self.tracks}")
        if min(self.bars, self.latent, self.width, self.track_width, self.voices, self.critic_steps) < 1:
            raise ValueError("every size is at least 1")
        if self.width % 2:
            raise ValueError(f"a width of {self.width} has no half")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def roll_steps(self) -> int:
        """T."""
        return self.bars * self.steps

    @property
    def parameters(self) -> int:
        """Number of weights of both networks."""
        with torch.device("meta"):
            networks = (Generator(self), Critic(self))
        return sum(weight.numel() for network in networks for weight in network.parameters())

    def training_flops_per_place(self, places: int) -> float:  # noqa: ARG002
        """Floating-point operations of one step for one roll.

        The critic goes forward and back over real and generated rolls, and over the places between them, where the way
        back is itself gone back (twice what a way back costs), but for its look at the cells; the generator makes the
        rolls. Every few steps the generator makes some more and goes back, through the critic.
        """
        width, own, steps, beats = self.width, self.track_width, self.roll_steps, BEATS * self.bars
        heads = self.tracks * self.voices * own * (self.pitches + _SAID_BESIDES)
        own_flops = self.tracks * (6 * own**2 + own * width) + heads
        blocks = 6 * width**2 * (self.bars + beats + steps)
        generator = blocks + beats * (width**2 + OCTAVE * width + self.tracks * own) + steps * own_flops
        cells = steps * 2 * self.pitches * self.tracks
        look = cells * (self.tracks * own + OCTAVE * self.tracks + 4 * self.tracks)
        chroma = OCTAVE * _CHROMA_CHANNELS * (OCTAVE * (self.tracks + 1) + 3 * _CHROMA_CHANNELS + width // 2)
        streams = steps * (3 * self.tracks * own * width + width**2 + 10 * self.tracks * width + width**2 // 4)
        critic = streams + beats * (chroma + 8 * width**2) + self.bars * 5 * width**2
        makes, judges, looks = 1 + 3 / self.critic_steps, 3 + 3 + 7 + 3 / self.critic_steps, 4 + 2 / self.critic_steps
        return 2.0 * (makes * generator + judges * critic + looks * look)

    @property
    def footprint(self) -> Footprint:
        """What it remembers for a roll: the critic's streams over real and generated rolls and those between them."""
        roll = 2 * self.roll_steps * self.pitches * self.tracks
        voices = self.roll_steps * self.tracks * self.voices * self.pitches
        streams = self.roll_steps * (6 * self.tracks * self.track_width + 6 * self.width)
        chroma = BEATS * self.bars * OCTAVE * 4 * _CHROMA_CHANNELS
        return Footprint(3, 2 * streams + 2 * chroma, roll, 0, 8 * voices + 4 * roll)


class Generator(nn.Module):
    """Noise and classes to rolls."""

    def __init__(self, configuration: RollConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width, own, tracks = configuration.width, configuration.track_width, configuration.tracks
        self.mood = nn.Embedding(configuration.moods, width)
        self.tempo = nn.Embedding(configuration.tempos, width)
        self.asked = nn.Linear(2 * width + configuration.latent, width)
        self.bars = nn.Linear(2 * configuration.latent, width)
        per_beat = configuration.steps // BEATS
        self.place_of_bar = nn.Parameter(torch.randn(width, configuration.bars))
        self.beats = nn.Conv1d(width, width * BEATS, 1)
        self.place_of_step = nn.Parameter(_PLACES_AT_FIRST * torch.randn(width, per_beat))
        self.bar_block, self.beat_block, self.step_block = (_SteeredBlock(width) for _ in range(3))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.own = nn.Conv1d(tracks * 2 * configuration.latent, tracks * own * BEATS, 1, groups=tracks)
        self.parts = nn.Conv1d(width, tracks * own, 1)
        self.part_block = _Block(tracks * own, groups=tracks)
        self.part_norm = nn.RMSNorm(own, eps=1e-6)
        self.harmony = nn.Conv1d(width, OCTAVE, 1)
        self.voices = nn.Conv1d(
            tracks * own, tracks * configuration.voices * (configuration.pitches + _SAID_BESIDES), 1, groups=tracks
        )
        # In semitones over the unit above, so that they move as fast as other weights do.
        share_K1 = torch.linspace(_LOWEST_AT_FIRST, _HIGHEST_AT_FIRST, tracks)[:, None]
        self.height = nn.Parameter(configuration.pitches / _HEIGHT_UNIT * share_K1.repeat(1, configuration.voices))
        pulse_S = torch.full((per_beat,), -_PULSE_AT_FIRST)
        pulse_S[0] = _PULSE_AT_FIRST
        self.pulse = nn.Parameter(pulse_S.repeat(tracks, configuration.voices, 1) / _SHARPNESS)
        self.narrowness = nn.Parameter(torch.zeros(tracks, configuration.voices))
        _initialise(self)
        with torch.no_grad():
            bias = self.voices.bias
            assert bias is not None
            self.voices.weight.mul_(_LOGITS_AT_FIRST)
            self.harmony.weight.mul_(_LOGITS_AT_FIRST)
            bias_KVL = bias.view(tracks, configuration.voices, -1)
            bias_KVL[:, 1:, configuration.pitches] = _SILENT_AT_FIRST / _SHARPNESS

    def forward(self, latent_RGNZ: Tensor, classes_RC: Tensor) -> Tensor:
        """``roll_RMBSPK``: marks, 0 or 1; in training with a gradient.

        Args:
            latent_RGNZ: normal noise.
            classes_RC: mood and tempo class.
        """
        configuration = self.configuration
        of_TRKVL, strike_TRKV1 = self.logits(latent_RGNZ, classes_RC)
        is_drum_K = torch.arange(configuration.tracks, device=of_TRKVL.device) == configuration.drums
        strikes_TRKV1 = (strike_TRKV1 > 0).to(of_TRKVL)
        share_TRKVL, sure_TRKV1 = torch.softmax(of_TRKVL, dim=4), torch.sigmoid(strike_TRKV1)
        of_TRKVL = torch.zeros_like(of_TRKVL).scatter_(4, of_TRKVL.argmax(dim=4, keepdim=True), 1.0)
        if self.training:
            of_TRKVL = of_TRKVL + (share_TRKVL - share_TRKVL.detach())
            strikes_TRKV1 = strikes_TRKV1 + (sure_TRKV1 - sure_TRKV1.detach())
        # A hit does not last.
        strikes_TRKV1 = torch.where(is_drum_K[:, None, None], 1.0, strikes_TRKV1)
        sounds_TRKVP = held(of_TRKVL, strikes_TRKV1)[..., :-1]
        begins_TRKVP = strikes_TRKV1 * of_TRKVL[..., :-1]
        roll_MTRKP = torch.stack((_any(sounds_TRKVP), _any(begins_TRKVP)))
        sizes = (configuration.bars, configuration.steps, configuration.pitches, configuration.tracks)
        return roll_MTRKP.permute(2, 0, 1, 4, 3).reshape(len(latent_RGNZ), 2, *sizes)

    def logits(self, latent_RGNZ: Tensor, classes_RC: Tensor) -> tuple[Tensor, Tensor]:
        """Of each voice at each step: its pitches and silence, (T, R, K, V, P + 1); and to strike, (T, R, K, V, 1)."""
        configuration = self.configuration
        rows, per_beat = len(latent_RGNZ), configuration.steps // BEATS
        phrase_RGZ, bars_RGBZ = latent_RGNZ[:, :, 0], latent_RGNZ[:, :, 1:]
        told = (self.mood(classes_RC[:, 0]), self.tempo(classes_RC[:, 1]), phrase_RGZ[:, 0])
        asked_RW = functional.silu(self.asked(torch.cat(told, dim=1)))
        both_RGBZ = torch.cat((phrase_RGZ[:, :, None].expand_as(bars_RGBZ), bars_RGBZ), dim=3)
        x_RWT = self.bars(both_RGBZ[:, 0]).transpose(1, 2) + self.place_of_bar
        x_RWT = self.bar_block(x_RWT, asked_RW)
        x_RWT = self.beat_block(_unfolded(self.beats(x_RWT)), asked_RW)
        harmony_RPT = self.harmony(functional.silu(_by_place(self.norm, x_RWT))).repeat_interleave(per_beat, dim=2)
        x_RWT = x_RWT.repeat_interleave(per_beat, dim=2) + self.place_of_step.repeat(1, BEATS * configuration.bars)
        x_RWT = functional.silu(_by_place(self.norm, self.step_block(x_RWT, asked_RW)))
        own_RUT = _unfolded(self.own(both_RGBZ[:, 1:].permute(0, 1, 3, 2).reshape(rows, -1, configuration.bars)))
        x_RUT = self.parts(x_RWT) + own_RUT.repeat_interleave(per_beat, dim=2)
        x_RKUT = self.part_block(x_RUT).reshape(rows, configuration.tracks, -1, configuration.roll_steps)
        x_RUT = functional.silu(_by_place(self.part_norm, x_RKUT).flatten(1, 2))
        pitches, tracks = configuration.pitches, configuration.tracks
        said_RXT = self.voices(x_RUT).float()
        said_TRKVX = said_RXT.permute(2, 0, 1).reshape(-1, rows, tracks, configuration.voices, pitches + _SAID_BESIDES)
        of_TRKVL, strike_TRKV1, rise_TRKV1 = torch.split(said_TRKVX, [pitches + 1, 1, 1], dim=4)
        away_TRKVP = torch.arange(pitches, device=x_RUT.device) - _HEIGHT_UNIT * (self.height[..., None] + rise_TRKV1)
        bell_TRKVP = torch.square(away_TRKVP / _BELL_AT_FIRST * torch.exp(self.narrowness[..., None])) / 2
        shared_TRP = harmony_RPT.float().permute(2, 0, 1).repeat(1, 1, pitches // OCTAVE)
        is_drum_K = torch.arange(tracks, device=x_RUT.device) == configuration.drums
        shared_TRKVP = torch.where(is_drum_K[:, None, None], 0.0, shared_TRP[:, :, None, None])
        of_TRKVL = _SHARPNESS * of_TRKVL + functional.pad(_SHARPNESS * shared_TRKVP - bell_TRKVP, (0, 1))
        pulse_TKV = self.pulse.permute(2, 0, 1).repeat(len(of_TRKVL) // per_beat, 1, 1)
        return of_TRKVL, _SHARPNESS * (strike_TRKV1 + pulse_TKV[:, None, :, :, None])


_CHROMA_CHANNELS = 32


class Critic(nn.Module):
    """Rolls and classes to how real they look."""

    def __init__(self, configuration: RollConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width, own, tracks = configuration.width, configuration.track_width, configuration.tracks
        half, per_beat, channels = width // 2, configuration.steps // BEATS, _CHROMA_CHANNELS
        self.pitches = nn.Linear(2 * configuration.pitches * tracks, tracks * own)
        self.steps = nn.Conv1d(tracks * own, width, 3, padding=1)
        self.step_beats = nn.Conv1d(width, width, per_beat, stride=per_beat)
        # Each pitch class sees the others from where it is.
        self.chroma = nn.Conv2d(tracks + 1, channels, (1, OCTAVE))
        self.chroma_beats = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.chroma_summary = nn.Conv1d(channels * OCTAVE, half, 1)
        self.motion = nn.Conv1d(4 * tracks, half, 5, padding=2)
        self.motion_beats = nn.Conv1d(half, half, per_beat, stride=per_beat)
        self.beats = nn.Conv1d(2 * width, width, 1)
        self.beat_block = _Block(width, groups=1)
        self.bars = nn.Conv1d(width, width, BEATS, stride=BEATS)
        self.summary = nn.Linear(width * configuration.bars, width)
        self.score = nn.Linear(width, 1)
        self.mood = nn.Embedding(configuration.moods, width)
        self.tempo = nn.Embedding(configuration.tempos, width)
        self.sums: Tensor
        self.register_buffer("sums", _sums(configuration), persistent=False)
        _initialise(self)

    def forward(self, roll_RMBSPK: Tensor, classes_RC: Tensor) -> Tensor:
        """Scores of shape (R,), without a limit."""
        return self.scored(self.seen(roll_RMBSPK), classes_RC)

    @property
    def look(self) -> Tensor:
        """What a step's cells are multiplied by, first of all and all at once; (X, M * P * K)."""
        return torch.cat((self.pitches.weight, self.sums.to(self.pitches.weight)))

    def seen(self, roll_RMBSPK: Tensor) -> Tensor:
        """Each step through :attr:`look`; ``seen_RTX``."""
        return functional.linear(roll_RMBSPK.flatten(2, 3).transpose(1, 2).flatten(2), self.look)

    def scored(self, seen_RTX: Tensor, classes_RC: Tensor) -> Tensor:
        """Scores of what was seen; shape (R,)."""
        configuration = self.configuration
        sizes = [self.pitches.out_features, OCTAVE * configuration.tracks, 4 * configuration.tracks]
        seen_RTU, chroma_RTX, motion_RTX = torch.split(seen_RTX, sizes, dim=2)
        streams = (
            self._tracks(seen_RTU + self.pitches.bias),
            self._chroma(chroma_RTX),
            self._motion(motion_RTX),
        )
        x_RWT = self.beat_block(self.beats(torch.cat(streams, dim=1)))
        x_RWB = functional.silu(self.bars(functional.silu(x_RWT)))
        seen_RW = functional.silu(self.summary(x_RWB.flatten(1)))
        told_RW = self.mood(classes_RC[:, 0]) + self.tempo(classes_RC[:, 1])
        scores_R: Tensor = self.score(seen_RW)[:, 0] + (told_RW * seen_RW).sum(1)
        return scores_R

    def _tracks(self, seen_RTU: Tensor) -> Tensor:
        """What each track plays, and how the tracks move together; (R, W, beats)."""
        x_RUT = functional.silu(seen_RTU).transpose(1, 2)
        return functional.silu(self.step_beats(functional.silu(self.steps(x_RUT))))

    def _chroma(self, chroma_RTX: Tensor) -> Tensor:
        """Harmony: pitch classes of each track and of all, beat by beat; (R, W / 2, beats)."""
        configuration = self.configuration
        per_beat = configuration.steps // BEATS
        by_step = chroma_RTX.reshape(len(chroma_RTX), -1, per_beat, OCTAVE, configuration.tracks)
        chroma_RTPK = by_step.mean(2)
        chroma_RKTP = torch.cat((chroma_RTPK, chroma_RTPK.sum(3, keepdim=True)), dim=3).permute(0, 3, 1, 2)
        around = torch.cat((chroma_RKTP, chroma_RKTP[..., : OCTAVE - 1]), dim=3)
        x = functional.silu(self.chroma_beats(functional.silu(self.chroma(around))))
        return functional.silu(self.chroma_summary(x.transpose(2, 3).flatten(1, 2)))

    def _motion(self, motion_RTX: Tensor) -> Tensor:
        """How many notes begin and sound in each track, and how high; (R, W / 2, beats)."""
        return functional.silu(self.motion_beats(functional.silu(self.motion(motion_RTX.transpose(1, 2)))))


def _sums(configuration: RollConfiguration) -> Tensor:
    """What adds up the cells of a step: to each track's pitch classes, to what sounds and begins, and to its height."""
    pitches, tracks = configuration.pitches, configuration.tracks
    track_KK = torch.eye(tracks)
    class_CP = torch.eye(OCTAVE).repeat(1, pitches // OCTAVE)
    mark_MM = torch.eye(2)
    height_P = (torch.arange(pitches) - (pitches - 1) / 2) / OCTAVE
    amount_AP = torch.stack((torch.ones(pitches), height_P))
    chroma = torch.einsum("m,cp,kj->ckmpj", mark_MM[0], class_CP, track_KK)
    motion = torch.einsum("nm,ap,kj->ankmpj", mark_MM, amount_AP, track_KK)
    return torch.cat((chroma.flatten(0, 1), motion.flatten(0, 2))).flatten(1)


def held(of_TRKVL: Tensor, strikes_TRKV1: Tensor) -> Tensor:
    """What sounds where voices hold what they struck last, (T, R, K, V, L); the first step is struck in any case.

    Args:
        of_TRKVL: what they would strike.
        strikes_TRKV1: whether they do, 0 or 1.
    """
    sounding = [of_TRKVL[0]]
    for of_RKVL, strikes_RKV1 in zip(of_TRKVL[1:], strikes_TRKV1[1:], strict=True):
        sounding.append(torch.lerp(sounding[-1], of_RKVL, strikes_RKV1))
    return torch.stack(sounding)


def _any(marks_TRKVP: Tensor) -> Tensor:
    """1 where one of the voices is 1."""
    if marks_TRKVP.shape[3] == 1:
        return marks_TRKVP[:, :, :, 0]
    none, *others = (1 - marks_TRKVP).unbind(3)
    for other in others:
        none = none * other
    return 1 - none


def _unfolded(x_RXB: Tensor) -> Tensor:
    """The beats of each bar, which lie side by side among its channels, one after another."""
    rows, _, bars = x_RXB.shape
    return x_RXB.reshape(rows, -1, BEATS, bars).transpose(2, 3).flatten(2)


class _Block(nn.Module):
    """A residual branch over neighbouring places."""

    def __init__(self, width: int, *, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(width, width, 3, padding=1, groups=groups)
        self.second = nn.Conv1d(width, width, 3, padding=1, groups=groups)

    def forward(self, x_RWT: Tensor) -> Tensor:
        out_RWT: Tensor = x_RWT + self.second(functional.silu(self.first(functional.silu(x_RWT))))
        return out_RWT


class _SteeredBlock(nn.Module):
    """One that what is asked for steers (E. Perez et al. 2018, "FiLM", arXiv 1709.07871)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.steering = nn.Linear(width, 2 * width)
        self.first = nn.Conv1d(width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x_RWT: Tensor, asked_RW: Tensor) -> Tensor:
        scale_RW1, shift_RW1 = self.steering(asked_RW)[:, :, None].chunk(2, dim=1)
        branch_RWT = _by_place(self.norm, x_RWT) * (1 + scale_RW1) + shift_RW1
        branch_RWT = functional.silu(self.first(functional.silu(branch_RWT)))
        out_RWT: Tensor = x_RWT + self.second(branch_RWT)
        return out_RWT


def _by_place(norm: nn.Module, x_RWT: Tensor) -> Tensor:
    """Normalise the channels of each place."""
    out: Tensor = norm(x_RWT.transpose(-1, -2)).transpose(-1, -2)
    return out


def _initialise(network: nn.Module) -> None:
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif name.endswith("weight") and weight.dim() > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="linear" if "steering" in name else "relu")
