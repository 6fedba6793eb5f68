"""Laws of encoding many pieces at once: a batch says what its pieces say, and today's tokens are tomorrow's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from tests.music import works_table
from tests.property.test_events import scores
from tutti import seeding
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.features import encoding
from tutti.features.controls import Controls
from tutti.features.encoding import encode_works
from tutti.features.events import bars_of, decode, encode, encode_grid, on_grid
from tutti.features.grid import MAX_TIME_TICKS, Grid
from tutti.features.mood import mood_word
from tutti.features.vocabulary import INSTRUMENTS, METERS
from tutti.tables import TOKENS

DRAWN_SCORES = 300


@given(st.lists(scores(), max_size=6))
def test_a_batch_says_what_its_pieces_say_one_by_one(pieces: list[Score]) -> None:
    grid = Grid.of(ScoreBatch.of(pieces))
    heads = [Controls(collection=number).tokens() for number in range(len(pieces))]
    tokens, starts = encode_grid(grid, heads=heads)
    assert len(starts) == len(pieces) + 1
    assert starts[-1] == len(tokens)
    names = tuple(str(number) for number in range(len(pieces)))
    normal = grid.scores(titles=names, composers=names)
    for number, piece in enumerate(pieces):
        assert_array_equal(tokens[starts[number] : starts[number + 1]], encode(piece, Controls(collection=number)))
        assert normal[number].same_music(on_grid(piece))
        assert normal[number].title == str(number)
        bars = slice(grid.bar_starts[number], grid.bar_starts[number + 1])
        assert_array_equal(grid.bar_time_ticks[bars] - grid.begin_ticks[number], bars_of(on_grid(piece)).start_ticks)


@given(scores())
def test_resolution_is_changed_as_scores_change_it(score: Score) -> None:
    assert on_grid(score.with_resolution(24)).same_music(on_grid(score))


def test_pieces_that_outlast_the_line_of_time_are_refused() -> None:
    long = Score.of(Notes.of(onset_ticks=[2**31 - 1], duration_ticks=[1], pitch=[60]), ticks_per_quarter=24)
    with pytest.raises(ValueError, match=f"over {MAX_TIME_TICKS}: take fewer at once"):
        Grid.of(ScoreBatch.of([long] * 40))


def test_works_are_encoded_alike_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    works = works_table(23, bars=3)
    whole = encode_works(works, collections=["walks"])
    assert whole.schema.equals(TOKENS, check_metadata=True)
    for notes in (1, 40, 100):
        monkeypatch.setattr(encoding, "NOTES_AT_ONCE", notes)
        assert encode_works(works, collections=["walks"]).equals(whole)
        assert encode_works(pa.concat_tables([works.slice(5), works.slice(0, 5)]), collections=["walks"]).equals(
            pa.concat_tables([whole.slice(5), whole.slice(0, 5)])
        )


def test_tokens_of_works_hold_their_notes_and_name_their_controls() -> None:
    works = works_table(5)
    tokens = encode_works(works, collections=["others", "walks"])
    for work, row in zip(works.to_pylist(), tokens.to_pylist(), strict=True):
        decoded = decode(np.array(row["tokens"]))
        assert decoded.refused == 0
        assert decoded.score.same_music(on_grid(Score.from_columns(work)))
        assert row["notes"] == len(decoded.score.notes)
        assert json.loads(row["controls"]) == [
            "Collection_1", f"Key_{work['key']}", "TempoClass_andante", "Density_sparse", "Length_4",
            f"Mood_{mood_word(work['valence'], work['arousal'])}", "Instruments_piano",
        ]  # fmt: skip


def test_no_works_are_no_tokens() -> None:
    assert encode_works(works_table(1).slice(0, 0), collections=[]).equals(TOKENS.empty_table())


def test_a_collection_named_twice_has_its_first_slot() -> None:
    tokens = encode_works(works_table(1), collections=["walks", "walks"])
    assert tokens["controls"][0].as_py().startswith('["Collection_0"')


def test_tokens_are_frozen(golden: Callable[[str, str], None]) -> None:
    lines = []
    for number in range(DRAWN_SCORES):
        tokens = encode(_drawn(number), Controls(instruments=(INSTRUMENTS[number % len(INSTRUMENTS)],)))
        lines.append(f"{len(tokens)} {hashlib.sha256(tokens.astype('<u2').tobytes()).hexdigest()[:16]}")
    golden("tokens.txt", "\n".join(lines) + "\n")


def _drawn(number: int) -> Score:
    """A score of all that can be odd, the same on every machine."""

    def draw(name: str, count: int) -> NDArray[np.float64]:
        return seeding.uniform_at(np.array([seeding.derive(number, name)], dtype=np.uint64), np.arange(count))

    def integers(name: str, low: int, high: int, count: int) -> NDArray[np.int64]:
        return low + (draw(name, count) * (high - low)).astype(np.int64)

    notes, span = number % 61, (50, 2000, 20000)[number % 3]
    kinds = integers("meters", 0, len(METERS), 5).tolist()
    return Score.of(
        Notes.of(
            onset_ticks=integers("onsets", 0, span, notes),
            duration_ticks=integers("durations", 1, 1500, notes),
            pitch=integers("pitches", 55, 61 + number % 60, notes),
            velocity=integers("velocities", 1, 128, notes),
            program=np.array([0, 5, 40, 127, 128])[integers("programs", 0, 5, notes)],
        ),
        ticks_per_quarter=(24, 96, 480, 7, 1, 384)[number % 6],
        tempos=list(
            zip(integers("tempo ticks", 0, span, 4).tolist(), (5 + 400 * draw("tempos", 4)).tolist(), strict=True)
        ),
        meters=[
            (tick, *(METERS[kind] if number % 5 else (7, 1)))
            for tick, kind in zip(integers("meter ticks", 0, span, 5).tolist(), kinds, strict=True)
        ],
    )
