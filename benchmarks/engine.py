"""The generation engine beside Hugging Face's ``generate``: ``python -m benchmarks.engine``.

Both hold the same weights, fresh ones of flavour ``small`` (5 M parameters), exported by ``tutti models export --format
llama``. Both begin each sequence with the same nine tokens of controls and draw with the same temperature and top-p;
the engine also keeps the grammar and every request's own limits. Tokens are counted as they are drawn, the beginning
left out and its reading left in.

- **engine_vs_hf_64**, **engine_vs_hf_1**: tokens a second at 64 and at one sequence of ``--tokens`` each, to HF's.
- **notes_s**: notes a second of the same run of 64.
- **mixed_lengths_share**: tokens a second where lengths are drawn from 64 to 1,024, to those of equal lengths of the
  same mean; 64 requests are under way at any time.
- **first_note_ms**: from a request to an idle engine to its first note; the median.
- **memory_growth_mib**: of the process, from the 1,000th of ``--requests`` pieces of a bar to the last that has full
  company.

Under ``OMP_NUM_THREADS=1`` everything is timed by the processor's seconds.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.harness import Bench, run
from tutti import telemetry
from tutti.features.vocabulary import END, EVENTS, PAD, START
from tutti.generation.controls import controls_of
from tutti.generation.engine import Engine
from tutti.generation.piece import NoteMade, PieceMade
from tutti.generation.request import MAX_BARS, Request
from tutti.generation.session import Session
from tutti.models.bundle import Bundle
from tutti.models.decoder import DECODER, Decoder
from tutti.models.decoder.llama import llama_files
from tutti.models.precision import Precision
from tutti.models.recurrent import RECURRENT, Recurrent
from tutti.units import PITCH_CLASSES

ROWS = 64
SHORTEST, LONGEST = 64, 1024
CONTEXT_TOKENS = LONGEST + 16
SEED = 20261128
FIRST_NOTES = 21
SETTLED = 1000
MIB = 1 << 20


def measure(bench: Bench) -> None:
    """Every subject, in turn."""
    telemetry.quiet_libraries()
    torch.manual_seed(SEED)
    tokens = int(bench.settings["tokens"])
    shape = {"vocabulary_size": len(EVENTS), "max_tokens": CONTEXT_TOKENS}
    configuration = DECODER.configure("small", shape=shape)
    model = Decoder(configuration).eval()
    engine = _engine(model)
    llama = _llama(model)
    threads = torch.get_num_threads()
    bench.note(
        f"decoder of {configuration.parameters:,} parameters; HF in float32, the engine as it chooses by itself; "
        f"threads: {threads}"
    )
    if threads == 1:
        bench.note("seconds are those of the processor, not of the clock on the wall")
    for rows in (ROWS, 1):
        _beside_hf(bench, engine, llama, rows=rows, tokens=tokens)
    _beside_hf(bench, _engine(model, "float32"), llama, rows=ROWS, tokens=tokens, named="float32, ", key="float32")
    _notes(bench, engine, tokens=tokens)
    grouped = Decoder(DECODER.configure("small", shape=shape, settings={"key_value_heads": 2})).eval()
    _beside_hf(
        bench, _engine(grouped), _llama(grouped), rows=ROWS, tokens=tokens,
        named="2 heads of keys and values, ", key="grouped",
    )  # fmt: skip
    _recurrent(bench, tokens=tokens)
    _mixed(bench, engine, steps=int(bench.settings["steps"]))
    _first_note(bench, engine)
    _memory(bench, requests=int(bench.settings["requests"]))


def _clock() -> float:
    """Seconds; of the processor alone where one thread does everything: other work counts little then."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _engine(model: Any, precision: Precision = "auto") -> Engine:
    return Engine(
        model, digest="", collections=(), facts={}, context_tokens=CONTEXT_TOKENS, max_batch=ROWS,
        cache_bytes=2 << 30, precision=precision,
    )  # fmt: skip


