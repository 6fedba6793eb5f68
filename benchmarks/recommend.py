"""Recommendations on held-out feedback: the blend beside popularity, each of its views alone, and chance.

**The listeners are simulated**: no listening data may be shipped or fetched. The works are real (MIDI of ``--corpus``),
described as takes are. A listener belongs to one of eight groups; a taste is a point and how much each descriptor
matters, drawn around the group's, of which the point is a real work's. What a listener thinks of a work is made of how
near it lies to the taste (what descriptors tell), how the group takes to its composer (what no descriptor tells, but
others' ratings do), the work's own quality, the same for all, and noise. ``--hidden`` is the share of the second beside
the first. What is heard is drawn by fame (quality and chance; ``--fame`` says how unevenly) with a lean to one's own
taste, and rated -1 to 1 in five steps. A fifth of all works is heard by nobody: the new ones.

Three questions, of each listener:

- **heard next**: a fifth of what was heard is held out; all other known works are ranked; relevant is what was held out
  and rated 0.5 or more. What is famous is heard next, whatever it is like, so popularity is hard to beat here.
- **offered, known**: of 100 known works, drawn evenly of those not rated yet, those that the listener would rate 1.
- **offered, new**: of all new works, those that the listener would rate 1.

NDCG@10 and recall@10, mean over listeners, with 95 % intervals of a bootstrap over them. The simulation's own taste
is the ceiling of the latter two. The blend's regression knows the descriptors that tastes are made of: real tastes will
be less obliging, and the figures say how the parts work together, not how well people will be served.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.harness import Bench, run
from tutti.catalogue.recommend_blend import Blend, Ratings, ndcg
from tutti.catalogue.search import FEATURES, standardised
from tutti.catalogue.search_index import COLUMNS, Index
from tutti.corpus.midi import read_midi
from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.scores import from_music21
from tutti.errors import TuttiError
from tutti.features.descriptors import describe
from tutti.features.mood import mood_word
from tutti.tables import TAKES

Figures = NDArray[np.float64]
Ranker = Callable[[int], Figures]
CORPORA = Path(__file__).resolve().parents[2] / "shared" / "corpora"
CHORALES, CHORALE_TEMPO_QPM = 200, 80.0
TOP = 10
NEW_SHARE = 0.2
OFFERED = 100
HELD_OUT_SHARE = 0.2
RELEVANT = 0.5
MOST_NOTES = 20_000
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class World:
    """Works, listeners and what they rate.

    Args:
        features: of each work, standardised; shape (I, F).
        is_new: works that nobody hears; shape (I,).
        train, test: ratings of what was heard.
        taste: what each listener thinks of each work, without noise; shape (L, I).
        would: how each listener would rate each work; shape (L, I).
    """

    features: Figures
    is_new: NDArray[np.bool_]
    train: Ratings
    test: Ratings
    taste: Figures
    would: Figures


def works_of(corpus: Path, *, most: int) -> tuple[Index, list[str]]:
    """Real works as takes, and who made each: MIDI files, or else Bach chorales of music21, each of its own maker."""
    scores, titles, makers = list[Score](), list[str](), list[str]()
    for path in np.random.default_rng(5).permutation(sorted(map(str, corpus.rglob("*.mid")))):
        if len(scores) == most:
            break
        try:
            score = read_midi(Path(path).read_bytes())
        except TuttiError:
            continue
        if 16 <= len(score.notes) <= MOST_NOTES:
            scores.append(score)
            titles.append(Path(path).stem)
            makers.append(_maker(Path(path)))
    if not scores:
        from music21 import corpus as scores21

        titles = makers = [str(name) for name in scores21.getComposer("bach")[:CHORALES]]
        scores = [from_music21(scores21.parse(name), tempo_without_mark_qpm=CHORALE_TEMPO_QPM) for name in titles]
    table = _table(scores, titles)
    return Index.of([table]), makers


def _table(scores: list[Score], titles: list[str]) -> pa.Table:
    described = describe(ScoreBatch.of(scores))
    columns = {
        **{name: described[name] for name in COLUMNS if name in described},
        "take_id": [f"{at:024x}" for at in range(len(scores))],
        "title": titles,
        "order": ["works"] * len(scores),
        "verdict": ["accepted"] * len(scores),
        "asked_key": [None] * len(scores),
        "mood": list(map(mood_word, described["valence"].to_pylist(), described["arousal"].to_pylist())),
        "tempo_qpm": described["tempo_mean_qpm"],
        "midi_path": titles,
        "audio_path": [None] * len(scores),
    }  # fmt: skip
    table = pa.table({name: pa.array(columns[name], TAKES.field(name).type) for name in COLUMNS})
    return table.append_column("catalogue", pa.array([""] * len(scores)))


def _maker(path: Path) -> str:
    """The composer that Mutopia writes before the title, else the folder."""
    return path.stem.split("__")[0] if "__" in path.stem else path.parent.name


def simulate(
    index: Index, folders: list[str], *, listeners: int, each: int, hidden: float, fame: float, seed: int
) -> World:
    """Listeners with tastes over real works; see the module's head."""
    draw = np.random.default_rng(seed)
    features = standardised(index)
    known = features[:, : len(FEATURES)]
    names = sorted(set(folders))
    folder = np.array([names.index(name) for name in folders])
    groups = 8
    centres = known[draw.integers(0, len(known), groups)]
    matters = draw.dirichlet(np.full(known.shape[1], 0.4), groups)
    takes_to = draw.normal(size=(groups, len(names)))
    quality = draw.normal(size=len(known))
    is_new = draw.random(len(known)) < NEW_SHARE
    famous = np.where(is_new, 0.0, np.exp(fame * (0.6 * quality + 0.8 * draw.normal(size=len(known)))))
    taste, would = np.zeros((listeners, len(known))), np.zeros((listeners, len(known)))
    who, what = np.repeat(np.arange(listeners), each), np.zeros(listeners * each, dtype=np.int64)
    for listener in range(listeners):
        group = int(draw.integers(groups))
        point = centres[group] + 0.5 * draw.normal(size=known.shape[1])
        weight = draw.dirichlet(60 * matters[group] + 0.05)
        told, untold = _standing(-np.square(known - point) @ weight), _standing(takes_to[group][folder])
        own = np.sqrt(1 - hidden) * told + np.sqrt(hidden) * untold
        taste[listener] = 0.8 * own + 0.4 * quality
        liking = taste[listener] + 0.3 * draw.normal(size=len(known))
        would[listener] = np.clip(np.round(2 * np.tanh(liking)) / 2, -1, 1)
        chance = famous * np.exp(0.5 * own)
        what[who == listener] = draw.choice(len(known), each, replace=False, p=chance / chance.sum())
    ratings = Ratings(who, what, would[who, what], listeners)
    held = draw.random(len(what)) < HELD_OUT_SHARE
    return World(features, is_new, ratings.where(~held), ratings.where(held), taste, would)


