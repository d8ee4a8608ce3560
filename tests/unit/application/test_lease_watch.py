"""While a batch runs: calls of workers whose lease ends are broken off, and of no others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.lease_watch import lease_watch
from synapse.domain.errors import Unavailable
from synapse.domain.worker import Worker
from tests.factories import NOW, a_worker
from tests.fakes import FakeClock


class Broken:
    """Notes what is broken off."""

    def __init__(self) -> None:
        self.workers: list[str] = []
        self.times_stale = 0

    def fleet(self) -> Any:
        return SimpleNamespace(
            engine=SimpleNamespace(break_off=lambda worker, why: self.workers.append(worker)),
            roster=SimpleNamespace(stale=self._stale),
        )

    def _stale(self) -> None:
        self.times_stale += 1


async def test_calls_of_a_worker_are_broken_off_when_its_lease_ends() -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    await registry.beat(a_worker("dies", lease_until=NOW + 10))
    await registry.beat(a_worker("lives", lease_until=NOW + 100))

    async with lease_watch(registry, broken.fleet(), clock, every_s=0.001):
        await asyncio.sleep(0.02)
        before = list(broken.workers)
        clock.advance(10)
        await asyncio.sleep(0.02)

    assert before == []
    assert (broken.workers, broken.times_stale) == (["dies"], 1)


async def test_calls_of_a_worker_are_broken_off_when_only_its_last_words_are_left() -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    await registry.beat(a_worker("gives-up"))

    async with lease_watch(registry, broken.fleet(), clock, every_s=0.001):
        await asyncio.sleep(0.02)
        await registry.beat(a_worker("gives-up", beat_at=NOW + 1).ended("its card is broken"))
        await asyncio.sleep(0.02)

    assert broken.workers == ["gives-up"]


async def test_a_registry_that_does_not_answer_ends_nobodys_call() -> None:
    class Unread(LocalWorkerRegistry):
        async def workers(self, now: float) -> Sequence[Worker]:
            if now > NOW:
                raise Unavailable("throttled")
            return await super().workers(now)

    registry, clock, broken = Unread(), FakeClock(NOW), Broken()
    await registry.beat(a_worker("w-1", lease_until=NOW + 1))

    async with lease_watch(registry, broken.fleet(), clock, every_s=0.001):
        await asyncio.sleep(0.02)
        clock.advance(50)
        await asyncio.sleep(0.02)

    assert broken.workers == []


async def test_nothing_is_watched_any_more_when_the_block_has_ended() -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    await registry.beat(a_worker("w-1", lease_until=NOW + 1))

    async with lease_watch(registry, broken.fleet(), clock, every_s=0.001):
        await asyncio.sleep(0.01)
    clock.advance(50)
    await asyncio.sleep(0.01)

    assert broken.workers == []


async def test_what_goes_wrong_with_the_watch_is_no_error_of_the_batch() -> None:
    class Forbidden(LocalWorkerRegistry):
        async def workers(self, now: float) -> Sequence[Worker]:
            raise PermissionError("no right to read the table")

    broken = Broken()

    async with lease_watch(Forbidden(), broken.fleet(), FakeClock(NOW), every_s=0.001):
        await asyncio.sleep(0.01)

    assert broken.workers == []
