"""What the simulator predicts for the benchmark of tiers on one machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.control import Control
from bench.simulator.calibration import Calibration
from bench.simulator.facts import Delay, Sampled
from bench.simulator.one_machine import Predicted, assumed, predict
from bench.simulator.validation import Round, compared, show, undisturbed
from bench.tiers import SLOW, TWO_POOLS, Phase, PoolShape, two_pools
from synapse.domain.job import SlaTier

ASSUMED = assumed(TWO_POOLS)


def test_bronze_takes_what_is_left_over_and_gold_keeps_its_promise() -> None:
    found = predict(TWO_POOLS, ASSUMED, seconds=2.0)

    without = found.kept(SlaTier.GOLD, bronze_on=False)
    beside = found.kept(SlaTier.GOLD, bronze_on=True)
    left_over = found.bronze_alone_per_s - sum(TWO_POOLS.rates_per_s.values())
    assert found.ms(SlaTier.GOLD, 0.5, bronze_on=True) == pytest.approx(23, abs=5)
    assert beside >= without - 0.05
    assert found.bronze_beside_per_s >= 0.8 * left_over


def test_what_was_measured_alone_is_what_who_is_alone_is_predicted() -> None:
    chance = random.Random(1)
    engine_s = [0.020 + chance.expovariate(1000) for _ in range(400)]
    caller_s = [each + 0.004 + chance.expovariate(300) for each in engine_s]
    engines_s = {"fast": engine_s, "slow": [0.060] * 400}
    calibration = Calibration(engines_s, engines_s, caller_s, 0.0)

    found = predict(TWO_POOLS, calibration.figures(), seconds=5.0)

    for share in (0.5, 0.9):
        alone_ms = sorted(caller_s)[int(share * len(caller_s))] * 1000
        assert found.ms(SlaTier.GOLD, share, bronze_on=False) == pytest.approx(alone_ms, rel=0.05)


def test_items_take_as_long_as_was_measured_where_all_slots_are_full() -> None:
    full = {
        pool.name: Delay(2 * pool.item_ms / 1000, 2 * pool.item_ms / 1000, "twice")
        for pool in TWO_POOLS.shapes
    }
    at_rest, crowded = (
        predict(TWO_POOLS, each, seconds=2.0) for each in (ASSUMED, replace(ASSUMED, full=full))
    )

    assert crowded.bronze_alone_per_s < 0.6 * at_rest.bronze_alone_per_s
    p50_ms = [each.ms(SlaTier.GOLD, 0.5, bronze_on=False) for each in (at_rest, crowded)]
    assert p50_ms[1] < 1.3 * p50_ms[0]


def test_an_engines_slot_is_free_while_a_call_is_on_its_way() -> None:
    """Jobs fill all slots; who comes waits the less for one, the more of it is only the way."""

    def waited_ms(item_ms: int, way_ms: int) -> float:
        pools = two_pools(PoolShape("fast", 2.0, slots=2, item_ms=item_ms), SLOW)
        call_s = (item_ms + way_ms) / 1000
        call = Delay(call_s, call_s, "as said")
        slow = Delay(0.060, 0.060, "as said")
        times = {"fast": call, "slow": slow}
        figures = replace(ASSUMED, work=times, full=times)
        found = predict(pools, figures, seconds=4.0)
        assert found.bronze_alone_per_s == pytest.approx(2 / call_s + 6 / 0.060, rel=0.1)
        alone_ms, beside_ms = (
            found.ms(SlaTier.GOLD, 0.9, bronze_on=bronze_on) for bronze_on in (False, True)
        )
        return beside_ms - alone_ms

    assert waited_ms(item_ms=6, way_ms=9) < 0.7 * waited_ms(item_ms=15, way_ms=0)


def test_the_servers_thread_lets_no_more_through_than_it_has_time_for() -> None:
    slow = replace(ASSUMED, thread_s=0.0025)
    left = 1 - TWO_POOLS.stream_per_s * slow.thread_s

    free, full = (predict(TWO_POOLS, each, seconds=8.0) for each in (ASSUMED, slow))

    assert full.bronze_alone_per_s == pytest.approx(left / slow.thread_s, rel=0.05)
    assert free.bronze_alone_per_s > 1.3 * full.bronze_alone_per_s
    p50_ms = [each.ms(SlaTier.GOLD, 0.5, bronze_on=True) for each in (free, full)]
    assert p50_ms[1] > p50_ms[0]


def test_a_measured_time_has_the_quantiles_that_were_measured() -> None:
    sampled = Sampled.of([float(n) for n in range(101)])

    assert sampled.p50_s == 50
    assert sampled.p99_s == pytest.approx(99)
    drawn = sorted(sampled.draw(random.Random(seed)) for seed in range(500))
    assert drawn[250] == pytest.approx(50, abs=6)
    assert 0 <= drawn[0] < 3
    assert 97 < drawn[-1] <= 100


def a_round(gold_ms: Sequence[float], others: float = 0.05, stolen: float = 0.05) -> Round:
    measured = {"gold": list(gold_ms), "silver": [60.0]}
    return Round(
        TWO_POOLS,
        ASSUMED,
        1,
        Phase(bronze_on=False, seconds=2.0, latencies_ms=measured),
        Phase(bronze_on=True, seconds=2.0, latencies_ms=measured, bronze_done=400),
        200.0,
        [("without bronze", Control(0.05, 2.0, others, stolen))],
    )


def said(_: Round) -> Predicted:
    tiers = {SlaTier.GOLD: [27.0], SlaTier.SILVER: [60.0]}
    return Predicted(tiers, tiers, 220.0, 100.0)


def test_predictions_and_measurements_of_all_rounds_are_compared_together() -> None:
    rounds = [a_round([20.0, 30.0]), a_round([20.0, 36.0])]
    found = {each.what: each for each in compared([(said(each), each) for each in rounds])}

    p99 = found["gold, p99, without bronze, ms"]
    assert (p99.predicted, p99.measured) == (27.0, 36.0)
    assert p99.off == pytest.approx(-0.25)
    assert p99.off_by_round == pytest.approx([-0.1, -0.25])
    assert found["bronze alone, jobs/s"].off == pytest.approx(0.1)
    assert found["bronze beside, jobs/s"].off == pytest.approx(-0.5)


def test_disturbed_rounds_are_told_and_do_not_count_if_there_are_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounds = [a_round([30.0]), a_round([99.0], stolen=0.2), a_round([99.0], others=0.2)]

    assert undisturbed(rounds) == rounds[:1]
    show(rounds, said)

    out = capsys.readouterr().out
    assert "1 of 3 rounds were undisturbed" in out
    assert "| gold, p99, without bronze, ms | 27.0 | 30.0 | -10% | -10% |" in out
    assert "| 2, without bronze, disturbed | 2.0 | 0.05 | 0.20 |" in out


def test_of_disturbed_rounds_alone_all_are_shown_with_a_word_of_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([a_round([30.0], others=0.5)] * 2, said)

    out = capsys.readouterr().out
    assert "0 of 2 rounds were undisturbed" in out
    assert "run it on a quieter machine" in out
    assert "| gold, p99, without bronze, ms | 27.0 | 30.0 | -10% | -10%, -10% |" in out
