"""Products of rows with weights that lie in panels, compiled for the processor at hand.

A panel holds some columns of the weights side by side, input after input. A vector of the processor takes a line of
memory: sixteen float32, or sixteen pairs of bfloat16 (:mod:`tutti.models.compiled`), whose two products one instruction
sums where the processor has it (``VDPBF16PS``). A tile of the product stays in registers from its first input to its
last, which is how products come near to what a processor can do (Goto and van de Geijn 2008, "Anatomy of
high-performance matrix multiplication"). Memory is read line after line: lines of several panels in turn, a kilobyte
apart, came at 10 GB/s where one after the other they come at 27.

Each number is one sum over the inputs in their order, whatever stands beside it: a row's result never depends on how
many rows there are.

Legend: N columns, K inputs, P panels, C columns of a panel, E inputs that lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np
import torch
from llvmlite import ir as llvm_ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.core import codegen as numba_codegen
from numba.extending import intrinsic, overload
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

# Of these nobody tells the types.
cgutils: Any = numba_cgutils
ir: Any = llvm_ir
_codegen: Any = numba_codegen
_config: Any = numba.config

COLUMNS = 16
"""Columns of a line."""
_WIDTH = 2 * COLUMNS
_LINE_BYTES = 64

_FEATURES = str(_codegen.get_host_cpu_features() if _config.CPU_FEATURES is None else _config.CPU_FEATURES)
_HAS_DOT = "+avx512bf16" in _FEATURES
# As many rows as leave their sums in registers, of which older processors have half as many of half the width.
TALL = 8 if "+avx512f" in _FEATURES else 2

_FLOATS = ir.VectorType(ir.FloatType(), COLUMNS)
_WORDS = ir.VectorType(ir.IntType(32), COLUMNS)
_LONG = ir.IntType(64)
_Kind = Literal["float32", "bfloat16"]


def pair_of(dtype: DTypeLike) -> int:
    """E: inputs that lie side by side, of numbers of a type."""
    return 4 // np.dtype(dtype).itemsize


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros that begin with a line of memory; the machine hands out pages as they are first used."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _LINE_BYTES, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def panels_of(weight_NK: Tensor, *, dtype: torch.dtype) -> NDArray[Any]:
    """Weights as panels of two lines, padded with zeros: shape (P, K / E, C, E)."""
    weight = weight_NK.detach().to(dtype).contiguous()
    given = weight.numpy() if dtype == torch.float32 else weight.view(torch.uint16).numpy()
    pair, (outputs, inputs) = pair_of(given.dtype), given.shape
    num, steps = -(-outputs // _WIDTH), -(-inputs // pair)
    padded = np.zeros((num * _WIDTH, steps * pair), dtype=given.dtype)
    padded[:outputs, :inputs] = given
    made = zeros((num, steps, _WIDTH, pair), given.dtype)
    made[:] = padded.reshape(num, _WIDTH, steps, pair).swapaxes(1, 2)
    return made


class _Bfloat(ir.types._BaseFloatType):  # type: ignore[misc]
    """bfloat16, which llvmlite has no name for."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_Bfloat._create_instance()


def _sums(builder: Any, sums: Any, x_C: Any, weights_C: Any, kind: _Kind) -> Any:
    """Sums of each column, and one more input, or pair of inputs, times its weights."""
    if kind == "float32":
        return _fused(builder, x_C, weights_C, sums)
    if _HAS_DOT:
        pairs = ir.VectorType(_Bfloat(), 2 * COLUMNS)
        signature = ir.FunctionType(_FLOATS, [_FLOATS, pairs, pairs])
        dot = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx512bf16.dpbf16ps.512")
        return builder.call(dot, [sums, builder.bitcast(x_C, pairs), builder.bitcast(weights_C, pairs)])
    for widen, by in ((builder.shl, 16), (builder.and_, 0xFFFF0000)):
        x, weights = (
            builder.bitcast(widen(pair, ir.Constant(_WORDS, [by] * COLUMNS)), _FLOATS) for pair in (x_C, weights_C)
        )
        sums = _fused(builder, x, weights, sums)
    return sums


def _fused(builder: Any, x: Any, y: Any, sums: Any) -> Any:
    signature = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    fma = cgutils.get_or_insert_function(builder.module, signature, "llvm.fma.v16f32")
    return builder.call(fma, [x, y, sums])


