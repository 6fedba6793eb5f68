"""State on its way out of a model: copied to host memory, then to bytes."""

from __future__ import annotations

import io
from typing import Any

import torch


def host_copy(state: Any) -> Any:
    """The same state with every tensor copied to host memory, sharing nothing with the model."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True).contiguous()
    if isinstance(state, dict):
        # Mappings of other kinds, such as an OrderedDict, must stay what they are.
        return type(state)((key, host_copy(value)) for key, value in state.items())
    if type(state) in (list, tuple):
        return type(state)(host_copy(value) for value in state)
    return state


def serialised(state: Any) -> bytes:
    """As torch writes it."""
    data = io.BytesIO()
    torch.save(state, data)
    return data.getvalue()
