"""How long one micro-batch takes: tried on this machine where the recipe's device is here, assumed where it is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch

from tutti.models.decoder import DecoderConfiguration
from tutti.models.flavours import build
from tutti.training.ceiling import matmul_flops_per_s
from tutti.training.objectives import summed_nll
from tutti.training.sizing import RECOMPUTATION, Asked

UTILISATION = 0.3
"""Share of the matrix-product ceiling that a training step is taken to reach, where none can be tried."""
ABSENT_GPU_FLOPS_PER_S = {"fp32": 19.5e12, "bf16": 312e12}
"""Of an A100 by its maker's sheet: what a recipe with GPUs is reckoned with where no GPU is here."""
MOST_S = 6.0
"""A rehearsal that would take longer is not made."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Pace:
    """Seconds of one micro-batch's forward and backward, and of one update of the weights, on one worker.

    Args:
        how: where the figures come from, for people.
    """

    micro_batch_s: float
    optimizer_s: float
    how: str


def pace_of(family: str, configuration: DecoderConfiguration, asked: Asked) -> Pace:
    """The pace of a training on this machine, within seconds.

    Args:
        family, configuration: the model.
    """
    if asked.gpus_per_worker and not torch.cuda.is_available():
        ceiling = ABSENT_GPU_FLOPS_PER_S[asked.precision]
        return _assumed(asked, ceiling, "no GPU is here; an A100")
    device = torch.device("cuda" if asked.gpus_per_worker else "cpu")
    dtype = _DTYPES[asked.precision]
    ceiling = matmul_flops_per_s(device=device, dtype=dtype, threads=asked.threads_per_worker)
    of_sequence_s = asked.sequence_tokens * asked.flops_per_token / (ceiling * UTILISATION)
    # Once to warm up, once for the clock.
    rows = min(asked.micro_batch, int(MOST_S / 2 / of_sequence_s))
    if rows < 1:
        return _assumed(asked, ceiling, "too slow to be tried here; this machine")
    return rehearsed(family, configuration, asked, rows=rows, device=device)


def _assumed(asked: Asked, ceiling: float, whose: str) -> Pace:
    flops = asked.micro_batch * asked.sequence_tokens * asked.flops_per_token
    again = RECOMPUTATION if asked.activation_checkpointing else 1.0
    how = f"assumed: {whose} at {UTILISATION:.0%} of {ceiling / 1e12:.3g} TFLOP/s"
    return Pace(flops * again / (ceiling * UTILISATION), 0.0, how)


def rehearsed(
    family: str, configuration: DecoderConfiguration, asked: Asked, *, rows: int, device: torch.device
) -> Pace:
    """The pace of two steps over ``rows`` sequences, done for real; random tokens cost what music does."""
    shape = (rows, asked.sequence_tokens)
    with _alone(asked.threads_per_worker):
        model = build(family, configuration).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
        tokens_BT = torch.randint(1, configuration.vocabulary_size, shape, device=device)
        segments_BT = torch.zeros_like(tokens_BT)
        half = torch.autocast(device.type, dtype=torch.bfloat16) if asked.precision == "bf16" else nullcontext()
        for _ in range(2):
            start_s = _now_s(device)
            with half:
                logits_BTV = model(tokens_BT, segments_BT)
            summed_nll(logits_BTV, tokens_BT).backward()  # type: ignore[no-untyped-call]
            middle_s = _now_s(device)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            end_s = _now_s(device)
    again = RECOMPUTATION if asked.activation_checkpointing else 1.0
    micro_batch_s = (middle_s - start_s) * asked.micro_batch / rows * again
    tried = f"{rows} of {asked.micro_batch} sequences" if rows < asked.micro_batch else "a micro-batch"
    return Pace(micro_batch_s, end_s - middle_s, f"{tried} timed here on {device.type}")


def _now_s(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def _alone(threads: int) -> Iterator[None]:
    """As a worker computes: with its threads, and draws that disturb nobody's."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)
