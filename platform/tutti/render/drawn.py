"""Instruments that a model draws (:class:`tutti.render.voice.Instrument`): one timbre of a generator of notes.

Legend: S samples, B notes, K bins, F frames, Z latent numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from tutti import seeding
from tutti.errors import MissingError, RecipeError
from tutti.features.spectra import SpectrumScale, to_sound
from tutti.models.bundle import Bundle
from tutti.models.timbre_gan import Generator, TimbreConfiguration, latent_noise
from tutti.render.voice import AUDIBLE_DB, Mono, Voice, released

FAMILY = "timbre_gan"
RELEASE_S = 0.4
"""From the moment a key goes up to where the note is no longer heard."""
LEVEL_DB = -12.0
"""Root mean square of the loudest tenth of a second of a note at full velocity: the median of twelve programs of the
bundled font, whose notes lie from -16 to -8 dB."""

_LEVEL_WINDOW_S = 0.1
_SECONDS_AT_ONCE = 120.0


@dataclass(eq=False)
class DrawnInstrument:
    """One timbre of a generator: the same noise for all pitches.

    All notes of the generator are drawn at the first that is asked for, in one batch, and kept: so a note is the same
    whatever else is played. Pitches beyond the generator's are its nearest, faster or slower. A note that is held for
    longer than its picture goes on as :func:`tutti.features.spectra.extended` says.

    Args:
        generator: of the family ``timbre_gan``.
        kind: number of the instrument that it is asked for.
        seed: of the noise.
        release_s: from the key's going up to silence.
    """

    generator: Generator
    kind: int
    seed: int
    release_s: float = RELEASE_S
    _drawn_B2KF: NDArray[np.float32] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        kinds = self.generator.configuration.instruments
        if not 0 <= self.kind < kinds:
            raise RecipeError(f"instrument {self.kind} is not known", remedy=f"choose among 0 to {kinds - 1}")

    @property
    def scale(self) -> SpectrumScale:
        """What its pictures mean."""
        made = self.generator.configuration
        return SpectrumScale(made.sample_rate_hz, made.n_fft, made.bins, made.frames, made.range_db)

    def release_samples(self, *, sample_rate_hz: int) -> int:
        """As long for every note."""
        return max(1, math.ceil(self.release_s * sample_rate_hz))

    def voices(self, held_s: Mapping[int, float], *, sample_rate_hz: int) -> Iterator[tuple[int, Voice]]:
        """Pitch and voice of each, those of like length together: the shortest first."""
        release_S = released(self.release_samples(sample_rate_hz=sample_rate_hz))
        for pitches in _batches({pitch: held + self.release_s for pitch, held in held_s.items()}):
            length_s = max(held_s[pitch] for pitch in pitches) + self.release_s
            for pitch, sound_S in zip(
                pitches, self._sounds(pitches, length_s=length_s, sample_rate_hz=sample_rate_hz), strict=True
            ):
                yield pitch, Voice(held_S=sound_S, release_S=release_S)

    def _sounds(self, pitches: list[int], *, length_s: float, sample_rate_hz: int) -> Iterator[Mono]:
        lowest, highest = self.generator.configuration.lowest_pitch, self.generator.configuration.highest_pitch
        known = np.clip(pitches, lowest, highest)
        speeds = np.exp2((np.array(pitches) - known) / 12)
        samples_BS = to_sound(
            self._drawn()[known - lowest], scale=self.scale, length_s=length_s * max(float(speeds.max()), 1.0)
        )
        for samples_S, speed in zip(samples_BS, speeds.tolist(), strict=True):
            own_S = samples_S[: math.ceil(length_s * speed * self.scale.sample_rate_hz)]
            sound_S = soxr.resample(own_S, self.scale.sample_rate_hz * speed, sample_rate_hz)
            yield _levelled(sound_S.astype(np.float32), sample_rate_hz=sample_rate_hz)

    def _drawn(self) -> NDArray[np.float32]:
        """``spectra_B2KF`` of all pitches of the generator."""
        if self._drawn_B2KF is None:
            made = self.generator.configuration
            pitch_B = torch.arange(made.lowest_pitch, made.highest_pitch + 1)
            random = torch.Generator().manual_seed(seeding.derive(self.seed, "timbre"))
            noise_BZ = latent_noise(1, configuration=made, random=random).expand(len(pitch_B), -1)
            device = next(self.generator.parameters()).device
            with torch.inference_mode():
                drawn = self.generator(
                    noise_BZ.to(device), pitch_B.to(device), torch.full_like(pitch_B, self.kind).to(device)
                )
            self._drawn_B2KF = drawn.float().cpu().numpy()
        return self._drawn_B2KF


def drawn_instrument(bundle: Bundle, *, instrument: str, seed: int) -> DrawnInstrument:
    """An instrument of a model that was trained.

    Args:
        bundle: of the family ``timbre_gan``; its ``collections`` are the names of its instruments.
        instrument: one of those.
        seed: of the timbre within it.

    Raises:
        RecipeError: the model is of another family.
        MissingError: it knows no such instrument.
    """
    if bundle.family != FAMILY:
        raise RecipeError(f"a model of family {bundle.family} plays no notes", remedy=f"name one of family {FAMILY}")
    if instrument not in bundle.collections:
        raise MissingError(
            f"the model knows no instrument {instrument!r}", remedy=f"choose among {', '.join(bundle.collections)}"
        )
    generator = Generator(TimbreConfiguration(**bundle.configuration))
    generator.load_state_dict(dict(bundle.weights))
    return DrawnInstrument(generator.eval(), kind=bundle.collections.index(instrument), seed=seed)


def _batches(length_s: Mapping[int, float]) -> Iterator[list[int]]:
    """Pitches whose sounds are made together: like in length, and of bounded length in all."""
    waiting: list[int] = []
    for pitch in sorted(length_s, key=lambda pitch: (length_s[pitch], pitch)):
        shortest = length_s[waiting[0]] if waiting else length_s[pitch]
        too_much = (len(waiting) + 1) * length_s[pitch] > _SECONDS_AT_ONCE
        if waiting and (too_much or length_s[pitch] > 2 * shortest):
            yield waiting
            waiting = []
        waiting.append(pitch)
    if waiting:
        yield waiting


def _levelled(sound_S: Mono, *, sample_rate_hz: int) -> Mono:
    """The sound at :data:`LEVEL_DB`; silence stays silence."""
    window = min(max(round(_LEVEL_WINDOW_S * sample_rate_hz), 1), len(sound_S))
    if not window:
        return sound_S
    sums = np.concatenate(([0.0], np.cumsum(np.square(sound_S, dtype=np.float64))))
    loudest = float((sums[window:] - sums[:-window]).max()) / window
    if loudest < 10 ** (-AUDIBLE_DB / 10):
        return np.zeros_like(sound_S)
    return np.asarray(sound_S * np.float32(10 ** (LEVEL_DB / 20) / math.sqrt(loudest)))
