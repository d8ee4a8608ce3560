"""The router over the fleet as it stands: what it looks at, and whom batches then ask."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from synapse.application.dispatch import need_of_jobs
from synapse.application.ping import BEFORE_ALL_WORK
from synapse.application.routing import affinity_of, need_of
from synapse.application.run_batch import BatchRunner
from synapse.domain.errors import EngineUnavailable
from synapse.domain.extension import Extension
from synapse.domain.inference import ChatMessage, ModelInput
from synapse.domain.job import JobId, JobState, SlaTier
from synapse.domain.model import ModelSpec, ServiceSample
from synapse.domain.pool import IN_RUNNER, Pool
from synapse.domain.profile import Profile
from synapse.domain.window import Opening
from synapse.domain.worker import WorkerState
from tests.factories import a_batch, a_job, a_message
from tests.fakes import MemoryBlobStore, MemoryJobStore, RecordingTelemetry
from tests.unit.application.toy_workers import ECHO, LLM, ToyFleetWorld, a_toy_request

FAST = Pool("fast", "gpu", price_per_hour_usd=9.0, min_workers=0, max_workers=4, startup_s=30.0)
SLOW = Pool("slow", "cpu", price_per_hour_usd=0.1, min_workers=0, max_workers=4, startup_s=5.0)

GOLD = need_of(ECHO, ModelInput("hello"), SlaTier.GOLD)
BRONZE = need_of(ECHO, ModelInput("hello"), SlaTier.BRONZE)


async def two_pools() -> ToyFleetWorld:
    world = ToyFleetWorld([SLOW, FAST])
    await world.up("s-1", "s-2", pool="slow")
    await world.up("f-1", pool="fast")
    await world.profiles.keep(Profile("echo", "1", "slow", "cpu", base_ms=400.0))
    await world.profiles.keep(Profile("echo", "1", "fast", "gpu", base_ms=10.0))
    return world


async def test_gold_goes_where_it_is_fast_and_bronze_where_it_is_cheap() -> None:
    world = await two_pools()

    gold = await world.fleet.routing.decide(ECHO, GOLD)
    bronze = await world.fleet.routing.decide(ECHO, BRONZE)

    assert gold.pools == (FAST, SLOW)
    assert bronze.pools == (SLOW, FAST)
    assert gold.of("slow").slots == 2 * ECHO.slots


async def test_a_prompt_as_token_ids_goes_only_where_engines_take_it() -> None:
    vllm = replace(FAST, extensions=frozenset({Extension.PRIORITY}))
    world = ToyFleetWorld([SLOW, vllm])
    await world.up("s-1", pool="slow")
    await world.up("f-1", pool="fast")

    ids = await world.fleet.routing.decide(LLM, need_of(LLM, ModelInput((5, 17)), SlaTier.GOLD))
    text = await world.fleet.routing.decide(LLM, need_of(LLM, ModelInput("hi"), SlaTier.GOLD))

    assert [pool.name for pool in ids.pools] == ["slow"]
    assert {pool.name for pool in text.pools} == {"slow", "fast"}


async def test_what_is_in_flight_in_a_pool_is_seen() -> None:
    world = await two_pools()
    await world.slots.enter("echo", "slow", 200, 10**6, world.clock.now + 60)

    slow, fast = (await world.fleet.routing.decide(ECHO, BRONZE)).candidates

    assert slow.prediction is not None
    assert fast.prediction is not None
    assert slow.prediction.wait_ms > 0
    assert fast.prediction.wait_ms == 0


async def test_a_pool_at_zero_is_cold_until_its_worker_is_up() -> None:
    world = ToyFleetWorld([SLOW])
    [at_zero] = await world.fleet.routing.views(ECHO)
    await world.up("s-1", pool="slow", state=WorkerState.LOADING, models=())
    world.clock.advance(2.0)
    [starting] = await world.fleet.routing.views(ECHO)
    await world.up("s-1", pool="slow")
    [up] = await world.fleet.routing.views(ECHO)

    assert (at_zero.ready, at_zero.starting, at_zero.starts_in_s) == (0, 0, None)
    assert (starting.ready, starting.starting, starting.starts_in_s) == (0, 1, 3.0)
    assert (up.ready, up.starting) == (1, 0)


async def test_a_pool_whose_runner_brings_its_worker_along_has_as_many_as_it_may() -> None:
    pool = Pool("cpu", "cpu", endpoint=IN_RUNNER, min_workers=0, max_workers=20)
    [view] = await ToyFleetWorld([pool]).fleet.routing.views(ECHO)

    assert (view.ready, view.kept) == (20, 0)


async def test_the_rate_of_the_pool_itself_counts() -> None:
    world = await two_pools()
    await world.registry.record_service(ServiceSample("echo", "slow", 10, 5.0), world.clock.now)

    slow, fast = await world.fleet.routing.views(ECHO)

    assert (slow.seconds_per_item, fast.seconds_per_item) == (0.5, None)


async def test_a_ping_does_not_tell_how_long_a_generation_takes() -> None:
    """It writes one token: by that gold's promise was thought to be kept for any answer."""
    world = await two_pools()
    gold = need_of(LLM, ModelInput("hello"), SlaTier.GOLD)
    unmeasured = await world.fleet.routing.decide(LLM, gold)
    for model in (ECHO, LLM):
        for pool in (FAST, SLOW):
            ping = ServiceSample(model.name, pool.name, 1, 0.02)
            await world.registry.record_service(ping, BEFORE_ALL_WORK)

    assert [view.seconds_per_item for view in await world.fleet.routing.views(ECHO)] == [0.02] * 2
    assert [view.seconds_per_item for view in await world.fleet.routing.views(LLM)] == [None] * 2
    assert await world.fleet.routing.decide(LLM, gold) == unmeasured
    assert "nothing was measured of it yet" in unmeasured.fallback


