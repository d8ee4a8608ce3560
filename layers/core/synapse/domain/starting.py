"""Where jobs that wait may start: only into free slots, so that the queue keeps its order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from synapse.domain.job import SlaTier
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision

MOST_TIMES_CHEAPEST = 3.0
"""So many times as much as in the cheapest pool bronze may cost in another."""


def startable(decision: Decision, rooms: Mapping[str, int], tier: SlaTier) -> tuple[Pool, ...]:
    """The pools in which jobs of the tier may start now, in the order of the decision.

    `rooms` has the free slots of each pool that is given work now. Bronze takes any of
    them that costs not much more than the cheapest in which it meets its deadline: it can wait.
    The better tiers stay where their promise is kept, as long as it is kept anywhere: there they
    would rather wait for a slot, and the decision has counted that in. Where it is kept nowhere
    they rather wait for a worker that starts than take one that would answer later.
    """
    up = [pool for pool in decision.pools if pool.name in rooms]
    fitting = [pool for pool in up if decision.of(pool.name).fits]
    options = _not_dear(decision, up) if tier is SlaTier.BRONZE else fitting or _soon(decision, up)
    return tuple(pool for pool in options if rooms[pool.name] > 0)


def _soon(decision: Decision, pools: Sequence[Pool]) -> Sequence[Pool]:
    """Those that would answer before a worker that starts."""
    start_ms = decision.soonest_start_ms()
    return [pool for pool in pools if (decision.of(pool.name).p99_ms or 0.0) <= start_ms]


def _not_dear(decision: Decision, pools: Sequence[Pool]) -> Sequence[Pool]:
    """Those in which an item adds little to the bill: nothing, where workers are kept up anyway."""
    candidates = [decision.of(pool.name) for pool in pools]
    known = [c.busy_usd_per_item for c in candidates if c.meets_deadline]
    cheapest_usd = min([usd for usd in known if usd is not None], default=math.inf)
    most_usd = MOST_TIMES_CHEAPEST * cheapest_usd
    return [each.pool for each in candidates if (each.usd_per_item or 0.0) <= most_usd]
