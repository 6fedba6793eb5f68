"""Books of grids: each piece an item whose name tells its split, and each voice a track of its runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutti.corpus import formats, grids
from tutti.corpus.sources import survey
from tutti.corpus.splits import told_split
from tutti.errors import DataError, InputError
from tutti.features.voices import voices_of

PIECE = [[74, 70, 65, 58]] * 4 + [[74, 69, 65, 50]] * 2 + [[-1, 69, 65, 50]] * 2
BOOK = {"train": [PIECE, PIECE[2:]], "valid": [PIECE[1:]], "test": [[[60, 55, 52, "x"]]]}


def test_each_piece_is_an_item_and_tells_its_split(tmp_path: Path) -> None:
    (tmp_path / "chorales.json").write_text(json.dumps(BOOK))
    items = survey(str(tmp_path / "chorales.json")).items
    assert sorted(item.uri.partition("!")[2] for item in items) == [
        "test/0000.voices", "train/0000.voices", "train/0001.voices", "valid/0000.voices",
    ]  # fmt: skip
    assert {told_split(item.uri) for item in items} == {"train", "valid", "test"}
    assert told_split("corpus/validation/a/b.mid") == "valid"
    assert told_split("corpus/a/train.mid") is None


def test_runs_become_notes_and_the_grid_comes_back() -> None:
    (score,) = formats.parse(json.dumps(PIECE).encode(), name="a.voices", tempo_without_mark_qpm=80)
    assert len(score.notes) == 1 + 2 + 1 + 2
    found = voices_of(score).astype(int) - 2 + 24
    assert found[:6].tolist() == PIECE[:6]
    assert voices_of(score)[6:, 0].tolist() == [1, 1]


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"[[1, 2], [1]]", b"[[1.5]]", b"[[128]]", b"[[true]]", b"[" * 100_000, b'[["60"]]', b"[[1e400]]"],
)
def test_what_is_no_grid_is_refused(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        grids.read(data, tempo_qpm=80)
    assert caught.value.reason == "unreadable"


def test_silence_alone_is_no_piece() -> None:
    with pytest.raises(DataError) as caught:
        grids.read(b"[[-1, -1]]", tempo_qpm=80)
    assert caught.value.reason == "no_notes"


@pytest.mark.parametrize("book", [b"{", b"[]", b'{"train": 3}', b"[" * 100_000])
def test_what_is_no_book_is_refused_whole(book: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list(grids.pieces(book))
    (tmp_path / "a.json").write_bytes(book)
    (item,) = survey(str(tmp_path / "a.json")).items
    assert item.reason == "unreadable"
