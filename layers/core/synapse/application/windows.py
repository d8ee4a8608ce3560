"""How much bronze a pool takes beside better tiers, as things stand (`domain.window`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from synapse.application.placement import nobody_up
from synapse.application.roster import Crew, Roster
from synapse.application.routing import TYPICAL_OUTPUT_TOKENS
from synapse.application.vitals import Vitals
from synapse.domain.errors import EngineUnavailable
from synapse.domain.expectation import Work, first_ms, whole_ms
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.prediction import UNKNOWN_SPREAD, predicted, slot_ms
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS
from synapse.domain.window import (
    Company,
    Opening,
    Traffic,
    bronze_opening,
    company_of,
    turns_over,
)
from synapse.ports import Clock, InFlight, ProfileStore, Registry

FRESH_S = 0.5
"""How old what is known of the effect of company may be: every batch of bronze asks for it."""

TYPICAL_PROMPT_TOKENS = 128

MIN_SAMPLES = 50
"""Fewer answers do not tell what comes to a hundredth of them."""


@dataclass(frozen=True, slots=True)
class BronzeWindows:
    """The windows of all pools.

    What company does to the better tier is told by the pool's profile, and by what calls took in
    the last minute.
    """

    registry: Registry
    roster: Roster
    profiles: ProfileStore
    in_flight: InFlight
    vitals: Vitals
    clock: Clock
    _companies: dict[tuple[str, str, SlaTier], tuple[float, Company]] = field(default_factory=dict)

    async def room(self, spec: ModelSpec, pool: Pool, ready: int) -> int:
        """How many more items of bronze may start in a pool of so many workers, as `seen`."""
        return (await self.seen(spec, pool, ready)).room

    async def seen(self, spec: ModelSpec, pool: Pool, ready: int) -> Opening:
        """What bronze finds in a pool of so many workers.

        Raises:
            Unavailable: what is under way could not be counted.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        slots = ready * pool.slots_of(spec)
        company = await self._company(spec, pool, traffic)
        return bronze_opening(traffic, slots, company, ready)

    async def limit(self, spec: ModelSpec, pool: Pool, items: int) -> int:
        """The most items of all tiers that may be in flight; raises as `opening` does."""
        return (await self.opening(spec, pool, items)).limit

    async def opening(self, spec: ModelSpec, pool: Pool, items: int) -> Opening:
        """What so many items of bronze that are next find in a pool, with whoever is up there.

        Raises:
            Unavailable: what is under way could not be counted, or the workers could not be read.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        ready = _ready(pool, await self.roster.crew(spec.name, pool.name))
        slots = ready * pool.slots_of(spec)
        company = await self._company(spec, pool, traffic)
        return bronze_opening(traffic, slots, company, ready, items)

    async def slots(self, spec: ModelSpec, pool: Pool) -> int:
        """Those of all workers of a pool that are up.

        Raises:
            Unavailable: the workers could not be read.
        """
        return _ready(pool, await self.roster.crew(spec.name, pool.name)) * pool.slots_of(spec)

    async def may_begin(self, spec: ModelSpec, pool: Pool, tier: SlaTier) -> int | None:
        """How many items of a tier may begin there now: of bronze as many as have room, else all.

        Raises:
            EngineUnavailable: no worker is up.
            Unavailable: the workers, or what is under way, could not be read.
        """
        crew = await self.roster.crew(spec.name, pool.name)
        ready = _ready(pool, crew)
        if ready == 0:
            raise EngineUnavailable(nobody_up(pool, crew.starting))
        return await self.room(spec, pool, ready) if tier is SlaTier.BRONZE else None

    async def _company(self, spec: ModelSpec, pool: Pool, traffic: Traffic) -> Company:
        best = traffic.best
        key, now = (spec.name, pool.name, best), self.clock()
        known = self._companies.get(key)
        if known is not None and 0 <= now - known[0] < FRESH_S:
            return known[1]
        profile = await self.profiles.profile(spec.name, spec.version, pool.name)
        if profile is None:
            rate = await self.registry.service_rate(spec.name, now, pool.name)
            company = self._unprofiled(spec, pool, slot_ms(rate.seconds_per_item), traffic)
        else:
            company = self._profiled(spec, pool, profile, best)
        self._companies[key] = (now, company)
        return company

    def _unprofiled(
        self, spec: ModelSpec, pool: Pool, mean_ms: float | None, traffic: Traffic
    ) -> Company:
        """By the times of whole answers, and of generations by how crowded first tokens came."""
        most = self._not_too_crowded(spec, pool, traffic)
        if mean_ms is None:
            return Company(most=most)
        promise_ms = TIER_P99_MS[traffic.best]
        at_stake = self._at_stake(spec, pool, mean_ms, promise_ms)
        may_wait = turns_over(at_stake, UNKNOWN_SPREAD * mean_ms, mean_ms, promise_ms)
        return Company(may_wait, most, is_brief=mean_ms <= promise_ms)

    def _not_too_crowded(self, spec: ModelSpec, pool: Pool, traffic: Traffic) -> int | None:
        """Gold that is answered too late even alone is held to silver's promise."""
        if spec.task is not Task.GENERATE:
            return None
        crowding, now = self.vitals.pool(spec.name, pool.name).crowding, self.vitals.clock()
        gold = None
        if traffic.best is SlaTier.GOLD:
            gold = crowding.most(now, TIER_P99_MS[SlaTier.GOLD], traffic.wanted)
        return gold or crowding.most(now, TIER_P99_MS[SlaTier.SILVER], traffic.wanted)

    def _profiled(self, spec: ModelSpec, pool: Pool, profile: Profile, best: SlaTier) -> Company:
        """By the profile, as far as the last minute did not tell otherwise.

        What better tiers have to read is what they had lately, at the median: longer prompts than
        theirs would say of promises that they are not to be kept. Gold that is answered too late
        even alone is held to silver's promise.
        """
        generates, slots = spec.task is Task.GENERATE, pool.slots_of(spec)
        vitals, now = self.vitals.pool(spec.name, pool.name), self.vitals.clock()
        lately = vitals.to_read.quantiles(now)
        to_read = TYPICAL_PROMPT_TOKENS if lately is None else round(lately.p50)
        work = Work(to_read, TYPICAL_OUTPUT_TOKENS if generates else 0)
        p50_ms = (first_ms if generates else whole_ms)(profile, work, 1, slots)
        promise_ms = TIER_P99_MS[best]
        if p50_ms > promise_ms:
            promise_ms = TIER_P99_MS[SlaTier.SILVER]
        live = vitals.live(now)

        def p99_ms(in_flight: int) -> float:
            prediction = predicted(
                work.prompt_tokens,
                work.output_tokens,
                items=1,
                ahead=in_flight - 1,
                workers=1,
                slots=slots,
                start_ms=0.0,
                profile=profile,
                seconds_per_item=None,
                live=live,
            )
            assert prediction is not None, "a profile predicts"
            return prediction.first_p99_ms if generates else prediction.whole_p99_ms

        slower = 1.0 if live.whole is None else live.whole.p50
        holds_ms = slower * whole_ms(profile, work, slots, slots)
        at_stake = self._at_stake(spec, pool, holds_ms, promise_ms)
        if turns_over(at_stake, p99_ms(slots), holds_ms, promise_ms):
            return Company(turns_over=True)
        company = company_of(p99_ms, p50_ms, slots, promise_ms)
        lasts_ms = slower * whole_ms(profile, work, company.most or slots, slots)
        return replace(company, is_brief=lasts_ms <= promise_ms)

    def _at_stake(
        self, spec: ModelSpec, pool: Pool, holds_ms: float, promise_ms: float
    ) -> float | None:
        """The share of answers lately that a wait for a slot would have made late.

        On the average it lasts half as long as an item, even where all of them begin together.
        None where that is not known: too few were seen, or the promise is about a part of them.
        """
        vitals = self.vitals
        if spec.task is Task.GENERATE:
            return None
        took_ms, now = vitals.pool(spec.name, pool.name).took_ms, vitals.clock()
        if took_ms.count(now) < MIN_SAMPLES:
            return None
        return took_ms.share(now, promise_ms - holds_ms / 2, promise_ms)


def _ready(pool: Pool, crew: Crew) -> int:
    """How many workers take calls: the runner of a fixed one sees its own, others have theirs."""
    up = len(crew.ready)
    return max(up, pool.fixed_workers) if pool.is_fixed else up