def _tile(rows: int, lines: int, kind: _Kind) -> Callable[..., Any]:
    """A tile of the product: some rows by the columns of some lines of memory that lie side by side."""

    def generated(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        x, x_stride, weights, step_bytes, steps, out, out_stride, adds = arguments
        vector = _FLOATS if kind == "float32" else _WORDS

        def at(base: Any, stride: Any, number: int, offset: Any) -> Any:
            return builder.add(builder.add(base, builder.mul(stride, _LONG(number))), offset)

        def load(address: Any, what: Any) -> Any:
            loaded = builder.load(builder.inttoptr(address, what.as_pointer()), typ=what)
            loaded.align = 4
            return loaded

        outs = [[at(out, out_stride, row, _LONG(line * _LINE_BYTES)) for line in range(lines)] for row in range(rows)]
        sums = [[cgutils.alloca_once(builder, _FLOATS) for _ in range(lines)] for _ in range(rows)]
        with builder.if_else(builder.icmp_signed("!=", adds, adds.type(0))) as (added, fresh):
            with added:
                for row in range(rows):
                    for line in range(lines):
                        builder.store(load(outs[row][line], _FLOATS), sums[row][line])
            with fresh:
                for row in range(rows):
                    for line in range(lines):
                        builder.store(ir.Constant(_FLOATS, [0.0] * COLUMNS), sums[row][line])
        with cgutils.for_range(builder, steps) as loop:
            here, word = builder.mul(loop.index, step_bytes), builder.shl(loop.index, _LONG(2))
            read = [load(at(weights, here, 1, _LONG(line * _LINE_BYTES)), vector) for line in range(lines)]
            for row in range(rows):
                one = load(at(x, x_stride, row, word), vector.element)
                none = ir.Constant(vector, ir.Undefined)
                first = builder.insert_element(none, one, ir.IntType(32)(0))
                x_C = builder.shuffle_vector(first, none, ir.Constant(_WORDS, [0] * COLUMNS))
                for line in range(lines):
                    held = sums[row][line]
                    builder.store(_sums(builder, builder.load(held, typ=_FLOATS), x_C, read[line], kind), held)
        for row in range(rows):
            for line in range(lines):
                pointer = builder.inttoptr(outs[row][line], _FLOATS.as_pointer())
                builder.store(builder.load(sums[row][line], typ=_FLOATS), pointer).align = 4
        return context.get_dummy_value()

    @intrinsic
    def tile(
        _: Any, x: Any, x_stride: Any, weights: Any, step_bytes: Any, steps: Any, out: Any, out_stride: Any, adds: Any
    ) -> Any:
        taken = (x, x_stride, weights, step_bytes, steps, out, out_stride, adds)
        return types.void(*(types.intp for _ in taken)), generated

    return tile


_KINDS: tuple[_Kind, _Kind] = ("float32", "bfloat16")
_TALL, _FOUR, _TWO, _ONE = ({kind: _tile(rows, 2, kind) for kind in _KINDS} for rows in (TALL, 4, 2, 1))
_WIDE, _NARROW = ({kind: _tile(1, lines, kind) for kind in _KINDS} for lines in (4, 1))


def multiply(x_BK: Any, rows: int, panels_PKCE: Any, out_BN: Any, adds: int) -> None:
    """Rows times weights, in a compiled loop.

    Args:
        x_BK: the rows, of the panels' type; each row's numbers side by side.
        rows: how many of them.
        panels_PKCE: as :func:`panels_of` lays them out.
        out_BN: float32; ``P * C`` numbers a row, side by side.
        adds: 1: the product is added to ``out_BN``; 0: it takes its place.
    """
    raise NotImplementedError


def multiply_one(x_K: Any, panel_KCE: Any, steps: int, lines: int, out_C: Any, adds: int) -> None:
    """One row times one panel, as :func:`multiply`.

    Args:
        panel_KCE: of whole lines, however many.
        steps, lines: how many of the K / E inputs and of the lines of columns count.
    """
    raise NotImplementedError


@overload(multiply, strict=False)
def _multiply(x_BK: Any, rows: Any, panels_PKCE: Any, out_BN: Any, adds: Any) -> Callable[..., Any]:  # noqa: ARG001
    kind: _Kind = "float32" if panels_PKCE.dtype == types.float32 else "bfloat16"
    tall, four, two, one = (tiles[kind] for tiles in (_TALL, _FOUR, _TWO, _ONE))

    def product(x_BK: Any, rows: Any, panels_PKCE: Any, out_BN: Any, adds: Any) -> None:
        x, dx, out, dout = x_BK.ctypes.data, x_BK.strides[0], out_BN.ctypes.data, out_BN.strides[0]
        at, panel_bytes, step_bytes = panels_PKCE.ctypes.data, panels_PKCE.strides[0], panels_PKCE.strides[1]
        steps = panels_PKCE.shape[1]
        for _ in range(len(panels_PKCE)):
            row = 0
            while rows - row >= TALL:
                tall(x + row * dx, dx, at, step_bytes, steps, out + row * dout, dout, adds)
                row += TALL
            while rows - row >= 4:
                four(x + row * dx, dx, at, step_bytes, steps, out + row * dout, dout, adds)
                row += 4
            if rows - row >= 2:
                two(x + row * dx, dx, at, step_bytes, steps, out + row * dout, dout, adds)
                row += 2
            if rows > row:
                one(x + row * dx, dx, at, step_bytes, steps, out + row * dout, dout, adds)
            at, out = at + panel_bytes, out + 2 * _LINE_BYTES

    return product


@overload(multiply_one, strict=False)
def _multiply_one(x_K: Any, panel_KCE: Any, steps: Any, lines: Any, out_C: Any, adds: Any) -> Callable[..., Any]:  # noqa: ARG001
    kind: _Kind = "float32" if panel_KCE.dtype == types.float32 else "bfloat16"
    wide, narrow, two = _WIDE[kind], _NARROW[kind], _ONE[kind]

    def product(x_K: Any, panel_KCE: Any, steps: Any, lines: Any, out_C: Any, adds: Any) -> None:
        x, at, step_bytes, out = x_K.ctypes.data, panel_KCE.ctypes.data, panel_KCE.strides[0], out_C.ctypes.data
        line = 0
        while lines - line >= 4:
            wide(x, 0, at + line * _LINE_BYTES, step_bytes, steps, out + line * _LINE_BYTES, 0, adds)
            line += 4
        if lines - line >= 2:
            two(x, 0, at + line * _LINE_BYTES, step_bytes, steps, out + line * _LINE_BYTES, 0, adds)
            line += 2
        if lines > line:
            narrow(x, 0, at + line * _LINE_BYTES, step_bytes, steps, out + line * _LINE_BYTES, 0, adds)

    return product
