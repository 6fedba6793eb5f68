"""What a recipe with ``tuning`` adds to a training: the model to tune, and pairs of takes in place of works alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jobs.examples import Examples
from jobs.feedback import found_at
from jobs.recipe import Recipe
from tutti.catalogue.feedback import KIND
from tutti.config import build, digest_of
from tutti.errors import RecipeError
from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.registry.versions import ModelVersion, Registry
from tutti.storage import Folder
from tutti.telemetry import Reporter
from tutti.training.examples import TUNING, configuration_of
from tutti.training.recipe import ModelRecipe, PreferenceRecipe
from tutti.training.tuning import check_parent, prepare


@dataclass(frozen=True)
class Parent:
    """The model that is tuned: its version and all of it."""

    version: ModelVersion
    bundle: Bundle


def parent_of(recipe: Recipe, *, registry: Registry) -> Parent | None:
    """The model that a recipe tunes; None where it tunes none.

    Raises:
        MissingError: there is no such version.
        RecipeError: pairs cannot tune it.
    """
    if recipe.tuning is None:
        return None
    version = registry.resolve(recipe.tuning.model)
    bundle = bundles.load(registry.fetch(version))
    check_parent(bundle, name=str(version))
    return Parent(version, bundle)


def followed(recipe: Recipe, parent: Parent) -> Recipe:
    """The recipe with its parent's network, which learns from pairs.

    Raises:
        RecipeError: another version of Tutti made the parent, and this one cannot make its like.
    """
    bundle, training = parent.bundle, recipe.training
    training = training.model_copy(update={"preference": training.preference or PreferenceRecipe()})
    decided = TUNING.shape(training)
    # Both log-likelihoods of a pair are of whole networks: nothing is dropped.
    settings = {name: value for name, value in bundle.configuration.items() if name not in {*decided, "dropout"}}
    tree = {"family": bundle.family, "flavour": bundle.flavour, "dropout": 0.0, "settings": settings}
    model = build(ModelRecipe, tree, origin=str(parent.version))
    made = configuration_of(model, training).to_dict()
    # What came to the family after the parent was trained says nothing of it.
    if digest_of({**made, **bundle.configuration, "dropout": 0.0}) != digest_of(made):
        raise RecipeError(f"{parent.version} was made for other shapes than this version's", remedy="train it again")
    return recipe.model_copy(update={"model": model, "training": training})


def examples_of(recipe: Recipe, works: Examples, *, parent: Parent, root: Folder, reporter: Reporter) -> Examples:
    """Pairs and works as examples of a tuning.

    Args:
        recipe: with ``tuning``.
        works: the parent's own examples, made of the recipe's corpus.

    Raises:
        MissingError: there are no such pairs.
        RecipeError: the recipe's corpus is not the parent's, or its pairs are of another model.
        UserError: no pair can be learnt from.
    """
    assert recipe.tuning is not None
    known, here = parent.bundle.collections, tuple(works.told["collections"])
    if known != here:
        raise RecipeError(
            f"{parent.version} knows the collections {', '.join(known)}, and the recipe's corpus has {', '.join(here)}",
            remedy="name the corpus that it was trained on",
        )
    pairs = found_at(recipe.tuning.pairs, kind=KIND, root=root)
    dataset = prepare(
        parent.bundle, pairs=pairs, sequences=works.dataset, root=root, name=recipe.name, reporter=reporter
    )
    told = {
        "parent": str(parent.version),
        "parent_digest": parent.version.digest,
        "pairs": dict(dataset.facts["pairs"]),
        "pairs_address": pairs.folder.uri,
    }
    return replace(works, dataset=dataset, told={**works.told, "tuning": told}, baselines=dict)
