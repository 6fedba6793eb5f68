"""How much memory, time, money and disk a training wants, before it starts; and whether a machine has them.

All of it is arithmetic on the recipe. Constants were measured on real workers (torch 2.13, DeepSpeed 0.19, processor)
and are held against a real process's memory in ``tests/unit/test_sizing.py``.

What a model remembers between forward and backward its family says (:class:`tutti.models.family.Footprint`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from tutti.errors import RecipeError
from tutti.models.family import Footprint
from tutti.training.ledger import Prices
from tutti.units import format_bytes

MIB, GIB = 2**20, 2**30
FP32, BF16 = 4, 2
# Python, torch, Arrow, Ray's worker and (strategy deepspeed) DeepSpeed, before the first tensor.
FRAMEWORK_BYTES = {"plain": 500 * MIB, "deepspeed": 600 * MIB}
# CUDA's context and its libraries, on each worker's GPU.
CUDA_BYTES = 800 * MIB
# The command itself with MLflow, and Ray's servers on the machine where it runs.
DRIVER_BYTES = {"plain": 0, "ray": 2000 * MIB}
LOADER_BYTES = 288 * MIB
# DeepSpeed gathers gradients, and with stage 3 weights, in buckets of up to this many numbers.
BUCKET_NUMBERS = 500_000_000
# What autocast keeps in half precision of what fp32 holds whole: norms and residuals stay fp32.
BF16_SHARE_OF_ACTIVATIONS = 0.8
# Of a machine's memory; the rest is the system's.
USABLE_SHARE = 0.95
START_S = 20.0
"""From the command to the first step, with Ray and DeepSpeed."""
OVERHEAD = 1.1
"""Of a step beside its micro-batches and its optimizer: data, records, the wait for the slowest worker."""
COPY_BYTES_PER_S = 1e9
"""At which training stands still for a checkpoint's copy."""
RECOMPUTATION = 4 / 3
"""Work with activation checkpointing to work without: forward runs twice."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What of a recipe decides its size.

    Args:
        parameters, footprint: of the model.
        flops_per_place: of forward and backward.
        steps: of the training.
        places: to be learnt in an example, at most.
        micro_batch: sequences of one forward pass.
        micro_batches: of one step, over all workers.
        fewest_workers, most_workers: it goes on with the fewest, and uses the most where there is room.
        kept_checkpoints: how many lie on storage at the end of the training, at most.
    """

    parameters: int
    footprint: Footprint
    flops_per_place: float
    steps: int
    places: int
    micro_batch: int
    micro_batches: int
    fewest_workers: int = 1
    most_workers: int = 1
    threads_per_worker: int = 1
    gpus_per_worker: int = 0
    strategy: Literal["deepspeed", "plain"] = "deepspeed"
    zero_stage: int = 1
    offload: Literal["none", "cpu"] = "none"
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    checkpoint_every_steps: int = 50
    kept_checkpoints: int = 2

    @property
    def all_places(self) -> int:
        """Of all steps' examples; a few hold padding."""
        return self.steps * self.micro_batches * self.micro_batch * self.places

    @property
    def flops(self) -> float:
        """Floating-point operations of all steps, without what checkpointing of activations repeats."""
        return self.all_places * self.flops_per_place

    @property
    def stage(self) -> int:
        """ZeRO's stage; 0 without DeepSpeed."""
        return self.zero_stage if self.strategy == "deepspeed" else 0

    @property
    def runs_on_ray(self) -> bool:
        """Whether there are processes beside the command's own."""
        return self.strategy == "deepspeed" or self.most_workers > 1


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one machine has; ``gpu_memory_bytes`` of each GPU, ``disk_bytes`` free where results go, None if unknown."""

    cores: int
    memory_bytes: int
    gpus: int = 0
    gpu_memory_bytes: int = 0
    disk_bytes: int | None = None

    @classmethod
    def here(cls, *, results: Path | None = None) -> Machine:
        """This machine, within the limits of its container.

        Args:
            results: a folder of this machine where results go; it need not be there yet.
        """
        import torch

        found = next((path for path in (results, *results.parents) if path.exists()), None) if results else None
        has_gpu = torch.cuda.is_available()
        return cls(
            cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            memory_bytes=min(int(psutil.virtual_memory().total), *_container_limits()),
            gpus=torch.cuda.device_count() if has_gpu else 0,
            gpu_memory_bytes=int(torch.cuda.get_device_properties(0).total_memory) if has_gpu else 0,
            disk_bytes=int(psutil.disk_usage(str(found)).free) if found else None,
        )


@dataclass(frozen=True)
class Memory:
    """What one worker holds at its peak, in bytes by purpose: on its GPU, and in the machine's memory.

    Without a GPU all of it is in the machine's memory.
    """

    gpu: Mapping[str, int]
    host: Mapping[str, int]

    @property
    def gpu_bytes(self) -> int:
        """On the worker's GPU."""
        return sum(self.gpu.values())

    @property
    def host_bytes(self) -> int:
        """In the machine's memory."""
        return sum(self.host.values())


