"""How a set of pieces differs from another, feature by feature: distances within and between, and how they overlap.

Goal: tell whether generated pieces vary as real ones do and lie among them. Convention: of each feature of
:mod:`tutti.metrics.set_features` the Euclidean distance of every two pieces of one set (intra-set) and of each piece of
one with each of the other (inter-set); of each set of distances a Gaussian kernel density estimate with Scott's
bandwidth; of intra-set and inter-set estimates the Kullback-Leibler divergence (nats, 0 or more, intra from inter) and
the overlapping area (0 to 1). Like sets have a divergence near 0 and an area near 1; a set that lies elsewhere has a
small area, one that repeats itself too.

Source: Yang and Lerch 2020, "On the evaluation of generative models in music" (Neural Computing and Applications 32).
We differ from their tool mgeval in the divergence, for which it compares the estimates at different points, each over
the range of its own set, and in the area, of which it leaves out what lies beyond the range of the data: here both are
taken at the same points, and over all of both estimates. Distances are shared out among :data:`GRID_POINTS` points
before they are summed, which moves figures by less than 1e-3.

A piece of which a feature is not a number is left out of that feature. With fewer than two pieces in a set, or none
in the other, its figures are NaN. Where all distances are one number the estimate is that point, which overlaps with
itself alone.

Legend: W pieces of one set, V of the other, D distances, G grid points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist
from scipy.special import logsumexp

from tutti.corpus.score_batch import ScoreBatch
from tutti.metrics import set_features

Figures = NDArray[np.float64]

GRID_POINTS = 512
# How far beyond the last distance an estimate is followed, in bandwidths.
_TAIL = 5.0

_COLUMNS = ("mean", "other_mean", "intra", "other_intra", "inter", "divergence", "other_divergence", "overlap",
            "other_overlap")  # fmt: skip
SCHEMA = pa.schema([("feature", pa.string()), *((name, pa.float64()) for name in _COLUMNS)])
"""One row a feature: its mean in either set (NaN for histograms and matrices), the mean distance within either and
between them, and of either set's distances, held against those between the sets, divergence and overlap."""


def compare(pieces: ScoreBatch, others: ScoreBatch) -> pa.Table:
    """Every feature of two sets, by :data:`SCHEMA`; ``other_…`` is of ``others``.

    Memory and time grow with the square of the number of pieces: 2,000 and 2,000 take 200 MB.
    """
    return compare_features(set_features.describe(pieces), set_features.describe(others))


def compare_features(features: Mapping[str, Figures], others: Mapping[str, Figures]) -> pa.Table:
    """The same of features that are known, each of shape (W, …) and (V, …)."""
    rows = []
    for name in features:
        one, other = (_known(side[name]) for side in (features, others))
        scalar = one.shape[1] == 1
        intra, other_intra, inter = pdist(one), pdist(other), cdist(one, other).reshape(-1)
        # Yang and Lerch take each pair of a set twice, from either side, which makes the bandwidth smaller.
        between = _Estimate.of(inter, times=1)
        divergence, overlap = _held_against(_Estimate.of(intra, times=2), between)
        other_divergence, other_overlap = _held_against(_Estimate.of(other_intra, times=2), between)
        figures = (
            _mean(one) if scalar else np.nan, _mean(other) if scalar else np.nan,
            _mean(intra), _mean(other_intra), _mean(inter),
            divergence, other_divergence, overlap, other_overlap,
        )  # fmt: skip
        rows.append({"feature": name, **dict(zip(_COLUMNS, map(float, figures), strict=True))})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _known(rows: Figures) -> Figures:
    flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
    return flat[~np.isnan(flat).any(axis=1)]


def _mean(values: Figures) -> float:
    return float(values.mean()) if values.size else float("nan")


@dataclass(frozen=True)
class _Estimate:
    """A kernel density estimate: G points, the share of distances at each, and the bandwidth, 0 of a single point."""

    points: Figures
    shares: Figures
    bandwidth: float

    @classmethod
    def of(cls, distances: Figures, *, times: int) -> _Estimate | None:
        """Of distances each of which counts several ``times``; None without any."""
        if not distances.size:
            return None
        count = times * distances.size
        spread = float(np.sqrt(np.square(distances - distances.mean()).sum() * times / max(count - 1, 1)))
        lowest, highest = float(distances.min()), float(distances.max())
        if not highest > lowest:
            return cls(np.array([lowest]), np.ones(1), 0.0)
        points = np.linspace(lowest, highest, GRID_POINTS)
        place = (distances - lowest) * ((GRID_POINTS - 1) / (highest - lowest))
        below = np.minimum(place.astype(np.int64), GRID_POINTS - 2)
        share = place - below
        shares = np.bincount(below, weights=1 - share, minlength=GRID_POINTS)
        shares += np.bincount(below + 1, weights=share, minlength=GRID_POINTS)
        return cls(points, shares / distances.size, spread * count**-0.2)

    def reach(self) -> Figures:
        """Points at which what the estimate does can be seen."""
        tail = _TAIL * self.bandwidth
        return np.linspace(self.points[0] - tail, self.points[-1] + tail, 2 * GRID_POINTS)

    def log_density(self, at: Figures) -> Figures:
        """Natural logarithm of the density."""
        held = self.shares > 0
        apart = (at[:, None] - self.points[held]) / self.bandwidth
        kernels = logsumexp(-0.5 * np.square(apart), axis=1, b=self.shares[held])
        return np.asarray(kernels - np.log(self.bandwidth * np.sqrt(2 * np.pi)))


def _held_against(intra: _Estimate | None, inter: _Estimate | None) -> tuple[float, float]:
    """Divergence of ``intra`` from ``inter``, and the area that both cover."""
    if intra is None or inter is None:
        return float("nan"), float("nan")
    if not intra.bandwidth or not inter.bandwidth:
        alike = intra.bandwidth == inter.bandwidth and intra.points[0] == inter.points[0]
        return (0.0, 1.0) if alike else (float("inf"), 0.0)
    at = np.sort(np.concatenate((intra.reach(), inter.reach())))
    log_one, log_other = intra.log_density(at), inter.log_density(at)
    one, other = np.exp(log_one), np.exp(log_other)
    divergence = float(np.trapezoid(one * (log_one - log_other), at))
    return max(divergence, 0.0), min(float(np.trapezoid(np.minimum(one, other), at)), 1.0)
