"""What a training does: every figure of it, checked before anything starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal

from pydantic import Field, model_validator

from tutti.config import Settings
from tutti.features.augment import MAX_TRANSPOSITION_SEMITONES, Augmentation
from tutti.models.families import FAMILIES
from tutti.training.ledger import Prices


class ModelRecipe(Settings):
    """Which network."""

    family: str = Field(default="decoder", description=f"model family: {', '.join(FAMILIES)}")
    flavour: str = Field(default="tiny", description="named size of the family, such as nano, tiny, base")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of each residual branch that is dropped, no unit"
    )
    settings: dict[str, Any] = Field(
        default={}, description="what is changed of the flavour, by name of the family's configuration"
    )

    @model_validator(mode="after")
    def _known(self) -> ModelRecipe:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is not known; choose {', '.join(FAMILIES)}")
        flavours = FAMILIES[self.family].flavours
        if self.flavour not in flavours:
            raise ValueError(f"flavour {self.flavour!r} of {self.family} is not known; choose {', '.join(flavours)}")
        return self


class Workers(Settings):
    """How many Ray Train workers there may be; a bare number means exactly that many."""

    min: int = Field(default=2, ge=1, description="fewest workers that the training goes on with")
    max: int = Field(default=2, ge=1, description="most workers that it uses when the cluster has room")

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self

    def __str__(self) -> str:
        return str(self.max) if self.min == self.max else f"{self.min} to {self.max}"


class PreferenceRecipe(Settings):
    """How a model is tuned by pairs of takes; see :mod:`tutti.training.preference`."""

    beta: float = Field(
        default=0.1, gt=0, description="how dear a step away from the model that is tuned is, no unit; less: farther"
    )
    works_weight: float = Field(
        default=1.0, ge=0, description="weight of the NLL of works, nats per token, beside the loss of pairs; no unit"
    )
    preferred_weight: float = Field(
        default=0.0, ge=0, description="weight of the NLL of preferred takes, nats per token, beside it; no unit"
    )


class TrainingRecipe(Settings):
    """How it learns, on how many workers, and what is kept."""

    steps: int = Field(default=300, ge=1, description="optimizer steps")
    sequence_tokens: int = Field(default=512, ge=32, le=4096, description="length of a packed sequence, tokens")
    batch_sequences: int = Field(default=16, ge=1, description="sequences of a global batch, over all workers")
    micro_batch_sequences: int = Field(default=8, ge=1, description="sequences of one forward pass on one worker")
    learning_rate: float = Field(default=3e-3, gt=0, description="peak learning rate, no unit")
    final_learning_rate_share: float = Field(default=0.05, ge=0, le=1, description="share of the peak at the last step")
    warmup_steps: int = Field(default=20, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's decoupled decay of matrices, no unit")
    beta2: float = Field(default=0.95, gt=0, lt=1, description="AdamW's decay of squared gradients, no unit")
    clip_norm: float = Field(default=1.0, ge=0, description="largest global gradient norm; 0: never clipped")
    most_semitones: int = Field(
        default=5, ge=0, le=MAX_TRANSPOSITION_SEMITONES, description="pieces are transposed by up to this, semitones"
    )
    home_key: bool = Field(
        default=False, description="whether every piano-roll is read in C major or A minor, as its notes lie, no unit"
    )
    stretch_rate: float = Field(default=0, ge=0, le=1, description="how often a piece gets another tempo, no unit")
    most_stretch: float = Field(
        default=0.1, ge=0, le=1, description="such a tempo is up to this share faster, or as much slower, no unit"
    )
    thin_rate: float = Field(
        default=0, ge=0, le=1, description="how often one of several instruments is left out, no unit"
    )
    instruments_rate: float = Field(
        default=0, ge=0, le=1, description="how often instruments become others of their families, no unit"
    )
    splice_rate: float = Field(
        default=0, ge=0, le=1, description="how often some bars are cut out, or repeated over those after, no unit"
    )
    velocity_drop_rate: float = Field(
        default=0, ge=0, le=1, description="how often all notes of a piece get one velocity, no unit"
    )
    control_dropout: float = Field(default=0.15, ge=0, le=1, description="how often a control is hidden, no unit")
    all_controls_dropout: float = Field(
        default=0.1, ge=0, le=1, description="how often all controls are hidden, which guidance needs, no unit"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="root of weights, order, augmentation and dropout")
    mixture: dict[str, float] = Field(
        default={}, description="weight of each collection in what is read, by name; empty: as large as each is"
    )
    workers: Workers = Field(
        default=Workers(), description="Ray Train workers, a process each: a number, or min and max"
    )
    threads_per_worker: int = Field(default=1, ge=1, description="processor threads of one worker")
    gpus_per_worker: int = Field(default=0, ge=0, le=1, description="GPUs of one worker")
    strategy: Literal["deepspeed", "plain"] = Field(
        default="deepspeed", description="deepspeed: sharded by ZeRO; plain: torch alone, without Ray for one worker"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(default=1, description="DeepSpeed's ZeRO stage: what is sharded")
    offload: Literal["none", "cpu"] = Field(
        default="none", description="cpu: ZeRO keeps the optimizer's state in the processor's memory"
    )
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of forward and backward")
    compile: bool = Field(default=False, description="whether torch.compile fuses the model's operations")
    activation_checkpointing: bool = Field(
        default=False, description="whether activations are computed again in backward: less memory, a third more work"
    )
    checkpoint_every_steps: int = Field(default=50, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints that stay")
    keep_best_checkpoints: int = Field(default=0, ge=0, description="checkpoints of lowest valid NLL that stay too")
    keep_checkpoints_every_steps: int = Field(
        default=0, ge=0, description="checkpoints at multiples of this many steps stay too; 0: none"
    )
    publish: Literal["last", "best", "average"] = Field(
        default="last",
        description="best: the checkpoint of lowest valid NLL becomes the model, if it is still kept; average: the "
        "mean of the weights of those that are kept, where that is better still",
    )
    validate_every_steps: int = Field(default=50, ge=1, description="steps between passes over the valid split")
    sample_every_steps: int = Field(default=0, ge=0, description="steps between rendered samples; 0: only at the end")
    max_failures: int = Field(
        default=3, ge=0, description="failures without a new checkpoint between them before the run fails"
    )
    max_rollbacks: int = Field(default=3, ge=0, description="batches of infinite loss that are skipped before it fails")
    hang_timeout_s: float = Field(
        default=30.0, gt=0, description="silence after which a worker counts as hung and is killed, seconds"
    )
    stall_timeout_s: float = Field(
        default=1800.0, gt=0, description="time without a step after which all workers are replaced, seconds"
    )
    storage_patience_s: float = Field(
        default=600.0, ge=0, description="how long storage, or room for the workers, is waited for, seconds"
    )
    preference: PreferenceRecipe | None = Field(
        default=None, description="weights of learning from pairs; nothing: by likelihood, or as the family learns"
    )
    prices: Prices = Field(default=Prices(), description="what a worker costs an hour, by kind")
    record_order: bool = Field(default=False, description="whether the run keeps order.csv: which sequence came when")

    @model_validator(mode="after")
    def _divides(self) -> TrainingRecipe:
        if self.batch_sequences % self.workers.max and self.workers.min == self.workers.max:
            raise ValueError(
                f"batch_sequences {self.batch_sequences} cannot be divided among {self.workers.max} workers"
            )
        share = self.batch_sequences // self.workers.max
        if self.batch_sequences % self.micro_batch:
            raise ValueError(
                f"micro_batch_sequences {self.micro_batch} does not divide the "
                f"{self.batch_sequences} sequences of a batch"
            )
        if not self.possible_workers:
            raise ValueError(
                f"the {self.num_grains} micro-batches of a step cannot be divided among {self.workers} workers; "
                f"let micro_batch_sequences divide {share or 1}"
            )
        if self.offload == "cpu" and (self.strategy != "deepspeed" or self.zero_stage == 0):
            raise ValueError("offload cpu needs strategy deepspeed and a zero_stage of 1, 2 or 3")
        if self.home_key and self.most_semitones:
            raise ValueError("home_key undoes what most_semitones transposes: set most_semitones to 0")
        if self.publish == "average" and self.keep_best_checkpoints < 2:
            raise ValueError("publish average needs keep_best_checkpoints of at least 2")
        if self.publish == "average" and self.strategy == "deepspeed" and self.zero_stage == 3:
            raise ValueError("publish average needs a zero_stage below 3: no worker holds the weights whole")
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the weights: the run's address is made of it, and who changes the rest goes on."""
        moves_nothing = LOGISTICS - (AVERAGED if self.publish == "average" else frozenset())
        # Came later, and say nothing of a training that learns as its family does, from works as they are written.
        if self.preference is None:
            moves_nothing |= {"preference"}
        if not self.home_key:
            moves_nothing |= {"home_key"}
        decides = {name: value for name, value in self.model_dump(mode="json").items() if name not in moves_nothing}
        # Dropout is drawn by the grain: workers so many that they make it smaller move the weights.
        return {**decides, "micro_batch_sequences": self.micro_batch}

    @property
    def augmentation(self) -> Augmentation:
        """What may change in a piece each time it is seen."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def micro_batch(self) -> int:
        """Sequences of one forward pass, the same on any number of workers: dropout is drawn for each such grain."""
        return max(min(self.micro_batch_sequences, self.batch_sequences // self.workers.max), 1)

    @property
    def num_grains(self) -> int:
        """Micro-batches of one step, over all workers."""
        return self.batch_sequences // self.micro_batch

    @property
    def possible_workers(self) -> tuple[int, ...]:
        """Numbers of workers that a step's grains can be divided among equally, the fewest first."""
        return tuple(n for n in range(self.workers.min, self.workers.max + 1) if self.num_grains % n == 0)


LOGISTICS = frozenset({
    "workers", "threads_per_worker", "gpus_per_worker", "checkpoint_every_steps", "keep_checkpoints",
    "keep_best_checkpoints", "keep_checkpoints_every_steps", "sample_every_steps", "max_failures", "max_rollbacks",
    "hang_timeout_s", "stall_timeout_s", "storage_patience_s", "record_order", "prices",
})  # fmt: skip
"""Settings that change who works, for how long and what is kept, and no weight beyond rounding."""
AVERAGED = frozenset({"checkpoint_every_steps", "keep_best_checkpoints"})
"""Those of them that say whose mean is published."""
