"""What the page of metrics says of workers: what `/health` does."""

from __future__ import annotations

from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.application.health import FleetHealth
from synapse.application.vitals import Vitals
from synapse.domain.pool import Pool, PoolSize
from synapse_server.gauges import Gauges
from tests.factories import NOW, a_health, a_model, a_pool, a_worker
from tests.fakes import FakeClock, MemoryRegistry

STEADY, BURST = a_pool("steady", endpoint=""), a_pool("burst", endpoint="", min_workers=0)


class OneWanted:
    """One worker is wanted in the first pool, and none in the other; none is on its way."""

    async def size(self, pool: Pool) -> PoolSize:
        return PoolSize(int(pool is STEADY), 0, 0)

    async def resize(self, pool: Pool, desired: int) -> None:
        raise AssertionError("a look changes nothing")


async def test_what_was_seen_of_a_worker_that_is_no_more_is_not_told_of_its_pool() -> None:
    clock, workers = FakeClock(NOW), LocalWorkerRegistry()
    registry, queue = MemoryRegistry([a_model("echo")], [STEADY, BURST]), LocalJobQueue()
    health = FleetHealth(registry, workers, OneWanted(), clock)
    slots, telemetry = SlotLedger(clock), PrometheusTelemetry()
    gauges = Gauges(
        *(registry, [STEADY, BURST], workers, Vitals(), queue, slots, telemetry, clock),
        health.look,
    )

    async def told() -> set[str]:
        lines = (await gauges.text()).splitlines()
        return {line for line in lines if line.startswith("synapse_worker_")}

    await workers.beat(a_worker("s-1", "steady"))
    await registry.record_health(a_health("steady"))
    await registry.record_health(a_health("burst", healthy=False))
    assert await told() == {
        'synapse_worker_healthy{model="echo",pool="steady"} 1',
        'synapse_worker_ping_seconds{model="echo",pool="steady"} 0.0015',
    }

    clock.advance(60.0)  # its lease has ended
    assert await told() == {'synapse_worker_healthy{model="echo",pool="steady"} 0'}
