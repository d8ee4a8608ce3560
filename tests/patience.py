"""How long a test waits for what must come."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 300.0
"""Only a failure takes so long: a busy machine keeps what is well from running for a while."""

LOOK_EVERY_S = 0.002

TRIES = 5
"""What a pause of the machine spoils once it does not spoil each time."""


async def until(holds: Callable[[], bool]) -> None:
    """Let the others run until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(LOOK_EVERY_S)


def wait_until(holds: Callable[[], bool]) -> None:
    """Hold up this thread until what others do makes it hold."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(LOOK_EVERY_S)


def once_in_a_few(holds: Callable[[], bool]) -> bool:
    """Whether it holds at least once: it always would, had the machine nothing else to do."""
    return any(holds() for _ in range(TRIES))
