"""Bronze windows as things stand: by what is in flight, what was measured, and who is up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.company import FRESH_S
from synapse.application.fleet import Fleet
from synapse.application.ping import BEFORE_ALL_WORK
from synapse.application.vitals import Vitals
from synapse.domain.crowding import MIN_ANSWERS
from synapse.domain.errors import EngineUnavailable
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import IN_RUNNER, Pool
from synapse.domain.profile import Profile
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from tests.factories import NOW, a_chat_model, a_model, a_pool, a_sample
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import FakeClock, MemoryRegistry, ScriptedEngine
from tests.unit.application.toy_workers import a_toy_request

ECHO, LLM = a_model("echo", slots=8), a_chat_model("llm", slots=8)
FIXED, POOL = a_pool("fixed"), a_pool("cpu", endpoint="")


class Place:
    """Pools of eight slots a worker, and the fleet over them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.registry = MemoryRegistry([ECHO, LLM], [FIXED, POOL])
        self.workers = LocalWorkerRegistry()
        self.profiles = MemoryProfileStore()
        self.slots = SlotLedger(self.clock)
        self.fleet = Fleet.over(
            ScriptedEngine(),
            self.registry,
            self.workers,
            self.profiles,
            self.slots,
            self.clock,
            vitals=Vitals(self.clock),  # calls take no time, however busy the machine is
        )

    async def room(self, spec: ModelSpec = ECHO, pool: Pool = FIXED, ready: int = 1) -> int:
        self.clock.advance(2 * FRESH_S)
        return await self.fleet.windows.room(spec, pool, ready)

    async def limit(self, spec: ModelSpec = ECHO, pool: Pool = FIXED, items: int = 1) -> int:
        self.clock.advance(2 * FRESH_S)
        return await self.fleet.windows.limit(spec, pool, items)

    async def took(self, seconds: float) -> None:
        await self.registry.record_service(a_sample(10, 10 * seconds, pool="fixed"), NOW)

    async def asks(self, prompt: str, tier: SlaTier) -> None:
        request = a_toy_request(input=ModelInput(prompt), tier=tier)
        assert isinstance(await self.fleet.engine.answer(LLM, FIXED, request), Completion)

    async def up(self, worker: str) -> None:
        known = (WorkerModel("echo", "1", CacheLevel.GPU_RESIDENT),)
        now = self.clock()
        await self.workers.beat(
            Worker(worker, "cpu", "cpu", WorkerState.READY, "a:1", known, now, now, now + 1e6)
        )


@pytest.fixture
def place() -> Place:
    return Place()


async def test_bronze_has_what_better_tiers_leave(place: Place) -> None:
    assert await place.room() == 8
    place.slots.occupy("echo", "fixed", 2, SlaTier.GOLD)
    assert await place.room() == 5
    assert await place.limit() == 7
    place.slots.occupy("echo", "fixed", 4, SlaTier.BRONZE)
    assert await place.room() == 1
    assert await place.limit() == 7


async def test_items_so_short_that_gold_can_wait_leave_no_slot_idle(place: Place) -> None:
    place.slots.occupy("echo", "fixed", 2, SlaTier.GOLD)

    await place.took(0.015)
    assert await place.room() == 6
    await place.took(0.1)
    assert await place.room() == 5


async def test_a_ping_does_not_tell_that_generations_are_over_in_a_moment(place: Place) -> None:
    place.slots.occupy("llm", "fixed", 2, SlaTier.SILVER)
    unmeasured = await place.room(LLM)

    pinged = a_sample(1, 0.02, model="llm", pool="fixed")
    await place.registry.record_service(pinged, BEFORE_ALL_WORK)

    assert await place.room(LLM) == unmeasured == 5


async def test_answers_that_leave_no_time_to_wait_keep_slots_for_gold(place: Place) -> None:
    await place.took(0.02)
    place.slots.occupy("echo", "fixed", 2, SlaTier.GOLD)
    vitals = place.fleet.vitals
    for _ in range(100):
        vitals.pool("echo", "fixed").took_ms.note(vitals.clock(), 25.0)
    assert await place.room() == 6

    for _ in range(5):
        vitals.pool("echo", "fixed").took_ms.note(vitals.clock(), 45.0)
    assert await place.room() == 5