@dataclass(frozen=True)
class Estimate:
    """What a training wants.

    Args:
        memory: of one worker, with the fewest workers, when each holds most.
        workers: with how many it was reckoned.
        seconds: wall time from the command to the end.
        price: in the currency of the prices it was reckoned with.
        checkpoint_bytes, checkpoints: of one, and how many are written.
        disk_bytes: most that lies on storage at once.
    """

    memory: Memory
    workers: int
    seconds: float
    price: float
    checkpoint_bytes: int
    checkpoints: int
    disk_bytes: int


def memory_of(asked: Asked, *, workers: int) -> Memory:
    """Peak memory of one of ``workers`` workers."""
    shard = 1 / workers
    weights = FP32 * asked.parameters
    state: dict[str, float] = {
        "weights": weights * (shard if asked.stage == 3 else 1) + (BF16 * asked.parameters if _is_half(asked) else 0),
        "gradients": weights * (shard if asked.stage >= 2 else 1),
        # Adam's two moments; ZeRO updates a copy of its share of the weights.
        "optimizer": weights * (3 * shard if asked.stage else 2),
        "buckets": FP32 * min(asked.parameters, BUCKET_NUMBERS) if asked.stage else 0,
    }
    work = {"activations": _activation_bytes(asked), "outputs": _output_bytes(asked)}
    if asked.micro_batches == asked.most_workers and not asked.stage:
        # Gradients of one micro-batch grow while its activations are given back: both are never there whole.
        state["gradients"] = max(0, state["gradients"] - work["activations"])
    host: dict[str, float] = {"framework": FRAMEWORK_BYTES[asked.strategy], "loader": LOADER_BYTES}
    host["checkpoint copy"] = checkpoint_bytes(asked) * (shard if asked.stage else 1)
    if not asked.gpus_per_worker:
        return Memory({}, _whole({**state, **work, **host}))
    if asked.offload == "cpu":
        host["offloaded optimizer"] = state.pop("optimizer") + weights * shard
    return Memory(_whole({**state, **work, "cuda": CUDA_BYTES}), _whole(host))


def checkpoint_bytes(asked: Asked) -> int:
    """Size of one checkpoint over all workers: weights and Adam's moments; ZeRO adds its copy of the weights."""
    return FP32 * asked.parameters * (4 if asked.stage else 3)


