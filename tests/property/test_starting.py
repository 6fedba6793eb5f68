"""Laws of pieces that start from a file: what is kept is kept note for note, whatever a model wants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.music import walk
from tutti.corpus.score import Notes, Score
from tutti.errors import InputError, RecipeError
from tutti.features.events import bars_of, on_grid
from tutti.features.vocabulary import EVENTS, METERS, instrument_of
from tutti.generation.engine import Engine
from tutti.generation.melody import melody_of, structural
from tutti.generation.piece import Piece
from tutti.generation.request import Request
from tutti.generation.restoring import grid_onsets
from tutti.generation.start import Start
from tutti.models.decoder import DECODER, Decoder
from tutti.models.recurrent import RECURRENT, Recurrent

SHAPE = {"vocabulary_size": len(EVENTS), "max_tokens": 256}


def made(model: torch.nn.Module, **settings: object) -> Engine:
    return Engine(
        model.eval(), digest="", collections=("bach",), facts={"data": {"programs": [0, 32, 52, 128]}},  # type: ignore[arg-type]
        **{"context_tokens": 160, "max_batch": 6, **settings},  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    return made(Decoder(DECODER.configure("nano", shape=SHAPE)))


@pytest.fixture(scope="module")
def recurrent() -> Engine:
    torch.manual_seed(3)
    return made(Recurrent(RECURRENT.configure("nano", shape=SHAPE)))


notes = st.tuples(
    st.integers(0, 1900), st.integers(1, 1500), st.integers(20, 100), st.integers(1, 127),
    st.sampled_from([0, 0, 0, 40, 73, 128]),
)  # fmt: skip


@st.composite
def scores(draw: st.DrawFn) -> Score:
    rows = draw(st.lists(notes, min_size=1, max_size=14))
    onset, duration, pitch, velocity, program = map(list, zip(*rows, strict=True))
    resolution = draw(st.sampled_from([24, 96, 220, 480]))
    return Score.of(
        Notes.of(
            onset_ticks=onset, duration_ticks=duration, pitch=pitch, velocity=velocity, program=program,
            track=np.unique(program, return_inverse=True)[1],
        ),
        ticks_per_quarter=resolution,
        tempos=draw(st.lists(st.tuples(st.integers(0, 1500), st.floats(30, 250)), max_size=2)),
        meters=draw(st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 7), st.sampled_from([4, 8])), max_size=2)),
    )  # fmt: skip


def rows(score: Score, mask: NDArray[np.bool_] | None = None, *, resolution: int) -> list[tuple[int, ...]]:
    held = score.notes if mask is None else score.notes.take(mask)
    factor = resolution // score.ticks_per_quarter
    return sorted(
        zip(
            (held.onset_ticks.astype(int) * factor).tolist(), (held.duration_ticks.astype(int) * factor).tolist(),
            *(column.tolist() for column in (held.pitch, held.velocity, held.program, held.track)),
            strict=True,
        )
    )  # fmt: skip


def without(piece: Piece, kept: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """New notes of a piece; fails where a kept one is not there."""
    there = rows(piece.score, resolution=piece.score.ticks_per_quarter)
    for row in kept:
        assert row in there
        there.remove(row)
    return there


def start(kind: str, **figures: object) -> Start:
    return Start.model_validate({"kind": kind, **figures})


laws = settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)


@laws
@given(scores(), st.integers(0, 2**40))
def test_a_continued_file_stays_as_it_is(engine: Engine, score: Score, seed: int) -> None:
    (piece,) = engine.generate([Request(bars=1, meter="1/4", seed=seed)], materials=[score])
    resolution = piece.score.ticks_per_quarter
    assert piece.refused_tokens == 0
    new = without(piece, rows(score, resolution=resolution))
    lines = bars_of(on_grid(score))
    seam = lines.start_ticks[-1] * resolution // 24
    assert new
    assert min(row[0] for row in new) > seam
    assert {row[4] for row in new} <= set(score.notes.program.tolist())
    ratio = resolution // score.ticks_per_quarter
    for name in ("tempo", "meter"):
        ticks = getattr(score, f"{name}_ticks") * ratio
        assert getattr(piece.score, f"{name}_ticks").tolist()[: (ticks <= seam).sum()] == ticks[ticks <= seam].tolist()


@laws
@given(scores(), st.integers(0, 2**40), st.integers(0, 9), st.integers(0, 3))
def test_outside_the_bars_asked_nothing_changes(engine: Engine, score: Score, seed: int, first: int, more: int) -> None:
    lines = bars_of(on_grid(score)).start_ticks
    first = min(first, len(lines) - 1)
    last = min(first + more, len(lines) - 1)
    asked = Request(start=start("infill", bars=f"{first + 1}-{last + 1}", drafts=2), seed=seed)
    (piece,) = engine.generate([asked], materials=[score])
    begin, end = int(lines[first]), int(lines[last + 1]) if last + 1 < len(lines) else 2**30
    at = grid_onsets(score)
    resolution = piece.score.ticks_per_quarter
    new = without(piece, rows(score, (at < begin) | (at >= end), resolution=resolution))
    assert piece.refused_tokens == 0
    for row in new:
        assert begin * resolution <= row[0] * 24 < end * resolution
        assert (row[0] + row[1]) * 24 <= end * resolution
    same = score.meter_ticks * (resolution // score.ticks_per_quarter)
    assert piece.score.meter_ticks.tolist() == same.tolist()


@laws
@given(
    scores(), st.integers(0, 2**40), st.sampled_from(["accompany", "harmonise", "restyle"]),
    st.sampled_from([None, "highest", "all"]), st.sampled_from([(), ("drums",), ("bass", "drums"), ("strings",)]),
)  # fmt: skip
def test_a_melody_is_kept_note_for_note(
    engine: Engine, score: Score, seed: int, kind: str, melody: str | None, others: tuple[str, ...]
) -> None:
    if (score.notes.program == 128).all():
        with pytest.raises(InputError, match="no pitched notes"):
            engine.generate([Request(start=start(kind), mood="calm")], materials=[score])
        return
    kept = melody_of(score, melody)
    families = [instrument_of(int(program)) for program in np.unique(score.notes.program[kept])]
    playing = tuple(dict.fromkeys((*families, *others))) if others else ()
    asked = Request(start=start(kind, drafts=1, melody=melody), mood="calm", instruments=playing, seed=seed)
    (piece,) = engine.generate([asked], materials=[score])
    assert piece.refused_tokens == 0
    new = without(piece, rows(score, kept, resolution=piece.score.ticks_per_quarter))
    if playing:
        assert {instrument_of(int(program)) for program in piece.score.notes.program} <= set(playing)
    else:
        assert {row[4] for row in new} <= {0, 32, 52, 128}
    grid = on_grid(score)
    bars = bars_of(grid)
    bar_ticks = np.array([4 * 24 * above // below for above, below in METERS])[bars.meter[-1]]
    end = int(bars.start_ticks[-1]) + int(bar_ticks)
    for onset, duration, *_ in new:
        assert (onset + duration) * 24 <= end * piece.score.ticks_per_quarter


@laws
@given(scores(), st.integers(0, 2**40), st.floats(0.05, 1))
def test_a_variation_keeps_the_share_that_is_not_asked_anew(
    engine: Engine, score: Score, seed: int, strength: float
) -> None:
    asked = Request(start=start("vary", strength=strength, drafts=1), seed=seed)
    (piece,) = engine.generate([asked], materials=[score])
    kept = structural(score, share=1 - strength, seed=seed)
    kept &= (score.notes.program < 128) | np.isin(score.notes.pitch, range(128))
    assert piece.refused_tokens == 0
    assert kept.sum() <= len(score.notes) * (1 - strength)
    without(piece, rows(score, kept, resolution=piece.score.ticks_per_quarter))
    assert set(piece.score.notes.program.tolist()) <= set(score.notes.program.tolist())


@pytest.mark.parametrize("family", ["engine", "recurrent"])
def test_company_changes_no_note_of_what_starts_from_a_file(family: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(family)
    asked = [
        Request(start=start("accompany", drafts=2), seed=1),
        Request(bars=1, meter="1/4", seed=2),
        Request(start=start("infill", bars="2", drafts=2), seed=3),
        Request(start=start("vary", drafts=1), seed=4, mood="sad", guidance=2),
        Request(bars=1, meter="1/4", seed=5),
    ]
    files = [walk(1, bars=1), walk(2, bars=1), walk(3, bars=2), walk(4, bars=1), None]
    together = engine.generate(asked, materials=files)
    for each, file, piece in zip(asked, files, together, strict=True):
        (alone,) = engine.generate([each], materials=[file])
        assert alone.score.same_music(piece.score)
        assert piece.request == each
    other = engine.generate([asked[0].model_copy(update={"seed": 9})], materials=files[:1])[0]
    assert not other.score.same_music(together[0].score)


def test_the_beginning_of_a_long_file_is_heard_and_its_middle_is_not(engine: Engine) -> None:
    def continued(**changed: int) -> list[int]:
        pitch = 60 + np.arange(400) % 12
        for name, to in changed.items():
            pitch[{"first": 1, "middle": 200, "last": 397}[name]] = to
        file = Score.of(Notes.of(onset_ticks=np.arange(400) * 24, duration_ticks=24, pitch=pitch), ticks_per_quarter=24)
        (piece,) = engine.generate([Request(bars=1, seed=4)], materials=[file])
        return [*piece.tokens.tolist()][-30:]

    plain = continued()
    assert continued(middle=90) == plain
    assert continued(first=90) != plain
    assert continued(last=90) != plain


def test_voices_beneath_stay_beneath(engine: Engine) -> None:
    tune = Score.of(
        Notes.of(onset_ticks=np.arange(8) * 12, duration_ticks=12, pitch=[72, 74, 76, 77, 79, 77, 76, 74]),
        ticks_per_quarter=24,
    )
    asked = [Request(start=start("harmonise", drafts=1), seed=seed) for seed in range(4)]
    for piece in engine.generate(asked, materials=[tune] * 4):
        score = piece.score
        for onset, pitch, program in zip(score.notes.onset_ticks, score.notes.pitch, score.notes.program, strict=True):
            sung = tune.notes.pitch[tune.notes.onset_ticks <= onset][-1]
            assert program == 128 or pitch <= sung


@pytest.mark.parametrize(
    ("request_", "file", "line"),
    [
        (Request(start=start("infill", bars="4-9")), walk(1), "bars 4-9 are not all in the file: it has 4 bars"),
        (Request(start=start("accompany"), bars=3), walk(1), "accompany keeps the file's bars: leave bars out"),
        (Request(start=start("vary"), length="9s"), walk(1), "vary keeps the file's length"),
        (Request(start=start("infill", bars="1"), tempo=90), walk(1), "infill keeps the file's tempo"),
        (Request(start=start("restyle")), walk(1), "restyle says nothing of the manner"),
        (Request(start=start("harmonise"), key="F# major"), walk(1), "of the melody are outside key F# major"),
        (Request(start=start("accompany"), instruments=("bass",)), walk(1), "played by piano, and only bass may play"),
        (
            Request(start=start("accompany", melody="track:7")),
            walk(1),
            "no pitched notes of track 7: it has track 0, 1",
        ),
        (Request(start=start("interpolate")), walk(1), "this model has no latents"),
        (Request(start=start("vary")), None, "vary starts from a file, and there is none"),
        (Request(), replace(walk(1), notes=Notes.none()), "the file has no notes"),
    ],
)
def test_what_contradicts_the_file_is_refused_in_one_line(
    engine: Engine, request_: Request, file: Score | None, line: str
) -> None:
    with pytest.raises((InputError, RecipeError), match=line):
        engine.generate([request_], materials=[file])


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"kind": "infill"}, "infill needs bars"),
        ({"kind": "infill", "bars": "8-5"}, "end before they begin"),
        ({"kind": "vary", "bars": "1"}, "bars is for infill, not for vary"),
        ({"kind": "accompany", "melody": "tuba"}, "a melody is named highest"),
        ({"kind": "continue", "drafts": 2}, "drafts is for infill"),
    ],
)
def test_a_start_that_means_nothing_is_refused(figures: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Start.model_validate(figures)


def test_a_request_without_a_start_keeps_its_identity() -> None:
    assert "start" not in Request(seed=3).model_dump(mode="json")
    assert Request(seed=3).digest() == Request.model_validate(Request(seed=3).model_dump()).digest()
    with_start = Request(seed=3, start=start("vary", works=("a",)))
    assert with_start.digest() not in (Request(seed=3).digest(), Request(seed=3, start=start("vary")).digest())
    assert Request.model_validate(with_start.model_dump(mode="json")) == with_start


def test_the_melody_is_the_track_that_sings_highest() -> None:
    score = walk(1)
    assert set(score.notes.track[melody_of(score)].tolist()) == {0}
    chords = replace(score, notes=replace(score.notes, track=np.zeros(len(score.notes), dtype=np.uint16)))
    sung = chords.notes.pitch[melody_of(chords)]
    assert sung.min() >= 60
    assert melody_of(chords, "all").all()
