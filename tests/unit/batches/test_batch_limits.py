"""Batches of callers with limits: lines wait for room, and fail only where there will be none."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.intake import message_of
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Metering
from synapse.domain.access import Limits, Principal
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.job import Outcome, Served
from synapse.domain.metering import NANO, NOTHING_USED, MeterId, Reservation, ReservationId
from synapse.domain.routing import PoolView
from synapse.ports import Idempotency
from synapse.ports.file_batches import LineRequest
from tests.factories import a_pool
from tests.fake_file_batches import PlainCodec
from tests.fake_meter import MemoryMeter
from tests.faults import failing_after, failing_before
from tests.unit.batches.batch_world import BatchWorld, a_line

KEY = MeterId("default", "key1")
LINE_NANO = 1000
"""What a line is reserved: a pool's slot, for as long as its items take at most."""


class LimitedWorld(BatchWorld):
    """A batch world in which everything is counted. A line really costs `cost_nano`."""

    def __init__(self, cost_nano: int = LINE_NANO, **limits: Any) -> None:
        super().__init__()
        self.caller = Principal("default", "key1", limits=Limits(**limits))
        self.meter = MemoryMeter()
        self.metering = Metering(self.meter, self.views, self.clock)
        self.jobs: Any = MeteredJobs(self.jobs, self.metering)
        self.cost_nano = cost_nano
        self.most_spent = 0

    async def views(self, spec: object, tier: object) -> list[PoolView]:
        price = LINE_NANO / NANO * 3600 / 600
        pool = a_pool(price_per_hour_usd=price)
        return [PoolView(pool, slots=1, ready=1)]

    def tools(self, **wrapped: Any) -> Any:
        return super().tools(**{"metering": self.metering, **wrapped})

    def _outcome(self, job: Any) -> Outcome:
        outcome = super()._outcome(job)
        served = Served("cpu", "cpu", 1, active_usd=self.cost_nano / NANO)
        return Outcome(
            outcome.job_id, outcome.state, outcome.result, outcome.usage, outcome.failure, served
        )

    @property
    def spent(self) -> int:
        return self.meter.counts(KEY, self.clock()).nano_usd


class LongCodec(PlainCodec):
    """Each line asks for as many tokens as its prompt says, in words of its own."""

    async def parse(self, *args: Any) -> LineRequest:
        request = await super().parse(*args)
        parameters = {"max_tokens": int(str(request.input.prompt))}
        value = replace(request.input, parameters=parameters)
        return replace(request, input=value, length_at="how_long")


class OpenCodec(PlainCodec):
    """Each line leaves open how long its answer may be, as a chat does."""

    async def parse(self, *args: Any) -> LineRequest:
        request = await super().parse(*args)
        return replace(request, input=replace(request.input, parameters={"max_tokens": None}))


async def test_a_line_that_leaves_its_length_open_may_have_what_the_limits_leave() -> None:
    world = LimitedWorld(max_tokens_per_request=300)
    world.codec = OpenCodec()

    await world.created([a_line(1)], caller=world.caller)
    batch = await world.run()

    assert batch.counts.completed == 1


@pytest.mark.parametrize("tokens", [500, 10**6])
async def test_a_line_that_asks_for_too_many_tokens_is_told_where(tokens: int) -> None:
    world = LimitedWorld(max_tokens_per_request=300)
    world.codec = LongCodec()
    body = {"model": "echo", "prompt": str(tokens)}

    await world.created([a_line(1, body=body)], caller=world.caller)
    await world.run()

    [error] = await world.errors()
    assert error["response"]["body"]["error"]["message"].startswith("how_long: ")


async def test_a_budget_that_ends_in_the_middle_fails_the_rest_with_its_cause() -> None:
    world = LimitedWorld(monthly_usd=10.5 * LINE_NANO / NANO)
    await world.created((a_line(n) for n in range(1, 41)), caller=world.caller)

    batch = await world.run()

    assert batch.status is FileBatchStatus.COMPLETED
    assert (batch.counts.completed, batch.counts.failed) == (10, 30)
    assert set(await world.output()) == {f"c{n}" for n in range(1, 11)}
    errors = await world.errors()
    assert [line["custom_id"] for line in errors] == [f"c{n}" for n in range(11, 41)]
    assert {line["response"]["body"]["error"]["code"] for line in errors} == {"insufficient_quota"}
    assert world.spent == 10 * LINE_NANO


