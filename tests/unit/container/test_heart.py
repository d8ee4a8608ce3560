"""Heartbeats of a container's worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.errors import Unavailable
from synapse.domain.pool import Pool
from synapse.domain.worker import Worker, WorkerState
from synapse_container import heart as module
from synapse_container.heart import LAST_WORDS_S, LEASE_S, Heart
from synapse_worker.agent import AgentState, CacheLevel, ModelStatus, Snapshot

POOL = Pool("gpu-ecs", "gpu")


def a_snapshot(**changes: object) -> Snapshot:
    now = time.time()
    known = Snapshot(
        id="worker-1",
        state=AgentState.READY,
        accelerator="gpu",
        endpoint="10.0.0.7:8001",
        models=(ModelStatus("echo", "1", CacheLevel.GPU_RESIDENT, "10.0.0.7:8001"),),
        at=now,
        started_at=now - 60,
        answered_at=now,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


class Told:
    """An agent that tells these snapshots, and then nothing more."""

    def __init__(self, *snapshots: Snapshot) -> None:
        self._snapshots = snapshots

    async def beats(self, period_s: float) -> AsyncIterator[Snapshot]:
        for snapshot in self._snapshots:
            yield snapshot

    def snapshot(self) -> Snapshot:
        return self._snapshots[-1]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_PAUSE_S", 0.0)


@pytest.fixture
def registry() -> LocalWorkerRegistry:
    return LocalWorkerRegistry()


async def test_a_snapshot_becomes_a_worker_with_a_lease(registry: LocalWorkerRegistry) -> None:
    await Heart(registry, POOL, Told(a_snapshot())).run()

    (worker,) = await registry.workers(time.time())
    assert (worker.id, worker.pool, worker.endpoint) == ("worker-1", "gpu-ecs", "10.0.0.7:8001")
    assert worker.has("echo")
    assert worker.lease_until == pytest.approx(time.time() + LEASE_S, abs=2)


async def test_a_worker_that_drains_says_so(registry: LocalWorkerRegistry) -> None:
    await Heart(registry, POOL, Told(a_snapshot(), a_snapshot(state=AgentState.DEGRADED))).run()

    (worker,) = await registry.workers(time.time())
    assert worker.state is WorkerState.DEGRADED
    assert not worker.has("echo")


async def test_an_engine_that_hangs_is_not_kept_alive_by_its_agent(
    registry: LocalWorkerRegistry,
) -> None:
    await Heart(registry, POOL, Told(a_snapshot(answered_at=time.time() - LEASE_S - 1))).run()

    assert list(await registry.workers(time.time())) == []


async def test_a_worker_that_leaves_is_forgotten(registry: LocalWorkerRegistry) -> None:
    heart = Heart(registry, POOL, Told(a_snapshot()))
    await heart.run()

    await heart.stop()

    assert list(await registry.workers(time.time())) == []


async def test_a_worker_that_gave_up_says_why_for_a_while(registry: LocalWorkerRegistry) -> None:
    heart = Heart(registry, POOL, Told(a_snapshot()))
    await heart.run()

    await heart.stop("the card is broken")

    [worker] = await registry.workers(time.time() + LAST_WORDS_S - 10)
    assert (worker.id, worker.detail) == ("worker-1", "the card is broken")
    assert worker.has_ended
    assert not worker.has("echo")
    assert list(await registry.workers(time.time() + LAST_WORDS_S + 10)) == []


class Failing(LocalWorkerRegistry):
    """Fails as often as told, then writes."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors = list(errors)

    async def beat(self, worker: Worker) -> None:
        if self._errors:
            raise self._errors.pop(0)
        await super().beat(worker)

    async def forget(self, worker_id: str) -> None:
        raise Unavailable("throttled")


@pytest.mark.parametrize("error", [Unavailable("throttled"), RuntimeError("no such right")])
async def test_a_beat_that_fails_is_not_the_last(error: Exception) -> None:
    registry = Failing(error)

    await Heart(registry, POOL, Told(a_snapshot(), a_snapshot())).run()

    assert [worker.id for worker in await registry.workers(time.time())] == ["worker-1"]


async def test_a_leave_that_cannot_be_written_stops_nobody() -> None:
    await Heart(Failing(), POOL, Told(a_snapshot())).stop()


async def test_it_ends_when_it_is_told_to(registry: LocalWorkerRegistry) -> None:
    class Endless(Told):
        async def beats(self, period_s: float) -> AsyncIterator[Snapshot]:
            while True:
                yield a_snapshot()

    beating = asyncio.create_task(Heart(registry, POOL, Endless(a_snapshot())).run())
    await asyncio.sleep(0.01)
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating

    workers: Sequence[Worker] = await registry.workers(time.time())
    assert [worker.id for worker in workers] == ["worker-1"]
