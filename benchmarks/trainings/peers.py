"""The same steps without Tutti's platform: a bare loop of torch, and Hugging Face's Trainer on a Llama.

Both read batches that lie in memory. Neither validates, writes checkpoints or keeps a record.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.trainings.plans import size_of
from tutti import lineage, seeding
from tutti.dataset.loader import Loader
from tutti.dataset.sequences import SequenceLayout
from tutti.features.vocabulary import PAD
from tutti.models.decoder import Decoder
from tutti.models.likelihood import summed_nll
from tutti.training.learner import tensors_of
from tutti.training.plan import Plan

Tensors = tuple[Tensor, Tensor, Tensor]


def batches_of(plan: Plan, *, count: int) -> list[Tensors]:
    """The first batches of a plan: inputs, targets and segments, each of shape (B, T)."""
    recipe = plan.training
    loader = Loader(
        lineage.load(plan.examples), split="train",
        layout=SequenceLayout(sequence_tokens=recipe.sequence_tokens, augmentation=recipe.augmentation),
        batch_sequences=recipe.batch_sequences, seed=seeding.derive(recipe.seed, "data"),
    )  # fmt: skip
    with contextlib.closing(loader):
        batches = [tensors_of(loader.batch(number), torch.device("cpu")) for number in range(count)]
    return [(batch["inputs"], batch["targets"], batch["segments"]) for batch in batches]


def bare_loop(plan: Plan, batches: list[Tensors], *, compiled: bool = False) -> list[float]:
    """Seconds of each step of what a person writes first: forward, backward, clip, AdamW."""
    recipe = plan.training
    model = Decoder(replace(size_of(plan.model.flavour), dropout=plan.model.dropout))
    if compiled:
        model.compile()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, recipe.beta2), weight_decay=recipe.weight_decay,
        fused=True,
    )  # fmt: skip
    seconds, moment_s = [], time.perf_counter()
    for inputs, targets, segments in batches:
        num_targets = int((targets != PAD).sum())
        for start in range(0, recipe.batch_sequences, recipe.micro_batch):
            rows = slice(start, start + recipe.micro_batch)
            with autocast(recipe.precision):
                logits = model(inputs[rows], segments[rows])
            (summed_nll(logits, targets[rows]) / num_targets).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        now_s = time.perf_counter()
        seconds.append(now_s - moment_s)
        moment_s = now_s
    return seconds


def autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    """The precision of a forward pass."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


class Rows(Dataset[dict[str, Tensor]]):
    """Sequences as Hugging Face's models want them; they shift the labels themselves and know no segments."""

    def __init__(self, batches: list[Tensors]) -> None:
        self._inputs = torch.cat([inputs for inputs, _, _ in batches])
        segments = torch.cat([segments for _, _, segments in batches])
        self._labels = self._inputs.masked_fill(segments < 0, -100)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._inputs[index], "labels": self._labels[index]}


def hugging_face(plan: Plan, batches: list[Tensors], *, folder: Path) -> list[float]:
    """Seconds of each step of ``transformers.Trainer`` with a Llama of the same size."""
    import transformers

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.moments_s = [time.perf_counter()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.moments_s.append(time.perf_counter())

    recipe, size, clock = plan.training, size_of(plan.model.flavour), Clock()
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=size.vocabulary_size, hidden_size=size.width, intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
            max_position_embeddings=size.max_tokens, tie_word_embeddings=True, use_cache=False,
        )
    )  # fmt: skip
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, max_steps=len(batches),
        per_device_train_batch_size=recipe.micro_batch, gradient_accumulation_steps=recipe.num_grains,
        optim="adamw_torch_fused", learning_rate=recipe.learning_rate, adam_beta2=recipe.beta2,
        weight_decay=recipe.weight_decay, max_grad_norm=recipe.clip_norm, lr_scheduler_type="cosine",
        bf16=recipe.precision == "bf16", logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(model=model, args=arguments, train_dataset=Rows(batches), callbacks=[clock]).train()
    return [right - left for left, right in zip(clock.moments_s, clock.moments_s[1:], strict=False)]
