"""Laws of parcels: nothing lost, sizes kept, and a change that stays where it was made."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutti.corpus.archives import KINDS, STREAMED_KINDS
from tutti.corpus.item import Archive, Item
from tutti.corpus.metadata import Labels
from tutti.corpus.parcels import MAX_BYTES, MAX_ITEMS, NEIGHBOURS, parcel_digest, parcels

MOST_PARCELS_OF_A_CHANGE = 3


def listed(numbers: list[int], *, size_bytes: int = 10_000) -> list[Item]:
    return [
        Item(f"songs/{number:08}.mid", "songs", "CC0-1.0", "tests", version=f"v{number}", size_bytes=size_bytes)
        for number in sorted(numbers)
    ]


def digests(items: list[Item]) -> list[str]:
    return [parcel_digest(parcel) for parcel in parcels(items)]


SONGS = st.builds(
    lambda seed, count: random.Random(seed).sample(range(10**7), count), st.integers(0, 2**32), st.integers(1, 1500)
)


@given(numbers=SONGS, size_bytes=st.sampled_from([0, 10_000, 3 * 2**20, 40 * 2**20, 100 * 2**20]))
@settings(max_examples=60)
def test_parcels_hold_all_items_in_order_and_are_neither_small_nor_large(numbers: list[int], size_bytes: int) -> None:
    items = listed(numbers, size_bytes=size_bytes)
    cut = parcels(items)
    assert [item for parcel in cut for item in parcel] == items
    for parcel in cut:
        assert 1 <= len(parcel) <= MAX_ITEMS
        assert len(parcel) == 1 or len(parcel) * size_bytes <= MAX_BYTES
        assert len(parcel) >= min(NEIGHBOURS, len(items)) or size_bytes * 200 > MAX_BYTES


@given(numbers=SONGS, new=st.integers(0, 10**7), size_bytes=st.sampled_from([10_000, 5 * 2**20]))
@settings(max_examples=150)
def test_a_file_that_is_added_or_removed_changes_its_own_neighbourhood(
    numbers: list[int], new: int, size_bytes: int
) -> None:
    without = digests(listed(sorted({*numbers} - {new}), size_bytes=size_bytes))
    with_it = digests(listed(sorted({*numbers, new}), size_bytes=size_bytes))
    assert len(set(with_it) - set(without)) <= MOST_PARCELS_OF_A_CHANGE
    assert len(set(without) - set(with_it)) <= MOST_PARCELS_OF_A_CHANGE
    assert with_it != without


@given(numbers=SONGS, data=st.data())
@settings(max_examples=50)
def test_a_file_whose_bytes_or_labels_change_changes_one_parcel(numbers: list[int], data: st.DataObject) -> None:
    items = listed(numbers)
    before = digests(items)
    at = data.draw(st.integers(0, len(items) - 1))
    change = data.draw(
        st.sampled_from([{"version": "new"}, {"licence": "MIT"}, {"labels": Labels(title="T")}, {"reason": "empty"}])
    )
    items[at] = replace(items[at], **change)  # type: ignore[arg-type]
    after = digests(items)
    assert [old != new for old, new in zip(before, after, strict=True)].count(True) == 1


def test_a_change_costs_hardly_more_than_one_parcel_and_a_parcel_holds_about_64_files() -> None:
    rng = random.Random(1)
    numbers = rng.sample(range(10**7), 8_000)
    items = listed(numbers)
    cut = parcels(items)
    assert 58 <= len(items) / len(cut) <= 68
    assert max(map(len, cut)) <= MAX_ITEMS
    before = set(map(parcel_digest, cut))
    changed = [
        len({*map(parcel_digest, parcels(listed([*numbers[:index], *numbers[index + 1 :]])))} - before)
        for index in rng.sample(range(8_000), 25)
    ]
    assert sum(changed) / len(changed) <= 1.3
    assert max(changed) <= MOST_PARCELS_OF_A_CHANGE


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_a_compressed_tar_are_one_parcel_whatever_stands_around_it(kind: str) -> None:
    archive = Archive("songs/x", "/songs/x", kind, "v", 1)
    members = [
        Item(f"songs/x!{number:04}.mid", "songs", "CC0-1.0", "tests", archive=archive, size_bytes=2**20)
        for number in range(300)
    ]
    members[150] = replace(members[150], reason="unsafe_archive")
    around = listed(list(range(200)))
    cut = parcels([*around[:100], *members, *around[100:]])
    assert [item for parcel in cut for item in parcel] == [*around[:100], *members, *around[100:]]
    assert (tuple(members) in cut) == (kind in STREAMED_KINDS)
    assert parcels([]) == []
