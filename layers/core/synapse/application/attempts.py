"""Finding a worker for a caller who is on the line: pool after pool, until the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy

RETRY_AFTER_S = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempts:
    """The pools of one request, first choice first, and until when they are tried.

    A worker that cannot be reached is most often being started: nothing of the request is lost
    by holding it and asking again, with growing pauses. `deadline_at` is by the loop's clock.
    """

    pools: Sequence[Pool]
    deadline_at: float
    retry: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    uniform: Callable[[], float]

    async def run(
        self, call: Callable[[Pool], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[tuple[Pool, T], None]:
        """The parts of the first call that gives any, with the pool they come from.

        Raises:
            Unavailable: no pool took it in time.
            EngineError: what the call raised, but for an EngineUnavailable before its first part.
        """
        failures = 0
        while True:
            for pool in self.pools:
                begun = False
                try:
                    async with aclosing(call(pool)) as parts:
                        async for part in parts:
                            begun = True
                            yield pool, part
                    return
                except EngineUnavailable as error:
                    if begun:
                        raise
                    cause = error
            failures += 1
            await self._pause(failures, cause)

    async def _pause(self, failures: int, cause: EngineUnavailable) -> None:
        pause_s = self.retry.delay_s(failures, self.uniform())
        if asyncio.get_running_loop().time() + pause_s >= self.deadline_at:
            raise Unavailable(
                f"no worker took the request in time: {cause.message}",
                retry_after_s=RETRY_AFTER_S,
                code=cause.code,
            ) from cause
        await self.sleep(pause_s)
