"""WorkerRegistry: who beats, lives; who misses its lease is dead, and told of once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from synapse.domain.worker import CacheLevel, WorkerModel, WorkerState
from synapse.ports import WorkerRegistry
from tests.factories import NOW, a_worker

LEASE_S = 15.0


async def test_nobody_is_there_at_first(worker_registry: WorkerRegistry) -> None:
    assert list(await worker_registry.workers(NOW)) == []
    assert list(await worker_registry.expire(NOW)) == []


async def test_a_worker_is_read_as_it_beat(worker_registry: WorkerRegistry) -> None:
    plain = a_worker("w-1", "cpu")
    full = a_worker(
        "w-2",
        "gpu",
        state=WorkerState.INFERRING,
        models=(
            WorkerModel("smollm2", "3", CacheLevel.GPU_RESIDENT),
            WorkerModel("echo", "1", CacheLevel.REMOTE),
        ),
        queue_length=7,
        gpu_utilisation=0.875,
        free_memory_bytes=80 * 2**30,
        kv_cache_use=0.25,
        kv_cache_hit_rate=0.5,
        detail="it said “hm”",
    )
    await worker_registry.beat(plain)
    await worker_registry.beat(full)

    assert list(await worker_registry.workers(NOW)) == [plain, full]


async def test_workers_come_by_pool_and_id(worker_registry: WorkerRegistry) -> None:
    for worker_id, pool in (("w-3", "b"), ("w-1", "b"), ("w-2", "a"), ("w-4", "a")):
        await worker_registry.beat(a_worker(worker_id, pool))

    seen = [(worker.pool, worker.id) for worker in await worker_registry.workers(NOW)]

    assert seen == [("a", "w-2"), ("a", "w-4"), ("b", "w-1"), ("b", "w-3")]


async def test_a_heartbeat_moves_the_lease_on(worker_registry: WorkerRegistry) -> None:
    await worker_registry.beat(a_worker("w-1", lease_until=NOW + LEASE_S))
    later = a_worker("w-1", beat_at=NOW + 10, lease_until=NOW + 10 + LEASE_S)
    await worker_registry.beat(later)

    assert list(await worker_registry.workers(NOW + LEASE_S + 1)) == [later]
    assert list(await worker_registry.expire(NOW + LEASE_S + 1)) == []


async def test_a_worker_is_dead_from_the_moment_its_lease_ends(
    worker_registry: WorkerRegistry,
) -> None:
    worker = a_worker("w-1", lease_until=NOW + LEASE_S)
    await worker_registry.beat(worker)

    assert list(await worker_registry.workers(NOW + LEASE_S - 0.25)) == [worker]
    assert list(await worker_registry.workers(NOW + LEASE_S)) == []


async def test_the_dead_are_told_of_once_and_the_living_stay(
    worker_registry: WorkerRegistry,
) -> None:
    dead, alive = a_worker("w-1"), a_worker("w-2", lease_until=NOW + 100)
    await worker_registry.beat(dead)
    await worker_registry.beat(alive)

    first = await worker_registry.expire(NOW + 50)
    second = await worker_registry.expire(NOW + 50)

    assert (list(first), list(second)) == ([dead], [])
    assert list(await worker_registry.workers(NOW + 50)) == [alive]


async def test_of_many_who_ask_one_is_told_of_a_death(worker_registry: WorkerRegistry) -> None:
    workers = [a_worker(f"w-{n}") for n in range(5)]
    for worker in workers:
        await worker_registry.beat(worker)

    told = await asyncio.gather(*(worker_registry.expire(NOW + 50) for _ in range(4)))

    assert sorted(w.id for each in told for w in each) == [w.id for w in workers]


async def test_a_worker_that_was_declared_dead_may_come_back(
    worker_registry: WorkerRegistry,
) -> None:
    worker = a_worker("w-1")
    await worker_registry.beat(worker)
    await worker_registry.expire(NOW + 50)

    again = replace(worker, beat_at=NOW + 51, lease_until=NOW + 51 + LEASE_S)
    await worker_registry.beat(again)

    assert list(await worker_registry.workers(NOW + 52)) == [again]


async def test_a_worker_that_has_left_is_no_death(worker_registry: WorkerRegistry) -> None:
    await worker_registry.beat(a_worker("w-1"))
    await worker_registry.forget("w-1")
    await worker_registry.forget("nobody")

    assert list(await worker_registry.workers(NOW)) == []
    assert list(await worker_registry.expire(NOW + 50)) == []
