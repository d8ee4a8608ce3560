"""Delays and arrivals have the figures that they were made from."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest

from bench.simulator.facts import PEAK_TO_VALLEY, Delay
from bench.simulator.report import quantile
from bench.simulator.workload import Traffic, arrivals, day, mixed, sessions
from synapse.domain.job import SlaTier

HOUR_S = 3600.0


def test_a_delay_has_the_median_and_the_tail_that_were_published() -> None:
    chance = random.Random(1)

    drawn = sorted(Delay(0.0162, 0.105, "").draw(chance) for _ in range(40_000))

    assert quantile(drawn, 0.5) == pytest.approx(0.0162, rel=0.03)
    assert quantile(drawn, 0.99) == pytest.approx(0.105, rel=0.06)


def test_as_many_requests_come_as_the_rate_says_and_in_bursts() -> None:
    traffic = Traffic("embed", SlaTier.GOLD, 10.0, lambda at: 1.0)

    times = [each.at for each in arrivals(traffic, HOUR_S, random.Random(1))]

    gaps = [after - before for before, after in pairwise(times)]
    assert len(times) == pytest.approx(36_000, rel=0.03)
    assert times == sorted(times)
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(2**0.5, rel=0.05)


def test_a_day_has_its_peak_its_valley_and_its_quiet_hours() -> None:
    rate = day(HOUR_S, quiet=0.25)

    rates = [rate(at) for at in range(3600)]

    assert statistics.mean(rates) == pytest.approx(1.0, abs=0.01)
    assert max(rates) / min(rates[:2700]) == pytest.approx(PEAK_TO_VALLEY, rel=0.01)
    assert max(rates[2700:]) == 0


def test_the_same_seed_gives_the_same_day() -> None:
    traffics = [
        Traffic("embed", SlaTier.GOLD, 1.0, day(HOUR_S)),
        Traffic("rerank", SlaTier.BRONZE, 2.0, sessions(HOUR_S, (600.0, 1200.0))),
    ]

    days = [mixed(traffics, HOUR_S, seed) for seed in (1, 1, 2)]

    assert days[0] == days[1] != days[2]
    assert days[0] == sorted(days[0], key=lambda each: each.at)
    reranked = [each.at for each in days[0] if each.model == "rerank"]
    assert min(reranked) >= 600
    assert max(reranked) < 1200
    assert len(reranked) == pytest.approx(7200, rel=0.05)
