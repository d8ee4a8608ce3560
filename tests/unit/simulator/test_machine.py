"""The simulated worker against what queueing theory says of it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from bench.simulator.events import Events
from bench.simulator.machine import Machine, Pace

ITEMS = 40_000


def played(pace: Pace, per_s: float, work: Callable[[random.Random], float]) -> list[float]:
    """How long each of many items was there that come independently of each other."""
    events, chance = Events(), random.Random(7)
    machine = Machine(events, pace)
    took: list[float] = []

    def come(left: int) -> None:
        came_at = events.now
        machine.take(work(chance), 0, lambda: took.append(events.now - came_at))
        if left > 1:
            events.after(chance.expovariate(per_s), lambda: come(left - 1))

    come(ITEMS)
    events.run(math.inf)
    assert len(took) == ITEMS
    return took


def erlang_c(servers: int, load: float) -> float:
    """The probability that who comes has to wait."""
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "use"), [(1, 0.5), (1, 0.8), (4, 0.7), (8, 0.9)])
def test_independent_slots_wait_as_erlang_says(servers: int, use: float) -> None:
    per_s = servers * use

    took = played(Pace(servers, company=0.0), per_s, lambda chance: chance.expovariate(1.0))

    waits = erlang_c(servers, per_s) / (servers - per_s)
    assert sum(took) / ITEMS == pytest.approx(1 + waits, rel=0.1)


def test_items_that_share_a_machine_take_as_long_as_processor_sharing_says() -> None:
    """1 / (1 − load), whatever the distribution of the work: here it is always the same."""
    took = played(Pace(ITEMS, company=1.0), 0.7, lambda chance: 1.0)

    assert sum(took) / ITEMS == pytest.approx(1 / (1 - 0.7), rel=0.1)


def test_a_machine_is_busy_for_as_long_as_its_load_says() -> None:
    events, chance = Events(), random.Random(3)
    machine = Machine(events, Pace(1))
    for number in range(1000):
        events.after(number * 2.0, lambda: machine.take(chance.uniform(0.5, 1.5), 0, lambda: None))

    events.run(2000.0)

    assert machine.busy_s == pytest.approx(1000, rel=0.05)
    assert machine.load == 0


def test_the_more_urgent_item_is_served_first() -> None:
    events = Events()
    machine = Machine(events, Pace(1))
    order: list[str] = []
    machine.take(1.0, 2, lambda: order.append("running"))
    machine.take(1.0, 2, lambda: order.append("bronze"))
    machine.take(1.0, 0, lambda: order.append("gold"))

    events.run(10.0)

    assert order == ["running", "gold", "bronze"]
    assert events.now == 10.0


def test_company_beyond_saturation_only_takes_turns() -> None:
    """Four side by side lose nothing; eight take twice as long."""
    events = Events()
    machine = Machine(events, Pace(8, company=0.0, saturates_at=4))
    ends: list[float] = []
    for _ in range(8):
        machine.take(1.0, 0, lambda: ends.append(events.now))

    events.run(10.0)

    assert ends == pytest.approx([2.0] * 8)
