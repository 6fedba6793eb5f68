"""Laws of order, packing and the loader: permutations, equal batches on any number of ranks, nothing lost."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tutti.dataset import order, packing
from tutti.dataset.loader import Loader
from tutti.dataset.shards import Pieces
from tutti.features.augment import Augmentation
from tutti.features.vocabulary import BAR, END, EVENTS, PAD, START

_seeds = st.integers(0, 2**62)
FROZEN_BATCHES = "51bf1c2a6e0ae5ce"
FROZEN = [6, 0, 2, 8, 4, 7, 9, 3, 5, 1]


@given(st.integers(1, 3000), _seeds, st.integers(0, 50))
def test_each_epoch_is_a_permutation(num_samples: int, seed: int, epoch: int) -> None:
    samples = order.permuted(np.arange(num_samples), seed=seed, epoch=epoch, num_samples=num_samples)
    assert_array_equal(np.sort(samples), np.arange(num_samples))


@given(st.integers(50, 3000), _seeds)
def test_epochs_and_seeds_differ(num_samples: int, seed: int) -> None:
    def epoch_of(number: int, root: int) -> list[int]:
        return order.permuted(np.arange(num_samples), seed=root, epoch=number, num_samples=num_samples).tolist()

    assert epoch_of(0, seed) != epoch_of(1, seed)
    assert epoch_of(0, seed) != epoch_of(0, seed + 1)


def test_permutation_is_frozen() -> None:
    assert order.permuted(np.arange(10), seed=7, epoch=3, num_samples=10).tolist() == FROZEN


def test_positions_of_a_shuffle_are_spread_evenly() -> None:
    hits = np.zeros((16, 16))
    for epoch in range(4000):
        hits[np.arange(16), order.permuted(np.arange(16), seed=1, epoch=epoch, num_samples=16)] += 1
    assert np.abs(hits / 250 - 1).max() < 0.35


@given(st.integers(1, 200), st.integers(0, 400), st.integers(1, 6), _seeds)
def test_global_batch_is_the_same_on_1_2_4_ranks(num_samples: int, step: int, quarter: int, seed: int) -> None:
    epochs, samples = order.global_batch(step, seed=seed, num_samples=num_samples, batch_size=4 * quarter)
    assert len(epochs) == 4 * quarter
    for num_ranks in (1, 2, 4):
        shares = [order.slice_of_rank(samples, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
        assert_array_equal(np.concatenate(shares), samples)


def test_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="6 cannot be divided among 4"):
        order.slice_of_rank(np.arange(6), rank=0, num_ranks=4)


@given(st.lists(st.integers(1, 64), max_size=200))
def test_packing_conserves_pieces_and_fits(lengths: list[int]) -> None:
    plan = packing.plan(np.array(lengths, dtype=np.int64), sequence_tokens=64)
    assert sorted(plan.pieces.tolist()) == list(range(len(lengths)))
    used = [sum(lengths[piece] for piece in plan.of(sequence).tolist()) for sequence in range(len(plan))]
    assert all(0 < tokens <= 64 for tokens in used)
    assert sum(tokens <= 32 for tokens in used) <= 1


def test_piece_longer_than_a_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens does not fit a sequence of 64"):
        packing.plan(np.array([3, 65]), sequence_tokens=64)


def _pieces(num_pieces: int, seed: int = 0) -> Pieces:
    random = np.random.default_rng(seed)
    pitch, meter = EVENTS.span("Pitch"), EVENTS["Meter_4/4"]
    head = [
        START,
        EVENTS["Collection_any"],
        EVENTS["Key_C major"],
        EVENTS["Instruments_piano"],
        EVENTS["Instruments_bass"],
    ]
    parts = [
        np.array(
            [*head, BAR, meter, *random.integers(pitch.start + 12, pitch.stop - 12, random.integers(0, 120)), END],
            np.uint16,
        )
        for _ in range(num_pieces)
    ]
    return Pieces.of(parts, notes=1)


def _loader(pieces: Pieces, *, batch_sequences: int = 4) -> Loader:
    return Loader(
        pieces,
        sequence_tokens=96,
        batch_sequences=batch_sequences,
        seed=3,
        augmentation=Augmentation(most_semitones=5, control_dropout=0.3),
    )


@settings(max_examples=25)
@given(st.integers(3, 30), st.integers(0, 60))
def test_loader_gives_the_same_global_batch_on_any_ranks(num_pieces: int, step: int) -> None:
    loader = _loader(_pieces(num_pieces))
    whole = loader.batch(step, rank=0, num_ranks=1)
    assert loader.num_targets(step) == whole.num_targets
    for num_ranks in (2, 4):
        shares = [loader.batch(step, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
        for name in ("inputs_BT", "targets_BT", "segments_BT"):
            assert_array_equal(np.concatenate([getattr(share, name) for share in shares]), getattr(whole, name))


def test_batches_are_frozen() -> None:
    state, loader = hashlib.sha256(), _loader(_pieces(20))
    for step in range(12):
        batch = loader.batch(step, rank=0, num_ranks=1)
        for column in (batch.inputs_BT, batch.targets_BT, batch.segments_BT):
            state.update(column.astype("<i8").tobytes())
    assert state.hexdigest()[:16] == FROZEN_BATCHES


def test_resuming_at_any_step_equals_never_stopping() -> None:
    through = _loader(_pieces(20))
    straight = [through.batch(step, rank=1, num_ranks=2).inputs_BT for step in range(12)]
    for step in (0, 5, 11):
        assert_array_equal(_loader(_pieces(20)).batch(step, rank=1, num_ranks=2).inputs_BT, straight[step])


@given(st.integers(1, 30), st.sampled_from([1, 2, 3]))
def test_validation_reads_every_event_once(num_pieces: int, num_ranks: int) -> None:
    pieces = _pieces(num_pieces)
    loader = _loader(pieces)
    targets = [b.targets_BT for rank in range(num_ranks) for b in loader.in_order(rank=rank, num_ranks=num_ranks)]
    seen = np.concatenate([part.ravel() for part in targets])
    pitches = EVENTS.span("Pitch")
    played = pieces.tokens[(pieces.tokens >= pitches.start) & (pieces.tokens < pitches.stop)]
    read = seen[(seen >= pitches.start) & (seen < pitches.stop)]
    assert_array_equal(np.sort(read), np.sort(played))
    assert (seen == END).sum() == num_pieces


def test_targets_follow_inputs_within_a_piece_and_never_name_a_control() -> None:
    batch = _loader(_pieces(12)).batch(0, rank=0, num_ranks=1)
    learnt = batch.targets_BT != PAD
    assert not np.isin(batch.targets_BT[learnt], np.arange(START, BAR)[np.arange(START, BAR) != END]).any()
    inside = learnt[:, :-1] & (batch.segments_BT[:, :-1] == batch.segments_BT[:, 1:])
    assert_array_equal(batch.targets_BT[:, :-1][inside], batch.inputs_BT[:, 1:][inside])
