"""The gate of a batch: what passes is counted, and bronze passes as there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.entrance import (
    LOOK_EVERY_S,
    MOST_S,
    PATIENCE_S,
    WAIT_S,
    Entrance,
    Gate,
)
from synapse.application.in_line import Part
from synapse.application.waiting import BRIEF_S, MOST_WAIT, WaitingPlaces, most_waiting
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, SlaTier
from synapse.domain.pool import IN_RUNNER, Pool
from synapse.ports import Entry, InferenceRequest
from tests.factories import a_batch, a_chat_model, a_model, a_pool, a_sample
from tests.fakes import MemoryRegistry
from tests.faults import failing_before
from tests.unit.application.going import Going
from tests.unit.application.world import World

MODEL, POOL = a_model("echo"), a_pool("cpu")
GOLD, SILVER, BRONZE = SlaTier


def some(count: int, samples: int = 1) -> Sequence[InferenceRequest]:
    value = ModelInput(prompt="x", samples=samples)
    return [InferenceRequest(JobId(f"job-{n}"), 60.0, value) for n in range(count)]


class Place:
    """A pool of eight slots; `frees` says how many come free at which look of those who wait.

    Where it `holds_still` time passes for nobody who waits.
    """

    def __init__(self, taken: int = 0, frees: dict[int, int] | None = None) -> None:
        self.world = World(registry=MemoryRegistry([MODEL], [POOL]))
        self.world.slots.occupy("echo", "cpu", taken)
        self.frees, self.looks = frees or {}, 0
        self.waiting: list[int] = []
        self.holds_still = False
        self.windows: Any = self.world.fleet.windows

    async def measured(self, seconds: float = 0.05) -> Place:
        """The same, where an item holds its slot so long."""
        sample = a_sample(10, 10 * seconds, pool="cpu")
        await self.world.registry.record_service(sample, self.world.clock())
        return self

    async def sleep(self, seconds: float) -> None:
        assert seconds == LOOK_EVERY_S
        if self.holds_still:
            await asyncio.sleep(0)
            return
        self.looks += 1
        self.world.clock.advance(seconds)
        self.waiting.append(await self.waits())
        self.world.slots.free("echo", "cpu", self.frees.get(self.looks, 0))
        await asyncio.sleep(0)

    async def waits(self) -> int:
        """How many are counted as waiting."""
        return int(await self.world.slots.count("echo", "cpu#waiting"))

    @property
    def entrance(self) -> Entrance:
        world = self.world
        places = WaitingPlaces(self.windows, world.slots, world.registry, world.clock)
        return Entrance(self.windows, world.slots, places, world.clock, self.sleep)

    def gate(
        self, jobs: int = 1, tier: SlaTier = BRONZE, pool: Pool = POOL
    ) -> AbstractAsyncContextManager[Gate]:
        batch = a_batch(*(f"job-{n}" for n in range(jobs)), sla=tier)
        return self.entrance.gate(MODEL, pool, batch)

    @property
    def in_flight(self) -> int:
        return int(self.world.slots.in_flight("echo", "cpu"))


Begun = list[tuple[Part, Entry | None]]


async def begun(gate: Gate, *parts: Part) -> Begun:
    """What is let in."""
    found: Begun = []
    await gate.let_in(parts, lambda part, entry: found.append((part, entry)))
    return found


async def names(gate: Gate, requests: Part) -> list[str]:
    """Which of them are let in, that go together."""
    return [each.id for part, _ in await begun(gate, requests) for each in part]


async def one_by_one(gate: Gate, requests: Part) -> list[str]:
    """Which of them are let in, each by itself."""
    return [part[0].id for part, _ in await begun(gate, *([each] for each in requests))]


async def test_what_is_let_in_counts_with_all_its_samples_until_it_leaves() -> None:
    place = Place()

    async with place.gate(2, SILVER) as gate:
        [(part, entry)] = await begun(gate, [*some(1), *some(1, samples=3)])
        assert (len(part), place.in_flight) == (2, 4)
        await gate.leave(entry)

    assert place.in_flight == 0


async def test_better_tiers_are_let_in_however_many_there_are() -> None:
    place = await Place(taken=10_000).measured()

    async with place.gate(2, SILVER) as gate:
        assert gate.most == 2
        assert len(await names(gate, some(2))) == 2
    assert place.looks == 0


async def test_where_the_room_cannot_be_told_all_are_let_in() -> None:
    place = Place(taken=8)
    away = Unavailable("no table")
    place.windows = failing_before(place.windows, may_begin=[away], opening=[away])

    async with place.gate() as gate:
        assert await names(gate, some(1)) == ["job-0"]


async def test_who_cannot_be_counted_is_let_in_and_those_beside_it_are_counted() -> None:
    for tier in (SILVER, BRONZE):
        place = Place()
        faults = [None, Unavailable("no table"), None]
        place.world.slots = failing_before(place.world.slots, enter=faults)

        async with place.gate(3, tier) as gate:
            found = await begun(gate, *([each] for each in some(3)))
            assert [entry is not None for _, entry in found] == [True, False, True]
            assert place.in_flight == 2
            for _, entry in found:
                await gate.leave(entry)
        assert place.in_flight == 0


async def test_one_of_many_samples_holds_up_nobody_behind_it() -> None:
    place = await Place(5).measured()
    async with place.gate(3) as gate:
        place.holds_still = True
        line = Line(gate, *some(1, samples=4), *some(3)[1:])
        await line.until_in(2)
        assert [name for name, _ in line.begun] == ["job-1", "job-2"]
        line.task.cancel()


async def test_where_slots_for_all_samples_do_not_come_free_at_once_any_room_will_do() -> None:
    """Where there are always others it would wait until it expires."""
    place = await Place(7).measured()
    async with place.gate() as gate:
        assert await one_by_one(gate, some(1, samples=4)) == ["job-0"]
        assert place.looks == pytest.approx(PATIENCE_S / LOOK_EVERY_S, abs=1)
        assert place.in_flight == 7 + 4


async def test_at_once_where_nobody_waits() -> None:
    place = Place(7)
    async with place.gate(2) as gate:
        assert await one_by_one(gate, some(2, samples=4)) == ["job-0"]
        assert (place.in_flight, place.looks) == (7 + 4, 0)


async def test_two_that_are_too_large_do_not_begin_in_the_same_room() -> None:
    place = Place(7)
    async with place.gate(2) as first, place.gate(2) as second:
        assert await one_by_one(first, some(2, samples=4)) == ["job-0"]
        assert await one_by_one(second, some(2, samples=4)) == []


async def test_a_batch_waits_by_its_items_and_so_many_of_them_are_claimed() -> None:
    """Of items of half a second eight slots are done with 80 in the time that one may wait."""
    for items, most in (((8,) * 10, 80), ((8,) * 11, 1)):
        place = await Place(7).measured(0.5)
        batch = a_batch(*(f"job-{n}" for n in range(len(items))), items=items)
        async with place.entrance.gate(MODEL, POOL, batch) as gate:
            assert gate.most == most


async def test_bronze_is_let_in_as_far_as_its_window_goes() -> None:
    place = Place()
    await place.world.slots.enter("echo", "cpu", 2, 100, float("inf"), GOLD)

    async with place.gate(8) as gate:
        # Of 8 slots gold has two, and one more is kept for it.
        assert gate.most == 5
        assert await names(gate, some(8)) == [f"job-{n}" for n in range(5)]
        assert await names(gate, some(1)) == []
    assert place.looks == 0


async def test_bronze_has_a_pool_for_itself_where_nobody_better_was_seen() -> None:
    place = Place()

    async with place.gate(10) as gate:
        assert len(await names(gate, some(10))) == 8
    async with Place().gate() as gate:
        assert len(await names(gate, some(1, samples=20))) == 1


async def test_without_room_nothing_is_claimed_where_items_last_long_or_were_never_measured() -> (
    None
):
    for place in (Place(8, {1: 8}), await Place(8, {1: 8}).measured(BRIEF_S + 0.1)):
        with pytest.raises(EngineUnavailable, match="full"):
            async with place.gate():
                pytest.fail("let in")
        assert place.looks == 0


async def test_a_ping_does_not_tell_that_generations_are_brief() -> None:
    llm, pinged_at = a_chat_model("echo"), 0.0
    sample = a_sample(1, 0.02, pool="cpu")
    for model, waits in ((MODEL, True), (llm, False)):
        place = Place(7)
        await place.world.registry.record_service(sample, pinged_at)
        batch = a_batch("job-0", "job-1")
        async with place.entrance.gate(model, POOL, batch) as gate:
            assert gate.most == (2 if waits else 1)


async def test_where_items_are_brief_all_are_claimed_and_let_in_as_slots_come_free() -> None:
    place = await Place(8, {3: 2, 5: 1}).measured()

    async with place.gate(3) as gate:
        assert gate.most == 3
        assert await one_by_one(gate, some(3)) == ["job-0", "job-1", "job-2"]
        assert place.looks == 5
    assert place.waiting == [1] * 5  # one batch, one runner
    assert await place.waits() == 0


async def test_one_waits_some_seconds_for_the_next_to_be_let_in_and_no_longer() -> None:
    place = await Place(8, {10: 1}).measured()

    async with place.gate(3) as gate:
        assert await one_by_one(gate, some(3)) == ["job-0"]
    assert place.looks == pytest.approx(10 + WAIT_S / LOOK_EVERY_S, abs=1)


async def test_a_batch_does_not_wait_for_ever_though_one_is_let_in_now_and_then() -> None:
    four_s = round(4 / LOOK_EVERY_S)
    now_and_then = dict.fromkeys(range(four_s, 25 * four_s, four_s), 1)
    place = await Place(8, now_and_then).measured()

    async with place.gate(20) as gate:
        begun = await one_by_one(gate, some(20))

    assert len(begun) == round(MOST_S) // 4
    assert place.looks == pytest.approx(MOST_S / LOOK_EVERY_S, abs=1)


async def test_so_many_wait_at_a_time_and_no_more() -> None:
    place = await Place(7, {1: 1}).measured()
    until = place.world.clock() + WAIT_S
    await place.world.slots.enter("echo", "cpu#waiting", MOST_WAIT, MOST_WAIT, until, BRONZE)

    async with place.gate(3) as gate:
        assert gate.most == 1
    assert place.looks == 0


async def test_whoever_finds_room_at_first_and_none_then_waits_too() -> None:
    place = await Place(frees={1: 8}).measured()

    async with place.gate() as gate:
        assert await place.waits() == 0
        place.world.slots.occupy("echo", "cpu", 8)
        assert await names(gate, some(1)) == ["job-0"]
        assert gate.has_waited
    assert (place.looks, place.waiting) == (1, [1])


async def test_nobody_waits_for_a_worker() -> None:
    with pytest.raises(EngineUnavailable):
        async with (await Place().measured()).gate(pool=a_pool("zero", endpoint="")):
            pytest.fail("let in")


@pytest.mark.parametrize(
    "told",
    [
        {"endpoint": IN_RUNNER},  # as others see it
        # As the template tells the runner itself of its pool.
        {"endpoint": "127.0.0.1:8001", "paid_by_call": True},
        {"endpoint": "127.0.0.1:8001", "beats": True},
    ],
)
async def test_a_runner_that_is_the_worker_itself_does_not_wait(told: dict[str, Any]) -> None:
    place = await Place(8).measured()
    pool = a_pool("cpu", **told)

    with pytest.raises(EngineUnavailable, match="full"):
        async with place.gate(pool=pool):
            pytest.fail("let in")
    assert place.looks == 0


async def test_whose_worker_goes_while_one_waits_waits_no_more() -> None:
    place = await Place(8).measured()
    place.windows = Going(place.windows, looks=2)

    async with place.gate() as gate:
        with pytest.raises(EngineUnavailable, match="no worker"):
            await names(gate, some(1))
    assert place.looks == 2
    assert await place.waits() == 0


@pytest.mark.parametrize("fault", ["service_rate", "enter"])
async def test_whoever_cannot_tell_whether_to_wait_does_not(fault: str) -> None:
    place, away = await Place(8).measured(), [Unavailable("no table")] * 3
    if fault == "enter":
        place.world.slots = failing_before(place.world.slots, enter=away)
    else:
        place.world.registry = failing_before(place.world.registry, service_rate=away)

    with pytest.raises(EngineUnavailable, match="full"):
        async with place.gate():
            pytest.fail("let in")
    assert place.looks == 0


async def test_who_waits_looks_again_where_a_look_fails() -> None:
    """All who wait would begin at once: they look at the same time at the same table."""
    place = await Place(8, {2: 1}).measured()
    away = Unavailable("no table")
    place.windows = failing_before(place.windows, opening=[None, away])

    async with place.gate() as gate:
        assert await names(gate, some(1)) == ["job-0"]

    assert place.looks == 2


class Line:
    """Requests that are let in one by one, each as soon as there is room."""

    def __init__(self, gate: Gate, *requests: InferenceRequest) -> None:
        self.gate = gate
        self.begun: list[tuple[str, Entry | None]] = []
        self.task = asyncio.create_task(self._come(requests))

    async def _come(self, requests: Sequence[InferenceRequest]) -> None:
        await self.gate.let_in([[each] for each in requests], self._begin)

    def _begin(self, part: Part, entry: Entry | None) -> None:
        self.begun.extend((each.id, entry) for each in part)

    async def leave(self, number: int) -> None:
        await self.gate.leave(self.begun[number][1])

    async def until_in(self, count: int) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.begun) == count


async def test_who_leaves_hands_the_slot_to_the_next_in_line_and_it_is_counted_as_before() -> None:
    place = await Place(7).measured()
    async with place.gate(3) as gate:
        place.holds_still = True
        line = Line(gate, *some(3))
        await line.until_in(1)

        await line.leave(0)
        await line.until_in(2)
        await line.leave(1)
        await line.until_in(3)

        assert [name for name, _ in line.begun] == ["job-0", "job-1", "job-2"]
        assert len({entry.id for _, entry in line.begun if entry}) == 1
        assert place.in_flight == 8
        await line.leave(2)
    assert place.in_flight == 7


async def test_better_tiers_have_the_slot_that_is_theirs_before_the_next_in_line() -> None:
    place = await Place(7).measured()
    async with place.gate(2) as gate:
        place.holds_still = True
        line = Line(gate, *some(2))
        await line.until_in(1)
        place.world.clock.advance(1.0)
        await place.world.slots.enter("echo", "cpu", 3, 100, float("inf"), GOLD)
        await line.until_in(1)  # that is seen

        await line.leave(0)

        await line.until_in(1)
        assert place.in_flight == 7 + 3
        line.task.cancel()


async def test_what_nobody_waits_for_any_more_is_left() -> None:
    place = await Place(6).measured()
    async with place.gate(3) as gate:
        place.holds_still = True
        line = Line(gate, *some(3))
        await line.until_in(2)

        await asyncio.gather(line.leave(0), line.leave(1))

        await line.until_in(3)
        assert place.in_flight == 6 + 1


class SlowDoor:
    """Counts only once it is `open`; `asked` is set when somebody waits before it."""

    def __init__(self, slots: Any) -> None:
        self._slots = slots
        self.open, self.asked = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slots, name)

    async def enter(self, model: str, pool: str, *args: Any) -> Entry | None:
        if pool == POOL.name:
            self.asked.set()
            await self.open.wait()
        entry: Entry | None = await self._slots.enter(model, pool, *args)
        return entry


@pytest.mark.parametrize("is_room_gone", [False, True])
async def test_who_is_being_counted_while_a_worker_is_lost_is_not_sent_after_it(
    is_room_gone: bool,
) -> None:
    place = await Place(7).measured()
    door = place.world.slots = SlowDoor(place.world.slots)
    async with place.gate(3) as gate:
        line = Line(gate, *some(3))
        await door.asked.wait()

        gate.shut()
        place.world.slots.occupy("echo", "cpu", int(is_room_gone))
        door.open.set()
        await line.task

        assert (line.begun, place.looks) == ([], 0)
        assert place.in_flight == 7 + int(is_room_gone)


async def test_slots_are_not_handed_on_to_who_wants_fewer() -> None:
    place = await Place(5).measured()
    async with place.gate(2) as gate:
        line = Line(gate, *some(1, samples=3), *some(1, samples=2))
        await line.until_in(1)
        await line.leave(0)
        await line.until_in(2)
        assert place.in_flight == 5 + 2
        first, second = (entry for _, entry in line.begun)
        assert first is not None
        assert second is not None
        assert first.id != second.id


async def test_nor_are_those_whose_count_is_about_to_end() -> None:
    place = await Place(7).measured()
    async with place.gate(2) as gate:
        line = Line(gate, replace(some(1)[0], timeout_s=1.5), some(2)[1])
        await line.until_in(1)
        await line.leave(0)
        await line.until_in(2)
        first, second = (entry for _, entry in line.begun)
        assert first is not None
        assert second is not None
        assert first.id != second.id


@pytest.mark.parametrize(
    ("slots", "seconds_per_item", "items", "most"),
    [
        (4, 0.2, 16, 6),
        (8, 0.05, 1, MOST_WAIT),
        (8, 0.0, 1, MOST_WAIT),
        (1, 1.0, 5, 1),
        (1, 1.0, 6, 0),
        (1, BRIEF_S + 0.01, 1, 0),
        (8, None, 1, 0),
    ],
)
def test_no_more_wait_than_a_pool_is_done_with_soon(
    slots: int, seconds_per_item: float | None, items: int, most: int
) -> None:
    assert most_waiting(slots, seconds_per_item, items) == most
