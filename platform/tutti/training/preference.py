"""Learning by pairs: what listeners preferred becomes likelier than what they rejected, beside a reference.

Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7). With ``l`` the log-likelihood of a
piece, under the model less under the reference, a pair's loss is ``-log sigmoid(beta * (l(preferred) - l(rejected)))``.
Two terms hold the model to what it knew: the NLL of works (as Ouyang et al. 2022, arXiv 2203.02155, mix in), and that
of the preferred pieces themselves (Pang et al. 2024, arXiv 2404.19733). The reference is the model that is tuned, and
what it says of every row came with the row.

Legend: B rows, S sides (preferred, rejected), T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from tutti import seeding
from tutti.dataset.batch import Batch
from tutti.dataset.loader import Loader
from tutti.dataset.pairs import PairBatch
from tutti.models.family import NOT_LEARNT
from tutti.training.learner import Learnt, tensors_of
from tutti.training.networks import ALONE, Networks
from tutti.training.ranks import Ranks
from tutti.training.recipe import PreferenceRecipe, TrainingRecipe
from tutti.training.schedule import learning_rate

_FIGURES = {
    "loss": "train_loss",
    "preference": "train_preference_loss",
    "agreed": "train_preference_accuracy",
    "works": "train_nll_nats_per_token",
}


def nats_of_sides(forward: Callable[..., Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """NLL of each side in nats, summed over its tokens to be learnt; 0 where there is no such side; shape (B, S).

    Args:
        forward: of a network that says the next token: tokens and segments to logits.
        batch: columns of a :class:`tutti.dataset.pairs.PairBatch`.
    """
    inputs, targets, segments = (batch[name].flatten(0, 1) for name in ("inputs", "targets", "segments"))
    there = segments[:, 0] >= 0
    # Sharded networks want a forward pass of every rank, also of one that has nothing but padding.
    there[0] |= ~there.any()
    rows = torch.nonzero(there).flatten()
    logits_RTV = forward(inputs[rows], segments[rows])
    nats_RT = functional.cross_entropy(
        logits_RTV.flatten(0, 1).float(), targets[rows].flatten(), ignore_index=NOT_LEARNT, reduction="none"
    ).view(len(rows), -1)
    nats = nats_RT.new_zeros(len(inputs)).index_copy(0, rows, nats_RT.sum(1))
    return nats.view(batch["inputs"].shape[:2])


def preference_loss(nats_BS: Tensor, reference_BS: Tensor, *, beta: float) -> Tensor:
    """Loss of each pair; shape (B,).

    Args:
        nats_BS, reference_BS: NLL of both sides under the model and under the reference.
    """
    return -functional.logsigmoid(beta * margins(nats_BS, reference_BS))


def margins(nats_BS: Tensor, reference_BS: Tensor) -> Tensor:
    """How much more likely than under the reference the preferred side became than the rejected, nats; shape (B,)."""
    gained_BS = reference_BS - nats_BS
    return gained_BS[:, 0] - gained_BS[:, 1]


@dataclass(frozen=True, slots=True)
class PreferenceJudgement:
    """What a split says of a tuned model.

    Args:
        nats, reference_nats: NLL of its works under the model and under the reference, summed.
        tokens, notes: of its works.
        pairs: how many it has.
        agreed: of how many the model's margin is above 0.
        loss: of pairs, summed.
        margin_nats: of pairs, summed.
    """

    nats: float
    reference_nats: float
    tokens: int
    notes: int
    pairs: int
    agreed: float
    loss: float
    margin_nats: float

    @property
    def score(self) -> float:
        """Mean loss of pairs; ln 2 for the reference itself."""
        return self.loss / self.pairs if self.pairs else math.log(2)

    def measures(self, split: str) -> dict[str, float]:
        """By the names that cards and trackers know; those of pairs where there are any."""
        told = {
            f"{split}_nll_nats_per_token": self.nats / self.tokens,
            f"{split}_bits_per_note": self.nats / math.log(2) / self.notes,
            f"{split}_nll_rise_share": self.nats / self.reference_nats - 1,
        }
        if self.pairs:
            told |= {
                f"{split}_preference_loss": self.score,
                f"{split}_preference_accuracy": self.agreed / self.pairs,
                f"{split}_preference_margin_nats": self.margin_nats / self.pairs,
                f"{split}_pairs": float(self.pairs),
            }
        return told


class PreferenceLearner:
    """One network that learns from pairs.

    Args:
        networks: it alone.
        recipe: steps, grains and seeds.
        preference: weights of the loss.
        ranks: this process among all.
    """

    cycle_steps = 1
    score_name = "preference_loss"

    def __init__(
        self, networks: Networks, recipe: TrainingRecipe, preference: PreferenceRecipe, *, ranks: Ranks
    ) -> None:
        self.networks = networks
        self._model = networks[ALONE]
        self._recipe, self._preference, self._ranks = recipe, preference, ranks

    def learn(self, share: Batch, *, step: int, num_targets: int, poison: float) -> Learnt:
        """One optimizer step over the global batch: means over its pairs, and over its works' tokens."""
        recipe, size, held = self._recipe, self._recipe.micro_batch, cast(PairBatch, share)
        pairs, tokens = self._ranks.summed([held.num_pairs, held.num_work_targets])
        micro_batches = recipe.num_grains // self._ranks.num_ranks
        sums: dict[str, Tensor] = {}
        for place in range(micro_batches):
            grain = self._ranks.rank * micro_batches + place
            torch.manual_seed(seeding.derive(recipe.seed, "dropout", step, grain))
            parts = self._parts(held.rows(place * size, (place + 1) * size), pairs=max(pairs, 1), tokens=max(tokens, 1))
            loss = poison * (
                parts["preference"]
                + self._preference.preferred_weight * parts.pop("preferred")
                + self._preference.works_weight * parts["works"]
            )
            self._model.backward(loss, last=place == micro_batches - 1)
            for name, value in {"loss": loss, **parts}.items():
                # The loop divides by the batch's tokens, and these are means already.
                sums[name] = sums.get(name, 0.0) + value.detach().double() * num_targets
        return Learnt(sums, {"gradient_norm": self._model.step(learning_rate(step, recipe))})

    def figure(self, name: str) -> str:
        """Means over pairs, or over works' tokens in nats."""
        return _FIGURES[name]

    def judged(self, loader: Loader) -> PreferenceJudgement:
        """The model's judgement of every row of a split, divided among the ranks."""
        ranks, names = self._ranks, ("nats", "reference", "tokens", "pairs", "agreed", "loss", "margin")
        self.networks.evaluating(True)
        sums = dict.fromkeys(names, 0.0)
        with torch.no_grad():
            for batch in loader.in_order(rank=ranks.rank, num_ranks=ranks.num_ranks, rows=self._recipe.micro_batch):
                for name, value in self._told(cast(PairBatch, batch)).items():
                    sums[name] += value
        self.networks.evaluating(False)
        sums = dict(zip(names, ranks.summed([sums[name] for name in names]), strict=True))
        return PreferenceJudgement(
            nats=sums["nats"],
            reference_nats=sums["reference"],
            tokens=int(sums["tokens"]),
            notes=loader.notes,
            pairs=int(sums["pairs"]),
            agreed=sums["agreed"],
            loss=sums["loss"],
            margin_nats=sums["margin"],
        )

    def _parts(self, grain: PairBatch, *, pairs: float, tokens: float) -> dict[str, Tensor]:
        """What a grain adds to the means of the whole batch, of so many pairs and tokens of works."""
        batch = tensors_of(grain, self._ranks.device)
        nats_BS, is_pair = nats_of_sides(self._model.forward, batch), batch["is_pair"] > 0
        of_pairs, reference_BS = nats_BS[is_pair], batch["reference"][is_pair]
        learnt = (batch["targets"][is_pair, 0] != NOT_LEARNT).sum(1).clamp_min(1)
        return {
            "preference": preference_loss(of_pairs, reference_BS, beta=self._preference.beta).sum() / pairs,
            "preferred": (of_pairs[:, 0] / learnt).sum() / pairs,
            "works": nats_BS[~is_pair].sum() / tokens,
            "agreed": (margins(of_pairs, reference_BS) > 0).sum() / pairs,
        }

    def _told(self, batch: PairBatch) -> dict[str, Any]:
        tensors = tensors_of(batch, self._ranks.device)
        nats_BS, reference_BS, is_pair = (
            nats_of_sides(self._model.forward, tensors), tensors["reference"], tensors["is_pair"] > 0,
        )  # fmt: skip
        margins_P = margins(nats_BS[is_pair], reference_BS[is_pair])
        losses_P = preference_loss(nats_BS[is_pair], reference_BS[is_pair], beta=self._preference.beta)
        return {
            "nats": float(nats_BS[~is_pair].sum()),
            "reference": float(reference_BS[~is_pair].sum()),
            "tokens": batch.num_work_targets,
            "pairs": batch.num_pairs,
            "agreed": float((margins_P > 0).sum()),
            "loss": float(losses_P.sum()),
            "margin": float(margins_P.sum()),
        }
