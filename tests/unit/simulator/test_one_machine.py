"""What the simulator predicts for the benchmark of tiers on one machine."""

from __future__ import annotations

import random

import pytest

from bench.control import Control
from bench.simulator.calibration import Calibration
from bench.simulator.facts import Sampled
from bench.simulator.one_machine import E_FIGURES, POOLS, Figures, predict
from bench.simulator.validation import Compared, Round, Validation, show
from bench.tiers import TWO_POOLS, Phase, two_pools
from synapse.domain.job import SlaTier


def test_it_predicts_the_benchmark_as_it_is() -> None:
    [(_, _, fast_slots, fast_s), (_, _, slow_slots, slow_s)] = POOLS

    assert two_pools(int(fast_s * 1000), fast_slots, int(slow_s * 1000), slow_slots) == TWO_POOLS


def test_bronze_takes_what_is_left_over_and_gold_keeps_its_promise() -> None:
    found = predict(seconds=2.0, rounds=1)

    without = found.kept(SlaTier.GOLD, bronze_on=False)
    beside = found.kept(SlaTier.GOLD, bronze_on=True)
    left_over = found.bronze_alone_per_s - sum(TWO_POOLS.rates_per_s.values())
    assert found.ms(SlaTier.GOLD, 0.5, bronze_on=True) == pytest.approx(22, abs=4)
    assert beside >= without - 0.05
    assert found.bronze_beside_per_s >= 0.8 * left_over


def test_what_was_measured_alone_is_what_who_is_alone_is_predicted() -> None:
    chance = random.Random(1)
    engine_s = [0.020 + chance.expovariate(1000) for _ in range(400)]
    caller_s = [each + 0.004 + chance.expovariate(300) for each in engine_s]
    calibration = Calibration({"fast": engine_s, "slow": [0.060] * 400}, caller_s, [0.0])

    found = predict(seconds=5.0, rounds=2, figures=calibration.figures())

    for share in (0.5, 0.9):
        alone_ms = sorted(caller_s)[int(share * len(caller_s))] * 1000
        assert found.ms(SlaTier.GOLD, share, bronze_on=False) == pytest.approx(alone_ms, rel=0.05)


def test_the_servers_thread_lets_no_more_through_than_it_has_time_for() -> None:
    slow = Figures(E_FIGURES.work, E_FIGURES.around, thread_s=0.006)

    free, full = (predict(seconds=2.0, rounds=1, figures=each) for each in (E_FIGURES, slow))

    assert full.bronze_alone_per_s == pytest.approx(1 / 0.006, rel=0.05)
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


@pytest.mark.parametrize(("others", "stolen", "disturbed"), [(0.2, 0.1, 0), (0.4, 0.2, 2)])
def test_it_says_how_far_off_it_was_and_which_rounds_were_disturbed(
    others: float, stolen: float, disturbed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    control = Control(0.05, 2.0, others, stolen)
    phases = [Phase(on, 2.0, {"gold": [20.0, 30.0], "silver": [60.0]}, 400) for on in (False, True)]
    rounds = [Round(phases[0], phases[1], 220.0, control, control)] * 2
    compared = [Compared("gold, p99, without bronze, ms", 27.0, 30.0, [29.0, 31.0])]

    show(Validation(E_FIGURES, rounds, compared))

    out = capsys.readouterr().out
    assert "| gold, p99, without bronze, ms | 27.0 | 30.0 | -10% | 29.0, 31.0 |" in out
    assert ("2 of 2 rounds were disturbed" in out) == bool(disturbed)