async def test_a_pool_all_of_whose_workers_fail_is_passed_over_until_they_come_back() -> None:
    world = await two_pools()
    world.engine.mode["f-1"] = "away"
    at = replace(FAST, endpoint="127.0.0.1:1", worker="f-1")
    for _ in range(3):
        await _ask(world, at)

    broken = await world.fleet.routing.decide(ECHO, GOLD)
    world.engine.mode["f-1"] = ""
    await _ask(world, at)
    mended = await world.fleet.routing.decide(ECHO, GOLD)

    assert broken.pools == (SLOW, FAST)
    assert "fast: its circuit breaker is open" in broken.fallback
    assert (mended.pools, mended.fallback) == ((FAST, SLOW), "")


async def test_a_pool_whose_workers_only_answer_late_is_in_doubt_and_one_that_fails_is_not() -> (
    None
):
    world = await two_pools()
    at = replace(FAST, endpoint="127.0.0.1:1", worker="f-1")
    for mode, delay_s in (("", 0.3), ("away", 0.0)):
        world.fleet.vitals.renew("f-1")
        world.engine.mode["f-1"], world.engine.delay_s["f-1"] = mode, delay_s
        for _ in range(3):
            await _ask(world, at)
        fast = (await world.fleet.routing.decide(ECHO, GOLD)).of("fast")
        assert (fast.is_open, fast.is_doubtful) == (True, mode == "")


async def _ask(world: ToyFleetWorld, pool: Pool) -> None:
    async for _ in world.fleet.engine.infer(ECHO, pool, [a_toy_request()]):
        pass


async def test_bronze_is_told_how_much_room_better_tiers_leave() -> None:
    asked: list[tuple[str, int]] = []

    async def see(spec: ModelSpec, pool: Pool, ready: int) -> Opening:
        asked.append((pool.name, ready))
        return Opening(slots=20, limit=7 if pool is SLOW else 11, in_flight=7)

    world = await two_pools()
    routing = replace(world.fleet.routing, see=see)

    bronze = await routing.decide(ECHO, BRONZE)
    assert bronze.pools == (FAST, SLOW)
    assert [bronze.of(pool.name).room for pool in (FAST, SLOW)] == [4, 0]
    assert asked == [("slow", 2), ("fast", 1)]
    assert (await routing.decide(ECHO, GOLD)).pools == (FAST, SLOW)
    assert len(asked) == 2


async def test_needs_of_one_moment_look_at_the_pools_of_a_model_and_tier_once() -> None:
    world = await two_pools()
    looks = 0

    async def see(spec: ModelSpec, pool: Pool, ready: int) -> Opening:
        nonlocal looks
        looks += 1
        return Opening(slots=8, limit=4, in_flight=0)

    routing = replace(world.fleet.routing, see=see)
    decide = routing.at_once()

    few, many = [await decide(ECHO, replace(BRONZE, items=items)) for items in (4, 5)]

    assert looks == 2
    assert [each.of(FAST.name).must_yield for each in (few, many)] == [False, True]
    assert (await decide(ECHO, GOLD)).pools == (await routing.decide(ECHO, GOLD)).pools
    await routing.at_once()(ECHO, BRONZE)
    assert looks == 4


