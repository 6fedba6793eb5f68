"""Phrases of piano-roll to pieces: requests through a family that makes rolls.

A roll is four bars of 4/4, made at once from noise and two classes. A piece is as many as its length asks, of one
noise for what they share and fresh noise for each of their bars, transposed to one key and cut at the last bar. A
model that read its rolls in C major or A minor knows no other keys; where none is asked, its pieces lie as many
semitones from there as is drawn.

What holds by construction: length, tempo, key (transposed, and what is foreign to the scale moved to its neighbour)
and instruments. Mood and the class of the tempo steer. ``temperature`` is how far the noise reaches. Density,
collection, ``top_p``, scales, pitch range, polyphony, chords and meters other than 4/4 are of no meaning to such a
model, nor has it a place for material to continue: a request that asks for them is refused.

Legend: R rolls, M marks, B bars, S steps, P pitches, K tracks; G groups, N moments, Z noise of the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutti import seeding
from tutti.corpus.score import DRUM_PROGRAM, Score
from tutti.errors import RecipeError
from tutti.features import roll, tonality
from tutti.features.controls import tempo_class
from tutti.features.events import encode
from tutti.features.vocabulary import ANY, INSTRUMENTS, instrument_of
from tutti.generation.choosing import chosen
from tutti.generation.composing import Gathered
from tutti.generation.controls import controls_of
from tutti.generation.length import bars_of_length
from tutti.generation.piece import Piece
from tutti.generation.refusals import METER, refuse_controls, refuse_material, refuse_meters, refuse_start
from tutti.generation.request import Request
from tutti.models import bundle as bundles
from tutti.models import families
from tutti.models.precision import Precision
from tutti.models.roll_gan import RollConfiguration, latent_noise
from tutti.units import Key

USUAL_QPM = 96.0
"""Where no tempo is asked; then the class of the tempo is not stated either."""
_MODEL = "a model of piano-rolls"
_FOREIGN = (
    "density", "difficulty", "valence", "arousal", "collection", "guidance", "top_p", "scale", "pitch_range",
    "polyphony", "chords", "form",
)  # fmt: skip
_TOGETHER = 32
_PROGRAMS_OF_FAMILY = 8
_DRUMS = INSTRUMENTS[-1]
_PITCHED = np.arange(len(roll.TRACKS)) != roll.DRUMS
_MOVES = range(-5, 7)
"""Semitones that lead to every key."""


class RollComposer:
    """A generator of rolls, ready to compose.

    Args:
        generator: in evaluation mode, on its device: noise and classes to ``roll_RMBSPK``.
        configuration: of it.
        digest: hash of the model's bundle.
        facts: what is known of its making; ``data`` may tell ``track_programs`` and ``programs``, and the recipe of
            ``training`` whether rolls were read in their home key.
    """

    collections: tuple[str, ...] = ()

    def __init__(
        self, generator: nn.Module, *, configuration: RollConfiguration, digest: str, facts: Mapping[str, Any]
    ) -> None:
        self._generator, self._configuration = generator, configuration
        data = facts.get("data", {})
        self._usual = tuple(int(program) for program in data.get("track_programs", roll.PROGRAMS))
        self._known = frozenset(int(program) for program in data.get("programs", range(DRUM_PROGRAM + 1)))
        self._at_home = bool(facts.get("training", {}).get("recipe", {}).get("home_key", False))
        self.digest, self.facts = digest, facts

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "cpu",
        max_batch: int = 32,  # noqa: ARG003
        cache_bytes: int = 0,  # noqa: ARG003
        precision: Precision = "auto",  # noqa: ARG003
    ) -> RollComposer:
        """A composer from a bundle folder.

        Raises:
            MissingError: a file of the bundle is not there.
            IntegrityError: it is damaged.
        """
        bundle = bundles.load(folder)
        family = families.family_of(bundle.family)
        configuration = family.read(bundle.configuration)
        generator = families.network_of(bundle.family, configuration, name=family.maker)
        generator.load_state_dict(dict(bundle.weights))
        return cls(generator.eval().to(device), configuration=configuration, digest=bundle.digest(), facts=bundle.facts)

    def check(self, request: Request, material: Score | None = None) -> None:
        """Refuse a request that this model cannot take, before anything runs.

        Raises:
            RecipeError: a control that rolls cannot hold, or drums alone of a model that never heard any.
        """
        refuse_controls(request, names=_FOREIGN, model=_MODEL)
        refuse_meters(request, model=_MODEL)
        refuse_start(request, model=_MODEL)
        refuse_material([material], model=_MODEL)
        if request.instruments == (_DRUMS,) and DRUM_PROGRAM not in self._known:
            raise RecipeError("this model has never heard drums", remedy="ask for other instruments, or for none")

    def open(self) -> Gathered:
        """Requests under way, none yet."""
        return Gathered(self._made, check=self.check, model=_MODEL, max_batch=_TOGETHER)

    def generate(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        """One piece a request, in their order.

        Args:
            materials: None for each request: rolls continue nothing.
            cancelled: asked before each request with its number; True gives that request up, and its piece is empty.

        Raises:
            RecipeError: a request that this model cannot take; nothing ran.
        """
        refuse_material(materials, model=_MODEL)
        for request in requests:
            self.check(request)
        return chosen(self._made, requests, materials=materials, cancelled=cancelled)

    def _made(
        self,
        requests: Sequence[Request],
        *,
        materials: Sequence[Score | None] | None = None,  # noqa: ARG002
        cancelled: Callable[[int], bool] | None = None,
    ) -> list[Piece]:
        gone = cancelled or (lambda _: False)
        return [self._piece(request, cancelled=gone(number)) for number, request in enumerate(requests)]

    def _piece(self, request: Request, *, cancelled: bool) -> Piece:
        tempo_qpm = request.tempo or USUAL_QPM
        bars = 0 if cancelled else request.bars or bars_of_length(request.length_s, tempo_qpm=tempo_qpm, meter=METER)
        marks = self._phrases(request, number=-(-bars // roll.BARS))
        marks = in_one_key(marks, key=request.tonality)
        if self._at_home and request.tonality is None:
            marks[..., _PITCHED] = _shifted(marks[..., _PITCHED], _drawn_semitones(request.seed))
        playing = programs(request.instruments, usual=self._usual, known=self._known)
        silent = [track for track, program in enumerate(playing) if program is None]
        marks[..., silent] = False
        # What is left of the last phrase falls silent.
        whole = np.arange(len(marks) * roll.BARS).reshape(-1, roll.BARS) < bars
        marks &= whole[:, None, :, None, None, None]
        score = roll.score_of(
            marks, tempo_qpm=tempo_qpm,
            programs=[own if now is None else now for own, now in zip(self._usual, playing, strict=True)],
        )  # fmt: skip
        tokens = encode(score, controls_of(request, collections=()))
        return Piece(request=request, score=score, tokens=tokens, refused_tokens=0, cancelled=cancelled)

    @torch.inference_mode()
    def _phrases(self, request: Request, *, number: int) -> NDArray[np.bool_]:
        """So many rolls; always the same of a request, whatever else is asked beside it."""
        if not number:
            return np.zeros((1, *roll.SHAPE), dtype=bool)
        said = {"mood": request.mood or ANY, "tempo": tempo_class(request.tempo) if request.tempo else ANY}
        classes_C = torch.tensor([roll.CLASSES[kind].index(said[kind]) for kind in roll.CLASSES])
        latent_RGNZ = torch.cat([self._noise(request.seed, f"phrase {phrase}") for phrase in range(number)])
        latent_RGNZ[:, :, :1] = self._noise(request.seed, "piece")[:, :, :1]
        device = next(self._generator.parameters()).device
        out: Tensor = self._generator(
            request.temperature * latent_RGNZ.to(device), classes_C.expand(number, -1).to(device)
        )
        made: NDArray[np.bool_] = (out > 0.5).cpu().numpy()
        return made

    def _noise(self, seed: int, name: str) -> Tensor:
        return latent_noise(1, configuration=self._configuration, seed=seeding.derive(seed, "generation", name))


def programs(instruments: Sequence[str], *, usual: Sequence[int], known: frozenset[int]) -> list[int | None]:
    """General MIDI program of each track; None where it may not play.

    A track keeps its usual program where that may play. The others get the families that were asked, in turn: of each
    a program that the model's data has where there is one. Drums that the data never had stay silent: nobody taught
    them.

    Args:
        instruments: families that may play; empty: any.
        usual: program of each track in the data.
        known: programs of the data.
    """
    has_drums = DRUM_PROGRAM in known
    if not instruments:
        return [None if track == roll.DRUMS and not has_drums else program for track, program in enumerate(usual)]
    pitched = [name for name in instruments if name != _DRUMS]
    idle = [name for name in pitched if not any(instrument_of(program) == name for program in usual)]
    turns = iter(range(len(usual)))
    playing = list[int | None]()
    for track, program in enumerate(usual):
        if track == roll.DRUMS:
            playing.append(program if _DRUMS in instruments and has_drums else None)
        elif instrument_of(program) in pitched and not (idle and _seen(usual, track)):
            playing.append(program)
        elif not pitched:
            playing.append(None)
        else:
            asked = idle or pitched
            playing.append(_program_of(asked[next(turns) % len(asked)], known=known))
    return playing


def _seen(usual: Sequence[int], track: int) -> bool:
    """Whether another track of the same family came before."""
    return any(
        instrument_of(usual[before]) == instrument_of(usual[track]) for before in range(track) if before != roll.DRUMS
    )


def _program_of(family: str, *, known: frozenset[int]) -> int:
    first = INSTRUMENTS.index(family) * _PROGRAMS_OF_FAMILY
    own = range(first, first + _PROGRAMS_OF_FAMILY)
    return next((program for program in own if program in known), first)


def in_one_key(roll_RMBSPK: NDArray[np.bool_], *, key: Key | None) -> NDArray[np.bool_]:
    """Rolls of one piece, each transposed to where it fits the piece's key best, by six semitones at most.

    Args:
        roll_RMBSPK: in their order.
        key: if it is asked for, what does not belong to its scale goes to the semitone below, or above where that does
            not either. Otherwise the key is that of all rolls together, and foreign notes stay.
    """
    sounding_RP = roll_RMBSPK[:, roll.SOUNDS][..., _PITCHED].sum(axis=(1, 2, 4))
    classes = (np.arange(roll.PITCHES) + roll.LOWEST_PITCH) % 12
    weight_R12 = np.stack([sounding_RP[:, classes == name].sum(axis=1) for name in range(12)], axis=1).astype(float)
    fit_R24 = tonality.fit_of_classes(weight_R12)
    home = key or tonality.KEYS[int(tonality.fit_of_classes(weight_R12.sum(axis=0, keepdims=True))[0].argmax())]
    # The smallest of equals.
    moves = sorted(_MOVES, key=abs)
    columns = [tonality.KEYS.index(home.transposed(-move)) for move in moves]
    moved = roll_RMBSPK.copy()
    for phrase, column in enumerate(fit_R24[:, columns].argmax(axis=1).tolist()):
        moved[phrase][..., _PITCHED] = _shifted(roll_RMBSPK[phrase][..., _PITCHED], moves[column])
    if key is not None:
        moved[..., _PITCHED] = _within(moved[..., _PITCHED], key=key, classes=classes)
    return moved


def _drawn_semitones(seed: int) -> int:
    random = np.random.default_rng(seeding.derive(seed, "generation", "key"))
    return int(random.integers(_MOVES.start, _MOVES.stop))


def _shifted(marks: NDArray[np.bool_], semitones: int) -> NDArray[np.bool_]:
    """Every pitch moved, the last axis but one; what leaves the range comes in again an octave from there."""
    out = np.zeros_like(marks)
    for pitch in range(roll.PITCHES):
        to = pitch + semitones
        to += 12 * (to < 0) - 12 * (to >= roll.PITCHES)
        out[..., to, :] |= marks[..., pitch, :]
    return out


def _within(marks: NDArray[np.bool_], *, key: Key, classes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Nothing outside a scale; pitches are the last axis but one."""
    out = marks.copy()
    for pitch, name in enumerate(classes.tolist()):
        if name in key.pitch_classes:
            continue
        below = pitch > 0 and (name - 1) % 12 in key.pitch_classes
        out[..., pitch - 1 if below else pitch + 1, :] |= out[..., pitch, :]
        out[..., pitch, :] = False
    return out