async def test_a_moment_in_which_all_were_held_up_keeps_no_slots_for_a_minute(place: Place) -> None:
    await place.took(0.02)
    place.slots.occupy("echo", "fixed", 2, SlaTier.GOLD)
    took_ms = place.fleet.vitals.pool("echo", "fixed").took_ms
    for ms in (*[25.0] * 1000, *[45.0] * 5):
        took_ms.note(place.fleet.vitals.clock(), ms)

    assert await place.room() == 6


async def test_of_brief_items_that_cannot_wait_one_slot_is_kept(place: Place) -> None:
    await place.took(0.04)
    place.slots.occupy("echo", "fixed", 5, SlaTier.GOLD)
    place.slots.free("echo", "fixed", 3, SlaTier.GOLD)

    # Gold had five, now it has two; items that last longer than its promise are another matter.
    assert await place.room() == 5
    await place.took(1.0)
    assert await place.room() == 2


async def test_what_is_short_enough_for_silver_is_not_for_gold(place: Place) -> None:
    await place.took(0.04)

    place.slots.occupy("echo", "fixed", 2, SlaTier.SILVER)
    assert await place.room() == 6
    place.slots.occupy("echo", "fixed", 1, SlaTier.GOLD)
    assert await place.room() == 4


async def test_generations_are_not_judged_by_how_long_they_take_as_a_whole(place: Place) -> None:
    await place.registry.record_service(a_sample(10, 20.0, "llm", "fixed"), NOW)
    vitals = place.fleet.vitals
    for _ in range(100):
        vitals.pool("llm", "fixed").took_ms.note(vitals.clock(), 2000.0)

    place.slots.occupy("llm", "fixed", 1, SlaTier.GOLD)

    assert await place.room(LLM) == 6


async def test_generations_that_slow_each_other_down_are_limited_by_the_profile(
    place: Place,
) -> None:
    profile = Profile(
        "llm", "1", "fixed", "cpu", base_ms=15.0, output_token_ms=20.0, company=0.4, spread=1.0
    )
    await place.profiles.keep(profile)
    place.slots.occupy("llm", "fixed", 1, SlaTier.GOLD)

    # Among six the first token comes after 45 ms, among seven after 51 ms.
    assert await place.room(LLM) == 5
    await place.profiles.keep(replace(profile, company=0.0))
    assert await place.room(LLM) == 6


async def test_without_a_profile_first_tokens_tell_how_much_company_is_borne(place: Place) -> None:
    vitals = place.fleet.vitals
    crowding = vitals.pool("llm", "fixed").crowding

    def came_after(ms: float, in_flight: int) -> None:
        for _ in range(MIN_ANSWERS):
            crowding.note(vitals.clock(), in_flight, ms)

    place.slots.occupy("llm", "fixed", 1, SlaTier.SILVER)
    assert await place.room(LLM) == 6
    came_after(200.0, in_flight=8)
    assert await place.room(LLM) == 3
    came_after(100.0, in_flight=4)
    assert await place.room(LLM) == 3

    # Silver bears four; gold, which has come as well, may bear two, or nobody.
    place.slots.occupy("llm", "fixed", 1, SlaTier.GOLD)
    assert await place.room(LLM) == 0
    came_after(100.0, in_flight=2)
    # It is late by itself, so that silver's promise is what counts.
    assert await place.room(LLM) == 2
    came_after(200.0, in_flight=2)
    # And where not even that is kept, there is nothing to keep but slots.
    assert await place.room(LLM) == 5


async def test_what_a_worker_bears_is_told_by_what_better_tiers_have_on_it_not_in_the_pool(
    place: Place,
) -> None:
    """Eight on eight workers are one on each, who never is without bronze, and late for that."""
    vitals = place.fleet.vitals
    for _ in range(MIN_ANSWERS):
        vitals.pool("llm", "cpu").crowding.note(vitals.clock(), 4, 200.0)

    place.slots.occupy("llm", "cpu", 8, SlaTier.SILVER)

    # Two on each, of which silver is to have one.
    assert await place.room(LLM, POOL, ready=8) == 8
    # On one worker all that are there are silver's own: it is late without anybody's help.
    place.slots.free("llm", "cpu", 4, SlaTier.SILVER)
    assert await place.room(LLM, POOL, ready=1) == 0


