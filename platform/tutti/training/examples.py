"""Kinds of examples that a training can read: how their rows become batches, and what they decide of a model's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutti.dataset.batch import Batch, Layout
from tutti.dataset.pairs import SIDES, PairLayout, random_pairs
from tutti.dataset.rolls import RollBatch, RollLayout
from tutti.dataset.sequences import SequenceLayout, random_sequences
from tutti.dataset.spectra import SpectraBatch, SpectraLayout
from tutti.dataset.voices import VoiceLayout, random_voices
from tutti.features import roll
from tutti.features.grid import METER_TICKS
from tutti.features.spectra import SpectrumScale
from tutti.features.vocabulary import BAR, EVENTS, TICKS_PER_QUARTER
from tutti.features.voices import NAMES as VOICE_NAMES
from tutti.features.voices import VOCABULARY_SIZE, VOICES
from tutti.models.decoder import EventTokens
from tutti.models.families import family_of
from tutti.models.family import Configuration
from tutti.models.timbre_gan import TimbreConfiguration
from tutti.training.adversarial import Judge
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.roll_judge import RollJudge
from tutti.training.timbre_judge import TimbreJudge

_LONGEST_TOKENS = 4096

EVENT_TOKENS = EventTokens(
    bar=BAR,
    meter=EVENTS.first("Meter"),
    bar_ticks=tuple(METER_TICKS.tolist()),
    position=EVENTS.first("Position"),
    positions=len(EVENTS.span("Position")),
    pitch=EVENTS.first("Pitch"),
    pitches=len(EVENTS.span("Pitch")),
    quarter_ticks=TICKS_PER_QUARTER,
)
"""Which events tell time and pitch."""


@dataclass(frozen=True)
class Kind:
    """One kind of examples.

    Args:
        layout: how rows become batches, for a model's configuration.
        shape: what the examples decide of a model's configuration, by name of its fields.
        places: how many places to be learnt an example has, at most.
        random: a batch that costs what a real one does, for a model's configuration.
        makes: what a model of them gives, for people, in one sentence.
        vocabulary: names of the numbers that it gives or is asked for, in their order; empty where it knows none.
        judge: who compares them with what a model of a configuration made, where a family learns against a critic.
    """

    layout: Callable[[TrainingRecipe, Any], Layout]
    shape: Callable[[TrainingRecipe], dict[str, Any]]
    places: Callable[[TrainingRecipe], int]
    random: Callable[[TrainingRecipe, Any], Batch]
    makes: str = ""
    vocabulary: tuple[str, ...] = ()
    judge: Callable[[Any], Judge] | None = None


KINDS: dict[str, Kind] = {
    "sequences": Kind(
        layout=lambda recipe, _: SequenceLayout(
            sequence_tokens=recipe.sequence_tokens, augmentation=recipe.augmentation
        ),
        shape=lambda recipe: {
            "vocabulary_size": len(EVENTS), "max_tokens": max(_LONGEST_TOKENS, recipe.sequence_tokens),
            "bar_token": BAR, "events": EVENT_TOKENS,
        },
        places=lambda recipe: recipe.sequence_tokens,
        random=lambda recipe, _: random_sequences(
            recipe.batch_sequences, sequence_tokens=recipe.sequence_tokens, vocabulary_size=len(EVENTS)
        ),
        makes="It gives one event token after another; a sequence of tokens is a score.",
        vocabulary=EVENTS.names,
    ),
    "voices": Kind(
        layout=lambda recipe, _: VoiceLayout(
            steps=recipe.sequence_tokens // VOICES, most_semitones=recipe.most_semitones
        ),
        shape=lambda _: {"vocabulary_size": VOCABULARY_SIZE, "voices": VOICES},
        places=lambda recipe: recipe.sequence_tokens // VOICES * VOICES,
        random=lambda recipe, _: random_voices(recipe.batch_sequences, steps=recipe.sequence_tokens // VOICES),
        makes="It sings in sixteenths of four voices; a token is what one voice sounds for a sixteenth.",
        vocabulary=VOICE_NAMES,
    ),
    "rolls": Kind(
        layout=lambda recipe, _: RollLayout(
            most_semitones=recipe.most_semitones, class_dropout=recipe.control_dropout, home_key=recipe.home_key
        ),
        shape=lambda _: roll_shape(),
        places=lambda _: 1,
        random=lambda recipe, _: random_rolls(recipe.batch_sequences),
        makes="It makes four bars for five tracks at once, as a piano-roll of sixteenths.",
        vocabulary=(
            *(f"Track_{name}" for name in roll.TRACKS),
            *(f"Mood_{name}" for name in roll.CLASSES["mood"]),
            *(f"TempoClass_{name}" for name in roll.CLASSES["tempo"]),
        ),
        judge=lambda _: RollJudge(),
    ),
    # A recipe's notes decide the pictures, so they are among a model's settings, and nothing is left to decide here.
    "spectra": Kind(
        layout=lambda _, configuration: SpectraLayout(
            scale=scale_of(configuration), lowest_pitch=configuration.lowest_pitch
        ),
        shape=lambda _: {},
        places=lambda _: 1,
        random=lambda recipe, configuration: random_spectra(recipe.batch_sequences, configuration=configuration),
        makes="It makes single notes of an instrument as spectrograms, from noise, a pitch and an instrument.",
        judge=lambda configuration: TimbreJudge(scale_of(configuration)),
    ),
}  # fmt: skip


TUNING = Kind(
    layout=lambda recipe, _: PairLayout(sequence_tokens=recipe.sequence_tokens),
    shape=KINDS["sequences"].shape,
    places=lambda recipe: SIDES * recipe.sequence_tokens,
    random=lambda recipe, _: random_pairs(
        recipe.batch_sequences, sequence_tokens=recipe.sequence_tokens, vocabulary_size=len(EVENTS)
    ),
    vocabulary=EVENTS.names,
)
"""Pairs of takes, by which a model of sequences is tuned."""


def roll_shape() -> dict[str, Any]:
    """What rolls decide of a model's configuration."""
    return {
        "bars": roll.BARS,
        "steps": roll.STEPS,
        "pitches": roll.PITCHES,
        "tracks": len(roll.TRACKS),
        "drums": roll.DRUMS,
        "moods": len(roll.CLASSES["mood"]),
        "tempos": len(roll.CLASSES["tempo"]),
    }


