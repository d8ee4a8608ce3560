"""LocalWorkerRegistry: heartbeats of one process, whose clock may be put back."""

from __future__ import annotations

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.worker import WorkerState
from tests.factories import NOW, a_worker

LEASE_S = 15.0
HOUR_S = 3600.0


async def test_workers_are_known_and_die_as_ever_after_the_clock_was_put_back() -> None:
    registry = LocalWorkerRegistry()
    await registry.beat(a_worker("w-1", beat_at=NOW, lease_until=NOW + LEASE_S))

    back = NOW - HOUR_S
    latest = a_worker("w-1", beat_at=back, lease_until=back + LEASE_S, state=WorkerState.DEGRADED)
    await registry.beat(latest)

    assert list(await registry.workers(back + 1)) == [latest]
    assert list(await registry.expire(back + LEASE_S)) == [latest]