def _llama(model: Decoder) -> Any:
    """The same weights behind Hugging Face's Llama."""
    import transformers

    bundle = Bundle(
        family="decoder", flavour="small", configuration=model.configuration.to_dict(), weights=model.state_dict(),
        vocabulary=EVENTS.names, collections=(), facts={},
    )  # fmt: skip
    names = {name: EVENTS.names[token] for name, token in (("start", START), ("end", END), ("pad", PAD))}
    with tempfile.TemporaryDirectory() as folder:
        for name, data in llama_files(bundle, **names).items():
            (Path(folder) / name).write_bytes(data)
        llama = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    probe = torch.randint(len(EVENTS), (2, 40))
    with torch.inference_mode():
        torch.testing.assert_close(llama(probe).logits, model(probe), rtol=1e-4, atol=1e-4)
    return llama


def _requests(count: int, *, seed: int = 0) -> list[Request]:
    """Requests that go on as long as they are let."""
    return [Request(bars=MAX_BARS, seed=seed + number) for number in range(count)]


def _begun(session: Session, rows: int) -> list[int]:
    return [session.submit(request) for request in _requests(rows)]


def _ended(session: Session, numbers: Sequence[int]) -> list[PieceMade]:
    for number in numbers:
        session.cancel(number)
    return [event for event in session.step() if isinstance(event, PieceMade)]


def _beside_hf(
    bench: Bench, engine: Engine, llama: Any, *, rows: int, tokens: int, named: str = "", key: str = ""
) -> None:
    head = torch.tensor([[START, *controls_of(Request(), collections=()).tokens().tolist()]]).expand(rows, -1)

    session = engine.open()

    def ours() -> None:
        numbers = _begun(session, rows)
        for _ in range(tokens):
            session.step()
        assert len(_ended(session, numbers)) == rows

    def theirs() -> None:
        with torch.inference_mode():
            made = llama.generate(
                input_ids=head, attention_mask=torch.ones_like(head), do_sample=True, temperature=1.0, top_p=0.95,
                top_k=0, min_new_tokens=tokens, max_new_tokens=tokens,
            )  # fmt: skip
        assert made.shape[1] == head.shape[1] + tokens

    subject = f"{named}{rows} sequence{'s' if rows > 1 else ''} of {tokens} tokens"
    bench.race(subject, {"HF generate": theirs, "engine": ours}, amount=rows * tokens, unit="tokens", clock=_clock)
    figures = bench.figures[subject]
    bench.name(
        "_".join(filter(None, ("engine_vs_hf", str(rows), key))),
        figures["engine"].median / figures["HF generate"].median,
    )


def _notes(bench: Bench, engine: Engine, *, tokens: int) -> None:
    found, session = [], engine.open()
    for _ in range(bench.rounds):
        numbers = _begun(session, ROWS)
        began_s = _clock()
        for _ in range(tokens):
            session.step()
        took_s = _clock() - began_s
        pieces = [event.piece for event in _ended(session, numbers)]
        found.append(sum(len(piece.score.notes) for piece in pieces) / took_s)
        refused = sum(piece.refused_tokens for piece in pieces)
        assert not refused, f"{refused} tokens could not be decoded"
    bench.rates(f"notes of {ROWS} sequences", {"engine": found}, unit="notes/s")
    bench.name("notes_s", statistics.median(found))


def _recurrent(bench: Bench, *, tokens: int) -> None:
    configuration = RECURRENT.configure("small", shape={"vocabulary_size": len(EVENTS)})
    session = _engine(Recurrent(configuration).eval()).open()
    rates = {}
    for rows in (ROWS, 1):
        found = []
        for _ in range(bench.rounds):
            numbers = _begun(session, rows)
            began_s = _clock()
            for _ in range(tokens):
                session.step()
            found.append(rows * tokens / (_clock() - began_s))
            _ended(session, numbers)
        rates[f"recurrent small, {rows}"] = found
    bench.rates("sequences of another family", rates, unit="tokens/s")


