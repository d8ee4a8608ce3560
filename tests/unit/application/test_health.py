"""What /health says of a fleet: a pool at zero is well, one that should be up and is not is not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.health import (
    LATELY_S,
    STUCK,
    FleetHealth,
    Health,
    Status,
    note_stuck,
    pinged_health,
)
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.worker import WorkerState
from tests.factories import NOW, a_health, a_model, a_pool, a_worker
from tests.fakes import MemoryRegistry

STEADY = a_pool("steady", endpoint="")
BURST = a_pool("burst", endpoint="", min_workers=0)
ONE, NONE = PoolSize(1, 1, 0), PoolSize(0, 0, 0)


@dataclass
class Sizes:
    """Pools that are as large as the test says."""

    sizes: dict[str, PoolSize]

    async def size(self, pool: Pool) -> PoolSize:
        return self.sizes[pool.name]

    async def resize(self, pool: Pool, desired: int) -> None:
        raise AssertionError("health changes nothing")


@dataclass
class Ward:
    """A fleet of two pools to be looked at."""

    pools: tuple[Pool, ...] = (STEADY, BURST)
    workers: LocalWorkerRegistry = field(default_factory=LocalWorkerRegistry)
    steady: PoolSize = ONE
    burst: PoolSize = NONE
    troubles: dict[str, str] = field(default_factory=dict)
    failed_loads: dict[tuple[str, str], str] = field(default_factory=dict)
    trouble: str = ""

    def __post_init__(self) -> None:
        self.registry = MemoryRegistry([a_model("echo")], self.pools)

    async def look(self) -> Health:
        sizes = Sizes({"steady": self.steady, "burst": self.burst})
        health = FleetHealth(
            self.registry,
            self.workers,
            sizes,
            lambda: NOW,
            lambda: self.troubles,
            lambda: self.failed_loads,
            lambda: self.trouble,
        )
        return await health.look()


async def test_a_pool_that_was_not_pinged_yet_is_starting() -> None:
    ward = Ward()
    await ward.workers.beat(a_worker("s-1", "steady"))

    assert await ward.look() == Health(Status.STARTING, [])


async def test_a_pool_at_zero_is_no_trouble() -> None:
    ward = Ward()
    await ward.workers.beat(a_worker("s-1", "steady"))
    await ward.registry.record_health(a_health("steady"))

    assert await ward.look() == Health(Status.OK, [a_health("steady")])


async def test_a_fleet_that_is_all_at_zero_is_well() -> None:
    ward = Ward(pools=(BURST,))

    assert await ward.look() == Health(Status.OK, [])


async def test_what_was_seen_before_a_pool_went_to_zero_is_no_longer_told() -> None:
    ward = Ward(pools=(BURST,))
    await ward.registry.record_health(a_health("burst", healthy=False, detail="slow"))

    assert await ward.look() == Health(Status.OK, [])


async def test_a_cold_start_is_no_trouble() -> None:
    ward = Ward(pools=(BURST,), burst=PoolSize(1, 0, 1))

    assert (await ward.look()).status is Status.OK


async def test_a_worker_that_is_down_is_told_with_its_cause() -> None:
    ward = Ward()
    down = a_worker("s-1", "steady", state=WorkerState.DEGRADED, detail="Triton was killed")
    await ward.workers.beat(down)
    await ward.registry.record_health(a_health("steady"))

    health = await ward.look()

    assert health.status is Status.DEGRADED
    [seen] = health.workers
    assert (seen.pool, seen.healthy, seen.detail) == ("steady", False, "Triton was killed")


async def test_a_pool_whose_worker_failed_tells_why_while_the_next_one_starts() -> None:
    ward = Ward(steady=PoolSize(1, 0, 1), troubles={"steady": "No memory. Add some"})

    health = await ward.look()

    assert health.status is Status.DEGRADED
    assert [seen.detail for seen in health.workers] == ["No memory. Add some"]


async def test_a_worker_that_is_dead_is_no_worker() -> None:
    ward = Ward()
    await ward.workers.beat(a_worker("s-1", "steady", lease_until=NOW))

    health = await ward.look()

    assert health.status is Status.DEGRADED
    assert [seen.detail for seen in health.workers] == ["no worker of the pool is up"]


async def test_what_the_pinger_saw_of_a_pool_that_is_up_is_told() -> None:
    ward = Ward(pools=(a_pool("steady"),))
    ill = a_health("steady", healthy=False, detail="refused")
    await ward.registry.record_health(ill)

    assert await ward.look() == Health(Status.DEGRADED, [ill])


async def test_a_model_that_nobody_has_loaded_is_no_trouble_where_workers_load_on_demand() -> None:
    ward = Ward(pools=(a_pool("steady", endpoint="", loads_on_demand=True),))
    idle = a_worker("s-1", "steady", models=(), state=WorkerState.IDLE)
    await ward.workers.beat(idle)
    assert (await ward.look()).status is Status.OK

    down = replace(idle, state=WorkerState.DEGRADED, detail="it died", beat_at=NOW + 1)
    await ward.workers.beat(down)
    assert (await ward.look()).status is Status.DEGRADED


async def test_a_model_that_could_not_be_loaded_on_demand_is_told_with_its_cause() -> None:
    ward = Ward(pools=(a_pool("steady", endpoint="", loads_on_demand=True),))
    await ward.workers.beat(a_worker("s-1", "steady", models=(), state=WorkerState.IDLE))
    ward.failed_loads[("steady", "echo")] = "echo does not fit"

    health = await ward.look()

    assert health.status is Status.DEGRADED
    [seen] = health.workers
    assert (seen.model, seen.pool, seen.detail) == ("echo", "steady", "echo does not fit")


async def test_records_that_cannot_be_written_are_told_of_whatever_the_workers_say() -> None:
    ward = Ward(trouble="storage: the disk is full")
    await ward.workers.beat(a_worker("s-1", "steady"))
    await ward.registry.record_health(a_health("steady"))

    full = Health(Status.DEGRADED, [a_health("steady")], "storage: the disk is full")
    assert await ward.look() == full
    ward.trouble = ""
    assert await ward.look() == Health(Status.OK, [a_health("steady")])


async def test_who_has_nothing_but_pings_is_told_of_those_pools_that_were_tried_lately() -> None:
    registry = MemoryRegistry([a_model("echo")], [STEADY, BURST])
    assert await pinged_health(registry, lambda: NOW) == Health(Status.STARTING, [])

    ill, well = a_health("burst", healthy=False), a_health("steady", checked_at=NOW + LATELY_S)
    await registry.record_health(ill)
    assert await pinged_health(registry, lambda: NOW + 60) == Health(Status.DEGRADED, [ill])
    await registry.record_health(well)
    later = NOW + LATELY_S
    assert await pinged_health(registry, lambda: later) == Health(Status.OK, [well])
    # All at zero since.
    assert await pinged_health(registry, lambda: later + 3600) == Health(Status.OK, [])


async def test_a_pool_that_brings_no_worker_up_is_told_of_until_one_is_or_none_is_wanted() -> None:
    ward, now = Ward(), [NOW]
    await ward.registry.record_health(a_health("steady"))

    async def told() -> dict[str, str]:
        health = await pinged_health(ward.registry, lambda: now[0])
        assert (health.status is Status.DEGRADED) is any(not s.healthy for s in health.workers)
        return {seen.pool: seen.detail for seen in health.workers if not seen.healthy}

    await note_stuck(ward.registry, ward.workers, ["burst"], lambda: now[0])
    assert await told() == {"burst": STUCK}

    down = a_worker("b-1", "burst", state=WorkerState.DEGRADED, detail="the file ends early")
    await ward.workers.beat(down)
    await note_stuck(ward.registry, ward.workers, ["burst"], lambda: now[0])
    assert await told() == {"burst": "the file ends early"}

    await ward.registry.record_health(a_health("burst", checked_at=NOW + 1))
    assert await told() == {}

    await note_stuck(ward.registry, ward.workers, ["burst"], lambda: now[0])
    now[0] += LATELY_S
    assert await told() == {}
