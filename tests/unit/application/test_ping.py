"""A tiny inference for each model on each worker that is up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.call import Calls
from synapse.application.fleet_engine import FleetEngine
from synapse.application.ping import KEEP_WARM_S, MAX_AT_ONCE, Pinger
from synapse.application.vitals import Vitals
from synapse.domain.breaker import BreakerState
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, ServiceSample
from synapse.domain.pool import IN_RUNNER, Pool, WarmWindow
from synapse.domain.profile import Profile
from synapse.domain.worker import WorkerState
from synapse.ports import InferenceRequest
from tests.factories import NOW, a_model, a_pool, a_worker
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import Answer, FakeClock, MemoryRegistry, ScriptedEngine, echoed
from tests.unit.application.world import World
from tests.virtual_time import in_virtual_time


def a_fleet_pool(**changes: Any) -> Pool:
    """A pool whose workers come and go."""
    fields = {"endpoint": "", "runner": "", "min_workers": 0, "max_workers": 50}
    return a_pool("cpu", **{**fields, **changes})


def a_world(pool: Pool, **changes: Any) -> World:
    """A deployment of one model in one pool."""
    return World(registry=MemoryRegistry([a_model()], [pool]), **changes)


def refusing(worker: str) -> ScriptedEngine:
    """An engine whose one worker refuses all calls."""

    def script(request: InferenceRequest) -> Answer:
        if request.id.endswith(worker):
            return EngineUnavailable("connection refused")
        return echoed(request)

    return ScriptedEngine(script)


async def test_each_worker_that_is_up_is_tried_and_no_other() -> None:
    world = a_world(a_fleet_pool())
    await world.workers.beat(a_worker("w-1", endpoint="127.0.0.1:1"))
    await world.workers.beat(a_worker("w-2", endpoint="127.0.0.1:2"))
    await world.workers.beat(a_worker("w-3", state=WorkerState.LOADING, models=()))
    await world.workers.beat(a_worker("w-4", state=WorkerState.DEGRADED))
    await world.workers.beat(a_worker("w-5", pool="gpu"))

    [health] = await world.pinger.ping()

    asked = [(pool.worker, pool.endpoint) for _, pool, _ in world.engine.calls]
    assert sorted(asked) == [("w-1", "127.0.0.1:1"), ("w-2", "127.0.0.1:2")]
    assert (health.model, health.pool, health.healthy, health.worker) == ("echo", "cpu", True, "")
    told = [health.worker for (health,) in world.telemetry.of("pinged")]
    assert sorted(told) == ["w-1", "w-2"]


async def test_a_pool_at_zero_is_left_asleep() -> None:
    world = a_world(a_fleet_pool())

    assert await world.pinger.ping() == []

    assert world.engine.calls == []
    assert await world.registry.health() == []
    assert world.telemetry.of("pinged") == []


async def test_a_pool_whose_workers_come_with_the_calls_is_tried_only_while_it_is_to_be_warm() -> (
    None
):
    asleep = a_world(a_pool(endpoint=IN_RUNNER))
    warm = a_world(a_pool(endpoint=IN_RUNNER, warm=(WarmWindow("echo"),)))

    assert await asleep.pinger.ping() == []
    [health] = await warm.pinger.ping()

    assert health.healthy
    assert asleep.engine.calls == []


async def test_a_pool_is_well_while_one_of_its_workers_is_and_names_the_others() -> None:
    world = a_world(a_fleet_pool(), engine=refusing("w-2"))
    await world.workers.beat(a_worker("w-1"))
    await world.workers.beat(a_worker("w-2"))

    [health] = await world.pinger.ping()

    assert health.healthy
    assert health.detail == "1 of 2 workers did not answer: w-2: connection refused"
    assert list(await world.registry.health()) == [health]


async def test_an_engine_elsewhere_that_does_not_answer_is_logged_once_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Answer | None] = [EngineUnavailable("connection refused")] * 2
    answers += [None, EngineUnavailable("it is gone")]
    script = iter(answers)
    engine = ScriptedEngine(lambda request: next(script) or echoed(request))
    world = a_world(a_pool("cpu", endpoint="box:8001"), engine=engine)

    for _ in range(4):
        await world.pinger.ping()

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        f"pool cpu: the engine at box:8001 does not answer for echo: {why}"
        for why in ("connection refused", "it is gone")
    ]


async def test_a_worker_of_ours_is_logged_by_who_started_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = a_world(a_fleet_pool(), engine=refusing("w-1"))
    await world.workers.beat(a_worker("w-1"))

    [health] = await world.pinger.ping()

    assert (health.healthy, caplog.records) == (False, [])


async def test_only_so_many_are_tried_at_once() -> None:
    class Counting(ScriptedEngine):
        at_once = most = 0

        async def infer(
            self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
        ) -> AsyncGenerator[tuple[JobId, Answer], None]:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0)
            async for outcome in super().infer(model, pool, requests):
                yield outcome
            self.at_once -= 1

    world = a_world(a_fleet_pool(), engine=Counting())
    for n in range(3 * MAX_AT_ONCE):
        await world.workers.beat(a_worker(f"w-{n}"))

    await world.pinger.ping()

    assert len(world.engine.calls) == 3 * MAX_AT_ONCE
    assert world.engine.most == MAX_AT_ONCE


async def test_a_ping_is_recorded_before_all_work_and_only_where_nothing_is_known() -> None:
    class Remembering(MemoryRegistry):
        recorded: list[tuple[ServiceSample, float]]

        async def record_service(self, sample: ServiceSample, now: float) -> None:
            self.recorded.append((sample, now))
            await super().record_service(sample, now)

    registry = Remembering([a_model()], [a_fleet_pool()])
    registry.recorded = []
    world = World(registry=registry)
    await world.workers.beat(a_worker())

    await world.pinger.ping()
    await world.pinger.ping()

    [(sample, at)] = registry.recorded
    assert (sample.model, sample.pool, sample.items) == ("echo", "cpu", 1)
    assert at == 0.0


async def test_pings_say_nothing_of_the_prompts_that_better_tiers_send() -> None:
    profiles = MemoryProfileStore()
    await profiles.keep(Profile("echo", "1", "cpu", "cpu", base_ms=5.0, prompt_token_ms=0.05))
    world, vitals = a_world(a_fleet_pool()), Vitals(clock=FakeClock())
    await world.workers.beat(a_worker("w-1"))
    engine = FleetEngine(world.engine, Calls(vitals, profiles))

    await replace(world.pinger, engine=engine).ping()

    seen = vitals.pool("echo", "cpu")
    assert (seen.took_ms.count(vitals.clock()), seen.to_read.count(vitals.clock())) == (1, 0)


async def test_a_worker_whose_breaker_is_open_comes_back_by_the_ping_alone() -> None:
    ticks = FakeClock()
    vitals = Vitals(clock=ticks)
    world = a_world(a_fleet_pool())
    await world.workers.beat(a_worker("w-1"))
    breaker = vitals.breaker("echo", "cpu", "w-1")
    for _ in range(3):
        breaker.failed(breaker.began(ticks()), ticks())
    assert breaker.state(ticks()) is BreakerState.OPEN
    engine = FleetEngine(world.engine, Calls(vitals, MemoryProfileStore()))

    await replace(world.pinger, engine=engine).ping()

    assert breaker.state(ticks()) is BreakerState.CLOSED


class Environments:
    """Counts what it is asked to keep warm; fails if told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.kept: list[tuple[str, int]] = []

    async def keep_warm(self, pool: Pool, environments: int) -> int:
        if self.fails:
            raise Unavailable("throttled")
        self.kept.append((pool.name, environments))
        return environments


