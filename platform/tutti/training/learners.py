"""Which learner a recipe's family wants: a new way of learning is a file beside this one and a branch here."""

from __future__ import annotations

from typing import cast

from tutti.models.families import family_of
from tutti.models.family import Adversarial, Configuration, Likelihood
from tutti.training import strategy
from tutti.training.adversarial import AdversarialLearner
from tutti.training.examples import KINDS
from tutti.training.learner import Learner
from tutti.training.likelihood import LikelihoodLearner
from tutti.training.networks import Networks
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe


def build(model: ModelRecipe, configuration: Configuration, recipe: TrainingRecipe, *, ranks: Ranks) -> Learner:
    """One rank's learner with fresh weights, which are drawn from torch's own stream.

    Args:
        configuration: of the model, see :func:`tutti.training.examples.configuration_of`.
    """
    family = family_of(model.family)
    objective = family.objective(configuration)
    betas = cast(Adversarial, objective).betas if family.learning == "adversarial" else None
    networks = Networks({
        name: strategy.build(network, recipe, device=ranks.device, num_ranks=ranks.num_ranks, betas=betas)
        for name, network in family.networks(configuration).items()
    })  # fmt: skip
    if family.learning == "adversarial":
        judge = KINDS[family.reads].judge
        assert judge is not None, f"nobody judges {family.reads}"
        return AdversarialLearner(
            networks, cast(Adversarial, objective), recipe, ranks=ranks, judge=judge(configuration)
        )
    return LikelihoodLearner(networks, cast(Likelihood, objective), recipe, ranks=ranks)
