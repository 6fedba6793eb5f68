"""Single notes for tests, played by the product's own synthesizer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import notes
from jobs.notes import NotesRecipe
from tests.trainings import plan_of
from tutti.features.spectra import SpectrumScale, to_spectra
from tutti.lineage import Dataset
from tutti.models.timbre_gan import Generator, TimbreConfiguration
from tutti.render.notes import play_note
from tutti.storage import Folder
from tutti.telemetry import Silent
from tutti.training.plan import Plan

PROGRAMS = (0, 11, 24, 33, 40, 48, 56, 66, 71, 73)
"""Instruments that the bundled font has in tune: piano to flute."""


def played(*, program: int, pitch: int, rate_hz: int, seconds: float = 1.2, velocity: int = 100) -> NDArray[np.float32]:
    """``samples_S``: a key held for so long, cut off at its release."""
    return play_note(program=program, pitch=pitch, velocity=velocity, length_s=seconds, sample_rate_hz=rate_hz)


NOTES = NotesRecipe(
    programs=(0, 73), licence="CC0-1.0", lowest_pitch=55, highest_pitch=66, velocities=(60, 100), valid_share=0.2,
    test_share=0.2, n_fft=1024, bins=48, frames=16,
)  # fmt: skip


def notes_dataset(root: Folder) -> Dataset:
    """Notes of a piano and a flute as packed pictures."""
    return notes.packed(NOTES, None, licences=("CC0-1.0",), name="keys", root=root, reporter=Silent())


def plan_of_notes(spectra: Dataset, run: Path, **changes: object) -> Plan:
    """A training of the smallest ``timbre_gan`` on them."""
    made = plan_of(spectra.folder, run, family="timbre_gan", clip_norm=0.0, **changes)
    model = made.model.model_copy(update={"settings": NOTES.decides(instruments=2)})
    data = {"spectra_address": spectra.folder.uri, "licences": spectra.facts["licences"]}
    return replace(made, model=model, collections=tuple(spectra.facts["instruments"]), data=data, baselines={})


TAUGHT_SCALE = SpectrumScale(sample_rate_hz=16_000, n_fft=2048, bins=96, frames=16)
TAUGHT_PITCHES = range(48, 73)
TAUGHT_PROGRAMS = (0, 71)
TAUGHT_STEPS = 80


@lru_cache(maxsize=1)
def taught_generator() -> Generator:
    """A generator that was taught the very notes of a piano and a clarinet: no critic, so that it takes seconds."""
    scale = TAUGHT_SCALE
    configuration = TimbreConfiguration(
        sample_rate_hz=scale.sample_rate_hz, n_fft=scale.n_fft, range_db=scale.range_db, bins=scale.bins,
        frames=scale.frames, lowest_pitch=TAUGHT_PITCHES[0], highest_pitch=TAUGHT_PITCHES[-1], instruments=2, latent=4,
        width=128, critic_width=128, halvings=2, likeness=0.0,
    )  # fmt: skip
    keys = [(kind, pitch) for kind in range(len(TAUGHT_PROGRAMS)) for pitch in TAUGHT_PITCHES]
    notes = [played(program=TAUGHT_PROGRAMS[kind], pitch=pitch, rate_hz=16_000, seconds=0.7) for kind, pitch in keys]
    real_B2KF = torch.from_numpy(to_spectra(np.stack(notes), scale=scale))
    kind_B, pitch_B = torch.tensor(keys).T
    torch.manual_seed(0)
    generator = Generator(configuration)
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, total_iters=TAUGHT_STEPS)
    random = torch.Generator().manual_seed(0)
    for _ in range(TAUGHT_STEPS):
        noise_BZ = torch.randn(len(keys), configuration.latent, generator=random)
        loss = (generator(noise_BZ, pitch_B, kind_B) - real_B2KF).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return generator.eval()
