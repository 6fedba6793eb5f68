"""Trainings to measure: walks packed to sequences, and the demo's recipe on them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from tests.music import sequences_dataset
from tutti.features.vocabulary import EVENTS
from tutti.models.decoder import DECODER, DecoderConfiguration
from tutti.storage import Folder
from tutti.telemetry import Silent
from tutti.training import on_ray
from tutti.training.faults import Fault
from tutti.training.loop import Trainer
from tutti.training.plan import Attempt, NoSignals, Plan
from tutti.training.ranks import Ranks
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.tracker import Tracking

NEVER = 10**6
"""As a number of steps between two of something."""
# As jobs/recipes/bach.yaml has it.
DEMO = {"sequence_tokens": 512, "batch_sequences": 16, "micro_batch_sequences": 8, "learning_rate": 4e-3, "seed": 7}


def sequences_at(root: Folder, *, sequence_tokens: int, num_works: int, bars: int) -> Folder:
    """Walks that were packed to sequences of one length."""
    return sequences_dataset(root, sequence_tokens=sequence_tokens, num_works=num_works, bars=bars).folder


def plan_of(sequences: Folder, run: Folder, *, flavour: str, dropout: float = 0.0, **settings: object) -> Plan:
    """A training of a decoder; ``settings`` are those of its recipe, over the demo's."""
    return Plan(
        name="walks",
        model=ModelRecipe(flavour=flavour, dropout=dropout),
        training=TrainingRecipe.model_validate({**DEMO, **settings}),
        examples=sequences,
        run=run,
        inputs={"sequences": sequences.uri},
        collections=("walks",),
    )


def size_of(flavour: str) -> DecoderConfiguration:
    """The model that such a plan trains."""
    return DECODER.configure(
        flavour, shape={"vocabulary_size": len(EVENTS), "max_tokens": 4096}, settings={"dropout": 0.0}
    )


def train_here(plan: Plan, *, tracking: Tracking) -> None:
    """One attempt in this process, without Ray."""
    attempt = Attempt(name=uuid.uuid4().hex[:8], began_unix_s=time.time())
    Trainer(plan, attempt, ranks=Ranks(), tracker=tracking.open(), signals=NoSignals()).run()


def train_on_ray(plan: Plan, *, tracking: Tracking, faults: Sequence[Fault] = ()) -> None:
    """To the end on the Ray of this process, as `tutti train` does."""
    on_ray.run(plan, tracking=tracking, reporter=Silent(), faults=tuple(faults))
