"""From what listeners did with takes to pairs of takes: one preferred, one not, both of the same request.

Comparisons count first: of two takes that were compared the one that more listeners preferred. Takes that were only
rated are ranked by their mean rating among those of the same request, and the best is set beside the worst, the second
beside the last but one, and so on, each take once. What nobody can tell apart makes no pair.

Who listened stays in the table ``feedback``: pairs tell numbers of listeners and no pseudonym.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tutti import lineage
from tutti.catalogue.blocks import score_of
from tutti.catalogue.listening import value_of
from tutti.config import digest_of
from tutti.corpus.score import Score
from tutti.corpus.splits import SPLITS, TEST, TRAIN, VALID
from tutti.errors import UserError
from tutti.features.events import encode, on_grid
from tutti.features.vocabulary import EVENTS
from tutti.generation.controls import controls_of
from tutti.generation.request import Request
from tutti.lineage import Dataset
from tutti.storage import Folder
from tutti.tables import PAIRS, to_parquet, to_table

KIND = "pairs"
PAIRS_VERSION = 1
"""Moves whenever the same feedback would give other pairs."""
TABLE = "pairs.parquet"
HELD_OUT_SHARE = 0.1
"""Of all pairs for each of valid and test."""


@dataclass(frozen=True)
class Heard:
    """A take that listeners heard.

    Args:
        take_id: its identity.
        request: what it was asked to be.
        score: its music.
    """

    take_id: str
    request: Request
    score: Score

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Heard:
        """The take of a row of the table ``takes``."""
        return cls(row["take_id"], Request.model_validate_json(row["request"]), score_of(row))

    @property
    def asked(self) -> dict[str, Any]:
        """The request without its seed, as plain values: takes are compared where this is the same."""
        return self.request.model_dump(mode="json", exclude={"seed"})


@dataclass(frozen=True, slots=True)
class Preference:
    """One pair.

    Args:
        preferred, rejected: identities of the takes.
        listeners: how many it rests on.
        margin: share of them in favour less that against, or the difference of mean ratings.
    """

    preferred: str
    rejected: str
    listeners: int
    margin: float


@dataclass(frozen=True)
class Preferences:
    """What feedback says.

    Args:
        pairs: in the order of their takes' identities.
        left_out: events or pairs that say nothing, by reason.
    """

    pairs: tuple[Preference, ...]
    left_out: Mapping[str, int]


def preferences(events: Iterable[Mapping[str, Any]], takes: Sequence[Heard]) -> Preferences:
    """Pairs of takes by what listeners did.

    Args:
        events: rows of the table ``feedback``.
        takes: those that may have been heard.

    Raises:
        InputError: an event that is none, or one that lacks what it needs.
    """
    asked = {take.take_id: digest_of(take.asked) for take in takes}
    left_out, votes = Counter[str](), defaultdict[tuple[str, str], list[int]](list)
    ratings = defaultdict[str, dict[str, float]](dict)
    for event in events:
        first, other = event["take_id"], event["other_take_id"]
        value = value_of(event)
        if first not in asked or (event["event"] == "preferred" and other not in asked):
            left_out["of_unknown_takes"] += 1
        elif value is None:
            left_out["heard_and_not_rated"] += 1
        elif event["event"] != "preferred":
            # A listener's last word counts.
            ratings[first][event["listener"]] = value
        elif asked[first] != asked[other] or first == other:
            left_out["of_two_requests"] += 1
        else:
            low, high = sorted((first, other))
            votes[low, high].append(1 if first == low else -1)
    compared = _compared(votes, left_out)
    taken = {take for pair in votes for take in pair}
    by_request = defaultdict[str, list[str]](list)
    for take in sorted(set(ratings) - taken):
        by_request[asked[take]].append(take)
    ranked = [pair for group in by_request.values() for pair in _ranked(group, ratings, left_out)]
    pairs = sorted((*compared, *ranked), key=lambda pair: (pair.preferred, pair.rejected))
    return Preferences(tuple(pairs), dict(sorted(left_out.items())))


def publish(
    found: Preferences,
    takes: Sequence[Heard],
    *,
    root: Folder,
    name: str,
    collections: Sequence[str],
    inputs: Mapping[str, Any],
) -> Dataset:
    """The pairs as a dataset; found, where that was done before.

    Args:
        takes: those that the pairs name.
        root: results root.
        name: of the new dataset.
        collections: source collections that the model of the takes knows.
        inputs: what the pairs were made of.

    Raises:
        UserError: there is no pair.
    """
    if not found.pairs:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in found.left_out.items())
        raise UserError(
            f"feedback {name} holds no pair of takes of one request that differ in it ({reasons or 'no event'})",
            remedy="gather ratings of several takes of each request",
        )
    inputs = {**inputs, "collections": list(collections), "version": PAIRS_VERSION}
    folder = lineage.place(root, kind=KIND, name=name, inputs=inputs)
    held = lineage.find(folder)
    if held is not None:
        return held
    table = _table(found.pairs, {take.take_id: take for take in takes}, collections=collections)
    file = lineage.write_file(folder, TABLE, to_parquet(table), rows=table.num_rows)
    splits = Counter(table.column("split").to_pylist())
    facts = {
        "pairs": table.num_rows,
        "splits": {split: splits[split] for split in SPLITS},
        "takes": len({take for pair in found.pairs for take in (pair.preferred, pair.rejected)}),
        "left_out": dict(found.left_out),
        "vocabulary": EVENTS.hash,
        "collections": list(collections),
    }
    return lineage.publish(folder, kind=KIND, name=name, inputs=inputs, files=[file], facts=facts)


def _compared(votes: Mapping[tuple[str, str], list[int]], left_out: Counter[str]) -> list[Preference]:
    found = []
    for (low, high), cast in votes.items():
        margin = statistics.fmean(cast)
        if margin == 0:
            left_out["undecided"] += 1
            continue
        preferred, rejected = (low, high) if margin > 0 else (high, low)
        found.append(Preference(preferred, rejected, len(cast), abs(margin)))
    return found


def _ranked(
    group: Sequence[str], ratings: Mapping[str, Mapping[str, float]], left_out: Counter[str]
) -> list[Preference]:
    means = {take: statistics.fmean(ratings[take].values()) for take in group}
    order, found = sorted(group, key=lambda take: (-means[take], take)), []
    for best, worst in zip(order[: len(order) // 2], reversed(order), strict=False):
        margin = means[best] - means[worst]
        if margin == 0:
            left_out["undecided"] += 1
        else:
            found.append(Preference(best, worst, len({*ratings[best], *ratings[worst]}), margin))
    return found


def _table(pairs: Sequence[Preference], takes: Mapping[str, Heard], *, collections: Sequence[str]) -> pa.Table:
    splits = _splits(pairs)

    def tokens(take: Heard) -> list[int]:
        return list(encode(on_grid(take.score), controls_of(take.request, collections=collections)).tolist())

    rows = [
        {
            "request": takes[pair.preferred].request.model_copy(update={"seed": 0}).model_dump_json(exclude={"seed"}),
            "vocabulary": EVENTS.hash,
            "preferred_take": pair.preferred,
            "rejected_take": pair.rejected,
            "preferred": tokens(takes[pair.preferred]),
            "rejected": tokens(takes[pair.rejected]),
            "listeners": pair.listeners,
            "margin": pair.margin,
            "split": split,
        }
        for pair, split in zip(pairs, splits, strict=True)
    ]
    return to_table(rows, PAIRS)


def _splits(pairs: Sequence[Preference]) -> list[str]:
    """Split of each pair: groups that share takes, in an order of hashes: valid and test get a tenth, at least one."""
    groups = _groups(pairs)
    order = sorted(groups, key=lambda take: hashlib.sha256(take.encode()).digest())
    wanted = max(round(HELD_OUT_SHARE * len(pairs)), 1)
    split_of, held = dict[str, str](), Counter[str]()
    for take in order:
        free = (split for split in (VALID, TEST) if held[split] < wanted)
        # What is learnt from comes first where there is little.
        split = next(free, TRAIN) if split_of else TRAIN
        split_of[take] = split
        held[split] += len(groups[take])
    of_pair = {pair: split_of[take] for take, members in groups.items() for pair in members}
    return [of_pair[pair] for pair in pairs]


def _groups(pairs: Sequence[Preference]) -> dict[str, list[Preference]]:
    """Pairs by the smallest identity among all takes that they share, directly or through others."""
    above: dict[str, str] = {}

    def root(take: str) -> str:
        while above.setdefault(take, take) != take:
            take = above[take]
        return take

    for pair in pairs:
        low, high = sorted((root(pair.preferred), root(pair.rejected)))
        above[high] = low
    groups = defaultdict[str, list[Preference]](list)
    for pair in pairs:
        groups[root(pair.preferred)].append(pair)
    return groups