def keeping(world: World, environments: Environments) -> Pinger:
    return replace(world.pinger, environments=environments)


async def test_as_many_environments_of_a_runner_are_kept_warm_as_its_open_window_says() -> None:
    minute = int(NOW % 86_400 // 60)
    window = WarmWindow("echo", 3, from_minute=minute, until_minute=minute + 1)
    world = a_world(a_fleet_pool(runner="arn:aws:lambda:eu-west-1:1:function:r", warm=(window,)))
    environments = Environments()

    await keeping(world, environments).ping()
    world.clock.advance(60.0)
    await keeping(world, environments).ping()

    assert environments.kept == [("cpu", 3)]


async def test_runners_that_cannot_be_kept_warm_do_not_stop_the_round() -> None:
    world = a_world(a_fleet_pool(runner="arn", warm=(WarmWindow("echo"),)))
    await world.workers.beat(a_worker())

    seen = await keeping(world, Environments(fails=True)).ping()

    assert [health.healthy for health in seen] == [True]
    assert world.telemetry.of("queue_depth")


class Starting(Environments):
    """Runners whose engines take longer to come up than anybody here has time."""

    async def keep_warm(self, pool: Pool, environments: int) -> int:
        await asyncio.sleep(60.0)
        return await super().keep_warm(pool, environments)


def test_runners_that_are_still_starting_are_not_waited_for() -> None:
    """Lambda would end the function, and with it what it has seen of all other workers."""
    pools = [a_fleet_pool(runner="arn", warm=(WarmWindow("echo"),))] * 2
    pools = [replace(pool, name=name) for pool, name in zip(pools, ("cpu", "gpu"), strict=True)]
    world = World(registry=MemoryRegistry([a_model()], pools))

    async def round_s() -> float:
        await keeping(world, Starting()).ping()
        return asyncio.get_running_loop().time()

    assert in_virtual_time(round_s()) == KEEP_WARM_S
    assert world.telemetry.of("queue_depth")
