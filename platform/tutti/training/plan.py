"""What a training needs to know, as plain values that travel to every worker, and what it says back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tutti.storage import Folder
from tutti.training.faults import Fault
from tutti.training.ledger import Activity, Ledger
from tutti.training.recipe import ModelRecipe, TrainingRecipe


@dataclass(frozen=True)
class Plan:
    """One training.

    Args:
        name: for people.
        model, training: the recipe.
        examples: folder of the dataset that it learns from, of the kind that its family reads.
        run: folder of this run: checkpoints while it runs, the bundle and its manifest at the end.
        inputs: what the run's address was made of.
        collections: source collections by slot.
        baselines: NLL of count models on the valid split, nats per token, by name.
        data: facts of the data for the model's card: addresses, works, notes, licences.
        starts_from: the weights that it starts from, a path among the files of the examples; empty: drawn.
        recipe_text: the whole resolved recipe as YAML, for the record.
        fingerprint: its digest.
    """

    name: str
    model: ModelRecipe
    training: TrainingRecipe
    examples: Folder
    run: Folder
    inputs: Mapping[str, Any]
    collections: tuple[str, ...]
    baselines: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    starts_from: str = ""
    recipe_text: str = ""
    fingerprint: str = ""


@dataclass(frozen=True)
class Attempt:
    """One start of the workers of a run; a run that nothing disturbs has one.

    Args:
        name: of its checkpoints' folders, hexadecimal; no two attempts share one.
        began_unix_s: when its start was asked for.
        ledger: what was spent before it.
        start_is: what its start counts as: ``lost`` after a failure.
        faults: what is to go wrong on purpose.
    """

    name: str
    began_unix_s: float
    ledger: Ledger = field(default_factory=Ledger)
    start_is: Activity = Activity.START
    faults: tuple[Fault, ...] = ()


class Outcome(StrEnum):
    """How an attempt ended well."""

    FINISHED = "finished"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Progress:
    """Figures of one step, for whoever watches.

    Args:
        step: steps done.
        loss: mean over the step's places; NaN before this attempt's first.
        valid_score: of the last validation: the lower the better.
        per_s: places learnt a second over all ranks, lately.
        unit: what a place is called, in the plural.
        published_step: of the newest checkpoint that is complete; -1 before the first.
        tokens: tokens learnt until that checkpoint.
        spent, kept: the ledger now, and as it was when that checkpoint was taken.
        unix_s: when this was said.
    """

    step: int
    steps: int
    loss: float
    valid_score: float | None
    per_s: float
    unit: str
    published_step: int = -1
    tokens: int = 0
    spent: Ledger = field(default_factory=Ledger)
    kept: Ledger = field(default_factory=Ledger)
    unix_s: float = 0.0


class Signals(Protocol):
    """How a rank talks with whoever drives the run."""

    def report(self, progress: Progress) -> None:
        """Say how far the run is; the first rank, after every step. Must cost next to nothing."""

    def pause_is_asked(self) -> bool:
        """Whether the run shall save and stop: a node goes, or more workers could be had. Asked at every step."""

    def ask_pause(self) -> None:
        """Give notice that this rank's node will be taken away."""

    def say(self, line: str) -> None:
        """A line for people."""


class NoSignals:
    """Nobody watches."""

    def report(self, progress: Progress) -> None:
        """Drop it."""

    def pause_is_asked(self) -> bool:
        """Never."""
        return False

    def ask_pause(self) -> None:
        """Nobody to tell."""

    def say(self, line: str) -> None:
        """Drop it."""
