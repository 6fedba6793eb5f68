"""How much the pieces of a set differ among themselves.

Goal: tell a catalogue of four hundred pieces from forty pieces ten times. Convention: pieces as a
:class:`~tutti.corpus.score_batch.ScoreBatch`; a piece stands for the set of its n-grams, which are runs of n codes of
its melody (:mod:`tutti.metrics.readings`: interval and class of ratio of two times), so that a copy in another key,
tempo or instrumentation is no other piece. The distance of two pieces is Jaccard's: 1 less what both have over what
either has, 0 to 1.

- ``distinct_ngrams``: different n-grams over all of them, as distinct-n counts words (Li et al. 2016, "A
  diversity-promoting objective function for neural conversation models").
- ``effective_pieces``: how many pieces without anything in common would be as diverse, 1 to W: the Vendi score of their
  similarities (Friedman and Dieng 2023, "The Vendi Score: A diversity evaluation metric for machine learning").
- ``near_duplicates``, ``same_melodies``: pieces that are a version of another one (:mod:`tutti.corpus.duplicates`), and
  such as have another one's melody to the note (:mod:`tutti.corpus.fingerprint`).

Pieces without an n-gram have distance 1 from all others and 0 from each other; they have no n-grams to count. Fewer
than two pieces have no distances (NaN); none have 0 effective pieces, and rates NaN.

Legend: W pieces, G different n-grams.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tutti.corpus.duplicates import groups
from tutti.corpus.fingerprint import fingerprints
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.sketch import sketches
from tutti.corpus.stretches import Stretches
from tutti.metrics import readings
from tutti.metrics.suffixes import NOTHING
from tutti.seeding import mix64

Figures = NDArray[np.float64]

_BUDGET_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Diversity:
    """Figures of a set of pieces.

    Args:
        pieces: number of them.
        mean_distance: of every two pieces, 0 to 1.
        nearest_distance: mean distance of each piece from the one next to it, 0 to 1.
        effective_pieces: 1 to ``pieces``.
        distinct_ngrams: share of all n-grams, 0 to 1.
        near_duplicates: share of the pieces that are a version of another one, 0 to 1.
        same_melodies: share of the pieces whose melody another one has to the note, 0 to 1.
    """

    pieces: int
    mean_distance: float
    nearest_distance: float
    effective_pieces: float
    distinct_ngrams: float
    near_duplicates: float
    same_melodies: float


def diversity(pieces: ScoreBatch, *, ngram: int) -> Diversity:
    """All figures of a set; ``ngram`` codes stand for ``ngram`` + 1 notes. Memory grows with the square of W."""
    grams, piece = _ngrams(pieces, ngram=ngram)
    distance = _distances(grams, piece, size=len(pieces))
    size = len(pieces)
    apart = distance[~np.eye(size, dtype=bool)].reshape(size, max(size - 1, 0))
    several = size > 1
    return Diversity(
        pieces=size,
        mean_distance=float(apart.mean()) if several else float("nan"),
        nearest_distance=float(apart.min(axis=1).mean()) if several else float("nan"),
        effective_pieces=effective_number(1 - distance),
        distinct_ngrams=len(np.unique(grams)) / len(grams) if len(grams) else float("nan"),
        near_duplicates=_shared(groups(*sketches(pieces), budget_bytes=_BUDGET_BYTES)),
        same_melodies=_shared(np.array(fingerprints(pieces))),
    )


def distances(pieces: ScoreBatch, *, ngram: int) -> Figures:
    """Jaccard distance of every two pieces; shape (W, W)."""
    return _distances(*_ngrams(pieces, ngram=ngram), size=len(pieces))


def effective_number(similarity_WW: Figures) -> float:
    """The Vendi score of a positive semidefinite matrix of similarities with 1 on its diagonal: the exponential of the
    entropy of its eigenvalues over W; 0 of no pieces."""
    size = len(similarity_WW)
    if not size:
        return 0.0
    share = np.clip(np.linalg.eigvalsh(similarity_WW) / size, 0, None)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _ngrams(pieces: ScoreBatch, *, ngram: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all n-grams of all lines, and whose they are."""
    reading = readings.melody(pieces)
    codes = reading.codes
    begin = np.arange(max(len(codes) - ngram + 1, 0))
    # Lines begin with places without a code, so that no n-gram without such a place reaches into another line.
    silent = np.concatenate(([0], np.cumsum(codes == NOTHING)))
    begin = begin[silent[begin + ngram] == silent[begin]]
    stretches = Stretches.of(mix64(codes.astype(np.uint64)))
    return stretches.hashes(begin, begin + ngram), reading.piece[begin]


def _distances(grams: NDArray[np.uint64], piece: NDArray[np.int64], *, size: int) -> Figures:
    names, column = np.unique(grams, return_inverse=True)
    held = np.unique(piece * max(len(names), 1) + column)
    rows, columns = np.divmod(held, max(len(names), 1))
    has = sparse.csr_array((np.ones(len(held)), (rows, columns)), shape=(size, max(len(names), 1)))
    common = (has @ has.T).toarray()
    number = np.bincount(rows, minlength=size)
    either = number[:, None] + number - common
    # Two pieces that say nothing are alike.
    return np.where(either > 0, 1 - common / np.maximum(either, 1), 0.0)


def _shared(names: NDArray[np.generic]) -> float:
    if not len(names):
        return float("nan")
    _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    return float(np.mean(counts[which] > 1))
