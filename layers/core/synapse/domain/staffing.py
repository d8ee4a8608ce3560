"""How many workers a promise needs, by Erlang's formula.

Items that share k workers, c of them side by side on each without being slowed down, are served as
by k·c servers. Those who come find all of these taken with the probability C(k·c, a·c) of Erlang
(A. K. Erlang, 1917; L. Kleinrock, Queueing Systems, vol. 1, ch. 3.5), where a is how many workers
are kept busy; and n items beyond them with (a/k)ⁿ times that. So the share that finds `most` items
on every worker, which is one too many for its promise, is C(k·c, a·c)·(a/k)^(k·(most − c)). That
also holds where items share a worker evenly, whatever the distribution of their sizes (M/G/1-PS),
and about where they come in bursts but are of like size: the squares of the two coefficients of
variation count only by their sum, 2 for Poisson and exponential.
"""

from __future__ import annotations

from functools import lru_cache

LATE_SHARE = 0.05
"""The share of arrivals that may find too much company.

Five times what the promise allows: one in a hundred costs a quarter more and keeps four more of a
hundred, one in five costs little less and keeps twelve fewer (ADR 0030).
"""

MOST_USE = 0.7
"""The share of workers that is busy at the most, whatever the promise: loads rise meanwhile."""

PRECISION = 1e-4
CACHED = 4096


def erlang_c(servers: int, load: float) -> float:
    """The probability that all servers are taken when somebody comes; 1 where they never end.

    `load` is how many of them are busy on the average.
    """
    if load >= servers:
        return 1.0
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = load * blocked / (n + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def crowded(workers: int, load: float, side_by_side: int, most: int) -> float:
    """The share of arrivals that finds `most` items or more on each worker.

    `load` is how many workers are kept busy, `side_by_side` how many items a worker does at once
    as fast as one.
    """
    servers = workers * side_by_side
    beyond = max(0, most - side_by_side) * workers
    use = min(1.0, load / workers)
    return erlang_c(servers, load * side_by_side) * use**beyond


@lru_cache(CACHED)
def bearable(workers: int, side_by_side: int, most: int) -> float:
    """The greatest load that so many workers bear: crowded at most as allowed, and not too full."""
    low, high = 0.0, workers * MOST_USE
    if crowded(workers, high, side_by_side, most) <= LATE_SHARE:
        return high
    while high - low > PRECISION:
        middle = (low + high) / 2
        if crowded(workers, middle, side_by_side, most) <= LATE_SHARE:
            low = middle
        else:
            high = middle
    return low


def workers_for(load: float, side_by_side: int, most: int) -> float:
    """How many workers bear the load, in fractions: between whole ones along a straight line."""
    workers, below = 1, 0.0
    while (bears := bearable(workers, side_by_side, most)) < load:
        if bears >= workers * MOST_USE:
            # More of them are used as well, so that this is what decides from here on.
            return load / MOST_USE
        workers, below = workers + 1, bears
    return workers - 1 + (load - below) / (bears - below)
