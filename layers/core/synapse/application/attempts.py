"""Finding a worker for a caller who is on the line: pool after pool, until the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from synapse.domain.errors import EngineError, EngineLost, EngineUnavailable, Unavailable
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy

RETRY_AFTER_S = 5
"""The least that a caller is told to wait."""

MAX_LOSSES = 1
"""How many workers a request may lose before its first part, and still be tried on another: one
that takes workers down must not go through them all."""

PlaceInPool = Callable[[Pool, Collection[str]], Awaitable[Pool]]
"""Which worker of a pool is asked, but for those named.

Raises EngineUnavailable where none takes it now, Unavailable where none will.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempts:
    """The pools of one request, first choice first, and until when they are tried.

    A worker that cannot be reached is most often being started: nothing of the request is lost
    by holding it and asking again, with growing pauses. `deadline_at` is by the loop's clock;
    `retry_after_s` is what a caller is told whose time was too short.
    """

    pools: Sequence[Pool]
    deadline_at: float
    retry: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    uniform: Callable[[], float]
    place: PlaceInPool
    retry_after_s: int = RETRY_AFTER_S

    async def first(self, call: Callable[[Pool], Awaitable[T]]) -> tuple[Pool, T]:
        """What the first call answers that gives an answer, and the pool (placed) it is from.

        Raises:
            Unavailable, EngineError: as `run` does.
        """
        search = _Search(self)
        while True:
            worker = await search.next()
            try:
                return worker, await call(worker)
            except (EngineUnavailable, EngineLost) as error:
                search.failed(worker, error)

    async def run(
        self, call: Callable[[Pool], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[tuple[Pool, T], None]:
        """The parts of the first call that gives any, with the pool (placed) they come from.

        Raises:
            Unavailable: no pool took it in time, or none will.
            EngineError: what the call raised, but for an EngineUnavailable before its first part,
                and an EngineLost there unless it is the second.
        """
        search = _Search(self)
        while True:
            worker = await search.next()
            begun = False
            try:
                async with aclosing(call(worker)) as parts:
                    async for part in parts:
                        begun = True
                        yield worker, part
                return
            except (EngineUnavailable, EngineLost) as error:
                if begun:
                    raise
                search.failed(worker, error)

    async def pause(self, failures: int, cause: EngineError) -> None:
        """Wait before the pools are tried again.

        Raises:
            Unavailable: there is no time for that.
        """
        pause_s = self.retry.delay_s(failures, self.uniform())
        if asyncio.get_running_loop().time() + pause_s >= self.deadline_at:
            raise Unavailable(
                f"no worker took the request in time: {cause.message}",
                retry_after_s=self.retry_after_s,
                code=cause.code,
            ) from cause
        await self.sleep(pause_s)


class _Search:
    """The workers to try: all that a pool offers, then those of the next one, then all again."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._left = list(attempts.pools)
        self._failed: set[str] = set()
        self._cause: EngineError = EngineUnavailable("there is no pool to try")
        self._rounds = 0
        self._losses = 0

    async def next(self) -> Pool:
        """The next one, at once or after a pause.

        Raises:
            Unavailable: the time is up, or it is known to be in vain.
        """
        while True:
            while self._left:
                try:
                    return await self._attempts.place(self._left[0], self._failed)
                except EngineUnavailable as error:
                    if not self._failed:  # else its own words tell more
                        self._cause = error
                    del self._left[0]
                    self._failed.clear()
            self._rounds += 1
            await self._attempts.pause(self._rounds, self._cause)
            self._left = list(self._attempts.pools)

    def failed(self, worker: Pool, error: EngineUnavailable | EngineLost) -> None:
        """Leave a worker out of this round; raises the error if that was one too many."""
        self._losses += isinstance(error, EngineLost)
        if self._losses > MAX_LOSSES:
            raise error
        self._failed.add(worker.worker)
        self._cause = error
