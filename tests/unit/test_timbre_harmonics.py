from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tutti.features.spectra import FREQUENCY, LEVEL, SpectrumScale, to_spectra
from tutti.models.timbre_gan.harmonics import OWN_PLACES, Harmonics, harmonic_count, spread

SCALE = SpectrumScale(sample_rate_hz=16_000, n_fft=2048, bins=128, frames=8)
HARMONICS = Harmonics(**SCALE.to_dict(), lowest_hz=110.0)
PARTIALS = 7
STRETCH = 4e-4


def levels(rows: int, *, place: int | None = None) -> torch.Tensor:
    """One place of the harmonics at level 1 and silence elsewhere; the first :data:`PARTIALS` where none is named."""
    level_BJF = torch.full((rows, len(HARMONICS.spread_JN), SCALE.frames), -3.0)
    level_BJF[:, slice(0, PARTIALS) if place is None else place] = 1
    return level_BJF


def drawn(hertz_BN: torch.Tensor, level_BJF: torch.Tensor, *, bend: float = 0.0, noise: float = -3.0) -> torch.Tensor:
    rows = len(hertz_BN)
    noise_BKF = torch.full((rows, SCALE.bins, SCALE.frames), noise)
    return HARMONICS(
        hertz_BN, level_BJF, torch.full((rows, SCALE.frames), bend), noise_BKF, torch.zeros_like(noise_BKF)
    )


def sines(hertz_P: NDArray[np.float64]) -> NDArray[np.float32]:
    time_S = np.arange(SCALE.note_samples) / SCALE.sample_rate_hz
    phase_P = np.random.default_rng(0).uniform(0, 2 * np.pi, len(hertz_P))
    return np.sin(2 * np.pi * hertz_P[:, None] * time_S + phase_P[:, None]).sum(axis=0).astype(np.float32)


@pytest.mark.parametrize("fundamental_hz", [130.0, 261.6, 440.0, 987.3])
@pytest.mark.parametrize("stretch", [0.0, STRETCH])
def test_what_is_drawn_is_what_sines_of_those_frequencies_show(fundamental_hz: float, stretch: float) -> None:
    number_P = np.arange(1, PARTIALS + 1)
    hertz_P = fundamental_hz * number_P * np.sqrt(1 + stretch * number_P**2)
    hertz_P = hertz_P[hertz_P < SCALE.sample_rate_hz / 2]
    seen_2KF = to_spectra(sines(hertz_P)[None], scale=SCALE)[0]
    hertz_BN = HARMONICS.frequencies(torch.tensor([fundamental_hz]), torch.tensor([stretch]))
    assert np.allclose(hertz_BN[0, : len(hertz_P)], hertz_P, rtol=1e-5)
    made_2KF = drawn(hertz_BN, levels(1))[0].numpy()
    # Two sines in one bin beat, which powers that are added do not; a window cut short is wide.
    loud_KF = seen_2KF[LEVEL] > 0
    loud_KF[:, :2] &= seen_2KF[LEVEL, :, :2] > 0.5
    apart_KF = (made_2KF[LEVEL] - made_2KF[LEVEL].max()) - (seen_2KF[LEVEL] - 1)
    assert loud_KF.sum() > 2 * PARTIALS
    assert np.quantile(np.abs(apart_KF[loud_KF]), 0.95) * SCALE.range_db / 2 < 3
    assert np.median(np.abs(apart_KF[loud_KF])) * SCALE.range_db / 2 < 0.3
    assert np.median(np.abs(made_2KF[FREQUENCY] - seen_2KF[FREQUENCY])[loud_KF]) < 0.02


def test_a_harmonic_is_read_where_it_was_drawn_whatever_the_pitch() -> None:
    fundamental_B = torch.tensor([110.0, 207.65, 415.3])
    for place in (0, 1, 4):
        hertz_BN = HARMONICS.frequencies(fundamental_B, torch.zeros(3))
        read_BJF = HARMONICS.read(drawn(hertz_BN, levels(3, place=place))[:, LEVEL], fundamental_B)
        assert read_BJF.mean(dim=2).argmax(dim=1).tolist() == [place] * 3
        assert (read_BJF >= 0).all()
    nothing_BKF = torch.full((3, SCALE.bins, SCALE.frames), -1.0)
    assert not HARMONICS.read(nothing_BKF, fundamental_B).any()


def test_a_bend_moves_all_frequencies_by_its_share_and_no_level() -> None:
    hertz_BN = HARMONICS.frequencies(torch.tensor([220.0]), torch.zeros(1))
    straight_2KF, bent_2KF = (drawn(hertz_BN, levels(1, place=3), bend=bend)[0] for bend in (0.0, 0.01))
    assert torch.equal(straight_2KF[LEVEL], bent_2KF[LEVEL])
    loud = straight_2KF[LEVEL, :, 4].argmax()
    moved = (bent_2KF - straight_2KF)[FREQUENCY, loud, 4] * HARMONICS.reach_K[loud]
    assert float(moved) == pytest.approx(0.01 * 880, rel=0.01)


def test_silence_is_silent_and_noise_has_its_level() -> None:
    hertz_BN = HARMONICS.frequencies(torch.tensor([220.0]), torch.zeros(1))
    silent_JF = torch.full_like(levels(1), -3.0)
    assert (drawn(hertz_BN, silent_JF)[:, LEVEL] == -1).all()
    assert torch.allclose(drawn(hertz_BN, silent_JF, noise=0.25)[:, LEVEL], torch.tensor(0.25), atol=1e-3)
    assert (drawn(hertz_BN, silent_JF, noise=9.0)[:, LEVEL] == 1).all()


def test_what_is_clipped_can_still_learn() -> None:
    hertz_BN = HARMONICS.frequencies(torch.tensor([220.0]), torch.zeros(1))
    for level in (-1.2, 3.0):
        level_BJF = torch.full_like(levels(1), level).requires_grad_()
        drawn(hertz_BN, level_BJF)[:, LEVEL].sum().backward()
        assert level_BJF.grad is not None
        assert level_BJF.grad[0, 0].min() > 0


def test_frequencies_learn_too() -> None:
    fundamental, stretch = torch.tensor([220.0], requires_grad=True), torch.tensor([1e-4], requires_grad=True)
    made_B2KF = drawn(HARMONICS.frequencies(fundamental, stretch), levels(1))
    seen_B2KF = drawn(HARMONICS.frequencies(torch.tensor([222.0]), torch.tensor([3e-4])), levels(1))
    loud_BKF = seen_B2KF[:, LEVEL] > 0.5
    (made_B2KF - seen_B2KF)[:, FREQUENCY].abs()[loud_BKF].sum().backward()
    assert fundamental.grad is not None
    assert stretch.grad is not None
    assert fundamental.grad.item() < 0
    assert stretch.grad.item() < 0


def test_the_first_harmonics_have_places_of_their_own_and_all_have_one() -> None:
    spread_JN = spread(harmonic_count(32.7, sample_rate_hz=44_100))
    assert spread_JN.shape[1] == 674
    assert len(spread_JN) < 120
    assert np.allclose(spread_JN.sum(axis=0), 1)
    assert np.allclose(spread_JN[:OWN_PLACES, :OWN_PLACES], np.eye(OWN_PLACES))
    assert (spread_JN.sum(axis=1) > 0).all()


def test_what_follows_from_the_configuration_is_not_kept() -> None:
    assert not HARMONICS.state_dict()
