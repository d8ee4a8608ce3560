"""What this process has seen of the workers it calls: who fails, how long calls take, how many run.

In memory, and of this process alone: it is what decides the next call, not what is reported.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from synapse.domain.breaker import Breaker, BreakerPolicy, BreakerState
from synapse.domain.crowding import Crowding
from synapse.domain.latency import WINDOW_S, Latencies
from synapse.domain.pool import Pool
from synapse.domain.prediction import Live
from synapse.domain.profile import Profile
from synapse.ports import Clock

POOL_POLICY = BreakerPolicy(in_a_row=10)
"""A pool is not given up because one of its workers is: that one's own breaker opens before."""

MINUTE_SAMPLES = 4096
"""So many whole answers are kept: what share of them was slow is asked of the last minute, not of
the moment in which those that ran together were held up together."""


def _of_a_minute() -> Latencies:
    return Latencies(max_samples=MINUTE_SAMPLES)


@dataclass(slots=True)
class PoolVitals:
    """Of a model in a pool: its breaker, and what calls took.

    `whole` and `first` hold multiples of what was to be expected (`domain.expectation`) by the
    profile measured at `profiled_at`, or without one (None); `company` the most items
    that were in slots during those calls. Of gold and silver, with a profile: `to_read`, the tokens
    that items had to read; without: `crowding`, their first tokens by the items in flight.
    `heard_at` is when something came last of each worker.
    """

    breaker: Breaker = field(default_factory=lambda: Breaker(POOL_POLICY))
    took_ms: Latencies = field(default_factory=_of_a_minute)
    whole: Latencies = field(default_factory=Latencies)
    first: Latencies = field(default_factory=Latencies)
    company: Latencies = field(default_factory=Latencies)
    to_read: Latencies = field(default_factory=Latencies)
    crowding: Crowding = field(default_factory=Crowding)
    heard_at: dict[str, float] = field(default_factory=dict)
    profiled_at: float | None = None
    patience: dict[bool, tuple[float, float]] = field(default_factory=dict)
    """From how many times what is to be expected a call is slow, by whether it streams: found out
    at that time, and as good for the calls of the next moment."""

    def measure_by(self, profile: Profile | None) -> None:
        """Begin anew if what was to be expected is told otherwise from now on."""
        profiled_at = None if profile is None else profile.measured_at
        if profiled_at != self.profiled_at:
            self.whole, self.first, self.company = Latencies(), Latencies(), Latencies()
            self.profiled_at = profiled_at
            self.patience.clear()

    def is_outlived(self, worker: str, began_at: float) -> bool:
        """Whether nothing came of a worker from then on, and something of others since it did."""
        never = float("-inf")
        since = self.heard_at.get(worker, never)
        others = [at for each, at in self.heard_at.items() if each != worker]
        return since <= began_at and max(others, default=never) > since

    def live(self, now: float) -> Live:
        """What calls took lately."""
        return Live(self.whole.quantiles(now), self.first.quantiles(now))


class Deafness(Protocol):
    """For how long this process could not listen, while somebody waited for an answer."""

    def __call__(self) -> float:
        """All the seconds until now."""
        ...

    def begin(self) -> None:
        """From now on somebody waits; to be ended as often as begun."""
        ...

    def end(self) -> None:
        """One who waited does so no more."""
        ...


class NeverDeaf:
    """Of a process that is not told how late it is."""

    def __call__(self) -> float:
        """None."""
        return 0.0

    def begin(self) -> None:
        """Nothing is counted."""

    def end(self) -> None:
        """Nothing was."""


class Vitals:
    """Breakers of workers and pools, the times of their calls, and the items under way.

    `clock` only has to go forward. A pool's only worker has no id and the pool's name.
    """

    def __init__(self, clock: Clock = time.monotonic, deaf: Deafness | None = None) -> None:
        self.clock = clock
        self.deaf = deaf or NeverDeaf()
        self.outstanding: Counter[tuple[str, str]] = Counter()
        """Items that this process has under way, by pool and worker."""
        self._bought: dict[str, dict[str, float]] = {}
        self._pools: dict[tuple[str, str], PoolVitals] = {}
        self._workers: dict[tuple[str, str, str], Breaker] = {}

    def pool(self, model: str, pool: str) -> PoolVitals:
        """Of a model in a pool."""
        vitals = self._pools.get((model, pool))
        if vitals is None:
            vitals = self._pools[model, pool] = PoolVitals()
        return vitals

    def buys(self, model: str, pool: str) -> None:
        """A model is sent to a pool for its price: as long as that goes on, its workers stay up."""
        self._bought.setdefault(pool, {})[model] = self.clock()

    def is_spare(self, model: str, pool: str, workers: Iterable[str]) -> bool:
        """Whether a worker of the pool is up for another model, and does nothing at the moment."""
        since = self.clock() - WINDOW_S
        others = self._bought.get(pool, {}).items()
        if not any(at > since and other != model for other, at in others):
            return False
        return any(not self.outstanding[pool, worker] for worker in workers)

    def breaker(self, model: str, pool: str, worker: str) -> Breaker:
        """Of a model on a worker: one that cannot answer for it may be well otherwise."""
        breaker = self._workers.get((worker, pool, model))
        if breaker is None:
            breaker = self._workers[worker, pool, model] = Breaker()
        return breaker

    def breaker_of(self, model: str, pool: Pool) -> Breaker:
        """Of a model on the worker that was chosen."""
        return self.breaker(model, pool.name, pool.worker)

    def unwell(self) -> list[tuple[str, str, str]]:
        """The workers whose breakers are not closed: model, pool and id, in that order."""
        return sorted(
            (model, pool, worker)
            for (worker, pool, model), breaker in self._workers.items()
            if breaker.state(self.clock()) is not BreakerState.CLOSED
        )

    def renew(self, worker: str) -> None:
        """Hold nothing against a worker any more: it came up again, or is no more."""
        for key in [key for key in self._workers if key[0] == worker]:
            del self._workers[key]
        for pool in self._pools.values():
            pool.heard_at.pop(worker, None)