def estimate(
    asked: Asked, *, micro_batch_s: float, optimizer_s: float = 0.0, prices: Prices | None = None, kind: str = "cpu"
) -> Estimate:
    """Time, price and disk of a whole training, with the most workers.

    Args:
        micro_batch_s: forward and backward of one micro-batch on one worker, activation checkpointing included.
        optimizer_s: one update of the weights.
        kind: of worker, by which prices are looked up.
    """
    workers = asked.most_workers
    of_worker = math.ceil(asked.micro_batches / workers)
    size = checkpoint_bytes(asked)
    # The last step publishes the model and no checkpoint.
    written = (asked.steps - 1) // asked.checkpoint_every_steps
    stall_s = written * size / workers / COPY_BYTES_PER_S
    seconds = START_S + asked.steps * (of_worker * micro_batch_s + optimizer_s) * OVERHEAD + stall_s
    kept = min(asked.kept_checkpoints, written)
    return Estimate(
        memory=memory_of(asked, workers=asked.fewest_workers),
        workers=workers,
        seconds=seconds,
        price=(prices or Prices()).of(kind) * workers * seconds / 3600,
        checkpoint_bytes=size,
        checkpoints=written,
        # One more is written before an older one goes; then the model itself.
        disk_bytes=(kept + (1 if written else 0)) * size + FP32 * asked.parameters,
    )


def fits(asked: Asked, machine: Machine) -> tuple[str, ...]:
    """What keeps a training from running on one machine alone, each with value, limit and remedy; empty if nothing."""
    return tuple(_faults(asked, machine))


def check(asked: Asked, machine: Machine) -> None:
    """Refuse a training that cannot run on one machine alone.

    Raises:
        RecipeError: the first of :func:`fits`.
    """
    for fault in _faults(asked, machine):
        raise RecipeError(fault)


def _faults(asked: Asked, machine: Machine) -> Iterator[str]:
    yield from _lacking(asked, machine)
    workers = _workers_on(machine, asked)
    held = memory_of(asked, workers=workers)
    if asked.gpus_per_worker and machine.gpus and not _gpu_fits(asked, machine):
        yield (
            f"a worker wants {format_bytes(held.gpu_bytes)} of GPU memory (most of it {_largest(held.gpu)}), "
            f"a GPU here has {format_bytes(machine.gpu_memory_bytes)}: {_remedy(asked, machine)}"
        )
    if not _host_fits(asked, machine):
        yield (
            f"{_counted(workers)} and the command want {format_bytes(_host_bytes(asked, machine))} of memory "
            f"({format_bytes(held.host_bytes)} each, most of it {_largest(held.host)}), "
            f"this machine has {format_bytes(machine.memory_bytes)}: {_remedy(asked, machine)}"
        )
    wanted = estimate(asked, micro_batch_s=0).disk_bytes
    if machine.disk_bytes is not None and wanted > machine.disk_bytes:
        yield (
            f"checkpoints and model want {format_bytes(wanted)} of disk, {format_bytes(machine.disk_bytes)} are free: "
            f"free some, keep fewer checkpoints ({asked.kept_checkpoints}), or name another --root"
        )


def _lacking(asked: Asked, machine: Machine) -> Iterator[str]:
    """GPUs and cores that are not there; who wants a GPU must hear of that first."""
    workers = asked.fewest_workers
    cores, gpus = workers * asked.threads_per_worker, workers * asked.gpus_per_worker
    if gpus > machine.gpus:
        remedy = f"workers={_dividing(asked, machine.gpus)}" if machine.gpus else "gpus_per_worker=0"
        yield (
            f"{_counted(workers)} want {gpus} GPUs, this machine has {machine.gpus}: "
            f"set training.{remedy}, or submit it to a cluster"
        )
    if cores > machine.cores:
        remedy = f"training.workers={_dividing(asked, machine.cores // asked.threads_per_worker)}"
        if asked.threads_per_worker > machine.cores:
            remedy += " and training.threads_per_worker=1"
        yield (
            f"{_counted(workers)} of {asked.threads_per_worker} threads want {cores} cores, this machine has "
            f"{machine.cores}: set {remedy}, or submit it to a cluster"
        )


def _remedy(asked: Asked, machine: Machine) -> str:
    """The smallest change that makes it fit."""
    for change, words in _changes(asked):
        changed = replace(asked, **change)
        if _gpu_fits(changed, machine) and _host_fits(changed, machine):
            return f"set {words}"
    return "choose a smaller model.flavour, or submit it to a cluster"


