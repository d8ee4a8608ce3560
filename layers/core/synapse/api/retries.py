"""A request on the line that is sent again gets the answer of the first, and is not paid twice.

A client whose connection broke, or whose patience ended, sends its request again. With an
`Idempotency-Key` that is certain to be the same request. Without one OpenAI's clients say of a
request that it is their second attempt (`x-stainless-retry-count`), and it is taken for the same
if it comes from the same account with the same body, and the first one's client has gone, or was
answered just now (docs/adr/0035-receipts.md). All of it is known to one process only.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from synapse.api.replies import Answered, Reply, StreamReply
from synapse.domain.access import Principal
from synapse.domain.errors import IdempotencyConflict

KEYED_S = 600.0
"""How long an answer is kept for those who send its key again."""

UNKEYED_S = 60.0
"""The same for clients' own second attempts, which come within seconds."""

GRACE_S = 10.0
"""How long a request without a key goes on when its client has gone; they come back within 8 s."""

MAX_KEPT = 10_000
MAX_KEPT_BYTES = 64 * 1024 * 1024

ATTACHED = {"x-synapse-retry": "attached"}


class Name(NamedTuple):
    """Which requests are one and the same; without a key those with the same body."""

    tenant: str
    account: str
    route: str
    key: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request as its client describes it. `retries` of it were made before, None if unsaid."""

    caller: Principal
    route: str
    body: str
    key: str | None = None
    retries: int | None = None

    @property
    def is_tracked(self) -> bool:
        """Whether it may come again and be known by it."""
        return self.key is not None or self.retries is not None


@dataclass(eq=False, slots=True)
class _Run:
    """One request being answered, or answered. `newest` is the last who came to wait for it.

    It `is_taken` once somebody has the answer.
    """

    name: Name
    fingerprint: str
    task: asyncio.Task[Answered]
    waiting: int = 0
    newest: int = 0
    is_taken: bool = False
    expires_at: float = 0.0
    size: int = 0
    ending: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def is_left(self) -> bool:
        """Whether it was begun for somebody who has gone without an answer."""
        return self.waiting == 0 and not self.is_taken


class Retries:
    """The requests under way and answered just now that may come again."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        grace_s: float = GRACE_S,
        max_bytes: int = MAX_KEPT_BYTES,
    ) -> None:
        self._clock = clock
        self._grace_s = grace_s
        self._max_bytes = max_bytes
        self._runs: dict[Name, list[_Run]] = {}
        self._unkeyed: OrderedDict[_Run, None] = OrderedDict()
        self._keyed: OrderedDict[_Run, None] = OrderedDict()
        self._kept_bytes = 0
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many requests are remembered."""
        return sum(map(len, self._runs.values()))

    async def answer(self, attempt: Attempt, make: Callable[[], Awaitable[Answered]]) -> Answered:
        """What `make` answers, or answers already, to the same request.

        Raises:
            IdempotencyConflict: the key was used for another request.
        """
        if not attempt.is_tracked:
            return await make()
        self._forget_old()
        fingerprint = hashlib.sha256(attempt.body.encode()).hexdigest()
        caller, key = attempt.caller, attempt.key
        body = fingerprint if key is None else ""
        name = Name(caller.tenant, caller.account, attempt.route, key, body)
        earlier = self._earlier(name, fingerprint, attempt)
        answered = await self._wait(earlier or self._begin(name, fingerprint, make))
        if answered is None:
            return await make()
        if earlier is None:
            return answered
        return replace(answered, headers={**answered.headers, **ATTACHED})

    async def aclose(self) -> None:
        """End what nobody waits for any more."""
        runs = [run for runs in self._runs.values() for run in runs]
        for run in runs:
            self._forget(run)
            run.task.cancel()
        await asyncio.gather(*(run.task for run in runs), return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _earlier(self, name: Name, fingerprint: str, attempt: Attempt) -> _Run | None:
        """The run that the attempt is to share; None if it is to have its own."""
        runs = self._runs.get(name, ())
        if attempt.key is not None:
            if any(run.fingerprint != fingerprint for run in runs):
                raise IdempotencyConflict(
                    "Idempotency-Key: used before with another request; use a new key",
                    param="Idempotency-Key",
                )
        elif not attempt.retries:
            return None
        runs = [run for run in runs if not (run.is_taken and _is_stream(run))]
        left = [run for run in runs if run.is_left]
        if left:
            return left[-1]
        # That a client has gone is not always known; but of several nobody could say whose it was.
        return runs[0] if len(runs) == 1 else None

    def _begin(self, name: Name, fingerprint: str, make: Callable[[], Awaitable[Answered]]) -> _Run:
        async def made() -> Answered:
            answered = await make()
            if isinstance(answered, Reply):
                return replace(answered, body=answered.text())  # which is what is kept of it
            return answered

        run = _Run(name, fingerprint, asyncio.create_task(made()))
        self._runs.setdefault(name, []).append(run)
        run.task.add_done_callback(lambda _: self._made(run))
        return run

    async def _wait(self, run: _Run) -> Answered | None:
        """The run's answer; None if it is a stream, and somebody else reads it."""
        run.waiting += 1
        run.newest += 1
        ticket = run.newest
        _no_longer_ending(run)
        try:
            answered = await asyncio.shield(run.task)
        except asyncio.CancelledError:
            # Either the one who waits has gone, or the run was ended.
            self._left(run)
            raise
        except Exception:
            run.waiting -= 1
            raise
        run.waiting -= 1
        if isinstance(answered, StreamReply):
            if run.is_taken or ticket != run.newest:
                return None
            self._shelve(run, 0)
        run.is_taken = True
        return answered

    def _left(self, run: _Run) -> None:
        """One who waited has gone."""
        run.waiting -= 1
        is_kept = run in self._shelf(run)
        if run.waiting == 0 and not is_kept and (run.name.key is None or _is_stream(run)):
            self._end_later(run)

    def _made(self, run: _Run) -> None:
        """A run is over: its answer is kept for a while, an error is not."""
        if run.task.cancelled() or run.task.exception() is not None:
            self._forget(run)
            return
        answered = run.task.result()
        if isinstance(answered, StreamReply):
            if run.waiting == 0:
                self._end_later(run)
            return
        _no_longer_ending(run)
        self._shelve(run, len(answered.text()))

    def _shelve(self, run: _Run, size: int) -> None:
        """Keep an answer for a while; of a stream that is read just that its key was used."""
        if size == 0 and run.name.key is None:
            self._forget(run)
            return
        kept_s = UNKEYED_S if run.name.key is None else KEYED_S
        run.expires_at, run.size = self._clock() + kept_s, size
        self._shelf(run)[run] = None
        self._kept_bytes += run.size
        while (
            self._kept_bytes > self._max_bytes or len(self._unkeyed) + len(self._keyed) > MAX_KEPT
        ):
            self._forget(next(iter(self._unkeyed or self._keyed)))

    def _shelf(self, run: _Run) -> OrderedDict[_Run, None]:
        """Where it is kept: what came first goes first."""
        return self._unkeyed if run.name.key is None else self._keyed

    def _forget_old(self) -> None:
        now = self._clock()
        for shelf in (self._unkeyed, self._keyed):
            while shelf and (first := next(iter(shelf))).expires_at <= now:
                self._forget(first)

    def _forget(self, run: _Run) -> None:
        runs = self._runs.get(run.name, [])
        if run in runs:
            runs.remove(run)
        if not runs:
            self._runs.pop(run.name, None)
        if run in self._shelf(run):
            del self._shelf(run)[run]
            self._kept_bytes -= run.size

    def _end_later(self, run: _Run) -> None:
        if run.ending is None:
            loop = asyncio.get_running_loop()
            run.ending = loop.call_later(self._grace_s, self._end, run)

    def _end(self, run: _Run) -> None:
        """Nobody came back for it."""
        run.ending = None
        self._forget(run)
        if not run.task.done():
            run.task.cancel()
        elif _is_stream(run) and not run.is_taken:
            closing = asyncio.create_task(_closed(run.task.result()))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


class NoRetries(Retries):
    """Where the next attempt may come to another process: each is a request of its own."""

    async def answer(self, attempt: Attempt, make: Callable[[], Awaitable[Answered]]) -> Answered:
        """What `make` answers."""
        return await make()


def _no_longer_ending(run: _Run) -> None:
    if run.ending is not None:
        run.ending.cancel()
        run.ending = None


def _is_stream(run: _Run) -> bool:
    task = run.task
    if not task.done() or task.cancelled() or task.exception() is not None:
        return False
    return isinstance(task.result(), StreamReply)


async def _closed(answered: Answered) -> None:
    if isinstance(answered, StreamReply):
        await answered.chunks.aclose()
