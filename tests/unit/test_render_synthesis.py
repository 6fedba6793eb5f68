from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tutti.corpus.score import DRUM_PROGRAM, Notes, Score
from tutti.errors import InputError, MissingError
from tutti.render.soundfont import default_path, read_soundfont
from tutti.render.synthesis import SAMPLE_RATE_HZ, synthesise

QUARTER_S = 0.5


def score_of(*, tempos: list[tuple[int, float]] | None = None, **columns: object) -> Score:
    """Ticks of 1/480 quarter at 120 quarters a minute: 960 are a second."""
    columns.setdefault("duration_ticks", 480)
    return Score.of(Notes.of(**columns), ticks_per_quarter=480, tempos=tempos)


def levels_db(audio_SC: NDArray[np.float32], *, count: int) -> NDArray[np.float64]:
    """Root mean square of each quarter of a second."""
    block = SAMPLE_RATE_HZ // 4
    padded = np.zeros((count * block, 2))
    padded[: len(audio_SC)] = audio_SC[: len(padded)]
    return 10 * np.log10(np.square(padded).reshape(count, block, 2).mean(axis=(1, 2)) + 1e-12)


def levels_of_fluidsynth() -> dict[str, list[float]]:
    path = Path(__file__).parents[1] / "golden" / "fluidsynth_levels.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["levels_db"])


@pytest.mark.parametrize("sound", levels_of_fluidsynth())
def test_loudness_over_time_is_that_of_fluidsynth(sound: str) -> None:
    program, pitch = map(int, sound.split())
    expected = np.array(levels_of_fluidsynth()[sound])
    played = synthesise(
        score_of(onset_ticks=[0], duration_ticks=3840, pitch=[pitch], velocity=[100], program=[program])
    )
    heard = expected > expected.max() - 30
    difference = (levels_db(played, count=len(expected)) - expected)[heard]
    assert np.abs(difference - difference[0]).max() < 2.2


@pytest.mark.parametrize(
    ("program", "pitch", "hertz"), [(73, 69, 440.0), (73, 81, 880.0), (19, 60, 261.63), (56, 70, 466.16)]
)
def test_a_key_sounds_at_its_frequency(program: int, pitch: int, hertz: float) -> None:
    audio_SC = synthesise(score_of(onset_ticks=[0], duration_ticks=1920, pitch=[pitch], program=[program]))
    spectrum = np.abs(np.fft.rfft(audio_SC[4410:79_380].sum(axis=1) * np.hanning(74_970), 2**19))
    frequencies = np.fft.rfftfreq(2**19, 1 / SAMPLE_RATE_HZ)
    near = (frequencies > hertz / 1.3) & (frequencies < hertz * 1.3)
    found = frequencies[near][spectrum[near].argmax()]
    assert abs(1200 * np.log2(found / hertz)) < 15


def test_velocity_sets_loudness_by_its_square() -> None:
    soft, loud = (synthesise(score_of(onset_ticks=[0], pitch=[60], velocity=[v])) for v in (32, 127))
    assert np.abs(loud).max() / np.abs(soft).max() == pytest.approx((127 / 32) ** 2, rel=1e-4)


def test_the_last_note_rings_out() -> None:
    score = score_of(onset_ticks=[0], pitch=[48], program=[48])
    audio_SC = synthesise(score)
    end = round(score.length_s * SAMPLE_RATE_HZ)
    assert len(audio_SC) > end + SAMPLE_RATE_HZ // 2
    assert np.abs(audio_SC[end : end + 441]).max() > 0.1 * np.abs(audio_SC).max()
    assert np.abs(audio_SC[-220:]).max() < 1e-3 * np.abs(audio_SC).max()


def test_a_held_piano_key_dies_away_and_a_held_organ_key_does_not() -> None:
    piano, organ = (
        levels_db(
            synthesise(score_of(onset_ticks=[0], duration_ticks=960 * 8, pitch=[60], program=[program])), count=32
        )
        for program in (0, 19)
    )
    assert piano[1] - piano[30] > 30
    assert abs(organ[1] - organ[30]) < 3


def test_parts_add_up_however_many_there_are() -> None:
    programs = np.arange(40)
    onsets = programs * 120
    together = synthesise(score_of(onset_ticks=onsets, pitch=60, program=programs, track=programs))
    alone_SC = np.zeros_like(together)
    for program, onset in zip(programs, onsets, strict=True):
        part_SC = synthesise(score_of(onset_ticks=[onset], pitch=[60], program=[program]))[: len(alone_SC)]
        alone_SC[: len(part_SC)] += part_SC
    assert np.abs(together - alone_SC).max() < 2e-3 * np.abs(together).max()


