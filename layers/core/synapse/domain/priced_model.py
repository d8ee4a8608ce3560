"""A model whose traffic is to be priced: what is known of it on each machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synapse.domain import reference
from synapse.domain.cost import SHORT, Payload
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.routing import PoolView

MOST_LAMBDA_GB = 10.0
"""The most memory that a function may have, for models of which nothing better is known."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model to be served: what is known of it on each pool, and on a function of its own.

    `sites` are pools that the template has, `elsewhere` machines that it has no pool of, on which
    others may run. `lambda_s` is what an item takes on a function, None where that is not known.
    Results of jobs are waited for by their callers (`waits`), or fetched after the end.
    """

    name: str
    sites: Sequence[tuple[Pool, Profile]]
    elsewhere: Sequence[tuple[Pool, Profile]] = ()
    lambda_s: float | None = None
    lambda_start_s: float = 8.0
    lambda_gb: float = MOST_LAMBDA_GB
    payload: Payload = SHORT
    waits: bool = False

    def views(self) -> list[PoolView]:
        """Its pools, at zero."""
        return [
            PoolView(pool, slots=max(reference.SLOTS, profile.best_batch), ready=0, profile=profile)
            for pool, profile in self.sites
        ]


def published(name: str, most: int = 20, idle_after_s: float = 300.0) -> Model:
    """A model of `domain.reference`, on each kind of machine that its speed is published for.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in reference.TIMES:
        known = ", ".join(reference.TIMES)
        raise ValueError(f"the speed of model {name!r} is not published; known are {known}")
    times = reference.TIMES[name]
    return timed(
        name,
        {accelerator: each.p50_s for accelerator, each in times.items()},
        {accelerator: each.p99_s / each.p50_s for accelerator, each in times.items()},
        most=most,
        idle_after_s=idle_after_s,
    )


def timed(
    name: str,
    item_s: Mapping[str, float],
    spread: Mapping[str, float],
    *,
    most: int = 20,
    idle_after_s: float = 300.0,
) -> Model:
    """A model of which it is known, by accelerator, how long an item takes, and p99 ÷ median.

    What is known of its name besides, its payloads and the memory of its function, is taken over.

    Raises:
        ValueError: there is no such accelerator, or the time is none.
    """
    sites: list[tuple[Pool, Profile]] = []
    elsewhere: list[tuple[Pool, Profile]] = []
    for accelerator, seconds in item_s.items():
        if accelerator not in reference.INSTANCE:
            known = ", ".join(reference.INSTANCE)
            raise ValueError(f"there is no accelerator {accelerator!r}; known are {known}")
        if not 0 < seconds < math.inf:
            raise ValueError(f"an item must take more than 0 ms on {accelerator}")
        pool = reference.pool(accelerator, most=most, idle_after_s=idle_after_s)
        profile = reference.profile(name, pool, seconds, spread.get(accelerator, 1.0))
        ours = sites if accelerator in reference.DEPLOYABLE else elsewhere
        ours.append((pool, profile))
    return Model(
        name,
        sites,
        elsewhere,
        item_s.get("cpu"),
        reference.LAMBDA_START.p50_s,
        reference.LAMBDA_GB.get(name, MOST_LAMBDA_GB),
        reference.PAYLOADS.get(name, SHORT),
    )
