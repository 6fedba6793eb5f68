from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.notes import TAUGHT_PITCHES, taught_generator
from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import MissingError, RecipeError
from tutti.features.fundamental import note_pitch
from tutti.models import bundle
from tutti.models.bundle import Bundle
from tutti.render.drawn import FAMILY, LEVEL_DB, RELEASE_S, DrawnInstrument, drawn_instrument
from tutti.render.synthesis import SAMPLE_RATE_HZ, synthesise
from tutti.render.voice import Voice

PIANO, CLARINET = 0, 1
PROGRAM = 80


def score_of(**columns: object) -> Score:
    """A thousand ticks are a second."""
    return Score.of(
        Notes.of(**{"program": PROGRAM, "duration_ticks": 500, **columns}), ticks_per_quarter=500, tempos=[(0, 120.0)]
    )


def instrument(kind: int, *, seed: int = 0) -> DrawnInstrument:
    return DrawnInstrument(taught_generator(), kind=kind, seed=seed)


def pitch_at(audio_SC: NDArray[np.float32], start_s: float, *, length_s: float = 0.4) -> float:
    part = slice(round(start_s * SAMPLE_RATE_HZ), round((start_s + length_s) * SAMPLE_RATE_HZ))
    return note_pitch(audio_SC[part].mean(axis=1), sample_rate_hz=SAMPLE_RATE_HZ)


def level_db(audio_SC: NDArray[np.float32], start_s: float, stop_s: float) -> float:
    padded_SC = np.pad(audio_SC, ((0, SAMPLE_RATE_HZ), (0, 0)))
    part = padded_SC[round(start_s * SAMPLE_RATE_HZ) : round(stop_s * SAMPLE_RATE_HZ)]
    return 10 * float(np.log10(np.square(part).sum(axis=1).mean() + 1e-20))


@pytest.mark.parametrize("kind", [PIANO, CLARINET])
def test_a_melody_sounds_in_tune(kind: int) -> None:
    pitches = [60, 64, 67, 72, 48, 55, 59, 70]
    onsets = np.arange(len(pitches)) * 1000
    score = score_of(onset_ticks=onsets, duration_ticks=500, pitch=pitches)
    audio_SC = synthesise(score, instruments={PROGRAM: instrument(kind)})
    heard = np.array([pitch_at(audio_SC, onset / 1000 + 0.05) for onset in onsets.tolist()])
    assert np.abs(heard - pitches).max() < 0.2
    between = [level_db(audio_SC, start, start + 0.05) for start in onsets / 1000 + 0.94]
    assert max(between) < -80, "every note has died away before the next"


def test_pitches_beyond_the_generators_are_in_tune_too() -> None:
    pitches = [TAUGHT_PITCHES[0] - 12, TAUGHT_PITCHES[-1] + 12, TAUGHT_PITCHES[-1] + 5]
    score = score_of(onset_ticks=[0, 1000, 2000], duration_ticks=600, pitch=pitches)
    audio_SC = synthesise(score, instruments={PROGRAM: instrument(CLARINET)})
    heard = [pitch_at(audio_SC, start + 0.05) for start in (0, 1, 2)]
    assert np.abs(np.array(heard) - pitches).max() < 0.2


def test_a_note_ends_when_it_is_let_go_and_lasts_as_long_as_it_is_held() -> None:
    for held_s in (0.3, 2.0):
        score = score_of(onset_ticks=[0], duration_ticks=[round(1000 * held_s)], pitch=[60])
        audio_SC = synthesise(score, instruments={PROGRAM: instrument(CLARINET)})
        assert level_db(audio_SC, held_s - 0.1, held_s) > level_db(audio_SC, 0.1, 0.2) - 15
        assert (
            level_db(audio_SC, held_s + 0.3 * RELEASE_S, held_s + 0.4 * RELEASE_S)
            < level_db(audio_SC, held_s - 0.1, held_s) - 20
        )
        assert abs(len(audio_SC) / SAMPLE_RATE_HZ - held_s - RELEASE_S) < 0.1
    assert pitch_at(audio_SC, 1.5) == pytest.approx(60, abs=0.2)
    assert np.abs(np.diff(audio_SC[:, 0])).max() < 0.5 * np.abs(audio_SC).max(), "nothing clicks"


def test_velocity_and_neighbours_do_not_change_a_note_but_for_its_loudness() -> None:
    alone = synthesise(score_of(onset_ticks=[0], pitch=[60], velocity=[127]), instruments={PROGRAM: instrument(PIANO)})
    soft = synthesise(score_of(onset_ticks=[0], pitch=[60], velocity=[64]), instruments={PROGRAM: instrument(PIANO)})
    length = min(len(alone), len(soft))
    assert np.allclose(soft[:length], alone[:length] * (64 / 127) ** 2, atol=1e-6)
    two = synthesise(
        score_of(onset_ticks=[0, 3000], pitch=[60, 67], velocity=[127, 127]), instruments={PROGRAM: instrument(PIANO)}
    )
    assert np.allclose(two[: len(alone)], alone, atol=1e-5)
    assert np.square(alone).sum(axis=1)[:8820].max() > 0
    loudest = max(level_db(alone, start, start + 0.1) for start in np.arange(0, 0.4, 0.02))
    assert loudest == pytest.approx(LEVEL_DB + 20 * np.log10(0.25), abs=0.3)


