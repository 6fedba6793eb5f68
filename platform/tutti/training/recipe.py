"""What a training does: every figure of it, checked before anything starts."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field, model_validator

from tutti.config import Settings
from tutti.features.augment import MAX_TRANSPOSITION_SEMITONES, Augmentation
from tutti.models.flavours import DECODERS, FAMILIES


class ModelRecipe(Settings):
    """Which network."""

    family: str = Field(default="decoder", description=f"model family: {', '.join(FAMILIES)}")
    flavour: str = Field(default="tiny", description=f"named size: {', '.join(DECODERS)}")
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="share of each residual branch that is dropped, no unit"
    )

    @model_validator(mode="after")
    def _known(self) -> ModelRecipe:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is not known; choose {', '.join(FAMILIES)}")
        if self.flavour not in DECODERS:
            raise ValueError(f"flavour {self.flavour!r} is not known; choose {', '.join(DECODERS)}")
        return self


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
    seed: int = Field(default=0, ge=0, lt=2**63, description="root of weights, order, augmentation and dropout")
    workers: int = Field(default=2, ge=1, description="Ray Train workers, one process each")
    threads_per_worker: int = Field(default=1, ge=1, description="processor threads of one worker")
    gpus_per_worker: int = Field(default=0, ge=0, le=1, description="GPUs of one worker")
    strategy: Literal["deepspeed", "plain"] = Field(
        default="deepspeed", description="deepspeed: sharded by ZeRO; plain: torch alone, without Ray for one worker"
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(default=1, description="DeepSpeed's ZeRO stage: what is sharded")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="arithmetic of forward and backward")
    checkpoint_every_steps: int = Field(default=50, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(default=2, ge=1, description="newest checkpoints that stay")
    validate_every_steps: int = Field(default=50, ge=1, description="steps between passes over the valid split")
    max_failures: int = Field(default=3, ge=0, description="times that lost workers are replaced before the run fails")

    @model_validator(mode="after")
    def _divides(self) -> TrainingRecipe:
        if self.batch_sequences % self.workers:
            raise ValueError(f"batch_sequences {self.batch_sequences} cannot be divided among {self.workers} workers")
        share = self.batch_sequences // self.workers
        if share % self.micro_batch_sequences and self.micro_batch_sequences < share:
            raise ValueError(
                f"micro_batch_sequences {self.micro_batch_sequences} does not divide the {share} sequences of a worker"
            )
        return self

    @property
    def augmentation(self) -> Augmentation:
        """What may change in a piece each time it is seen."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def micro_batches(self) -> int:
        """Forward passes of one worker for one step."""
        return max(self.batch_sequences // self.workers // self.micro_batch_sequences, 1)

    @property
    def micro_batch(self) -> int:
        """Sequences of one forward pass."""
        return self.batch_sequences // self.workers // self.micro_batches
