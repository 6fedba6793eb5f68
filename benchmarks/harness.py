"""What every benchmark shares: contenders take turns, medians with their spread, a table for people, JSON for programs.

Contenders of one race run in turns within one process, so a machine that slows down slows all of them; figures of two
runs on two machines are not comparable, ratios within one are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

DEFAULT_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: the median of its rounds, the lowest and the highest."""

    median: float
    low: float
    high: float
    unit: str
    rounds: int


@dataclass
class Bench:
    """The figures of one benchmark, in the order in which they were taken.

    Args:
        rounds: how often each contender of a race runs; one more run before them warms up.
        settings: numbers that this benchmark asks of the command line beyond what all do.
        arguments: all of the command line.
    """

    rounds: int = DEFAULT_ROUNDS
    settings: Mapping[str, float] = field(default_factory=dict)
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    named: dict[str, float] = field(default_factory=dict)
    arguments: argparse.Namespace = field(default_factory=argparse.Namespace)

    def race(
        self,
        subject: str,
        contenders: Mapping[str, Callable[[], object]],
        *,
        amount: float,
        unit: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Time ``contenders``, each of which does the same ``amount`` of work, in turns; figures are ``unit``/s.

        Args:
            clock: seconds; ``time.process_time`` where every contender is one thread and the machine has other work.
        """
        for action in contenders.values():
            action()
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(self.rounds):
            for name, action in contenders.items():
                started_s = clock()
                action()
                rates[name].append(amount / (clock() - started_s))
        self.rates(subject, rates, unit=f"{unit}/s")

    def rates(self, subject: str, values: Mapping[str, Sequence[float]], *, unit: str) -> None:
        """Record quantities that were measured over several rounds."""
        self.figures[subject] = {
            name: Figure(statistics.median(found), min(found), max(found), unit, len(found))
            for name, found in values.items()
        }

    def count(self, subject: str, values: Mapping[str, float], *, unit: str) -> None:
        """Record quantities that do not change from run to run."""
        self.figures[subject] = {name: Figure(value, value, value, unit, 1) for name, value in values.items()}

    def record(self, subject: str, name: str, value: float, *, unit: str) -> None:
        """Record one quantity that was measured once."""
        self.figures.setdefault(subject, {})[name] = Figure(value, value, value, unit, 1)

    def note(self, text: str) -> None:
        """A condition that the reader must know."""
        self.notes.append(text)

    def name(self, key: str, value: float) -> None:
        """A figure that other programs ask for: ``key`` of the JSON object itself."""
        self.named[key] = value

    def show(self, title: str) -> None:
        """Print a table for people; ratios are to the first contender of each subject, of its unit."""
        table = Table(title=f"{title} · {machine()}", title_justify="left")
        for heading in ("subject", "contender", "median", "low to high", "unit", "times the first"):
            table.add_column(heading, justify="left" if heading in ("subject", "contender", "unit") else "right")
        for subject, figures in self.figures.items():
            first = next(iter(figures.values()))
            for index, (name, figure) in enumerate(figures.items()):
                spread = f"{_number(figure.low)} to {_number(figure.high)}" if figure.rounds > 1 else ""
                comparable = index and first.median and figure.unit == first.unit
                ratio = f"{figure.median / first.median:.3g}" if comparable else ""
                table.add_row(
                    "" if index else subject, name, _number(figure.median), spread, figure.unit, ratio,
                    end_section=index == len(figures) - 1,
                )  # fmt: skip
        console = Console(width=None if os.isatty(1) else 140, highlight=False)
        console.print(table)
        for text in self.notes:
            console.print(f"- {text}", markup=False)


def machine() -> str:
    """The machine in words: processor, cores that this process may use, Python."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        lines = [line for line in listing.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{model}, {_cores()} cores, Python {platform.python_version()}"


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def run(
    title: str,
    measure: Callable[[Bench], None],
    *,
    settings: Mapping[str, tuple[float, str]] | None = None,
    extend: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """Entry point of a benchmark's module: read the command line, measure, print.

    Args:
        settings: numbers of this benchmark alone by name: their defaults, and what they are.
        extend: adds to the command line what is no number.
    """
    settings = settings or {}
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="runs of each contender")
    parser.add_argument("--json", action="store_true", help="one JSON object of the figures on the last line")
    for name, (default, sentence) in settings.items():
        parser.add_argument(f"--{name}", type=float, default=default, help=sentence)
    if extend is not None:
        extend(parser)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds} is too few: give at least 1")
    # Who is told to end still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bench = Bench(
        rounds=arguments.rounds,
        settings={name: getattr(arguments, name) for name in settings},
        arguments=arguments,
    )
    measure(bench)
    bench.show(title)
    if arguments.json:
        figures = {
            f"{subject}.{name}": asdict(figure)
            for subject, found in bench.figures.items()
            for name, figure in found.items()
        }
        conditions = {"benchmark": title, "machine": machine(), "notes": bench.notes}
        print(json.dumps({**bench.named, **conditions, "figures": figures}))