def _standing(scores: Figures) -> Figures:
    return np.asarray((scores - scores.mean()) / max(scores.std(), 1e-9))


def rankers(world: World, *, seed: int) -> dict[str, Ranker]:
    """Contenders: scores of every work for a listener."""
    num_items = len(world.features)
    blend = Blend.fit(world.train, world.features, seed=seed)
    liked = np.bincount(world.train.items, weights=world.train.values > 0, minlength=num_items)
    listener_factors, item_factors = _implicit(world, seed=seed)
    chance = np.random.default_rng(seed)
    return {
        "popularity": lambda _: liked,
        "chance": lambda _: chance.random(num_items),
        "implicit alone": lambda listener: item_factors @ listener_factors[listener],
        "others, new by features": lambda listener: blend.views.of(listener)[0],
        "content": lambda listener: blend.views.of(listener)[1],
        "blend": blend.scores,
        "the simulation's own taste": lambda listener: world.taste[listener],
    }


def _implicit(world: World, *, seed: int) -> tuple[Figures, Figures]:
    """The peer as its users call it: likes as a matrix, its own defaults but one thread and 32 factors."""
    import scipy.sparse as sparse
    from implicit.cpu.als import AlternatingLeastSquares

    kept = world.train.where(world.train.values > 0)
    shape = (kept.num_listeners, len(world.features))
    matrix = sparse.csr_matrix((kept.values.astype(np.float32), (kept.listeners, kept.items)), shape=shape)
    model = AlternatingLeastSquares(factors=32, random_state=seed, num_threads=1)
    model.fit(matrix, show_progress=False)
    return model.user_factors.astype(np.float64), model.item_factors.astype(np.float64)