async def test_a_model_without_pools_has_nowhere_to_go() -> None:
    world = ToyFleetWorld([])

    assert (await world.fleet.routing.decide(ECHO, GOLD)).pools == ()


def test_the_need_of_a_generation_is_about_its_first_token() -> None:
    value = ModelInput("x" * 400, parameters={"max_tokens": 10}, samples=2)

    need = need_of(LLM, value, SlaTier.GOLD, 30.0)

    assert (need.prompt_tokens, need.output_tokens, need.items) == (101, 10, 2)
    assert (need.first_token_only, need.deadline_s) == (True, 30.0)
    assert not need_of(ECHO, value, SlaTier.GOLD).first_token_only
    assert need_of(ECHO, value, SlaTier.GOLD).output_tokens == 0


def test_conversations_with_the_same_beginning_have_the_same_affinity() -> None:
    def chat(system: str, question: str) -> ModelInput:
        return ModelInput(messages=(ChatMessage("system", system), ChatMessage("user", question)))

    assert affinity_of(LLM, chat("Be brief.", "a")) == affinity_of(LLM, chat("Be brief.", "b"))
    assert affinity_of(LLM, chat("Be brief.", "a")) != affinity_of(LLM, chat("Be long.", "a"))
    assert affinity_of(LLM, ModelInput((1, 2, 3))) != affinity_of(LLM, ModelInput((1, 2, 4)))
    assert affinity_of(ECHO, ModelInput("hello")) == ""
    assert need_of(LLM, ModelInput("hello"), SlaTier.GOLD, affinity="u-1").affinity == "u-1"


async def batch_of(world: ToyFleetWorld, jobs: int, model: str) -> tuple[BatchRunner, list[JobId]]:
    store = MemoryJobStore(world.clock)
    ids = []
    for _ in range(jobs):
        job = a_job(model=model, created_at=world.clock.now)
        await store.create(job)
        ids.append(job.id)
    runner = BatchRunner(
        store,
        MemoryBlobStore(),
        world.registry,
        world.fleet.engine,
        RecordingTelemetry(),
        world.clock,
        place=world.fleet.placement.place,
    )
    return runner, ids


async def test_a_batch_of_generations_is_spread_over_the_workers_and_each_job_says_where() -> None:
    world = await two_pools()
    runner, ids = await batch_of(world, 12, LLM.name)
    batch = a_batch(*ids, model=LLM.name, fallback="no pool meets tier gold: …")

    await runner.run(batch, SLOW)

    jobs = [await runner.store.get(job_id) for job_id in batch.job_ids]
    served = [job.served for job in jobs if job is not None and job.served is not None]
    assert {job.state for job in jobs if job is not None} == {JobState.COMPLETED}
    assert set(Counter(each.worker for each in served)) == {"s-1", "s-2"}
    assert {(each.pool, each.fallback) for each in served} == {("slow", batch.fallback)}


async def test_a_batch_of_texts_fills_one_worker_after_the_other() -> None:
    pool = replace(SLOW, slots={"echo": 4})
    world = ToyFleetWorld([pool])
    await world.up("s-1", "s-2", "s-3", pool="slow")
    runner, ids = await batch_of(world, 12, "echo")

    await runner.run(a_batch(*ids), pool)

    jobs = [await runner.store.get(job_id) for job_id in ids]
    assert Counter(job.served.worker for job in jobs if job and job.served) == {
        "s-1": 4,
        "s-2": 4,
        "s-3": 4,
    }


async def test_a_batch_that_no_worker_takes_stays_to_be_tried_again() -> None:
    world = ToyFleetWorld([SLOW])
    runner, ids = await batch_of(world, 2, "echo")
    batch = a_batch(*ids)

    with pytest.raises(EngineUnavailable, match="no worker"):
        await runner.run(batch, SLOW)
    await world.up("s-1", pool="slow")
    await runner.run(batch, SLOW)

    job = await runner.store.get(batch.job_ids[0])
    assert job is not None
    assert job.served is not None
    assert (job.state, job.served.worker, job.losses) == (JobState.COMPLETED, "s-1", 0)


def test_jobs_that_travel_together_need_a_slot_for_each_of_their_items() -> None:
    messages = [a_message(items=3, deadline_at=90.0), a_message(deadline_at=70.0)]

    need = need_of_jobs(ECHO, messages, 20.0)

    assert (need.items, need.deadline_s) == (4, 50.0)
