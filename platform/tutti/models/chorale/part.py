"""What one voice sings next: logits over pitches as they are and as intervals from pitches that are already known.

A voice mostly stays or moves by a step, and makes certain intervals with the others, in every key alike: logits for
each interval from each of these pitches say so at once, where logits for pitches alone must learn it twelve times.

Source: the idea of relative pitch in Huang et al. 2018 (Music Transformer, arXiv 1809.04281), here at the output.

Legend: B rows, T steps, V voices, W width, R pitches referred to, K intervals, P identifiers of pitches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NOTHING, FIRST_PITCH = 0, 2
"""Identifiers below the first pitch mean none: nothing (padding, before a piece, hidden) and silence."""
WIDEST_INTERVAL = 30
"""In semitones, as it is heard; wider ones count as this wide."""
MOST_HELD_STEPS = 31
_NO_INTERVAL = 2 * WIDEST_INTERVAL + 1
INTERVALS = 2 * WIDEST_INTERVAL + 2


def interval(upper: Tensor, lower: Tensor) -> Tensor:
    """Number of an interval, from 0; :data:`_NO_INTERVAL` where one of both is no pitch."""
    both = (upper >= FIRST_PITCH) & (lower >= FIRST_PITCH)
    wide = (upper - lower).clamp(-WIDEST_INTERVAL, WIDEST_INTERVAL) + WIDEST_INTERVAL
    return torch.where(both, wide, _NO_INTERVAL)


CLASSES = 12
_HALF_LIVES_STEPS = (16.0, 96.0)
"""A bar, and a few phrases."""
TEMPLATE = CLASSES * len(_HALF_LIVES_STEPS)
_RARE = 0.02
"""Added to shares before their logarithm is taken."""


def heard_classes(pitches_BTV: Tensor, *, steps: int) -> Tensor:
    """Logarithm of how much of what was heard was of each pitch class, in the last steps; shape (B, steps, 12, H).

    The past fades with each of H half-lives. What is transposed has rotated classes. Source: profiles of pitch classes
    tell keys (Krumhansl 1990, "Cognitive Foundations of Musical Pitch").

    Args:
        pitches_BTV: all steps so far.
        steps: how many of the last are told.
    """
    total = pitches_BTV.shape[1]
    classes_BTVC = functional.one_hot(pitches_BTV % CLASSES, CLASSES) * (pitches_BTV >= FIRST_PITCH)[..., None]
    counts_BTC = classes_BTVC.sum(dim=2).float()
    device = pitches_BTV.device
    ago_ST = torch.arange(total - steps, total, device=device)[:, None] - torch.arange(total, device=device)
    half_lives = torch.tensor(_HALF_LIVES_STEPS, device=device)
    fading_HST = torch.exp2(-ago_ST.clamp_min(0) / half_lives[:, None, None]) * (ago_ST >= 0)
    heard_BSCH = torch.einsum("hst,btc->bsch", fading_HST, counts_BTC)
    shares_BSCH = heard_BSCH / heard_BSCH.sum(dim=2, keepdim=True).clamp_min(1e-6)
    return torch.log(shares_BSCH + _RARE) - math.log(1 / CLASSES + _RARE)


def table(entries: int, width: int, *, deviation: float = 0.02) -> nn.Embedding:
    """A vector for each of some entries, drawn from a normal distribution."""
    made = nn.Embedding(entries, width)
    nn.init.normal_(made.weight, std=deviation)
    return made


class Part(nn.Module):
    """One voice of several.

    Args:
        voice: which, from the highest; it hears those above it.
        voices: V.
        width: W.
        vocabulary_size: P.
        reach: semitones up and down that an interval's logit reaches.
        dropout: on what the logits are made of.
    """

    _pitches_P: Tensor
    _above_CC: Tensor

    def __init__(
        self, voice: int, *, voices: int, width: int, vocabulary_size: int, reach: int, dropout: float
    ) -> None:
        super().__init__()
        self._voice, self._voices, self._reach, self._dropout = voice, voices, reach, dropout
        self._references = voices + voice
        self.context = nn.Linear(width, width)
        self.held = table(MOST_HELD_STEPS + 1, width)
        # Of each voice above: its pitch, how it moved, and how far it is from where this voice was.
        self.above = nn.ModuleList(table(vocabulary_size, width) for _ in range(voice))
        self.moved = nn.ModuleList(table(INTERVALS, width) for _ in range(voice))
        self.apart = nn.ModuleList(table(INTERVALS, width) for _ in range(voice))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.hidden = nn.Linear(width, 2 * width)
        self.mixed = nn.Linear(2 * width, width)
        self.pitches = nn.Linear(width, vocabulary_size)
        self.intervals = nn.Linear(width, self._references * (2 * reach + 2))
        pitches = torch.arange(vocabulary_size)
        for output in (self.pitches, self.intervals):
            nn.init.normal_(output.weight, std=0.01)
            nn.init.zeros_(output.bias)
        self.key = nn.Linear(width, TEMPLATE)
        nn.init.normal_(self.key.weight, std=0.01)
        nn.init.zeros_(self.key.bias)
        classes = torch.arange(CLASSES)
        self.register_buffer("_pitches_P", pitches, persistent=False)
        self.register_buffer("_above_CC", (classes[:, None] + classes) % CLASSES, persistent=False)

    def forward(
        self, state_BTW: Tensor, before_BTV: Tensor, held_BT: Tensor, now_BTV: Tensor, heard_BTCH: Tensor
    ) -> Tensor:
        """Logits of this voice's pitch; shape (B, T, P).

        Args:
            state_BTW: what is known of the steps before.
            before_BTV: pitches of all voices at the step before.
            held_BT: how many steps this voice's pitch was already held there.
            now_BTV: pitches of the voices at this step, of which those above this one are heard.
            heard_BTCH: of :func:`heard_classes`.
        """
        x_BTW = self.context(state_BTW) + self.held(held_BT)
        own = before_BTV[..., self._voice]
        for other, (pitch, move, apart) in enumerate(zip(self.above, self.moved, self.apart, strict=True)):
            now = now_BTV[..., other]
            x_BTW = x_BTW + pitch(now) + move(interval(now, before_BTV[..., other])) + apart(interval(now, own))
        x_BTW = x_BTW + self.mixed(functional.gelu(self.hidden(self.norm(x_BTW))))
        x_BTW = functional.dropout(x_BTW, self._dropout, training=self.training)
        references_BTR = torch.cat((before_BTV, now_BTV[..., : self._voice]), dim=-1)
        logits_BTP: Tensor = self.pitches(x_BTW) + self._of_intervals(self.intervals(x_BTW), references_BTR)
        return logits_BTP + self._of_keys(self.key(x_BTW), heard_BTCH)

    def _of_keys(self, template_BTK: Tensor, heard_BTCH: Tensor) -> Tensor:
        """Logits for what the classes above each class, counted from it, were heard; shape (B, T, P)."""
        above_BTCK = heard_BTCH.to(template_BTK.dtype)[:, :, self._above_CC].flatten(-2)
        logits_BTC = torch.matmul(above_BTCK, template_BTK[..., None])[..., 0]
        pitches_P = self._pitches_P
        logits_BTP: Tensor = logits_BTC[..., pitches_P % CLASSES] * (pitches_P >= FIRST_PITCH)
        return logits_BTP

    def _of_intervals(self, logits: Tensor, references_BTR: Tensor) -> Tensor:
        """Logits for intervals from each reference, summed on the pitches that they lead to; shape (B, T, P)."""
        reach = self._reach
        logits_BTRK = logits.view(*logits.shape[:-1], self._references, 2 * reach + 2)
        pitches_P: Tensor = self._pitches_P
        place_BTRP = (pitches_P - references_BTR[..., None]).clamp(-reach, reach) + reach
        is_none = (references_BTR < FIRST_PITCH)[..., None] | (pitches_P < FIRST_PITCH)
        places_BTRP = place_BTRP.masked_fill(is_none, 2 * reach + 1)
        return torch.gather(logits_BTRK, -1, places_BTRP).sum(dim=-2)


def held_steps(pitches_BTV: Tensor) -> Tensor:
    """How many steps before each one its pitch was already there, up to :data:`MOST_HELD_STEPS`; shape (B, T, V)."""
    begins = torch.ones_like(pitches_BTV, dtype=torch.bool)
    begins[:, 1:] = pitches_BTV[:, 1:] != pitches_BTV[:, :-1]
    steps_T1 = torch.arange(pitches_BTV.shape[1], device=pitches_BTV.device)[:, None]
    begun = torch.where(begins, steps_T1, 0).cummax(dim=1).values
    return (steps_T1 - begun).clamp_max(MOST_HELD_STEPS)