Question = Callable[[World, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Candidates and, of them, what is relevant, for a listener."""


def heard_next(world: World, listener: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All known works that are not rated, and what was held out and liked."""
    kept = (world.test.listeners == listener) & (world.test.values >= RELEVANT)
    return np.flatnonzero(_unrated(world, listener)), world.test.items[kept]


def offered_known(world: World, listener: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Known works drawn evenly, and those that would be rated 1."""
    able = np.flatnonzero(_unrated(world, listener))
    offered = np.random.default_rng((listener, 17)).choice(able, min(OFFERED, len(able)), replace=False)
    return offered, offered[world.would[listener, offered] == 1]


def offered_new(world: World, listener: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All new works, and those that would be rated 1."""
    offered = np.flatnonzero(world.is_new)
    return offered, offered[world.would[listener, offered] == 1]


def _unrated(world: World, listener: int) -> NDArray[np.bool_]:
    able = ~world.is_new
    able[world.train.items[world.train.listeners == listener]] = False
    return able


def judge(ranker: Ranker, world: World, question: Question) -> tuple[Figures, Figures]:
    """NDCG and recall of each listener, NaN where nothing is relevant; each of shape (listeners,)."""
    gains, recalls = (np.full(world.train.num_listeners, np.nan) for _ in range(2))
    for listener in range(world.train.num_listeners):
        candidates, relevant = question(world, listener)
        if not len(relevant):
            continue
        scores = np.asarray(ranker(listener), dtype=np.float64)[candidates]
        # Equal scores are ranked by chance, not by their place in the table.
        order = np.lexsort((np.random.default_rng(listener).random(len(scores)), -scores))
        gains[listener] = ndcg(candidates[order], relevant, top=TOP)
        recalls[listener] = np.isin(candidates[order[:TOP]], relevant).sum() / min(TOP, len(relevant))
    return gains, recalls


def interval(values: Figures) -> tuple[float, float]:
    """95 % interval of a mean, by bootstrap over listeners."""
    draw = np.random.default_rng(1)
    means = values[draw.integers(0, len(values), (BOOTSTRAPS, len(values)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def measure(bench: Bench) -> None:
    """Simulate, learn, rank, judge."""
    settings = bench.settings
    index, folders = works_of(Path(bench.arguments.corpus), most=int(settings["works"]))
    world = simulate(
        index, folders, listeners=int(settings["listeners"]), each=int(settings["each"]),
        hidden=settings["hidden"], fame=settings["fame"], seed=int(settings["seed"]),
    )  # fmt: skip
    found = rankers(world, seed=0)
    questions = {"heard next": heard_next, "offered, known": offered_known, "offered, new": offered_new}
    for word, question in questions.items():
        base = np.zeros(0)
        for name, ranker in found.items():
            gains, recalls = judge(ranker, world, question)
            base = gains if name == "popularity" else base
            told = []
            for measured, values in (("ndcg@10", gains), ("recall@10", recalls), ("over popularity", gains - base)):
                values = values[~np.isnan(values)]
                low, high = interval(values)
                told.append(f"{measured} {values.mean():.3f} ({low:.3f} to {high:.3f})")
                if measured != "over popularity":
                    bench.record(f"{measured}, {word}", name, float(values.mean()), unit="")
            bench.note(f"{word}, {name}: {', '.join(told)}")
            if name == "blend":
                bench.name(f"recommend_ndcg_{word.replace(', ', '_').replace(' ', '_')}", float(np.nanmean(gains)))
    bench.note(
        f"{len(index):,} real works, {world.train.num_listeners} simulated listeners, {len(world.train):,} ratings "
        f"learnt from, {len(world.test):,} held out, {int(world.is_new.sum())} new works"
    )


def corpus_option(parser: argparse.ArgumentParser) -> None:
    """Where the works come from."""
    parser.add_argument("--corpus", default=str(CORPORA), help="folder of MIDI files")


if __name__ == "__main__":
    run(
        "recommendations",
        measure,
        settings={
            "works": (1500, "most works"),
            "listeners": (400, "simulated listeners"),
            "each": (50, "works that each rates"),
            "hidden": (0.5, "share of taste that no descriptor tells"),
            "fame": (0.5, "how unevenly works are heard: 0 evenly, 1 the famous a hundred times as often as others"),
            "seed": (3, "of the simulation"),
        },
        extend=corpus_option,
    )
