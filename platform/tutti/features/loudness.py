"""Integrated loudness after ITU-R BS.1770-4: what a clip's ``loudness_lufs`` says.

Legend: S samples, C channels, B blocks of 0.4 s, one every 0.1 s. The standard prints its two filters for 48 kHz alone;
their parameters for any rate are those of B. De Man (2014, "Evaluation of Implementations of the EBU R128 Loudness
Measurement", AES 137), which give the printed coefficients there.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from tutti.features.spectral import Floats

GATE_LUFS = -70.0
RELATIVE_GATE_LU = -10.0
BLOCK_S, STEP_S = 0.4, 0.1

_OFFSET_LU = -0.691
_STEPS_OF_BLOCK = 4


def integrated_lufs(samples_SC: Floats, *, sample_rate_hz: int) -> float:
    """Integrated loudness; what is shorter than a block of 0.4 s is measured with silence after it.

    Returns:
        LUFS, ``-inf`` where nothing passes the absolute gate of -70 LUFS.
    """
    step = round(STEP_S * sample_rate_hz)
    steps = max(len(samples_SC) // step, _STEPS_OF_BLOCK)
    whole_CS = np.zeros((samples_SC.shape[1], steps * step), dtype=np.float32)
    whole_CS[:, : len(samples_SC)] = samples_SC[: steps * step].T
    weighted_CS = signal.sosfilt(_k_weighting(sample_rate_hz), whole_CS, axis=-1)
    by_step = np.einsum("cns,cns->n", *[weighted_CS.reshape(-1, steps, step)] * 2, dtype=np.float64)
    power_B = np.convolve(by_step, np.ones(_STEPS_OF_BLOCK), mode="valid") / (_STEPS_OF_BLOCK * step)
    loud_B = power_B[power_B > _power(GATE_LUFS)]
    if not len(loud_B):
        return -math.inf
    gate = max(_power(_lufs(loud_B.mean()) + RELATIVE_GATE_LU), _power(GATE_LUFS))
    return _lufs(power_B[power_B > gate].mean())


def _lufs(power: float) -> float:
    return _OFFSET_LU + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - _OFFSET_LU) / 10))


@lru_cache(maxsize=32)
def _k_weighting(sample_rate_hz: int) -> NDArray[np.float32]:
    """A shelf for the head and a high-pass, as second-order sections."""
    shelf_gain, shelf_hz, shelf_q = 10 ** (3.999843853973347 / 20), 1681.974450955533, 0.7071752369554196
    angle = math.tan(math.pi * shelf_hz / sample_rate_hz)
    edge_gain, norm = shelf_gain**0.4996667741545416, 1 + angle / shelf_q + angle**2
    shelf = (
        (shelf_gain + edge_gain * angle / shelf_q + angle**2) / norm,
        2 * (angle**2 - shelf_gain) / norm,
        (shelf_gain - edge_gain * angle / shelf_q + angle**2) / norm,
        1.0,
        2 * (angle**2 - 1) / norm,
        (1 - angle / shelf_q + angle**2) / norm,
    )
    high_pass_hz, high_pass_q = 38.13547087602444, 0.5003270373238773
    angle = math.tan(math.pi * high_pass_hz / sample_rate_hz)
    norm = 1 + angle / high_pass_q + angle**2
    high_pass = (1.0, -2.0, 1.0, 1.0, 2 * (angle**2 - 1) / norm, (1 - angle / high_pass_q + angle**2) / norm)
    return np.array([shelf, high_pass], dtype=np.float32)
