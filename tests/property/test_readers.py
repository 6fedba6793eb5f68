"""Laws of the readers beside MIDI: what was written in their formats is what they read."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drawn import scores
from tutti.corpus.formats import ParseOptions, parse_many
from tutti.corpus.found_pieces import FoundPieces
from tutti.corpus.midi import in_midi_form, write_midi
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.corpus.scores import read_scores, to_music21

OPTIONS = ParseOptions(tempo_without_mark_qpm=100.0)
STEPS = ("C", "D", "E", "F", "G", "A", "B")
PITCH_OF_STEP = (60, 62, 64, 65, 67, 69, 71)


def parquet(table: pa.Table, *, row_group_size: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=row_group_size)
    return sink.getvalue()


def read(*files: tuple[str, bytes]) -> list[Score]:
    parsed = parse_many(files, options=OPTIONS, on_file=lambda _: None)
    assert parsed.refusals == ()
    return list(parsed.batch)


def same(found: list[Score], wanted: list[Score]) -> bool:
    return len(found) == len(wanted) and all(one.same_music(other) for one, other in zip(found, wanted, strict=True))


@settings(max_examples=40)
@given(st.lists(scores(), min_size=1, max_size=4))
def test_many_files_give_what_each_gives_alone(drawn: list[Score]) -> None:
    files = [("a.mid", write_midi(score)) for score in drawn]
    together = read(*files)
    assert same(together, [read(file)[0] for file in files])
    assert same(together, [in_midi_form(score) for score in drawn])


@settings(max_examples=40)
@given(st.lists(scores(), min_size=1, max_size=4), st.integers(1, 5))
def test_a_table_with_a_row_a_piece_is_read_as_it_was_written(drawn: list[Score], row_group_size: int) -> None:
    wanted = [in_midi_form(score) for score in drawn]
    table = pa.table(ScoreBatch.of(wanted).arrow_columns())
    found = read(("works.parquet", parquet(table, row_group_size=row_group_size)))
    assert same(found, wanted)
    assert [score.title for score in found] == [score.title for score in wanted]


@settings(max_examples=40)
@given(st.lists(scores(), min_size=1, max_size=4), st.integers(1, 50), st.randoms(use_true_random=False))
def test_a_table_with_a_row_a_note_keeps_every_note(drawn: list[Score], row_group_size: int, random: object) -> None:
    batch = ScoreBatch.of([in_midi_form(score) for score in drawn])
    piece = batch.piece_of_note
    table = pa.table(
        {
            "piece_id": pa.array(piece),
            "onset_ticks": batch.notes.onset_ticks,
            "end_ticks": batch.notes.onset_ticks.astype(np.int64) + batch.notes.duration_ticks,
            "ticks_per_quarter": batch.ticks_per_quarter[piece],
            **{name: getattr(batch.notes, name) for name in ("pitch", "velocity", "program", "track")},
        }
    )
    order = list(range(len(piece)))
    random.shuffle(order)  # type: ignore[attr-defined]
    found = read(("notes.parquet", parquet(table.take(order), row_group_size=row_group_size)))
    appeared = list(dict.fromkeys(piece[order].tolist()))
    wanted = [Score.of(batch[number].notes, ticks_per_quarter=batch[number].ticks_per_quarter) for number in appeared]
    assert same(found, wanted)


@given(st.lists(scores(), min_size=1, max_size=3))
def test_the_rules_change_nothing_that_obeys_them(drawn: list[Score]) -> None:
    wanted = [in_midi_form(score) for score in drawn]
    batch, kept, refused = FoundPieces.of(wanted).settled(max_notes=1000)
    assert not refused
    assert kept.tolist() == list(range(len(wanted)))
    assert same(list(batch), wanted)


@st.composite
def melodies(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Scale steps from middle C (7 is a rest) and lengths in eighths, which fill bars of four quarters."""
    bars = []
    for _ in range(draw(st.integers(1, 4))):
        lengths = draw(st.sampled_from(((8,), (4, 4), (2, 2, 4), (6, 2), (1, 1, 2, 4), (3, 1, 2, 2), (1,) * 8)))
        bars.append([(draw(st.integers(0, 7)), length) for length in lengths])
    # A rest alone is no piece.
    return [(0, 8), *(note for bar in bars for note in bar)]


def sounding(melody: list[tuple[int, int]], *, ticks_of_eighth: int) -> list[tuple[int, int, int]]:
    """Onset, duration and pitch of each note that is no rest."""
    now, found = 0, []
    for step, length in melody:
        if step < 7:
            found.append((now * ticks_of_eighth, length * ticks_of_eighth, PITCH_OF_STEP[step]))
        now += length
    return found


def sounds(score: Score) -> list[tuple[int, int, int]]:
    notes = score.notes
    columns = (notes.onset_ticks, notes.duration_ticks, notes.pitch)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(max_examples=40)
@given(melodies())
def test_an_abc_melody_is_read_as_it_stands(melody: list[tuple[int, int]]) -> None:
    written, now = "", 0
    for step, length in melody:
        written += f"{(*STEPS, 'z')[step]}{length}"
        now += length
        written += "|" if now % 8 == 0 else " "
    (score,) = read(("a.abc", f"X:1\nT:Air\nM:4/4\nL:1/8\nQ:1/4=96\nK:C\n{written}\n".encode()))
    assert sounds(score) == sounding(melody, ticks_of_eighth=240)
    assert (score.ticks_per_quarter, score.tempo_qpm.tolist(), score.title) == (480, [96.0], "Air")


@settings(max_examples=40)
@given(melodies())
def test_a_kern_melody_is_read_as_it_stands(melody: list[tuple[int, int]]) -> None:
    lengths = {1: "8", 2: "4", 3: "4.", 4: "2", 6: "2.", 8: "1"}
    lines, now = ["**kern", "*M4/4", "=1"], 0
    for step, length in melody:
        lines.append(lengths[length] + ("c", "d", "e", "f", "g", "a", "b", "r")[step])
        now += length
        if now % 8 == 0:
            lines.append(f"={now // 8 + 1}")
    (score,) = read(("a.krn", "\n".join([*lines, "*-", ""]).encode()))
    assert sounds(score) == sounding(melody, ticks_of_eighth=240)


@settings(max_examples=25)
@given(melodies(), melodies())
def test_a_score_goes_through_musicxml_and_back(upper: list[tuple[int, int]], lower: list[tuple[int, int]]) -> None:
    rows = [
        (*note, track) for track, melody in enumerate((upper, lower)) for note in sounding(melody, ticks_of_eighth=12)
    ]
    onset, duration, pitch, track = np.array(rows).T
    notes = Notes.of(onset_ticks=onset, duration_ticks=duration, pitch=pitch - 12 * track, track=track)
    score = Score.of(notes, ticks_per_quarter=24, tempos=[(0, 96.0)], title="Duet").with_resolution(480)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("duet.musicxml", "duet.mxl"):
            path = Path(to_music21(score).write(name.rpartition(".")[2], fp=Path(folder) / name))
            (again,) = read_scores(path, tempo_without_mark_qpm=50.0)
            assert sounds(again) == sounds(score)
            assert again.notes.track.tolist() == score.notes.track.tolist()
            assert again.tempo_qpm.tolist() == [96.0]
            assert again.title == "Duet"
