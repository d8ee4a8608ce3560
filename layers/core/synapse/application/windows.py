"""How much bronze a pool takes beside better tiers, as things stand (`domain.window`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse.application.roster import Roster
from synapse.application.vitals import Vitals
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.prediction import Live, Prediction, predicted
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS
from synapse.domain.window import Company, bronze_room, bronze_window, company_of
from synapse.ports import Clock, InFlight, ProfileStore, Registry

FRESH_S = 0.5
"""How old what is known of the effect of company may be: every batch of bronze asks for it."""

TYPICAL_PROMPT_TOKENS = 128
TYPICAL_OUTPUT_TOKENS = 256


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
        """How many more items of bronze may start in a pool of so many workers.

        Raises:
            Unavailable: what is under way could not be counted.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        slots = ready * pool.slots_of(spec)
        company = await self._company(spec, pool, traffic.best)
        return bronze_room(traffic, slots, company, ready)

    async def limit(self, spec: ModelSpec, pool: Pool, items: int) -> int:
        """The most items of all tiers that may be in flight there with these of bronze.

        Where nothing is in flight they may start, however many they are.

        Raises:
            Unavailable: what is under way could not be counted, or the workers could not be read.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        ready = 1
        if not pool.is_fixed:
            ready = len((await self.roster.crew(spec.name, pool.name)).ready)
        slots = ready * pool.slots_of(spec)
        company = await self._company(spec, pool, traffic.best)
        window = bronze_window(traffic, slots, company, ready)
        least = items if traffic.in_flight == 0 else 0
        return max(least, min(slots, traffic.better + window))

    async def _company(self, spec: ModelSpec, pool: Pool, best: SlaTier) -> Company:
        key, now = (spec.name, pool.name, best), self.clock()
        known = self._companies.get(key)
        if known is not None and 0 <= now - known[0] < FRESH_S:
            return known[1]
        profile = await self.profiles.profile(spec.name, spec.version, pool.name)
        rate = await self.registry.service_rate(spec.name, now, pool.name)
        live = self.vitals.pool(spec.name, pool.name).live(self.vitals.clock())
        company = _company(spec, pool, profile, rate.seconds_per_item, live, TIER_P99_MS[best])
        self._companies[key] = (now, company)
        return company


def _company(
    spec: ModelSpec,
    pool: Pool,
    profile: Profile | None,
    seconds_per_item: float | None,
    live: Live,
    promise_ms: float,
) -> Company:
    generates = spec.task is Task.GENERATE
    slots = pool.slots_of(spec)
    written = TYPICAL_OUTPUT_TOKENS if generates else 0

    def among(in_flight: int) -> Prediction | None:
        return predicted(
            TYPICAL_PROMPT_TOKENS,
            written,
            items=1,
            ahead=in_flight - 1,
            workers=1,
            slots=slots,
            start_ms=0.0,
            profile=profile,
            seconds_per_item=seconds_per_item,
            live=live,
        )

    if among(1) is None:
        return Company()

    def p99_ms(in_flight: int) -> float:
        prediction = among(in_flight)
        assert prediction is not None
        return prediction.first_p99_ms if generates else prediction.whole_p99_ms

    def holds_ms(in_flight: int) -> float:
        prediction = among(in_flight)
        assert prediction is not None
        return prediction.whole_p99_ms

    p50_ms = p99_ms(1)
    if profile is not None:
        first, whole = (
            profile.first_p50_ms(TYPICAL_PROMPT_TOKENS, 1),
            profile.alone_ms(TYPICAL_PROMPT_TOKENS, written),
        )
        p50_ms = first if generates else whole
    return company_of(p99_ms, p50_ms, holds_ms, slots, promise_ms)
