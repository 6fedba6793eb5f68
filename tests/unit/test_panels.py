"""Products with panels: what torch says, and the same for a row beside any number of others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tutti.models.compiled import compiled
from tutti.models.panels import COLUMNS, multiply, multiply_one, pair_of, panels_of, zeros

TYPES = [torch.float32, torch.bfloat16]


@compiled
def product(x_BK: Any, panels_PKCE: Any, out_BN: Any, adds: int) -> None:
    multiply(x_BK, len(x_BK), panels_PKCE, out_BN, adds)


@compiled
def product_of_one(x_K: Any, panel_KCE: Any, steps: int, lines: int, out_C: Any) -> None:
    multiply_one(x_K, panel_KCE, steps, lines, out_C, 1)


def numbers(values: torch.Tensor) -> Any:
    return values.numpy() if values.dtype == torch.float32 else values.view(torch.uint16).numpy()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 24), (63, 70), (256, 96)])
def test_rows_times_panels_are_what_torch_says(inputs: int, outputs: int, dtype: torch.dtype) -> None:
    weight, x = torch.randn(outputs, inputs).to(dtype), torch.randn(19, inputs).to(dtype)
    panels = panels_of(weight, dtype=dtype)
    padded = torch.zeros(19, panels.shape[1] * panels.shape[3], dtype=dtype)
    padded[:, :inputs] = x
    out = np.full((19, panels.shape[0] * panels.shape[2]), np.nan, dtype=np.float32)
    product(numbers(padded), panels, out, 0)
    said = torch.from_numpy(out)
    torch.testing.assert_close(said[:, :outputs], x.float() @ weight.float().T, rtol=1e-4, atol=1e-4)
    assert not said[:, outputs:].any(), "columns that nobody asked for are nothing"
    before = said.clone()
    product(numbers(padded), panels, out, 1)
    torch.testing.assert_close(torch.from_numpy(out), 2 * before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_row_gets_the_same_beside_any_number_of_others(dtype: torch.dtype) -> None:
    panels = panels_of(torch.randn(96, 64), dtype=dtype)
    x = numbers(torch.randn(40, 64).to(dtype))
    whole = np.zeros((40, 96), dtype=np.float32)
    product(x, panels, whole, 0)
    for rows in (1, 2, 3, 4, 5, 7, 8, 9, 15, 23, 31):
        some = np.zeros((rows, 96), dtype=np.float32)
        product(x[-rows:], panels, some, 0)
        np.testing.assert_array_equal(some, whole[-rows:])


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("lines", [1, 2, 3, 4, 7])
def test_one_row_times_a_part_of_a_panel(lines: int, dtype: torch.dtype) -> None:
    columns, used, steps = 8 * COLUMNS, lines * COLUMNS, 5
    weight, x = torch.randn(columns, 16).to(dtype), torch.randn(16).to(dtype)
    halves = numbers(weight)
    pair = pair_of(halves.dtype)
    panel = zeros((16 // pair, columns, pair), halves.dtype)
    panel[:] = halves.reshape(columns, 16 // pair, pair).swapaxes(0, 1)
    out = np.ones(columns, dtype=np.float32)
    product_of_one(numbers(x), panel, steps, lines, out)
    wanted = 1 + weight[:used, : steps * pair].float() @ x[: steps * pair].float()
    np.testing.assert_allclose(out[:used], wanted, rtol=1e-4, atol=1e-4)
    assert (out[used:] == 1).all()


def test_panels_begin_with_a_line_of_memory() -> None:
    for shape in ((1,), (3, 5), (7, 16, 2)):
        assert zeros(shape, np.uint16).ctypes.data % 64 == 0
