"""How fast this machine multiplies matrices: what a model's speed is held against.

A model's FLOP/s divided by this figure is its utilisation (MFU) on the very device, precision and threads it runs with,
where a vendor's peak would say what no program reaches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

_SIDES = {"cpu": (128, 256, 512, 1024, 1536), "cuda": (1024, 2048, 4096, 8192)}
"""Sides of the square matrices that are tried, by type of device: too small idles, too large leaves the caches."""
_BUDGET_S = 0.7
_ROUNDS = 8


@cache
def matmul_flops_per_s(*, device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """The best rate of square matrix products, in floating-point operations a second (a product of side n is 2 n³).

    Takes less than a second on a processor, and is measured once in a process, whose number of threads is what it was
    before, afterwards.

    Args:
        device: where to multiply.
        dtype: ``torch.float32`` or ``torch.bfloat16``.
        threads: processor threads, as a worker has them; on a GPU without meaning.
    """
    sides = _SIDES["cuda" if device.type == "cuda" else "cpu"]
    deadline_s = time.perf_counter() + _BUDGET_S
    best = 0.0
    with _threads(threads), torch.inference_mode():
        for number, side in enumerate(sides):
            flops = 2.0 * side**3
            # A processor without instructions for bf16 is a hundred times slower: it never comes to the large ones.
            left_s = (deadline_s - time.perf_counter()) / (len(sides) - number)
            if best and flops / best > left_s / 2:
                break
            left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
            best = max(best, flops / _fastest_s(left, right, budget_s=left_s))
    return best


def _fastest_s(left: torch.Tensor, right: torch.Tensor, *, budget_s: float) -> float:
    """Seconds of the fastest of some products; the first, which loads kernels, does not count."""
    out = torch.empty_like(left)
    deadline_s = time.perf_counter() + budget_s
    fastest_s = float("inf")
    for number in range(1 + _ROUNDS):
        start_s = time.perf_counter()
        torch.mm(left, right, out=out)
        _settle(left.device)
        end_s = time.perf_counter()
        fastest_s = min(fastest_s, end_s - start_s) if number else fastest_s
        if number and end_s > deadline_s:
            break
    return fastest_s


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
