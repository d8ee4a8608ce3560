"""Wiring of the AWS target, as far as profiles go."""

from __future__ import annotations

import math
import time

from synapse.application.profile import Profiler
from synapse.aws_fleet import FleetTarget
from synapse.domain.pool import Pool


def profiler_of(target: FleetTarget, most_s: float = math.inf) -> Profiler:
    """The profiler over the target's pools; a measurement takes `most_s` at most."""
    parts = target.parts

    async def busy(pool: Pool) -> int:
        models = [model for model in await parts.registry.models() if pool.serves(model.name)]
        return sum([await parts.in_flight.count(model.name, pool.name) for model in models])

    return Profiler(
        parts.registry,
        # Not the fleet's: what a crowd does to a worker is no reason to open its breaker.
        parts.engine,
        parts.profiles,
        target.fleet.placement.place,
        busy,
        time.time,
        most_s,
    )
