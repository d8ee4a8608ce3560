"""Where jobs that wait may start: only into free slots, so that the queue keeps its order."""

from __future__ import annotations

from collections.abc import Mapping

from synapse.domain.job import SlaTier
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision


def startable(decision: Decision, rooms: Mapping[str, int], tier: SlaTier) -> tuple[Pool, ...]:
    """The pools in which jobs of the tier may start now, in the order of the decision.

    `rooms` has the free slots of each pool whose workers are up and well. Bronze takes any of
    them. The better tiers stay where their promise is kept, as long as it is kept anywhere: there
    they would rather wait for a slot, and the decision has counted that in.
    """
    up = [pool for pool in decision.pools if pool.name in rooms]
    fitting = [pool for pool in up if decision.of(pool.name).fits]
    options = up if tier is SlaTier.BRONZE else fitting or up
    return tuple(pool for pool in options if rooms[pool.name] > 0)
