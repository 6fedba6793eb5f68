"""What listeners will like, from what they and others did and from what the music is.

Three views of a listener's liking of an item, each standardised over the items, are blended:

- **others**: factors by alternating least squares over confidences (Hu, Koren, Volinsky 2008, "Collaborative filtering
  for implicit feedback datasets", ICDM), by the library ``implicit``. Items that few or none have heard get factors
  from their features (Gantner et al. 2010, "Learning attribute-to-feature mappings for cold-start recommendations",
  ICDM), by ridge regression; heard often, their own take over.
- **content**: Bayesian linear regression of each listener's ratings on features and their squares, which can say "about
  this fast". What the listeners' weights have in common (mean and covariance) is learnt by expectation maximisation
  (Laird and Ware 1982, "Random-effects models for longitudinal data", Biometrics 38), so little is assumed of who rated
  little. What was not heard counts as no opinion, weakly.
- **popularity**: how much all listeners like an item, on a logarithmic scale; for what few have heard, what its
  features lead one to expect.

The weights are those, of a grid, that rank held-out likes best (NDCG), so feedback that says little of tastes leans on
popularity by itself. Items that nobody has heard have weights of their own: all that was done with a tenth of the items
is held out, and each listener's likes should come before what else of them was heard, so that what is famous counts for
nothing. Where too little can be held out the weights are :data:`USUAL`.

Legend: L listeners, I items, F features. Same input and seed, same output.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from tutti.errors import MissingError
from tutti.seeding import derive

Figures = NDArray[np.float64]

MAX_FACTORS = 32
ITERATIONS = 12
REGULARIZATION = 0.1
CONFIDENCE = 8.0
"""How much more a rating of 1 says than that an item was not heard."""
RIDGE = 40.0
UNHEARD = 0.02
"""Weight of an item that was not heard beside one that was, in the regression of one listener."""
SHRINK = 3.0
"""Listeners by whom an item's own factors and popularity weigh as much as those of its features."""
EM_STEPS = 8
EM_LISTENERS = 2000
"""Most listeners by whom the weights' covariance is learnt."""
HELD_OUT_SHARE = 0.1
LEAST_HELD_OUT = 20
LIKED = 0.25
"""Value from which an item counts as liked."""
USUAL = (1.0, 1.0, 0.5)
_PARTS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
_GRID = [(*parts, 1.0) for parts in product(_PARTS, _PARTS)] + [
    (*parts, share) for parts in ((1.0, 0.0), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.0, 1.0)) for share in (0.0, 0.5)
]
_RANKED = 10


@dataclass(frozen=True, slots=True)
class Ratings:
    """What listeners did, one entry a pair of listener and item.

    Args:
        listeners: index of who; shape (R,).
        items: index of what; shape (R,).
        values: how much it was liked, -1 to 1; shape (R,).
        num_listeners: L.
    """

    listeners: NDArray[np.int64]
    items: NDArray[np.int64]
    values: Figures
    num_listeners: int

    def __len__(self) -> int:
        return len(self.values)

    def where(self, mask: NDArray[np.bool_]) -> Ratings:
        """Those that a mask keeps."""
        return Ratings(self.listeners[mask], self.items[mask], self.values[mask], self.num_listeners)


@dataclass(frozen=True)
class Views:
    """The three views, before they are blended.

    Args:
        listener_factors: shape (L, K).
        item_factors: shape (I, K).
        listener_weights: of the content regression; shape (L, F').
        usual_weights: of a listener of whom nothing is known; shape (F',).
        expanded: features and squares; shape (I, F').
        popularity: of each item; shape (I,).
        heard: by how many listeners each item was; shape (I,).
    """

    listener_factors: Figures
    item_factors: Figures
    listener_weights: Figures
    usual_weights: Figures
    expanded: Figures
    popularity: Figures
    heard: Figures

    def of(self, listener: int | None) -> Figures:
        """Others, content, popularity of each item for a listener, standardised; None: one of whom nothing is known.

        Shape (3, I).
        """
        others = np.zeros(len(self.popularity))
        weights = self.usual_weights
        if listener is not None:
            others = self.item_factors @ self.listener_factors[listener]
            weights = self.listener_weights[listener]
        return np.stack([_standing(each) for each in (others, self.expanded @ weights, self.popularity)])


