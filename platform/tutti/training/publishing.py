"""The end of a training: its model as a bundle, its curves, and the manifest that makes the run exist."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutti import lineage
from tutti.dataset.loader import Loader
from tutti.models.bundle import Bundle
from tutti.training.examples import configuration_of, kind_of
from tutti.training.plan import Plan
from tutti.training.tracker import Tracker

ORDER = "order.csv"
ORDER_HEAD = "step,batch,row,source,epoch,sequence"


@dataclass(frozen=True)
class Result:
    """What a training came to.

    Args:
        weights: of the model, whole.
        configuration: of the model, as its family knows it.
        history: curves; ``order`` among them where it was recorded.
        facts: sections for the model's card.
    """

    weights: dict[str, Tensor]
    configuration: Any
    history: dict[str, list[Any]]
    facts: dict[str, Any]


def bundle_of(plan: Plan, *, weights: dict[str, Tensor], configuration: Any, facts: dict[str, Any]) -> Bundle:
    """A plan's model with these weights."""
    return Bundle(
        family=plan.model.family,
        flavour=plan.model.flavour,
        configuration=configuration.to_dict(),
        weights=weights,
        vocabulary=kind_of(plan.model, plan.training).vocabulary,
        collections=plan.collections,
        facts={**facts, "parameters": configuration.parameters, "name": plan.name},
    )


def about(plan: Plan, configuration: Any, *, workers: int, score: str) -> dict[str, Any]:
    """What a checkpoint says of its model, so that a bundle can be made of it where the plan is not known."""
    recipe = plan.training
    return {
        "family": plan.model.family,
        "flavour": plan.model.flavour,
        "configuration": configuration.to_dict(),
        "vocabulary": list(kind_of(plan.model, plan.training).vocabulary),
        "collections": list(plan.collections),
        "facts": {
            "name": plan.name,
            "parameters": configuration.parameters,
            "score": score,
            "data": dict(plan.data),
            "measures": {f"{name}_nll_nats_per_token": value for name, value in plan.baselines.items()},
            "training": {
                "recipe_digest": plan.fingerprint or recipe.digest(),
                "sequence_tokens": recipe.sequence_tokens,
                "unit": kind_of(plan.model, plan.training).layout(recipe, configuration).unit,
                "workers": workers,
                "strategy": recipe.strategy,
            },
        },
    }


def publish(plan: Plan, result: Result, *, tracker: Tracker) -> None:
    """Write the run's files and, last, its manifest.

    Raises:
        PlaceError: storage is away or full.
    """
    bundle = bundle_of(plan, weights=result.weights, configuration=result.configuration, facts=result.facts)
    curves = {name: points for name, points in result.history.items() if name != "order"}
    picture = picture_of(plan, curves)
    tracker.artifact("pictures/loss.png", picture)
    contents = {f"bundle/{name}": data for name, data in bundle.files().items()}
    contents |= {"pictures/loss.png": picture, "history.json": json.dumps(curves).encode()}
    if plan.training.record_order:
        contents[ORDER] = order_file(result.history["order"])
    files = [lineage.write_file(plan.run, path, data) for path, data in contents.items()]
    facts = {**result.facts, "digest": bundle.digest(), "parameters": result.configuration.parameters}
    lineage.publish(plan.run, kind="runs", name=plan.name, inputs=plan.inputs, files=files, facts=facts)


def picture_of(plan: Plan, history: dict[str, list[Any]]) -> bytes:
    """The loss curves as PNG."""
    # Matplotlib is a sixth of what a worker imports, and workers that come up after a failure are waited for.
    from tutti.training.picture import loss_curve_png

    judge = kind_of(plan.model, plan.training).judge
    train = [] if judge else history["train"]
    return loss_curve_png(
        steps=[int(step) for step, _ in train],
        train_loss=[loss for _, loss in train],
        valid_steps=[int(step) for step, _ in history["valid"]],
        valid_loss=[loss for _, loss in history["valid"]],
        baselines=plan.baselines,
        title=f"{plan.name}: {plan.model.family} {plan.model.flavour}",
        **({"unit": judge(configuration_of(plan.model, plan.training)).score_name.replace("_", " ")} if judge else {}),
    )


def order_rows(loader: Loader, *, step: int, number: int, rows: range) -> list[list[int]]:
    """Some rows of a step's batch, as :func:`order_file` takes them.

    Args:
        number: of the batch.
        rows: of the global batch: one rank's.
    """
    sources, epochs, sequences = loader.order(number)
    return [[step, number, row, int(sources[row]), int(epochs[row]), int(sequences[row])] for row in rows]


def order_file(rows: list[list[int]]) -> bytes:
    """Which sequence every row of every step's batch was, as CSV: the same bytes whatever happened on the way."""
    lines = [",".join(map(str, row)) for row in sorted(rows)]
    return "\n".join([ORDER_HEAD, *lines, ""]).encode()
