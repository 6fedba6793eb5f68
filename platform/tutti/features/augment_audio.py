"""Augmentation of sound by named draws: the same epoch and sample always see the same crop and gain.

Legend: S samples, C channels.
"""

from __future__ import annotations

import numpy as np

from tutti import seeding
from tutti.features.spectral import Floats


def drawn_crop_start(seed: int, *, epoch: int, sample: int, length_samples: int, crop_samples: int) -> int:
    """The draw named ``crop`` for one sample of one epoch: uniform on all starts from which the crop fits.

    0 where the sound is no longer than the crop.
    """
    return int(_draw(seed, "crop", epoch=epoch, sample=sample) * (max(length_samples - crop_samples, 0) + 1))


def crop(samples_SC: Floats, *, start_samples: int, crop_samples: int) -> Floats:
    """``crop_samples`` of the sound from ``start_samples`` on, with silence after it where it is shorter.

    A view of the sound where it is not.
    """
    found_SC = samples_SC[start_samples : start_samples + crop_samples]
    missing = crop_samples - len(found_SC)
    if not missing:
        return found_SC
    return np.concatenate((found_SC, np.zeros((missing, *samples_SC.shape[1:]), dtype=np.float32)))


def drawn_gain_db(seed: int, *, epoch: int, sample: int, most_db: float) -> float:
    """The draw named ``gain`` for one sample of one epoch: uniform on -most to most."""
    return (2 * _draw(seed, "gain", epoch=epoch, sample=sample) - 1) * most_db


def amplified(samples: Floats, *, gain_db: float) -> Floats:
    """The same sound louder by ``gain_db``, but never beyond full scale: a gain that would clip is cut to what fits."""
    peak = float(np.abs(samples).max(initial=0.0))
    factor = min(10 ** (gain_db / 20), 1 / max(peak, 1e-9))
    return np.asarray(samples * np.float32(factor), dtype=np.float32)


def _draw(seed: int, name: str, *, epoch: int, sample: int) -> float:
    stream = np.array([seeding.derive(seed, name, epoch)], dtype=np.uint64)
    return float(seeding.uniform_at(stream, sample)[0])
