"""What compiled loops share: numbers of 16 and of 32 bits behind the same names, and an exponential.

Numbers of 16 bits are bfloat16, the upper half of a float32, kept as ``uint16``: numpy has no such type. Loops compute
in float32 whatever they read.

A loop that is kept is compiled anew when its own file changes, and not when this one or :mod:`tutti.models.panels`
does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import overload

_HALF = np.uint32(16)
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(loop: _Function) -> _Function:
    """A loop that is called from without: compiled on its first call, and kept beside its file for the next process.

    Sums may be taken in any order, the same one each time; other threads run meanwhile.
    """
    make = partial(njit, fastmath=True, nogil=True, error_model="numpy")
    try:
        return cast(_Function, make(cache=True)(loop))
    except RuntimeError:  # no folder can be written to: each process compiles for itself
        return cast(_Function, make()(loop))


def within(loop: _Function) -> _Function:
    """A part of compiled loops."""
    return cast(_Function, njit(fastmath=True, error_model="numpy")(loop))


def inlined(loop: _Function) -> _Function:
    """A part of compiled loops that is copied into each."""
    return cast(_Function, njit(fastmath=True, error_model="numpy", inline="always")(loop))


def wide(number: Any) -> Any:
    """A number as float32, in a compiled loop."""
    raise NotImplementedError


def narrow(value: Any, like: Any) -> Any:
    """A float32 as a number such as ``like``, to the nearest one, in a compiled loop."""
    raise NotImplementedError


@overload(wide, inline="always", strict=False)
def _wide(number: types.Type) -> Callable[..., Any]:
    if number == types.float32:
        return lambda number: number
    return lambda number: np.uint32(np.uint32(number) << _HALF).view(np.float32)


@overload(narrow, inline="always", strict=False)
def _narrow(value: types.Type, like: types.Type) -> Callable[..., Any]:  # noqa: ARG001
    if like == types.float32:
        return lambda value, like: value  # noqa: ARG005

    def to_half(value: Any, like: Any) -> Any:  # noqa: ARG001
        bits = np.float32(value).view(np.uint32)
        odd = np.uint32(np.uint32(bits >> _HALF) & np.uint32(1))
        return np.uint16(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) >> _HALF)

    return to_half


@inlined
def exponential(x: Any) -> Any:
    """e to the power of a float32 of at most 88, to about two units in the last place, without a call.

    Source: S. Moshier, Cephes mathematical library, ``expf``.
    """
    x = max(x, np.float32(-87.0))
    whole = np.floor(x * np.float32(1.44269504) + np.float32(0.5))
    rest = x - whole * np.float32(0.693359375)
    rest = rest + whole * np.float32(2.12194440e-4)
    y = np.float32(1.9875691500e-4)
    y = y * rest + np.float32(1.3981999507e-3)
    y = y * rest + np.float32(8.3334519073e-3)
    y = y * rest + np.float32(4.1665795894e-2)
    y = y * rest + np.float32(1.6666665459e-1)
    y = y * rest + np.float32(5.0000001201e-1)
    y = y * rest * rest + rest + np.float32(1)
    power = np.uint32(np.uint32(np.int32(whole) + np.int32(127)) << np.uint32(23)).view(np.float32)
    return y * power
