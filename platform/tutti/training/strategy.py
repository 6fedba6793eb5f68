"""How one step of the optimizer is made: by torch alone, or by DeepSpeed's ZeRO.

The loop sees one face. Sharding, averaging over ranks and clipping live here and nowhere else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.utils.checkpoint import checkpoint as activation_checkpoint

from tutti.training.recipe import TrainingRecipe
from tutti.training.snapshot import host_copy

_TAG, _UNIVERSAL_TAG = "state", "universal"
_PLAIN_STATE = "state-plain.pt"
# As DeepSpeed calls them.
_SHARDS, _WHOLE = "*_optim_states.pt", "mp_rank_00_model_states.pt"


class Strategy(Protocol):
    """One rank's part of the optimizer of one network."""

    network: nn.Module
    """The network itself."""

    def forward(self, *inputs: Tensor) -> Any:
        """What the network says, in the recipe's precision."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The recipe's precision, for who calls the network itself."""

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

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights, to judge them and no more: the optimizer stays as it was."""

    def snapshot(self) -> dict[str, Any]:
        """This rank's state in host memory, sharing nothing with the model, by path below a checkpoint."""

    def wanted(self, path: str) -> bool:
        """Whether this rank needs that file of a checkpoint that as many ranks wrote as there are."""

    def must_convert(self, *, num_ranks: int) -> bool:
        """Whether what ``num_ranks`` ranks wrote must be made readable first, by one rank of each machine."""

    def convert(self, folder: Path) -> None:
        """Make a whole checkpoint readable by any number of ranks, in place."""

    def load(self, folder: Path, *, converted: bool) -> None:
        """Read back what ranks saved; every rank calls."""


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; norms do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]


def _optimizer(model: nn.Module, recipe: TrainingRecipe, *, betas: tuple[float, float]) -> torch.optim.AdamW:
    # One pass over each weight instead of a dozen; ZeRO's flat partitions go through it alike.
    return torch.optim.AdamW(
        _groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=betas, eps=1e-8, fused=True
    )


