"""Bars as points: encoding pieces, what comes back of them, pieces between two, and directions of an attribute.

Everything that is decoded goes through the engine and its grammar, so every piece that comes of a point is music.

Sources: Roberts et al. 2018 (MusicVAE, arXiv 1803.05428) for interpolation and for attribute vectors, which are
differences of mean latents; there of a whole piece, here of a bar.

Legend: N bars, Z latent dimensions, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutti.corpus.score import Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.errors import InputError
from tutti.features import descriptors
from tutti.features.events import bars_of, encode, on_grid
from tutti.features.vocabulary import BAR, METERS, TEMPOS_QPM, TICKS_PER_QUARTER
from tutti.generation.engine import Engine, Piece
from tutti.generation.request import MAX_BARS, Request
from tutti.generation.restoring import Ends
from tutti.models.bar_vae import BarVae
from tutti.models.bar_vae.units import Units
from tutti.models.family import NOT_LEARNT
from tutti.models.precision import Precision
from tutti.models.reader import PlainSteps

Latents = NDArray[np.float32]
Attribute = Literal["density", "pitch", "calmness"]
ATTRIBUTES: tuple[Attribute, ...] = ("density", "pitch", "calmness")
SHARE = 0.25
"""Of the bars, that are its upper group, and as many that are its lower."""
ACTIVE_VARIANCE = 0.01
"""Of a dimension's posterior means over bars, from which on it says something."""
GREEDY = 1e-9
"""Probability mass that only the likeliest token is within."""


class _Planned:
    """A network whose rows take given latents."""

    def __init__(self, network: BarVae, latents: Sequence[Latents]) -> None:
        self._network, self._latents = network, [torch.from_numpy(points) for points in latents]
        self._begun: Iterator[Tensor] | None = None

    def read(self, tokens_BT: Tensor, cache: Any, *, counts_B: Tensor | None = None) -> Tensor:
        """As the network reads."""
        return self._network.read(tokens_BT, cache, counts_B=counts_B)

    def steps(self, precision: Precision = "float32") -> PlainSteps:  # noqa: ARG002
        """As the network steps."""
        return PlainSteps(self)

    def new_cache(self, *, rows: int, capacity_tokens: int, seeds: NDArray[np.uint64] | None = None) -> Any:
        """A memory; each row that is begun takes the next plan, in the order of the requests."""
        cache = self._network.new_cache(rows=rows, capacity_tokens=capacity_tokens, seeds=seeds)
        if rows and self._begun is not None:
            cache.plan([next(self._begun)])
        return cache

    def begin(self) -> None:
        """From now on every new row is a request's."""
        self._begun = iter(self._latents)


def network_of(engine: Engine) -> BarVae:
    """An engine's network.

    Raises:
        InputError: its model has no latents.
    """
    if not isinstance(engine.model, BarVae):
        raise InputError("this model has no latents", remedy="name a version of family bar_vae")
    return engine.model


def encode_bars(engine: Engine, score: Score) -> Latents:
    """The mean latent of each bar of a score; shape (N, Z).

    Raises:
        InputError: more tokens than the network reads, or no notes.
    """
    return latents_of(network_of(engine), score)


def latents_of(network: BarVae, score: Score) -> Latents:
    """As :func:`encode_bars`, by the network alone."""
    tokens = _tokens(network, score)
    units = Units.of(tokens, None, bar_token=BAR)
    with torch.inference_mode():
        _, means, _ = network.heard(tokens, units)
    return np.asarray(means[units.is_bar_U].float().cpu().numpy())


def decode_bars(engine: Engine, latents: Sequence[Latents], *, requests: Sequence[Request]) -> list[Piece]:
    """One piece for each row of latents, a bar for each point.

    Args:
        latents: of each piece, shape (N, Z).
        requests: tempo, meter, seed, temperature of each; its length becomes that of the latents.

    Raises:
        InputError: a piece without a bar, or with more than a request may have.
    """
    for points in latents:
        if not 1 <= len(points) <= MAX_BARS:
            raise InputError(f"{len(points)} bars cannot be decoded", remedy=f"give 1 to {MAX_BARS}")
    network = network_of(engine)
    planned = _Planned(network, latents)
    own = Engine(
        planned,
        digest=engine.digest,
        collections=engine.collections,
        facts=engine.facts,
        context_tokens=network.configuration.max_tokens,
        max_batch=max(len(latents), 1),
    )
    asked = [
        request.model_copy(update={"bars": len(points)}) for request, points in zip(requests, latents, strict=True)
    ]
    planned.begin()
    return own.generate(asked)


