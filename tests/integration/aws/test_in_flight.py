"""What is in flight in DynamoDB: the same count as in memory, whatever happens side by side."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.local.slots import SlotLedger
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.ports import Entry
from tests.aws import Aws, Call, aws, intercepted
from tests.fakes import FakeClock
from tests.integration.aws.faults import cancelled_on_the_way, client_error, failing

START = 1_800_000_000.0
"""The beginning of a minute."""

OUTAGE = client_error("InternalServerError", "UpdateItem", 500)


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.now = START
    return clock


def counter(cloud: Aws, clock: FakeClock) -> DynamoInFlight:
    return DynamoInFlight(cloud.dynamodb, cloud.registry_table, clock=clock)


def stored(cloud: Aws, model: str = "m") -> dict[str, Any]:
    key = {"pk": {"S": f"in-flight#{model}#cpu"}, "sk": {"S": "total"}}
    return cloud.dynamodb.get_item(TableName=cloud.registry_table, Key=key).get("Item", {})


def minutes(cloud: Aws) -> dict[str, int]:
    """The sums by minute, as stored."""
    return {k: int(v["N"]) for k, v in stored(cloud).items() if k.startswith("until_")}


async def test_a_thousand_at_once_and_exactly_the_limit_come_in(
    cloud: Aws, clock: FakeClock
) -> None:
    counters = [counter(cloud, clock) for _ in range(10)]

    entries = await asyncio.gather(
        *(counters[n % 10].enter("m", "cpu", 1, 100, clock.now + 60) for n in range(1000))
    )

    admitted = [entry for entry in entries if entry is not None]
    assert len(admitted) == 100
    assert sorted(entry.ahead for entry in admitted) == list(range(100))
    assert await counters[0].count("m", "cpu") == 100


async def test_entering_is_one_write_and_leaving_another(cloud: Aws, clock: FakeClock) -> None:
    calls: list[str] = []

    def noted(make_call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        calls.append(operation)
        return make_call(operation, arguments)

    with intercepted(cloud.dynamodb, noted):
        entry = await counter_with(cloud, clock)
    # The first of a minute also notes the peak.
    assert calls == ["UpdateItem"] * 3
    assert entry.ahead == 0

    calls.clear()
    with intercepted(cloud.dynamodb, noted):
        await counter_with(cloud, clock)
    assert calls == ["UpdateItem", "UpdateItem"]


async def counter_with(cloud: Aws, clock: FakeClock) -> Entry:
    in_flight = counter(cloud, clock)
    entry = await in_flight.enter("m", "cpu", 1, 5, clock.now + 60)
    assert entry is not None
    await in_flight.leave(entry)
    return entry


async def test_what_crashed_holders_had_is_given_to_whoever_is_refused(
    cloud: Aws, clock: FakeClock
) -> None:
    crashed = counter(cloud, clock)
    assert await crashed.enter("m", "cpu", 5, 5, clock.now + 90)
    others = counter(cloud, clock)
    assert await others.enter("m", "cpu", 1, 5, clock.now + 600) is None

    clock.now += 120

    entry = await others.enter("m", "cpu", 5, 5, clock.now + 600)
    assert entry is not None
    assert entry.ahead == 0
    assert await others.count("m", "cpu") == 5


async def test_a_day_of_traffic_leaves_an_item_as_small_as_its_open_minutes(
    cloud: Aws, clock: FakeClock
) -> None:
    in_flight = counter(cloud, clock)

    for _ in range(180):
        clock.now += 40
        entry = await in_flight.enter("m", "cpu", 1, 5, clock.now + 600)
        assert entry is not None
        await in_flight.leave(entry)

    assert len(minutes(cloud)) <= 12
    assert int(stored(cloud)["total"]["N"]) == 0


async def test_an_entry_that_is_left_after_its_minute_takes_nothing_from_the_others(
    cloud: Aws, clock: FakeClock
) -> None:
    in_flight = counter(cloud, clock)
    late = await in_flight.enter("m", "cpu", 2, 5, clock.now + 60)
    assert late is not None
    clock.now += 60
    assert await in_flight.enter("m", "cpu", 1, 5, clock.now + 60)

    await in_flight.leave(late)

    assert await in_flight.count("m", "cpu") == 1


async def test_an_outage_while_leaving_costs_the_caller_nothing(
    cloud: Aws, clock: FakeClock
) -> None:
    in_flight = counter(cloud, clock)
    entry = await in_flight.enter("m", "cpu", 1, 5, clock.now + 60)
    assert entry is not None

    with failing(cloud.dynamodb, OUTAGE):
        await in_flight.leave(entry)

    assert await in_flight.count("m", "cpu") == 1
    clock.now += 60
    assert await in_flight.count("m", "cpu") == 0


async def test_who_is_cancelled_on_the_way_in_is_not_counted(cloud: Aws, clock: FakeClock) -> None:
    in_flight = counter(cloud, clock)

    await cancelled_on_the_way(
        cloud.dynamodb, "UpdateItem", in_flight.enter("m", "cpu", 1, 5, clock.now + 60)
    )

    assert await in_flight.count("m", "cpu") == 0
    assert await in_flight.enter("m", "cpu", 5, 5, clock.now + 60) is not None


async def test_who_is_cancelled_on_the_way_to_a_full_pool_leaves_the_others(
    cloud: Aws, clock: FakeClock
) -> None:
    in_flight = counter(cloud, clock)
    await in_flight.enter("m", "cpu", 5, 5, clock.now + 60)

    await cancelled_on_the_way(
        cloud.dynamodb, "UpdateItem", in_flight.enter("m", "cpu", 1, 5, clock.now + 60)
    )

    assert await in_flight.count("m", "cpu") == 5


async def test_who_is_cancelled_on_the_way_in_while_there_is_an_outage_is_just_cancelled(
    cloud: Aws, clock: FakeClock
) -> None:
    in_flight = counter(cloud, clock)

    with failing(cloud.dynamodb, OUTAGE):
        await cancelled_on_the_way(
            cloud.dynamodb, "UpdateItem", in_flight.enter("m", "cpu", 1, 5, clock.now + 60)
        )

    assert await in_flight.count("m", "cpu") == 0


async def test_an_outage_is_told_to_who_wants_in(cloud: Aws, clock: FakeClock) -> None:
    with failing(cloud.dynamodb, OUTAGE), pytest.raises(Unavailable):
        await counter(cloud, clock).enter("m", "cpu", 1, 5, clock.now + 60)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(1, 4), st.integers(1, 3)),
        st.tuples(st.just("leave"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 2), st.just(0)),
    ),
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=40, deadline=None)
def test_it_counts_as_the_ledger_in_memory_does(steps: list[tuple[str, int, int]]) -> None:
    with aws() as cloud:
        asyncio.run(compare(cloud, steps))


async def compare(cloud: Aws, steps: list[tuple[str, int, int]]) -> None:
    clock = FakeClock()
    clock.now = START
    ours, model = counter(cloud, clock), SlotLedger(clock)
    entries: list[tuple[Entry, Entry]] = []
    for step, number, lifetime in steps:
        if step == "pass":
            clock.now += 60 * number
        elif step == "leave" and number < len(entries):
            await ours.leave(entries[number][0])
            await model.leave(entries[number][1])
        elif step == "enter":
            expires_at = clock.now + 60 * lifetime
            tier = list(SlaTier)[(number + lifetime) % 3]
            entered = await ours.enter("m", "cpu", number, 8, expires_at, tier)
            expected = await model.enter("m", "cpu", number, 8, expires_at, tier)
            assert (entered and entered.ahead) == (expected and expected.ahead)
            if entered and expected:
                entries.append((entered, expected))
        assert await ours.count("m", "cpu") == await model.count("m", "cpu")
        found, wanted = await ours.traffic_of("m", "cpu"), await model.traffic_of("m", "cpu")
        assert (found.better, found.bronze) == (wanted.better, wanted.bronze)
        assert sum(minutes(cloud).values()) == int(stored(cloud).get("total", {"N": "0"})["N"])
