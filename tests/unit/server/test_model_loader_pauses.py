"""Pauses after loads that were refused or failed, and what others may do, or learn, meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from synapse_server.config import FleetTimes
from synapse_server.scaling_loop import PAUSE_S
from synapse_worker.agent.errors import NoRoom
from tests.unit.server.test_model_loader import POOL, OneWorker, World

ROUND_S = PAUSE_S + FleetTimes().scale_every_s
"""From one round to the next where only the timer makes them."""


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
async def test_those_that_have_no_room_leave_a_free_place_to_one_behind(large: int) -> None:
    world = World()
    world.worker = AlmostFull()
    in_turn = [*(f"large-{n}" for n in range(large)), "small"]
    for _ in range(2 * len(in_turn)):
        for model in in_turn:
            world.loader.ask("s-1", POOL, model, keep={"busy"})
        for _ in range(5):
            await asyncio.sleep(0)
        world.clock.advance(ROUND_S)

    assert "small" in world.worker.asked
