"""A model of notes beside notes that it never heard: are its notes in tune, and do they sound like the real ones?

Convention: measures are those of :mod:`tutti.metrics.timbre`, of the sound of pictures: what a picture loses of a note
is lost on both sides. ``spectral_distance_db`` is the mean over notes of how far each lies from the held-out note of
its pitch and instrument; ``variety_db`` the same between two notes of one pitch and instrument: of the model, of
two draws of its noise, of the data, of two velocities. A model without variety has one timbre for each instrument.

Beside the model stand what anybody has without one, made of the training's notes of the same instrument: ``shifted``,
the nearest key played faster or slower, as samplers do; ``nearest``, the same at its own pitch; ``mean``, the mean
picture of all keys. What has no figure is NaN.

Legend: B notes, S samples, K bins, F frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from tutti import seeding
from tutti.dataset.blocks import Blocks
from tutti.dataset.spectra import SpectraLayout, scale_of
from tutti.errors import MissingError
from tutti.features.spectra import SpectrumScale, to_sound
from tutti.lineage import Dataset
from tutti.metrics import timbre
from tutti.models.bundle import Bundle
from tutti.models.timbre_gan import Condition, Generator, TimbreConfiguration, fakes
from tutti.telemetry import Reporter

Floats = NDArray[np.float32]

MODEL, HELD_OUT, SHIFTED, NEAREST, MEAN = "model", "held_out", "shifted", "nearest", "mean"
SETS = (MODEL, HELD_OUT, SHIFTED, NEAREST, MEAN)
MEASURES: Mapping[str, tuple[str, str]] = {
    "pitch_accuracy": ("Notes in tune", "share"),
    "pitch_cents": ("Median error of the pitch", "cents"),
    "timbre_distance": ("Distance of all sounds", "dB²"),
    "spectral_distance_db": ("Distance of a note", "dB"),
    "variety_db": ("Variety of a note", "dB"),
}
"""Title and unit of each."""
MOST_NOTES = 128
"""Where no number is asked for."""
_BLOCK_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Notes:
    """Some notes as pictures, in the order of their instruments and pitches.

    Args:
        spectra_B2KF: pictures.
        pitch_B, instrument_B: of each.
    """

    spectra_B2KF: Floats
    pitch_B: NDArray[np.int64]
    instrument_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pitch_B)

    def take(self, rows: NDArray[np.int64]) -> Notes:
        """Some of them."""
        return Notes(self.spectra_B2KF[rows], self.pitch_B[rows], self.instrument_B[rows])


@dataclass(frozen=True)
class NotesEvaluation:
    """What was found.

    Args:
        bundle: the model.
        split: of the notes held out.
        held_out: those that were compared.
        held_out_of: how many the split has.
        made: the model's, of the same pitches and instruments.
        sounds: ``samples_BS`` of each set.
        figures: by set and measure.
        instruments: figures of the model by instrument and measure.
    """

    bundle: Bundle
    split: str
    held_out: Notes
    held_out_of: int
    made: Notes
    sounds: Mapping[str, Floats]
    figures: Mapping[str, Mapping[str, float]]
    instruments: Mapping[str, Mapping[str, float]]

    @property
    def scale(self) -> SpectrumScale:
        """What the pictures mean."""
        return SpectrumScale.of(self.bundle.configuration)


def evaluate(
    bundle: Bundle, spectra: Dataset, *, split: str, most: int | None, seed: int, reporter: Reporter
) -> NotesEvaluation:
    """Everything.

    Args:
        bundle: of the family ``timbre_gan``.
        spectra: what it was trained on.
        split: of notes held out.
        most: how many are compared, spread evenly over the split; None is up to :data:`MOST_NOTES`.
        seed: of the model's noise.
        reporter: told how far it is.

    Raises:
        MissingError: the split has no notes.
        IntegrityError: stored bytes are damaged.
    """
    every = _joined(list(_read(spectra, split=split)))
    rows = np.unique(np.linspace(0, len(every) - 1, min(most or MOST_NOTES, len(every))).round().astype(np.int64))
    held_out = every.take(rows)
    reporter.line(f"generating {len(held_out)} notes, of the pitches and instruments of {split}")
    made, again = (_made(bundle, held_out, seed=seeding.derive(seed, "notes", draw)) for draw in range(2))
    nearest, mean = _baselines(spectra, held_out)
    scale = scale_of(spectra)
    reporter.line(f"playing and measuring {(len(SETS) + 2) * len(held_out)} notes")
    sounds = {
        name: _sound(notes, scale=scale)
        for name, notes in ((MODEL, made), (HELD_OUT, held_out), (NEAREST, nearest), (MEAN, mean))
    }
    steps_B = held_out.pitch_B - nearest.pitch_B
    sounds[SHIFTED] = _shifted(sounds[NEAREST], steps_B, sample_rate_hz=scale.sample_rate_hz)
    figures = {name: _figures(sounds[name], sounds[HELD_OUT], held_out, scale=scale) for name in SETS}
    figures[HELD_OUT] |= _of_data(sounds[HELD_OUT], held_out, sample_rate_hz=scale.sample_rate_hz)
    figures[MODEL]["variety_db"] = float(
        timbre.log_spectral_distance_db(
            sounds[MODEL], _sound(again, scale=scale), sample_rate_hz=scale.sample_rate_hz
        ).mean()
    )
    return NotesEvaluation(
        bundle=bundle,
        split=split,
        held_out=held_out,
        held_out_of=len(every),
        made=made,
        sounds=sounds,
        figures=figures,
        instruments={
            bundle.collections[instrument]: _figures(
                sounds[MODEL][here], sounds[HELD_OUT][here], held_out.take(np.flatnonzero(here)), scale=scale
            )
            for instrument in np.unique(held_out.instrument_B).tolist()
            for here in [held_out.instrument_B == instrument]
        },
    )


def _read(spectra: Dataset, *, split: str) -> Iterator[Notes]:
    """The notes of a split, block by block."""
    layout = SpectraLayout(scale=scale_of(spectra), lowest_pitch=spectra.facts["pitches"][0])
    blocks = Blocks(spectra, split=split, with_pieces=False, patience_s=_BLOCK_PATIENCE_S)
    for at, group in enumerate(blocks.sources):
        for number in range(group.blocks):
            held = blocks.read(at, number)
            batch = layout.laid(held, num_rows=len(held))
            yield Notes(
                batch.spectra_B2KF.astype(np.float32),
                batch.pitch_B.astype(np.int64),
                batch.instrument_B.astype(np.int64),
            )


def _joined(parts: list[Notes]) -> Notes:
    if not parts:
        raise MissingError("the split has no notes", remedy="evaluate on another split")
    joined = Notes(
        np.concatenate([part.spectra_B2KF for part in parts]),
        np.concatenate([part.pitch_B for part in parts]),
        np.concatenate([part.instrument_B for part in parts]),
    )
    return joined.take(np.lexsort((joined.pitch_B, joined.instrument_B)))


def _made(bundle: Bundle, asked: Notes, *, seed: int) -> Notes:
    generator = Generator(TimbreConfiguration(**bundle.configuration))
    generator.load_state_dict(dict(bundle.weights))
    condition = Condition(torch.from_numpy(asked.pitch_B), torch.from_numpy(asked.instrument_B))
    with torch.inference_mode():
        made = fakes(generator.eval(), condition, random=torch.Generator().manual_seed(seed))
    return Notes(made.float().numpy(), asked.pitch_B, asked.instrument_B)


def _baselines(spectra: Dataset, held_out: Notes) -> tuple[Notes, Notes]:
    """For each note, the nearest key of its instrument in the training, and the mean picture of that instrument's.

    The nearest is the first of equals; a note whose instrument the training lacks has silence.
    """
    nearest_B2KF = np.zeros_like(held_out.spectra_B2KF)
    nearest_B2KF[:, 0] = -1
    pitch_B = np.full(len(held_out), 10_000)
    instruments = int(max(spectra.facts["instruments"].__len__(), 1))
    sums, counts = np.zeros((instruments, *held_out.spectra_B2KF.shape[1:])), np.zeros(instruments)
    for notes in _read(spectra, split="train"):
        np.add.at(sums, notes.instrument_B, notes.spectra_B2KF)
        np.add.at(counts, notes.instrument_B, 1)
        for row in range(len(held_out)):
            mine = np.flatnonzero(notes.instrument_B == held_out.instrument_B[row])
            if not len(mine):
                continue
            away = np.abs(notes.pitch_B[mine] - held_out.pitch_B[row])
            if away.min() < abs(pitch_B[row] - held_out.pitch_B[row]):
                chosen = mine[away.argmin()]
                nearest_B2KF[row], pitch_B[row] = notes.spectra_B2KF[chosen], notes.pitch_B[chosen]
    pitch_B = np.where(pitch_B == 10_000, held_out.pitch_B, pitch_B)
    mean = (sums / np.maximum(counts, 1)[:, None, None, None]).astype(np.float32)
    return (
        Notes(nearest_B2KF, pitch_B, held_out.instrument_B),
        Notes(mean[held_out.instrument_B], held_out.pitch_B, held_out.instrument_B),
    )


def _sound(notes: Notes, *, scale: SpectrumScale) -> Floats:
    return to_sound(notes.spectra_B2KF, scale=scale, length_s=scale.frames * scale.hop_samples / scale.sample_rate_hz)


def _shifted(samples_BS: Floats, steps_B: NDArray[np.int64], *, sample_rate_hz: int) -> Floats:
    """Each sound faster or slower by so many semitones, in the same length."""
    shifted_BS = np.zeros_like(samples_BS)
    for row_S, samples_S, steps in zip(shifted_BS, samples_BS, steps_B.tolist(), strict=True):
        moved_S = soxr.resample(samples_S, sample_rate_hz * 2 ** (steps / 12), sample_rate_hz)[: len(row_S)]
        row_S[: len(moved_S)] = moved_S
    return shifted_BS


def _figures(samples_BS: Floats, real_BS: Floats, asked: Notes, *, scale: SpectrumScale) -> dict[str, float]:
    rate_hz = scale.sample_rate_hz
    cents_B = timbre.pitch_errors_cents(samples_BS, pitch_B=asked.pitch_B, sample_rate_hz=rate_hz)
    heard = np.abs(cents_B[np.isfinite(cents_B)])
    return {
        "pitch_accuracy": float((heard <= timbre.IN_TUNE_CENTS).sum()) / max(len(cents_B), 1),
        "pitch_cents": float(np.median(heard)) if len(heard) else math.nan,
        "timbre_distance": timbre.frechet_distance(
            *(timbre.embedded(sounds, sample_rate_hz=rate_hz) for sounds in (samples_BS, real_BS))
        ),
        "spectral_distance_db": float(
            timbre.log_spectral_distance_db(real_BS, samples_BS, sample_rate_hz=rate_hz).mean()
        ),
        "variety_db": math.nan,
    }


def _of_data(samples_BS: Floats, notes: Notes, *, sample_rate_hz: int) -> dict[str, float]:
    """What notes held out are to each other: one half to the other, and two velocities of a key."""
    key_B = notes.instrument_B * 128 + notes.pitch_B
    pairs = np.flatnonzero(key_B[1:] == key_B[:-1])
    variety = math.nan
    if len(pairs):
        two = (samples_BS[pairs], samples_BS[pairs + 1])
        variety = float(timbre.log_spectral_distance_db(*two, sample_rate_hz=sample_rate_hz).mean())
    embedding = timbre.embedded(samples_BS, sample_rate_hz=sample_rate_hz)
    return {
        "timbre_distance": timbre.halves_distance(embedding),
        "spectral_distance_db": math.nan,
        "variety_db": variety,
    }
