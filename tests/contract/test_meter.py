"""Meter: never beyond a limit, on both meters or on none, each reservation settled once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from synapse.adapters.aws.meter import DynamoMeter
from synapse.adapters.local.database import Database
from synapse.adapters.local.meter import SqliteMeter
from synapse.domain.access import Limits
from synapse.domain.limiting import Left, Measure, Verdict
from synapse.domain.metering import (
    JOB_GRACE_S,
    NANO,
    NOTHING_USED,
    Bounds,
    MeterId,
    Reservation,
    ReservationId,
    Used,
)
from synapse.ports.meter import Meter
from tests.aws import aws
from tests.contract.openers import Opener
from tests.factories import an_id
from tests.fake_meter import MemoryMeter
from tests.fakes import FakeClock

KEY, OTHER_KEY, TENANT = MeterId("acme", "key1"), MeterId("acme", "key2"), MeterId("acme")
HOUR_S = 3600.0

IN_PARALLEL = {"sqlite": 1000, "dynamodb": 64}
"""Threads call moto, 32 at most; each wave of losers costs seconds of its time."""


@asynccontextmanager
async def memory_meter(clock: FakeClock, folder: Path) -> AsyncIterator[Meter]:
    yield MemoryMeter()


@asynccontextmanager
async def sqlite_meter(clock: FakeClock, folder: Path) -> AsyncIterator[Meter]:
    database = Database.open(folder / "jobs.db")
    meter = await SqliteMeter.open(database)
    yield meter
    await meter.aclose()
    await database.close()


@asynccontextmanager
async def dynamo_meter(clock: FakeClock, folder: Path) -> AsyncIterator[Meter]:
    with aws() as cloud:
        yield DynamoMeter(cloud.dynamodb, cloud.access_table, clock=clock)


METERS: Mapping[str, Opener[Meter]] = {
    "memory": memory_meter,
    "sqlite": sqlite_meter,
    "dynamodb": dynamo_meter,
}


@pytest.fixture(params=METERS)
async def meter(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[Meter]:
    async with METERS[request.param](clock, tmp_path) as opened:
        yield opened


def bounds(own: Limits | None = None, shared: Limits | None = None) -> Bounds:
    return {m: limits for m, limits in ((KEY, own), (TENANT, shared)) if limits is not None}


def asked(
    clock: FakeClock, within: Bounds, tokens: int = 10, nano: int = 0, name: str = ""
) -> Reservation:
    reservation_id = ReservationId("acme", name or an_id(), int(clock() + HOUR_S))
    return Reservation(reservation_id, tuple(within), clock(), tokens, nano, is_job=True)


async def reserved(
    meter: Meter, clock: FakeClock, within: Bounds, tokens: int = 10, nano: int = 0
) -> tuple[Verdict, ReservationId]:
    reservation = asked(clock, within, tokens, nano)
    return await meter.reserve(reservation, within), reservation.id


async def refused_for(
    meter: Meter, clock: FakeClock, within: Bounds, tokens: int = 10, nano: int = 0
) -> Measure | None:
    verdict, _ = await reserved(meter, clock, within, tokens, nano)
    return verdict.refusal.measure if verdict.refusal else None


# Each takes the emulated DynamoDB 15 ms, and those beyond the limit are all refused alike.
@pytest.mark.parametrize(("adapter", "requests"), [("sqlite", 1000), ("dynamodb", 300)])
async def test_of_many_parallel_requests_exactly_as_many_get_in_as_the_limit_says(
    adapter: str, requests: int, clock: FakeClock, tmp_path: Path
) -> None:
    within = bounds(Limits(requests_per_minute=100), Limits(requests_per_minute=500))
    places = asyncio.Semaphore(IN_PARALLEL[adapter])
    async with METERS[adapter](clock, tmp_path) as meter:

        async def one() -> Verdict:
            async with places:
                return await meter.reserve(asked(clock, within), within)

        verdicts = await asyncio.gather(*(one() for _ in range(requests)))
        admitted = [verdict for verdict in verdicts if verdict.refusal is None]
        assert len(admitted) == 100
        assert {v.refusal.measure for v in verdicts if v.refusal} == {Measure.REQUESTS}
        # The tenant's meter has counted those, and none of the others.
        others = {TENANT: Limits(requests_per_minute=101), OTHER_KEY: Limits(concurrent_jobs=9)}
        assert await refused_for(meter, clock, others) is None
        assert await refused_for(meter, clock, others) is Measure.REQUESTS


async def test_each_limit_admits_what_fits_and_nothing_more(meter: Meter, clock: FakeClock) -> None:
    cases = [
        (Limits(requests_per_minute=3), Measure.REQUESTS),
        (Limits(tokens_per_minute=35), Measure.TOKENS),
        (Limits(concurrent_jobs=3), Measure.CONCURRENT),
        (Limits(monthly_usd=0.000_000_35), Measure.SPEND),
    ]
    for number, (limits, measure) in enumerate(cases):
        within = {MeterId("acme", f"key-{number}"): limits}
        outcomes = [await refused_for(meter, clock, within, 10, 100) for _ in range(4)]
        assert outcomes == [None, None, None, measure]


async def test_what_does_not_fit_on_one_meter_is_counted_on_neither(
    meter: Meter, clock: FakeClock
) -> None:
    both = bounds(Limits(requests_per_minute=10), Limits(tokens_per_minute=15))
    assert await refused_for(meter, clock, both) is None
    for _ in range(20):
        assert await refused_for(meter, clock, both) is Measure.TOKENS
    own = bounds(Limits(requests_per_minute=10))
    assert [await refused_for(meter, clock, own) for _ in range(10)] == [
        *[None] * 9,
        Measure.REQUESTS,
    ]


async def test_several_requests_at_once_are_counted_as_so_many_or_not_at_all(
    meter: Meter, clock: FakeClock
) -> None:
    limits = Limits(requests_per_minute=10, concurrent_jobs=10, monthly_usd=1000 / NANO)
    within = bounds(limits, Limits(requests_per_minute=10, tokens_per_minute=500))
    nine = replace(asked(clock, within, tokens=90, nano=900), requests=9)
    two = replace(asked(clock, within), requests=2)
    assert (await meter.reserve(nine, within)).refusal is None
    for _ in range(3):
        refused = await meter.reserve(two, within)
        assert refused.refusal is not None
        assert (refused.refusal.measure, refused.refusal.needed) == (Measure.REQUESTS, 2)
        assert refused.standing.requests == Left(1, 10)

    # Of the nine, five were begun.
    await meter.settle(nine.id, Used(5, 40, 300))
    verdict = await meter.reserve(replace(two, requests=5), within)
    assert verdict.refusal is None
    assert verdict.standing.requests == Left(0, 10)
    assert verdict.standing.tokens == Left(450, 500)
    await meter.settle(two.id, Used(5, 10, 0))
    assert await refused_for(meter, clock, bounds(Limits(concurrent_jobs=1))) is None


@pytest.mark.parametrize("requests", [1, 3])
async def test_more_at_once_than_the_limit_itself_never_fit(
    meter: Meter, clock: FakeClock, requests: int
) -> None:
    within = bounds(Limits(concurrent_jobs=requests))
    many = replace(asked(clock, within), requests=requests + 1)
    refusal = (await meter.reserve(many, within)).refusal
    assert refusal is not None
    assert (refusal.measure, refusal.retry_after_s) == (Measure.CONCURRENT, None)
    assert (await meter.reserve(replace(many, requests=requests), within)).refusal is None


async def test_the_accounts_of_a_tenant_share_its_limit(meter: Meter, clock: FakeClock) -> None:
    shared = Limits(requests_per_minute=2)
    mine = {KEY: Limits(requests_per_minute=9), TENANT: shared}
    others = {OTHER_KEY: Limits(requests_per_minute=9), TENANT: shared}
    assert await refused_for(meter, clock, mine) is None
    assert await refused_for(meter, clock, others) is None
    assert await refused_for(meter, clock, mine) is Measure.REQUESTS
    assert await refused_for(meter, clock, others) is Measure.REQUESTS


async def test_a_new_minute_begins_with_nothing_and_the_month_goes_on(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(requests_per_minute=1, monthly_usd=2.5 / NANO * 100))
    for _ in range(2):
        assert await refused_for(meter, clock, within, nano=100) is None
        assert await refused_for(meter, clock, within) is Measure.REQUESTS
        clock.advance(60)
    assert await refused_for(meter, clock, within, nano=100) is Measure.SPEND


async def test_a_new_month_begins_with_its_whole_budget(meter: Meter, clock: FakeClock) -> None:
    clock.now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp()
    within = bounds(Limits(monthly_usd=100 / NANO))
    old, reservation_id = await reserved(meter, clock, within, nano=100)
    assert old.refusal is None
    assert await refused_for(meter, clock, within, nano=1) is Measure.SPEND
    clock.advance(2)
    assert await refused_for(meter, clock, within, nano=100) is None
    # What last month's request has used is last month's.
    await meter.settle(reservation_id, Used(1, 0, 0))
    assert await refused_for(meter, clock, within, nano=1) is Measure.SPEND


async def test_settling_gives_back_what_was_not_used(meter: Meter, clock: FakeClock) -> None:
    limits = Limits(tokens_per_minute=100, monthly_usd=1000 / NANO, concurrent_jobs=1)
    within = bounds(limits, limits)
    _, reservation_id = await reserved(meter, clock, within, tokens=100, nano=1000)
    await meter.settle(reservation_id, Used(1, 30, 400))
    verdict, _ = await reserved(meter, clock, within, tokens=70, nano=600)
    assert verdict.refusal is None
    assert verdict.standing.tokens == Left(0, 100)


async def test_money_that_is_only_reserved_is_waited_for_and_what_is_spent_is_not(
    meter: Meter, clock: FakeClock
) -> None:
    limits = Limits(monthly_usd=1000 / NANO)
    within = bounds(limits, limits)
    ids = [(await reserved(meter, clock, within, nano=500))[1] for _ in range(2)]

    async def wait_s(nano: int) -> int | None:
        verdict, _ = await reserved(meter, clock, within, nano=nano)
        assert verdict.refusal is not None
        assert verdict.refusal.measure is Measure.SPEND
        return verdict.refusal.retry_after_s

    assert await wait_s(1000) == 2
    assert await wait_s(1001) is None
    await meter.settle(ids[0], Used(1, 0, 400))
    assert await wait_s(600) == 2
    assert await wait_s(601) is None
    await meter.settle(ids[1], Used(1, 0, 500))
    assert await wait_s(101) is None
    assert await refused_for(meter, clock, within, nano=100) is None


async def test_money_of_a_crashed_holder_is_not_waited_for_once_it_has_expired(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(monthly_usd=100 / NANO))
    await reserved(meter, clock, within, nano=100)
    for passes_s, wait_s in ((0, 2), (HOUR_S + JOB_GRACE_S + 1, None)):
        clock.advance(passes_s)
        verdict, _ = await reserved(meter, clock, within, nano=100)
        assert verdict.refusal is not None
        assert verdict.refusal.retry_after_s == wait_s


async def test_what_was_reserved_too_small_is_counted_as_it_was(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(tokens_per_minute=100))
    _, reservation_id = await reserved(meter, clock, within, tokens=10)
    await meter.settle(reservation_id, Used(1, 130, 0))
    verdict, _ = await reserved(meter, clock, within, tokens=1)
    assert verdict.refusal is not None
    assert verdict.standing.tokens == Left(0, 100)


async def test_tokens_that_nobody_can_tell_count_as_reserved_and_the_money_as_it_was(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(tokens_per_minute=100, monthly_usd=1000 / NANO))
    _, reservation_id = await reserved(meter, clock, within, tokens=60, nano=900)
    await meter.settle(reservation_id, Used(1, 0, 300, tokens_unknown=True))
    verdict, _ = await reserved(meter, clock, within, tokens=10, nano=700)
    assert verdict.refusal is None
    assert verdict.standing.tokens == Left(30, 100)


async def test_what_was_never_begun_counts_for_nothing(meter: Meter, clock: FakeClock) -> None:
    limits = Limits(requests_per_minute=1, tokens_per_minute=10, concurrent_jobs=1)
    within = bounds(limits, limits)
    for _ in range(3):
        verdict, reservation_id = await reserved(meter, clock, within)
        assert verdict.refusal is None
        await meter.settle(reservation_id, NOTHING_USED)


async def test_settling_again_does_nothing(meter: Meter, clock: FakeClock) -> None:
    within = bounds(Limits(concurrent_jobs=2, tokens_per_minute=100))
    reservations = [(await reserved(meter, clock, within))[1] for _ in range(2)]
    await asyncio.gather(*(meter.settle(reservations[0], Used(1, 5, 0)) for _ in range(5)))
    verdict, _ = await reserved(meter, clock, within)
    assert verdict.standing.tokens == Left(100 - 5 - 10 - 10, 100)
    assert await refused_for(meter, clock, within) is Measure.CONCURRENT


async def test_settling_what_was_never_reserved_does_nothing(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(concurrent_jobs=1))
    await meter.settle(ReservationId("acme", "nothing", int(clock())), Used(1, 5, 0))
    assert await refused_for(meter, clock, within) is None
    assert await refused_for(meter, clock, within) is Measure.CONCURRENT


async def test_a_reservation_that_is_open_is_let_in_again_and_not_counted_again(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(requests_per_minute=1, concurrent_jobs=1))
    reservation = asked(clock, within)
    assert (await meter.reserve(reservation, within)).is_new
    again = await meter.reserve(reservation, within)
    assert again.refusal is None
    assert not again.is_new
    await meter.settle(reservation.id, NOTHING_USED)
    assert (await meter.reserve(reservation, within)).is_new


async def test_what_a_crashed_holder_has_left_comes_back_when_it_expires(
    meter: Meter, clock: FakeClock
) -> None:
    within = bounds(Limits(concurrent_jobs=1), Limits(monthly_usd=250 / NANO))
    assert await refused_for(meter, clock, within, nano=100) is None
    assert await refused_for(meter, clock, within, nano=100) is Measure.CONCURRENT
    clock.advance(HOUR_S + JOB_GRACE_S + 1)
    assert await refused_for(meter, clock, within, nano=100) is None
    # Nobody knows what it has cost: as much as was reserved.
    clock.advance(HOUR_S + JOB_GRACE_S + 1)
    assert await refused_for(meter, clock, within, nano=100) is Measure.SPEND


async def test_a_job_is_left_to_who_settles_by_its_record_though_others_wait_for_its_place(
    meter: Meter, clock: FakeClock
) -> None:
    """The sweeper on AWS comes each minute, and may have hundreds to end before it."""
    within = bounds(Limits(concurrent_jobs=1), Limits(monthly_usd=100 / NANO))
    _, expired = await reserved(meter, clock, within, nano=100)
    clock.advance(HOUR_S + JOB_GRACE_S - 1)
    assert await refused_for(meter, clock, within, nano=100) is Measure.SPEND

    await meter.settle(expired, Used(1))
    assert await refused_for(meter, clock, within, nano=100) is None


async def test_a_clock_that_was_set_back_keeps_nothing_from_expiring(
    meter: Meter, clock: FakeClock
) -> None:
    within, start = bounds(Limits(concurrent_jobs=1)), clock()
    assert await refused_for(meter, clock, within) is None
    clock.now = start + 24 * HOUR_S
    verdict, reservation_id = await reserved(meter, clock, within)
    assert verdict.refusal is None
    await meter.settle(reservation_id, NOTHING_USED)

    clock.now = start
    assert await refused_for(meter, clock, within) is None
    clock.advance(HOUR_S + JOB_GRACE_S + 1)
    assert await refused_for(meter, clock, within) is None


async def test_a_clock_that_was_ahead_blocks_nobody_once_it_is_right(
    meter: Meter, clock: FakeClock
) -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=20, monthly_usd=100 / NANO)
    within, start = bounds(limits, limits), clock()
    clock.now = start + 40 * 24 * HOUR_S
    _, reservation_id = await reserved(meter, clock, within, nano=100)
    await meter.settle(reservation_id, Used(1, 10, 100))

    clock.now = start
    for _ in range(4):
        outcomes = [await refused_for(meter, clock, within, nano=10) for _ in range(3)]
        assert outcomes == [None, None, Measure.REQUESTS]
        clock.advance(60)


async def test_what_is_left_is_that_of_the_scarcer_meter(meter: Meter, clock: FakeClock) -> None:
    own = Limits(requests_per_minute=100, tokens_per_minute=1000)
    within = bounds(own, Limits(requests_per_minute=5))
    verdict, _ = await reserved(meter, clock, within)
    assert verdict.standing.requests == Left(4, 5)
    assert verdict.standing.tokens == Left(990, 1000)
    assert verdict.standing.reset_s == pytest.approx(60 - clock() % 60)


async def test_tenants_and_accounts_do_not_touch_each_other(meter: Meter, clock: FakeClock) -> None:
    one = Limits(requests_per_minute=1)
    for meter_id in (KEY, TENANT, OTHER_KEY, MeterId("other", "key1"), MeterId("other")):
        within = {meter_id: one}
        reservation_id = ReservationId(meter_id.tenant, an_id(), int(clock() + HOUR_S))
        reservation = Reservation(reservation_id, (meter_id,), clock(), 1)
        assert (await meter.reserve(reservation, within)).refusal is None