def request_like(score: Score, *, seed: int = 0) -> Request:
    """A request for a piece of a score's first tempo and meter, told by the likeliest tokens."""
    score = on_grid(score)
    meter = f"{score.meter_numerator[0]}/{score.meter_denominator[0]}" if len(score.meter_numerator) else "4/4"
    tempo = float(np.clip(score.tempo_qpm[0] if len(score.tempo_qpm) else 120.0, TEMPOS_QPM[0], 300))
    return Request(tempo=tempo, meter=meter, top_p=GREEDY, seed=seed)


def reconstruct(engine: Engine, scores: Sequence[Score]) -> list[Piece]:
    """Each score from its own latents alone, by the likeliest tokens; meter changes are not told again."""
    requests = [request_like(score) for score in scores]
    return decode_bars(engine, [encode_bars(engine, score) for score in scores], requests=requests)


def token_accuracy(engine: Engine, scores: Sequence[Score], *, blind: bool = False) -> float:
    """Share of the tokens of all bars that are the likeliest when those before them are told; NaN without scores.

    Args:
        blind: with zeros in place of latents: what the decoder knows without them.
    """
    network, hits, tokens = network_of(engine), 0, 0
    for score in scores:
        row = _tokens(network, score)
        units = Units.of(row, None, bar_token=BAR)
        with torch.inference_mode():
            heard, latents, _ = network.heard(row, units)
            latents = torch.zeros_like(latents) if blind else latents
            said = network.told(row, units, network.conducted(units, heard, latents), latents).argmax(-1)
        counts = units.is_bar_U[units.of_BT][:, :-1] & (row[:, 1:] != NOT_LEARNT)
        hits += int(((said[:, :-1] == row[:, 1:]) & counts).sum())
        tokens += int(counts.sum())
    return hits / tokens if tokens else float("nan")


def note_f1(asked: Score, made: Score) -> float:
    """Harmonic mean of precision and recall of notes by onset, pitch and program on the grid; 0 where one is empty."""

    def notes(score: Score) -> set[tuple[int, int, int]]:
        held = on_grid(score).notes
        return set(zip(held.onset_ticks.tolist(), held.pitch.tolist(), held.program.tolist(), strict=True))

    left, right = notes(asked), notes(made)
    return 2 * len(left & right) / (len(left) + len(right)) if left and right else 0.0


def divergence(engine: Engine, scores: Sequence[Score]) -> NDArray[np.float64]:
    """How far each bar's posterior is from its prior, in nats, dimension by dimension; shape (N, Z) over all scores."""
    network = network_of(engine)
    found = [np.zeros((0, network.configuration.latent))]
    for score in scores:
        with torch.inference_mode():
            found.append(network(_tokens(network, score))[1].double().cpu().numpy())
    return np.concatenate(found)


def active_units(engine: Engine, scores: Sequence[Score]) -> int:
    """Dimensions whose posterior mean varies from bar to bar by more than 0.01 (Burda et al. 2015, 1509.00519)."""
    if not scores:
        return 0
    means = np.concatenate([encode_bars(engine, score) for score in scores])
    return int(np.count_nonzero(means.var(axis=0) > ACTIVE_VARIANCE))


