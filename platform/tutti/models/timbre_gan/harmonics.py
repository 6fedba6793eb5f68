"""Harmonics and noise as a picture: what a generator says of a note, drawn where a Hann window would show it.

A harmonic of known frequency shows as one lobe, which is drawn here and need not be learnt; so is the frequency that
its bins name. What is left to a network is how loud each harmonic is at each time, and what lies between them: the
split of J. Engel et al. 2020 ("DDSP", arXiv 2001.04643), whose synthesiser gives samples where this gives pictures, and
of X. Serra and J. Smith 1990 ("Spectral modeling synthesis", Computer Music Journal 14). Strings are stiff: their
harmonics lie at n f0 sqrt(1 + B n²) (H. Fletcher 1964, JASA 36).

Legend: B notes, N harmonics, J places on the axis of harmonics, K bins, F frames, G frequencies of the table, W kinds
of windows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutti.mel import hertz_of_mel, mel_of_hertz

STEPS_OF_BIN = 8
"""Frequencies of the table from one bin's middle to the next."""
OWN_PLACES = 24
"""Harmonics that have a place of their own; above, places lie at even ratios."""
WINDOWS = (0.5, 0.75)
"""Shares of a window that lie in a note at its first frames; the whole of it at all others."""
_UNDER_SILENCE_DB = 20.0


class Harmonics(nn.Module):
    """Draws notes; has no weights.

    Args:
        sample_rate_hz, n_fft, bins, frames, range_db: of the pictures (:class:`tutti.features.spectra.SpectrumScale`).
        lowest_hz: of the notes' fundamentals; decides how many harmonics there are.
    """

    centres_K: Tensor
    reach_K: Tensor
    shown_WGK: Tensor
    spread_JN: Tensor

    def __init__(
        self, *, sample_rate_hz: int, n_fft: int, bins: int, frames: int, range_db: float, lowest_hz: float
    ) -> None:
        super().__init__()
        self.range_db, self.highest_hz = range_db, sample_rate_hz / 2
        self.count = harmonic_count(lowest_hz, sample_rate_hz=sample_rate_hz)
        centres_K, reach_K, shown_WGK = _table(sample_rate_hz, n_fft, bins)
        self._mels_of_step = float(mel_of_hertz(np.array(self.highest_hz))) / (shown_WGK.shape[1] - 1)
        self.frames_of_window = [1, 1, max(frames - 2, 0)]
        constants: dict[str, NDArray[np.floating]] = {
            "centres_K": centres_K, "reach_K": reach_K, "shown_WGK": shown_WGK, "spread_JN": spread(self.count),
        }  # fmt: skip
        for name, values in constants.items():
            # They follow from the configuration, so no checkpoint keeps them.
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def frequencies(self, fundamental_B: Tensor, stretch_B: Tensor) -> Tensor:
        """``hertz_BN`` of fundamentals in hertz and how stiff the strings are; 0 where there is nothing to hear."""
        number_N = torch.arange(1, self.count + 1, device=fundamental_B.device, dtype=torch.float32)
        hertz_BN = fundamental_B[:, None] * number_N * torch.sqrt(1 + stretch_B[:, None] * number_N**2)
        return torch.where(hertz_BN < self.highest_hz, hertz_BN, torch.zeros_like(hertz_BN))

    def read(self, level_BKF: Tensor, fundamental_B: Tensor) -> Tensor:
        """Levels at the places of harmonics, ``level_BJF``, above silence: 0 to 2; 0 where there is no harmonic."""
        hertz_BN = self.frequencies(fundamental_B, torch.zeros_like(fundamental_B))
        shown_BNK = self._shown(hertz_BN, window=len(WINDOWS))
        shares_JN = self.spread_JN / self.spread_JN.sum(dim=1, keepdim=True)
        return torch.einsum("jn,bnf->bjf", shares_JN, torch.einsum("bnk,bkf->bnf", shown_BNK, level_BKF + 1))

    def forward(
        self, hertz_BN: Tensor, level_BJF: Tensor, bend_BF: Tensor, noise_BKF: Tensor, place_BKF: Tensor
    ) -> Tensor:
        """``spectra_B2KF`` in -1 to 1, in 32-bit floats whatever comes in.

        Args:
            hertz_BN: of :meth:`frequencies`.
            level_BJF: of the harmonics, at their places; 1 is the power of the loudest bin, -1 silence.
            bend_BF: how far the frequencies lie from those at each time, as a share of them.
            noise_BKF: level of what is no harmonic.
            place_BKF: where in its bin that lies, -1 to 1.
        """
        with torch.autocast(hertz_BN.device.type, enabled=False):
            return self._drawn(hertz_BN, level_BJF.float(), bend_BF.float(), noise_BKF.float(), place_BKF.float())

    def _drawn(
        self, hertz_BN: Tensor, level_BJF: Tensor, bend_BF: Tensor, noise_BKF: Tensor, place_BKF: Tensor
    ) -> Tensor:
        power_BNF = self._power(torch.einsum("bjf,jn->bnf", level_BJF, self.spread_JN))
        both_B2NF = torch.stack((power_BNF, power_BNF * hertz_BN[:, :, None]), dim=1)
        drawn = [
            torch.einsum("bcnf,bnk->bckf", part_B2NF, self._shown(hertz_BN, window=window))
            for window, part_B2NF in enumerate(torch.split(both_B2NF, self.frames_of_window, dim=-1))
        ]
        tonal_BKF, moment_BKF = torch.cat(drawn, dim=-1).unbind(1)
        noise_BKF = self._power(noise_BKF)
        away_BKF = (moment_BKF * (1 + bend_BF[:, None]) - tonal_BKF * self.centres_K[:, None]) / self.reach_K[:, None]
        silence = 10 ** (-self.range_db / 10)
        found_BKF = (away_BKF + noise_BKF * place_BKF) / (tonal_BKF + noise_BKF + silence)
        heard_BKF = tonal_BKF + noise_BKF + silence * 10 ** (-_UNDER_SILENCE_DB / 10)
        level_BKF = 1 + (20 / self.range_db) * torch.log10(heard_BKF)
        return _clipped(torch.stack((level_BKF, found_BKF), dim=1))

    def _power(self, level: Tensor) -> Tensor:
        return torch.exp((level - 1) * (self.range_db / 20 * math.log(10)))

    def _shown(self, hertz_BN: Tensor, *, window: int) -> Tensor:
        """How much of the power of each harmonic each bin shows under a kind of window, ``shown_BNK``."""
        shown_GK = self.shown_WGK[window]
        at_BN = _mel(hertz_BN) / self._mels_of_step
        below_BN = at_BN.detach().floor().clamp(0, len(shown_GK) - 2).long()
        shown_BNK = torch.lerp(shown_GK[below_BN], shown_GK[below_BN + 1], (at_BN - below_BN)[:, :, None])
        return shown_BNK * (hertz_BN > 0)[:, :, None]


