"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from tutti.training.recipe import TrainingRecipe


def learning_rate(step: int, recipe: TrainingRecipe) -> float:
    """Linear warm-up, then half a cosine down to the final share (Loshchilov and Hutter, arXiv 1608.03983).

    Args:
        step: counted from 0.
    """
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    gone = (step - recipe.warmup_steps) / max(recipe.steps - 1 - recipe.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(gone, 1.0)))
    share = recipe.final_learning_rate_share
    return recipe.learning_rate * (share + (1 - share) * cosine)
