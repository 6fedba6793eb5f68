"""How one step of the optimizer is made: by torch alone, or by DeepSpeed's ZeRO.

The loop sees one face. Sharding, averaging over ranks and clipping live here and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn

from tutti.training.recipe import TrainingRecipe

_TAG = "state"
_PLAIN_STATE = "state-plain.pt"


class Strategy(Protocol):
    """One rank's part of the optimizer."""

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor) -> Tensor:
        """Logits; shape (B, T, V)."""

    def backward(self, share: Tensor, *, last: bool) -> None:
        """Add the gradients of this rank's share of the global loss: shares sum to it over ranks and micro-batches.

        Args:
            last: whether this is the step's last micro-batch.
        """

    def step(self, learning_rate: float) -> float:
        """Update the weights; return the global gradient norm before clipping."""

    def evaluating(self, on: bool) -> None:
        """Turn dropout off (or on again)."""

    def weights(self) -> dict[str, Tensor]:
        """All weights, whole, in fp32 on the processor; every rank calls."""

    def save(self, folder: Path) -> None:
        """Write this rank's files; names differ between ranks."""

    def load(self, folder: Path) -> None:
        """Read back what all ranks saved."""


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]


def _optimizer(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        _groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, recipe.beta2), eps=1e-8
    )


def _autocast(recipe: TrainingRecipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if recipe.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


class Plain:
    """torch alone; with several ranks gradients are summed by one all-reduce."""

    def __init__(self, model: nn.Module, recipe: TrainingRecipe, *, device: torch.device) -> None:
        self._model = model.to(device)
        self._recipe = recipe
        self._device = device
        self._optimizer = _optimizer(model, recipe)

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor) -> Tensor:
        """Logits; shape (B, T, V)."""
        with _autocast(self._recipe, self._device):
            logits: Tensor = self._model(tokens_BT, segments_BT)
        return logits

    def backward(self, share: Tensor, *, last: bool) -> None:  # noqa: ARG002
        """Add the gradients of a share of the loss."""
        share.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> float:
        """Update the weights; return the gradient norm before clipping."""
        weights = [weight for weight in self._model.parameters() if weight.grad is not None]
        if distributed.is_initialized() and distributed.get_world_size() > 1:
            flat = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
            distributed.all_reduce(flat)
            for weight, part in zip(weights, torch.split(flat, [weight.numel() for weight in weights]), strict=True):
                weight.grad = part.view_as(weight)
        limit = self._recipe.clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(weights, limit))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        self._model.train(not on)

    def weights(self) -> dict[str, Tensor]:
        """All weights in fp32 on the processor."""
        return {name: value.detach().float().cpu() for name, value in self._model.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Every rank holds the same state; rank 0 writes it."""
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            state = {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}
            torch.save(state, folder / _PLAIN_STATE)

    def load(self, folder: Path) -> None:
        """Read the state."""
        state = torch.load(folder / _PLAIN_STATE, map_location=self._device, weights_only=True)
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


class DeepSpeed:
    """DeepSpeed's engine in a process group that is already made (by Ray Train)."""

    def __init__(self, model: nn.Module, recipe: TrainingRecipe, *, device: torch.device) -> None:
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # Its all-reduce through shared memory wants a compiler on every machine, and after a killed worker its
        # segments stay: the next run then summed wrong gradients without a word. gloo does neither.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._recipe = recipe
        self._device = device
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self._engine, *_ = deepspeed.initialize(
            model=model.to(device), optimizer=_optimizer(model, recipe), config=self._configuration()
        )
        self._shares = recipe.workers * recipe.micro_batches

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor) -> Tensor:
        """Logits; shape (B, T, V)."""
        with _autocast(self._recipe, self._device):
            logits: Tensor = self._engine(tokens_BT, segments_BT)
        return logits

    def backward(self, share: Tensor, *, last: bool) -> None:
        """Add the gradients of a share of the loss."""
        # DeepSpeed takes means over ranks and micro-batches; the shares are parts of a sum.
        self._engine.backward(share * self._shares)
        if not last:
            self._engine.step()

    def step(self, learning_rate: float) -> float:
        """Update the weights; return the gradient norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def evaluating(self, on: bool) -> None:
        """Turn dropout off, or on again."""
        self._engine.train(not on)

    def weights(self) -> dict[str, Tensor]:
        """All weights in fp32 on the processor; gathered where ZeRO 3 sharded them."""
        import deepspeed

        module = self._engine.module
        sharded = list(module.parameters()) if self._recipe.zero_stage == 3 else []
        with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
            return {name: value.detach().float().cpu().clone() for name, value in module.named_parameters()}

    def save(self, folder: Path) -> None:
        """Every rank writes its part."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Every rank reads its part."""
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=_TAG)
        if loaded is None:
            raise FileNotFoundError(f"DeepSpeed found no state in {folder}")

    def _configuration(self) -> Mapping[str, Any]:
        recipe = self._recipe
        return {
            "train_batch_size": recipe.batch_sequences,
            "train_micro_batch_size_per_gpu": recipe.micro_batch,
            "gradient_accumulation_steps": recipe.micro_batches,
            # DeepSpeed clips to 1.0 where this key is missing.
            "gradient_clipping": recipe.clip_norm,
            "zero_optimization": {"stage": recipe.zero_stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
            "wall_clock_breakdown": False,
        }


def build(model: nn.Module, recipe: TrainingRecipe, *, device: torch.device) -> Strategy:
    """The recipe's strategy around a model."""
    kind = DeepSpeed if recipe.strategy == "deepspeed" else Plain
    return kind(model, recipe, device=device)