def _mixed(bench: Bench, engine: Engine, *, steps: int) -> None:
    random = np.random.default_rng(SEED)
    drawn = random.integers(SHORTEST, LONGEST + 1, size=8 * ROWS)
    lengths = {"equal": np.full(8 * ROWS, (SHORTEST + LONGEST) // 2), "mixed": drawn}
    rates: dict[str, list[float]] = {name: [] for name in lengths}
    for _ in range(bench.rounds):
        for name, wanted in lengths.items():
            rates[name].append(_kept_full(engine, wanted.tolist(), steps=steps))
    bench.rates(f"{ROWS} at any time, over {steps} steps", rates, unit="tokens/s")
    bench.name("mixed_lengths_share", statistics.median(rates["mixed"]) / statistics.median(rates["equal"]))


def _kept_full(engine: Engine, lengths: Sequence[int], *, steps: int) -> float:
    """Tokens a second where a request of the next length joins as soon as one is over."""
    session = engine.open()
    coming = iter(zip(_requests(len(lengths)), lengths, strict=True))
    ends: dict[int, list[int]] = {}

    def join(step: int) -> None:
        request, length = next(coming)
        ends.setdefault(step + length, []).append(session.submit(request))

    for _ in range(ROWS):
        join(0)
    drawn = 0
    began_s = _clock()
    for step in range(1, steps + 1):
        session.step()
        drawn += session.under_way
        for number in ends.pop(step, []):
            session.cancel(number)
            join(step)
    return drawn / (_clock() - began_s)


def _first_note(bench: Bench, engine: Engine) -> None:
    session = engine.open()
    found_ms = []
    # No two of them begin alike: what one has read in is no help to the next.
    keys = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in PITCH_CLASSES]
    for request in (Request(bars=MAX_BARS, key=key) for key in keys[:FIRST_NOTES]):
        began_s = _clock()
        number = session.submit(request, told=True)
        while not any(isinstance(event, NoteMade) for event in session.step()):
            pass
        found_ms.append(1000 * (_clock() - began_s))
        _ended(session, [number])
    bench.rates("from a request to its first note", {"idle engine": found_ms}, unit="ms")
    bench.name("first_note_ms", statistics.median(found_ms))


def _memory(bench: Bench, *, requests: int) -> None:
    """Of a network so small that the requests and not the weights are what there is to see."""
    shape = {"vocabulary_size": len(EVENTS), "max_tokens": 512}
    engine = _engine(Decoder(DECODER.configure("nano", shape=shape)).eval())
    session = engine.open()
    process = psutil.Process()
    done, refused, held_mib = 0, 0, {}
    for number in range(requests):
        session.submit(Request(bars=1, tempo=120, meter="2/4", seed=number))
    while not session.idle:
        for event in session.step():
            if isinstance(event, PieceMade):
                done += 1
                refused += event.piece.refused_tokens
                # The last ones step in ever smaller company, which is not what is asked here.
                if done in (min(SETTLED, requests - ROWS), requests - ROWS, requests):
                    gc.collect()
                    held_mib[f"after {done}"] = process.memory_info().rss / MIB
    assert done == requests
    bench.count(f"memory of the process, {requests} requests", held_mib, unit="MiB")
    bench.count("tokens that could not be decoded", {f"{requests} untrained pieces": float(refused)}, unit="tokens")
    settled, full, _ = held_mib.values()
    bench.name("memory_growth_mib", full - settled)


if __name__ == "__main__":
    run(
        "engine",
        measure,
        settings={
            "tokens": (256, "tokens of each sequence beside HF"),
            "steps": (1500, "steps with 64 requests under way at any time"),
            "requests": (10_000, "pieces for the figure of memory"),
        },
    )
