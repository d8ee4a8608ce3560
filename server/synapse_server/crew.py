"""The workers of one pool: as many as are wanted, started and stopped in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from synapse.domain.pool import Pool, PoolSize
from synapse.domain.retry import RetryPolicy
from synapse_server.config import FleetTimes
from synapse_worker.errors import WorkerError

if TYPE_CHECKING:
    from synapse.ports import Clock

logger = logging.getLogger(__name__)

REPLACE = RetryPolicy(base_s=2.0, max_s=300.0)
"""The pauses before the place of a worker that failed is filled again."""

STABLE_S = 300.0
"""A worker that came up after a failure and lived for so long ends the crash loop, if it was one:
the pauses begin anew. So they do where it is such a one that fails, after the last pause."""

DRAIN_S = FleetTimes().drain_s


class CrewMember(Protocol):
    """A worker as its crew sees it; `LocalWorker` says what its methods do."""

    id: str

    @property
    def detail(self) -> str: ...

    @property
    def is_busy(self) -> bool: ...

    async def start(self) -> None: ...

    async def wait_failed(self) -> None: ...

    @property
    def models(self) -> Collection[str]: ...

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None: ...

    async def drain(self) -> None: ...

    async def stop(self) -> None: ...


MakeWorker = Callable[[str, int], CrewMember]
"""Makes a worker from its id and its place in the pool (from 0; it has a folder of its own)."""


@dataclass(slots=True)
class _Member:
    worker: CrewMember
    number: int
    place: int
    is_up: bool = False
    up_at: float | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)


class Crew:
    """Keeps `desired` workers of a pool up, never more than its most, until it is closed.

    A worker that fails for good is taken out at once and its place filled after a pause, which
    doubles with every failure; those that fail meanwhile share it. One that is no longer wanted
    is drained before it is stopped, for `drain_s` at the most.
    """

    def __init__(
        self,
        pool: Pool,
        make: MakeWorker,
        clock: Clock,
        replace: RetryPolicy = REPLACE,
        drain_s: float = DRAIN_S,
    ) -> None:
        """Nobody is started before `open`."""
        self.pool = pool
        self._make = make
        self._clock = clock
        self._replace = replace
        self._drain_s = drain_s
        self._desired = pool.min_workers
        self._members: list[_Member] = []
        self._lives: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._numbers = 0
        self._failures = 0
        self._not_before = 0.0
        self._failed_at = float("-inf")
        self._first_error: WorkerError | None = None
        self._is_open = False
        self.trouble = ""
        """Why the last worker failed; empty once one is up again."""
        self.on_cut: Callable[[str], None] = _ignore
        """Told of a worker that is stopped with what it still works on: it was to go long ago."""

    def size(self) -> PoolSize:
        """How many are wanted, how many answer, how many are on their way."""
        staying = [member for member in self._members if not member.leave.is_set()]
        ready = sum(member.is_up for member in staying)
        return PoolSize(self._desired, ready, len(staying) - ready)

    def staying(self, worker_id: str) -> CrewMember | None:
        """The worker of that id, if it is up and not about to leave."""
        up = (each.worker for each in self._members if each.is_up and not each.leave.is_set())
        return next((worker for worker in up if worker.id == worker_id), None)

    def resize(self, desired: int) -> None:
        """Want so many from now on, as far as the pool may have them; returns at once."""
        self._desired = max(0, min(desired, self.pool.max_workers))
        self._changed.set()

    async def open(self) -> None:
        """Return once the pool's least number of workers is up.

        Raises:
            WorkerError: one of them could not be started; `close` ends the others.
        """
        self._keeper = asyncio.create_task(self._keep(), name=f"crew-{self.pool.name}")
        while self.size().ready < self.pool.min_workers:
            if self._first_error is not None:
                raise self._first_error
            await self._next_change()
        self._is_open = True

    async def close(self) -> None:
        """Stop all, side by side, with what they still have."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            self._fit()
            pause_s = self._not_before - self._clock()
            await self._next_change(pause_s if pause_s > 0 else None)

    async def _next_change(self, timeout_s: float | None = None) -> None:
        # A new event for the next change: several may wait for this one.
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        if self._changed is changed:
            self._changed = asyncio.Event()

    def _fit(self) -> None:
        """Start who is missing and let go who is too many."""
        staying = [member for member in self._members if not member.leave.is_set()]
        # First who is not up yet, then who has nothing to do, and of those the last that came.
        spare = sorted(staying, key=lambda m: (m.is_up, m.worker.is_busy, -m.number))
        for member in spare[: max(0, len(staying) - self._desired)]:
            member.leave.set()
        room = self.pool.max_workers - len(self._members)
        missing = min(self._desired - len(staying), room)
        if missing > 0 and self._clock() >= self._not_before:
            for _ in range(missing):
                self._add()

    def _add(self) -> None:
        taken = {member.place for member in self._members}
        place = next(n for n in range(self.pool.max_workers) if n not in taken)
        self._numbers += 1
        worker_id = f"{self.pool.name}-{self._numbers}"
        try:
            member = _Member(self._make(worker_id, place), self._numbers, place)
        except WorkerError as error:
            self._note_failure(worker_id, error)
            return
        self._members.append(member)
        life = asyncio.create_task(self._live(member), name=f"worker-{worker_id}")
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, member: _Member) -> None:
        """The whole life of one worker, from its start until nothing of it is left."""
        worker = member.worker
        try:
            await self._serve(member)
        except WorkerError as error:
            # It is out before it is cleared away, which may take seconds.
            self._note_failure(worker.id, error, member.up_at)
        except Exception as error:
            logger.exception("worker %s broke off", worker.id)
            self._note_failure(worker.id, WorkerError(f"{error}", "See the log"), member.up_at)
        finally:
            member.is_up = False
            member.leave.set()
            try:
                await worker.stop()
            finally:
                self._note_stable()
                self._members.remove(member)
                self._changed.set()

    async def _serve(self, member: _Member) -> None:
        if not await _before(member.leave, member.worker.start()):
            return
        member.is_up, member.up_at, self.trouble = True, self._clock(), ""
        self._changed.set()
        if await _before(member.leave, member.worker.wait_failed()):
            raise WorkerError(member.worker.detail or "it failed", "See its log")
        member.is_up = False
        try:
            async with asyncio.timeout(self._drain_s):
                await member.worker.drain()
        except TimeoutError:
            text = "worker %s still works after %.0f s, and is stopped: what it has goes elsewhere"
            logger.warning(text, member.worker.id, self._drain_s)
            self.on_cut(member.worker.id)

    def _note_failure(self, worker_id: str, error: WorkerError, up_at: float | None = None) -> None:
        if self._first_error is None:
            self._first_error = error
        self._note_stable()
        now = self._failed_at = self._clock()
        # Those that were started together fail together, for one reason: that counts once.
        if now >= self._not_before:
            has_lived = up_at is not None and now - up_at >= STABLE_S
            self._failures = 1 if has_lived else self._failures + 1
            # The whole of it: there is nobody to be out of step with, and no pause would be a loop.
            self._not_before = now + self._replace.delay_s(self._failures, 1.0)
        self.trouble = str(error)
        self._changed.set()
        # Before that whoever opens it tells of it.
        if self._is_open:
            text = "worker %s is taken out: %s (another in %.0f s, if it is wanted)"
            logger.error(text, worker_id, error, self._not_before - now)

    def _note_stable(self) -> None:
        now = self._clock()
        since = [m.up_at for m in self._members if m.up_at is not None]
        if any(at > self._failed_at and now - at >= STABLE_S for at in since):
            self._failures = 0


def _ignore(worker_id: str) -> None:
    """Nobody waits for anything of it."""


async def _before(end: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` was done before `end` came; it is cancelled if not.

    Raises:
        Exception: what `work` raises.
    """
    doing, ending = asyncio.create_task(work), asyncio.create_task(end.wait())
    try:
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        doing.result()
        return True
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)
