"""A transformer over steps of several voices, with a small network for each voice at its end.

One place of attention is a step of all voices, so a chorale is four times shorter than as a row of notes; what the
voices do to one another within a step is said by the small networks, one voice after the other from the highest. The
probability of a piece is still the product over its notes, so its likelihood compares with that of models that read
note by note.

Sources: the blocks are those of :mod:`tutti.models.decoder`; BachBot (Liang 2016) and DeepBach (Hadjeres et al. 2017,
arXiv 1612.01010) for beats and held notes as inputs.

Legend: B rows, T steps, V voices, W width, P identifiers of pitches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.chorale.attention import CausalAttention, Heard
from tutti.models.chorale.part import (
    INTERVALS,
    MOST_HELD_STEPS,
    NOTHING,
    TEMPLATE,
    Part,
    heard_classes,
    held_steps,
    interval,
    table,
)
from tutti.models.family import Footprint
from tutti.models.positions import angles

_BAR_STEPS = 16
_BARS = 4
_PITCH_WIDTH, _FACT_WIDTH = 32, 16


@dataclass(frozen=True)
class ChoraleConfiguration:
    """Size of a chorale network.

    Args:
        vocabulary_size: P; identifiers below 2 are padding and silence.
        voices: V.
        layers, width, heads: depth, W, attention heads; W is a multiple of 2 * heads.
        feed_forward: hidden channels of SwiGLU.
        reach: semitones that the logit of an interval reaches, up and down.
        distances: of steps, that attention tells apart.
        dropout: on each residual branch, while training.
        part_dropout: on what each voice's small network reads, and on what its logits are made of.
        hidden_share: of the pitches before each step, hidden from the attention while training; each voice's own small
            network still hears the step before.
    """

    vocabulary_size: int
    voices: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    reach: int = 24
    distances: int = 640
    dropout: float = 0.0
    part_dropout: float = 0.1
    hidden_share: float = 0.0

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is no multiple of twice the {self.heads} heads")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        voices, width, size = self.voices, self.width, self.vocabulary_size
        pairs = voices * (voices - 1) // 2
        facts = voices * (MOST_HELD_STEPS + 1) + (pairs + voices) * INTERVALS
        embedded = voices * size * _PITCH_WIDTH + facts * _FACT_WIDTH + self._input_width * width + width
        beats = (_BAR_STEPS + _BARS) * width
        layers = self.layers * (self._layer_weights + 2 * width + self.heads * self.distances)
        return embedded + beats + layers + width + sum(self._part_weights(voice) for voice in range(voices))

    def training_flops_per_place(self, places: int) -> float:
        """Floating-point operations of forward and backward for one note; a step has V of them."""
        steps = places / self.voices
        parts = sum(self._part_matrices(voice) for voice in range(self.voices))
        matrices = self._input_width * self.width + self.layers * self._layer_weights + parts
        return (6.0 * matrices + 12.0 * self.layers * steps * self.width) / self.voices

    @property
    def footprint(self) -> Footprint:
        """For one note; a step has V of them."""
        voices = self.voices
        references = sum(voices + voice for voice in range(voices)) / voices
        return Footprint(
            blocks=self.layers,
            block_numbers=(24 * self.width + 6 * self.feed_forward) / voices,
            boundary_numbers=self.width / voices,
            pair_bytes=12.0 * self.heads * self.layers / voices**2,
            output_numbers=16 * self.width + references * (8 * self.vocabulary_size + 8 * self.reach),
        )

    @property
    def _input_width(self) -> int:
        pairs = self.voices * (self.voices - 1) // 2
        return self.voices * (_PITCH_WIDTH + 2 * _FACT_WIDTH) + pairs * _FACT_WIDTH

    @property
    def _layer_weights(self) -> int:
        return 4 * self.width**2 + 3 * self.width * self.feed_forward

    def _part_matrices(self, voice: int) -> int:
        width = self.width
        references = (self.voices + voice) * (2 * self.reach + 2)
        return 5 * width**2 + width * (self.vocabulary_size + references + TEMPLATE)

    def _part_weights(self, voice: int) -> int:
        width, outputs = self.width, self.vocabulary_size + (self.voices + voice) * (2 * self.reach + 2) + TEMPLATE
        tables = (MOST_HELD_STEPS + 1 + voice * (self.vocabulary_size + 2 * INTERVALS)) * width
        return self._part_matrices(voice) + tables + 5 * width + outputs


@dataclass
class Listening:
    """What a network has read of some rows, to read on.

    Args:
        layers: keys and values of each.
        pitches_BTV: all steps so far; T is 0 at the beginning.
    """

    layers: list[Heard]
    pitches_BTV: Tensor
    steps: int = field(default=0)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self.pitches_BTV = self.pitches_BTV[rows]
        for layer in self.layers:
            layer.keep(rows)


class _Block(nn.Module):
    """Attention and SwiGLU, each behind a norm and added to what was there."""

    def __init__(self, configuration: ChoraleConfiguration) -> None:
        super().__init__()
        width = configuration.width
        self._dropout = configuration.dropout
        self.attention_norm = nn.RMSNorm(width, eps=1e-6)
        self.attention = CausalAttention(width, configuration.heads, distances=configuration.distances)
        self.feed_forward_norm = nn.RMSNorm(width, eps=1e-6)
        self.gate_and_up = nn.Linear(width, 2 * configuration.feed_forward, bias=False)
        self.down = nn.Linear(configuration.feed_forward, width, bias=False)

    def forward(self, x_BTW: Tensor, cosines: Tensor, sines: Tensor, heard: Heard | None = None) -> Tensor:
        looked = self.attention(self.attention_norm(x_BTW), cosines, sines, heard=heard)
        x_BTW = x_BTW + functional.dropout(looked, self._dropout, training=self.training)
        gate, up = self.gate_and_up(self.feed_forward_norm(x_BTW)).chunk(2, dim=-1)
        return x_BTW + functional.dropout(self.down(functional.silu(gate) * up), self._dropout, training=self.training)


class Chorale(nn.Module):
    """What all voices sing at each step, given all steps before it and, within it, the voices above."""

    def __init__(self, configuration: ChoraleConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        voices, width, size = configuration.voices, configuration.width, configuration.vocabulary_size
        self._pairs = list(combinations(range(voices), 2))
        self.pitch = nn.ModuleList(table(size, _PITCH_WIDTH, deviation=0.5) for _ in range(voices))
        self.held = nn.ModuleList(table(MOST_HELD_STEPS + 1, _FACT_WIDTH, deviation=0.5) for _ in range(voices))
        self.moved = nn.ModuleList(table(INTERVALS, _FACT_WIDTH, deviation=0.3) for _ in range(voices))
        self.apart = nn.ModuleList(table(INTERVALS, _FACT_WIDTH, deviation=0.3) for _ in self._pairs)
        self.input = nn.Linear(voices * (_PITCH_WIDTH + 2 * _FACT_WIDTH) + len(self._pairs) * _FACT_WIDTH, width)
        self.beat = table(_BAR_STEPS, width)
        self.bar = table(_BARS, width)
        self.blocks = nn.ModuleList(_Block(configuration) for _ in range(configuration.layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.parts = nn.ModuleList(
            Part(
                voice,
                voices=voices,
                width=width,
                vocabulary_size=size,
                reach=configuration.reach,
                dropout=configuration.part_dropout,
            )
            for voice in range(voices)
        )

    def forward(self, before_BTV: Tensor, now_BTV: Tensor, places_BT: Tensor) -> Tensor:
        """Logits of the pitch of each voice at each step; shape (B, T, V, P).

        Args:
            before_BTV: pitches at the step before each one.
            now_BTV: pitches at each step: of a voice, only those above it are heard.
            places_BT: number of each step in its piece, from 0; a bar of 4/4 has sixteen.
        """
        held_BTV, read_BTV = held_steps(before_BTV), self._partly_hidden(before_BTV)
        moved_from = torch.cat((read_BTV[:, :1], read_BTV[:, :-1]), dim=1)
        x_BTW = self._read(read_BTV, moved_from, held_BTV) + self._metre(places_BT)
        cosines, sines = self._angles(0, before_BTV.shape[1], x_BTW)
        for block in self.blocks:
            x_BTW = block(x_BTW, cosines, sines)
        state_BTW = functional.dropout(self.norm(x_BTW), self.configuration.part_dropout, training=self.training)
        heard = heard_classes(before_BTV, steps=before_BTV.shape[1])
        logits = [
            part(state_BTW, before_BTV, held_BTV[..., voice], now_BTV, heard) for voice, part in enumerate(self.parts)
        ]
        return torch.stack(logits, dim=-2)

    def new_memory(self, *, rows: int) -> Listening:
        """A memory of nothing for some rows."""
        device = self.input.weight.device
        pitches = torch.zeros(rows, 0, self.configuration.voices, dtype=torch.long, device=device)
        return Listening([Heard() for _ in self.blocks], pitches)

    def sing(self, memory: Listening) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The next step, voice by voice: whoever iterates puts each voice's pitches where the next one hears them.

        Args:
            memory: of this network; grows by the step when the last voice has sung.

        Yields:
            Voice, its logits of shape (B, P), and the pitches of the step, of shape (B, V), to be filled in.
        """
        seen, place = memory.pitches_BTV, memory.steps
        rows, _, voices = seen.shape
        nothing = seen.new_zeros(rows, 1, voices)
        past_BTV = torch.cat((nothing, seen), dim=1)
        before, held = past_BTV[:, -1:], held_steps(past_BTV)[:, -1:]
        x_BTW = self._read(before, past_BTV[:, -2:-1] if place else before, held)
        x_BTW = x_BTW + self._metre(torch.full((rows, 1), place, device=seen.device))
        cosines, sines = self._angles(place, place + 1, x_BTW)
        for block, heard in zip(self.blocks, memory.layers, strict=True):
            x_BTW = block(x_BTW, cosines, sines, heard)
        state_BTW = self.norm(x_BTW)
        now, classes = seen.new_zeros(rows, voices), heard_classes(past_BTV, steps=1)
        for voice, part in enumerate(self.parts):
            yield voice, part(state_BTW, before, held[..., voice], now[:, None], classes)[:, 0], now
        memory.pitches_BTV, memory.steps = torch.cat((seen, now[:, None]), dim=1), place + 1

    def _partly_hidden(self, pitches_BTV: Tensor) -> Tensor:
        share = self.configuration.hidden_share
        if not self.training or share == 0:
            return pitches_BTV
        return pitches_BTV.masked_fill(torch.rand(pitches_BTV.shape, device=pitches_BTV.device) < share, NOTHING)

    def _read(self, pitches_BTV: Tensor, moved_from_BTV: Tensor, held_BTV: Tensor) -> Tensor:
        """A step as it is heard: pitches, how long they are held, how they came about, how far apart they are."""
        parts = []
        for voice in range(self.configuration.voices):
            pitch = pitches_BTV[..., voice]
            parts.append(self.pitch[voice](pitch))
            parts.append(self.held[voice](held_BTV[..., voice]))
            parts.append(self.moved[voice](interval(pitch, moved_from_BTV[..., voice])))
        for apart, (upper, lower) in zip(self.apart, self._pairs, strict=True):
            parts.append(apart(interval(pitches_BTV[..., upper], pitches_BTV[..., lower])))
        read: Tensor = self.input(torch.cat(parts, dim=-1))
        return read

    def _metre(self, places_BT: Tensor) -> Tensor:
        metre: Tensor = self.beat(places_BT % _BAR_STEPS) + self.bar(places_BT // _BAR_STEPS % _BARS)
        return metre

    def _angles(self, first: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = angles(stop, self.configuration.width // self.configuration.heads)
        return cosines[first:].to(like), sines[first:].to(like)