def test_the_rest_of_the_band_plays_on_as_before() -> None:
    columns = {"onset_ticks": [0, 0, 0, 500], "pitch": [60, 48, 36, 42], "duration_ticks": 400}
    programs = [PROGRAM, 33, DRUM_PROGRAM, DRUM_PROGRAM]
    band = synthesise(score_of(**columns, program=programs), instruments={PROGRAM: instrument(PIANO)})
    rest = synthesise(
        score_of(
            **{name: values[1:] if isinstance(values, list) else values for name, values in columns.items()},
            program=programs[1:],
        )
    )
    alone = synthesise(
        score_of(onset_ticks=[0], pitch=[60], duration_ticks=400), instruments={PROGRAM: instrument(PIANO)}
    )
    of_font = synthesise(score_of(**columns, program=programs))
    length = min(len(part) for part in (band, rest, alone, of_font))
    assert length > 0.4 * SAMPLE_RATE_HZ
    assert np.allclose(band[:length], rest[:length] + alone[:length], atol=1e-6)
    assert np.abs(band[:length] - of_font[:length]).max() > 0.01


def test_the_same_seed_is_the_same_timbre_and_bytes() -> None:
    score = score_of(onset_ticks=[0, 100, 900], pitch=[60, 72, 80], duration_ticks=[300, 2000, 100])
    first = synthesise(score, instruments={PROGRAM: instrument(PIANO)})
    assert first.tobytes() == synthesise(score, instruments={PROGRAM: instrument(PIANO)}).tobytes()
    played_before = instrument(PIANO)
    list(played_before.voices({61: 0.1}, sample_rate_hz=SAMPLE_RATE_HZ))
    assert first.tobytes() == synthesise(score, instruments={PROGRAM: played_before}).tobytes()
    other = synthesise(score, instruments={PROGRAM: instrument(PIANO, seed=1)})
    assert first.tobytes() != other.tobytes()


def test_an_instrument_is_loaded_from_the_files_of_a_model(tmp_path: Path) -> None:
    generator = taught_generator()
    Bundle(
        family=FAMILY, flavour="nano", configuration=generator.configuration.to_dict(), weights=generator.state_dict(),
        vocabulary=(), collections=("program-000", "program-071"), facts={},
    ).save(tmp_path)  # fmt: skip
    loaded = bundle.load(tmp_path)
    clarinet = drawn_instrument(loaded, instrument="program-071", seed=5)
    score = score_of(onset_ticks=[0], pitch=[60])
    expected = synthesise(score, instruments={PROGRAM: instrument(CLARINET, seed=5)})
    assert np.array_equal(synthesise(score, instruments={PROGRAM: clarinet}), expected)
    with pytest.raises(MissingError, match="knows no instrument 'tuba': choose among program-000, program-071"):
        drawn_instrument(loaded, instrument="tuba", seed=5)
    with pytest.raises(RecipeError, match="a model of family decoder plays no notes"):
        drawn_instrument(replace(loaded, family="decoder"), instrument="program-071", seed=5)
    with pytest.raises(RecipeError, match="instrument 2 is not known: choose among 0 to 1"):
        instrument(2)


def test_drums_are_left_to_the_font() -> None:
    with pytest.raises(RecipeError, match="drums have no pitch"):
        synthesise(score_of(onset_ticks=[0], pitch=[60]), instruments={DRUM_PROGRAM: instrument(PIANO)})


class Counted(DrawnInstrument):
    """Keeps how much sound was asked for at once."""

    def voices(self, held_s: Mapping[int, float], *, sample_rate_hz: int) -> Iterator[tuple[int, Voice]]:
        self.asked_s = dict(held_s)
        yield from super().voices(held_s, sample_rate_hz=sample_rate_hz)


def test_each_pitch_is_made_once_however_many_notes_it_has() -> None:
    counted = Counted(taught_generator(), kind=PIANO, seed=0)
    score = score_of(onset_ticks=np.arange(40) * 100, pitch=np.tile([60, 64], 20), duration_ticks=np.tile([50, 80], 20))
    audio_SC = synthesise(score, instruments={PROGRAM: counted})
    assert counted.asked_s == pytest.approx({60: 0.05, 64: 0.08}, abs=0.001)
    assert np.isfinite(audio_SC).all()
