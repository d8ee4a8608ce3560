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
    delay.begin()
    await asyncio.sleep(2 * TICK_S)
    before_s = delay()

    time.sleep(BLOCKED_S)
    within_s = delay() - before_s
    await asyncio.sleep(2 * TICK_S)
    after_s = delay() - before_s
    delay.end()

    assert within_s >= BLOCKED_S - TICK_S - GRACE_S
    assert after_s >= within_s


async def test_a_loop_that_waits_is_not_late() -> None:
    delay = LoopDelay()
    delay.begin()

    # On a busy machine it is kept from running at times, but not all the time.
    late_s = math.inf
    async with asyncio.timeout(PATIENCE_S):
        while late_s >= 0.01:
            before_s = delay()
            await asyncio.sleep(0.05)
            late_s = delay() - before_s
    delay.end()


async def test_what_was_late_at_the_end_stays_counted_and_nothing_more_is() -> None:
    delay = LoopDelay()
    delay.begin()
    time.sleep(BLOCKED_S)
    delay.end()
    late_s = delay()

    time.sleep(BLOCKED_S)

    assert late_s >= BLOCKED_S - TICK_S - GRACE_S
    assert delay() == late_s


async def test_it_listens_until_the_last_of_many_has_his_answer() -> None:
    delay = LoopDelay()
    delay.begin()
    delay.begin()
    delay.end()
    before_s = delay()

    time.sleep(BLOCKED_S)

    assert delay() - before_s >= BLOCKED_S - TICK_S - GRACE_S
    delay.end()


async def test_while_nobody_waits_it_is_never_late() -> None:
    assert LoopDelay()() == 0.0
