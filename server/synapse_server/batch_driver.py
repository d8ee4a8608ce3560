"""Drives the open file batches of one machine, each in its turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from dataclasses import dataclass, field

from synapse.application.advance import WINDOW_LINES, Advancer, Progress
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatch, FileBatchId
from synapse.ports.file_batches import FileBatchStore

logger = logging.getLogger(__name__)

MIN_WINDOW_LINES = 50
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 60.0
"""Between two tries of a step that fails; the pauses double."""


@dataclass(slots=True)
class _Turn:
    """When an open batch is to be stepped next, and how often in a row that has failed.

    `due_at` is of the loop's time: turns are in order also where the clock is set back.
    """

    batch_id: FileBatchId
    tenant: str
    due_at: float
    failures: int = 0


@dataclass(slots=True)
class BatchDriver:
    """Steps one batch at a time, the one that has been due for longest; a step is bounded.

    The more batches are open, the fewer lines each has under way, so that none waits long behind
    another in the queue.
    """

    store: FileBatchStore
    advancer: Advancer
    _turns: dict[FileBatchId, _Turn] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self, batch: FileBatch) -> None:
        """Take a batch on, or give it its next turn at once."""
        now = _now()
        turn = self._turns.setdefault(batch.id, _Turn(batch.id, batch.tenant, now))
        turn.due_at = min(turn.due_at, now)
        self._changed.set()

    async def run(self) -> None:
        """Take up what was left open, and drive until cancelled."""
        for batch in await self._left_open():
            self.start(batch)
        while True:
            turn = await self._next()
            # Whoever starts it meanwhile has seen what this step may not have.
            turn.due_at = math.inf
            progress = await self._step(turn)
            turn.due_at = min(turn.due_at, _now() + progress.wait_s)
            if progress.is_done:
                del self._turns[turn.batch_id]

    async def _left_open(self) -> list[FileBatch]:
        while True:
            try:
                return list(await self.store.open())
            except Unavailable as error:
                logger.warning("open batches not read: %s", error.message)
                await asyncio.sleep(FIRST_PAUSE_S)

    async def _next(self) -> _Turn:
        """The batch whose turn it is, once it is."""
        while True:
            self._changed.clear()
            turn = min(self._turns.values(), key=lambda turn: turn.due_at, default=None)
            wait_s = turn.due_at - _now() if turn is not None else None
            if turn is not None and wait_s is not None and wait_s <= 0:
                return turn
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _step(self, turn: _Turn) -> Progress:
        window = max(MIN_WINDOW_LINES, WINDOW_LINES // len(self._turns))
        try:
            progress = await self.advancer.advance(turn.tenant, turn.batch_id, window)
        except Exception as error:
            turn.failures += 1
            pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(turn.failures - 1, 10))
            extra = {"batch": turn.batch_id}
            if isinstance(error, Unavailable):
                logger.warning("batch held up: %s", error.message, extra=extra)
            else:
                logger.exception("batch not advanced; tried again in %g s", pause_s, extra=extra)
            return Progress(is_done=False, wait_s=pause_s)
        turn.failures = 0
        # Steps over records in memory may not have waited for anything.
        await asyncio.sleep(0)
        return progress


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class LocalFileBatchStarter:
    """The FileBatchStarter of this target: the driver is in this process."""

    driver: BatchDriver

    async def start(self, batch: FileBatch) -> None:
        """See the port."""
        self.driver.start(batch)
