"""What the simulator predicts for the benchmark of tiers on one machine."""

from __future__ import annotations

import pytest

from bench.simulator.one_machine import POOLS, predict
from bench.tiers import TWO_POOLS, two_pools
from synapse.domain.job import SlaTier


def test_it_predicts_the_benchmark_as_it_is() -> None:
    [(_, _, fast_slots, fast_s), (_, _, slow_slots, slow_s)] = POOLS

    assert two_pools(int(fast_s * 1000), fast_slots, int(slow_s * 1000), slow_slots) == TWO_POOLS


def test_bronze_takes_what_is_left_over_and_gold_keeps_its_promise() -> None:
    found = predict(seconds=2.0, rounds=1)

    _, _, without = found.alone[SlaTier.GOLD]
    p50_ms, _, beside = found.beside[SlaTier.GOLD]
    left_over = found.bronze_alone_per_s - sum(TWO_POOLS.rates_per_s.values())
    assert p50_ms == pytest.approx(22, abs=4)
    assert beside >= without - 0.05
    assert found.bronze_beside_per_s >= 0.8 * left_over