def test_a_tempo_change_moves_what_follows() -> None:
    score = score_of(onset_ticks=[0, 960], duration_ticks=60, pitch=[84, 84], tempos=[(0, 120.0), (480, 60.0)])
    audio_S = np.abs(synthesise(score)).max(axis=1)
    assert score.seconds_at(np.array([960]))[0] == pytest.approx(1.5)
    window = audio_S[round(1.4 * SAMPLE_RATE_HZ) : round(1.6 * SAMPLE_RATE_HZ)]
    first_loud = np.flatnonzero(window > 0.2 * audio_S.max())[0]
    assert abs(first_loud / SAMPLE_RATE_HZ - 0.1) < 0.02


def test_a_closed_hi_hat_silences_the_open_one() -> None:
    open_alone = synthesise(score_of(onset_ticks=[0], pitch=[46], program=[DRUM_PROGRAM]))
    closed_alone = synthesise(score_of(onset_ticks=[0], pitch=[42], program=[DRUM_PROGRAM]))
    both = synthesise(score_of(onset_ticks=[0, 96], pitch=[46, 42], program=DRUM_PROGRAM))
    at = SAMPLE_RATE_HZ // 10
    assert np.abs(open_alone[at : at + 1000]).max() > 0.1 * np.abs(open_alone).max()
    assert np.allclose(both[at : at + 1000], closed_alone[:1000], atol=1e-6)


def test_drums_are_the_kit_and_not_the_piano() -> None:
    kick = synthesise(score_of(onset_ticks=[0], pitch=[36], program=[DRUM_PROGRAM])).sum(axis=1)
    spectrum = np.abs(np.fft.rfft(kick)) ** 2
    frequencies = np.fft.rfftfreq(len(kick), 1 / SAMPLE_RATE_HZ)
    assert spectrum[frequencies < 150].sum() > 0.9 * spectrum.sum()


def test_the_same_score_gives_the_same_samples() -> None:
    random = np.random.default_rng(1)
    score = score_of(
        onset_ticks=random.integers(0, 3000, 40),
        duration_ticks=random.integers(1, 900, 40),
        pitch=random.integers(40, 80, 40),
        velocity=random.integers(1, 128, 40),
        program=random.choice([0, 19, 48, DRUM_PROGRAM], 40),
    )
    first = synthesise(score)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    assert first.shape[1] == 2
    assert np.isfinite(first).all()
    assert first.tobytes() == synthesise(score).tobytes()


def test_every_general_midi_program_sounds_on_every_piano_key() -> None:
    font = read_soundfont(default_path())
    alto_saxophone, e4 = 65, 64
    assert all(zone.distance(e4) for zone in font.zones(alto_saxophone)), "the font has no such hole any more"
    for program in range(128):
        silent = [pitch for pitch in range(21, 109) if not font.zones_at(program, pitch)]
        assert not silent, f"program {program} has no sound at {silent}"
    assert np.abs(synthesise(score_of(onset_ticks=[0], pitch=[e4], program=[alto_saxophone]))).max() > 0.01


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (Score.of(Notes.none(), ticks_per_quarter=480), "the score has no notes"),
        (score_of(onset_ticks=[960 * 1800], pitch=[60]), "the score lasts 1800 s, more than the 1800 s"),
        (score_of(onset_ticks=[2**31 - 500], pitch=[60], tempos=[(0, 0.001)]), "more than the 1800 s"),
        (score_of(onset_ticks=[0], pitch=[120], program=[DRUM_PROGRAM]), "no note of the score has a sound"),
        (score_of(onset_ticks=[0], pitch=[60], velocity=[0]), "no note of the score has a sound"),
    ],
)
def test_what_cannot_sound_is_refused(score: Score, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        synthesise(score)


def test_a_font_that_is_none_is_refused(tmp_path: Path) -> None:
    score = score_of(onset_ticks=[0], pitch=[60])
    with pytest.raises(MissingError, match=r"nowhere\.sf2 is not there"):
        synthesise(score, soundfont=tmp_path / "nowhere.sf2")
    (tmp_path / "text.sf2").write_bytes(b"this is a text, and not a font at all")
    with pytest.raises(InputError, match="is no SoundFont 2: smpl is missing"):
        synthesise(score, soundfont=tmp_path / "text.sf2")
    (tmp_path / "empty.sf2").touch()
    with pytest.raises(InputError, match="is no SoundFont 2"):
        synthesise(score, soundfont=tmp_path / "empty.sf2")
    (tmp_path / "cut.sf2").write_bytes(default_path().read_bytes()[:5_900_000])
    with pytest.raises(InputError, match="is no SoundFont 2"):
        synthesise(score, soundfont=tmp_path / "cut.sf2")
