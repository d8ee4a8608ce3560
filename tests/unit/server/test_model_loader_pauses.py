"""Pauses after loads that were refused or failed, and what others may do, or learn, meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

import pytest

from synapse_server.config import FleetTimes
from synapse_server.model_loader import EVICTING, FORGOTTEN_S, HOPELESS, REFUSED_S
from synapse_server.scaling_loop import PAUSE_S
from synapse_worker.agent.errors import NoRoom, NotNow
from synapse_worker.errors import WorkerError
from tests.unit.server.test_model_loader import PAUSES, POOL, OneWorker, World


class AlmostFull(OneWorker):
    """Has room for the small one only."""

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        self.asked.append(model)
        if model != "small":
            raise NoRoom("There is no room")


@pytest.mark.parametrize("large", [1, 2, 8])
@pytest.mark.parametrize("every_s", [0.1, FleetTimes().scale_every_s, 20.0])
async def test_those_that_have_no_room_leave_a_free_place_to_one_behind(
    every_s: float, large: int
) -> None:
    world = World(every_s)
    world.worker = AlmostFull()
    in_turn = [*(f"large-{n}" for n in range(large)), "small"]
    for _ in range(2 * len(in_turn)):
        for model in in_turn:
            world.loader.ask("s-1", POOL, model, keep={"busy"})
        for _ in range(5):
            await asyncio.sleep(0)
        # Only the timer makes rounds.
        world.clock.advance(PAUSE_S + every_s)

    assert "small" in world.worker.asked


async def failed(world: World, times: int) -> None:
    """Have the model fail so many times in a row."""
    world.worker.go_on.set()
    world.worker.error = WorkerError("The weights are gone")
    for _ in range(times):
        world.clock.advance(PAUSES.max_s)
        await world.ask()


async def test_while_others_keep_their_place_a_failing_model_is_off_and_not_due() -> None:
    world = World()
    await failed(world, HOPELESS)
    world.worker.error = NoRoom("There is no room")
    world.clock.advance(PAUSES.max_s)
    await world.ask()

    told = world.loader.failed("small", "llm")
    assert told is not None
    assert told.is_off, "the next try gets no place either"
    assert told.again_in_s == EVICTING.base_s - HOPELESS * PAUSES.max_s, "from the first failure"
    world.clock.advance(told.again_in_s)
    told = world.loader.failed("small", "llm")
    assert told is not None
    assert told.is_due


async def test_a_failing_model_is_due_again_soon_where_its_worker_only_was_down() -> None:
    world = World()
    await failed(world, HOPELESS)
    world.worker.error = NotNow("Triton is RESTARTING")
    world.clock.advance(PAUSES.max_s)
    await world.ask()

    told = world.loader.failed("small", "llm")
    assert told is not None
    assert told.is_due


async def test_failures_of_long_ago_do_not_count() -> None:
    world = World()
    await failed(world, HOPELESS)
    assert world.loader.failed("small", "llm") is not None
    world.clock.advance(FORGOTTEN_S)

    await failed(world, HOPELESS - 1)
    assert world.loader.failed("small", "llm") is None
    await failed(world, 1)
    assert world.loader.failed("small", "llm") is not None


async def test_that_a_model_has_to_wait_is_told_once_and_without_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.worker.go_on.set()

    async def waits() -> None:
        world.worker.error = NoRoom("There is no room", "Unload something")
        for _ in range(3):
            await world.ask()
            world.clock.advance(REFUSED_S)

    await waits()
    assert caplog.messages == ["worker s-1: llm has to wait: There is no room"]
    world.worker.error = None
    await world.ask()
    await waits()
    assert len(caplog.messages) == 2