def _changes(asked: Asked) -> Iterator[tuple[dict[str, Any], str]]:
    for smaller in (asked.micro_batch >> halvings for halvings in range(1, asked.micro_batch.bit_length())):
        # More, smaller micro-batches: the same batch.
        many = asked.micro_batches * asked.micro_batch // smaller
        yield {"micro_batch": smaller, "micro_batches": many}, f"training.micro_batch_sequences={smaller}"
    yield {"activation_checkpointing": True}, "training.activation_checkpointing=true"
    one_at_a_time = {"micro_batch": 1, "micro_batches": asked.micro_batches * asked.micro_batch}
    small = {**one_at_a_time, "activation_checkpointing": True}
    yield small, "training.micro_batch_sequences=1 and training.activation_checkpointing=true"
    if asked.strategy == "deepspeed":
        if asked.zero_stage < 3:
            yield {"zero_stage": 3}, "training.zero_stage=3"
        if asked.gpus_per_worker:
            yield {"offload": "cpu", "zero_stage": max(asked.zero_stage, 1)}, "training.offload=cpu"
    for fewer in range(asked.most_workers - 1, 0, -1):
        if asked.micro_batches % fewer == 0:
            yield {"fewest_workers": fewer, "most_workers": fewer}, f"training.workers={fewer}"


def _gpu_fits(asked: Asked, machine: Machine) -> bool:
    held = memory_of(asked, workers=_workers_on(machine, asked))
    return held.gpu_bytes <= machine.gpu_memory_bytes * USABLE_SHARE


def _host_fits(asked: Asked, machine: Machine) -> bool:
    return _host_bytes(asked, machine) <= machine.memory_bytes * USABLE_SHARE


def _host_bytes(asked: Asked, machine: Machine) -> int:
    """Of all workers and of what starts them."""
    workers = _workers_on(machine, asked)
    driver = DRIVER_BYTES["ray" if asked.runs_on_ray else "plain"]
    return driver + workers * memory_of(asked, workers=workers).host_bytes


def _workers_on(machine: Machine, asked: Asked) -> int:
    """How many there will be on this machine alone: as many as its cores and GPUs allow."""
    room = machine.cores // asked.threads_per_worker
    room = min(room, machine.gpus) if asked.gpus_per_worker else room
    return max(asked.fewest_workers, min(asked.most_workers, room))


def _dividing(asked: Asked, most: int) -> int:
    """The largest number of workers up to ``most`` that a step's micro-batches can be divided among."""
    return next((number for number in range(max(most, 1), 1, -1) if asked.micro_batches % number == 0), 1)


def _counted(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _activation_bytes(asked: Asked) -> float:
    places = asked.micro_batch * asked.places
    held = asked.footprint
    of_block = places * held.block_numbers * FP32
    pairs = asked.micro_batch * asked.places**2 * held.pair_bytes
    share = BF16_SHARE_OF_ACTIVATIONS if _is_half(asked) else 1.0
    if asked.activation_checkpointing:
        return held.blocks * places * held.boundary_numbers * FP32 + of_block * share + pairs
    return held.blocks * of_block * share + pairs


def _output_bytes(asked: Asked) -> float:
    return asked.micro_batch * asked.places * asked.footprint.output_numbers * FP32


def _is_half(asked: Asked) -> bool:
    return asked.precision == "bf16"


def _largest(parts: Mapping[str, int]) -> str:
    name = max(parts, key=lambda each: parts[each])
    return f"{name} {format_bytes(parts[name])}"


def _whole(parts: Mapping[str, float]) -> dict[str, int]:
    return {name: round(size) for name, size in parts.items() if size}


def _container_limits() -> Iterator[int]:
    """Memory limits of control groups of version 2 and 1, where this process is in one."""
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = path.read_text().strip() if path.is_file() else "max"
        if text.isdigit():
            yield int(text)
