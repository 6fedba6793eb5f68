"""Small trainings for tests: a plan on walks, run in this process by torch alone."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.storage import Folder
from tutti.training.faults import Fault
from tutti.training.ledger import Ledger
from tutti.training.loop import Trainer
from tutti.training.plan import Attempt, NoSignals, Outcome, Plan, Progress
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.tracker import NoTracker, Sampler, Tracker


class StoppedError(Exception):
    """Stands for a kill: raised between two steps."""


class Watch(NoSignals):
    """Remembers what it is told; stops or pauses the training at a step.

    Args:
        unhurried: whether each step waits for a checkpoint that is on its way; steps of some milliseconds outrun them.
    """

    def __init__(self, *, stop_at: int | None = None, pause_at: int | None = None, unhurried: bool = False) -> None:
        self.seen: list[Progress] = []
        self.lines: list[str] = []
        self._stop_at, self._pause_at, self._unhurried = stop_at, pause_at, unhurried

    def report(self, progress: Progress) -> None:
        self.seen.append(progress)
        while self._unhurried and any(thread.name.startswith("checkpoint-") for thread in threading.enumerate()):
            time.sleep(0.001)
        if progress.step == self._stop_at:
            raise StoppedError

    def pause_is_asked(self) -> bool:
        return self._pause_at is not None and bool(self.seen) and self.seen[-1].step + 1 >= self._pause_at

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def losses(self) -> dict[int, float]:
        return {progress.step: progress.loss for progress in self.seen if progress.loss == progress.loss}


@dataclass(frozen=True)
class Dump:
    """Keeps the whole model of every step that is sampled, as bundles below a folder."""

    folder: Path

    def files(self, bundle: Bundle, *, step: int) -> dict[str, bytes]:
        bundle.save(self.folder / str(step))
        return {}


def recipe_of(**changes: object) -> TrainingRecipe:
    settings = {
        "steps": 8, "sequence_tokens": 128, "batch_sequences": 4, "micro_batch_sequences": 2, "workers": 1,
        "strategy": "plain", "checkpoint_every_steps": 3, "validate_every_steps": 4, "warmup_steps": 2, "seed": 1,
    }  # fmt: skip
    return TrainingRecipe(**{**settings, **changes})  # type: ignore[arg-type]


def plan_of(
    sequences: Folder, run: Folder | Path, *, dropout: float = 0.1, family: str = "decoder", **changes: object
) -> Plan:
    return Plan(
        name="walks",
        model=ModelRecipe(family=family, flavour="nano", dropout=dropout),
        training=recipe_of(**changes),
        examples=sequences,
        run=run if isinstance(run, Folder) else Folder(str(run)),
        inputs={"sequences": sequences.uri},
        collections=("walks",),
        baselines={"unigram": 4.0},
        recipe_text="name: walks\n",
        fingerprint="0123456789abcdef",
    )


def train(
    plan: Plan,
    *,
    watch: Watch | None = None,
    tracker: Tracker | None = None,
    faults: Sequence[Fault] = (),
    sampler: Sampler | None = None,
) -> tuple[Outcome, Watch]:
    """One attempt in this process."""
    watch = watch or Watch()
    attempt = Attempt(
        name=uuid.uuid4().hex[:8], began_unix_s=time.time(), ledger=Ledger.read(plan.run), faults=tuple(faults)
    )
    trainer = Trainer(plan, attempt, ranks=Ranks(), tracker=tracker or NoTracker(), signals=watch, sampler=sampler)
    return trainer.run(), watch


def weights_of(run: Folder | Path) -> dict[str, torch.Tensor]:
    folder = run if isinstance(run, Path) else run.local_path
    return dict(bundles.load(folder / "bundle").weights)


def assert_same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert set(left) == set(right)
    for name, weight in left.items():
        assert torch.equal(weight, right[name]), name


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert set(left) == set(right)
    for name, weight in left.items():
        torch.testing.assert_close(weight, right[name], rtol=2e-3, atol=2e-5)
