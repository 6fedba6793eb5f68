"""A hierarchical variational autoencoder over bars: an encoder of bars, a conductor from bar to bar, a decoder of bars.

A bar's tokens are told by its latent, by the conductor's state and by the tokens before them **in the same bar**; all
that a piece remembers goes through the latents. Latent and state join the bar line, where the bar's tokens may look:
added to every token they drown it. The posterior of a bar's latent is a function of that bar's tokens alone, its prior
a function of the latents and controls before it, so a bar read is a bar encoded, wherever it stands.

Sources: Kingma and Welling 2014 (arXiv 1312.6114); the conductor is that of Roberts et al. 2018 (MusicVAE, 1803.05428),
where one latent stands for a whole piece; a prior that goes from step to step is Chung et al. 2015 (1506.02216).
Blocks are those of the decoder family.

Legend: B rows, T tokens, V vocabulary, W width, U units (see :mod:`tutti.models.bar_vae.units`), P pieces, N units of
the longest piece, R rows that begin a bar, S tokens of the bar under way, Z latent dimensions, H the conductor's hidden
units.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tutti.models.attention import Context, within_window
from tutti.models.bar_vae.configuration import BarVaeConfiguration
from tutti.models.bar_vae.state import BarState
from tutti.models.bar_vae.units import Units, normal_at, seeds_of_content
from tutti.models.decoder.network import Block
from tutti.models.positions import angles
from tutti.models.precision import Precision
from tutti.models.reader import PlainSteps

MOST_LOG_VARIANCE = 10.0
_LOG_VARIANCE_AT_FIRST = -2.5


class BarVae(nn.Module):
    """Bars of event tokens, each with a latent."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, configuration: BarVaeConfiguration) -> None:
        super().__init__()
        self.configuration = configuration
        width, hidden, latent = configuration.width, configuration.conductor, configuration.latent
        blocks = configuration.blocks
        self.embedding = nn.Embedding(configuration.vocabulary_size, width)
        self.dropout = nn.Dropout(configuration.dropout)
        self.encoder = nn.ModuleList(Block(blocks) for _ in range(configuration.encoder_layers))
        self.encoder_norm = nn.RMSNorm(width, eps=1e-6)
        self.posterior = nn.Linear(width, 2 * latent)
        self.latent_to_conductor = nn.Linear(latent, hidden, bias=False)
        self.head_to_conductor = nn.Linear(width, hidden, bias=False)
        self.conductor = nn.GRU(hidden, hidden, batch_first=True)
        self.prior = nn.Linear(hidden, 2 * latent)
        self.latent_to_bar = nn.Linear(latent, width, bias=False)
        self.conductor_to_bar = nn.Linear(hidden, width, bias=False)
        self.blocks = nn.ModuleList(Block(blocks) for _ in range(configuration.layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        cosines, sines = angles(configuration.max_tokens, width // configuration.heads)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self._initialise()

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits of the token after each, of shape (B, T, V), and each bar's divergence from its prior, (bars, Z).

        Latents are drawn from the posterior: while training from torch's own stream, else from one that a bar's tokens
        decide, so that a judgement is the same on any number of ranks.

        Args:
            tokens_BT: token ids.
            segments_BT: number of the piece that each token belongs to, -1 at padding; None: each row is one piece.
        """
        units = Units.of(tokens_BT, segments_BT, bar_token=self.configuration.bar_token)
        said_UW, mean_UZ, log_variance_UZ = self.heard(tokens_BT, units)
        if self.training:
            noise_UZ = torch.randn_like(mean_UZ)
        else:
            seeds_U = seeds_of_content(tokens_BT, units.starts_U)
            noise_UZ = normal_at(seeds_U, np.zeros_like(seeds_U), size=mean_UZ.shape[1]).to(mean_UZ)
        latents_UZ = mean_UZ + (log_variance_UZ / 2).exp() * noise_UZ
        states_UH = self.conducted(units, said_UW, latents_UZ)
        divergence_UZ = _divergence(mean_UZ, log_variance_UZ, *self._prior(states_UH))
        return self.told(tokens_BT, units, states_UH, latents_UZ), divergence_UZ[units.is_bar_U]

    def heard(self, tokens_BT: Tensor, units: Units) -> tuple[Tensor, Tensor, Tensor]:
        """What the encoder says of each unit, and the posterior's mean and log-variance.

        Returns:
            Shapes (U, W), (U, Z) and (U, Z); float32.
        """
        encoded_BTW = self._encoded(tokens_BT, self._sight(tokens_BT, units, causal=False))
        return self._posterior(units.means(encoded_BTW))

    def conducted(self, units: Units, said_UW: Tensor, latents_UZ: Tensor) -> Tensor:
        """What the conductor knows where each unit begins: head and latents before it; shape (U, H)."""
        with torch.autocast(said_UW.device.type, enabled=False):
            of_bars = self.latent_to_conductor(latents_UZ) * units.is_bar_U[:, None]
            of_heads = self.head_to_conductor(said_UW) * ~units.is_bar_U[:, None]
            later_U1 = (units.place_U > 0)[:, None]
            steps_UH = (of_bars.roll(1, dims=0) + of_heads[units.first_U]) * later_U1
            pieces, most = (int(places.max()) + 1 for places in (units.piece_U, units.place_U))
            padded_PNH = steps_UH.new_zeros(pieces, most, steps_UH.shape[1])
            padded_PNH = padded_PNH.index_put((units.piece_U, units.place_U), steps_UH)
            # Padding comes after a piece's last unit, so nothing real sees it.
            states_UH: Tensor = self.conductor(padded_PNH)[0][units.piece_U, units.place_U]
        return states_UH

    def told(self, tokens_BT: Tensor, units: Units, states_UH: Tensor, latents_UZ: Tensor) -> Tensor:
        """Logits of the token after each under given latents; shape (B, T, V)."""
        condition_UW = self._condition(states_UH, latents_UZ) * units.is_bar_U[:, None]
        condition_BTW = units.set_at_first_place(condition_UW)
        return self._decoded(tokens_BT, condition_BTW, self._sight(tokens_BT, units, causal=True))

    @torch.no_grad()
    def read(self, tokens_BT: Tensor, cache: BarState, *, counts_B: Tensor | None = None) -> Tensor:
        """Read on from what ``cache`` holds; see :meth:`tutti.models.reader.Reader.read`.

        Where a bar begins, its latent is drawn from the prior by the row's own stream; where it is over, the conductor
        hears the latent's posterior mean, so a bar that was given and one that was made are remembered alike. Bars with
        a plan take it for both.
        """
        rows, tokens = tokens_BT.shape
        counts_B = cache.lengths_B.new_full((rows,), tokens) if counts_B is None else counts_B
        real_BT = torch.arange(tokens, device=tokens_BT.device) < counts_B[:, None]
        begins_BT = (tokens_BT == self.configuration.bar_token) & real_BT
        # Stretches of a row: up to its first bar line, and from each to the next.
        stretch_BT = begins_BT.cumsum(1) - begins_BT[:, :1].long()
        logits_BTV: Tensor | None = None
        for stretch in range(int(stretch_BT.max()) + 1):
            here_BT = (stretch_BT == stretch) & real_BT
            sizes_B, starts_B = here_BT.sum(1), here_BT.int().argmax(1)
            opens_B = (here_BT & begins_BT).any(1)
            if bool(opens_B.any()):
                self._begin_bar(cache, torch.nonzero(opens_B).flatten())
            longest = int(sizes_B.max())
            if not longest:
                continue
            places_BL = starts_B[:, None] + torch.arange(longest, device=tokens_BT.device)
            said = self._read_on(tokens_BT.gather(1, places_BL.clamp_max(tokens - 1)), cache, sizes_B)
            if logits_BTV is None:
                logits_BTV = said.new_zeros(rows, tokens, said.shape[2])
            logits_BTV[here_BT] = said[torch.arange(longest, device=said.device) < sizes_B[:, None]]
        cache.lengths_B = cache.lengths_B + counts_B
        assert logits_BTV is not None, "no row reads anything"
        return logits_BTV

    def steps(self, precision: Precision = "float32") -> PlainSteps:  # noqa: ARG002
        """The network as it is now, made ready to step."""
        return PlainSteps(self)

    def new_cache(
        self,
        *,
        rows: int,
        capacity_tokens: int,  # noqa: ARG002
        seeds: NDArray[np.uint64] | None = None,
    ) -> BarState:
        """A memory of nothing; it never fills up.

        Args:
            seeds: of the stream that each row draws its latents from; None: one for all.
        """
        own = np.zeros(rows, dtype=np.uint64) if seeds is None else np.array(seeds, dtype=np.uint64)
        state = BarState(self.configuration, rows=rows, seeds=own, like=self.embedding.weight.detach())
        if not rows:
            return state
        with torch.no_grad():
            nothing = state.conductor_BH.new_zeros(rows, 1, self.configuration.conductor)
            state.conductor_BH = self.conductor(nothing)[0][:, 0]
        return state

    def _begin_bar(self, cache: BarState, rows_R: Tensor) -> None:
        """A bar line in some rows: what was before it is over, and a latent is drawn for what follows."""
        closing_R = rows_R[cache.bar_lengths_B[rows_R] > 0]
        if len(closing_R):
            self._close(cache, closing_R)
        states_RH, bars_R = cache.conductor_BH[rows_R], cache.bars_B[rows_R]
        mean_RZ, log_variance_RZ = self._prior(states_RH)
        noise_RZ = normal_at(cache.seeds[rows_R.cpu().numpy()], bars_R.cpu().numpy(), size=mean_RZ.shape[1])
        drawn_RZ = mean_RZ + (log_variance_RZ / 2).exp() * noise_RZ.to(mean_RZ)
        planned_RZ = cache.plans_BNZ[rows_R, bars_R.clamp_max(cache.plans_BNZ.shape[1] - 1)]
        latents_RZ = torch.where((bars_R < cache.planned_B[rows_R])[:, None], planned_RZ, drawn_RZ)
        cache.latent_BZ[rows_R] = latents_RZ
        cache.condition_BW[rows_R] = self._condition(states_RH, latents_RZ)
        cache.bars_B[rows_R] += 1
        cache.bar_lengths_B[rows_R] = 0

    def _close(self, cache: BarState, rows_R: Tensor) -> None:
        """The conductor hears of what is over: a bar's latent, or a head."""
        lengths_R, bars_R = cache.bar_lengths_B[rows_R], cache.bars_B[rows_R]
        places_S = torch.arange(int(lengths_R.max()), device=rows_R.device)
        turned = places_S.clamp_max(self.configuration.max_tokens - 1)
        context = Context(
            cosines=self.cosines[turned],
            sines=self.sines[turned],
            mask=(places_S < lengths_R[:, None])[:, None, None],
        )
        tokens_RS = cache.tokens_BS[rows_R, : len(places_S)]
        real_RS = (places_S < lengths_R[:, None]).float()
        sums_RW = (self._encoded(tokens_RS, context).float() * real_RS[:, :, None]).sum(1)
        said_RW, mean_RZ, _ = self._posterior(sums_RW / lengths_R[:, None])
        was_bar_R1 = (bars_R > 0)[:, None]
        has_plan_R1 = (bars_R <= cache.planned_B[rows_R])[:, None]
        latents_RZ = torch.where(has_plan_R1, cache.latent_BZ[rows_R], mean_RZ)
        head_RH = torch.where(was_bar_R1, cache.head_BH[rows_R], self.head_to_conductor(said_RW))
        cache.head_BH[rows_R] = head_RH
        step_RH = head_RH + self.latent_to_conductor(latents_RZ) * was_bar_R1
        states_RH = self.conductor(step_RH[:, None], cache.conductor_BH[None, rows_R].contiguous())[1][0]
        cache.conductor_BH[rows_R] = states_RH

    def _read_on(self, tokens_BL: Tensor, cache: BarState, sizes_B: Tensor) -> Tensor:
        """Tokens within the bars under way, padded on the right; logits of shape (B, L, V)."""
        positions_BL = cache.bar_lengths_B[:, None] + torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        used = int(positions_BL.max()) + 1
        cache.make_room(used)
        turned_BL = positions_BL.clamp_max(self.configuration.max_tokens - 1)
        context = Context(
            cosines=self.cosines[turned_BL][:, None],
            sines=self.sines[turned_BL][:, None],
            mask=within_window(positions_BL, torch.arange(used, device=tokens_BL.device), window_tokens=used)[:, None],
            cache=cache.keys,
            positions_BT=positions_BL,
            used=used,
        )
        # What stands beyond a row's real tokens is written over before it is looked at.
        cache.tokens_BS.scatter_(1, positions_BL, tokens_BL)
        said = self._decoded(tokens_BL, cache.condition_BW[:, None] * (positions_BL == 0)[:, :, None], context)
        cache.bar_lengths_B = cache.bar_lengths_B + sizes_B
        return said

    def _sight(self, tokens_BT: Tensor, units: Units, *, causal: bool) -> Context:
        """Each unit sees itself: as little work as the device can make of it."""
        tokens = tokens_BT.shape[1]
        sight = partial(Context, cosines=self.cosines[:tokens], sines=self.sines[:tokens])
        # One kernel over a mask where launches are dear or shapes must not change; else only what is looked at.
        if tokens_BT.is_cuda or torch.compiler.is_compiling():
            mask = units.together()
            return sight(mask=mask.tril() if causal else mask)
        return sight(mask=None, pieces=units.sizes, causal=causal)

    def _encoded(self, tokens_BT: Tensor, context: Context) -> Tensor:
        x_BTW: Tensor = self.dropout(self.embedding(tokens_BT))
        for layer, block in enumerate(self.encoder):
            x_BTW = block(x_BTW, context, layer=layer)
        return x_BTW

    def _decoded(self, tokens_BT: Tensor, condition_BTW: Tensor, context: Context) -> Tensor:
        x_BTW = self.embedding(tokens_BT)
        if self.training and self.configuration.word_dropout:
            kept_BT = torch.rand(tokens_BT.shape, device=x_BTW.device) >= self.configuration.word_dropout
            x_BTW = x_BTW * kept_BT[:, :, None]
        x_BTW = self.dropout(x_BTW + condition_BTW)
        for layer, block in enumerate(self.blocks):
            x_BTW = block(x_BTW, context, layer=layer)
        return functional.linear(self.norm(x_BTW), self.embedding.weight)

    def _posterior(self, mean_UW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Of a unit's mean, so that from the first step on bars of other notes are other points.
        with torch.autocast(mean_UW.device.type, enabled=False):
            said_UW: Tensor = self.encoder_norm(mean_UW)
            mean_UZ, log_variance_UZ = self.posterior(said_UW).chunk(2, dim=1)
            return said_UW, mean_UZ, log_variance_UZ.clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE)

    def _prior(self, states_UH: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(states_UH.device.type, enabled=False):
            mean_UZ, log_variance_UZ = self.prior(states_UH).chunk(2, dim=1)
            return mean_UZ, log_variance_UZ.clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE)

    def _condition(self, states_UH: Tensor, latents_UZ: Tensor) -> Tensor:
        condition: Tensor = self.latent_to_bar(latents_UZ) + self.conductor_to_bar(states_UH)
        return condition

    def _initialise(self) -> None:
        branch_scale = (2 * self.configuration.layers) ** -0.5
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and not name.startswith("conductor."):
                scale = branch_scale if name.endswith(("output.weight", "down.weight")) else 1.0
                nn.init.normal_(weight, std=0.02 * scale)
        # What a bar is told is at first as loud as its bar line.
        for layer in (self.latent_to_bar, self.conductor_to_bar):
            nn.init.normal_(layer.weight, std=0.02 * layer.in_features**-0.5)
        # A new encoder says what it sees almost without noise: a decoder that finds something in a latent from the
        # first step on does not learn to do without.
        for layer in (self.posterior, self.prior):
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.posterior.weight[: self.configuration.latent], std=self.configuration.width**-0.5)
        nn.init.constant_(self.posterior.bias[self.configuration.latent :], _LOG_VARIANCE_AT_FIRST)


def _divergence(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a normal distribution from another in nats, element by element."""
    spread = (log_variance.exp() + (mean - prior_mean) ** 2) * (-prior_log_variance).exp()
    return (prior_log_variance - log_variance + spread - 1) / 2
