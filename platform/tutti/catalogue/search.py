"""Search takes by a sentence, and by a take they should be like.

A search ranks takes by the weighted mean of their fits (:mod:`tutti.catalogue.search_fit`) among those where everything
that must hold does; where nothing does, those come first that miss least, and each says what it misses.

Takes are alike by :data:`FEATURES`, each standardised over all takes that are searched (mean 0, deviation 1, at most
three deviations), and by the families that play, whose unit vectors together weigh as much as
:data:`FAMILIES_WEIGHT` features. The key's tonic is left out: a piece in another key is the same piece. The distance is
Euclid's over the root of the number of features, so 1 is about as far as two takes lie apart by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from tutti.catalogue import search_fit as fit
from tutti.catalogue.search_index import Index
from tutti.catalogue.search_query import TOLERANCE, Query, understand

FEATURES = (
    "valence", "arousal", "minor", "log_tempo", "log_length", "log_density", "log_polyphony", "pitch_centre",
    "pitch_span", "pitch_entropy", "pitch_class_entropy", "scale_consistency", "groove_consistency",
)  # fmt: skip
FAMILIES_WEIGHT = 3.0
_MOST_DEVIATIONS = 3.0
_TELLING = 1.0
"""Deviations from which a difference is told."""
_WORDS = {
    "minor": ("major", "minor"), "valence": ("sadder", "happier"), "arousal": ("calmer", "more excited"),
    "log_tempo": ("slower", "faster"), "log_length": ("shorter", "longer"), "log_density": ("sparser", "denser"),
    "log_polyphony": ("thinner", "fuller"), "pitch_centre": ("lower", "higher"), "pitch_span": ("narrower", "wider"),
    "scale_consistency": ("more chromatic", "more diatonic"), "groove_consistency": ("less steady", "steadier"),
}  # fmt: skip


@dataclass(frozen=True)
class Hit:
    """A take that was found.

    Args:
        at: its place in the index.
        score: mean fit, 0 to 1; of a likeness: 1 at no distance, falling towards 0.
        reasons: what it has of what was asked, or how it differs.
        misses: what must hold and does not.
    """

    at: int
    score: float
    reasons: tuple[str, ...]
    misses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        query: what was looked for.
        hits: the best ones, best first.
        holding: how many takes hold everything that must hold.
        searched: how many were looked at.
    """

    query: Query
    hits: tuple[Hit, ...]
    holding: int
    searched: int


def search(index: Index, text: str, *, limit: int = 10, tolerance: float = TOLERANCE) -> Found:
    """The takes that fit a sentence best.

    Args:
        text: such as "calm, minor, strings, 3 min", in English or Chinese.
        limit: most hits.
        tolerance: how far a number may lie from the asked one, as share of it.

    Raises:
        RecipeError: the sentence contradicts itself, or nothing in it can be searched by.
    """
    query = understand(text, index, tolerance=tolerance)
    fits = np.array([criterion.fits(index) for criterion in query.criteria])
    weights = np.array([criterion.weight for criterion in query.criteria])
    hard = np.array([criterion.hard for criterion in query.criteria], dtype=bool)
    missed = (fits[hard] < fit.HOLDS).sum(axis=0)
    score = weights @ fits / weights.sum() if weights.sum() else np.ones(len(index))
    holding = int((missed == 0).sum())
    candidates = np.flatnonzero(missed == 0) if holding else np.arange(len(index))
    best = candidates[np.lexsort((candidates, -score[candidates], missed[candidates]))[:limit]]
    hits = []
    for at in best.tolist():
        reasons = tuple(dict.fromkeys(text for each in query.criteria if (text := each.has(index, at))))
        misses = [
            each.asked
            for each, value in zip(query.criteria, fits[:, at], strict=True)
            if each.hard and value < fit.HOLDS
        ]
        hits.append(Hit(at, float(score[at]), reasons, tuple(misses)))
    return Found(query, tuple(hits), holding, len(index))


def similar(index: Index, take: int, *, limit: int = 10) -> list[Hit]:
    """The takes most like one, nearest first, without itself.

    Args:
        take: its place in the index.
        limit: most hits.
    """
    standing = standardised(index)
    away = np.sqrt(np.square(standing - standing[take]).sum(axis=1) / len(FEATURES))
    order = np.lexsort((np.arange(len(index)), away))
    nearest = [at for at in order.tolist() if at != take][:limit]
    return [Hit(at, float(np.exp(-away[at])), _differences(index, standing, take, at)) for at in nearest]


def standardised(index: Index) -> NDArray[np.float64]:
    """Features of each take: :data:`FEATURES`, then the families that play; shape (N, 13 + 17)."""
    features = features_of(index)
    known = ~np.isnan(features)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, features, 0.0).sum(axis=0) / count
    centred = np.where(known, features - mean, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / count)
    standing = np.clip(centred / np.where(deviation > 1e-9, deviation, 1.0), -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
    played = index.families.astype(np.float64)
    unit = played / np.maximum(np.linalg.norm(played, axis=1, keepdims=True), 1.0)
    return np.hstack([standing, np.sqrt(FAMILIES_WEIGHT) * unit])


def features_of(index: Index) -> NDArray[np.float64]:
    """:data:`FEATURES` of each take as they are, NaN where a take has none; shape (N, 13)."""
    low, high = index.numbers("pitch_low"), index.numbers("pitch_high")
    minor = np.asarray(pc.fill_null(pc.ends_with(index.keys, "minor"), False)).astype(np.float64)
    logs = {
        "log_tempo": "tempo_qpm", "log_length": "length_s", "log_density": "notes_per_quarter",
        "log_polyphony": "polyphony",
    }  # fmt: skip
    columns = {
        "minor": np.where(np.isnan(low), np.nan, minor),
        "pitch_centre": (low + high) / 2,
        "pitch_span": high - low,
        **{name: np.log2(np.maximum(index.numbers(column), 1e-3)) for name, column in logs.items()},
    }
    return np.stack([columns[name] if name in columns else index.numbers(name) for name in FEATURES], axis=1)


def _differences(index: Index, standing: NDArray[np.float64], take: int, other: int) -> tuple[str, ...]:
    """What the other take is, held against the first, where it differs clearly; the clearest first."""
    by = standing[other, : len(FEATURES)] - standing[take, : len(FEATURES)]
    order = np.argsort(-np.abs(by), kind="stable")
    told = [
        _WORDS[FEATURES[place]][int(by[place] > 0)]
        for place in order.tolist()
        if abs(by[place]) >= _TELLING and FEATURES[place] in _WORDS
    ]
    plays, other_plays = (fit.instruments_at(index, at) for at in (take, other))
    return (*told[:4], *([f"plays {other_plays}"] if plays != other_plays else []))