def readings(engine: Engine, scores: Sequence[Score]) -> dict[str, float]:
    """What comes back of scores, by name; NaN without scores.

    Returns:
        ``token_accuracy_told`` and ``token_accuracy_blind``, see :func:`token_accuracy`; ``note_f1_sampled``, mean of
        :func:`note_f1` over pieces that were made from latents alone, and ``note_f1_drawn``, the same of pieces whose
        latents were drawn from the prior; ``kl_nats_per_bar`` and ``active_units``.
    """
    made, drawn = reconstruct(engine, scores), unconditioned(engine, scores)
    apart = divergence(engine, scores)

    def mean_f1(pieces: Sequence[Piece]) -> float:
        found = [note_f1(score, piece.score) for score, piece in zip(scores, pieces, strict=True)]
        return float(np.mean(found)) if found else float("nan")

    return {
        "token_accuracy_told": token_accuracy(engine, scores),
        "token_accuracy_blind": token_accuracy(engine, scores, blind=True),
        "note_f1_sampled": mean_f1(made),
        "note_f1_drawn": mean_f1(drawn),
        "kl_nats_per_bar": float(apart.sum(axis=1).mean()) if len(apart) else float("nan"),
        "active_units": float(active_units(engine, scores)) if scores else float("nan"),
    }


def unconditioned(engine: Engine, scores: Sequence[Score]) -> list[Piece]:
    """As many pieces, each as long as a score and in its tempo and meter, of which the model knows nothing else."""
    lengths = [len(bars_of(on_grid(score)).start_ticks) for score in scores]
    asked = [request_like(score, seed=number) for number, score in enumerate(scores)]
    return engine.generate([
        request.model_copy(update={"bars": bars}) for request, bars in zip(asked, lengths, strict=True)
    ])  # fmt: skip


def interpolate(engine: Engine, first: Score, last: Score, *, steps: int, seed: int = 0) -> list[Piece]:
    """Pieces on the straight line from one score to another, bar by bar, both ends among them.

    They have as many bars as the shorter one, the first one's meter, and tempos between the two.

    Raises:
        InputError: fewer than two steps.
    """
    if steps < 2:
        raise InputError(f"{steps} steps have no two ends", remedy="ask for 2 or more")
    ends = [encode_bars(engine, score) for score in (first, last)]
    bars = min(len(points) for points in ends)
    asked = [request_like(score, seed=seed) for score in (first, last)]
    tempos = np.linspace(cast(float, asked[0].tempo), cast(float, asked[1].tempo), steps)
    shares = np.linspace(0, 1, steps, dtype=np.float32)
    latents = [(1 - share) * ends[0][:bars] + share * ends[1][:bars] for share in shares]
    requests = [asked[0].model_copy(update={"tempo": float(tempo)}) for tempo in tempos]
    return decode_bars(engine, latents, requests=requests)


def between(network: BarVae, ends: Ends, *, share: float) -> tuple[Latents, Request]:
    """Latents of the bars of a piece between two, and a request for its tempo and meter.

    It has as many bars as the shorter one and the meter of the first.

    Args:
        share: of the second one, 0 to 1.

    Raises:
        InputError: more tokens than the network reads, or no notes.
    """
    points = [latents_of(network, score) for score in (ends.first, ends.second)]
    bars = min(len(each) for each in points)
    asked = [request_like(score) for score in (ends.first, ends.second)]
    tempos = [cast(float, request.tempo) for request in asked]
    weight = np.float32(share)
    latents = (1 - weight) * points[0][:bars] + weight * points[1][:bars]
    return latents, asked[0].model_copy(update={"tempo": (1 - share) * tempos[0] + share * tempos[1]})


def attribute_direction(engine: Engine, scores: Sequence[Score], attribute: Attribute) -> Latents:
    """The way from bars with little of an attribute to bars with much of it; shape (Z,).

    The difference of the mean latents of the upper and the lower quarter of all bars that hold notes.

    Raises:
        InputError: fewer than four such bars.
    """
    points, values = [], []
    for score in scores:
        latents = encode_bars(engine, score)
        known = attribute_of_bars(score, attribute)[: len(latents)]
        points.append(latents[: len(known)])
        values.append(known)
    of_bars = np.concatenate(values) if values else np.zeros(0)
    heard = np.flatnonzero(~np.isnan(of_bars))
    size = int(len(heard) * SHARE)
    if not size:
        raise InputError(f"{len(heard)} bars with notes have no quarters", remedy="give more scores")
    order = heard[np.argsort(of_bars[heard], kind="stable")]
    latents = np.concatenate(points)
    return np.asarray(latents[order[-size:]].mean(axis=0) - latents[order[:size]].mean(axis=0))


