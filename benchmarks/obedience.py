"""Whether hard controls hold, measured on what comes out: ``python -m benchmarks.obedience``.

An untrained model, which wants nothing that music wants, is asked for ``--requests`` pieces under random controls
(drawn by hypothesis; what contradicts itself is drawn again), and every control is measured on the decoded score by
rules of their own (``tests/obedience.py``). Then it makes ``--sequences`` pieces of a bar, of which every token must
decode.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.harness import Bench, run
from tests.obedience import faults, requests
from tutti.features.vocabulary import END, EVENTS
from tutti.generation.engine import Engine
from tutti.generation.request import Request
from tutti.models.decoder import DECODER, Decoder

ROWS = 64
CONTEXT_TOKENS = 256
CONTROLS = ("bars", "tempo", "meter", "key", "scale", "instruments", "pitch_range", "polyphony", "chords")


def measure(bench: Bench) -> None:
    """Ask, measure, tell."""
    wanted, sequences = int(bench.settings["requests"]), int(bench.settings["sequences"])
    engine = untrained()
    asked = drawn(wanted)
    found: Counter[str] = Counter()
    disobeyed = tokens = 0
    for start in range(0, len(asked), ROWS):
        for piece in engine.generate(asked[start : start + ROWS]):
            broken = faults(piece)
            disobeyed += bool(broken)
            tokens += len(piece.tokens)
            found.update(fault.partition(":")[0] for fault in broken)
    states = {name: sum(getattr(each, name) not in (None, ()) for each in asked) for name in CONTROLS}
    bench.count("requests that state", {"all": len(asked), **states}, unit="requests")
    bench.count("pieces that break a hard control", {"any": disobeyed, **found}, unit="pieces")
    bench.record("tokens", "of these pieces", tokens, unit="tokens")
    bench.name("requests_disobeyed", disobeyed)

    refused = unended = 0
    for start in range(0, sequences, ROWS):
        asked = [Request(bars=1, seed=seed) for seed in range(start, min(start + ROWS, sequences))]
        for piece in engine.generate(asked):
            refused += piece.refused_tokens
            unended += int(piece.tokens[-1] != END) + int(not len(piece.score.notes))
    bench.count(
        f"{sequences:,} sequences of an untrained model",
        {"tokens that do not decode": refused, "without an end or a note": unended},
        unit="tokens, sequences",
    )
    bench.name("refused_tokens", refused)
    bench.note(f"decoder nano, untrained, seed 0, {ROWS} rows, a context of {CONTEXT_TOKENS} tokens, top_p 0.95")


def untrained() -> Engine:
    """An engine whose model has learnt nothing."""
    torch.manual_seed(0)
    configuration = DECODER.configure(
        "nano", shape={"vocabulary_size": len(EVENTS), "max_tokens": CONTEXT_TOKENS}, settings={"dropout": 0.0}
    )
    return Engine(
        Decoder(configuration), digest="0", collections=(), facts={}, context_tokens=CONTEXT_TOKENS, max_batch=ROWS
    )


def drawn(count: int) -> Sequence[Request]:
    """So many requests, the same ones every time."""
    found: list[Request] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def draw(request: Request) -> None:
        found.append(request)

    draw()
    return found[:count]


if __name__ == "__main__":
    run(
        "obedience",
        measure,
        settings={"requests": (1000, "random requests"), "sequences": (10_000, "sequences that must decode")},
    )
