"""What the schedule does on AWS, done here on timers: sweep, ping, purge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from synapse.domain.errors import Unavailable

logger = logging.getLogger(__name__)


async def every(period_s: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` now and then every `period_s` seconds until cancelled; its failures are logged.

    That something is unavailable (the disk is full) is told once, until it goes well again.
    """
    told = ""
    while True:
        try:
            await work()
        except Unavailable as error:
            if error.message != told:
                text = "%s failed: %s; it is tried again every %g s"
                logger.warning(text, name, error.message, period_s)
            told = error.message
        except Exception:
            logger.exception("%s failed; it is tried again in %g s", name, period_s)
        else:
            if told:
                logger.info("%s goes well again", name)
            told = ""
        await asyncio.sleep(period_s)