def shift(latents: Latents, direction: Latents, *, amount: float) -> Latents:
    """Every bar moved along a direction; 1 is from the lower group's mean to the upper's."""
    return latents + np.float32(amount) * direction


def moved(engine: Engine, score: Score, shifts: Sequence[tuple[Latents, float]], *, seed: int = 0) -> Piece:
    """A score with each of its bars moved.

    Args:
        shifts: directions and how far along each, see :func:`shift`.
    """
    points = encode_bars(engine, score)
    for direction, amount in shifts:
        points = shift(points, direction, amount=amount)
    return decode_bars(engine, [points], requests=[request_like(score, seed=seed)])[0]


def attribute_effect(
    engine: Engine, scores: Sequence[Score], direction: Latents, attribute: Attribute, *, amount: float = 1.0
) -> float:
    """How much more of an attribute scores have that are moved forward than the same moved backward, mean over scores.

    In the attribute's unit: notes a quarter, semitones, or the estimate of calmness; NaN where nothing is left to hear.
    """
    points = [encode_bars(engine, score) for score in scores]
    ways = [shift(each, direction, amount=way * amount) for way in (-1, 1) for each in points]
    made = decode_bars(engine, ways, requests=[request_like(score) for score in scores] * 2)
    attained = [attribute_of_bars(piece.score, attribute) for piece in made]
    means = np.array([np.nanmean(each) if np.isfinite(each).any() else np.nan for each in attained])
    changes = means[len(scores) :] - means[: len(scores)]
    return float(np.nanmean(changes)) if np.isfinite(changes).any() else float("nan")


def attribute_of_bars(score: Score, attribute: Attribute) -> NDArray[np.float64]:
    """An attribute of each bar: notes a quarter, mean pitch, or how calm it is; NaN in bars without (pitched) notes.

    Calmness is the estimate of arousal turned round, see :mod:`tutti.features.mood`.
    """
    score = on_grid(score)
    lines = bars_of(score)
    notes, bars = score.notes, len(lines.start_ticks)
    bar = np.searchsorted(lines.start_ticks, notes.onset_ticks, side="right") - 1
    count = np.bincount(bar, minlength=bars)
    if attribute == "density":
        quarters = np.array([4 * above / below for above, below in METERS])[lines.meter]
        return np.where(count > 0, count / quarters, np.nan)
    if attribute == "pitch":
        pitched = notes.program < 128
        counted = np.bincount(bar[pitched], minlength=bars)
        sums = np.bincount(bar[pitched], weights=notes.pitch[pitched], minlength=bars)
        return np.where(counted > 0, sums / np.maximum(counted, 1), np.nan)
    tempo_at = np.searchsorted(score.tempo_ticks, lines.start_ticks, side="right") - 1
    cut = ScoreBatch.of([
        Score.of(
            replace(held := notes.take(bar == number), onset_ticks=held.onset_ticks - start),
            ticks_per_quarter=TICKS_PER_QUARTER,
            tempos=[(0, float(score.tempo_qpm[max(tempo_at[number], 0)]))],
        )
        for number, start in enumerate(lines.start_ticks.tolist())
    ])  # fmt: skip
    arousal = np.asarray(descriptors.describe(cut)["arousal"].to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.where(count > 0, -arousal, np.nan)


def _tokens(network: BarVae, score: Score) -> Tensor:
    """A score without its end, as one row; shape (1, T)."""
    if not len(score.notes):
        raise InputError("a score without notes has no latents")
    tokens = encode(on_grid(score))[:-1].astype(np.int64)
    if len(tokens) > network.configuration.max_tokens:
        raise InputError(
            f"a score of {len(tokens)} tokens is longer than the {network.configuration.max_tokens} that are read",
            remedy="give a shorter one",
        )
    return torch.from_numpy(tokens)[None].to(network.embedding.weight.device)
