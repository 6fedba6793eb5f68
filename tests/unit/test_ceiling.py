"""The ceiling of matrix products is a rate that this machine really reaches, and leaves the process as it was."""

from __future__ import annotations

import pytest
import torch

from tutti.training.ceiling import matmul_flops_per_s

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_is_found_whatever_the_processor_is_made_for(dtype: torch.dtype) -> None:
    # No processor of this century does less than 10 MFLOP/s, none more than 100 TFLOP/s.
    assert 1e7 < matmul_flops_per_s(device=CPU, dtype=dtype, threads=1) < 1e14


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    matmul_flops_per_s(device=CPU, dtype=torch.float32, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_measured_too() -> None:
    device = torch.device("cuda")
    assert matmul_flops_per_s(device=device, dtype=torch.bfloat16, threads=1) > 1e12
