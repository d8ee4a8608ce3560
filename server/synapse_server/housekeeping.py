"""What the schedule does on AWS, done here on timers: sweep, ping, purge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


async def every(period_s: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` now and then every `period_s` seconds until cancelled; its failures are logged."""
    while True:
        try:
            await work()
        except Exception:
            logger.exception("%s failed; it is tried again in %g s", name, period_s)
        await asyncio.sleep(period_s)
