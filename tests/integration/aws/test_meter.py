"""Meters in DynamoDB: the sums of what was reserved and used, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.adapters.aws import meter as module
from synapse.adapters.aws.meter import CONFLICTS, DynamoMeter
from synapse.domain.access import Limits
from synapse.domain.errors import Unavailable
from synapse.domain.meter_ledger import EXPIRY_EVERY_S
from synapse.domain.metering import (
    NANO,
    Bounds,
    MeterId,
    Reservation,
    ReservationId,
    Used,
    month_of,
)
from tests.aws import Aws, Call, aws, intercepted
from tests.factories import an_id
from tests.fake_meter import MemoryMeter
from tests.fakes import FakeClock
from tests.integration.aws.faults import (
    answers_lost,
    cancelled_on_the_way,
    client_error,
    failing,
    unanswered,
)

KEY, OTHER_KEY, TENANT = MeterId("acme", "key1"), MeterId("acme", "key2"), MeterId("acme")
LIMITS = Limits(
    requests_per_minute=6, tokens_per_minute=90, concurrent_jobs=4, monthly_usd=200 / NANO
)
BOTH: Bounds = {KEY: LIMITS, TENANT: LIMITS}
FOR_EVER = 9_999_999_999


@pytest.fixture
def meter(cloud: Aws, clock: FakeClock) -> DynamoMeter:
    return DynamoMeter(cloud.dynamodb, cloud.access_table, clock=clock)


def asked(clock: FakeClock, bounds: Bounds = BOTH, tokens: int = 10, nano: int = 10) -> Reservation:
    reservation_id = ReservationId("acme", an_id(), FOR_EVER)
    return Reservation(reservation_id, tuple(bounds), clock(), tokens, nano)


def stored(cloud: Aws, sort: str) -> dict[str, int]:
    """The numbers of a meter's item."""
    key = {"pk": {"S": "meter#acme"}, "sk": {"S": sort}}
    item = cloud.dynamodb.get_item(TableName=cloud.access_table, Key=key).get("Item", {})
    return {name: int(value["N"]) for name, value in item.items() if "N" in value}


async def test_nothing_stays_reserved_for_who_goes_away_while_it_is(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    await meter.reserve(asked(clock), BOTH)

    reserving = meter.reserve(asked(clock), BOTH)
    await cancelled_on_the_way(cloud.dynamodb, "TransactWriteItems", reserving)

    assert stored(cloud, "total")["open"] == 1
    assert not (await meter.reserve(asked(clock), BOTH)).refusal


def add(cloud: Aws, sort: str, name: str, by: int) -> None:
    """Change a number of a meter's item."""
    cloud.dynamodb.update_item(
        TableName=cloud.access_table,
        Key={"pk": {"S": "meter#acme"}, "sk": {"S": sort}},
        UpdateExpression="ADD #name :by",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":by": {"N": str(by)}},
    )


def open_items(cloud: Aws) -> int:
    items = cloud.dynamodb.scan(TableName=cloud.access_table)["Items"]
    return sum(item["sk"]["S"].startswith("open#") for item in items)


