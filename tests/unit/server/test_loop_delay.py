"""The time for which the event loop could not listen."""

from __future__ import annotations

import asyncio
import math
import time

from synapse_server.loop_delay import GRACE_S, TICK_S, LoopDelay
from tests.patience import PATIENCE_S

BLOCKED_S = 0.1


async def test_a_loop_that_computes_is_late_at_once_and_stays_so_counted() -> None:
    delay = LoopDelay()
    watch = asyncio.create_task(delay.watch())
    await asyncio.sleep(2 * TICK_S)
    before_s = delay()

    time.sleep(BLOCKED_S)
    within_s = delay() - before_s
    await asyncio.sleep(2 * TICK_S)
    after_s = delay() - before_s
    watch.cancel()

    assert within_s >= BLOCKED_S - TICK_S - GRACE_S
    assert after_s >= within_s


async def test_a_loop_that_waits_is_not_late() -> None:
    delay = LoopDelay()
    watch = asyncio.create_task(delay.watch())

    # On a busy machine it is kept from running at times, but not all the time.
    late_s = math.inf
    async with asyncio.timeout(PATIENCE_S):
        while late_s >= 0.01:
            before_s = delay()
            await asyncio.sleep(0.05)
            late_s = delay() - before_s
    watch.cancel()


async def test_who_does_not_watch_is_never_late() -> None:
    assert LoopDelay()() == 0.0