def harmonic_count(lowest_hz: float, *, sample_rate_hz: int) -> int:
    """N: harmonics of the lowest fundamental that half the rate has room for."""
    return max(int(sample_rate_hz / 2 / lowest_hz), 1)


def spread(count: int) -> NDArray[np.float64]:
    """How the levels at J places are those of N harmonics, ``spread_JN``: the first have their own, others share."""
    number_N = np.arange(1, count + 1)
    at_N = np.where(number_N <= OWN_PLACES, number_N - 1, OWN_PLACES - 1 + OWN_PLACES * np.log(number_N / OWN_PLACES))
    places = math.ceil(at_N[-1]) + 1
    return np.asarray(np.clip(1 - np.abs(np.arange(places)[:, None] - at_N), 0, None))


@lru_cache(maxsize=4)
def _table(
    sample_rate_hz: int, n_fft: int, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
    """Middles and reach of the bins, hertz, and what each shows of a sine of power 1 at even steps of mel."""
    top = float(mel_of_hertz(np.array(sample_rate_hz / 2)))
    edges = hertz_of_mel(np.linspace(0, top, bins + 2))
    hertz_G = hertz_of_mel(np.linspace(0, top, STEPS_OF_BIN * (bins + 1) + 1))
    hertz_L = np.linspace(0, sample_rate_hz / 2, n_fft // 2 + 1)
    place_L = mel_of_hertz(hertz_L) * ((bins + 1) / top) - 1
    weights_LK = np.clip(1 - np.abs(place_L[:, None] - np.arange(bins)), 0, None)
    away_GL = (hertz_L - hertz_G[:, None]) * (n_fft / sample_rate_hz)
    shown_WGK = np.stack([_lobe(share * away_GL) @ weights_LK for share in (*WINDOWS, 1.0)])
    return edges[1:-1], (edges[2:] - edges[:-2]) / 2, (shown_WGK / shown_WGK.sum(-1, keepdims=True)).astype(np.float32)


def _lobe(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power of a Hann window's transform so many of its own bins away."""
    at_edge = np.abs(np.abs(away) - 1) < 1e-6
    amplitude = np.where(at_edge, 0.5, np.sinc(away) / np.where(at_edge, 1, 1 - np.square(away)))
    return np.square(amplitude)


def _mel(hertz: Tensor) -> Tensor:
    """:func:`tutti.mel.mel_of_hertz`, through which gradients run."""
    edge_mel, edge_hz = 15.0, 1000.0
    above = edge_mel + torch.log(hertz.clamp_min(edge_hz) / edge_hz) * (27 / math.log(6.4))
    return torch.where(hertz < edge_hz, hertz * (edge_mel / edge_hz), above)


def _clipped(values: Tensor) -> Tensor:
    """Within -1 to 1; gradients run through as if nothing were clipped, so that nothing is stuck outside."""
    return values + (values.clamp(-1, 1) - values).detach()
