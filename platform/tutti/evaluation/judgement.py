"""How well a model foretells works that it never saw: the figures of training, made again by training's own code.

Convention: nats per token are a mean over all tokens of the split that are predicted, without padding and controls;
bits per note are the same sum over its notes, so that models with other tokens compare; of a model that only knows a
bound of its likelihood both are of the bound. Families that learn against a critic have none: their judges compare what
is generated under the split's conditions with its examples. Count models that saw the training split in every
transposition of the training stand beside models of tokens (:mod:`tutti.metrics.ngram`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutti.config import build
from tutti.dataset import shards
from tutti.dataset.loader import Loader
from tutti.features.augment import transpose
from tutti.features.vocabulary import BAR, END, EVENTS
from tutti.lineage import Dataset
from tutti.metrics.ngram import CountModel
from tutti.models import bundle as bundles
from tutti.models.families import family_of
from tutti.training import learners
from tutti.training.examples import kind_of
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe

NAT_FIGURE, BIT_FIGURE = "nll_nats_per_token", "bits_per_note"


def recipe_of(facts: Mapping[str, Any]) -> TrainingRecipe | None:
    """The recipe by which a model was trained, for one worker by torch alone; None where its facts hold none."""
    told = facts.get("training", {}).get("recipe")
    if told is None:
        return None
    alone = {**told, "strategy": "plain", "zero_stage": 0, "offload": "none", "workers": 1}
    # A model that was tuned by pairs is judged by works alone, as the one that it comes from.
    alone |= {"compile": False, "activation_checkpointing": False, "gpus_per_worker": 0, "preference": None}
    return build(TrainingRecipe, alone, origin="the recipe in the model's facts")


def judged(folder: Path, examples: Dataset, recipe: TrainingRecipe, *, split: str, device: str) -> dict[str, float]:
    """The measures of a split, by the names that training gives them.

    Args:
        folder: of the bundle.
        examples: of the kind that the family reads, packed as for the training.
        recipe: of :func:`recipe_of`.
        split: which works.
        device: where the network runs.

    Raises:
        UserError: the split is empty.
    """
    bundle = bundles.load(folder)
    family = family_of(bundle.family)
    model = ModelRecipe(family=bundle.family, flavour=bundle.flavour)
    configuration = family.read(bundle.configuration, dropout=0.0)
    learner = learners.build(model, configuration, recipe, ranks=Ranks(device=torch.device(device)))
    learner.networks[family.maker].network.load_state_dict(dict(bundle.weights))
    layout = kind_of(model, recipe).layout(recipe, configuration)
    loader = Loader(examples, split=split, layout=layout, batch_sequences=recipe.batch_sequences, seed=recipe.seed)
    with closing(loader):
        return learner.judged(loader).measures(split)


def counted(tokens: Dataset, *, split: str, most_semitones: int) -> dict[str, dict[str, float]]:
    """What tables of counts reach on a split: nats per token and bits per note of each, by its name."""
    is_judged = np.arange(len(EVENTS)) >= BAR
    is_judged[END] = True
    train, held_out = (shards.read(tokens, split=name) for name in ("train", split))
    model = CountModel(len(EVENTS))
    for semitones in range(-most_semitones, most_semitones + 1):
        moved = (transpose(train[piece], semitones=semitones) for piece in range(len(train)))
        model.fit(moved, judged=is_judged)
    pieces = [held_out[piece] for piece in range(len(held_out))]
    predicted = sum(int(np.count_nonzero(is_judged[tokens[1:]])) for tokens in pieces)
    return {
        name: {NAT_FIGURE: nats, BIT_FIGURE: nats * predicted / math.log(2) / held_out.notes}
        for name, nats in model.nll(pieces, judged=is_judged).items()
    }
