"""Loads that work waits for: one at a time, and again after a pause."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from synapse.adapters.local.demand import LocalStartTimes
from synapse.application.on_demand import load_of
from synapse.domain.loading import FailedLoad
from synapse.domain.retry import RetryPolicy
from synapse_server.model_loader import (
    EVICTING,
    HOPELESS,
    REFUSED_S,
    TOLD_S,
    Loading,
    LocalModelLoader,
)
from synapse_worker.agent.errors import NoRoom, NotNow, TooLarge
from synapse_worker.errors import WorkerError
from tests.factories import a_pool
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S

POOL = a_pool("small")
WORKERS = ("s-1", "s-2")
PAUSES = RetryPolicy(base_s=1.0, max_s=8.0)


class OneWorker:
    """Loads what it is asked for once it is let, or fails with what the test says."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.asked: list[str] = []
        self.told: list[Mapping[str, float]] = []
        self.kept: list[tuple[Collection[str], Collection[str]]] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        self.asked.append(model)
        self.kept.append((keep, yielding))
        self.told.append(used_at)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error


class World:
    def __init__(self, round_s: float = 1.0) -> None:
        self.worker = OneWorker()
        self.is_up = True
        self.clock = FakeClock()
        self.starts = LocalStartTimes()
        self.last_asked = {"echo": 5.0}
        self.loader = LocalModelLoader(
            self._worker_of, lambda: self.last_asked, self.starts, self.clock, PAUSES, round_s
        )

    def _worker_of(self, pool: str, worker: str) -> Loading | None:
        assert pool == POOL.name
        assert worker in WORKERS
        return self.worker if self.is_up else None

    async def ask(self, model: str = "llm", worker: str = "s-1") -> bool:
        begins = self.loader.ask(worker, POOL, model)
        for _ in range(5):
            await asyncio.sleep(0)
        return begins


async def test_the_worker_is_told_when_each_model_was_last_asked_for() -> None:
    world = World()
    await world.ask()

    assert world.worker.told == [{"echo": 5.0}], "probes are no use, and Triton counts them"


async def test_the_worker_is_told_what_must_make_no_room() -> None:
    world = World()
    world.loader.ask("s-1", POOL, "llm", keep={"echo"}, yielding={"old"})
    await world.ask("echo", "s-2")

    assert world.worker.kept == [({"echo"}, {"old"}), ((), ())]


async def test_a_model_is_asked_for_once_at_a_time() -> None:
    world = World()
    assert await world.ask()
    assert not await world.ask(worker="s-2")
    assert await world.ask("echo", "s-2")
    assert world.worker.asked == ["llm", "echo"]

    world.clock.advance(3.0)
    world.worker.go_on.set()
    await world.ask()
    await world.ask()
    assert world.worker.asked == ["llm", "echo", "llm"], "the first was over"
    assert await world.starts.startup_s(load_of("small", "echo")) == 3.0


async def test_a_worker_loads_one_model_at_a_time() -> None:
    world = World()
    assert await world.ask()
    assert not await world.ask("echo"), "what it should make room for is known when llm is there"

    world.worker.go_on.set()
    await world.ask("echo")
    assert await world.ask("echo")


async def test_where_one_has_no_room_or_is_down_another_is_asked_at_once() -> None:
    world = World()
    world.worker.go_on.set()
    for error in (NoRoom("There is no room"), NotNow("Triton is RESTARTING")):
        world.worker.error = error
        assert await world.ask()
        assert not await world.ask()
        assert await world.ask(worker="s-2")
        assert not await world.ask(worker="s-2")
        world.clock.advance(REFUSED_S)


async def test_one_that_was_refused_is_asked_at_once_when_another_model_may_go() -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = NoRoom("There is no room")

    async def begins(keep: set[str]) -> bool:
        begins = world.loader.ask("s-1", POOL, "llm", keep)
        for _ in range(5):
            await asyncio.sleep(0)
        return begins

    assert await begins({"echo", "old"})
    assert not await begins({"echo", "old"})
    assert await begins({"echo"})
    assert not await begins({"echo"})
    assert not await begins({"echo", "old"})


