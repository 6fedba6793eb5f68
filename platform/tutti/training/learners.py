"""Which learner a recipe's family wants: a new way of learning is a file beside this one and a branch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from tutti.models.families import family_of
from tutti.models.family import Adversarial, Configuration, Likelihood
from tutti.training import strategy
from tutti.training.adversarial import AdversarialLearner
from tutti.training.examples import KINDS
from tutti.training.learner import Learner
from tutti.training.likelihood import LikelihoodLearner
from tutti.training.networks import Networks
from tutti.training.preference import PreferenceLearner
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe


def build(
    model: ModelRecipe,
    configuration: Configuration,
    recipe: TrainingRecipe,
    *,
    ranks: Ranks,
    weights: Mapping[str, Tensor] | None = None,
) -> Learner:
    """One rank's learner.

    Args:
        configuration: of the model, see :func:`tutti.training.examples.configuration_of`.
        weights: that the network which makes music starts from; None: drawn from torch's own stream, as the others'.
    """
    family = family_of(model.family)
    objective = family.objective(configuration)
    betas = cast(Adversarial, objective).betas if family.learning == "adversarial" else None
    fresh = family.networks(configuration)
    if weights is not None:
        fresh[family.maker].load_state_dict(dict(weights))
    networks = Networks({
        name: strategy.build(network, recipe, device=ranks.device, num_ranks=ranks.num_ranks, betas=betas)
        for name, network in fresh.items()
    })  # fmt: skip
    if recipe.preference is not None:
        return PreferenceLearner(networks, recipe, recipe.preference, ranks=ranks)
    if family.learning == "adversarial":
        judge = KINDS[family.reads].judge
        assert judge is not None, f"nobody judges {family.reads}"
        return AdversarialLearner(
            networks, cast(Adversarial, objective), recipe, ranks=ranks, judge=judge(configuration)
        )
    return LikelihoodLearner(networks, cast(Likelihood, objective), recipe, ranks=ranks)