async def test_what_lines_did_not_use_is_there_for_those_after_them() -> None:
    world = LimitedWorld(cost_nano=LINE_NANO // 10, monthly_usd=4 * LINE_NANO / NANO)
    await world.created((a_line(n) for n in range(1, 51)), caller=world.caller)

    batch = await world.run()

    # After n lines n/10 of a line's reserve is used: the last to fit is the 31st.
    assert batch.counts.completed == 31
    assert batch.counts.failed == 19
    assert world.spent == 31 * LINE_NANO // 10


async def test_money_that_other_work_of_the_key_holds_is_waited_for_and_fails_no_line() -> None:
    world = LimitedWorld(cost_nano=LINE_NANO // 10, monthly_usd=10 * LINE_NANO / NANO)
    other = ReservationId("default", "another", int(world.clock()) + 3600)
    held = Reservation(other, (KEY,), world.clock(), 1, 10 * LINE_NANO)
    await world.meter.reserve(held, {KEY: world.caller.limits})
    await world.created((a_line(n) for n in range(1, 31)), caller=world.caller)

    for _ in range(3):
        progress = await world.step()
        assert not progress.is_done
    assert (progress.wait_s, world.batch.counts.failed) == (2, 0)
    await world.meter.settle(other, NOTHING_USED)
    batch = await world.run()

    assert (batch.counts.completed, batch.counts.failed) == (30, 0)


async def test_a_budget_is_passed_by_no_more_than_lines_were_reserved_too_little() -> None:
    world = LimitedWorld(cost_nano=LINE_NANO * 3, concurrent_jobs=1, monthly_usd=10e-6)
    await world.created((a_line(n) for n in range(1, 31)), caller=world.caller)
    await world.run()
    assert 9e-6 * NANO < world.spent <= 10e-6 * NANO + 2 * LINE_NANO


async def test_a_minute_that_is_full_is_waited_for_and_fails_no_line() -> None:
    world = LimitedWorld(requests_per_minute=10)
    await world.created((a_line(n) for n in range(1, 31)), caller=world.caller)
    started_at, waits = world.clock(), 0
    while not (progress := await world.step()).is_done:
        await world.work()
        if 0 < world.batch.read_to.offset < world.batch.input_bytes:
            waits += 1
            assert len(world.completions) == 10 * waits
            assert progress.wait_s <= 60
        world.clock.advance(progress.wait_s)
    assert (world.batch.counts.completed, world.batch.counts.failed) == (30, 0)
    assert waits == 2
    assert world.clock() - started_at < 150


async def test_lines_take_turns_where_few_may_be_under_way() -> None:
    world = LimitedWorld(concurrent_jobs=3)
    await world.created((a_line(n) for n in range(1, 21)), caller=world.caller)
    while not (await world.step()).is_done:
        assert world.meter.counts(KEY, world.clock()).open <= 3
        await world.work()
    assert world.batch.counts.completed == 20
    assert world.meter.counts(KEY, world.clock()).open == 0


async def test_a_line_that_can_never_fit_fails_and_its_neighbours_do_not() -> None:
    world = LimitedWorld(tokens_per_minute=1100)
    long = {"model": "echo", "prompt": "p" * 1000}
    lines = [a_line(1), a_line(2, body=long), a_line(3)]
    await world.created(lines, caller=world.caller)
    while not (progress := await world.step()).is_done:
        await world.work()
        world.clock.advance(progress.wait_s)
    assert set(await world.output()) == {"c1", "c3"}
    [error] = await world.errors()
    assert error["response"]["body"]["error"]["code"] == "rate_limit_exceeded"


async def test_a_line_that_asks_for_more_than_one_request_may_fails() -> None:
    world = LimitedWorld(max_tokens_per_request=500)
    await world.created([a_line(1)], caller=world.caller)
    await world.run()
    [error] = await world.errors()
    assert "may use 500 tokens" in error["response"]["body"]["error"]["message"]


async def test_a_step_that_was_lost_counts_its_lines_once() -> None:
    world = LimitedWorld(requests_per_minute=30)
    await world.created((a_line(n) for n in range(1, 16)), caller=world.caller)
    await world.step()

    class Lost:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.batches, name)

        async def save(self, batch: object) -> bool:
            raise Unavailable("the record cannot be written")

    with pytest.raises(Unavailable):
        await world.step(batches=Lost())
    assert world.meter.counts(KEY, world.clock()).requests == 15
    await world.work()
    await asyncio.gather(world.step(), world.step())
    batch = await world.run()
    assert batch.counts.completed == 15
    counts = world.meter.counts(KEY, world.clock())
    assert (counts.requests, counts.open) == (15, 0)


async def test_lines_that_a_lost_step_has_submitted_are_answered_though_the_budget_is_used() -> (
    None
):
    world = LimitedWorld(monthly_usd=5 * LINE_NANO / NANO)
    await world.created((a_line(n) for n in range(1, 6)), caller=world.caller)
    await world.step()
    lost = world.batch
    await world.step()
    await world.work()
    # The step is forgotten, and its lines are met again when nothing is left of the budget.
    world.batches.batches[lost.id] = lost
    batch = await world.run()
    assert (batch.counts.completed, batch.counts.failed) == (5, 0)


async def test_what_a_lost_step_has_counted_and_not_submitted_comes_back_with_a_cancel() -> None:
    world = LimitedWorld(concurrent_jobs=20, monthly_usd=1.0)
    await world.created((a_line(n) for n in range(1, 11)), caller=world.caller)
    await world.step()
    with pytest.raises(Unavailable):
        await world.step(store=failing_before(world.jobs, create=[Unavailable("down")] * 10))
    assert world.meter.counts(KEY, world.clock()).open == 10

    await world.use_cases.cancel("default", world.batch_id)
    assert (await world.run()).status is FileBatchStatus.CANCELLED

    counts = world.meter.counts(KEY, world.clock())
    assert (counts.requests, counts.open, counts.nano_usd) == (0, 0, 0)


async def test_a_batch_of_a_caller_without_limits_is_not_counted() -> None:
    world = LimitedWorld()
    await world.created((a_line(n) for n in range(1, 6)), caller=world.caller)
    await world.run()
    assert world.meter.entries == []
    assert await world.jobs.made_with("default", Idempotency("k", "f")) is None


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_fails_on_the_way_each_line_counts_once_and_nothing_stays_open(
    seed: int,
) -> None:
    chance = random.Random(seed)
    world = LimitedWorld(concurrent_jobs=7, monthly_usd=1.0)
    lines = 60
    await world.created((a_line(n) for n in range(1, lines + 1)), caller=world.caller)

    def faults() -> list[BaseException | None]:
        return [Unavailable("for now") if chance.random() < 0.1 else None for _ in range(10)]

    for _ in range(1000):
        fails = failing_after if chance.random() < 0.5 else failing_before
        parts: dict[str, Any] = {
            "store": fails(world.jobs, create=faults()),
            "queue": fails(world.queue, send=faults()),
            "batches": failing_before(world.batches, save=faults()),
        }
        try:
            if (await world.step(**parts)).is_done:
                break
        except Unavailable:
            pass
        # The sweeper sends again what no message tells of.
        world.queue.messages.clear()
        for job in await world.jobs.due(world.clock() + 3600, 100):
            await world.queue.send([message_of(job)])
        await world.work(chance.randrange(8))

    assert world.batch.counts.completed == lines
    counts = world.meter.counts(KEY, world.clock())
    assert (counts.requests, counts.open) == (lines, 0)
    assert counts.nano_usd == lines * LINE_NANO
