"""What a training needs to know, as plain values that travel to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tutti.storage import Folder
from tutti.training.recipe import ModelRecipe, TrainingRecipe


@dataclass(frozen=True)
class Plan:
    """One training.

    Args:
        name: for people.
        model, training: the recipe.
        tokens: folder of the token dataset.
        run: folder of this run: checkpoints while it runs, the bundle and its manifest at the end.
        inputs: what the run's address was made of.
        collections: source collections by slot.
        baselines: NLL of count models on the valid split, nats per token, by name.
        data: facts of the data for the model's card: addresses, works, notes, licences.
    """

    name: str
    model: ModelRecipe
    training: TrainingRecipe
    tokens: Folder
    run: Folder
    inputs: Mapping[str, Any]
    collections: tuple[str, ...]
    baselines: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Progress:
    """Figures of one step, for whoever watches.

    Args:
        step: steps done.
        loss: mean NLL of the step's tokens, nats per token.
        valid_nll: of the last validation, nats per token.
        tokens_per_s: learnt tokens a second over all ranks, since this process began.
    """

    step: int
    steps: int
    loss: float
    valid_nll: float | None
    tokens_per_s: float
