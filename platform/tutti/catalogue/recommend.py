"""Takes that a listener has not heard and will like, each with why; every fifth is one that nobody has heard yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutti.catalogue.listening import value_of
from tutti.catalogue.recommend_blend import LIKED, Blend, Ratings
from tutti.catalogue.search import standardised
from tutti.catalogue.search_index import Index
from tutti.errors import UserError

PLAYED = 0.4
"""What hearing all of a take says, where its listener did not rate it; half of it says nothing, little the contrary."""
COMPARED = 0.5
"""What being preferred to another take says, and its contrary of the other."""
NEW_SHARE = 0.2
"""Every fifth place goes to what nobody has heard, as long as there is any: else it would never come to be heard."""
_OTHERS, _CONTENT, _POPULARITY = range(3)


@dataclass(frozen=True)
class Recommendation:
    """One take.

    Args:
        at: its place in the index.
        score: how much the listener will like it, no unit; that of what nobody has heard compares with its like alone.
        reasons: why, for people.
        heard_by: number of listeners who have heard it.
    """

    at: int
    score: float
    reasons: tuple[str, ...]
    heard_by: int


@dataclass(frozen=True)
class Recommender:
    """What was learnt of listeners and takes.

    Args:
        index: the takes.
        listeners: pseudonyms, in order.
        ratings: what they did.
        blend: what was learnt.
        features: of each take, standardised; shape (N, F).
    """

    index: Index
    listeners: tuple[str, ...]
    ratings: Ratings
    blend: Blend
    features: NDArray[np.float64]

    @classmethod
    def fit(cls, index: Index, events: Iterable[Mapping[str, Any]], *, seed: int = 0) -> Recommender:
        """Learn from feedback.

        Args:
            index: takes that may be recommended; events of others are left out.
            events: rows of the table ``feedback``, in the order of time.
            seed: same input and seed, same output.

        Raises:
            InputError: an event that is none.
            UserError: no event is of a take of the index.
            MissingError: the library ``implicit`` is not installed.
        """
        places = {take: at for at, take in enumerate(index.texts("take_id"))}
        values = opinions(events, places)
        if not values:
            raise UserError(
                "no feedback on any of these takes",
                remedy="gather some: a catalogue's page exports it for tutti feedback",
            )
        listeners = tuple(sorted({listener for listener, _ in values}))
        number = {listener: at for at, listener in enumerate(listeners)}
        pairs = sorted((number[listener], item, value) for (listener, item), value in values.items())
        who, what, how = zip(*pairs, strict=True)
        ratings = Ratings(np.array(who), np.array(what), np.array(how, dtype=np.float64), len(listeners))
        features = standardised(index)
        return cls(index, listeners, ratings, Blend.fit(ratings, features, seed=seed), features)

    def recommend(self, listener: str, *, limit: int = 10, new: bool = False) -> list[Recommendation]:
        """The takes that a listener will like best, of those that they have not heard.

        Args:
            listener: a pseudonym; one that nobody knows gets what all like.
            limit: most takes.
            new: only takes that nobody has heard yet.
        """
        known = self.listeners.index(listener) if listener in self.listeners else None
        heard_by = np.bincount(self.ratings.items, minlength=len(self.index))
        own = self.ratings.where(self.ratings.listeners == (-1 if known is None else known))
        able = np.ones(len(self.index), dtype=bool)
        able[own.items] = False
        if new:
            able &= heard_by == 0
        scores, views = self.blend.scores(known), self.blend.views.of(known)
        best = self.blend.ranked(known, able, limit=limit, new_share=NEW_SHARE)
        return [
            Recommendation(
                at, float(scores[at]), self._reasons(at, views[:, at], own, int(heard_by[at])), int(heard_by[at])
            )
            for at in best.tolist()
        ]

    def _reasons(self, at: int, views: NDArray[np.float64], own: Ratings, heard_by: int) -> tuple[str, ...]:
        parts = np.asarray(self.blend.weights if heard_by else self.blend.new_weights) * views
        told = []
        liked = own.items[own.values >= LIKED]
        if parts[_CONTENT] > 0 and len(liked):
            away = np.square(self.features[liked] - self.features[at]).sum(axis=1)
            title = self.index.row(int(liked[int(away.argmin())]))["title"]
            told.append((parts[_CONTENT], f"like '{title}', which was liked"))
        if parts[_OTHERS] > 0 and heard_by:
            told.append((parts[_OTHERS], "liked by listeners of like taste"))
        if parts[_POPULARITY] > 0 and heard_by:
            told.append((parts[_POPULARITY], f"liked in general, heard by {heard_by}"))
        reasons = [text for _, text in sorted(told, reverse=True)]
        return (*reasons, *([] if heard_by else ["nobody has heard it yet"]))


def opinions(events: Iterable[Mapping[str, Any]], places: Mapping[str, int]) -> dict[tuple[str, int], float]:
    """How much each listener liked each take, -1 to 1, by pseudonym and place.

    A listener's last rating counts; where there is none, comparisons; where there is none either, how much was heard.

    Args:
        events: rows of the table ``feedback``, in the order of time.
        places: of the takes, by identity.

    Raises:
        InputError: an event that is none.
    """
    rated, compared, played = (dict[tuple[str, int], float]() for _ in range(3))
    for event in events:
        value = value_of(event)
        listener, take = event["listener"], places.get(event["take_id"])
        if event["event"] == "preferred":
            for place, side in ((take, COMPARED), (places.get(event["other_take_id"]), -COMPARED)):
                if place is not None:
                    compared[listener, place] = compared.get((listener, place), 0.0) + side
        elif take is None:
            continue
        elif value is None:
            share = max(event["value"], played.get((listener, take), 0.0))
            played[listener, take] = share
        else:
            rated[listener, take] = value
    heard = {pair: PLAYED * (2 * share - 1) for pair, share in played.items()}
    return {**heard, **{pair: float(np.clip(value, -1, 1)) for pair, value in compared.items()}, **rated}