@dataclass(frozen=True)
class Blend:
    """Views with the weights that rank best.

    Args:
        views: see :class:`Views`.
        weights: of others, content, popularity, for what somebody has heard.
        new_weights: for what nobody has.
    """

    views: Views
    weights: tuple[float, ...]
    new_weights: tuple[float, ...]

    @classmethod
    def fit(cls, ratings: Ratings, features: Figures, *, seed: int = 0) -> Blend:
        """Learn from ratings.

        Args:
            ratings: at least one.
            features: of each item, standardised; shape (I, F).
            seed: of the factors' first values and of what is held out.

        Raises:
            MissingError: the library ``implicit`` is not installed.
        """
        draw = np.random.default_rng(derive(seed, "recommend", "held out"))
        likes = _likes(ratings)
        some = likes & (draw.random(len(ratings)) < HELD_OUT_SHARE)
        of_items = (draw.random(len(features)) < HELD_OUT_SHARE)[ratings.items]
        weights = _best_weights(ratings, features, held=some, asked=some, seed=seed)
        new_weights = _best_weights(
            ratings, features, held=of_items, asked=likes & of_items, seed=seed, among_held=True
        )
        return cls(views_of(ratings, features, seed=seed), weights, new_weights)

    def scores(self, listener: int | None) -> Figures:
        """How much a listener will like each item, no unit; shape (I,).

        Those of items that nobody has heard compare with one another alone.
        """
        views = self.views.of(listener)
        old, new = (np.asarray(weights) @ views for weights in (self.weights, self.new_weights))
        return np.asarray(np.where(self.views.heard > 0, old, new))

    def ranked(
        self, listener: int | None, able: NDArray[np.bool_], *, limit: int, new_share: float
    ) -> NDArray[np.int64]:
        """The best items for a listener, best first; shape (at most limit,).

        Args:
            able: items that may come; shape (I,).
            new_share: places of items that nobody has heard, as share of all, so that they come to be heard.
        """
        scores = self.scores(listener)
        order = np.lexsort((np.arange(len(scores)), -scores))
        order = order[able[order]]
        is_new = self.views.heard[order] == 0
        lines = {True: order[is_new].tolist()[::-1], False: order[~is_new].tolist()[::-1]}
        found: list[int] = []
        while len(found) < limit and (lines[True] or lines[False]):
            due = int((len(found) + 1) * new_share) > int(len(found) * new_share)
            found.append(lines[due if lines[due] else not due].pop())
        return np.array(found, dtype=np.int64)


def views_of(ratings: Ratings, features: Figures, *, seed: int) -> Views:
    """The three views of ratings; see :meth:`Blend.fit`."""
    num_items = len(features)
    expanded = _expanded(features)
    heard = np.bincount(ratings.items, minlength=num_items).astype(np.float64)
    listener_factors, own_factors = _factors(ratings, num_items, seed=seed)
    liked = np.bincount(ratings.items, weights=np.maximum(ratings.values, 0.0), minlength=num_items)
    own = np.column_stack([own_factors, np.log1p(liked)])
    expected = _expected(own, expanded, weights=heard)
    trust = (heard / (heard + SHRINK))[:, None]
    blended = trust * own + (1 - trust) * expected
    usual, weights = _content(ratings, expanded)
    return Views(listener_factors, blended[:, :-1], weights, usual, expanded, blended[:, -1], heard)


def ndcg(ranked: NDArray[np.int64], relevant: NDArray[np.int64], *, top: int = _RANKED) -> float:
    """Normalised discounted cumulative gain of the first ``top`` items (Järvelin and Kekäläinen 2002), 0 to 1."""
    gains = np.isin(ranked[:top], relevant) / np.log2(np.arange(2, min(top, len(ranked)) + 2))
    most = (1 / np.log2(np.arange(2, min(top, len(relevant)) + 2))).sum()
    return float(gains.sum() / most) if most else 0.0


