"""Rounds of the autoscaler on one machine: on a timer, and soon after work came."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest

from synapse.adapters.local.demand import LocalWaker
from synapse.application.autoscale import Autoscaler
from synapse.domain.job import SlaTier
from synapse.domain.routing import Need
from synapse_server import scaling_loop
from synapse_server.scaling_loop import keep_scaled
from tests.patience import PATIENCE_S


class Rounds:
    """Counts them; the named ones fail."""

    def __init__(self, *failing: int) -> None:
        self.made = 0
        self._failing = failing
        self._next = asyncio.Event()

    async def run(self) -> list[object]:
        self.made += 1
        self._next.set()
        if self.made in self._failing:
            raise RuntimeError("no")
        return []

    async def reach(self, number: int) -> None:
        """Return once so many were made."""
        async with asyncio.timeout(PATIENCE_S):
            while self.made < number:
                self._next.clear()
                await self._next.wait()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_loop, "PAUSE_S", 0.0)


async def test_a_round_is_made_at_once_and_when_work_comes() -> None:
    rounds, waker = Rounds(), LocalWaker()
    task = asyncio.create_task(keep_scaled(cast(Autoscaler, rounds), waker, every_s=3600))
    await rounds.reach(1)
    await asyncio.sleep(0.02)
    before = rounds.made

    await waker.wake("echo", Need(SlaTier.GOLD))
    await rounds.reach(2)
    await asyncio.sleep(0.02)

    task.cancel()
    assert (before, rounds.made) == (1, 2)


async def test_the_timer_makes_rounds_although_one_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rounds = Rounds(2)
    with caplog.at_level(logging.ERROR):
        task = asyncio.create_task(keep_scaled(cast(Autoscaler, rounds), LocalWaker(), 0.01))
        await rounds.reach(4)

    task.cancel()
    assert [record.message for record in caplog.records] == [
        "a round of the autoscaler failed; the next is in 0.01 s"
    ]
