"""Where a caller on the line is let in: in which pool, and counted there until it leaves."""

from __future__ import annotations

import logging
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from synapse.application.windows import BronzeWindows
from synapse.domain.admission import AdmissionPolicy, Demand, Speed, slot_time_s
from synapse.domain.candidate import Candidate
from synapse.domain.errors import EngineUnavailable, Overloaded, Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, ServiceSample
from synapse.domain.pace import Pacemaker
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision
from synapse.ports import Clock, Entry, InFlight, Registry

logger = logging.getLogger(__name__)

NO_LIMIT = sys.maxsize
"""Who was let in stays in, in whatever pool; and who comes when no worker is up is held."""


def _pacemakers() -> defaultdict[tuple[str, str], Pacemaker]:
    return defaultdict(Pacemaker)


@dataclass(slots=True)
class Seat:
    """A request in the count of one pool, which may change; `slots` are those of the pool.

    One `is_held` in a pool at zero although others are up: they are full, or would answer later.
    It is to be answered there by `due_at`.
    """

    entry: Entry
    slots: int
    demand: Demand
    is_held: bool = False
    due_at: float = math.inf
    is_left: bool = False


@dataclass(frozen=True, slots=True)
class Seats:
    """Lets requests in, as far as they are answered in time by what was measured of each pool."""

    registry: Registry
    in_flight: InFlight
    windows: BronzeWindows
    clock: Clock
    policy: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    pacemakers: defaultdict[tuple[str, str], Pacemaker] = field(default_factory=_pacemakers)

    async def take(
        self, spec: ModelSpec, demand: Demand, decision: Decision, expires_at: float
    ) -> Seat:
        """A seat in the first pool of the decision that would answer in time.

        Pools whose workers are up and well come first; one at zero takes, but for bronze, whom a
        worker that is started now would answer in time. Where no worker is up at all, the request
        is held for one, however many there are.

        Raises:
            Overloaded: none would.
            Unavailable: what is under way could not be counted.
        """
        refusal: Overloaded | None = None
        any_up = is_up(decision)
        for pool in in_turn(decision):
            candidate = decision.of(pool.name)
            is_held = any_up and candidate.is_cold
            due_s = _due_s(candidate, demand)
            is_in_time = due_s <= demand.timeout_s and demand.tier is not SlaTier.BRONZE
            if is_held and not is_in_time:
                continue
            speed = await self._speed(spec, pool, candidate.slots)
            is_told = candidate.prediction is not None and (
                is_held or await self._is_told_by_profile(spec, pool, speed)
            )
            is_free = not any_up or (is_told and is_in_time)
            limit = NO_LIMIT if is_free else await self._limit(spec, pool, demand, speed)
            entry = await self.in_flight.enter(
                spec.name, pool.name, demand.items, limit, expires_at, demand.tier
            )
            if entry is not None:
                due_at = self.clock() + due_s if is_held else math.inf
                return Seat(entry, candidate.slots, demand, is_held, due_at)
            refusal = refusal or await self._refusal(spec, pool, demand, speed)
        assert refusal is not None, "a decision without a pool"
        raise refusal

    async def move(self, seat: Seat, spec: ModelSpec, pool: Pool, slots: int) -> None:
        """Count a request in the pool in which it is tried now.

        Raises:
            EngineUnavailable: it is bronze, and its window there is full; or it is held, and would
                be answered there later than where it is.
        """
        entry = seat.entry
        if entry.pool == pool.name or seat.is_left:
            return
        try:
            limit = await self._limit_to_move(seat, spec, pool, slots)
            moved = await self.in_flight.enter(
                entry.model, pool.name, entry.items, limit, entry.expires_at, entry.tier
            )
        except Unavailable as error:
            logger.warning("request not counted in its new pool: %s", error.message)
            return
        if moved is None:
            why = "is full" if seat.is_held else "is kept for better tiers"
            raise EngineUnavailable(f"pool {pool.name!r} {why}")
        if seat.entry is not entry or seat.is_left:
            # Another sample of the request was faster, or it is over.
            await self.in_flight.leave(moved)
            return
        seat.entry, seat.slots = moved, slots
        await self.in_flight.leave(entry)

    async def leave(self, seat: Seat) -> None:
        """Give the seat back. Raises nothing."""
        seat.is_left = True
        await self.in_flight.leave(seat.entry)

    async def measure(self, seat: Seat, took_s: float) -> None:
        """Learn from a request that was answered `took_s` after it was sent. Raises nothing."""
        entry, now = seat.entry, self.clock()
        each_s = slot_time_s(took_s, entry.ahead, entry.items, seat.slots)
        sample = ServiceSample(entry.model, entry.pool, entry.items, each_s * entry.items)
        try:
            await self.registry.record_service(sample, now)
            others = (entry.ahead + await self.in_flight.count(entry.model, entry.pool)) / 2
        except Unavailable as error:
            logger.warning("service time not recorded: %s", error.message)
        else:
            self.pacemakers[entry.model, entry.pool].ended(now, others + entry.items, took_s)

    async def _speed(self, spec: ModelSpec, pool: Pool, slots: int) -> Speed:
        now = self.clock()
        rate = await self.registry.service_rate(spec.name, now, pool.name)
        pace = self.pacemakers[spec.name, pool.name].pace(now)
        return Speed(slots, rate.of_items(spec.task), pace)

    async def _is_told_by_profile(self, spec: ModelSpec, pool: Pool, speed: Speed) -> bool:
        """Whether nothing was measured lately, so that what is predicted comes of a profile."""
        if speed.rate.items or not speed.rate.is_guess:
            return speed.rate.items == 0
        profiles = self.windows.companies.profiles
        return await profiles.profile(spec.name, spec.version, pool.name) is not None

    async def _limit(self, spec: ModelSpec, pool: Pool, demand: Demand, speed: Speed) -> int:
        limit = self.policy.limit(demand, speed)
        if demand.tier is not SlaTier.BRONZE:
            return limit
        return min(limit, await self.windows.limit(spec, pool, demand.items))

    async def _limit_to_move(self, seat: Seat, spec: ModelSpec, pool: Pool, slots: int) -> int:
        if seat.entry.tier is SlaTier.BRONZE:
            return await self.windows.limit(spec, pool, seat.entry.items)
        if not seat.is_held:
            return NO_LIMIT
        left_s = min(seat.demand.timeout_s, max(0.0, seat.due_at - self.clock()))
        demand = replace(seat.demand, timeout_s=left_s)
        return self.policy.limit(demand, await self._speed(spec, pool, slots))

    async def _refusal(
        self, spec: ModelSpec, pool: Pool, demand: Demand, speed: Speed
    ) -> Overloaded:
        in_flight = await self.in_flight.count(spec.name, pool.name)
        return Overloaded(
            f"model {spec.name!r} has {in_flight} requests under way, too many to answer another "
            f"within {demand.timeout_s:g} s; try again later",
            retry_after_s=self.policy.retry_after_s(demand, in_flight, speed),
        )


def _due_s(candidate: Candidate, demand: Demand) -> float:
    """When who waits for a worker of a pool at zero is answered: after those who wait already.

    That is predicted for one worker; where nothing is known it is only when a worker is up.
    """
    prediction = candidate.prediction
    if prediction is None:
        return candidate.pool.startup_s
    return (prediction.first_p99_ms if demand.is_stream else prediction.whole_p99_ms) / 1000


def is_up(decision: Decision) -> bool:
    """Whether a worker is up in any of the pools to try."""
    return any(not decision.of(pool.name).is_cold for pool in decision.pools)


def in_turn(decision: Decision) -> Sequence[Pool]:
    """The pools of a decision, those first whose workers are up and well.

    Those come last that are up and would answer later than a worker that starts.
    """
    start_ms = decision.soonest_start_ms()

    def place(pool: Pool) -> int:
        candidate = decision.of(pool.name)
        if not candidate.is_well:
            return 1
        return 2 if (candidate.p99_ms or 0.0) > start_ms else 0

    return sorted(decision.pools, key=place)
