"""How long one micro-batch takes: tried on this machine where the recipe's device is here, assumed where it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tutti.models.family import Configuration
from tutti.training import learners
from tutti.training.ceiling import matmul_flops_per_s
from tutti.training.examples import configuration_of, kind_of
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe, Workers
from tutti.training.sizing import RECOMPUTATION, Asked

UTILISATION = 0.3
"""Share of the matrix-product ceiling that a training step is taken to reach, where none can be tried."""
ABSENT_GPU_FLOPS_PER_S = {"fp32": 19.5e12, "bf16": 312e12}
"""Of an A100 by its maker's sheet: what a recipe with GPUs is reckoned with where no GPU is here."""
MOST_S = 6.0
"""A rehearsal that would take longer is not made."""
# One grain and two, each once to warm up and once for the clock.
_EXAMPLES_TRIED = 6
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Pace:
    """Seconds of one micro-batch's forward and backward, and of one update of the weights, on one worker.

    Args:
        how: where the figures come from, for people.
    """

    micro_batch_s: float
    optimizer_s: float
    how: str


def pace_of(model: ModelRecipe, recipe: TrainingRecipe, asked: Asked) -> Pace:
    """The pace of a training on this machine, within seconds.

    Args:
        model, recipe: what is to be trained, and how.
        asked: its size.
    """
    if asked.gpus_per_worker and not torch.cuda.is_available():
        ceiling = ABSENT_GPU_FLOPS_PER_S[asked.precision]
        return _assumed(asked, ceiling, "no GPU is here; an A100")
    device = torch.device("cuda" if asked.gpus_per_worker else "cpu")
    dtype = _DTYPES[asked.precision]
    ceiling = matmul_flops_per_s(device=device, dtype=dtype, threads=asked.threads_per_worker)
    of_example_s = asked.places * asked.flops_per_place / (ceiling * UTILISATION)
    rows = min(asked.micro_batch, int(MOST_S / _EXAMPLES_TRIED / of_example_s))
    if rows < 1:
        return _assumed(asked, ceiling, "too slow to be tried here; this machine")
    return rehearsed(model, recipe, asked, rows=rows, device=device)


def _assumed(asked: Asked, ceiling: float, whose: str) -> Pace:
    flops = asked.micro_batch * asked.places * asked.flops_per_place
    again = RECOMPUTATION if asked.activation_checkpointing else 1.0
    how = f"assumed: {whose} at {UTILISATION:.0%} of {ceiling / 1e12:.3g} TFLOP/s"
    return Pace(flops * again / (ceiling * UTILISATION), 0.0, how)


def rehearsed(model: ModelRecipe, recipe: TrainingRecipe, asked: Asked, *, rows: int, device: torch.device) -> Pace:
    """The pace of steps of one grain and of two, done for real; random examples cost what music does."""
    configuration = configuration_of(model, recipe)
    with _alone(asked.threads_per_worker):
        one_s, two_s = (
            _step_s(model, _here(recipe, rows=rows, grains=grains), configuration, device=device) for grains in (1, 2)
        )
    again = RECOMPUTATION if asked.activation_checkpointing else 1.0
    # A machine that is busy with something else may turn the two around.
    grain_s = max(two_s - one_s, one_s / 2)
    tried = f"{rows} of {asked.micro_batch} examples" if rows < asked.micro_batch else "a micro-batch"
    return Pace(
        grain_s * asked.micro_batch / rows * again, max(one_s - grain_s, 0.0), f"{tried} timed here on {device.type}"
    )


def _here(recipe: TrainingRecipe, *, rows: int, grains: int) -> TrainingRecipe:
    """The recipe for one process, with steps of so many grains."""
    changes = {
        "strategy": "plain", "workers": Workers(min=1, max=1), "offload": "none", "compile": False,
        "activation_checkpointing": False, "batch_sequences": rows * grains, "micro_batch_sequences": rows,
    }  # fmt: skip
    return recipe.model_copy(update=changes)


def _step_s(model: ModelRecipe, recipe: TrainingRecipe, configuration: Configuration, *, device: torch.device) -> float:
    """Seconds of a step after one to warm up; the mean where not every step is alike."""
    learner = learners.build(model, configuration, recipe, ranks=Ranks(device=device))
    batch = kind_of(model, recipe).random(recipe, configuration)
    start_s = 0.0
    for step in range(1 + learner.cycle_steps):
        if step == 1:
            start_s = _now_s(device)
        learner.learn(batch, step=step, num_targets=batch.num_targets, poison=1.0)
    return (_now_s(device) - start_s) / learner.cycle_steps


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def _alone(threads: int) -> Iterator[None]:
    """As a worker computes: with its threads, and draws that disturb nobody's."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)