@pytest.mark.parametrize("error", [WorkerError("The weights are gone"), OSError("No space left")])
async def test_a_load_that_failed_is_tried_again_after_pauses_that_grow(error: Exception) -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = error
    for pause_s in (1.0, 2.0, 4.0):
        await world.ask()
        tries = len(world.worker.asked)
        world.clock.advance(pause_s - 0.1)
        await world.ask()
        assert len(world.worker.asked) == tries
        world.clock.advance(0.2)
    assert world.loader.troubles() == {("small", "llm"): str(error)}


async def test_after_a_failure_it_takes_no_place_for_a_while() -> None:
    world = World()
    world.worker.models = ["echo"]
    world.worker.go_on.set()
    world.worker.error = WorkerError("The weights are gone")
    await world.ask()
    world.worker.error = NoRoom("There is no room")
    world.clock.advance(EVICTING.base_s - 0.1)
    await world.ask()
    assert world.worker.kept == [((), ()), ({"echo"}, ())], "it would go for nothing"
    assert not await world.ask(), "that others are spared is no news a moment later"

    world.worker.error = WorkerError("The weights are gone")
    for pause_s in (EVICTING.base_s, 2 * EVICTING.base_s):
        world.worker.kept.clear()
        world.clock.advance(pause_s)
        await world.ask()
        world.clock.advance(PAUSES.max_s)
        await world.ask()
        assert world.worker.kept == [((), ()), ({"echo"}, ())]


async def test_one_that_failed_is_told_of_while_it_waits_for_room() -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = WorkerError("The weights are gone")
    await world.ask()
    world.worker.error = NoRoom("There is no room")
    for _ in range(3):
        world.clock.advance(TOLD_S - 1.0)
        await world.ask()

    assert world.loader.troubles() == {("small", "llm"): "The weights are gone"}


async def test_where_room_is_missing_the_pause_stays_short() -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = NoRoom("There is no room")
    for tries in range(1, 5):
        await world.ask()
        await world.ask()
        assert len(world.worker.asked) == tries
        world.clock.advance(REFUSED_S)


async def test_one_that_never_fits_is_tried_less_and_less_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = TooLarge("It takes 30 of 25 MiB")
    for _ in range(60):
        await world.ask()
        world.clock.advance(1.0)

    assert len(world.worker.asked) < 15
    assert "llm is not loaded: It takes 30 of 25 MiB" in caplog.text
    assert world.loader.troubles() == {("small", "llm"): "It takes 30 of 25 MiB"}

    world.worker.error = None
    world.clock.advance(PAUSES.max_s)
    await world.ask()
    assert world.loader.troubles() == {}


async def test_after_three_failures_those_who_wait_are_told_and_at_once_if_it_never_fits() -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = WorkerError("The weights are gone")
    for failures in range(1, HOPELESS + 1):
        assert world.loader.failed("small", "llm") is None
        await world.ask()
        world.clock.advance(PAUSES.delay_s(failures, 1.0))
    world.clock.advance(-1.0)
    assert world.loader.failed("small", "llm") == FailedLoad(
        "The weights are gone", is_final=False, again_in_s=1.0
    )
    assert world.loader.failed("large", "llm") is None
    world.clock.advance(1.0)
    world.worker.go_on.clear()
    await world.ask()
    tried = world.loader.failed("small", "llm")
    assert tried is not None
    assert (tried.is_tried, tried.is_off) == (True, False)
    world.worker.go_on.set()
    await world.ask()

    world.worker.error = TooLarge("It takes 30 of 25 MiB")
    await world.ask("echo")
    assert world.loader.failed("small", "echo") == FailedLoad(
        "It takes 30 of 25 MiB", is_final=True, again_in_s=1.0
    )

    world.clock.advance(TOLD_S + 1.0)
    assert world.loader.failed("small", "echo") is None, "nobody has tried for long"
    world.worker.error = None
    await world.ask()
    assert world.loader.failed("small", "llm") is None


async def test_why_a_load_failed_is_told_as_long_as_it_is_wanted() -> None:
    world = World()
    world.worker.go_on.set()
    world.worker.error = WorkerError("The weights are gone")
    await world.ask()
    assert world.loader.troubles()

    world.clock.advance(TOLD_S + 0.1)
    assert world.loader.troubles() == {}


async def test_nobody_up_is_nobody_asked_and_closing_waits_for_nothing() -> None:
    world = World()
    world.is_up = False
    await world.ask()
    assert world.worker.asked == []

    world.is_up = True
    await world.ask()
    async with asyncio.timeout(PATIENCE_S):
        await world.loader.close()
