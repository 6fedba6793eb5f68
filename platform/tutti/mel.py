"""Mels on Slaney's scale: 3 to 200 Hz up to 1 kHz, then 27 equal ratios to 6.4 kHz."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HZ_PER_MEL = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def mel_of_hertz(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies on Slaney's scale."""
    above = _LOG_FROM_MEL + np.log(np.maximum(hertz, _LOG_FROM_HZ) / _LOG_FROM_HZ) / _LOG_STEP
    return np.where(hertz < _LOG_FROM_HZ, hertz / _HZ_PER_MEL, above)


def hertz_of_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of :func:`mel_of_hertz`."""
    return np.where(
        mel < _LOG_FROM_MEL,
        mel * _HZ_PER_MEL,
        _LOG_FROM_HZ * np.exp(np.maximum(mel - _LOG_FROM_MEL, 0) * _LOG_STEP),
    )
