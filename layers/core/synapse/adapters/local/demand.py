"""The demand on one machine: arrivals counted in memory, and what waits in the queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synapse.adapters.local.queue import Kind, LocalJobQueue
from synapse.domain.extension import Extensions
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.routing import Need
from synapse.ports import Clock

WINDOW_S = 60
"""Over which arrivals a second are counted."""

MIN_ELAPSED_S = 5.0
"""A rate is never taken over less: two requests in the first moment are no flood."""

LATEST_SHARE = 0.5
"""How much the latest start counts in what is expected of the next one."""


@dataclass(slots=True)
class _Second:
    """What arrived in one second."""

    at: int
    items: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0


class _Counter:
    """The arrivals of a model in one tier."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._seconds: deque[_Second] = deque()
        self.last_at = now
        self.first_token_only = False

    def add(self, now: float, need: Need) -> None:
        if not self._seconds or self._seconds[-1].at != int(now):
            self._forget(now)
            self._seconds.append(_Second(int(now)))
        second = self._seconds[-1]
        second.items += need.items
        second.prompt_tokens += need.items * need.prompt_tokens
        second.output_tokens += need.items * need.output_tokens
        self.last_at, self.first_token_only = now, need.first_token_only

    def demand(self, now: float, queued: int) -> TierDemand:
        self._forget(now)
        items = sum(second.items for second in self._seconds)
        elapsed_s = min(float(WINDOW_S), max(MIN_ELAPSED_S, now - self._since))
        return TierDemand(
            queued,
            items / elapsed_s,
            self.last_at,
            sum(second.prompt_tokens for second in self._seconds) // max(1, items),
            sum(second.output_tokens for second in self._seconds) // max(1, items),
        )

    def _forget(self, now: float) -> None:
        if self.last_at > now + WINDOW_S:
            # The clock was put back: what came before that says nothing of this minute.
            self._seconds.clear()
            self.last_at = now
        while self._seconds and self._seconds[0].at <= now - WINDOW_S:
            self._seconds.popleft()
        if not self._seconds:
            # After a pause the rate is that since the next arrival, not diluted by the pause.
            self._since = now


class LocalDemand:
    """See the ports `DemandSource` and `Arrivals`."""

    def __init__(self, queue: LocalJobQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._counters: dict[Kind, _Counter] = {}

    def arrived(self, model: str, need: Need) -> None:
        """See the port."""
        now = self._clock()
        kind = (model, need.tier, need.requires)
        counter = self._counters.get(kind)
        if counter is None:
            counter = self._counters[kind] = _Counter(now)
        counter.add(now, need)

    def last_asked(self) -> Mapping[str, float]:
        """When each model was last asked for anything, in seconds since the epoch.

        One that jobs wait for is asked for now, whenever they came.
        """
        last: dict[str, float] = {}
        for (model, *_), counter in self._counters.items():
            last[model] = max(last.get(model, 0.0), counter.last_at)
        now = self._clock()
        return last | {model: now for model, *_ in self._queue.waiting_by_kind()}

    async def demand(self, now: float) -> Sequence[ModelDemand]:
        """See the port."""
        demands: defaultdict[tuple[str, Extensions], dict[SlaTier, TierDemand]] = defaultdict(dict)
        text: set[str] = set()
        waiting = self._queue.waiting_by_kind()
        for kind in {*self._counters, *waiting}:
            model, tier, requires = kind
            queued = waiting.get(kind, 0)
            counter = self._counters.get(kind)
            if counter is None:
                demands[model, requires][tier] = TierDemand(queued)
                continue
            demands[model, requires][tier] = counter.demand(now, queued)
            if counter.first_token_only:
                text.add(model)
        return [
            ModelDemand(model, demands[model, requires], model in text, requires)
            for model, requires in sorted(demands, key=lambda kind: (kind[0], sorted(kind[1])))
        ]


class LocalWaker:
    """The port `Waker`, and the end at which the autoscaler's loop waits."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    async def wake(self, model: str, need: Need) -> None:
        """See the port."""
        self._woken.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when it was woken since the last time, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        self._woken.clear()


class LocalStartTimes:
    """See the port `StartTimes`: in memory, a mean in which the latest start counts half."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    async def startup_s(self, pool: str) -> float | None:
        """See the port."""
        return self._seconds.get(pool)

    async def started(self, pool: str, seconds: float) -> None:
        """See the port."""
        before = self._seconds.get(pool, seconds)
        self._seconds[pool] = before + LATEST_SHARE * (seconds - before)