@contextmanager
def counted_calls(cloud: Aws) -> Iterator[Counter[str]]:
    calls: Counter[str] = Counter()

    def noted(make_call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        calls[operation] += 1
        return make_call(operation, arguments)

    with intercepted(cloud.dynamodb, noted):
        yield calls


def conflict() -> ClientError:
    """What all but one of several transactions on one item are told."""
    error = client_error("TransactionCanceledException", "TransactWriteItems")
    response: Any = error.response
    response["CancellationReasons"] = [{"Code": "None"}, {"Code": "TransactionConflict"}]
    return error


async def test_a_reservation_is_a_read_of_each_meter_and_one_transaction(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    reservation = asked(clock)
    with counted_calls(cloud) as calls:
        await meter.reserve(reservation, BOTH)
        assert calls == {"GetItem": 2, "TransactWriteItems": 1}
        calls.clear()
        await meter.settle(reservation.id, Used(1, 1, 1))
        assert calls == {"GetItem": 1, "TransactWriteItems": 1}


async def test_what_does_not_fit_costs_reads_and_no_transaction(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    with counted_calls(cloud) as calls:
        verdict = await meter.reserve(asked(clock, tokens=91), BOTH)
    assert verdict.refusal is not None
    assert calls == {"GetItem": 2}


async def test_one_whom_others_are_in_the_way_of_tries_again(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    transactions = 0

    def busy(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        nonlocal transactions
        if operation == "TransactWriteItems":
            transactions += 1
            if transactions % 3:
                raise conflict()
        return call(operation, arguments)

    reservation = asked(clock)
    with intercepted(cloud.dynamodb, busy):
        assert (await meter.reserve(reservation, BOTH)).refusal is None
        await meter.settle(reservation.id, Used(1, 3, 4))
    assert transactions == 6
    assert stored(cloud, "total")["open"] == 0
    assert open_items(cloud) == 0


async def test_one_whom_others_are_always_in_the_way_of_is_told_to_come_again(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_pause(seconds: float) -> None:
        assert seconds <= CONFLICTS.max_s

    def busy(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "TransactWriteItems":
            raise conflict()
        return call(operation, arguments)

    monkeypatch.setattr("asyncio.sleep", no_pause)
    with intercepted(cloud.dynamodb, busy), pytest.raises(Unavailable) as caught:
        await meter.reserve(asked(clock), BOTH)
    assert caught.value.retry_after_s == 1
    assert stored(cloud, "total") == {}


async def test_what_others_take_between_the_read_and_the_write_is_not_given_twice(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    """All read before any writes; then the transactions' conditions decide."""
    waiting = asyncio.Event()
    readers = 0
    original = meter._read

    async def read_together(meters: Any) -> Any:
        nonlocal readers
        items = await original(meters)
        readers += 1
        if readers == 12:
            waiting.set()
        await waiting.wait()
        return items

    meter._read = read_together  # type: ignore[method-assign]
    verdicts = await asyncio.gather(*(meter.reserve(asked(clock), BOTH) for _ in range(12)))
    assert sum(verdict.refusal is None for verdict in verdicts) == 4
    assert stored(cloud, "account#key1")["open"] == stored(cloud, "total")["open"] == 4


async def test_answers_that_are_lost_do_not_make_it_count_twice(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    reservation = asked(clock)
    with answers_lost(cloud.dynamodb, "TransactWriteItems"):
        assert (await meter.reserve(reservation, BOTH)).refusal is None
        assert stored(cloud, "total")["open"] == 1
        await meter.settle(reservation.id, Used(1, 5, 5))
    assert stored(cloud, "total")["open"] == 0
    assert stored(cloud, "account#key1")["open"] == 0


async def test_a_reservation_to_which_no_answer_came_is_found_and_not_held_in_vain(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    reservation = asked(clock)
    with unanswered(cloud.dynamodb, "TransactWriteItems"):
        verdict = await meter.reserve(reservation, BOTH)
    assert (verdict.refusal, verdict.is_new) == (None, True)
    assert stored(cloud, "total")["open"] == 1
    await meter.settle(reservation.id, Used(1, 5, 5))
    assert stored(cloud, "total")["open"] == 0


async def test_an_outage_is_told_and_counts_nothing(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    outage = client_error("InternalServerError", "GetItem", 500)
    with failing(cloud.dynamodb, outage, outage), pytest.raises(Unavailable):
        await meter.reserve(asked(clock), BOTH)
    assert stored(cloud, "total") == {}


async def test_minutes_and_months_that_have_passed_are_forgotten(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter
) -> None:
    for _ in range(20):
        reservation = asked(clock)
        assert (await meter.reserve(reservation, BOTH)).refusal is None
        await meter.settle(reservation.id, Used(1, 1, 1))
        clock.advance(60)
    assert len(stored(cloud, "total")) == 2 + 2 + 2 + 1, "two minutes, the month, what is open"
    for _ in range(4):
        clock.advance(31 * 86_400)
        await meter.reserve(asked(clock), BOTH)
    assert sum(name.startswith(("usd", "held")) for name in stored(cloud, "total")) <= 4


async def test_it_keeps_of_few_tenants_when_they_were_last_looked_through(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TENANTS", 2)

    async def refused(tenant: str) -> int:
        """How often it is looked for what has expired."""
        bounds = {MeterId(tenant): Limits(concurrent_jobs=1)}
        with counted_calls(cloud) as calls:
            for _ in range(2):
                number = ReservationId(tenant, an_id(), FOR_EVER)
                await meter.reserve(Reservation(number, tuple(bounds), clock(), 1), bounds)
        return calls["Query"]

    assert [await refused(f"t{number}") for number in range(5)] == [1] * 5
    assert len(meter._expired_at) == 2

    assert (await refused("t4"), await refused("t3")) == (0, 0)
    assert await refused("t0") == 1, "forgotten, so it is done again"
    clock.advance(EXPIRY_EVERY_S)
    assert await refused("t3") == 1
    assert list(meter._expired_at) == ["t0", "t3"], "the longest ago goes first"


@pytest.mark.parametrize("drift", [-70, 70])
async def test_money_that_an_earlier_version_reserved_or_settled_is_told_as_spent_in_the_end(
    cloud: Aws, clock: FakeClock, meter: DynamoMeter, drift: int
) -> None:
    """It did not count what is held: what it did leaves that too low, or too high."""
    bounds: Bounds = {KEY: Limits(monthly_usd=100 / NANO)}
    reservation = asked(clock, bounds, nano=100)
    assert (await meter.reserve(reservation, bounds)).refusal is None
    add(cloud, "account#key1", f"held{month_of(clock())}", drift)
    await meter.settle(reservation.id, Used(1, 1, 100))

    refusal = (await meter.reserve(asked(clock, bounds, nano=1), bounds)).refusal

    assert refusal is not None
    assert refusal.retry_after_s is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 2), st.integers(1, 60)),
        st.tuples(st.just("settle"), st.integers(0, 20), st.integers(0, 80)),
        st.tuples(st.just("pass"), st.sampled_from([20, 60, 86_400]), st.just(0)),
    ),
    max_size=30,
)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_it_counts_as_adding_everything_up_does(steps: list[tuple[str, int, int]]) -> None:
    with aws() as cloud:
        asyncio.run(compare(cloud, steps))


async def compare(cloud: Aws, steps: list[tuple[str, int, int]]) -> None:
    clock, model = FakeClock(), MemoryMeter()
    ours = DynamoMeter(cloud.dynamodb, cloud.access_table, clock=clock)
    bounds: list[Bounds] = [BOTH, {OTHER_KEY: LIMITS, TENANT: LIMITS}, {KEY: LIMITS}]
    ids: list[ReservationId] = []
    for step, number, amount in steps:
        if step == "pass":
            clock.advance(number)
        elif step == "settle" and number < len(ids):
            used = Used(min(1, amount), amount, amount)
            await ours.settle(ids[number], used)
            await model.settle(ids[number], used)
        elif step == "reserve":
            reservation = asked(clock, bounds[number], amount, amount)
            found = await ours.reserve(reservation, bounds[number])
            wanted = await model.reserve(reservation, bounds[number])
            assert found == wanted
            ids.append(reservation.id)