def random_rolls(rolls: int) -> RollBatch:
    """Rolls of which about every hundredth cell sounds, and begins."""
    marks = np.random.default_rng(0).random((rolls, 1, *roll.SHAPE[1:])) < 1 / 100
    classes = np.zeros((rolls, roll.HEAD_TOKENS), dtype=np.uint8)
    return RollBatch(np.repeat(marks, 2, axis=1).view(np.uint8), classes, rolls)


def scale_of(configuration: TimbreConfiguration) -> SpectrumScale:
    """What the pictures of a model of notes are made with."""
    return SpectrumScale.of(configuration.to_dict())


def random_spectra(notes: int, *, configuration: TimbreConfiguration) -> SpectraBatch:
    """Notes whose pictures are noise."""
    drawn = np.random.default_rng(0)
    spectra_B2KF = drawn.uniform(-1, 1, (notes, *scale_of(configuration).shape)).astype(np.float16)
    pitch_B = drawn.integers(configuration.lowest_pitch, configuration.highest_pitch + 1, notes, dtype=np.uint8)
    instrument_B = drawn.integers(0, configuration.instruments, notes, dtype=np.uint16)
    return SpectraBatch(spectra_B2KF, pitch_B, instrument_B, notes)


def kind_of(model: ModelRecipe, training: TrainingRecipe) -> Kind:
    """What a recipe's family reads; pairs, where it is tuned."""
    return KINDS[family_of(model.family).reads] if training.preference is None else TUNING


def configuration_of(model: ModelRecipe, training: TrainingRecipe) -> Configuration:
    """The configuration of a recipe's model.

    Raises:
        RecipeError: a setting that the family does not know, or a value that cannot be.
    """
    family = family_of(model.family)
    settings = {"dropout": model.dropout, **model.settings} if family.drops else model.settings
    made: Configuration = family.configure(
        model.flavour, shape=kind_of(model, training).shape(training), settings=settings
    )
    return made