async def test_brief_items_start_beside_what_is_in_flight_now(place: Place) -> None:
    profile = Profile("echo", "1", "fixed", "cpu", base_ms=20.0, company=0.4, spread=1.0)
    await place.profiles.keep(profile)
    place.slots.occupy("echo", "fixed", 3, SlaTier.GOLD)
    place.slots.free("echo", "fixed", 2, SlaTier.GOLD)

    # Among four an item takes 44 ms, among five 52 ms. Gold had three, now it has one.
    assert await place.room() == 2


async def test_gold_that_is_late_even_alone_is_held_to_silvers_promise(place: Place) -> None:
    profile = Profile(
        "llm", "1", "fixed", "cpu", base_ms=60.0, output_token_ms=20.0, company=0.4, spread=1.0
    )
    await place.profiles.keep(profile)
    place.slots.occupy("llm", "fixed", 1, SlaTier.GOLD)

    # Among four the first token comes after 132 ms, among five after 156 ms.
    assert await place.room(LLM) == 3
    await place.profiles.keep(replace(profile, base_ms=200.0))
    assert await place.room(LLM) == 6


async def test_what_better_tiers_have_to_read_tells_whether_their_promise_can_be_kept(
    place: Place,
) -> None:
    profile = Profile(
        "llm", "1", "fixed", "cpu", base_ms=15.0, prompt_token_ms=1.0, output_token_ms=20.0,
        company=0.4, spread=1.0,
    )  # fmt: skip
    await place.profiles.keep(profile)
    place.slots.occupy("llm", "fixed", 1, SlaTier.GOLD)
    # 128 tokens take 143 ms alone, which is silver's at best; that company would break.
    assert await place.room(LLM) == 0

    for _ in range(3):
        await place.asks("x" * 16, SlaTier.GOLD)
    # Five take 20 ms, among four 44, among five 52. One place is left to the next of gold to come.
    assert await place.room(LLM) == 2
    for _ in range(20):
        await place.asks("x" * 400, SlaTier.BRONZE)
    assert await place.room(LLM) == 2
    for _ in range(4):
        await place.asks("x" * 400, SlaTier.SILVER)
    # A hundred and one take 116, with one more 162.
    assert await place.room(LLM) == 0


async def test_the_slots_are_those_of_the_workers_that_are_up(place: Place) -> None:
    assert await place.limit(pool=POOL, items=0) == 0
    await place.up("w-1")
    assert await place.limit(pool=POOL) == 8
    await place.up("w-2")
    assert await place.limit(pool=POOL) == 16
    assert await place.room(pool=POOL, ready=2) == 16


async def test_where_each_call_brings_its_worker_there_are_as_many_as_may_be(
    place: Place,
) -> None:
    pool = a_pool("fixed", endpoint=IN_RUNNER, max_workers=3)

    assert await place.limit(pool=pool) == 24


async def test_a_request_larger_than_the_window_runs_when_nothing_else_does(place: Place) -> None:
    entry = await place.slots.enter("echo", "fixed", 6, 9, place.clock() + 60)
    assert entry is not None
    assert await place.limit(items=4) < 4 + 6
    await place.slots.leave(entry)

    assert await place.limit(items=4) == 4


async def test_a_runner_that_sees_its_own_worker_alone_counts_those_of_the_others(
    place: Place,
) -> None:
    """Each environment of a pool calls the engine beside it: to that one the pool is fixed."""
    within = a_pool("cpu")
    assert await place.limit(pool=within) == 8
    assert await place.limit(pool=replace(within, max_workers=10)) == 80

    await place.up("w-1")
    await place.up("w-2")

    assert await place.limit(pool=within) == 16


async def test_what_may_begin_is_what_has_room_of_bronze_and_all_of_better_tiers(
    place: Place,
) -> None:
    place.slots.occupy("echo", "fixed", 2, SlaTier.GOLD)
    may_begin = place.fleet.windows.may_begin

    assert await may_begin(ECHO, FIXED, SlaTier.BRONZE) == 5
    assert await may_begin(ECHO, FIXED, SlaTier.SILVER) is None


async def test_nothing_may_begin_where_no_worker_is_up(place: Place) -> None:
    with pytest.raises(EngineUnavailable, match="no worker"):
        await place.fleet.windows.may_begin(ECHO, POOL, SlaTier.GOLD)

    await place.up("w-1")
    place.clock.advance(1.0)

    assert await place.fleet.windows.may_begin(ECHO, POOL, SlaTier.GOLD) is None
