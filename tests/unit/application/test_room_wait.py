"""Runners that find no room for bronze wait for some, as long as that is worth it."""

from __future__ import annotations

import pytest

from synapse.application.room_wait import BRIEF_S, LOOK_EVERY_S, MOST_WAIT, WAIT_S, RoomWait
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.job import SlaTier
from tests.factories import a_model, a_pool, a_sample
from tests.fakes import MemoryRegistry
from tests.faults import failing_before
from tests.unit.application.world import World

SLOTS = 4
MODEL, POOL = a_model("echo", slots=SLOTS), a_pool("cpu")
BRONZE = SlaTier.BRONZE


class Full:
    """A pool whose slots are all taken; `frees` come free at a look, or never."""

    def __init__(self, frees: dict[int, int] | None = None) -> None:
        self.world = World(registry=MemoryRegistry([MODEL], [POOL]))
        self.world.slots.occupy("echo", "cpu", SLOTS)
        self.frees, self.looks = frees or {}, 0
        self.waited: list[int] = []

    async def measured(self, seconds: float = 0.05) -> Full:
        """The same, where an item holds its slot so long."""
        sample = a_sample(10, 10 * seconds, pool="cpu")
        await self.world.registry.record_service(sample, self.world.clock())
        return self

    async def sleep(self, seconds: float) -> None:
        self.looks += 1
        self.world.clock.advance(seconds)
        self.waited.append(await self.world.slots.count("echo", "cpu#waiting"))
        self.world.slots.free("echo", "cpu", self.frees.get(self.looks, 0))

    async def may_begin(self, tier: SlaTier = BRONZE) -> int | None:
        world = self.world
        windows = world.fleet.windows
        wait = RoomWait(windows, world.registry, world.slots, world.clock, self.sleep)
        return await wait.may_begin(MODEL, POOL, tier)


async def test_what_comes_free_while_one_waits_is_had() -> None:
    pool = await Full({3: 2}).measured()

    assert await pool.may_begin() == 2
    assert pool.looks == 3
    assert pool.waited == [1, 1, 1]
    assert await pool.world.slots.count("echo", "cpu#waiting") == 0


async def test_one_waits_some_seconds_and_no_longer() -> None:
    pool = await Full().measured()

    assert await pool.may_begin() == 0
    assert pool.looks == round(WAIT_S / LOOK_EVERY_S)
    assert await pool.world.slots.count("echo", "cpu#waiting") == 0


@pytest.mark.parametrize("seconds", [None, BRIEF_S + 0.1])
async def test_nobody_waits_for_items_that_last_long_or_were_never_measured(
    seconds: float | None,
) -> None:
    pool = Full({1: 1})
    if seconds is not None:
        await pool.measured(seconds)

    assert await pool.may_begin() == 0
    assert pool.looks == 0


async def test_so_many_wait_at_a_time_and_no_more() -> None:
    pool = await Full({1: 1}).measured()
    ends_at = pool.world.clock() + WAIT_S
    await pool.world.slots.enter("echo", "cpu#waiting", MOST_WAIT, MOST_WAIT, ends_at, BRONZE)

    assert await pool.may_begin() == 0
    assert pool.looks == 0


async def test_better_tiers_wait_for_nothing_and_nobody_for_a_worker() -> None:
    pool = await Full().measured()
    at_zero = a_pool("zero", endpoint="")
    world = pool.world
    wait = RoomWait(world.fleet.windows, world.registry, world.slots, world.clock, pool.sleep)

    assert await pool.may_begin(SlaTier.SILVER) is None
    with pytest.raises(EngineUnavailable):
        await wait.may_begin(MODEL, at_zero, BRONZE)
    assert pool.looks == 0


async def test_whoever_breaks_off_waits_no_more() -> None:
    pool = await Full().measured()
    windows = pool.world.fleet.windows
    faulty = failing_before(windows, may_begin=[None, None, Unavailable("no table")])
    world = pool.world
    wait = RoomWait(faulty, world.registry, world.slots, world.clock, pool.sleep)

    with pytest.raises(Unavailable):
        await wait.may_begin(MODEL, POOL, BRONZE)

    assert pool.looks == 2
    assert await world.slots.count("echo", "cpu#waiting") == 0


async def test_how_long_items_last_need_not_be_known() -> None:
    pool = await Full().measured()
    pool.world.registry = failing_before(
        pool.world.registry, service_rate=[None, Unavailable("no table"), Unavailable("no table")]
    )

    assert await pool.may_begin() == 0
    assert pool.looks in (0, round(WAIT_S / LOOK_EVERY_S))
