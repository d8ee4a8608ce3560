"""Keys that are revoked with their jobs: what has not begun is not run, the rest is not touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from synapse.application import revocations as module
from synapse.application.keys import Keys, KeyWish
from synapse.application.revocations import FRESH_S, Revocations
from synapse.domain.access import ANYONE, Principal
from synapse.domain.api_key import ApiKey
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobState
from synapse.domain.model import ModelSpec
from tests.factories import a_batch, a_pool
from tests.fake_keys import MemoryKeyStore
from tests.fakes import FakeClock
from tests.unit.application.world import World


class AskedKeyStore(MemoryKeyStore):
    """Tells how often it was asked for a key."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.is_away = False

    async def get(self, key_id: str) -> ApiKey | None:
        self.asked += 1
        if self.is_away:
            raise Unavailable("no table")
        return await super().get(key_id)


class Office:
    """Keys, and what is known of those that were stopped."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.store = AskedKeyStore()
        self.keys = Keys(self.store, self.no_models, clock)
        self.revocations = Revocations(self.store, clock)

    async def no_models(self) -> Sequence[ModelSpec]:
        return []

    async def caller(self, tenant: str = "default") -> Principal:
        made = await self.keys.create(ANYONE, KeyWish("a test", tenant=tenant))
        return Principal(tenant, made.key.id)

    async def are_stopped(self, caller: Principal) -> bool:
        return await self.revocations.are_stopped(caller.tenant, caller.account)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def office(world: World) -> Office:
    office = Office(world.clock)
    world.runner.revocations = office.revocations
    return office


async def run(world: World, *jobs: Job) -> list[Job]:
    """What becomes of jobs whose turn has come."""
    world.queue.take()
    await world.runner.run(a_batch(*(job.id for job in jobs)), a_pool("gpu"))
    return [await world.job(job.id) for job in jobs]


async def test_what_waits_of_a_stopped_key_is_not_run_and_its_neighbours_are(
    world: World, office: Office
) -> None:
    stopped, other = await office.caller(), await office.caller()
    first = await world.submit("one", caller=stopped)
    second = await world.submit("two", caller=other)
    await office.keys.stop(ANYONE, stopped.account)

    ended, done = await run(world, first, second)

    assert (ended.state, done.state) == (JobState.FAILED, JobState.COMPLETED)
    assert ended.failure is not None
    assert ended.failure.code == "key_revoked"
    assert [r.id for _, _, requests in world.engine.calls for r in requests] == [second.id]
    assert (ended.served.active_usd if ended.served else 0.0) == 0.0
    assert ended in [job for (job,) in world.telemetry.of("ended")]


async def test_what_waits_of_a_key_that_is_merely_revoked_goes_on(
    world: World, office: Office
) -> None:
    caller = await office.caller()
    job = await world.submit("one", caller=caller)
    await office.keys.revoke(ANYONE, caller.account)

    [done] = await run(world, job)

    assert done.state is JobState.COMPLETED


async def test_a_key_that_was_revoked_can_be_stopped_afterwards_and_once(office: Office) -> None:
    caller = await office.caller()
    revoked = await office.keys.revoke(ANYONE, caller.account)
    office.clock.advance(5)
    stopped = await office.keys.stop(ANYONE, caller.account)
    office.clock.advance(5)

    assert stopped == replace(revoked, stops_at=office.clock() - 5, revision=revoked.revision + 1)
    assert await office.keys.stop(ANYONE, caller.account) == stopped
    assert await office.keys.revoke(ANYONE, caller.account) == stopped


async def test_a_key_is_asked_for_now_and_then_and_never_again_once_it_is_stopped(
    office: Office,
) -> None:
    caller = await office.caller()
    office.store.asked = 0
    for _ in range(10):
        assert not await office.are_stopped(caller)
    assert office.store.asked == 1

    await office.keys.stop(ANYONE, caller.account)
    assert not await office.are_stopped(caller), "it is known for so long"
    office.clock.advance(FRESH_S)
    office.store.asked = 0
    for _ in range(10):
        assert await office.are_stopped(caller)
        office.clock.advance(FRESH_S)
    assert office.store.asked == 1


async def test_nobody_is_stopped_by_a_key_of_another_tenant_or_without_one(office: Office) -> None:
    caller = await office.caller("acme")
    await office.keys.stop(ANYONE, caller.account)

    assert await office.are_stopped(caller)
    for other in (Principal("umbrella", caller.account), Principal("acme", "ada"), ANYONE):
        assert not await office.are_stopped(other)


async def test_nobody_is_stopped_because_it_cannot_be_told_and_it_is_asked_again(
    office: Office,
) -> None:
    caller = await office.caller()
    await office.keys.stop(ANYONE, caller.account)
    office.store.is_away = True
    assert not await office.are_stopped(caller)

    office.store.is_away = False
    assert await office.are_stopped(caller)


async def test_of_many_accounts_the_oldest_are_forgotten(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    callers = [await office.caller() for _ in range(3)]
    for caller in callers:
        await office.are_stopped(caller)
    office.store.asked = 0

    await office.are_stopped(callers[2])
    await office.are_stopped(callers[1])
    assert office.store.asked == 0
    await office.are_stopped(callers[0])
    assert office.store.asked == 1
