"""What a head of attention likes of two events by how far apart they are: in musical time, and in pitch.

A bias on the logits of attention, learnt for each head: by the distance in time, so a phrase that returns after two
bars is found whatever lies between, and by the interval from the pitch last heard to the pitch that is looked at, so
what is learnt in one key holds in all. Both start at nothing.

Sources: Huang et al. 2018 (Music Transformer, arXiv 1809.04281, relative attention by time and pitch); Raffel et al.
2020 (T5, 1910.10683: one number for each head and distance, far distances in buckets, one table for all layers).
Where we differ: numbers and not vectors, as T5; time is that of the music, not the number of tokens between.

Legend: B rows, T tokens that look, S tokens that are looked at, H heads, D distances in time, P intervals,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NONE = -1
"""The time of a token before the first bar, and the pitch of one that has none."""
NEAR_SIXTEENTHS = 128
"""Distances up to this, eight bars of 4/4, have a number each; those beyond share one."""
_FAR_OCTAVES, _FAR_OF_OCTAVE = 4, 4
_SIXTEENTHS_OF_QUARTER = 4
MOST_SEMITONES = 36
DISTANCES = NEAR_SIXTEENTHS + _FAR_OCTAVES * _FAR_OF_OCTAVE + 2
INTERVALS = 2 * MOST_SEMITONES + 2
# Adam moves a number by a learning rate a step; likings must weigh what logits weigh after some hundred steps.
_SCALE = 8.0
_BEGIN, _BAR_TICKS, _OFFSET, _TIMED, _PITCH = range(5)


@dataclass(frozen=True)
class EventTokens:
    """Where a vocabulary tells time and pitch.

    Args:
        bar: the bar line.
        meter: the first meter; a bar is 4/4 where none was said.
        bar_ticks: how long a bar of each meter lasts.
        position: the first place in a bar; each is a tick later.
        positions: how many there are.
        pitch: the first pitch; each is a semitone higher.
        pitches: how many there are.
        quarter_ticks: of a quarter note.
    """

    bar: int
    meter: int
    bar_ticks: tuple[int, ...]
    position: int
    positions: int
    pitch: int
    pitches: int
    quarter_ticks: int

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> EventTokens:
        """Of the plain values that a bundle holds."""
        return cls(**{**values, "bar_ticks": tuple(values["bar_ticks"])})


class Heard(NamedTuple):
    """When each token is, and at which pitch.

    Args:
        time_BT: ticks from any beginning that a piece's tokens share; :data:`NONE` before the first bar.
        pitch_BT: the token's own; :data:`NONE` where it is no pitch.
        last_pitch_BT: the latest pitch of the piece, this token among them.
    """

    time_BT: Tensor
    pitch_BT: Tensor
    last_pitch_BT: Tensor

    def part(self, start: int, stop: int) -> Heard:
        """Tokens ``start`` to ``stop`` (exclusive)."""
        return Heard(*(column_BT[:, start:stop] for column_BT in self))


class Listener(nn.Module):
    """Follows time and pitch through tokens; nothing in it is learnt."""

    bar_ticks_V: Tensor
    offset_V: Tensor
    pitch_V: Tensor

    def __init__(self, events: EventTokens, *, vocabulary_size: int) -> None:
        super().__init__()
        self.events = events
        bar_ticks_V = torch.full((vocabulary_size,), NONE)
        bar_ticks_V[events.meter : events.meter + len(events.bar_ticks)] = torch.tensor(events.bar_ticks)
        offset_V = torch.full((vocabulary_size,), NONE)
        offset_V[events.position : events.position + events.positions] = torch.arange(events.positions)
        offset_V[events.bar] = 0
        pitch_V = torch.full((vocabulary_size,), NONE)
        pitch_V[events.pitch : events.pitch + events.pitches] = torch.arange(events.pitches)
        for name, table_V in (("bar_ticks_V", bar_ticks_V), ("offset_V", offset_V), ("pitch_V", pitch_V)):
            self.register_buffer(name, table_V, persistent=False)

    def silence(self, rows: int) -> Tensor:
        """What is known before the first token: begin of a bar, its length, place in it, bars or none, last pitch."""
        known = torch.tensor([0, 4 * self.events.quarter_ticks, 0, 0, NONE], device=self.pitch_V.device)
        return known.expand(rows, -1)

    def forward(
        self, tokens_BT: Tensor, *, begins_BT: Tensor | None = None, known_B5: Tensor | None = None
    ) -> tuple[Heard, Tensor]:
        """Time and pitch of each token, and what is known after it, of shape (B, T, 5).

        Args:
            tokens_BT: token ids; every order of them has a meaning.
            begins_BT: where a piece begins, which knows nothing of those before; None: nowhere.
            known_B5: what is known before the first; None: nothing.
        """
        nothing_B5 = self.silence(len(tokens_BT))
        known_B5 = nothing_B5 if known_B5 is None else known_B5
        begins_BT = torch.zeros_like(tokens_BT, dtype=torch.bool) if begins_BT is None else begins_BT
        places_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)

        def latest(fact: int, said_BT: Tensor, value_BT: Tensor) -> Tensor:
            """The value that was said last; nothing's where a piece began since."""
            value_BT = torch.where(said_BT, value_BT, nothing_B5[:, fact, None])
            at_BT = torch.where(said_BT | begins_BT, places_T, -1).cummax(dim=1).values
            return torch.where(at_BT >= 0, value_BT.gather(1, at_BT.clamp_min(0)), known_B5[:, fact, None])

        is_bar_BT = tokens_BT == self.events.bar
        ticks_BT, offset_BT, pitch_BT = (
            table_V[tokens_BT] for table_V in (self.bar_ticks_V, self.offset_V, self.pitch_V)
        )
        bar_ticks_BT = latest(_BAR_TICKS, ticks_BT >= 0, ticks_BT)
        before_BT = torch.cat((known_B5[:, _BAR_TICKS, None], bar_ticks_BT[:, :-1]), dim=1)
        begin_BT = known_B5[:, _BEGIN, None] + torch.where(is_bar_BT, before_BT, 0).cumsum(dim=1)
        offset_BT = latest(_OFFSET, offset_BT >= 0, offset_BT)
        timed_BT = latest(_TIMED, is_bar_BT, is_bar_BT.long())
        last_pitch_BT = latest(_PITCH, pitch_BT >= 0, pitch_BT)
        time_BT = torch.where(timed_BT > 0, begin_BT + offset_BT, NONE)
        known_BT5 = torch.stack((begin_BT, bar_ticks_BT, offset_BT, timed_BT, last_pitch_BT), dim=2)
        return Heard(time_BT, pitch_BT, last_pitch_BT), known_BT5


