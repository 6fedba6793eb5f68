"""Kinds of examples that a training can read: how their rows become batches, and what they decide of a model's size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutti.dataset.batch import Batch, Layout
from tutti.dataset.rolls import RollBatch, RollLayout
from tutti.dataset.sequences import SequenceLayout, random_sequences
from tutti.dataset.voices import VoiceLayout, random_voices
from tutti.features import roll
from tutti.features.grid import METER_TICKS
from tutti.features.vocabulary import BAR, EVENTS, TICKS_PER_QUARTER
from tutti.features.voices import NAMES as VOICE_NAMES
from tutti.features.voices import VOCABULARY_SIZE, VOICES
from tutti.models.decoder import EventTokens
from tutti.models.families import family_of
from tutti.models.family import Configuration
from tutti.training.adversarial import Judge
from tutti.training.recipe import ModelRecipe, TrainingRecipe
from tutti.training.roll_judge import RollJudge

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
        layout: how rows become batches.
        shape: what the examples decide of a model's configuration, by name of its fields.
        places: how many places to be learnt an example has, at most.
        random: a batch that costs what a real one does.
        makes: what a model of them gives, for people, in one sentence.
        vocabulary: names of the numbers that it gives or is asked for, in their order; empty where it knows none.
        judge: who compares them with generated ones, where a family learns against a critic.
    """

    layout: Callable[[TrainingRecipe], Layout]
    shape: Callable[[TrainingRecipe], dict[str, Any]]
    places: Callable[[TrainingRecipe], int]
    random: Callable[[TrainingRecipe], Batch]
    makes: str = ""
    vocabulary: tuple[str, ...] = ()
    judge: Callable[[], Judge] | None = None


KINDS: dict[str, Kind] = {
    "sequences": Kind(
        layout=lambda recipe: SequenceLayout(
            sequence_tokens=recipe.sequence_tokens, augmentation=recipe.augmentation
        ),
        shape=lambda recipe: {
            "vocabulary_size": len(EVENTS), "max_tokens": max(_LONGEST_TOKENS, recipe.sequence_tokens),
            "bar_token": BAR, "events": EVENT_TOKENS,
        },
        places=lambda recipe: recipe.sequence_tokens,
        random=lambda recipe: random_sequences(
            recipe.batch_sequences, sequence_tokens=recipe.sequence_tokens, vocabulary_size=len(EVENTS)
        ),
        makes="It gives one event token after another; a sequence of tokens is a score.",
        vocabulary=EVENTS.names,
    ),
    "voices": Kind(
        layout=lambda recipe: VoiceLayout(
            steps=recipe.sequence_tokens // VOICES, most_semitones=recipe.most_semitones
        ),
        shape=lambda _: {"vocabulary_size": VOCABULARY_SIZE, "voices": VOICES},
        places=lambda recipe: recipe.sequence_tokens // VOICES * VOICES,
        random=lambda recipe: random_voices(recipe.batch_sequences, steps=recipe.sequence_tokens // VOICES),
        makes="It sings in sixteenths of four voices; a token is what one voice sounds for a sixteenth.",
        vocabulary=VOICE_NAMES,
    ),
    "rolls": Kind(
        layout=lambda recipe: RollLayout(
            most_semitones=recipe.most_semitones, class_dropout=recipe.control_dropout
        ),
        shape=lambda _: roll_shape(),
        places=lambda _: 1,
        random=lambda recipe: random_rolls(recipe.batch_sequences),
        makes="It makes four bars for five tracks at once, as a piano-roll of sixteenths.",
        vocabulary=(
            *(f"Track_{name}" for name in roll.TRACKS),
            *(f"Mood_{name}" for name in roll.CLASSES["mood"]),
            *(f"TempoClass_{name}" for name in roll.CLASSES["tempo"]),
        ),
        judge=RollJudge,
    ),
}  # fmt: skip


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


def kind_of(model: ModelRecipe) -> Kind:
    """What a recipe's family reads."""
    return KINDS[family_of(model.family).reads]


def configuration_of(model: ModelRecipe, training: TrainingRecipe) -> Configuration:
    """The configuration of a recipe's model.

    Raises:
        RecipeError: a setting that the family does not know, or a value that cannot be.
    """
    family = family_of(model.family)
    settings = {"dropout": model.dropout, **model.settings} if family.drops else model.settings
    made: Configuration = family.configure(model.flavour, shape=kind_of(model).shape(training), settings=settings)
    return made
