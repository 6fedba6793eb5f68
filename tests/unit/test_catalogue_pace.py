"""Time and price of a plan: from what was measured, and unknown where a rate was not given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tutti.catalogue.order import Prices
from tutti.catalogue.pace import Estimate, Pace

RUN = Pace(10, music_s=600, rejected_s=60, wall_s=70, start_s=10, cores=2, engine_cpu_s=60, writer_cpu_s=50)


def estimate(prices: Prices, *, gpus: int = 0) -> Estimate:
    return Estimate.of(RUN, music_s=6000, cores=4, gpus=gpus, size_bytes=3 * 2**30, prices=prices, how="measured")


def test_time_follows_music_and_cores_beyond_the_start() -> None:
    # 60 s on 2 cores for 600 s of music: 0.2 core-seconds a second.
    assert estimate(Prices()).wall_s == pytest.approx(10 + 6000 * 0.2 / 4)


def test_several_runs_weigh_by_their_music() -> None:
    other = replace(RUN, music_s=1800, wall_s=40, start_s=20, cores=4)
    both = Pace.together([RUN, replace(RUN, music_s=0), other])
    assert both is not None
    assert both.core_s_per_s == pytest.approx((60 * 2 + 20 * 4) / 2400)
    assert both.start_s == 15
    assert Pace.together([replace(RUN, music_s=0)]) is None


def test_it_is_read_back_and_later_figures_are_passed_over() -> None:
    assert Pace.from_dict({**RUN.to_dict(), "device": "cpu"}) == RUN


def test_prices_are_by_the_clock_and_unknown_is_not_free() -> None:
    hours = 310 * 4 / 3600
    priced = estimate(Prices(currency="CHF", core_hour=0.5, gib_month=0.02))
    assert priced.price == pytest.approx(hours * 0.5)
    assert priced.lines()[1:] == [
        "price       0.17 CHF (0.344 core-hours)",
        "keeping it  0.06 CHF a month (3.0 GiB)",
    ]
    unknown = estimate(Prices())
    assert (unknown.price, unknown.monthly) == (None, None)
    assert "unknown: the order names no prices.core_hour" in unknown.lines()[1]
    assert "unknown: the order names no prices.gib_month" in unknown.lines()[2]
    half = estimate(Prices(core_hour=0.5), gpus=1)
    assert half.price is None
    assert "no prices.gpu_hour" in half.lines()[1]
    assert estimate(Prices(core_hour=0, gpu_hour=2), gpus=1).price == pytest.approx(310 / 3600 * 2)
