"""What a training has come to: the model and its optimizer, the curves, and how they are taken up again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from tutti import lineage, seeding
from tutti.errors import UserError
from tutti.models.families import family_of
from tutti.storage import patiently
from tutti.training import checkpoint, learners, skipping
from tutti.training.checkpoint import Saved
from tutti.training.examples import configuration_of
from tutti.training.plan import Plan
from tutti.training.ranks import Ranks
from tutti.training.strategy import Strategy

T = TypeVar("T")


class State:
    """One rank's part of what checkpoints hold, and the means to read one.

    Args:
        plan: what is trained.
        attempt: names a folder that the ranks of one machine share for a moment.
        ranks: this process among all.
        told: a line for people while storage is away.
    """

    def __init__(self, plan: Plan, *, attempt: str, ranks: Ranks, told: Callable[[str], None]) -> None:
        self._plan, self._attempt, self._ranks, self._told = plan, attempt, ranks, told
        self.configuration = configuration_of(plan.model, plan.training)
        self.begin()

    def begin(self) -> None:
        """Be as before the first step, whatever was."""
        # The one that was goes first: two engines at once may not fit.
        vars(self).pop("learner", None)
        torch.manual_seed(seeding.derive(self._plan.training.seed, "weights"))
        self.learner = learners.build(
            self._plan.model, self.configuration, self._plan.training, ranks=self._ranks, weights=self._first_weights()
        )
        self.history: dict[str, list[Any]] = {"train": [], "valid": [], "order": []}
        self.learnt_tokens = 0
        self.skipped: tuple[int, ...] = ()

    def take_up(self) -> int:
        """Take up the newest checkpoint; the step to go on with. Every rank calls.

        Raises:
            UserError: it vanished meanwhile.
            PlaceError: storage stayed away.
        """
        self.skipped = self.patiently(lambda: skipping.read(self._plan.run))
        # One rank looks, so that all take up the same: another may still see an older one.
        found = self.patiently(lambda: checkpoint.latest(self._plan.run)) if self._ranks.is_first else None
        step = self._ranks.told(-1 if found is None else found.step)
        if step < 0:
            return 0
        saved = found or self._at(step)
        self._load(saved)
        self.history = {"order": [], **saved.history}
        self.learnt_tokens = int(saved.dataset.facts["learnt_tokens"])
        return step

    def take_best(self) -> int | None:
        """Take up the checkpoint of lowest valid score, if that is below the last; its step. Every rank calls."""
        found = self.patiently(lambda: checkpoint.best(self._plan.run)) if self._ranks.is_first else None
        last = self.history["valid"][-1][1]
        step = self._ranks.told(
            found.step if found and found.valid_score is not None and found.valid_score < last else -1
        )
        if step < 0:
            return None
        self._load(found or self._at(step))
        return step

    def take_average(self) -> list[int]:
        """Put the mean of the weights of all judged checkpoints in place of the model's; their steps. Every rank calls.

        Source: Izmailov et al. 2018, "Averaging weights leads to wider optima" (arXiv 1803.05407).
        """
        found = self.patiently(lambda: checkpoint.ranked(self._plan.run)) if self._ranks.is_first else []
        chosen = self._ranks.told([saved.step for saved in found])
        sums: dict[str, Tensor] = {}
        for step in chosen:
            self._load(self._at(step))
            for name, value in self.weights().items():
                sums[name] = sums[name] + value.double() if name in sums else value.double()
        if chosen:
            self.put({name: (value / len(chosen)).float() for name, value in sums.items()})
        return chosen

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights of the network that makes music, to judge and publish them."""
        self._maker.put(weights)

    def weights(self) -> dict[str, Tensor]:
        """Of the network that makes music, whole, in fp32 on the processor; every rank calls."""
        return self._maker.weights()

    @property
    def _maker(self) -> Strategy:
        return self.learner.networks[family_of(self._plan.model.family).maker]

    def patiently(self, action: Callable[[], T]) -> T:
        """What ``action`` gives, once storage lets it."""
        return patiently(action, patience_s=self._plan.training.storage_patience_s, told=self._told)

    def _first_weights(self) -> dict[str, Tensor] | None:
        """Those that the plan starts from; None where they are drawn."""
        plan = self._plan
        if not plan.starts_from:
            return None
        data = self.patiently(lambda: lineage.load(plan.examples).read(plan.starts_from))
        weights: dict[str, Tensor] = safetensors.torch.load(data)
        return weights

    def _at(self, step: int) -> Saved:
        saved = self.patiently(lambda: checkpoint.at(self._plan.run, step=step))
        if saved is None:
            raise UserError(f"the checkpoint of step {step} is gone", remedy="start the command again")
        return saved

    def _load(self, saved: Saved) -> None:
        num_ranks = int(saved.dataset.facts["num_ranks"])
        networks = self.learner.networks
        if not networks.must_convert(num_ranks=num_ranks):
            with tempfile.TemporaryDirectory(prefix="tutti-resume-") as own:
                self._fetch(saved, Path(own), wanted=networks.wanted)
                networks.load(Path(own), converted=False)
            return
        with self._shared_folder() as shared:
            if self._ranks.rank_of_node == 0:
                self._fetch(saved, shared, wanted=lambda _: True)
                networks.convert(shared)
            self._ranks.wait()
            networks.load(shared, converted=True)
            self._ranks.wait()

    def _fetch(self, saved: Saved, folder: Path, *, wanted: Callable[[str], bool]) -> None:
        self.patiently(lambda: checkpoint.fetch(saved, folder, wanted=wanted))

    @contextmanager
    def _shared_folder(self) -> Iterator[Path]:
        """A folder that the ranks of one machine find by its name, which is this attempt's alone."""
        folder = Path(tempfile.gettempdir()) / f"tutti-convert-{self._attempt}"
        if self._ranks.rank_of_node:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="tutti-convert-") as made:
            folder.symlink_to(made)
            try:
                yield folder
            finally:
                folder.unlink()
