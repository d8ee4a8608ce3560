"""A call of a worker: its delay on the way, its work, and what the product learns from it."""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.simulator.events import Events, at_once
from bench.simulator.facts import Draws
from bench.simulator.pools import Unit
from bench.simulator.ports import Profiles
from bench.simulator.requests import Request
from synapse.application.vitals import Vitals
from synapse.domain.expectation import Work, whole_ms
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool


class Calls:
    """Does for simulated calls what `application.call` does for real ones."""

    def __init__(
        self,
        events: Events,
        chance: random.Random,
        vitals: Vitals,
        profiles: Profiles,
        hop: Draws,
    ) -> None:
        self._events = events
        self._chance = chance
        self._hop = hop
        self._vitals = vitals
        self._profiles = profiles

    def make(
        self,
        spec: ModelSpec,
        placed: Pool,
        unit: Unit,
        request: Request,
        ended: Callable[[], None],
    ) -> None:
        """Call the worker that was chosen; `ended` when its answer is there."""
        vitals, place = self._vitals, (placed.name, placed.worker)
        vitals.outstanding[place] += 1
        profile = at_once(self._profiles.profile(spec.name, spec.version, placed.name))
        expected_ms = whole_ms(profile, Work(), vitals.outstanding[place], placed.slots_of(spec))
        of_pool, breaker = vitals.pool(spec.name, placed.name), vitals.breaker_of(spec.name, placed)
        began_at = self._events.now
        ticket, pool_ticket = breaker.began(began_at), of_pool.breaker.began(began_at)

        def done() -> None:
            now = self._events.now
            vitals.outstanding[place] -= 1
            if not vitals.outstanding[place]:
                del vitals.outstanding[place]
            of_pool.took_ms.note(now, (now - began_at) * 1000)
            of_pool.whole.note(now, (now - began_at) * 1000 / expected_ms)
            breaker.succeeded(ticket, now)
            of_pool.breaker.succeeded(pool_ticket, now)
            ended()

        def arrived() -> None:
            work_s = unit.kind.work[spec.name].at(request.score)
            unit.machine.take(work_s, request.tier.rank, done)

        way = unit.kind.way.get(spec.name)
        way_s = 0.0 if way is None else way.at(request.score)
        self._events.after(self._hop.draw(self._chance) + way_s, arrived)
