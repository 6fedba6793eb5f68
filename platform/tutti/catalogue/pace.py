"""How long a catalogue takes and what it costs, from what earlier ones took or from a short try.

A run records its own figures in its manifest (``facts["pace"]``): takes, music, wall time, cores, processor time of the
engines and of the writers. The next order of the same model, formats and kind of processor is estimated from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tutti.catalogue.order import Prices
from tutti.units import format_bytes, format_seconds

HOUR_S, GIB = 3600.0, 2**30
USUAL_START_S = 15.0
"""From the verb to the first note, where nothing was measured: Ray and the model come up."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What some takes took.

    Args:
        takes: made, rejected ones among them.
        music_s: of the accepted ones.
        rejected_s: of the others.
        wall_s: from the beginning of the run to its last take.
        start_s: of that, until the first engine was ready.
        cores: of the cluster.
        engine_cpu_s, writer_cpu_s: processor time of the two stages.
        gpus: that it used.
    """

    takes: int
    music_s: float
    rejected_s: float
    wall_s: float
    start_s: float
    cores: int
    engine_cpu_s: float
    writer_cpu_s: float
    gpus: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values, seconds to the millisecond."""
        return {name: round(value, 3) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Pace:
        """Read :meth:`to_dict`; what a later version added is left out."""
        return cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})

    @property
    def core_s_per_s(self) -> float:
        """Core-seconds, idle ones among them, for a second of accepted music."""
        return max(self.wall_s - self.start_s, 0.0) * self.cores / self.music_s

    def kept(self) -> bool:
        """Whether anything can be told from it."""
        return self.music_s > 0 and self.cores > 0

    @classmethod
    def together(cls, paces: Iterable[Pace]) -> Pace | None:
        """Several runs as one: sums, the mean start, the cores of the last; None where nothing can be told."""
        found = [pace for pace in paces if pace.kept()]
        if not found:
            return None
        cores = found[-1].cores
        worked_s = sum((pace.wall_s - pace.start_s) * pace.cores for pace in found) / cores
        start_s = sum(pace.start_s for pace in found) / len(found)
        return cls(
            takes=sum(pace.takes for pace in found),
            music_s=sum(pace.music_s for pace in found),
            rejected_s=sum(pace.rejected_s for pace in found),
            wall_s=start_s + worked_s,
            start_s=start_s,
            cores=cores,
            engine_cpu_s=sum(pace.engine_cpu_s for pace in found),
            writer_cpu_s=sum(pace.writer_cpu_s for pace in found),
            gpus=found[-1].gpus,
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a catalogue will take.

    Args:
        wall_s: from beginning to end.
        cores, gpus: on how many.
        size_bytes: on storage.
        prices: of the order.
        how: where the figures come from, for people.
    """

    wall_s: float
    cores: int
    gpus: int
    size_bytes: int
    prices: Prices
    how: str

    @classmethod
    def of(
        cls, pace: Pace, *, music_s: float, cores: int, gpus: int, size_bytes: int, prices: Prices, how: str
    ) -> Estimate:
        """At a pace that was measured.

        Args:
            music_s: of the whole order.
            cores, gpus: on how many it will run.
        """
        return cls(pace.start_s + music_s * pace.core_s_per_s / cores, cores, gpus, size_bytes, prices, how)

    @property
    def core_hours(self) -> float:
        """Of all cores, idle ones among them: machines are paid for by the clock."""
        return self.wall_s * self.cores / HOUR_S

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs."""
        return self.wall_s * self.gpus / HOUR_S

    @property
    def price(self) -> float | None:
        """To make it, in the prices' currency; None where a rate is not known."""
        parts = ((self.core_hours, self.prices.core_hour), (self.gpu_hours, self.prices.gpu_hour))
        if any(hours and rate is None for hours, rate in parts):
            return None
        return sum(hours * rate for hours, rate in parts if rate is not None)

    @property
    def monthly(self) -> float | None:
        """To keep it for a month; None where no rate is known."""
        return None if self.prices.gib_month is None else self.size_bytes / GIB * self.prices.gib_month

    def lines(self) -> list[str]:
        """For people: time, price, storage."""
        hours = f"{self.core_hours:.3g} core-hours" + (f" and {self.gpu_hours:.3g} GPU-hours" if self.gpus else "")
        return [
            f"time        about {format_seconds(self.wall_s)} on {self.cores} cores ({self.how})",
            f"price       {self._price_text(hours)}",
            f"keeping it  {self._keeping_text()}",
        ]

    def _price_text(self, hours: str) -> str:
        if self.price is None:
            wanted = "prices.gpu_hour" if self.gpus and self.prices.gpu_hour is None else "prices.core_hour"
            return f"unknown: the order names no {wanted} ({hours})"
        return f"{self.price:,.2f} {self.prices.currency} ({hours})"

    def _keeping_text(self) -> str:
        size = format_bytes(self.size_bytes)
        if self.monthly is None:
            return f"unknown: the order names no prices.gib_month ({size})"
        return f"{self.monthly:,.2f} {self.prices.currency} a month ({size})"
