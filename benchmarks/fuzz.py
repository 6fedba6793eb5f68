"""Damaged files through the supervised readers: ``python -m benchmarks.fuzz``.

Each mutant is a file of the corpora beside this checkout, or one that music21 carries, under one to three kinds of
damage. It must come back as pieces or as a refusal; a reader that dies, hangs or lets an exception out is counted.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from benchmarks.harness import Bench, run
from benchmarks.mutants import SEEDS, mutants
from tutti.corpus.clips import Cutting
from tutti.corpus.formats import ParseOptions
from tutti.corpus.untrusted import parse_untrusted
from tutti.features.hearing import hear_untrusted

# music21 takes a hundred times as long for a file as the others.
MUTANTS = {"MIDI": 15_000, "Parquet": 4_200, "scores": 800, "sound": 2_000}
FILES_PER_CALL = 100
SEED = 20_261_121
DIED, ESCAPED, LOST = "the parser died", "exception out of a reader: ", "lost without a word"


def fuzz(kind: str, *, count: int) -> tuple[Counter[str], float]:
    """What became of so many mutants of a kind, by refusal reason, and the seconds that it took."""
    random = np.random.default_rng([SEED, *kind.encode()])
    options = ParseOptions(tempo_without_mark_qpm=100.0)
    outcomes: Counter[str] = Counter()
    damaged = list(mutants(SEEDS[kind](), count=count, random=random))
    started_s = time.perf_counter()
    for start in range(0, count, FILES_PER_CALL):
        files = damaged[start : start + FILES_PER_CALL]
        if kind == "sound":
            heard = hear_untrusted(files, cutting=Cutting())
            taken, refusals = set(heard.file_of_clip), heard.refusals
        else:
            parsed = parse_untrusted(files, options=options)
            taken, refusals = set(parsed.file_of_piece.tolist()), parsed.refusals
        refused: dict[int, str] = {}
        for file, reason, detail in refusals:
            escaped = reason == "parser_crashed" and DIED not in detail
            refused[file] = ESCAPED + detail if escaped else reason
        outcomes.update(refused[file] for file in refused if file not in taken)
        outcomes["read"] += len(taken)
        outcomes[LOST] += len(files) - len(taken | set(refused))
    return outcomes, time.perf_counter() - started_s


def measure(bench: Bench) -> None:
    """Run all kinds of mutants once and count what became of them."""
    total: Counter[str] = Counter()
    for kind, count in MUTANTS.items():
        outcomes, took_s = fuzz(kind, count=count)
        total += outcomes
        bench.count(kind, {"mutants": count, **dict(sorted(outcomes.items()))}, unit="files")
        bench.count(f"{kind} speed", {"mutants": count / took_s}, unit="files/s")
    bench.name("fuzz_mutants", sum(MUTANTS.values()))
    bench.name("fuzz_deaths", total["parser_crashed"])
    bench.name("fuzz_timeouts", total["parser_timeout"])
    bench.name("fuzz_escapes", sum(count for what, count in total.items() if what.startswith(ESCAPED)))
    bench.name("fuzz_lost", total[LOST])
    bench.note(
        "every mutant is read once, whatever --rounds says; files of one kind share a process until one kills it"
    )
    bench.note(
        "parser_crashed: the process died on the file; parser_timeout: it was silent for 10 s; both are refusals"
    )


if __name__ == "__main__":
    run("fuzz", measure)
