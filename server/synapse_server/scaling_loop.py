"""Keeps the pools of one machine as large as they need to be: on a timer, and when work comes."""

from __future__ import annotations

import asyncio
import logging

from synapse.adapters.local.demand import LocalWaker
from synapse.application.autoscale import Autoscaler

logger = logging.getLogger(__name__)

PAUSE_S = 0.1
"""Between two rounds, however often it is woken."""


async def keep_scaled(autoscaler: Autoscaler, waker: LocalWaker, every_s: float) -> None:
    """Make a round now, every `every_s` seconds, and soon after each call for one."""
    while True:
        try:
            await autoscaler.run()
        except Exception:
            logger.exception("a round of the autoscaler failed; the next is in %g s", every_s)
        await asyncio.sleep(PAUSE_S)
        await waker.wait(every_s)
