"""Measures of notes beside as many that were generated: are they in tune, and do they sound like the real ones?

As :mod:`tutti.metrics.timbre` defines them. The score is ``timbre_distance``: how far the sounds of the generated notes
lie from those of the real ones, whatever their pitches; ``pitch_accuracy`` says whether those are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tutti.features.spectra import SpectrumScale
from tutti.metrics import timbre


class TimbreJudge:
    """Of pictures of notes.

    Args:
        scale: what they are made with.
    """

    score_name = "timbre_distance"

    def __init__(self, scale: SpectrumScale) -> None:
        self._scale = scale

    def compared(self, examples: Mapping[str, Tensor], fakes: Tensor) -> dict[str, float]:
        """Figures by name, those that are numbers; the score always.

        Args:
            examples: ``spectra`` (B, 2, K, F) and ``pitch`` (B,) of the real ones.
            fakes: generated ones of those pitches, of the same shape.
        """
        figures = timbre.compared(
            examples["spectra"].float().numpy(),
            fakes.float().numpy(),
            pitch_B=examples["pitch"].numpy().astype(np.int64),
            scale=self._scale,
        )
        return {name: value for name, value in figures.items() if math.isfinite(value) or name == self.score_name}
