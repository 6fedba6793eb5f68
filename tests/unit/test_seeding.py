"""Random streams: the same on every machine, different by every name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutti.seeding import derive, generator, mix64, uniform_at

NAMES = st.lists(st.one_of(st.text(max_size=8), st.integers(-(2**63), 2**63)), max_size=4)
ROOTS = st.integers(0, 2**63 - 1)


@given(ROOTS, NAMES, ROOTS, NAMES)
def test_streams_differ_where_root_or_names_differ(
    root: int, names: list[str | int], other: int, more: list[str | int]
) -> None:
    same = root == other and [*map(repr, names)] == [*map(repr, more)]
    assert (derive(root, *names) == derive(other, *more)) is same


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "b"), ("ab",)),
        (("a", "b"), ("a\x1fstr:b",)),
        ((1,), ("1",)),
        (("a", ""), ("a",)),
        (('a", "b',), ("a", "b")),
    ],
)
def test_names_that_look_alike_make_different_streams(
    left: tuple[str | int, ...], right: tuple[str | int, ...]
) -> None:
    assert derive(7, *left) != derive(7, *right)


def test_integers_of_numpy_are_integers() -> None:
    assert derive(np.int64(3), np.int32(5)) == derive(3, 5)


@given(ROOTS, NAMES)
def test_a_seed_fits_63_bits(root: int, names: list[str | int]) -> None:
    assert 0 <= derive(root, *names) < 2**63


def test_streams_are_the_same_for_ever() -> None:
    assert derive(0) == 6197007067532723406
    assert derive(1, "order", 0) == 8316936572335140939
    assert uniform_at(np.array([1, 2], dtype=np.uint64), 3).tolist() == [
        0.9230401474946464,
        0.13845495360876658,
    ]


def test_mix64_is_splitmix64() -> None:
    # First outputs for seed 1234567, from the reference implementation (Vigna, splitmix64.c).
    step = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * step) % 2**64 for i in range(5)], dtype=np.uint64)
    assert mix64(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_draws_are_uniform_and_uncorrelated() -> None:
    seeds = np.arange(200, dtype=np.uint64)
    draws = uniform_at(seeds[:, None], np.arange(500, dtype=np.uint64)[None, :])
    assert draws.shape == (200, 500)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=64, range=(0, 1))
    expected = draws.size / 64
    # Chi-squared with 63 degrees of freedom stays below 120 in all but one of 50,000 uniform samples.
    assert ((counts - expected) ** 2 / expected).sum() < 120
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.015
    assert np.unique(draws).size == draws.size


@given(ROOTS, st.text(max_size=5))
def test_a_generator_repeats_itself(root: int, name: str) -> None:
    assert generator(root, name).integers(0, 2**62, 4).tolist() == generator(root, name).integers(0, 2**62, 4).tolist()
