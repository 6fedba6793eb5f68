"""Laws of the order: every epoch is a permutation, shares are exact, any place is found alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tutti.dataset.order import MIXTURE_PERIOD, Index, Mixture, Order, Shuffle, Source, permuted, unpermuted
from tutti.errors import RecipeError

_seeds = st.integers(0, 2**62)
_sources = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=1, max_size=6)
FROZEN = [6, 0, 2, 8, 4, 7, 9, 3, 5, 1]
FROZEN_PLACES = [(1, 0, 18), (1, 0, 19), (1, 0, 22), (0, 0, 4), (1, 0, 20), (1, 0, 23)]


def sources_of(drawn: list[tuple[int, int]]) -> list[Source]:
    return [Source(f"source {number}", size, block) for number, (size, block) in enumerate(drawn)]


@given(st.integers(1, 3000), _seeds, st.integers(0, 50))
def test_a_permutation_is_one_and_has_its_inverse(size: int, seed: int, name: int) -> None:
    found = permuted(np.arange(size), size=size, seed=seed, names=(name,))
    assert_array_equal(np.sort(found), np.arange(size))
    assert_array_equal(unpermuted(found, size=size, seed=seed, names=(name,)), np.arange(size))


def test_permutation_is_frozen() -> None:
    assert permuted(np.arange(10), size=10, seed=7, names=(3,)).tolist() == FROZEN


def test_positions_of_a_shuffle_are_spread_evenly() -> None:
    hits = np.zeros((16, 16))
    for epoch in range(4000):
        hits[np.arange(16), permuted(np.arange(16), size=16, seed=1, names=(epoch,))] += 1
    assert np.abs(hits / 250 - 1).max() < 0.35


@settings(max_examples=50)
@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 12), _seeds, st.integers(0, 3))
def test_each_epoch_of_a_source_is_a_permutation_within_windows(
    size: int, block: int, window_blocks: int, seed: int, epoch: int
) -> None:
    shuffle = Shuffle(Source("a", size, block), seed, window_blocks)
    found = shuffle.at(np.arange(size), epoch=epoch)
    assert_array_equal(np.sort(found), np.arange(size))
    for place in (0, size // 2, size - 1):
        assert shuffle.at(np.array([place]), epoch=epoch)[0] == found[place]
    # However large the source, no more blocks than a window's are needed at a time, and each once.
    blocks, seen, place = found // block, set[int](), 0
    while place < size:
        window = set[int]()
        while place < size and (len(window) < window_blocks or blocks[place] in window):
            window.add(int(blocks[place]))
            place += 1
        assert not window & seen
        seen |= window


@settings(max_examples=10)
@given(st.integers(60, 3000), _seeds)
def test_epochs_and_seeds_and_sources_differ(size: int, seed: int) -> None:
    def epoch_of(number: int, root: int, name: str = "a") -> list[int]:
        return Shuffle(Source(name, size, 4), root, 8).at(np.arange(size), epoch=number).tolist()

    assert epoch_of(0, seed) != epoch_of(1, seed)
    assert epoch_of(0, seed) != epoch_of(0, seed + 1)
    assert epoch_of(0, seed) != epoch_of(0, seed, "b")


def test_a_source_that_fits_a_window_is_permuted_wholly_at_random() -> None:
    hits = np.zeros((16, 16))
    for epoch in range(1500):
        hits[np.arange(16), Shuffle(Source("a", 16, 3), 1, 8).at(np.arange(16), epoch=epoch)] += 1
    assert np.abs(hits / (1500 / 16) - 1).max() < 0.5


@settings(max_examples=50)
@given(_sources, _seeds, st.integers(0, 5))
def test_an_epoch_of_the_stream_is_each_sequence_once(drawn: list[tuple[int, int]], seed: int, epoch: int) -> None:
    order = Order(sources_of(drawn), seed=seed, shuffle_blocks=3)
    size = sum(sequences for sequences, _ in drawn)
    source, epochs, sequence = order.at(np.arange(size) + epoch * size)
    wanted = [(number, at) for number, (sequences, _) in enumerate(drawn) for at in range(sequences)]
    assert sorted(zip(source.tolist(), sequence.tolist(), strict=True)) == wanted
    assert set(epochs.tolist()) == {epoch}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), st.integers(0, 10**12))
def test_shares_are_exact_over_a_period_and_even_within(weights: list[int], begin: int) -> None:
    mixture = Mixture(tuple(weights))
    positions = begin + np.arange(mixture.period)
    source, before = mixture.at(positions)
    assert_array_equal(np.bincount(source, minlength=len(weights)), weights)
    start = mixture.before(begin)
    for number, weight in enumerate(weights):
        mine = np.flatnonzero(source == number)
        assert_array_equal(before[mine], start[number] + np.arange(weight))
    for more in (1, mixture.period // 3, mixture.period):
        counted = [start[number] + int((source[:more] == number).sum()) for number in range(len(weights))]
        assert mixture.before(begin + more) == counted
        for number, weight in enumerate(weights):
            drift = counted[number] - start[number] - more * weight / mixture.period
            assert abs(drift) < 1 + np.log2(len(weights)) * 2


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e6), min_size=1).filter(lambda m: any(m.values())))
def test_a_mixture_has_the_shares_that_it_names(shares: dict[str, float]) -> None:
    mixture = Mixture.of(shares, names="abcdefgh")
    assert mixture.period == MIXTURE_PERIOD
    for name, weight in zip("abcdefgh", mixture.weights, strict=True):
        exact = shares.get(name, 0) / sum(shares.values()) * MIXTURE_PERIOD
        assert (weight > 0) == (shares.get(name, 0) > 0)
        assert abs(weight - exact) <= 8


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"a": 1.0, "x": 1.0}, "names 'x', which is no source: name one of a, b"),
        ({"a": -1.0}, "share -1.0 of 'a' is no number from 0"),
        ({"a": float("nan")}, "share nan of 'a'"),
        ({"a": 0.0}, "gives no source a share"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(mixture: dict[str, float], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Order([Source("a", 3, 1), Source("b", 3, 1)], seed=0, mixture=mixture)


def test_a_source_without_a_share_never_comes() -> None:
    order = Order([Source("a", 30, 4), Source("b", 30, 4), Source("c", 30, 4)], seed=0, mixture={"a": 3.0, "c": 1.0})
    source, epoch, _ = order.at(np.arange(400))
    assert np.bincount(source).tolist() == [300, 0, 100]
    assert np.bincount(epoch[source == 0]).tolist() == [30] * 10
    assert {number for number, _ in order.coming(17)} == {0, 2}


@settings(max_examples=30)
@given(_sources, _seeds, st.integers(0, 2000), st.integers(1, 12))
def test_what_comes_is_what_is_read_next(
    drawn: list[tuple[int, int]], seed: int, position: int, shuffle_blocks: int
) -> None:
    sources = sources_of(drawn)
    order = Order(sources, seed=seed, shuffle_blocks=shuffle_blocks)
    for number, block in order.coming(position):
        shuffle, place = order.shuffles[number], order.mixture.before(position)[number]
        epoch, within = divmod(place, sources[number].sequences)
        later = np.arange(within, 2 * sources[number].sequences)

        def at(places: Index, shuffle: Shuffle = shuffle, epoch: int = epoch) -> Index:
            size = shuffle.source.sequences
            parts = [shuffle.at(places[places // size == more] % size, epoch=epoch + more) for more in (0, 1)]
            return np.concatenate(parts)

        soon = at(later)[: 2 * shuffle.window_blocks * sources[number].block_sequences]
        assert block in soon // sources[number].block_sequences


def test_places_are_frozen() -> None:
    order = Order([Source("a", 20, 4), Source("b", 30, 4)], seed=3, mixture={"a": 1.0, "b": 2.0}, shuffle_blocks=2)
    found = zip(*(column.tolist() for column in order.at(np.arange(6))), strict=True)
    assert list(found) == FROZEN_PLACES


def test_a_thousand_million_sequences_need_no_memory() -> None:
    order = Order([Source("a", 10**9, 512), Source("b", 10**9, 512)], seed=1)
    _, epoch, sequence = order.at(np.array([0, 10**9, 2 * 10**9 - 1, 10**12]))
    assert epoch.tolist() == [0, 0, 0, 500]
    assert (sequence < 10**9).all()
