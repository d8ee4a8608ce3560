"""Receipts: what jobs and requests on the line are told they cost, and what is counted of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import uvloop

from synapse.domain.access import Principal
from synapse.domain.batching import Batch
from synapse.domain.errors import (
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import Job, JobId, JobState, Lease, Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.receipt import Cost, Receipt, receipt_of
from synapse.domain.usage import UsageKey, Used, day_of, one_request, summed, used_by
from synapse.ports import InferenceRequest
from tests.factories import NOW, a_batch, a_chat_model, a_model, a_pool, a_worker
from tests.fakes import Answer, FakeClock, MemoryBlobStore, MemoryRegistry, ScriptedEngine
from tests.faults import failing_before
from tests.patience import until
from tests.unit.application.cold_world import ColdWorld
from tests.unit.application.stepping import a_request
from tests.unit.application.world import CHAT, World

CALLER = Principal("acme", "key-1")
DAY = day_of(NOW)
DEAR = a_pool("gpu", accelerator="gpu", price_per_hour_usd=3.6, slots={"echo": 4, CHAT: 4})
"""A tenth of a cent for a second of a worker of four slots."""


class SlowEngine(ScriptedEngine):
    """Takes two seconds for everything."""

    def __init__(self, clock: FakeClock, **answers: Answer) -> None:
        super().__init__()
        self._clock, self._answers = clock, answers

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        self._clock.advance(2.0)
        async for job_id, outcome in super().infer(model, pool, requests):
            asked = next(r for r in requests if r.id == job_id)
            yield job_id, self._answers.get(str(asked.input.prompt), outcome)


class FullHouse:
    """Seats of which none is free."""

    async def take(self, *args: object) -> None:
        raise Overloaded("full", retry_after_s=1)


def slow_world(pool: Pool = DEAR, **answers: Answer) -> World:
    clock = FakeClock()
    registry = MemoryRegistry([a_model("echo"), a_chat_model(CHAT)], [pool])
    return World(clock=clock, engine=SlowEngine(clock, **answers), registry=registry)


async def test_a_job_has_a_receipt_with_its_share_of_the_slots() -> None:
    world = slow_world()
    job = await world.submit("three little words")
    world.clock.advance(5.0)

    await world.runner.run(a_batch(job.id), DEAR)

    receipt = receipt_of(await world.job(job.id))
    assert receipt is not None
    assert (receipt.queue_ms, receipt.inference_ms, receipt.cold_ms) == (5000.0, 2000.0, 0.0)
    assert (receipt.pool, receipt.accelerator, receipt.batch_size) == ("gpu", "gpu", 1)
    assert receipt.usage == Usage(3, 3)
    # Two seconds of one of four slots; the pool was up for seven and worked for half of one.
    assert receipt.cost.active_usd == pytest.approx(0.0005)
    assert receipt.cost.warm_usd == pytest.approx(0.001 * 6.5 * 0.5 / 60, rel=0.01)


async def test_more_jobs_than_slots_never_pay_for_more_than_the_worker() -> None:
    world = slow_world()
    jobs = [await world.submit(f"job {n}") for n in range(10)]

    await world.runner.run(a_batch(*(job.id for job in jobs)), DEAR)

    receipts = [receipt_of(await world.job(job.id)) for job in jobs]
    assert sum(r.cost.active_usd for r in receipts if r) == pytest.approx(0.002)


async def test_samples_are_paid_for_each() -> None:
    world = slow_world()
    one = await world.submit("a", model=CHAT)
    three = await world.submit("a", model=CHAT, input=ModelInput("a", samples=3))

    await world.runner.run(a_batch(one.id, model=CHAT), DEAR)
    await world.runner.run(a_batch(three.id, model=CHAT), DEAR)

    first, second = [receipt_of(await world.job(job.id)) for job in (one, three)]
    assert first and second
    assert second.cost.active_usd == pytest.approx(3 * first.cost.active_usd)


async def test_a_refused_job_pays_for_its_time_and_one_that_expired_unseen_for_nothing() -> None:
    world = slow_world(bad=InvalidInput("no"))
    bad = await world.submit("bad")
    late = await world.submit("late", timeout_s=1.0)
    world.clock.advance(3.0)

    await world.runner.run(a_batch(bad.id), DEAR)
    await world.runner.run(a_batch(late.id), DEAR)

    refused, expired = [await world.job(job.id) for job in (bad, late)]
    assert (refused.state, expired.state) == (JobState.FAILED, JobState.EXPIRED)
    assert refused.served is not None and refused.served.active_usd == pytest.approx(0.0005)
    assert (expired.served, receipt_of(expired)) == (None, None)


async def is_read(world: World, job: Job) -> None:
    await world.results.get(job.id, "acme")


async def is_swept(world: World, job: Job) -> None:
    await world.sweeper.sweep()


async def is_left_to_its_runner(world: World, job: Job) -> None:
    pass


Notice = Callable[[World, Job], Awaitable[None]]
NOTICED: list[Notice] = [is_read, is_swept, is_left_to_its_runner]


@pytest.mark.parametrize("notice", NOTICED)
async def test_what_is_used_of_a_job_that_expires_at_its_worker_is_counted_whoever_notices(
    notice: Notice,
) -> None:
    world = slow_world(late=EngineTimeout("its time was up"))
    job = await world.submit("late", timeout_s=2.0, caller=CALLER)
    settle = world.store.settle

    async def noticed_meanwhile(*args: Any) -> Job | None:
        await notice(world, job)
        ended: Job | None = await settle(*args)
        return ended

    world.store.settle = noticed_meanwhile
    for _ in range(2):  # a batch may be delivered twice
        await world.runner.run(a_batch(job.id), DEAR)

    assert (await world.job(job.id)).state is JobState.EXPIRED
    [used] = world.usage.sums.values()
    assert (used.requests, used.errors) == (1, 1)
    assert used.cost.active_usd == pytest.approx(0.0005)


@pytest.mark.parametrize("notice", NOTICED)
async def test_what_expires_while_no_worker_takes_it_has_no_receipt_whoever_notices(
    notice: Notice,
) -> None:
    world = slow_world(late=EngineUnavailable("it is down"))
    job = await world.submit("late", timeout_s=10.0, caller=CALLER)
    batch = a_batch(job.id)
    with pytest.raises(EngineUnavailable):
        await world.runner.run(batch, DEAR)
    world.clock.advance(10.0)

    await notice(world, job)
    await world.runner.run(batch, DEAR)

    ended = await world.job(job.id)
    assert (ended.state, ended.started_at, ended.usage) == (JobState.EXPIRED, None, None)
    assert receipt_of(ended) is None
    [used] = world.usage.sums.values()
    assert (used.requests, used.errors, used.cost) == (1, 1, Cost())


async def test_who_is_stopped_pays_though_the_end_of_another_cannot_be_written() -> None:
    world = slow_world()
    other = await world.submit("other", model=CHAT)
    stopped = await world.submit("stopped", model=CHAT, caller=CALLER)
    asked: list[JobId] = []
    go_on = asyncio.Event()
    world.engine.infer = held(asked, go_on)
    world.runner.store = failing_before(world.store, settle=[Unavailable("the disk is full")])

    batch = a_batch(other.id, stopped.id, model=CHAT)
    running = asyncio.create_task(world.runner.run(batch, DEAR))
    await until(lambda: len(asked) == 2)
    world.clock.advance(2.0)
    await world.results.cancel(stopped.id, "acme", world.runner.abort)
    go_on.set()
    with pytest.raises(EngineUnavailable, match="full"):
        await running

    used = world.usage.sums[UsageKey("acme", "key-1", CHAT, DAY)]
    assert used.cost.active_usd == pytest.approx(0.0005)


async def test_a_job_that_is_cancelled_while_it_runs_is_paid_for_and_counted_once() -> None:
    world = slow_world()
    job = await world.submit("to the end", caller=CALLER)
    infer = world.engine.infer

    async def cancelled_meanwhile(*args: Any) -> AsyncGenerator[Any, None]:
        await world.results.cancel(job.id, "acme", lambda _: None)
        async for outcome in infer(*args):
            yield outcome

    world.engine.infer = cancelled_meanwhile
    await world.runner.run(a_batch(job.id), DEAR)

    assert (await world.job(job.id)).state is JobState.CANCELLED
    [used] = world.usage.sums.values()
    assert (used.requests, used.errors, used.completion_tokens) == (1, 0, 3)
    assert used.cost.active_usd == pytest.approx(0.0005)


async def test_a_job_that_is_stopped_at_the_engine_is_paid_for_until_then() -> None:
    world = slow_world()
    job = await world.submit("never ends", caller=CALLER)

    async def endless(*_: Any) -> AsyncGenerator[Any, None]:
        world.clock.advance(2.0)
        asyncio.get_running_loop().call_soon(world.runner.abort, job.id)
        await asyncio.Event().wait()
        yield None

    world.engine.infer = endless
    running = asyncio.create_task(world.runner.run(a_batch(job.id), DEAR))
    await asyncio.sleep(0)
    await world.results.cancel(job.id, "acme", lambda _: None)
    await running

    [used] = world.usage.sums.values()
    assert (used.requests, used.completion_tokens) == (1, 0)
    assert used.cost.active_usd == pytest.approx(0.0005)


@pytest.mark.parametrize("is_told_first", [False, True])
async def test_who_cancels_what_is_answered_already_pays_once_for_all_of_it(
    *, is_told_first: bool
) -> None:
    world = slow_world()
    job = await world.submit("to the end", caller=CALLER)
    settle = world.store.settle

    async def cancelled_meanwhile(*args: Any) -> Any:
        if is_told_first:
            await world.results.cancel(job.id, "acme", world.runner.abort)
            return await settle(*args)
        await world.results.cancel(job.id, "acme", lambda _: None)
        asyncio.get_running_loop().call_soon(world.runner.abort, job.id)
        return await settle(*args)

    world.store.settle = cancelled_meanwhile
    await world.runner.run(a_batch(job.id), DEAR)

    [used] = world.usage.sums.values()
    assert (used.requests, used.completion_tokens) == (1, 3)
    assert used.cost.active_usd == pytest.approx(0.0005)


def held(asked: list[JobId], go_on: asyncio.Event) -> Any:
    """An engine's `infer` that notes what it is asked and answers when it may."""

    async def infer(
        model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        asked.append(requests[0].id)
        await go_on.wait()
        yield requests[0].id, Completion("ok", "stop", Usage(1, 1))

    return infer


async def test_who_is_stopped_pays_and_holds_a_slot_no_longer_though_its_batch_goes_on() -> None:
    world = slow_world()
    stopped = await world.submit("stopped", model=CHAT, caller=CALLER)
    other = await world.submit("other", model=CHAT)
    asked: list[JobId] = []
    left: list[Batch] = []
    world.runner.items_left = lambda batch, _: left.append(batch)
    go_on = asyncio.Event()

    world.engine.infer = held(asked, go_on)
    running = asyncio.create_task(world.runner.run(a_batch(stopped.id, other.id, model=CHAT), DEAR))
    await until(lambda: len(asked) == 2)
    world.clock.advance(2.0)
    await world.results.cancel(stopped.id, "acme", world.runner.abort)
    await until(lambda: len(left) == 1)

    world.clock.advance(600.0)
    go_on.set()
    await running

    assert len(left) == 2
    used = world.usage.sums[UsageKey("acme", "key-1", CHAT, DAY)]
    assert used.cost.active_usd == pytest.approx(0.0005)


async def test_a_batch_pays_for_each_of_the_workers_that_it_is_spread_over() -> None:
    world = slow_world()
    jobs = [await world.submit(f"job {n}", model=CHAT) for n in range(8)]
    asked: list[JobId] = []
    placed = itertools.cycle([replace(DEAR, worker="w-1"), replace(DEAR, worker="w-2")])
    go_on = asyncio.Event()

    async def place(spec: ModelSpec, pool: Pool, affinity: str = "", *, wary: bool = False) -> Pool:
        return next(placed)

    world.runner.place, world.engine.infer = place, held(asked, go_on)
    batch = a_batch(*(job.id for job in jobs), model=CHAT)
    running = asyncio.create_task(world.runner.run(batch, DEAR))
    await until(lambda: len(asked) == 8)
    world.clock.advance(2.0)
    go_on.set()
    await running

    receipts = [receipt_of(await world.job(job.id)) for job in jobs]
    # Two workers of four slots, all of them taken for two seconds.
    assert sum(r.cost.active_usd for r in receipts if r) == pytest.approx(0.004)


async def test_samples_beyond_the_slots_never_pay_for_more_than_the_worker() -> None:
    world = slow_world()
    jobs = [await world.submit("a", input=ModelInput("a", samples=4)) for _ in range(4)]

    await world.runner.run(a_batch(*(job.id for job in jobs)), DEAR)

    receipts = [receipt_of(await world.job(job.id)) for job in jobs]
    assert sum(r.cost.active_usd for r in receipts if r) == pytest.approx(0.002)


async def test_a_result_that_is_late_for_our_own_faults_costs_nothing() -> None:
    world = slow_world()
    job = await world.submit("slow", caller=CALLER)
    infer = world.engine.infer

    async def taken_over(*args: Any) -> AsyncGenerator[Any, None]:
        world.clock.advance(world.runner.lease_s + 1)
        await world.store.claim([job.id], Lease("other", world.clock() + 60), world.clock())
        async for outcome in infer(*args):
            yield outcome

    world.engine.infer = taken_over
    await world.runner.run(a_batch(job.id), DEAR)

    assert (await world.job(job.id)).state is JobState.RUNNING
    assert world.usage.sums == {}


async def test_a_pool_that_is_paid_by_the_call_keeps_nothing_warm() -> None:
    pool = replace(DEAR, endpoint="127.0.0.1:8001", max_workers=10, paid_by_call=True)
    world = slow_world(pool)
    job = await world.submit("x")
    world.clock.advance(1000.0)

    await world.runner.run(a_batch(job.id), pool)

    # All of the worker for two seconds: it was called for this job, and has three slots empty.
    receipt = receipt_of(await world.job(job.id))
    assert receipt is not None
    assert receipt.cost.active_usd == pytest.approx(0.002)
    assert receipt.cost.warm_usd == 0.0


async def test_what_is_paid_by_the_call_is_shared_by_the_items_of_the_run() -> None:
    pool = replace(DEAR, endpoint="127.0.0.1:8001", paid_by_call=True)
    world = slow_world(pool)
    one = await world.submit("a", model=CHAT)
    three = await world.submit("b", model=CHAT, input=ModelInput("b", samples=3))

    await world.runner.run(a_batch(one.id, three.id, model=CHAT), pool)

    receipts = [receipt_of(await world.job(job.id)) for job in (one, three)]
    # The engine takes two seconds for each; the second is done after four, with three quarters.
    active = [receipt.cost.active_usd for receipt in receipts if receipt]
    assert active == pytest.approx([0.001 * 4 / 4, 0.001 * 4 * 3 / 4])


async def test_what_no_worker_took_has_no_share_in_what_is_paid_by_the_call() -> None:
    pool = replace(DEAR, endpoint="127.0.0.1:8001", paid_by_call=True)
    world = slow_world(pool, later=EngineUnavailable("kept for better tiers"))
    later, now = await world.submit("later"), await world.submit("now")

    with pytest.raises(EngineUnavailable):
        await world.runner.run(a_batch(later.id, now.id), pool)

    receipt = receipt_of(await world.job(now.id))
    assert receipt is not None
    assert receipt.cost.active_usd == pytest.approx(0.002)


async def test_a_worker_in_its_runner_that_beats_is_paid_since_it_came_up() -> None:
    pool = replace(DEAR, endpoint="127.0.0.1:8001", beats=True)
    world = slow_world(pool)
    world.clock.advance(1000.0)
    now = world.clock()
    up = a_worker("w-1", "gpu", started_at=now - 3.0, lease_until=now + 60.0)
    await world.workers.beat(up)
    # Of this one only the last words are left.
    await world.workers.beat(replace(up, id="w-2").ended("its card is broken"))
    job = await world.submit("x")

    await world.runner.run(a_batch(job.id), pool)

    receipt = receipt_of(await world.job(job.id))
    # Up for three seconds before, then two in which three of four slots were idle.
    assert receipt is not None
    assert receipt.cost.warm_usd == pytest.approx(0.001 * 4.5 * 0.5 / 60, rel=0.01)


async def test_a_pool_without_a_price_costs_nothing() -> None:
    pool = replace(DEAR, price_per_hour_usd=0.0)
    world = slow_world(pool)
    job = await world.submit("x")

    await world.runner.run(a_batch(job.id), pool)

    receipt = receipt_of(await world.job(job.id))
    assert receipt is not None and receipt.cost == Cost()


async def test_a_request_on_the_line_has_a_receipt_and_is_counted_once() -> None:
    world = World(registry=MemoryRegistry([a_chat_model(CHAT)], [DEAR]))

    answer = await world.direct.run(a_request(input=ModelInput("a b c"), caller=CALLER))

    receipt = answer.receipt
    assert (receipt.pool, receipt.version, receipt.batch_size) == ("gpu", "1", 1)
    assert receipt.usage == Usage(3, 3)
    assert receipt.inference_ms == pytest.approx(
        (answer.timings.total_s - answer.timings.held_s) * 1000
    )
    assert receipt.cost.active_usd == pytest.approx(receipt.inference_ms / 1000 * 0.001 / 4)
    key = UsageKey("acme", "key-1", CHAT, DAY)
    assert world.usage.sums == {key: one_request(receipt.usage, receipt.cost)}


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_takes_less_than_a_millisecond_takes_some_time_and_has_a_price(run: Any) -> None:
    world = World(registry=MemoryRegistry([a_chat_model(CHAT)], [DEAR]))

    async def receipts() -> list[Receipt]:
        return [(await world.direct.run(a_request(caller=CALLER))).receipt for _ in range(20)]

    for receipt in run(receipts()):
        assert receipt.inference_ms > 0
        assert receipt.cost.active_usd > 0


async def test_a_stream_that_is_left_pays_for_what_was_written() -> None:
    world = World(registry=MemoryRegistry([a_chat_model(CHAT)], [DEAR]))
    request = a_request(input=ModelInput("a b c d"), caller=CALLER, stream_s=60.0)

    async with await world.direct.begin(request) as generation:
        async for _ in generation.deltas():
            break

    [(_, used)] = world.usage.sums.items()
    assert (used.requests, used.errors, used.prompt_tokens) == (1, 0, 4)
    assert used.completion_tokens >= 1
    assert used.active > 0
    assert generation.receipt is not None
    assert generation.receipt.worker == ""


async def test_a_failed_request_counts_as_an_error_and_a_refused_one_not_at_all() -> None:
    world = World(engine=ScriptedEngine({"r-1": EngineError("broken")}))
    with pytest.raises(EngineError):
        await world.direct.run(a_request(caller=CALLER))
    assert [(u.requests, u.errors) for u in world.usage.sums.values()] == [(1, 1)]

    full: Any = FullHouse()
    with pytest.raises(Overloaded):
        await replace(world.direct, seats=full).run(a_request(caller=CALLER))
    assert [(u.requests, u.errors) for u in world.usage.sums.values()] == [(1, 1)]


async def test_a_kept_answer_counts_as_a_request_that_cost_nothing() -> None:
    world = World()
    spec, result = a_chat_model(CHAT), Completion("x", "stop", Usage(5, 7))

    receipt = await world.direct.replay(a_request(caller=CALLER), spec, result)

    assert (receipt.pool, receipt.cost) == ("", Cost())
    assert world.usage.sums == {UsageKey("acme", "key-1", CHAT, DAY): Used(1, 0, 5, 7)}


async def test_jobs_and_requests_together_are_what_the_receipts_say() -> None:
    world = slow_world(bad=InvalidInput("no"))
    jobs = [await world.submit(prompt, caller=CALLER) for prompt in ("a", "b c", "bad", "d")]
    await world.runner.run(a_batch(*(job.id for job in jobs)), DEAR)
    cancelled = await world.submit("e", caller=CALLER)
    await world.results.cancel(cancelled.id, "acme", lambda _: None)
    answers = await asyncio.gather(
        *(world.direct.run(a_request(id=f"r-{n}", caller=CALLER)) for n in range(5))
    )

    ended = [await world.job(job.id) for job in [*jobs, cancelled]]
    key = UsageKey("acme", "key-1", CHAT, DAY)
    on_the_line = [(key, one_request(a.receipt.usage, a.receipt.cost)) for a in answers]
    assert world.usage.sums == summed([*on_the_line, *(used_by(job) for job in ended)])
    assert sum(used.requests for used in world.usage.sums.values()) == 10
    assert sum(used.errors for used in world.usage.sums.values()) == 1


async def test_of_a_wait_at_zero_the_receipt_says_how_much_was_cold() -> None:
    world = ColdWorld()
    accepted = await world.accepted()
    world.clock.advance(12.0)
    await world.workers.beat(
        a_worker(started_at=NOW + 2.0, beat_at=NOW + 12.0, lease_until=NOW + 60.0)
    )
    await world.roster.workers()
    world.clock.advance(3.0)

    await world.runner.run(a_batch(accepted.job.id), DEAR)

    receipt = receipt_of(await world.job(accepted.job.id))
    assert receipt is not None
    assert (receipt.queue_ms, receipt.cold_ms) == (15_000.0, 12_000.0)


async def test_a_job_that_came_while_a_worker_was_up_never_waited_for_one() -> None:
    world = ColdWorld()
    await world.workers.beat(a_worker(started_at=NOW - 100.0, lease_until=NOW + 60.0))
    accepted = await world.accepted()
    world.clock.advance(3.0)

    await world.runner.run(a_batch(accepted.job.id), DEAR)

    receipt = receipt_of(await world.job(accepted.job.id))
    assert receipt is not None and receipt.cold_ms == 0.0


class SlowBlobStore(MemoryBlobStore):
    """Takes 3 s for everything."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(inline_bytes=4)
        self._clock = clock

    async def put(self, key: str, data: bytes) -> None:
        self._clock.advance(3.0)
        await super().put(key, data)

    async def get(self, key: str) -> bytes:
        self._clock.advance(3.0)
        return await super().get(key)


async def test_the_time_in_which_input_and_result_are_fetched_and_stored_is_not_the_workers() -> (
    None
):
    world = slow_world()
    world.blobs = world.runner.blobs = SlowBlobStore(world.clock)
    job = await world.submit("three little words")

    await world.runner.run(a_batch(job.id), DEAR)

    receipt = receipt_of(await world.job(job.id))
    assert receipt is not None
    # As above: two seconds of one of four slots.
    assert receipt.cost.active_usd == pytest.approx(0.0005)
    rate = await world.registry.service_rate("echo", world.clock())
    assert rate.busy_s == pytest.approx(2.0)