def _autocast(recipe: TrainingRecipe, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if recipe.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


class Plain:
    """torch alone; with several ranks gradients are summed by one all-reduce."""

    def __init__(
        self, model: nn.Module, recipe: TrainingRecipe, *, device: torch.device, betas: tuple[float, float]
    ) -> None:
        self.network = model.to(device)
        self._recipe = recipe
        self._device = device
        self._optimizer = _optimizer(model, recipe, betas=betas)
        if recipe.compile:
            # In place, so that names of weights and the module's own methods stay.
            model.compile()

    def forward(self, *inputs: Tensor) -> Any:
        """What the network says."""
        with self.autocast():
            return self.network(*inputs)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The recipe's precision."""
        return _autocast(self._recipe, self._device)

    def backward(self, share: Tensor, *, last: bool) -> None:  # noqa: ARG002
        """Add the gradients of a share of the loss."""
        share.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> float:
        """Update the weights; return the gradient norm before clipping."""
        weights = [weight for weight in self.network.parameters() if weight.grad is not None]
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
        self.network.train(not on)

    def weights(self) -> dict[str, Tensor]:
        """All weights in fp32 on the processor."""
        return {name: value.detach().float().cpu().clone() for name, value in self.network.state_dict().items()}

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights, to judge them and no more: the optimizer stays as it was."""
        self.network.load_state_dict(weights, strict=False)

    def snapshot(self) -> dict[str, Any]:
        """Every rank holds the same state; the first gives it."""
        if distributed.is_initialized() and distributed.get_rank() > 0:
            return {}
        return {
            _PLAIN_STATE: host_copy({"model": self.network.state_dict(), "optimizer": self._optimizer.state_dict()})
        }

    def wanted(self, path: str) -> bool:
        """The one file."""
        return path == _PLAIN_STATE

    def must_convert(self, *, num_ranks: int) -> bool:  # noqa: ARG002
        """Never: the state says nothing of ranks."""
        return False

    def convert(self, folder: Path) -> None:
        """Nothing to do."""

    def load(self, folder: Path, *, converted: bool) -> None:  # noqa: ARG002
        """Read the state."""
        state = torch.load(folder / _PLAIN_STATE, map_location=self._device, weights_only=True)
        self.network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


class DeepSpeed:
    """DeepSpeed's engine in a process group that is already made (by Ray Train)."""

    def __init__(
        self,
        model: nn.Module,
        recipe: TrainingRecipe,
        *,
        device: torch.device,
        num_ranks: int,
        betas: tuple[float, float],
    ) -> None:
        import deepspeed

        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        # Its all-reduce through shared memory wants a compiler on every machine, and after a killed worker its
        # segments stay: the next run then summed wrong gradients without a word. gloo does neither.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._recipe = recipe
        self._device = device
        self._num_ranks, self._rank = num_ranks, distributed.get_rank()
        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
        self._engine, *_ = deepspeed.initialize(
            model=model.to(device), optimizer=_optimizer(model, recipe, betas=betas), config=self._configuration()
        )
        self.network = self._engine.module
        if recipe.compile:
            self.network.compile()
        # DeepSpeed takes means over ranks and micro-batches where our shares are parts of a sum.
        self._shares = recipe.num_grains

    def forward(self, *inputs: Tensor) -> Any:
        """What the network says."""
        with self.autocast():
            return self._engine(*inputs)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The recipe's precision."""
        return _autocast(self._recipe, self._device)

    def backward(self, share: Tensor, *, last: bool) -> None:
        """Add the gradients of a share of the loss."""
        self._engine.backward(share * self._shares)
        if not last:
            self._engine.step()

    def step(self, learning_rate: float) -> float:
        """Update the weights; return the gradient norm before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        # Without ZeRO DeepSpeed keeps no norm, and each rank holds the whole averaged gradient.
        gradients = [weight.grad for weight in self._engine.module.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if self._recipe.zero_stage == 0 else None
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

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

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights, to judge them and no more: the optimizer stays as it was."""
        with torch.no_grad():
            for name, value in self._engine.module.named_parameters():
                value.copy_(weights[name])

    def snapshot(self) -> dict[str, Any]:
        """What DeepSpeed would write, caught on its way to disk."""
        catcher = _catcher()
        theirs, self._engine.checkpoint_engine = self._engine.checkpoint_engine, catcher
        try:
            with tempfile.TemporaryDirectory(prefix="tutti-snapshot-") as folder:
                self._engine.save_checkpoint(folder, tag=_TAG, save_latest=False)
                return {Path(path).relative_to(folder).as_posix(): state for path, state in catcher.caught.items()}
        finally:
            self._engine.checkpoint_engine = theirs

    def wanted(self, path: str) -> bool:
        """Its own part, and what all share."""
        name = path.rpartition("/")[2]
        return path.startswith(f"{_TAG}/") and name.startswith((f"zero_pp_rank_{self._rank}_", "mp_rank_"))

    def must_convert(self, *, num_ranks: int) -> bool:
        """Where ZeRO sharded the state among another number of ranks."""
        return num_ranks != self._num_ranks and self._recipe.zero_stage > 0

    def convert(self, folder: Path) -> None:
        """Make a universal checkpoint by DeepSpeed's own converter, in this process and without a word."""
        from deepspeed.checkpoint import ds_to_universal

        options = argparse.Namespace(
            input_folder=str(folder / _TAG), output_folder=str(folder / _UNIVERSAL_TAG), num_extract_workers=1,
            num_merge_workers=1, keep_temp_folder=False, strict=True, inject_missing_state=True,
        )  # fmt: skip
        with _without_a_word():
            ds_to_universal.main(options)

    def load(self, folder: Path, *, converted: bool) -> None:
        """Every rank reads its part."""
        self._engine._config.load_universal_checkpoint = converted
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=_UNIVERSAL_TAG if converted else _TAG)
        self._engine._config.load_universal_checkpoint = False
        if loaded is None:
            raise FileNotFoundError(f"DeepSpeed found no state in {folder}")
        if converted:
            self._mend_universal()

    def _mend_universal(self) -> None:
        """Put right what ZeRO 3 of DeepSpeed 0.19.8 mixes up: all groups get the first one's decay and share a counter.

        Source: ``load_hp_checkpoint_state_from_checkpoint_dir_stage3`` in ``deepspeed/runtime/zero/stage3.py``.
        """
        optimizer = self._engine.optimizer.optimizer
        for group, decay in zip(optimizer.param_groups, (self._recipe.weight_decay, 0.0), strict=True):
            group["weight_decay"] = decay
        for state in optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].clone()

    def _configuration(self) -> Mapping[str, Any]:
        recipe = self._recipe
        return {
            "train_batch_size": recipe.batch_sequences,
            "train_micro_batch_size_per_gpu": recipe.micro_batch,
            "gradient_accumulation_steps": recipe.num_grains // self._num_ranks,
            # DeepSpeed clips to 1.0 where this key is missing.
            "gradient_clipping": recipe.clip_norm,
            "zero_optimization": {
                "stage": recipe.zero_stage,
                **({"offload_optimizer": {"device": "cpu"}} if recipe.offload == "cpu" else {}),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**31,
            "wall_clock_breakdown": False,
        }


def _catcher() -> Any:
    """A writer of DeepSpeed's checkpoints that keeps copies in host memory."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine

    class Catcher(TorchCheckpointEngine):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.caught: dict[str, Any] = {}

        def save(self, state_dict: Any, path: str) -> None:
            self.caught[path] = host_copy(state_dict)

    return Catcher()


@contextlib.contextmanager
def _without_a_word() -> Iterator[None]:
    """Keep DeepSpeed's tools, which print and log as they go, from telling people."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def weights_in(folder: Path) -> dict[str, Tensor]:
    """All weights of a whole checkpoint of any strategy, in fp32 on the processor, without the ranks that wrote it.

    Args:
        folder: of files that are trusted: DeepSpeed's are pickles, whose reading runs what they say.
    """
    if (folder / _PLAIN_STATE).exists():
        weights = torch.load(folder / _PLAIN_STATE, map_location="cpu", weights_only=True)["model"]
    elif any((folder / _TAG).glob(_SHARDS)):
        with _without_a_word():
            from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

            weights = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=_TAG)
    else:
        # Without ZeRO every rank holds all, and the first one's file is the only one.
        weights = torch.load(folder / _TAG / _WHOLE, map_location="cpu", weights_only=False)["module"]
    return {name: value.float() for name, value in weights.items()}


def _recomputing(model: nn.Module) -> None:
    """Let every block of the model's stacks forget its activations and compute them again in backward.

    The functions are changed, not the modules, so names of weights stay. Dropout draws the same numbers again.
    """
    for stack in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        for block in stack:
            block.forward = partial(activation_checkpoint, block.forward, use_reentrant=False)


def build(
    model: nn.Module,
    recipe: TrainingRecipe,
    *,
    device: torch.device,
    num_ranks: int,
    betas: tuple[float, float] | None = None,
) -> Strategy:
    """The recipe's strategy around a model.

    Args:
        num_ranks: workers of this attempt.
        betas: AdamW's, where the way of learning wants its own.
    """
    if recipe.activation_checkpointing:
        _recomputing(model)
    decays = betas or (0.9, recipe.beta2)
    if recipe.strategy == "deepspeed":
        return DeepSpeed(model, recipe, device=device, num_ranks=num_ranks, betas=decays)
    return Plain(model, recipe, device=device, betas=decays)
