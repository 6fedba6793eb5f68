"""What a training learns from: the works of a recipe as examples of the kind that its family reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from jobs import encode, notes
from jobs.recipe import Recipe
from tutti.dataset import packing, shards
from tutti.dataset.rolls import pack_rolls
from tutti.dataset.voices import pack_voices
from tutti.features.augment import transpose
from tutti.features.vocabulary import BAR, END, EVENTS
from tutti.lineage import Dataset
from tutti.metrics.ngram import CountModel
from tutti.models.families import family_of
from tutti.storage import Folder
from tutti.telemetry import Reporter

HOP_BARS = 2
"""From one window of a work to the next: every bar comes twice, and phrases begin where those of songs and chorales
do."""
_DATA_FACTS = ("works", "notes", "splits", "licences", "collections", "programs")


@dataclass(frozen=True)
class Examples:
    """Examples of one kind.

    Args:
        dataset: what the training reads.
        told: facts of the data for the model's card.
        baselines: NLL of count models on the valid split, nats per token, by name; counted when it is asked for.
        tokens: the encoded works, where they were encoded on the way.
        decided: what the examples decide of the model's settings.
    """

    dataset: Dataset
    told: Mapping[str, Any]
    baselines: Callable[[], dict[str, float]] = dict
    tokens: Dataset | None = None
    decided: Mapping[str, Any] = field(default_factory=dict)


def prepare(recipe: Recipe, works: Dataset | None, *, root: Folder, reporter: Reporter) -> Examples:
    """The examples of a recipe's family, each step of them only where it was not done before.

    Args:
        works: the ingested corpus; None where the recipe names none.

    Raises:
        UserError: no work has a licence that was named, or none becomes such an example.
    """
    return PREPARERS[family_of(recipe.model.family).reads](recipe, works, root, reporter)


def _sequences(recipe: Recipe, works: Dataset | None, root: Folder, reporter: Reporter) -> Examples:
    assert works is not None
    tokens = encode.run(works, licences=recipe.licences, root=root, reporter=reporter)
    dataset = packing.pack(
        tokens, root=root, name=recipe.name, sequence_tokens=recipe.training.sequence_tokens, reporter=reporter
    )
    return Examples(
        dataset,
        {"works_address": works.folder.uri, "tokens_address": tokens.folder.uri, **_facts(tokens, "tokens")},
        lambda: count_baselines(tokens, most_semitones=recipe.training.most_semitones),
        tokens,
    )


def _voices(recipe: Recipe, works: Dataset | None, root: Folder, reporter: Reporter) -> Examples:
    assert works is not None
    dataset = PACKERS["voices"](works, licences=recipe.licences, root=root, name=recipe.name, reporter=reporter)
    return Examples(dataset, {"works_address": works.folder.uri, **_facts(dataset, "tokens")})


def _rolls(recipe: Recipe, works: Dataset | None, root: Folder, reporter: Reporter) -> Examples:
    assert works is not None
    dataset = PACKERS["rolls"](works, licences=recipe.licences, root=root, name=recipe.name, reporter=reporter)
    return Examples(dataset, {"works_address": works.folder.uri, **_facts(dataset, "track_programs")})


def _spectra(recipe: Recipe, works: Dataset | None, root: Folder, reporter: Reporter) -> Examples:
    assert recipe.notes is not None
    dataset = notes.packed(
        recipe.notes, works, licences=recipe.licences, name=recipe.name, root=root, reporter=reporter
    )
    facts = dataset.facts
    told = {
        "spectra_address": dataset.folder.uri,
        "notes": sum(facts["split_notes"].values()),
        "splits": facts["split_notes"],
        "licences": facts["licences"],
        "collections": facts["instruments"],
    }
    return Examples(dataset, told, decided=recipe.notes.decides(instruments=len(facts["instruments"])))


PACKERS: dict[str, Callable[..., Dataset]] = {
    "voices": pack_voices,
    "rolls": partial(pack_rolls, hop_bars=HOP_BARS),
}
"""Examples that are made of works and licences alone, by their kind; each takes ``(works, *, licences, root, name,
reporter)``."""

PREPARERS: dict[str, Callable[[Recipe, Dataset | None, Folder, Reporter], Examples]] = {
    "sequences": _sequences,
    "voices": _voices,
    "rolls": _rolls,
    "spectra": _spectra,
}
"""By the kind of examples that a family reads."""


def count_baselines(tokens: Dataset, *, most_semitones: int) -> dict[str, float]:
    """NLL on the valid split of count models that saw the training split in every transposition of the training."""
    judged = np.arange(len(EVENTS)) >= BAR
    judged[END] = True
    train, valid = (shards.read(tokens, split=split) for split in ("train", "valid"))
    model = CountModel(len(EVENTS))
    for semitones in range(-most_semitones, most_semitones + 1):
        moved = (transpose(train[piece], semitones=semitones) for piece in range(len(train)))
        model.fit(moved, judged=judged)
    return model.nll([valid[piece] for piece in range(len(valid))], judged=judged)


def _facts(dataset: Dataset, *more: str) -> dict[str, Any]:
    return {name: dataset.facts[name] for name in (*_DATA_FACTS, *more)}