class RelativeBias(nn.Module):
    """A number for each head, distance in time and interval of pitch; all layers share them.

    Args:
        heads: H.
        quarter_ticks: of a quarter note.
    """

    distance_of_ticks: Tensor

    def __init__(self, *, heads: int, quarter_ticks: int) -> None:
        super().__init__()
        self.time_HD = nn.Parameter(torch.zeros(heads, DISTANCES))
        self.pitch_HP = nn.Parameter(torch.zeros(heads, INTERVALS))
        self.register_buffer("distance_of_ticks", _distances(quarter_ticks), persistent=False)

    def forward(self, looks: Sequence[tuple[Heard, Heard, Tensor]]) -> list[Tensor]:
        """For each look, what is added to the logits of attention; shape (B, H, T, S), minus infinity where forbidden.

        Args:
            looks: tokens that look, tokens that are looked at, and a mask that is True where they may, broadcastable
                to (B, T, S).
        """
        # One table of both, so that a pair of tokens costs one look-up: T² of them are the whole cost.
        both_HJ = _SCALE * (self.time_HD[:, :, None] + self.pitch_HP[:, None, :]).flatten(1)
        made = []
        for looking, seen, mask in looks:
            index_BTS = self._index(looking, seen)
            flat = torch.gather(both_HJ, 1, index_BTS.reshape(1, -1).expand(len(both_HJ), -1))
            bias_BHTS = flat.view(len(both_HJ), *index_BTS.shape).transpose(0, 1)
            made.append(bias_BHTS.masked_fill(~mask.unsqueeze(-3), -math.inf).to(_precision(bias_BHTS)))
        return made

    def _index(self, looking: Heard, seen: Heard) -> Tensor:
        """Which number each pair of tokens has; shape (B, T, S)."""
        time_BT1, time_B1S = looking.time_BT[:, :, None], seen.time_BT[:, None, :]
        back_BTS = (time_BT1 - time_B1S).clamp_(0, len(self.distance_of_ticks) - 1)
        distance_BTS = self.distance_of_ticks[back_BTS]
        distance_BTS = distance_BTS.masked_fill_((time_BT1 == NONE) | (time_B1S == NONE), DISTANCES - 1)
        from_BT1, to_B1S = looking.last_pitch_BT[:, :, None], seen.pitch_BT[:, None, :]
        interval_BTS = (to_B1S - from_BT1).clamp_(-MOST_SEMITONES, MOST_SEMITONES).add_(MOST_SEMITONES)
        interval_BTS = interval_BTS.masked_fill_((from_BT1 == NONE) | (to_B1S == NONE), INTERVALS - 1)
        return distance_BTS.mul_(INTERVALS).add_(interval_BTS)


def parameters(heads: int) -> int:
    """Number of weights."""
    return heads * (DISTANCES + INTERVALS)


def _distances(quarter_ticks: int) -> Tensor:
    """Which distance each number of ticks is: sixteenths one by one, then a fourth of an octave together."""
    ticks_of_sixteenth = quarter_ticks / _SIXTEENTHS_OF_QUARTER
    furthest = NEAR_SIXTEENTHS * 2**_FAR_OCTAVES
    sixteenths = (torch.arange(math.ceil(furthest * ticks_of_sixteenth) + 1) / ticks_of_sixteenth).round()
    octaves = (sixteenths.clamp_min(NEAR_SIXTEENTHS) / NEAR_SIXTEENTHS).log2()
    far = NEAR_SIXTEENTHS + (octaves * _FAR_OF_OCTAVE).floor().clamp_max(_FAR_OCTAVES * _FAR_OF_OCTAVE)
    return torch.where(sixteenths < NEAR_SIXTEENTHS, sixteenths, far).long()


def _precision(bias: Tensor) -> torch.dtype:
    """What attention computes in: its other inputs come out of matrix products, this one does not."""
    kind = bias.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else bias.dtype
