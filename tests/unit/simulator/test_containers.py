"""A container for each request under way: started when none is free, and billed as it is."""

from __future__ import annotations

import random
from functools import partial

import pytest

from bench.simulator import facts
from bench.simulator.bill import Meter
from bench.simulator.containers import (
    KEEP_S,
    Containers,
    Run,
    lambda_run,
    on_gpus,
    on_lambda,
    unbilled,
)
from bench.simulator.events import Events
from bench.simulator.facts import Delay
from bench.simulator.requests import End, Request
from synapse.domain import cost
from synapse.domain.job import SlaTier
from synapse.domain.price_list import USD_HOUR

START = Delay(8.0, 8.0, "here")
WORK = {"rerank": Delay(2.0, 2.0, "here")}


def played(
    *arrivals: float,
    run: Run = lambda_run,
    usd_hour: float = 0.0,
    most: int = 1000,
    provisioned: int = 0,
) -> tuple[list[Request], Meter, Containers]:
    """Requests at these times, each of two seconds, on functions that start in eight."""
    events, meter = Events(), Meter()
    containers = Containers(
        *(events, random.Random(1), WORK, START, meter),
        run=run,
        usd_hour=usd_hour,
        most=most,
        provisioned=provisioned,
    )
    requests = [Request(n, "rerank", SlaTier.SILVER, at, 0.0) for n, at in enumerate(arrivals)]
    for request in requests:
        events.after(request.arrived_at, partial(containers.arrive, request))
    events.run(10_000.0)
    return requests, meter, containers


def test_who_finds_none_free_waits_for_one_of_its_own() -> None:
    requests, _, _ = played(0.0, 1.0, 20.0, 21.0, 22.5)

    assert [round(request.took_s, 6) for request in requests] == [10.0, 10.0, 2.0, 2.0, 2.0]
    assert [request.was_cold for request in requests] == [True, True, False, False, False]


def test_one_that_nobody_asks_for_is_gone_after_a_while() -> None:
    requests, _, _ = played(0.0, 10.0 + KEEP_S - 1, 2 * KEEP_S + 50)

    assert [request.was_cold for request in requests] == [True, False, True]


def test_runs_and_starts_are_billed() -> None:
    _, meter, containers = played(0.0, 20.0)

    expected = cost.lambda_run(10.0, 10.0) + cost.lambda_run(2.0, 10.0)
    assert meter.bill.usd == pytest.approx(expected.usd)
    assert containers.usage() == {}


def test_provisioned_ones_are_never_cold_and_those_beyond_them_are() -> None:
    requests, meter, _ = played(0.0, 0.5, 20.0, provisioned=1)

    assert [request.was_cold for request in requests] == [False, True, False]
    expected = cost.provisioned_run(2.0, 10.0).times(2) + cost.lambda_run(10.0, 10.0)
    assert meter.bill.usd == pytest.approx(expected.usd)


def test_beyond_the_quota_requests_are_refused() -> None:
    requests, _, _ = played(0.0, 0.1, 0.2, most=2)

    assert [request.end for request in requests] == [End.DELIVERED, End.DELIVERED, End.REFUSED]


def test_machines_are_paid_from_their_start_until_they_are_gone() -> None:
    _, meter, containers = played(0.0, 1.0, run=unbilled, usd_hour=1.0)

    [usage] = containers.usage().values()
    assert meter.bill.usd == 0
    assert usage.paid_s == pytest.approx(2 * (10.0 + KEEP_S))
    assert (usage.busy_s, usage.starting_s, usage.most) == (4.0, 16.0, 2)
    assert usage.usd == pytest.approx(usage.paid_s / 3600)
    assert usage.hours.paid == pytest.approx(usage.paid_s / 3600)


def test_on_aws_a_function_takes_the_time_of_its_processor_and_a_gpu_its_price() -> None:
    events, meter = Events(), Meter()
    functions = on_lambda(events, random.Random(1), meter, provisioned=1)
    gpus = on_gpus(events, random.Random(1), meter, most=1)
    slow, fast = (Request(n, "rerank", SlaTier.SILVER, 0.0, 0.0) for n in range(2))

    functions.arrive(slow)
    gpus.arrive(fast)
    events.run(20_000.0)

    assert slow.took_s == pytest.approx(facts.TIMES["rerank"]["cpu"].p50_s)
    assert fast.took_s > 100
    [usage] = gpus.usage().values()
    assert usage.usd == pytest.approx(usage.paid_s / 3600 * USD_HOUR["g6.xlarge"])