def _factors(ratings: Ratings, num_items: int, *, seed: int) -> tuple[Figures, Figures]:
    """Factors of listeners and items; shapes (L, K) and (I, K)."""
    try:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingError(
            "the library implicit is not installed", remedy="pip install 'tutti[recommend]' brings it"
        ) from None
    # A negative confidence says that a zero is meant: heard, and not liked.
    confidence = np.sign(ratings.values) * (1 + CONFIDENCE * np.abs(ratings.values))
    shape = (ratings.num_listeners, num_items)
    matrix = sparse.csr_matrix((confidence.astype(np.float32), (ratings.listeners, ratings.items)), shape=shape)
    matrix.eliminate_zeros()
    factors = max(2, min(MAX_FACTORS, ratings.num_listeners // 2, num_items // 2))
    # implicit runs threads of its own, and complains where BLAS does too.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=factors, regularization=REGULARIZATION, iterations=ITERATIONS, num_threads=1,
            random_state=derive(seed, "recommend", "factors") % 2**32,
        )  # fmt: skip
        model.fit(matrix, show_progress=False)
    return model.user_factors.astype(np.float64), model.item_factors.astype(np.float64)


def _content(ratings: Ratings, expanded: Figures) -> tuple[Figures, Figures]:
    """Weights of features: the listeners' mean, shape (F',), and those of each, shape (L, F')."""
    size, num_listeners = expanded.shape[1], ratings.num_listeners
    unheard = UNHEARD * (expanded.T @ expanded) * min(1.0, 50 / len(expanded))
    values = ratings.values - _level(ratings)
    order = np.argsort(ratings.listeners, kind="stable")
    starts = np.searchsorted(ratings.listeners[order], np.arange(num_listeners + 1))
    parts = [order[start:stop] for start, stop in pairwise(starts.tolist())]
    mean, covariance, noise = np.zeros(size), np.eye(size) / size, 0.3
    learners = [part for part in parts if len(part)][:EM_LISTENERS]
    for _ in range(EM_STEPS):
        means, spread, error = np.zeros(size), np.zeros((size, size)), 0.0
        precision = np.linalg.inv(covariance)
        for part in learners:
            rows, told = expanded[ratings.items[part]], values[part]
            own = np.linalg.inv((rows.T @ rows + unheard) / noise + precision)
            weight = own @ (rows.T @ told / noise + precision @ mean)
            means += weight
            spread += own + np.outer(weight - mean, weight - mean)
            error += float(np.square(told - rows @ weight).sum() + np.einsum("nf,fg,ng->", rows, own, rows))
        mean = means / len(learners)
        # Pulled to the first guess as if two more listeners had it.
        covariance = (spread + 2 * np.eye(size) / size) / (len(learners) + 2)
        noise = (error + 0.3) / (sum(map(len, learners)) + 1)
    precision = np.linalg.inv(covariance)
    weights = np.tile(mean, (num_listeners, 1))
    for listener, part in enumerate(parts):
        if len(part):
            rows = expanded[ratings.items[part]]
            gram = (rows.T @ rows + unheard) / noise + precision
            weights[listener] = np.linalg.solve(gram, rows.T @ values[part] / noise + precision @ mean)
    return mean, weights


def _level(ratings: Ratings) -> Figures:
    """What each rating is held against: its listener's mean, and 0 of those who only ever liked; shape (R,)."""
    count = np.maximum(np.bincount(ratings.listeners, minlength=ratings.num_listeners), 1)
    mean = np.bincount(ratings.listeners, weights=ratings.values, minlength=ratings.num_listeners) / count
    square = np.bincount(ratings.listeners, weights=ratings.values**2, minlength=ratings.num_listeners) / count
    tells = square - mean**2 > 0.01
    return np.where(tells, mean, 0.0)[ratings.listeners]


def _expanded(features: Figures) -> Figures:
    """Features and their squares, each of mean 0; shape (I, F')."""
    both = np.hstack([features, features**2])
    return np.asarray(both - both.mean(axis=0))


def _expected(own: Figures, expanded: Figures, *, weights: Figures) -> Figures:
    """What features lead one to expect of figures that were learnt from ``weights`` listeners; shape of ``own``."""
    mean = (weights[:, None] * own).sum(axis=0) / max(weights.sum(), 1e-9)
    weighted = expanded * weights[:, None]
    gram = weighted.T @ expanded + RIDGE * np.eye(expanded.shape[1])
    return np.asarray(mean + expanded @ np.linalg.solve(gram, weighted.T @ (own - mean)))


def _standing(scores: Figures) -> Figures:
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 1e-12 else np.zeros_like(scores)


def _likes(ratings: Ratings) -> NDArray[np.bool_]:
    """Likes of listeners who liked at least three items, so that something is left to learn from; shape (R,)."""
    liked = ratings.values >= LIKED
    many = np.bincount(ratings.listeners[liked], minlength=ratings.num_listeners) >= 3
    return np.asarray(liked & many[ratings.listeners])


def _best_weights(
    ratings: Ratings,
    features: Figures,
    *,
    held: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    seed: int,
    among_held: bool = False,
) -> tuple[float, ...]:
    """The weights that rank what is held out best, mean NDCG over its listeners.

    Args:
        held: ratings that are not learnt from; shape (R,).
        asked: those of them that should come first; shape (R,).
        among_held: rank what a listener's held ratings are of, and not all that is left.
    """
    if asked.sum() < LEAST_HELD_OUT or held.all():
        return USUAL
    known, hidden, wanted = (ratings.where(mask) for mask in (~held, held, asked))
    views = views_of(known, features, seed=seed)
    gains = np.zeros(len(_GRID))
    for listener in np.unique(wanted.listeners).tolist():
        scores = np.asarray(_GRID) @ views.of(listener)
        able = np.full(len(features), not among_held)
        told = hidden if among_held else known
        able[told.items[told.listeners == listener]] = among_held
        scores[:, ~able] = -np.inf
        first = np.argsort(-scores, axis=1, kind="stable")[:, :_RANKED]
        relevant = wanted.items[wanted.listeners == listener]
        gains += [ndcg(ranked, relevant) for ranked in first]
    return _GRID[int(gains.argmax())] if np.ptp(gains) > 0 else USUAL
